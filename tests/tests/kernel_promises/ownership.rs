//! `kube-ipvs0` and the kernel settings are ours: what others change there is seen by `diff`, put
//! right, counted, and services work on.

use proxier_tests::disturbed::{AUDITS, metric, programmed, samples, sh};
use proxier_tests::figure;
use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{TCP, World};
use serde_json::Value;

const ADDRESSES: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];

fn objects(world: &World, service: &Service) -> Vec<Value> {
    let slice = |family| {
        let (pod, node) = world.topology.pod("pod-a");
        service.slice_of(family, &[endpoint(family, pod, node, Condition::Ready)])
    };
    vec![service.document(), slice(Family::V4), slice(Family::V6)]
}

/// Connects to both addresses a few times, from outside.
fn connects(world: &World, after: &str) {
    for address in ADDRESSES {
        let to = Place::new(Protocol::Tcp, address.parse().unwrap(), 80);
        let load = Load { to, times: 5, source: None, timeout: 5000, one_socket: false };
        let report = Client::new(&world.topology.client.namespace).connect(&load).unwrap();
        assert_eq!((report.answered(), report.failed()), (5, 0), "after {after}: {report:?}");
    }
}

/// What `ip` says of the interface.
fn interface(topology: &Topology) -> String {
    let node = &topology.node().host.namespace;
    let script =
        "ip -o link show kube-ipvs0 | grep -o '<.*>'; ip -o addr show dev kube-ipvs0 | sort";
    node.sh(script).unwrap()
}

/// The line of a metric in the daemon's own namespace.
fn drift(topology: &Topology) -> u64 {
    let script =
        "exec 3<>/dev/tcp/127.0.0.1/10249; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3";
    let mut command = topology.node().host.namespace.command("bash");
    let text = proxier_tests::command::output(command.args(["-c", script])).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("proxier_drift_total "));
    value.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_foreign_prefix_is_shown_removed_and_counted() {
    let settings = "scheduler: rr, syncPeriod: 1s, minSyncPeriod: 0s";
    let mut world = World::build_with(Topology::build().unwrap(), settings).unwrap();
    world.start_server("pod-a", "pod-a").unwrap();
    let service = Service::new("web", &ADDRESSES).port(Protocol::Tcp, 80, TCP);
    world.apply(&objects(&world, &service), 2, &ADDRESSES).unwrap();
    connects(&world, "the start");
    let right = interface(&world.topology);
    let mut before = drift(&world.topology);
    let faults = [
        // The whole of it goes into a black hole.
        ("ip link set kube-ipvs0 up; ip addr add 10.96.1.1/16 dev kube-ipvs0", "10.96.1.1/16"),
        ("ip addr add fd00:10:96::5/64 dev kube-ipvs0", "fd00:10:96::5/64"),
        (
            "ip link set kube-ipvs0 up; ip addr add fd00:10:96::5/64 dev kube-ipvs0",
            "fd00:10:96::5/64",
        ),
        ("ip addr add 10.96.0.20/16 dev kube-ipvs0", "10.96.0.20/16"),
        // The kernel has an IPv6 address once, with whatever prefix.
        (
            "ip addr del fd00:10:96::20/128 dev kube-ipvs0; ip addr add fd00:10:96::20/64 dev kube-ipvs0",
            "fd00:10:96::20/64",
        ),
        ("ip addr add 10.9.9.9 peer 10.9.9.10 dev kube-ipvs0", "10.9.9.9 peer 10.9.9.10"),
        ("ip link set kube-ipvs0 up", "kube-ipvs0 down"),
    ];
    for (fault, shown) in faults {
        let node = &world.topology.node().host.namespace;
        let pid = world.pid().unwrap();
        node.sh(&format!("kill -STOP {pid}; {fault}")).unwrap();
        let diff = world.proxier(&[]).unwrap().arg("diff").output().unwrap();
        let text = String::from_utf8_lossy(&diff.stdout).into_owned();
        node.sh(&format!("kill -CONT {pid}")).unwrap();
        assert_eq!(diff.status.code(), Some(1), "{fault}: {diff:?}");
        assert!(text.contains(shown), "{fault} is not shown: {text}");
        world
            .wait(
                |topology| Ok(interface(topology) == right && drift(topology) > before),
                |topology| format!("{fault} repaired, but:\n{}", interface(topology)),
            )
            .unwrap();
        before = drift(&world.topology);
        connects(&world, fault);
    }
    assert_eq!(world.diff(&[]).unwrap(), "");
    figure(&format!(
        "{} foreign addresses and flags: shown, removed and counted; 10 connections after each, failed: 0",
        faults.len()
    ));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn kernel_settings_are_put_right_and_who_keeps_changing_them_is_told_of() {
    const SETTINGS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv4.vs.conntrack"];
    const TIMES: u64 = 4;
    let (mut live, _) = programmed(AUDITS);
    let warning = "another program keeps changing a kernel setting";
    let value = |name: &str| sh(&format!("sysctl -n {name}")).trim().to_owned();
    for times in 1..=TIMES {
        for name in SETTINGS {
            assert_eq!(value(name), "1");
            let before = metric("proxier_drift_total");
            // It may not put it right before `diff` has seen it.
            let pid = live.pid().unwrap();
            sh(&format!("kill -STOP {pid}; sysctl -qw {name}=0"));
            let (status, text) = live.diff(&[]).unwrap();
            sh(&format!("kill -CONT {pid}"));
            if times == 1 {
                assert_eq!(status, 1, "{text}");
                assert!(text.contains(&format!("set {name} to 1")), "{text}");
                assert!(!live.log().contains(warning), "too early");
            }
            live.until(name, |_, _| value(name) == "1" && metric("proxier_drift_total") > before)
                .unwrap();
            let label = format!("{{setting=\"{name}\"}}");
            live.until("that it is counted", |_, _| {
                samples("proxier_sysctl_drift_total").contains(&(label.clone(), times))
            })
            .unwrap();
        }
    }
    for name in SETTINGS {
        let said = live.log().lines().any(|line| line.contains(warning) && line.contains(name));
        assert!(said, "{name} is not named: {}", live.log());
    }
    figure(&format!(
        "{} settings changed {TIMES} times each: put right and counted",
        SETTINGS.len()
    ));
}
