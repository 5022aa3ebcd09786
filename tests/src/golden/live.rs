//! Reading the kernel back with the tools that operators use: `ipvsadm`, `ip`, `ipset`,
//! `iptables-save`, `/proc/sys` and plain HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Dump, Health, Part, blocks, ipset_save, iptables_save};
use crate::command::output;
use crate::http::get;
use crate::netns::Namespace;

/// The interface that carries the service addresses.
const INTERFACE: &str = "kube-ipvs0";

/// The headers that the goldens record, as they are spelled there.
const HEADERS: [&str; 3] =
    ["Content-Type", "X-Content-Type-Options", "X-Load-Balancing-Endpoint-Weight"];

/// The one key that is not a sysctl.
const TIMEOUTS: &str = "ipvs.timeout.tcp_tcpfin_udp";

/// What to expect of sysctls in another kernel than the one of the recording.
#[derive(Debug)]
pub struct Sysctls {
    /// Values in this kernel before the daemon started.
    before: BTreeMap<String, String>,
}

/// Reads these parts of a network namespace, or of the caller's own. Of sysctls and health checks only
/// those that `like` has, and only in the caller's own.
pub fn observe(at: Option<&Namespace>, like: &Dump, parts: &[Part]) -> Result<Dump> {
    let run = |words: &[&str]| -> Result<String> {
        let (program, arguments) = words.split_first().context("a command")?;
        let mut command = at.map_or_else(|| Command::new(program), |at| at.command(program));
        output(command.args(arguments))
    };
    let mut dump = Dump::default();
    for part in parts {
        match part {
            // Not ipvsadm-save: that is a script around this.
            Part::Ipvs => dump.ipvs = blocks(&run(&["ipvsadm", "-S", "-n"])?),
            Part::Addresses => {
                dump.addresses = addresses(&run(&["ip", "-j", "-d", "addr", "show"])?)?;
            }
            Part::Sets => dump.sets = ipset_save(&run(&["ipset", "save"])?),
            Part::Rules => {
                (dump.nat4, dump.filter4) = iptables_save(&run(&["iptables-save"])?);
                (dump.nat6, dump.filter6) = iptables_save(&run(&["ip6tables-save"])?);
            }
            Part::Sysctls | Part::Health if at.is_some() => bail!("{part:?} of another namespace"),
            Part::Sysctls => dump.sysctls = sysctls(like.sysctls.keys())?,
            Part::Health => dump.health = health(like.health.keys()),
        }
    }
    Ok(dump)
}

// === impl Sysctls ===

impl Sysctls {
    /// Notes the values of `keys` as they are now.
    pub fn note<'a>(keys: impl Iterator<Item = &'a String>) -> Result<Self> {
        Ok(Self { before: sysctls(keys)? })
    }

    /// What `golden` means in this kernel: a value that the recorded daemon changed is the recorded
    /// one, any other is what it was here before.
    pub fn expect(
        &self,
        golden: &BTreeMap<String, String>,
        before: &[(String, String)],
    ) -> BTreeMap<String, String> {
        let unchanged =
            |key: &String, value: &String| before.iter().any(|(k, v)| k == key && v == value);
        golden
            .iter()
            .filter_map(|(key, value)| {
                let value = if unchanged(key, value) { self.before.get(key)? } else { value };
                Some((key.clone(), value.clone()))
            })
            .collect()
    }
}

/// The state and the addresses of our interface, none if there is none.
fn addresses(text: &str) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    let all: Value = serde_json::from_str(text).context("parse the output of ip -j addr")?;
    let every = all.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(link) = every.iter().find(|link| link["ifname"] == INTERFACE) {
        let kind = link["linkinfo"]["info_kind"].as_str().unwrap_or("?");
        let up =
            link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
        lines.insert(format!("link {INTERFACE} {kind} {}", if up { "UP" } else { "DOWN" }));
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let text = |key: &str| address[key].as_str().unwrap_or("?").to_owned();
            if text("scope") != "link" {
                let (family, local, scope) = (text("family"), text("local"), text("scope"));
                lines.insert(format!("{family} {local}/{} scope {scope}", address["prefixlen"]));
            }
        }
    }
    Ok(lines)
}

/// The values that exist among these keys.
fn sysctls<'a>(keys: impl Iterator<Item = &'a String>) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    for key in keys {
        if key == TIMEOUTS {
            let text = output(Command::new("ipvsadm").args(["-l", "--timeout"]))?;
            let value = text.split_once(':').map_or("", |(_, value)| value.trim());
            values.insert(key.clone(), value.to_owned());
        } else if let Ok(value) = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/")))
        {
            values.insert(key.clone(), value.trim().to_owned());
        }
    }
    Ok(values)
}

/// What these URLs answer, in the form of `health.txt`.
fn health<'a>(urls: impl Iterator<Item = &'a String>) -> Health {
    let answer = |url: &String| match answer(url) {
        Ok(response) => response,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            "error: ConnectionRefusedError: Connection refused".to_owned()
        }
        Err(error) => format!("error: {error}"),
    };
    urls.map(|url| (url.clone(), answer(url))).collect()
}

fn answer(url: &str) -> std::io::Result<String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (head, body) = get(host, &format!("/{path}"))?;
    let status = head.split_whitespace().nth(1).unwrap_or("?");
    let mut text = format!("HTTP {status}\n");
    for name in HEADERS {
        let header = |line: &&str| {
            line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        if let Some((_, value)) = head.lines().find(header).and_then(|line| line.split_once(':')) {
            text = text + name + ": " + value.trim() + "\n";
        }
    }
    text.push('\n');
    text.push_str(&without_times(&body));
    Ok(text.trim().to_owned())
}

/// A health check body with `TIME` in place of times.
fn without_times(body: &str) -> String {
    let mut text = body.to_owned();
    for key in ["\"lastUpdated\":", "\"currentTime\":"] {
        let mut pieces = text.split(key);
        let mut clean = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            // The value is a string: it ends at the second quotation mark.
            let rest = piece.splitn(3, '"').nth(2).unwrap_or(piece);
            clean = clean + key + " \"TIME\"" + rest;
        }
        text = clean;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_replaced_and_nothing_else() {
        let body = r#"{"lastUpdated":"2026-06-01T12:00:00Z","currentTime": "2026","healthy":true,"status":{"IPv4":{"lastUpdated":"x","healthy":true}}}"#;
        assert_eq!(
            without_times(body),
            r#"{"lastUpdated": "TIME","currentTime": "TIME","healthy":true,"status":{"IPv4":{"lastUpdated": "TIME","healthy":true}}}"#
        );
        assert_eq!(without_times("ok"), "ok");
    }

    #[test]
    fn a_sysctl_that_was_not_changed_keeps_its_own_value() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let here = Sysctls { before: map(&[("max", "65536"), ("forward", "0")]) };
        let golden = map(&[("max", "131072"), ("forward", "1"), ("unknown_here", "1")]);
        let before: Vec<_> = map(&[("max", "131072"), ("forward", "0"), ("unknown_here", "1")])
            .into_iter()
            .collect();
        assert_eq!(here.expect(&golden, &before), map(&[("max", "65536"), ("forward", "1")]));
    }
}
