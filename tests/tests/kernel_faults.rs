//! What others do to the kernel and the host under a running daemon, by real causes: repaired at
//! once where the kernel tells of it, at the next audit where it does not, and nothing else stops.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

#[path = "kernel_faults/nftables.rs"]
mod nftables;

use std::fs;
use std::time::{Duration, Instant};

use proxier_tests::apiserver::object::{service, slice};
use proxier_tests::command::output;
use proxier_tests::daemon::{KernelWide, Scratch};
use proxier_tests::disturbed::{
    AUDITS, Background, NO_AUDIT, behind_its_back, cluster, counted_beyond, metric, programmed,
    rules, sh,
};
use proxier_tests::golden::Dump;
use proxier_tests::live::{Live, kernel};
use serde_json::json;

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_the_kernel_tells_of_is_repaired_at_once() {
    let (mut live, wanted) = programmed(NO_AUDIT);
    let mut drift = 0;
    for fault in [
        "ip addr del 10.96.0.1/32 dev kube-ipvs0",
        "ip addr flush dev kube-ipvs0",
        "ip addr add 10.96.0.77/32 dev kube-ipvs0",
        "ip link del kube-ipvs0",
        // Takes the IPv6 addresses away.
        "ip link set kube-ipvs0 up; ip link set kube-ipvs0 down",
        "ip link set kube-ipvs0 name kube-ipvs9",
    ] {
        behind_its_back(&live, fault);
        live.until_as(fault, &wanted).unwrap();
        drift = counted_beyond(&mut live, fault, drift);
    }
    assert!(live.log().contains("the kernel is not as it was left"), "what is counted is logged");

    // So much at once that the kernel does not tell of all of it (ENOBUFS).
    let dropped = behind_its_back(
        &live,
        "ip link add noise0 type dummy
         for n in {1..1500}; do echo addr add 10.99.$((n / 250)).$((n % 250))/32 dev noise0; done | ip -batch -
         ip addr del 10.96.0.2/32 dev kube-ipvs0
         awk '$2 == 0 && $4 == \"00000111\" && $9 > 0' /proc/net/netlink",
    );
    assert!(!dropped.is_empty(), "the socket was not full");
    live.until_as("what it was not told of", &wanted).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_interface_of_another_kind_stops_nothing_but_the_addresses() {
    let (mut live, _) = programmed(NO_AUDIT);
    behind_its_back(
        &live,
        "ip link del kube-ipvs0; ip link add kube-ipvs0 type veth peer name other0",
    );
    live.server.put(service("dev", "late", "10.96.0.9"));
    let wanted = live.dry_run().unwrap();
    live.until("all but the addresses", |log, kernel| {
        kernel.ipvs == wanted.ipvs
            && kernel.sets == wanted.sets
            && log.contains("of kind veth, not dummy: rename it")
    })
    .unwrap();
    sh("ip link del kube-ipvs0");
    live.until_as("the addresses, too", &wanted).unwrap();
}

/// Six changes at once are one Event, which names each kind.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_event_names_everything_that_was_changed_at_once() {
    let (mut live, wanted) = programmed(&["--ipvs-sync-period=10s"]);
    let changes = "ip addr del 10.96.0.1/32 dev kube-ipvs0; ip addr del 10.96.0.2/32 dev kube-ipvs0
         ipvsadm -C; ipset del KUBE-CLUSTER-IP 10.96.0.1,tcp:80; ipset del KUBE-CLUSTER-IP 10.96.0.2,tcp:80
         iptables -t nat -F KUBE-SERVICES";
    behind_its_back(&live, changes);
    live.until_as(changes, &wanted).unwrap();
    let notes = |live: &Live| -> Vec<String> {
        let events = live.server.events();
        let drift = events.iter().filter(|event| event.body["reason"] == "KernelDrift");
        drift.map(|event| event.body["note"].to_string()).collect()
    };
    while notes(&live).is_empty() {
        live.until("the Event", |_, _| true).unwrap();
    }
    let told = notes(&live).concat();
    for kind in [
        "2 addresses (address 10.96.0.1, address 10.96.0.2)",
        "3 virtual servers (virtual server 10.96.0.1:80/tcp, ",
        "IPv4 firewall rules",
        "members of sets (",
    ] {
        assert!(told.contains(kind), "{kind}: {told}");
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_the_kernel_does_not_tell_of_is_repaired_by_the_next_audit() {
    let (mut live, wanted) = programmed(AUDITS);
    let right = rules();
    let mut drift = metric("proxier_drift_total");
    for fault in [
        "ipvsadm -C",
        "ipvsadm -d -t 10.96.0.1:80 -r 10.244.0.5:8080
         ipvsadm -e -t 10.96.0.1:80 -r 10.244.0.6:8080 -m -w 7
         ipvsadm -a -t 10.96.0.2:80 -r 10.244.0.99:8080 -m",
        "ipvsadm -E -t 10.96.0.1:80 -s lc -p 300; ipvsadm -A -t 10.96.0.77:80 -s rr",
        "ipset flush KUBE-CLUSTER-IP; ipset add KUBE-CLUSTER-IP 10.96.0.98,tcp:80",
        "iptables -t nat -F; iptables -F",
        "iptables -t nat -F KUBE-SERVICES; ip6tables -t nat -D PREROUTING 1",
        // A set of another type, where nothing refers to it any more.
        "iptables -t nat -F; iptables -F; iptables -t nat -X; iptables -X
         ipset destroy KUBE-CLUSTER-IP; ipset create KUBE-CLUSTER-IP hash:net",
        "ip link del kube-ipvs0; ipvsadm -C; iptables -t nat -F; ip6tables -t nat -F",
    ] {
        behind_its_back(&live, fault);
        live.until_as(fault, &wanted).unwrap();
        live.until(fault, |_, _| rules() == right).unwrap();
        drift = counted_beyond(&mut live, fault, drift);
    }

    // While others change their virtual servers without a pause, so that every dump is of a moving table.
    let before = live.operations().unwrap().len();
    let churn = Background::start(
        "while :; do
             for n in {1..40}; do echo -A -t 198.51.100.$n:80 -s rr; done | ipvsadm -R
             for n in {1..40}; do echo -D -t 198.51.100.$n:80; done | ipvsadm -R
         done",
    );
    for _ in 0..3 {
        sh("ipvsadm -d -t 10.96.0.1:80 -r 10.244.0.5:8080");
        live.until("a real server", |_, kernel| {
            wanted.ipvs.iter().all(|server| kernel.ipvs.get(server.0) == Some(server.1))
        })
        .unwrap();
    }
    drop(churn);
    let operations = live.operations().unwrap();
    let removed = operations[before..].iter().filter(|operation| operation.starts_with("remove"));
    assert_eq!(removed.count(), 0, "{operations:#?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_cannot_be_done_stops_nothing_else_and_is_done_when_it_can() {
    let mut live = cluster();
    sh("ipset create KUBE-CLUSTER-IP hash:ip
        ipset create KUBE-EXTERNAL-IP hash:net
        iptables -N OTHERS; iptables -A OTHERS -m set --match-set KUBE-EXTERNAL-IP src -j RETURN");
    let mut outside = service("dev", "outside", "10.96.0.3");
    outside["spec"]["externalIPs"] = json!(["203.0.113.7"]);
    live.server.put(outside);
    live.start_daemon(NO_AUDIT).unwrap();
    let wanted = live.dry_run().unwrap();
    live.until("all but one set", |log, kernel| {
        let addresses = wanted.addresses.iter().all(|line| kernel.addresses.contains(line));
        let clusters = kernel.set("KUBE-CLUSTER-IP") == wanted.set("KUBE-CLUSTER-IP");
        kernel.ipvs == wanted.ipvs && addresses && clusters && log.contains("set KUBE-EXTERNAL-IP")
    })
    .unwrap();
    assert!(rules().contains("KUBE-CLUSTER-IP"), "{}", rules());
    sh("iptables -F OTHERS; iptables -X OTHERS");
    live.until_as("that set, too", &wanted).unwrap();

    // Somebody holds the lock of the firewall's programs.
    live.start_daemon(AUDITS).unwrap();
    live.until("another daemon", |log, _| log.matches("ready: ").count() == 2).unwrap();
    live.until_as("the same state", &wanted).unwrap();
    let right = rules();
    let pid = live.pid().unwrap();
    sh(&format!("kill -STOP {pid}; iptables -t nat -F KUBE-SERVICES"));
    let lock = Background::start("exec flock -o /run/xtables.lock sleep 1000");
    sh(&format!("until ! flock -n /run/xtables.lock true; do :; done; kill -CONT {pid}"));
    live.until("the lock in the way", |log, _| log.contains("xtables lock")).unwrap();
    live.server.put(slice("dev", "other-1", "other", &["10.244.0.7", "10.244.0.8"]));
    let wanted = live.dry_run().unwrap();
    live.until_as("an endpoint more, while the lock is held", &wanted).unwrap();
    assert_ne!(rules(), right);
    drop(lock);
    live.until("the rules", |_, _| rules() == right).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_host_that_cannot_do_it_is_told_what_it_lacks() {
    let mut live = cluster();
    let fails = |live: &Live, more: &[&str]| {
        let end = live.proxier(&[&["--conntrack-max-per-core=0"], more].concat()).unwrap();
        let end = { end }.output().unwrap();
        assert_eq!(end.status.code(), Some(1), "{end:?}");
        String::from_utf8_lossy(&end.stderr).into_owned()
    };
    // No module can be loaded; nobody else may need one meanwhile. What the firewall needs is there.
    sh("iptables -t nat -S; ip6tables -t nat -S; ipset list");
    let alone = KernelWide::alone().unwrap();
    // Another test may have loaded it.
    sh("while grep -q '^ip_vs_ovf ' /proc/modules; do rmmod ip_vs_ovf; done");
    let loader = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap();
    fs::write("/proc/sys/kernel/modprobe", "/bin/false").unwrap();
    let text = fails(&live, &["--ipvs-scheduler=ovf"]);
    fs::write("/proc/sys/kernel/modprobe", loader.trim()).unwrap();
    drop(alone);
    assert!(text.contains("no IPVS scheduler ovf: load the module ip_vs_ovf"), "{text}");

    let init = |live: &Live| {
        output(&mut live.proxier(&["--conntrack-max-per-core=0", "--init-only"]).unwrap()).unwrap();
    };
    init(&live);
    sh("mount --bind /proc/sys /proc/sys
        echo 0 >/proc/sys/net/ipv4/ip_forward; mount -o remount,bind,ro /proc/sys");
    let text = fails(&live, &[]);
    assert!(text.contains("net.ipv4.ip_forward to 1") && text.contains("--init-only"), "{text}");
    assert_eq!(kernel().unwrap(), Dump::default(), "nothing was begun");
    sh("mount -o remount,bind,rw /proc/sys");
    init(&live);
    sh("mount -o remount,bind,ro /proc/sys");
    live.start_daemon(NO_AUDIT).unwrap();
    live.converge("with the settings made before").unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn jumps_of_the_clock_and_a_long_sleep_change_nothing() {
    let (mut live, mut wanted) = programmed(AUDITS);
    let (clock, began) = (sh("date +%s").trim().parse::<u64>().unwrap(), Instant::now());
    for (jump, last) in [("+1 year", 11), ("-3 years", 12), ("1970-01-02", 13)] {
        sh(&format!("date -s '{jump}'; ipvsadm -C"));
        live.until_as("an audit", &wanted).unwrap();
        live.server.put(slice("dev", "other-1", "other", &[&format!("10.244.0.{last}")]));
        wanted = live.dry_run().unwrap();
        live.until_as(jump, &wanted).unwrap();
    }
    sh(&format!("date -s @{}", clock + began.elapsed().as_secs()));

    // Asleep for several of its periods, while everything changes.
    let pid = live.pid().unwrap();
    sh(&format!("kill -STOP {pid}"));
    live.server.put(slice("dev", "web-1", "web", &["10.244.0.6", "10.244.0.9"]));
    live.server.delete("services", "dev", "other");
    sh("ipvsadm -C; ip addr flush dev kube-ipvs0");
    wanted = live.dry_run().unwrap();
    // The fault itself is that time passes.
    std::thread::sleep(Duration::from_secs(4));
    sh(&format!("kill -CONT {pid}"));
    live.until_as("what happened meanwhile", &wanted).unwrap();
}

/// What the daemon may still do, and what it starts with which rights and which environment.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn after_the_start_only_the_network_is_in_its_power() {
    // cap_net_bind_service, cap_net_admin, cap_net_raw: bits 10, 12 and 13.
    const NETWORK: &str = "0000000000003400";
    let scratch = Scratch::create().unwrap();
    let folder = scratch.path().display();
    for family in ["iptables", "ip6tables"] {
        for name in [family.to_owned(), format!("{family}-save"), format!("{family}-restore")] {
            let script = format!(
                "#!/bin/bash\n{{ echo program $0; env; grep -e ^Cap -e ^NoNew /proc/self/status; }} >>{folder}/seen\n\
                 exec /usr/sbin/xtables-legacy-multi {name} \"$@\"\n"
            );
            let path = scratch.replace(&name, script).unwrap();
            sh(&format!("chmod +x {}", path.display()));
        }
    }
    let mut live = cluster();
    let mut command = live.proxier(&[NO_AUDIT, &["--conntrack-max-per-core=0"]].concat()).unwrap();
    command.env("PROXIER_IPTABLES_DIR", scratch.path()).env("SECRET", "sesame");
    live.start_command(command).unwrap();
    live.converge("everything").unwrap();

    let pid = live.pid().unwrap();
    let threads = sh(&format!("cat /proc/{pid}/task/*/status"));
    let values = |text: &str, name: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|value| value.trim().to_owned()).collect()
    };
    for (name, wanted) in [
        ("CapEff:", NETWORK),
        ("CapPrm:", NETWORK),
        ("CapBnd:", NETWORK),
        ("CapInh:", NETWORK),
        ("CapAmb:", NETWORK),
        ("NoNewPrivs:", "1"),
    ] {
        let mut found = values(&threads, name);
        // Threads that hear signals and write the log have none at all.
        found.retain(|value| value != "0000000000000000");
        assert!(found.len() >= 2 && found.iter().all(|value| value == wanted), "{name} {found:?}");
    }
    let seen = fs::read_to_string(scratch.path().join("seen")).unwrap();
    assert!(!seen.contains("sesame") && !seen.contains("KUBECONFIG"), "{seen}");
    // The first ones run before anything is given up, to find out what there is.
    assert_eq!(values(&seen, "CapEff:").last().map(String::as_str), Some(NETWORK), "{seen}");
    assert_eq!(values(&seen, "NoNewPrivs:").last().map(String::as_str), Some("1"), "{seen}");
    for program in values(&seen, "program ") {
        assert!(program.starts_with(&folder.to_string()), "{program}: an absolute path");
    }
    // What bash adds to an empty environment, and ours.
    for line in seen.lines().filter(|line| line.contains('=')) {
        let name = line.split('=').next().unwrap();
        assert!(["PATH", "LC_ALL", "PWD", "SHLVL", "_"].contains(&name), "{line}");
    }
}
