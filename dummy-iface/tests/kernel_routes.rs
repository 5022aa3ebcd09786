//! Local routes against a real kernel, read back with `ip`. Each test runs in a network namespace of its
//! own: the test starts itself again under `unshare --net`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use dummy_iface::{
    AddressChange, DummyInterface, ErrorKind, Event, LocalRoute, Monitor, RouteChange,
};

const NAME: &str = "kube-ipvs0";
const PROTOCOL: u8 = 96;

/// Runs `body` in a fresh network namespace: `lo` is up, and another link has `192.0.2.1` and `fd02::1`.
fn in_namespace(test: &str, body: impl FnOnce(&DummyInterface)) {
    own_namespace::in_namespace(test, &[], || {
        ip("link set lo up");
        drop(UdpSocket::bind("[::1]:0")); // loads IPv6 where it is a module
        ip("link add eth0 type dummy");
        ip("link set eth0 up");
        ip("addr add 192.0.2.1/24 dev eth0");
        ip("addr add fd02::1/64 dev eth0 nodad");
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        body(&interface);
    });
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Our routes of both families, as `ip` prints them.
fn by_ip() -> Vec<String> {
    let of = |family: &str| ip(&format!("{family} route show table local proto {PROTOCOL}"));
    let text = of("-4") + &of("-6");
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(route: &str, source: &str) -> RouteChange {
    let source = (!source.is_empty()).then(|| address(source));
    RouteChange::Set(LocalRoute { address: address(route), source })
}

/// Where the machine would send from to an address.
fn source(to: &str) -> Option<IpAddr> {
    let any = if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect((address(to), 9)).ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn routes_are_set_changed_and_removed() {
    in_namespace("routes_are_set_changed_and_removed", |interface| {
        let six = [set("fd00::1", "fd02::1")];
        let report = interface.apply_routes(PROTOCOL, six);
        assert_eq!(report.failed.len(), 1, "IPv6 needs the link up: {report:?}");
        interface.set_up().unwrap();
        interface.set_up().unwrap();
        let wanted = [set("10.96.0.1", "192.0.2.1"), set("10.96.0.2", ""), six[0]];
        for _ in 0..2 {
            let report = interface.apply_routes(PROTOCOL, wanted);
            assert!(report.is_success(), "{report:?}");
            assert_eq!(
                by_ip(),
                [
                    "local 10.96.0.1 dev kube-ipvs0 scope host src 192.0.2.1 metric 1024",
                    "local 10.96.0.2 dev kube-ipvs0 scope host metric 1024",
                    "local fd00::1 dev kube-ipvs0 src fd02::1 metric 1024 pref medium",
                ]
            );
        }
        let found = interface.routes(PROTOCOL).unwrap();
        let local = [
            (address("10.96.0.1"), Some(address("192.0.2.1"))),
            (address("10.96.0.2"), None),
            (address("fd00::1"), Some(address("fd02::1"))),
        ];
        assert_eq!((found.local, found.others), (local.into(), BTreeSet::new()));
        assert_eq!(source("10.96.0.1"), Some(address("192.0.2.1")));
        assert_eq!(source("10.96.0.2"), Some(address("10.96.0.2")), "the kernel's own choice");
        assert_eq!(source("fd00::1"), Some(address("fd02::1")));

        // Another source, in place; one that the machine does not have is refused.
        let report = interface.apply_routes(
            PROTOCOL,
            [
                set("10.96.0.1", ""),
                set("10.96.0.2", "192.0.2.1"),
                set("fd00::1", ""),
                set("10.96.0.1", "203.0.113.9"),
                set("fd00::1", "fd09::9"),
            ],
        );
        let failed: Vec<_> = report.failed.iter().map(|(at, _)| *at).collect();
        assert_eq!(failed, [3, 4]);
        let text = report.failed[0].1.to_string();
        assert_eq!(text, "set local route 10.96.0.1 with source 203.0.113.9 on kube-ipvs0");
        let found = interface.routes(PROTOCOL).unwrap().local;
        let sources: Vec<_> = found.into_values().collect();
        assert_eq!(sources, [None, Some(address("192.0.2.1")), None]);

        let all = ["10.96.0.1", "10.96.0.2", "fd00::1"].map(|ip| RouteChange::Remove(address(ip)));
        for unchanged in [0, 3] {
            let report = interface.apply_routes(PROTOCOL, all);
            assert_eq!((report.unchanged, report.failed.len()), (unchanged, 0), "{report:?}");
            assert!(by_ip().is_empty());
        }
        ip(&format!("link del {NAME}"));
        let report = interface.apply_routes(PROTOCOL, wanted);
        for (_, error) in &report.failed {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
        assert_eq!(report.failed.len(), 3);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn routes_that_do_not_belong_there_are_listed_and_removed() {
    in_namespace("routes_that_do_not_belong_there_are_listed_and_removed", |interface| {
        interface.set_up().unwrap();
        let ours = [set("10.96.0.1", "192.0.2.1"), set("fd00::1", "")];
        assert!(interface.apply_routes(PROTOCOL, ours).is_success());
        assert!(interface.apply([AddressChange::Add(address("198.51.100.1"))]).is_success());
        for foreign in [
            "route add local 10.9.0.0/16 dev kube-ipvs0 table local",
            "route add 10.8.0.0/16 dev kube-ipvs0",
            "route add default dev kube-ipvs0 table 1000 proto static",
            "-6 route add fd08::/64 dev kube-ipvs0",
            "-6 route add local fd09::/64 dev kube-ipvs0 table local",
            // Of our protocol, and yet not as we make them.
            "route add local 10.96.0.1 dev kube-ipvs0 table local proto 96 metric 7",
            "route add local 10.96.0.7 dev lo table local proto 96 metric 1024",
            "-6 route add local fd00::7 dev lo table local proto 96 metric 1024",
            // Others' routes on other interfaces are nobody's business.
            "route add 10.7.0.0/16 dev eth0",
        ] {
            ip(foreign);
        }
        let found = interface.routes(PROTOCOL).unwrap();
        let own: Vec<_> = found.local.keys().copied().collect();
        assert_eq!(own, [address("10.96.0.1"), address("fd00::1")]);
        let others: BTreeSet<_> = found.others.iter().map(ToString::to_string).collect();
        let wanted = [
            "local 10.9.0.0/16 table local",
            "10.8.0.0/16",
            "0.0.0.0/0 table 1000",
            "fd08::/64",
            "local fd09::/64 table local",
            "local 10.96.0.1/32 table local",
            "local 10.96.0.7/32 table local",
            "local fd00::7/128 table local",
        ];
        assert_eq!(others, wanted.map(str::to_owned).into());
        let removals = || found.others.iter().copied().map(RouteChange::RemoveListed);
        let report = interface.apply_routes(PROTOCOL, removals());
        assert_eq!((report.unchanged, report.failed.len()), (0, 0), "{report:?}");
        let left = interface.routes(PROTOCOL).unwrap();
        assert_eq!((left.local, left.others.len()), (found.local.clone(), 0));
        assert!(ip("route show").contains("10.7.0.0/16"));
        let report = interface.apply_routes(PROTOCOL, removals());
        assert_eq!((report.unchanged, report.failed.len()), (wanted.len(), 0), "{report:?}");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_address_and_its_route_can_both_be_there_and_either_can_go() {
    let test = "an_address_and_its_route_can_both_be_there_and_either_can_go";
    in_namespace(test, |interface| {
        interface.set_up().unwrap();
        let keeper = address("198.51.100.1");
        assert!(interface.apply([AddressChange::Add(keeper)]).is_success());
        for (text, own) in [("10.96.0.1", "192.0.2.1"), ("fd00::1", "fd02::1")] {
            let vip = address(text);
            let bind = || assert!(interface.apply([AddressChange::Add(vip)]).is_success());
            let route = || assert!(interface.apply_routes(PROTOCOL, [set(text, own)]).is_success());
            for first in [true, false] {
                if first {
                    bind();
                    route();
                } else {
                    route();
                    bind();
                }
                assert_eq!(source(text), Some(vip), "the address counts while it is there");
                if first {
                    assert!(interface.apply([AddressChange::Remove(vip)]).is_success());
                    assert_eq!(source(text), Some(address(own)));
                    let report = interface.apply_routes(PROTOCOL, [RouteChange::Remove(vip)]);
                    assert!(report.is_success());
                } else {
                    let report = interface.apply_routes(PROTOCOL, [RouteChange::Remove(vip)]);
                    assert!(report.is_success() && report.unchanged == 0, "{report:?}");
                    assert_eq!(source(text), Some(vip));
                    assert!(interface.apply([AddressChange::Remove(vip)]).is_success());
                }
                assert_eq!(source(text), None);
            }
        }
    });
}

/// Why users of local routes keep an address on the interface: the kernel disables IPv4 on an interface
/// that loses its last address, with all its routes.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn ipv4_routes_go_with_the_last_ipv4_address_and_stay_with_another() {
    let test = "ipv4_routes_go_with_the_last_ipv4_address_and_stay_with_another";
    in_namespace(test, |interface| {
        let (vip, anchor) = (address("10.96.0.9"), address("127.96.96.96"));
        let came_and_went = || {
            assert!(interface.apply_routes(PROTOCOL, [set("10.96.0.1", "")]).is_success());
            assert!(interface.apply([AddressChange::Add(vip)]).is_success());
            assert!(interface.apply([AddressChange::Remove(vip)]).is_success());
            by_ip().len()
        };
        assert_eq!(came_and_went(), 0);
        assert!(interface.apply([AddressChange::AddForHost(anchor)]).is_success());
        assert_eq!(came_and_went(), 1);
        let shown = ip(&format!("-o -4 addr show dev {NAME}"));
        assert!(shown.contains("inet 127.96.96.96/32 scope host kube-ipvs0"), "{shown}");
        assert!(interface.addresses().unwrap().is_empty(), "nobody reaches it from outside");
        assert_eq!(interface.observe().unwrap().addresses, [anchor.into()].into());
        // Down or up, they stay.
        interface.set_up().unwrap();
        interface.set_down().unwrap();
        assert_eq!(by_ip().len(), 1);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn twenty_thousand_routes() {
    in_namespace("twenty_thousand_routes", |interface| {
        interface.set_up().unwrap();
        let six = (1..=1000).map(|i| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i).into());
        let wanted: Vec<IpAddr> =
            (0..20_000).map(|i| Ipv4Addr::from(0x0a60_0000 + i).into()).chain(six).collect();
        let set = |ip: &IpAddr| RouteChange::Set(LocalRoute { address: *ip, source: None });
        let mut start = std::time::Instant::now();
        let mut took = |what: &str| {
            println!("{what} {:?}", start.elapsed());
            start = std::time::Instant::now();
        };
        let report = interface.apply_routes(PROTOCOL, wanted.iter().map(set));
        took("21000 routes added in");
        assert!(report.is_success() && report.sent == 21_000, "{report:?}");
        let found = interface.routes(PROTOCOL).unwrap();
        took("listed in");
        assert!(found.local.keys().copied().eq(wanted.iter().copied()) && found.others.is_empty());
        assert_eq!(by_ip().len(), 21_000);
        took("listed by ip in");
        let report =
            interface.apply_routes(PROTOCOL, wanted.iter().copied().map(RouteChange::Remove));
        took("removed in");
        assert!(report.is_success() && report.unchanged == 0, "{report:?}");
        assert!(by_ip().is_empty());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_monitor_tells_of_others_local_routes_only() {
    in_namespace("the_monitor_tells_of_others_local_routes_only", |interface| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            interface.set_up().unwrap();
            let mut monitor = Monitor::open_with_routes().unwrap();
            // More than its buffer holds.
            let many = || (0..4000).map(|i| IpAddr::from(Ipv4Addr::from(0x0a60_0000 + i)));
            let set_all =
                many().map(|address| RouteChange::Set(LocalRoute { address, source: None }));
            assert!(interface.apply_routes(PROTOCOL, set_all).is_success());
            let six = [set("fd00::1", "")];
            assert!(interface.apply_routes(PROTOCOL, six).is_success());
            ip("route add 10.7.0.0/16 dev eth0");
            ip("-6 route add fd07::/64 dev eth0");
            ip(&format!("addr add 198.51.100.1/32 dev {NAME}"));
            let index = interface.index();
            let vip = address("198.51.100.1");
            let wanted = Event::Address { interface: index, address: vip, added: true };
            assert_eq!(monitor.changed().await.unwrap(), wanted);
            let route = |to: &str, prefix_len, added| Event::Route {
                interface: index,
                destination: address(to),
                prefix_len,
                added,
            };
            ip(&format!("route del local 10.96.0.7 dev {NAME} table local proto {PROTOCOL}"));
            assert_eq!(monitor.changed().await.unwrap(), route("10.96.0.7", 32, false));
            ip(&format!("-6 route del local fd00::1 dev {NAME} table local proto {PROTOCOL}"));
            assert_eq!(monitor.changed().await.unwrap(), route("fd00::1", 128, false));
            ip(&format!("route add local 10.9.0.0/16 dev {NAME} table local"));
            assert_eq!(monitor.changed().await.unwrap(), route("10.9.0.0", 16, true));
            // An address that nobody outside reaches, on an interface that is not the loopback one.
            ip(&format!("addr add 127.96.96.96/32 dev {NAME} scope host"));
            let anchor = address("127.96.96.96");
            let wanted = Event::Address { interface: index, address: anchor, added: true };
            assert_eq!(monitor.changed().await.unwrap(), wanted);
        });
    });
}
