//! Churn with faults mixed in, for as long as one likes: nothing is lost, nothing is left behind, and
//! nothing grows.
//!
//! `PROXIER_SOAK_SECONDS` says for how long (45; an hour with `PROXIER_FULL`), `PROXIER_SOAK_SEED` with
//! which numbers (1).

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::apiserver::{Fault, On};
use proxier_tests::command::{output, program, run};
use proxier_tests::golden::Dump;
use proxier_tests::live::{Live, NODE, NODE_ADDRESS, kernel};
use proxier_tests::netns::require_test_kernel;
use proxier_tests::{figure, full};

const SERVICES: u64 = 200;
const ENDPOINTS: u64 = 5;
/// Changes between two faults.
const CHANGES: u64 = 40;
/// Drains end soon, so that what was removed does not pass for a leak.
const ARGUMENTS: [&str; 3] =
    ["--ipvs-sync-period=2s", "--ipvs-min-sync-period=0s", "--drain-timeout=5s"];

/// What goes wrong in the kernel and on the host, as root would do it. It may meet the same fault of
/// just before, which nobody has repaired yet, and be repaired between two of its commands.
const SCRIPTS: [&str; 8] = [
    "ipvsadm -C",
    "ipvsadm -A -t 10.96.9.9:80 -s rr || exit 0
     ipvsadm -a -t 10.96.9.9:80 -r 10.244.0.1:80 -m || ! ipvsadm -Ln -t 10.96.9.9:80 >&2",
    "ip link show kube-ipvs0 >&2 || exit 0; ip addr flush dev kube-ipvs0",
    "ip link show kube-ipvs0 >&2 || exit 0; ip link del kube-ipvs0",
    "ipset flush KUBE-CLUSTER-IP",
    "iptables -t nat -F KUBE-SERVICES",
    "ip link show kube-ipvs0 >&2 || exit 0
     kill -STOP $PID; ip addr flush dev kube-ipvs0; sleep 1; kill -CONT $PID",
    "for n in {1..400}; do echo addr add 10.99.$((n / 250)).$((n % 250))/32 dev lo; done | ip -batch -
     ip addr flush dev lo scope global",
];

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        // Numerical Recipes' constants; the high bits are the better ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What the daemon uses.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    kib: u64,
    files: usize,
    sockets: usize,
}

impl Sample {
    fn of(pid: u32, since: Instant) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        // One may be closed while we look.
        let links: Vec<_> =
            files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect();
        let sockets = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:"));
        let sockets = sockets.count();
        Self { seconds: since.elapsed().as_secs_f64(), kib, files: links.len(), sockets }
    }
}

/// KiB a minute, by least squares.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |value: fn(&Sample) -> f64| samples.iter().map(value).sum::<f64>() / count;
    let (time, memory) = (mean(|s| s.seconds), mean(|s| s.kib as f64));
    let over = samples.iter().map(|s| (s.seconds - time) * (s.kib as f64 - memory)).sum::<f64>();
    let under = samples.iter().map(|s| (s.seconds - time).powi(2)).sum::<f64>();
    60.0 * over / under
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn address(n: u64) -> String {
    format!("10.96.{}.{}", n / 200, n % 200 + 1)
}

fn endpoints(numbers: &mut Numbers, n: u64) -> serde_json::Value {
    let addresses: Vec<String> = (0..ENDPOINTS)
        .map(|_| format!("10.244.{}.{}", n % 250, numbers.below(250) + 1))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    slice("dev", &format!("web-{n}-1"), &format!("web-{n}"), &addresses)
}

/// One change of the cluster, small or large.
fn change(live: &Live, numbers: &mut Numbers) {
    let n = numbers.below(SERVICES);
    let name = format!("web-{n}");
    match numbers.below(10) {
        0 => live.server.delete("services", "dev", &name),
        1 => live.server.delete("endpointslices", "dev", &format!("{name}-1")),
        2..=4 => live.server.put(service("dev", &name, &address(n))),
        _ => live.server.put(endpoints(numbers, n)),
    }
}

