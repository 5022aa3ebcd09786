//! `proxier status`: what the running proxy of this node knows, asked over its local HTTP endpoint.

mod follow;

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::dry_run::style;
use crate::app::{print_json, print_text, report};
use crate::args::{Args, Output, StatusArgs};
use crate::config::{Config, ConfigError, Host};
use crate::http::State;
use crate::listing::Held;
use crate::render::Style;
use crate::text::{self, chain};
use crate::value::GoDuration;

/// How long the running proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints what `/status.json` of the metrics address says of the whole. Exit status: 0 in sync, 2 in sync and
/// something needs attention, 1 anything else.
pub(in crate::app) fn run(
    args: &Args,
    config: &Config,
    asked: &StatusArgs,
) -> anyhow::Result<ExitCode> {
    let metrics = config.metrics_bind;
    if args.own.watch {
        return follow::watch(metrics, args.own.output);
    }
    if asked.wait.is_some() {
        return follow::wait(metrics, asked.timeout());
    }
    // No service: the question is how the whole is doing.
    let body = ask(metrics, "/status.json?q=%00")?;
    let status: Value = serde_json::from_str(&body).context("read the status")?;
    if args.own.output == Output::Json {
        print_json(&status)?;
    } else {
        print_text(&text(&status, style()))?;
    }
    Ok(exit_status(&status))
}

fn exit_status(status: &Value) -> ExitCode {
    ExitCode::from(match State::by_words(state(status)) {
        Some(State::InSync) => 0,
        Some(State::NeedsAttention) => 2,
        _ => 1,
    })
}

/// With a configuration that cannot be used: the daemon still has the one before, and answers where that, as far
/// as it can be told, said.
pub(in crate::app) fn without(
    args: &Args,
    asked: &StatusArgs,
    error: ConfigError,
) -> anyhow::Result<ExitCode> {
    let mut flags = args.clone();
    let Some(path) = flags.always.config.take() else { return Err(error.into()) };
    let Ok(mut config) = Config::load(&flags, &Host) else { return Err(error.into()) };
    report(&format!("{} is not used: {}", path.display(), chain(&error)));
    if let Some(address) = address_in(&read_start(&path)) {
        config.metrics_bind = address;
    }
    run(args, &config, asked)
}

/// What can be read of a file that may be anything; nothing of one that is no file.
fn read_start(path: &Path) -> String {
    const MOST: u64 = 1 << 20;
    let file = path.metadata().ok().filter(Metadata::is_file).and_then(|_| File::open(path).ok());
    let mut bytes = Vec::new();
    // What was read until it failed is as good.
    let _ = file.map(|file| file.take(MOST).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The metrics address in the text of a configuration, whatever else is wrong with it.
fn address_in(text: &str) -> Option<SocketAddr> {
    let value = text.lines().find_map(|line| line.strip_prefix("metricsBindAddress:"))?;
    let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    value.parse().ok()
}

/// What the proxy that runs here, if one does, holds back.
pub(in crate::app) fn held_back(metrics: SocketAddr) -> Vec<Held> {
    let status = ask(metrics, "/status.json?q=%00").ok();
    let status = status.and_then(|body| serde_json::from_str(&body).ok());
    let status: Value = status.unwrap_or_default();
    let of =
        |it: &Value| Some(Held { address: it["address"].as_str()?.parse().ok()?, text: held(it) });
    list(&status["heldBack"]["first"]).iter().filter_map(of).collect()
}

fn local(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// What the proxy that runs here says to `GET PATH`.
pub(super) fn ask(metrics: SocketAddr, path: &str) -> anyhow::Result<String> {
    let address = local(metrics);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("no proxy answers on {address} (--metrics-bind-address)"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // Whoever has answered before it has read everything says why below.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        // The kernel's words for a time limit are "Resource temporarily unavailable".
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("the proxy at {address} did not answer within {} s", PATIENCE.as_secs());
        }
        result => result.with_context(|| format!("read the answer of {address}"))?,
    };
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("what answers on {address} does not speak HTTP");
    };
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 404 ") {
        bail!(
            "what answers on {address} is not proxier ({status}): look whether kube-proxy still runs \
             on this node, and for `cannot listen` in proxier's log"
        );
    }
    if !status.contains(" 200 ") {
        bail!("{address} answers {status}");
    }
    Ok(body.to_owned())
}

/// How the whole is doing, in the proxy's words.
fn state(status: &Value) -> &str {
    status["state"].as_str().unwrap_or("unknown")
}

