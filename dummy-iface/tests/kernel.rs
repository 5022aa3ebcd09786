//! Against a real kernel, read back with `ip -j`. Each test runs in a network namespace of its
//! own: the test starts itself again under `unshare --net`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;
#[path = "../../tests/src/small_buffers.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod small_buffers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use dummy_iface::{
    host_addresses, AddressChange, DummyInterface, Ensured, ErrorKind, Event, Monitor,
};
use serde_json::Value;

const NAME: &str = "kube-ipvs0";

/// Runs `body` in a fresh network namespace with `lo` up.
fn in_namespace(test: &str, body: impl FnOnce()) {
    in_namespace_with(test, &[], body);
}

fn in_namespace_with(test: &str, options: &[&str], body: impl FnOnce()) {
    own_namespace::in_namespace(test, options, || {
        ip("link set lo up");
        body();
    });
}

/// For the monitor, which waits.
fn waiting(body: impl std::future::Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(body);
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

fn link(name: &str) -> Value {
    let list: Value = serde_json::from_str(&ip(&format!("-j -d link show dev {name}"))).unwrap();
    list[0].clone()
}

/// The addresses of a link as `ip` sees them: address, prefix length, scope, further flags.
fn addresses_by_ip(name: &str) -> BTreeSet<(IpAddr, u64)> {
    // The kernel looks at a new IPv6 address in a thread of its own, and calls it tentative until then.
    let infos = loop {
        let list: Value = serde_json::from_str(&ip(&format!("-j addr show dev {name}"))).unwrap();
        let infos = list[0]["addr_info"].as_array().unwrap().clone();
        if infos.iter().all(|info| info.get("tentative").is_none()) {
            break infos;
        }
    };
    infos
        .iter()
        .map(|info| {
            assert_eq!(info["scope"], "global", "{info}");
            for flag in ["nodad", "noprefixroute", "dynamic", "secondary"] {
                assert!(info.get(flag).is_none(), "{info}");
            }
            let address = info["local"].as_str().unwrap().parse().unwrap();
            (address, info["prefixlen"].as_u64().unwrap())
        })
        .collect()
}

fn host_prefixes(addresses: impl IntoIterator<Item = IpAddr>) -> BTreeSet<(IpAddr, u64)> {
    addresses.into_iter().map(|ip| (ip, if ip.is_ipv4() { 32 } else { 128 })).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn creates_adopts_and_deletes() {
    in_namespace("creates_adopts_and_deletes", || {
        assert!(DummyInterface::find(NAME).unwrap().is_none());
        let (interface, ensured) = DummyInterface::ensure(NAME).unwrap();
        assert_eq!(ensured, Ensured::Created);
        let seen = link(NAME);
        assert_eq!(seen["linkinfo"]["info_kind"], "dummy");
        assert_eq!(seen["ifindex"].as_u64(), Some(interface.index().into()));
        assert_eq!(seen["operstate"], "DOWN");
        assert!(!seen["flags"].as_array().unwrap().contains(&"UP".into()), "{seen}");
        // `ip` leaves the length out when it is 0.
        assert_eq!(seen["txqlen"].as_u64().unwrap_or(0), 0, "{seen}");

        let (again, ensured) = DummyInterface::ensure(NAME).unwrap();
        assert_eq!((again.index(), ensured), (interface.index(), Ensured::Adopted));
        drop(again);

        ip(&format!("link set {NAME} up"));
        let (up, ensured) = DummyInterface::ensure(NAME).unwrap();
        assert_eq!(ensured, Ensured::Adopted);
        assert!(link(NAME)["flags"].as_array().unwrap().contains(&"UP".into()));

        up.delete().unwrap();
        assert!(!ip("-br link").contains(NAME));
        // Gone already is success, and its addresses are an error, not an empty list.
        assert_eq!(interface.addresses().unwrap_err().kind(), ErrorKind::NotFound);
        let report = interface.apply([AddressChange::Add(address("10.0.0.1"))]);
        assert_eq!(report.failed[0].1.kind(), ErrorKind::NotFound);
        interface.delete().unwrap();
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn another_kind_of_interface_is_left_alone() {
    in_namespace("another_kind_of_interface_is_left_alone", || {
        ip(&format!("link add {NAME} type veth peer name other"));
        for error in [
            DummyInterface::ensure(NAME).map(drop).unwrap_err(),
            DummyInterface::find(NAME).map(drop).unwrap_err(),
            DummyInterface::find("lo").map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::WrongKind, "{error}");
        }
        assert_eq!(link(NAME)["linkinfo"]["info_kind"], "veth");
        let error = DummyInterface::ensure("a/b").map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn addresses_look_as_kube_proxy_leaves_them() {
    in_namespace("addresses_look_as_kube_proxy_leaves_them", || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        let wanted = [address("10.96.0.1"), address("169.254.1.1"), address("fd00::1")];
        let report = interface.apply(wanted.map(AddressChange::Add));
        assert!(report.is_success(), "{report:?}");
        assert_eq!((report.sent, report.unchanged), (3, 0));
        assert_eq!(addresses_by_ip(NAME), host_prefixes(wanted));
        let text = ip(&format!("-o addr show dev {NAME}"));
        for line in ["inet 10.96.0.1/32 scope global kube-ipvs0", "inet6 fd00::1/128 scope global"]
        {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(interface.addresses().unwrap(), wanted.into_iter().collect());

        // Twice is success; so is removing what is not there; the rest still happens.
        let gone = address("10.96.9.9");
        let report = interface.apply([
            AddressChange::Add(wanted[0]),
            AddressChange::Remove(gone),
            AddressChange::Remove(wanted[2]),
            AddressChange::Add(wanted[2]),
            AddressChange::Remove(address("fd00::99")),
            AddressChange::Remove(wanted[1]),
        ]);
        assert!(report.failed.is_empty(), "{report:?}");
        assert_eq!((report.sent, report.unchanged), (6, 3));
        assert_eq!(addresses_by_ip(NAME), host_prefixes([wanted[0], wanted[2]]));
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn everything_on_the_interface_is_observed_and_removed() {
    in_namespace("everything_on_the_interface_is_observed_and_removed", || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        let vip = address("10.96.0.1");
        assert!(interface.apply([AddressChange::Add(vip)]).failed.is_empty());
        let foreign = [
            "10.96.1.1/16",
            "10.96.0.1/24",
            "10.9.0.1 peer 10.9.0.2/32",
            "127.0.0.5/8",
            "169.254.7.7/16",
            "fd00::5/64",
            "fd00::6 peer fd00::7/128",
            "fe80::1/128",
        ];
        for text in foreign {
            ip(&format!("addr add {text} dev {NAME}"));
        }
        let observed = || {
            let seen = interface.observe().unwrap();
            let texts: BTreeSet<_> = seen.addresses.iter().map(ToString::to_string).collect();
            (seen, texts)
        };
        let mut wanted: BTreeSet<_> = foreign.iter().map(ToString::to_string).collect();
        wanted.insert("10.96.0.1/32".to_owned());
        let (seen, texts) = observed();
        assert_eq!((texts, seen.up), (wanted.clone(), false));
        assert_eq!(interface.addresses().unwrap(), [vip].into(), "host addresses only");

        // Up, the kernel adds a link-local address of its own.
        ip(&format!("link set {NAME} up"));
        let (seen, texts) = observed();
        assert_eq!((texts, seen.up), (wanted, true));

        let others = seen.addresses.iter().filter(|assigned| assigned.as_host() != Some(vip));
        let removals: Vec<_> = others.copied().map(AddressChange::RemoveAssigned).collect();
        assert_eq!(removals.len(), foreign.len());
        let report = interface.apply(removals.iter().copied());
        assert_eq!((report.unchanged, report.failed.len()), (0, 0), "{report:?}");
        assert_eq!(observed().0.addresses, [vip.into()].into());
        let report = interface.apply(removals.iter().copied());
        assert_eq!((report.unchanged, report.failed.len()), (removals.len(), 0), "{report:?}");

        let six = address("fd00::1");
        assert!(interface.apply([AddressChange::Add(six)]).failed.is_empty());
        interface.set_down().unwrap();
        interface.set_down().unwrap();
        let (seen, texts) = observed();
        assert!(!seen.up);
        assert_eq!(texts, ["10.96.0.1/32".to_owned()].into(), "IPv6 goes when it goes down");
        assert!(interface.apply([AddressChange::Add(six)]).failed.is_empty());
        assert_eq!(addresses_by_ip(NAME), host_prefixes([vip, six]));

        ip(&format!("link del {NAME}"));
        assert_eq!(interface.observe().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(interface.set_down().unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn failures_land_on_their_change() {
    in_namespace("failures_land_on_their_change", || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        // Multicast is refused for IPv6 addresses; IPv4 takes nearly everything.
        let changes: Vec<_> = (0..1200)
            .map(|i| {
                let last = u16::try_from(i).unwrap();
                let segment = if [3, 511, 512, 1199].contains(&i) { 0xff02 } else { 0xfd00 };
                AddressChange::Add(Ipv6Addr::new(segment, 0, 0, 0, 0, 0, 1, last).into())
            })
            .collect();
        let report = interface.apply(changes.iter().copied());
        let failed: Vec<_> = report.failed.iter().map(|(position, _)| *position).collect();
        assert_eq!(failed, [3, 511, 512, 1199]);
        assert_eq!(report.sent, 1200);
        let error = &report.failed[0].1;
        assert_eq!(error.to_string(), "add address ff02::1:3/128 on kube-ipvs0");
        assert!(std::error::Error::source(error).is_some());
        assert_eq!(interface.addresses().unwrap().len(), 1196);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn five_thousand_addresses() {
    in_namespace("five_thousand_addresses", || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        let wanted: BTreeSet<IpAddr> = (0..5000)
            .map(|i| Ipv4Addr::from(0x0a60_0000 + i).into())
            .chain((0..200).map(|i| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i + 1).into()))
            .collect();
        let start = std::time::Instant::now();
        let report = interface.apply(wanted.iter().map(|ip| AddressChange::Add(*ip)));
        println!("{} addresses added in {:?}", wanted.len(), start.elapsed());
        assert!(report.is_success(), "{report:?}");
        assert_eq!((report.sent, report.unchanged), (5200, 0));
        assert_eq!(interface.addresses().unwrap(), wanted);
        assert_eq!(addresses_by_ip(NAME), host_prefixes(wanted.iter().copied()));

        let report = interface.apply(wanted.iter().map(|ip| AddressChange::Add(*ip)));
        assert_eq!((report.sent, report.unchanged, report.failed.len()), (5200, 5200, 0));
        assert!(report.uncertain.is_empty(), "the replies to a batch that is all refused must fit");

        let start = std::time::Instant::now();
        let report = interface.apply(wanted.iter().map(|ip| AddressChange::Remove(*ip)));
        println!("removed in {:?}", start.elapsed());
        assert_eq!((report.sent, report.unchanged, report.failed.len()), (5200, 0, 0));
        assert!(addresses_by_ip(NAME).is_empty());
    });
}

/// Where buffers cannot be forced, because the process is root of a user namespace only.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn addresses_are_added_with_the_smallest_buffers() {
    let test = "addresses_are_added_with_the_smallest_buffers";
    let inside = std::env::var_os("PROXIER_TEST_NAMESPACE").is_some();
    let _small = (!inside).then(small_buffers::SmallBuffers::set);
    in_namespace_with(test, &["--user", "--map-root-user"], || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        let wanted: BTreeSet<IpAddr> = (0..1000)
            .map(|i| Ipv4Addr::from(0x0a60_0000 + i).into())
            .chain((0..200).map(|i| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i + 1).into()))
            .collect();
        let report = interface.apply(wanted.iter().map(|ip| AddressChange::Add(*ip)));
        assert!(report.is_success(), "{report:?}");
        assert!(report.sends > 20, "{} sends: the buffers were not small", report.sends);
        assert_eq!(interface.addresses().unwrap(), wanted);
        let report = interface.apply(wanted.iter().map(|ip| AddressChange::Add(*ip)));
        assert!(report.is_success() && report.unchanged == 1200, "{report:?}");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn host_addresses_cover_every_interface() {
    in_namespace("host_addresses_cover_every_interface", || {
        let (interface, _) = DummyInterface::ensure(NAME).unwrap();
        assert_eq!(host_addresses().unwrap(), []);
        let report = interface.apply([AddressChange::Add(address("10.96.0.1"))]);
        assert!(report.failed.is_empty());
        ip("link add docker0 type bridge");
        ip("addr add 172.17.0.1/16 dev docker0");
        ip("link add eth5 type veth peer name pod");
        ip("link set eth5 up");
        ip("link set pod up");
        ip("addr add 3.4.5.6/24 dev eth5");
        ip("addr add 10.9.0.1 peer 10.9.0.2/32 dev eth5");
        ip("addr add 2000::1/64 dev eth5 nodad");
        ip("addr add 127.0.0.5/8 dev lo");
        let listed: Vec<_> = host_addresses().unwrap();
        let seen: BTreeSet<_> = listed
            .iter()
            .map(|entry| (entry.name.as_str(), entry.address.to_string(), entry.prefix_len))
            .collect();
        let wanted = [
            (NAME, "10.96.0.1", 32),
            ("docker0", "172.17.0.1", 16),
            ("eth5", "3.4.5.6", 24),
            ("eth5", "10.9.0.1", 32),
            ("eth5", "2000::1", 64),
        ];
        assert_eq!(seen, wanted.map(|(name, ip, len)| (name, ip.to_owned(), len)).into());
        let own: Vec<_> = listed.iter().filter(|e| e.interface == interface.index()).collect();
        assert_eq!(own.len(), 1);
        // The other interfaces' addresses are not ours.
        assert_eq!(interface.addresses().unwrap(), [address("10.96.0.1")].into());
    });
}

/// The next event that `wanted` accepts.
async fn until(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = monitor.changed().await.unwrap();
        if wanted(&event) {
            return event;
        }
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn monitor_follows_what_others_change() {
    in_namespace("monitor_follows_what_others_change", || {
        waiting(async {
            drop(std::net::UdpSocket::bind("[::1]:0")); // loads IPv6 where it is a module
            let mut monitor = Monitor::open().unwrap();
            ip("link add eth5 type dummy");
            let new =
                until(&mut monitor, |e| matches!(e, Event::Link { name, .. } if name == "eth5"));
            let Event::Link { index, up: false, deleted: false, .. } = new.await else {
                panic!("a new interface is down");
            };
            ip("addr add 3.4.5.6/24 dev eth5");
            ip("addr add 2000::1/64 dev eth5");
            ip("addr del 3.4.5.6/24 dev eth5");
            let mut seen = Vec::new();
            while seen.len() < 3 {
                let event = until(&mut monitor, |e| matches!(e, Event::Address { .. })).await;
                if !seen.contains(&event) {
                    seen.push(event);
                }
            }
            let event =
                |ip, added| Event::Address { interface: index, address: address(ip), added };
            let wanted = [event("3.4.5.6", true), event("2000::1", true), event("3.4.5.6", false)];
            assert!(wanted.iter().all(|e| seen.contains(e)), "{seen:?}");

            ip("link set eth5 up");
            until(
                &mut monitor,
                |e| matches!(e, Event::Link { index: i, up: true, .. } if *i == index),
            )
            .await;
            ip("link del eth5");
            let gone =
                |e: &Event| matches!(e, Event::Link { index: i, deleted: true, .. } if *i == index);
            until(&mut monitor, gone).await;
        });
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn monitor_leaves_out_what_this_process_changes() {
    in_namespace("monitor_leaves_out_what_this_process_changes", || {
        waiting(async {
            let (interface, _) = DummyInterface::ensure(NAME).unwrap();
            let mut monitor = Monitor::open().unwrap();
            // More than the monitor's buffer holds; and a second socket of this process.
            let (again, _) = DummyInterface::ensure(NAME).unwrap();
            let many = || (0..4000).map(|i| IpAddr::from(Ipv4Addr::from(0x0a60_0000 + i)));
            assert!(interface.apply(many().map(AddressChange::Add)).failed.is_empty());
            assert!(again.apply(many().map(AddressChange::Remove)).failed.is_empty());
            // Of IPv6 the kernel does tell, so these have to fit.
            let six = || (1..60).map(|i| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, i)));
            assert!(interface.apply(six().map(AddressChange::Add)).failed.is_empty());
            assert!(again.apply(six().skip(1).map(AddressChange::Remove)).failed.is_empty());
            // What others do to the same addresses is news.
            ip(&format!("addr del fd00::1/128 dev {NAME}"));
            let gone = Event::Address {
                interface: interface.index(),
                address: address("fd00::1"),
                added: false,
            };
            assert_eq!(monitor.changed().await.unwrap(), gone);
            ip(&format!("addr add 192.0.2.1/32 dev {NAME}"));
            let wanted = Event::Address {
                interface: interface.index(),
                address: address("192.0.2.1"),
                added: true,
            };
            assert_eq!(monitor.changed().await.unwrap(), wanted);
        });
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn monitor_says_that_it_missed_something() {
    in_namespace("monitor_says_that_it_missed_something", || {
        waiting(async {
            let (interface, _) = DummyInterface::ensure(NAME).unwrap();
            let mut monitor = Monitor::open().unwrap();
            let script = format!(
                "for c in $(seq 16); do for d in $(seq 250); do
                echo addr add 10.96.$c.$d/32 dev {NAME}
            done; done | ip -batch -"
            );
            assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
            until(&mut monitor, |event| *event == Event::Overrun).await;
            // What was queued before is not reported any more; what comes now is.
            ip(&format!("addr add 192.0.2.1/32 dev {NAME}"));
            let next = monitor.changed().await.unwrap();
            let one = address("192.0.2.1");
            let wanted = Event::Address { interface: interface.index(), address: one, added: true };
            assert_eq!(next, wanted);
        });
    });
}
