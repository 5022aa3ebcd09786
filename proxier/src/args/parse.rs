//! Values of flags as Go reads them.

use std::ffi::OsString;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::value::{GoDuration, parse_cidr, parse_ip};

/// Makes `--some_flag=a_b` out of `--some-flag=a_b`; kube-proxy takes both.
pub(super) fn with_dashes(argument: OsString) -> OsString {
    let Some(text) = argument.to_str().filter(|text| text.starts_with("--")) else {
        return argument;
    };
    let end = text.find('=').unwrap_or(text.len());
    let (name, value) = text.split_at(end);
    format!("{}{value}", name.replace('_', "-")).into()
}

/// A switch's value.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// `NAME=BOOL`; nothing at all gives an empty name.
pub(super) fn gate(text: &str) -> Result<(String, bool), String> {
    if text.trim().is_empty() {
        return Ok((String::new(), false));
    }
    let (name, on) =
        text.trim().split_once('=').ok_or_else(|| format!("missing bool value for {text}"))?;
    let (name, on) = (name.trim(), on.trim());
    match boolean(on) {
        Ok(value) => Ok((name.to_owned(), value)),
        Err(error) => Err(format!("invalid value of {name}={on}, err: {error}")),
    }
}

/// `PATTERN=VERBOSITY`; nothing at all gives an empty pattern.
pub(super) fn vmodule(text: &str) -> Result<(String, u32), String> {
    if text.is_empty() {
        return Ok((String::new(), 0));
    }
    let wanted = || "write PATTERN=VERBOSITY, such as reconcile=4".to_owned();
    let (pattern, verbosity) = text.split_once('=').ok_or_else(wanted)?;
    let verbosity = verbosity.parse().map_err(|_| wanted())?;
    if pattern.is_empty() { Err(wanted()) } else { Ok((pattern.to_owned(), verbosity)) }
}

/// An IP address.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    parse_ip(text.trim()).ok_or_else(|| "not an IP address".to_owned())
}

/// A network, or an address, which is a network of its own.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let net = parse_cidr(text).or_else(|| parse_ip(text).map(IpNet::from));
    net.ok_or_else(|| "not a CIDR such as 192.0.2.0/24".to_owned())
}

/// A duration of at least 0.
pub(super) fn not_negative(text: &str) -> Result<GoDuration, String> {
    let duration: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    if duration < GoDuration::ZERO { Err("must not be negative".to_owned()) } else { Ok(duration) }
}

/// A list of CPUs as the kernel writes it: numbers and ranges.
pub(super) fn cpu_list(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u32>().ok();
    let is_part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first).zip(number(last)).is_some_and(|(first, last)| first <= last)
    };
    if text.split(',').all(is_part) {
        Ok(text.to_owned())
    } else {
        Err("write numbers and ranges of CPUs, such as 0-3,5".to_owned())
    }
}

/// The value of `--version`.
pub(super) fn version(text: &str) -> Result<String, String> {
    match (text, boolean(text)) {
        ("raw", _) | (_, Ok(true)) => Ok(text.to_owned()),
        (_, Ok(false)) => Ok("false".to_owned()),
        _ => Err("write true, false or raw".to_owned()),
    }
}