/// One fault; its name.
fn break_something(live: &mut Live, numbers: &mut Numbers) -> &'static str {
    let refuse = Fault::Refuse { code: 503, retry_after: None };
    match numbers.below(14) {
        0 => {
            live.server.disconnect();
            "watches cut"
        }
        1 => {
            live.server.compact();
            live.server.disconnect();
            "history gone"
        }
        2 => {
            live.stop_server();
            (0..CHANGES).for_each(|_| change(live, numbers));
            live.resume_server().unwrap();
            "server gone"
        }
        3 => {
            live.server.fault(On::Any("services"), 2, refuse);
            live.server.disconnect();
            "refused"
        }
        4 => {
            live.server.fault(On::Streaming("endpointslices"), 1, Fault::Cut { after: 3000 });
            live.server.compact();
            live.server.disconnect();
            "list cut"
        }
        5 => {
            live.server.fault(On::Watch("services"), 1, Fault::Duplicate);
            live.server.disconnect();
            "events twice"
        }
        n => {
            let script = SCRIPTS[n as usize - 6];
            let pid = live.pid().unwrap().to_string();
            output(Command::new("bash").args(["-euo", "pipefail", "-c", script]).env("PID", pid))
                .unwrap();
            script.lines().next().unwrap()
        }
    }
}

/// Everything of ours in the kernel.
fn everything() -> (Dump, String) {
    let ours = "grep -e KUBE- | sed 's/ \\[[0-9:]*\\]//'";
    let script = format!("iptables-save | {ours}; ip6tables-save | {ours}; ipset list -n | sort");
    (kernel().unwrap(), run("bash", ["-euo", "pipefail", "-c", &script]).unwrap())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn churn_with_faults_leaves_nothing_behind() {
    require_test_kernel().unwrap();
    let seconds = number("PROXIER_SOAK_SECONDS").unwrap_or(if full() { 3600 } else { 45 });
    let mut numbers = Numbers(number("PROXIER_SOAK_SEED").unwrap_or(1));
    let mut live = Live::start().unwrap();
    live.server.put(node(NODE, NODE_ADDRESS));
    for n in 0..SERVICES {
        live.server.put(service("dev", &format!("web-{n}"), &address(n)));
        live.server.put(endpoints(&mut numbers, n));
    }
    live.start_daemon_quietly(&ARGUMENTS).unwrap();
    live.converge("everything").unwrap();

    let pid = live.pid().unwrap();
    let began = Instant::now();
    let mut samples = vec![Sample::of(pid, began)];
    let mut faults = BTreeMap::<&str, u64>::new();
    let (mut changes, mut rounds) = (0, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..CHANGES {
            change(&live, &mut numbers);
        }
        changes += CHANGES;
        *faults.entry(break_something(&mut live, &mut numbers)).or_default() += 1;
        rounds += 1;
        if rounds % 4 == 0 {
            live.server.forgive();
            live.converge("what the cluster says, after faults").unwrap();
            samples.push(Sample::of(pid, began));
            live.server.compact();
        }
    }
    live.server.forgive();
    live.converge("what the cluster says, at the end").unwrap();
    assert_eq!(live.pid().unwrap(), pid, "one daemon all the time");
    samples.push(Sample::of(pid, began));

    let settled = &samples[samples.len() / 4..];
    let last = samples[samples.len() - 1];
    let most = |value: fn(&Sample) -> usize| settled.iter().map(value).max().unwrap();
    let injected: u64 = faults.values().sum();
    let figures = format!(
        "soak: {:.0} s, {changes} changes, {injected} faults, lost: 0; memory {} KiB at the start, {} after a \
         quarter, {} at the end, {:+.1} KiB a minute; files {} at the start, {} at most, {} at the end; sockets {}, \
         {}, {}; faults: {faults:?}",
        last.seconds,
        samples[0].kib,
        settled[0].kib,
        last.kib,
        slope(settled),
        samples[0].files,
        most(|s| s.files),
        last.files,
        samples[0].sockets,
        most(|s| s.sockets),
        last.sockets,
    );
    figure(&figures);
    // Watches that were just opened anew may still have their old connections.
    assert!(last.files <= samples[0].files + 6, "{figures}");
    assert!(last.kib <= settled[0].kib + settled[0].kib / 4, "{figures}");

    // What it is now is what a new daemon makes of nothing.
    let grown = everything();
    live.start_daemon_quietly(&ARGUMENTS).unwrap();
    live.converge("the same").unwrap();
    assert_eq!(everything(), grown, "a restart changes nothing");
    live.stop_daemon();
    run(&program("proxier").unwrap().display().to_string(), ["cleanup"]).unwrap();
    live.start_daemon_quietly(&ARGUMENTS).unwrap();
    live.converge("a rebuild").unwrap();
    live.until("the rules", |_, _| everything().1 == grown.1).unwrap();
    assert_eq!(everything(), grown, "a rebuild is no different");
}