/// For people. Writing to a string does not fail, here and below.
fn text(status: &Value, style: Style) -> String {
    let mut out = String::new();
    let (bold, plain) = if style.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let state = state(status);
    let colour = match State::by_words(state) {
        Some(State::InSync) => "\x1b[32m",
        Some(State::NeedsAttention | State::Reading) => "\x1b[33m",
        _ => "\x1b[31m",
    };
    let colour = if style.colour { colour } else { "" };
    let seconds = |value: &Value| {
        value.as_i64().map_or("never".to_owned(), |s| GoDuration::from_secs(s).to_string())
    };
    let _ = writeln!(
        out,
        "{bold}{}{plain}: {colour}{}{plain} (proxier {}, up {})",
        word(&status["node"]),
        text::line(state),
        word(&status["version"]),
        seconds(&status["upSeconds"])
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<16} {value}");
    };
    for (name, field) in [
        ("services", "services"),
        ("virtual servers", "virtualServers"),
        ("real servers", "realServers"),
    ] {
        line(name, &word(&status[field]));
    }
    if status["failingSeconds"].is_number() {
        let since = seconds(&status["failingSeconds"]);
        line("failing", &format!("{}, for {since}", word(&status["failingTargets"])));
    }
    for look in list(&status["attention"]) {
        let (what, since) = (word(&look["what"]), seconds(&look["seconds"]));
        line("attention", &format!("{what} (for {since})"));
        line("", &word(&look["then"]));
    }
    if status["handOver"].is_string() {
        line("hand-over", &word(&status["handOver"]));
    }
    for watch in list(&status["watches"]) {
        let state = if watch["connected"] == true { "connected" } else { "not connected" };
        let heard = match &watch["silentSeconds"] {
            silent if silent.is_number() => format!("last heard {} ago", seconds(silent)),
            _ => "never heard".to_owned(),
        };
        // A sum, not a state.
        let failures = number(&watch["failures"], "failure");
        let value = format!(
            "{:<15} {state}, {heard}; {failures} since the start",
            word(&watch["resource"])
        );
        line("watch", &value);
    }
    part(&mut out, &status["heldBack"], "held back", held);
    part(&mut out, &status["draining"], "draining", |drain| {
        format!(
            "{} of {}: {}, at most {} more",
            word(&drain["realServer"]),
            word(&drain["virtualServer"]),
            number(&drain["connections"], "connection"),
            seconds(&drain["secondsLeft"])
        )
    });
    part(&mut out, &status["conflicts"], "conflict", |conflict| {
        let losers: Vec<String> = list(&conflict["losers"]).iter().map(word).collect();
        format!(
            "{} goes to {}, not to {}",
            word(&conflict["virtualServer"]),
            word(&conflict["winner"]),
            text::and_more(
                &losers.join(", "),
                conflict["moreLosers"].as_u64().unwrap_or(0) as usize
            )
        )
    });
    for error in list(&status["errors"]) {
        let _ = writeln!(out, "{:<16} {}", "last error", word(error));
    }
    out
}

/// What waits, and for what.
fn held(held: &Value) -> String {
    format!("{} waits for {}", word(&held["target"]), word(&held["waitsFor"]))
}

fn part(out: &mut String, part: &Value, name: &str, row: impl Fn(&Value) -> String) {
    let first = list(&part["first"]);
    for shown in first {
        let _ = writeln!(out, "{name:<16} {}", row(shown));
    }
    let more = part["total"].as_u64().unwrap_or(0).saturating_sub(first.len() as u64);
    if more > 0 {
        let _ = writeln!(out, "{name:<16} and {more} more");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `1 connection`, `2 connections`.
fn number(of: &Value, what: &str) -> String {
    of.as_u64().map_or_else(|| word(of), |number| text::count(number as usize, what))
}

/// A text that may be shown, or a number.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text::line(text).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_broken_file_is_found() {
        for (text, found) in [
            ("mode: [\nmetricsBindAddress: 0.0.0.0:10249\n", Some("0.0.0.0:10249")),
            ("metricsBindAddress: \"[::1]:1\" # here\n", Some("[::1]:1")),
            ("metricsBindAddress:\n", None),
            ("", None),
        ] {
            assert_eq!(address_in(text).map(|address| address.to_string()).as_deref(), found);
        }
    }

    #[test]
    fn everything_that_is_wrong_has_a_line() {
        let status = serde_json::json!({
            "node": "n1", "version": "1.2.3", "upSeconds": 3700, "complete": true, "synced": false,
            "healthy": true, "services": 3, "virtualServers": 5, "realServers": 9,
            "failingTargets": 2, "failingSeconds": 61,
            "state": "not in sync",
            "attention": [{"kind": "configuration", "what": "it is refused: mode: no such mode",
                "seconds": 5, "then": "mend the file"}],
            "watches": [{"resource": "services", "connected": false, "silentSeconds": 12, "failures": 4}],
            "heldBack": {"total": 3, "first": [{"target": "address 10.96.0.1",
                "waitsFor": "IPv4 firewall rules", "address": "10.96.0.1"}]},
            "draining": {"total": 51, "first": [{"virtualServer": "10.96.0.1:80/tcp",
                "realServer": "10.244.0.9:8080", "connections": 3, "secondsLeft": 90}]},
            "conflicts": {"total": 1, "first": [{"virtualServer": "10.96.0.1:80/tcp",
                "winner": "a/older", "losers": ["a/newer", "b/newest"]}]},
            "errors": ["bind 10.96.0.1: no\u{1b}[2J"],
        });
        let plain = Style { width: 80, colour: false };
        assert_eq!(
            text(&status, plain),
            "n1: not in sync (proxier 1.2.3, up 1h1m40s)\n\
             services         3\n\
             virtual servers  5\n\
             real servers     9\n\
             failing          2, for 1m1s\n\
             attention        it is refused: mode: no such mode (for 5s)\n\
             \x20                mend the file\n\
             watch            services        not connected, last heard 12s ago; 4 failures since the start\n\
             held back        address 10.96.0.1 waits for IPv4 firewall rules\n\
             held back        and 2 more\n\
             draining         10.244.0.9:8080 of 10.96.0.1:80/tcp: 3 connections, at most 1m30s more\n\
             draining         and 50 more\n\
             conflict         10.96.0.1:80/tcp goes to a/older, not to a/newer, b/newest\n\
             last error       bind 10.96.0.1: no\\u{1b}[2J\n"
        );
        let colour = text(&status, Style { width: 80, colour: true });
        assert!(colour.contains("\u{1b}[31mnot in sync\u{1b}[0m"), "{colour}");
    }
}
