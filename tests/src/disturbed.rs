//! A small cluster whose kernel others change, and what the daemon says of it. For tests in the test
//! kernel, which fail by panicking here.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "tests alone use it, and fail by it"
)]

use std::process::{Child, Command};

use serde_json::json;

use crate::apiserver::object::{node, service, slice};
use crate::command::output;
use crate::golden::Dump;
use crate::http::{METRICS, get};
use crate::live::{Live, NODE, NODE_ADDRESS};
use crate::netns::require_test_kernel;

/// No audit within a test: what is repaired is so because the kernel has told of it.
pub const NO_AUDIT: &[&str] = &["--ipvs-sync-period=1h"];

/// Nothing is told of: what is repaired is so because of an audit.
pub const AUDITS: &[&str] =
    &["--ipvs-sync-period=1s", "--ipvs-min-sync-period=0s", "--ipvs-exclude-cidrs=198.51.100.0/24"];

/// Runs a script, which must end well, and returns what it prints.
pub fn sh(script: &str) -> String {
    output(Command::new("bash").args(["-euo", "pipefail", "-c", script])).unwrap()
}

/// A server with Services of both families, and the node.
pub fn cluster() -> Live {
    require_test_kernel().unwrap();
    let live = Live::start().unwrap();
    let mut six = service("dev", "six", "fd00:10:96::1");
    six["spec"]["ipFamilies"] = json!(["IPv6"]);
    live.server.put_all([
        node(NODE, NODE_ADDRESS),
        service("dev", "web", "10.96.0.1"),
        slice("dev", "web-1", "web", &["10.244.0.5", "10.244.0.6"]),
        service("dev", "other", "10.96.0.2"),
        slice("dev", "other-1", "other", &["10.244.0.7"]),
        six,
    ]);
    live
}

/// [`cluster`] with a daemon that has programmed it, and what it has programmed.
pub fn programmed(arguments: &[&str]) -> (Live, Dump) {
    let mut live = cluster();
    live.start_daemon(arguments).unwrap();
    let wanted = live.dry_run().unwrap();
    live.until_as("the services", &wanted).unwrap();
    live.until("rules of both families", |_, _| has_rules()).unwrap();
    (live, wanted)
}

/// Carries out a script while the daemon is stopped, so that it meets all of it at once.
pub fn behind_its_back(live: &Live, script: &str) -> String {
    let pid = live.pid().unwrap();
    sh(&format!("kill -STOP {pid}; trap 'kill -CONT {pid}' EXIT\n{script}"))
}

/// Our chains and the jumps to them, of both families.
pub fn rules() -> String {
    let ours = "{ grep -e KUBE- -e '^[*]' || true; } | sed 's/ \\[[0-9:]*\\]//'";
    sh(&format!("iptables-save | {ours}; ip6tables-save | {ours}"))
}

/// Whether our jumps are there, of both families.
pub fn has_rules() -> bool {
    let rules = rules();
    let two = |from: &str, to: &str| {
        let jumps = rules.lines().filter(|line| line.starts_with(from) && line.ends_with(to));
        jumps.count() == 2
    };
    two("-A POSTROUTING ", " KUBE-POSTROUTING") && two("-A PREROUTING ", " KUBE-SERVICES")
}

/// The samples of a metric of the running daemon, each with its labels if it has any.
pub fn samples(name: &str) -> Vec<(String, u64)> {
    let (_, text) = get(METRICS, "/metrics").unwrap();
    let of = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let own = labels.is_empty() || labels.starts_with('{');
        own.then(|| (labels.to_owned(), value.parse().unwrap()))
    };
    text.lines().filter_map(of).collect()
}

/// A metric of the running daemon, without labels.
pub fn metric(name: &str) -> u64 {
    let found = samples(name);
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0].1
}

/// Waits until the daemon has said that it repaired more than before: it says so after it has.
pub fn counted_beyond(live: &mut Live, what: &str, before: u64) -> u64 {
    live.until(what, |_, _| metric("proxier_drift_total") > before).unwrap();
    metric("proxier_drift_total")
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts a script.
    pub fn start(script: &str) -> Self {
        Self(Command::new("bash").args(["-c", script]).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
