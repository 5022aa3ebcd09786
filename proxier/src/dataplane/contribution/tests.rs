//! One Service → what it asks for. The rows named B, C and E are those of the acceptance list in
//! the behaviour specification.

use std::collections::BTreeMap;
use std::sync::Arc;

use netlink_ipvs::{Flags, Protocol, Scheduler};

use super::*;
use crate::builders::*;

mod policies;
mod reserved;
mod sets;

/// One case: objects, node, and what must come out.
struct Row {
    id: &'static str,
    service: Service,
    slices: Vec<EndpointSlice>,
    settings: Settings,
    /// `ADDRESS:PORT/PROTOCOL [bound] -> REAL SERVERS`, all of them.
    servers: &'static [&'static str],
}

fn ask(service: &Service, slices: &[EndpointSlice], settings: &Settings) -> Contribution {
    contribution(service, &slices.iter(), settings)
}

fn check(rows: Vec<Row>) {
    for row in rows {
        let asked = ask(&row.service, &row.slices, &row.settings);
        assert_eq!(servers(&asked), row.servers, "{}", row.id);
    }
}

fn servers(asked: &Contribution) -> Vec<String> {
    let text = |frontend: &Frontend| {
        let bound = if frontend.bind { " bound" } else { "" };
        let real: Vec<String> =
            frontend.server.real_servers.iter().map(|server| server.key.to_string()).collect();
        assert!(frontend.server.real_servers.iter().all(|server| server.config.weight == 1));
        format!("{}{bound} -> {}", frontend.key, real.join(" ")).trim_end().to_owned()
    };
    asked.frontends.iter().map(text).collect()
}

/// Every member of every set, by the name of the set.
fn members(asked: &Contribution) -> BTreeMap<&'static str, Vec<String>> {
    let mut out: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let of_frontends = asked.frontends.iter().flat_map(|frontend| &frontend.members);
    for (set, member) in of_frontends.chain(&asked.members) {
        out.entry(set.name()).or_default().push(member.to_string());
    }
    for members in out.values_mut() {
        members.sort_unstable();
        members.dedup();
    }
    out
}

/// A node of these families with these addresses, all of which take node ports.
fn node(families: &[Family], addresses: &[&str]) -> Settings {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    Settings {
        families: families.to_vec(),
        host_addresses: addresses.iter().copied().collect(),
        node_port_addresses: addresses.iter().copied().collect(),
        node_ips: addresses,
        ..settings()
    }
}

const V4: &[Family] = &[Family::Ipv4];
const V6: &[Family] = &[Family::Ipv6];

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn cluster_ips_and_node_ports() {
    let dual_node = ["100.101.102.103", "2001:db8::1:1"];
    let v4 = || service("svc").cluster_ip("10.20.30.41").port(80);
    let v6 = || service("svc").cluster_ip("1002:ab8::2:1").port(8080);
    let pod4 = || endpoints("svc", 80, &["10.180.0.1"]);
    let pod6 = || endpoints("svc", 8080, &["1009:ab8::5:6"]).named("svc-6");
    let of = |protocol, name: &str| {
        let number = if name == "svc-6" { "1002:ab8::2:10" } else { "10.180.0.1" };
        slice("svc").target("", protocol, 80).endpoints(&[number]).named(name)
    };
    check(vec![
        Row {
            id: "B01",
            service: v4(),
            slices: vec![pod4(), pod6()],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound -> 10.180.0.1:80"],
        },
        Row {
            id: "B01 the other service",
            service: v6(),
            slices: vec![pod4(), pod6()],
            settings: node(V4, &[]),
            servers: &[],
        },
        Row {
            id: "B02",
            service: v4(),
            slices: vec![],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound ->"],
        },
        Row {
            id: "B03",
            service: v6(),
            slices: vec![pod4(), pod6()],
            settings: node(V6, &[]),
            servers: &["[1002:ab8::2:1]:8080/tcp bound -> [1009:ab8::5:6]:8080"],
        },
        Row {
            id: "B04",
            service: service("svc").cluster_ip("2001::1").port(80),
            slices: vec![],
            settings: node(V6, &[]),
            servers: &["[2001::1]:80/tcp bound ->"],
        },
        Row {
            id: "B05",
            service: v4().node_port(3001),
            slices: vec![of(Protocol::Tcp, "svc-4"), of(Protocol::Tcp, "svc-6")],
            settings: node(V4, &dual_node),
            servers: &[
                "10.20.30.41:80/tcp bound -> 10.180.0.1:80",
                "100.101.102.103:3001/tcp -> 10.180.0.1:80",
            ],
        },
        Row {
            id: "B07",
            service: v4().node_port(3001),
            slices: vec![],
            settings: node(V4, &["100.101.102.103"]),
            servers: &["10.20.30.41:80/tcp bound ->", "100.101.102.103:3001/tcp ->"],
        },
        Row {
            id: "B10",
            service: service("svc").cluster_ip("2020::1").port(80).node_port(3001),
            slices: vec![of(Protocol::Tcp, "svc-4"), of(Protocol::Tcp, "svc-6")],
            settings: node(V6, &dual_node),
            servers: &[
                "[2020::1]:80/tcp bound -> [1002:ab8::2:10]:80",
                "[2001:db8::1:1]:3001/tcp -> [1002:ab8::2:10]:80",
            ],
        },
        Row {
            id: "B11",
            service: v4().node_port(3001),
            slices: vec![of(Protocol::Tcp, "svc-4").with(|slice| slice.family = Family::Ipv6)],
            settings: node(V6, &["100.101.102.103"]),
            servers: &[],
        },
        Row {
            id: "B12",
            service: service("svc").cluster_ip("2020::1").port(80).node_port(3001),
            slices: vec![],
            settings: node(V6, &dual_node),
            servers: &["[2020::1]:80/tcp bound ->", "[2001:db8::1:1]:3001/tcp ->"],
        },
        Row {
            id: "B13",
            service: service("svc")
                .cluster_ip("2020::1")
                .named_port("", Protocol::Sctp, 80)
                .node_port(3001),
            slices: vec![slice("svc").target("", Protocol::Sctp, 80).endpoints(&["2001::1"])],
            settings: node(V6, &["2001:db8::1:1", "2001:db8::1:2"]),
            servers: &[
                "[2020::1]:80/sctp bound -> [2001::1]:80",
                "[2001:db8::1:1]:3001/sctp -> [2001::1]:80",
                "[2001:db8::1:2]:3001/sctp -> [2001::1]:80",
            ],
        },
        Row {
            id: "B14",
            service: v4().node_port(3001).external_local(),
            slices: vec![endpoints("svc", 80, &["10.180.0.1 @node-1", "10.180.1.1 @node-2"])],
            settings: node(V4, &["100.101.102.103"]),
            servers: &[
                "10.20.30.41:80/tcp bound -> 10.180.0.1:80 10.180.1.1:80",
                "100.101.102.103:3001/tcp -> 10.180.0.1:80",
            ],
        },
        Row {
            id: "both families, each its own",
            service: v4().cluster_ip("2020::1").node_port(3001),
            slices: vec![of(Protocol::Tcp, "svc-4"), of(Protocol::Tcp, "svc-6")],
            settings: node(&[Family::Ipv4, Family::Ipv6], &dual_node),
            servers: &[
                "10.20.30.41:80/tcp bound -> 10.180.0.1:80",
                "100.101.102.103:3001/tcp -> 10.180.0.1:80",
                "[2020::1]:80/tcp bound -> [1002:ab8::2:10]:80",
                "[2001:db8::1:1]:3001/tcp -> [1002:ab8::2:10]:80",
            ],
        },
    ]);
}

#[test]
fn external_ips_and_load_balancers() {
    let base = || service("svc").cluster_ip("10.20.30.41").port(80);
    let pods = || endpoints("svc", 80, &["10.180.0.1 @node-1", "10.180.1.1 @node-2"]);
    let udp = || slice("svc").target("", Protocol::Udp, 80).endpoints(&["10.180.0.1"]);
    let own = "192.0.2.1";
    check(vec![
        Row {
            id: "C01",
            service: base().external_ip("50.60.70.81"),
            slices: vec![],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound ->", "50.60.70.81:80/tcp bound ->"],
        },
        // A loopback address is never taken from the host (see `Skipped`), whatever kube-proxy did.
        Row {
            id: "C02",
            service: base()
                .external_ip("50.60.70.81")
                .external_ip("2012::51")
                .external_ip("127.0.0.1"),
            slices: vec![udp()],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound ->", "50.60.70.81:80/tcp bound ->"],
        },
        Row {
            id: "C03",
            service: base().external_ip("50.60.70.81").external_local(),
            slices: vec![pods()],
            settings: node(V4, &[]),
            servers: &[
                "10.20.30.41:80/tcp bound -> 10.180.0.1:80 10.180.1.1:80",
                "50.60.70.81:80/tcp bound -> 10.180.0.1:80",
            ],
        },
        Row {
            id: "C04",
            service: base().node_port(3001).load_balancer("1.2.3.4"),
            slices: vec![udp()],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound ->", "1.2.3.4:80/tcp bound ->"],
        },
        Row {
            id: "C05",
            service: base().node_port(3001).load_balancer("1.2.3.4").external_local(),
            slices: vec![pods()],
            settings: node(V4, &[]),
            servers: &[
                "10.20.30.41:80/tcp bound -> 10.180.0.1:80 10.180.1.1:80",
                "1.2.3.4:80/tcp bound -> 10.180.0.1:80",
            ],
        },
        Row {
            id: "C09",
            service: base(),
            slices: vec![],
            settings: node(V4, &[own]),
            servers: &["10.20.30.41:80/tcp bound ->"],
        },
        Row {
            id: "C10 C11",
            service: base().load_balancer("1.2.3.4"),
            slices: vec![],
            settings: node(V4, &[own]),
            servers: &["10.20.30.41:80/tcp bound ->", "1.2.3.4:80/tcp bound ->"],
        },
        Row {
            id: "an address of the node is used where it is",
            service: base().external_ip(own).load_balancer("1.2.3.4"),
            slices: vec![],
            settings: node(V4, &[own, "1.2.3.4"]),
            servers: &["10.20.30.41:80/tcp bound ->", "192.0.2.1:80/tcp ->", "1.2.3.4:80/tcp ->"],
        },
        Row {
            // kube-proxy binds it, and so closes the node's own ports on it.
            id: "even a cluster IP",
            service: base(),
            slices: vec![],
            settings: node(V4, &["10.20.30.41"]),
            servers: &["10.20.30.41:80/tcp ->"],
        },
        Row {
            id: "one address in several roles is one virtual server",
            service: base().external_ip("1.2.3.4").load_balancer("1.2.3.4"),
            slices: vec![],
            settings: node(V4, &[]),
            servers: &["10.20.30.41:80/tcp bound ->", "1.2.3.4:80/tcp bound ->"],
        },
        Row {
            id: "external IPs can be turned off",
            service: base().external_ip("50.60.70.81"),
            slices: vec![],
            settings: Settings { external_ips: false, ..node(V4, &[]) },
            servers: &["10.20.30.41:80/tcp bound ->"],
        },
        Row {
            id: "a manifest's Service without a cluster IP",
            service: service("svc").port(80).external_ip("50.60.70.81"),
            slices: vec![pods()],
            settings: node(V4, &[]),
            servers: &["50.60.70.81:80/tcp bound -> 10.180.0.1:80 10.180.1.1:80"],
        },
    ]);
}

#[test]
fn what_cannot_be_had_is_said_once() {
    let reasons = |service: Service, settings: &Settings| -> Vec<String> {
        let asked = ask(&service, &[], settings);
        asked.skipped.iter().map(ToString::to_string).collect()
    };
    let two_ports = || service("svc").cluster_ip("10.96.0.1").port(80).port(81);
    let odd = two_ports()
        .external_ip("127.0.0.1")
        .external_ip("0.0.0.0")
        .external_ip("169.254.169.254")
        .load_balancer("224.0.0.1")
        .load_balancer("255.255.255.255");
    assert_eq!(
        reasons(odd, &settings()),
        [
            "external IP 127.0.0.1: it is a loopback address",
            "external IP 0.0.0.0: it is the unspecified address",
            "external IP 169.254.169.254: it is a link-local address",
            "load balancer IP 224.0.0.1: it is a multicast or broadcast address",
            "load balancer IP 255.255.255.255: it is a multicast or broadcast address",
        ]
    );
    // The range of cluster IPs is the administrator's; without a scope IPv6 has no such address.
    let local = service("svc").cluster_ip("169.254.0.10").cluster_ip("fe80::1").port(80);
    assert_eq!(reasons(local, &settings()), ["cluster IP fe80::1: it is a link-local address"]);
    let off = Settings { external_ips: false, ..settings() };
    assert_eq!(
        reasons(two_ports().external_ip("1.2.3.4"), &off),
        ["external IP 1.2.3.4: the feature gate AllowServiceExternalIPs is off"]
    );
}

/// What is estimated before anything is built is never less than what is built.
#[test]
fn the_cost_of_a_service_covers_all_that_it_asks_for() {
    let pods: Vec<String> = (0..200).map(|n| format!("10.244.{n}.1")).collect();
    let pods = endpoints("svc", 80, &pods.iter().map(String::as_str).collect::<Vec<_>>());
    let ports = |service: Service| (1..=20).fold(service, ServiceExt::port);
    let plain = ports(service("svc").cluster_ip("10.96.0.1").external_ip("203.0.113.1"));
    let closed = ports(service("svc").cluster_ip("10.96.0.1").load_balancer("203.0.113.1"))
        .source_ranges(&["192.0.2.0/24", "198.51.100.0/24"]);
    let open = service("svc").cluster_ip("10.96.0.1").port(80).node_port(30080);
    let everywhere = Settings { source_ranges_everywhere: true, ..settings() };
    for asks in [plain, closed.clone(), closed.node_port(30080), open] {
        for settings in [&settings(), &everywhere] {
            let slices = [pods.clone()];
            let asked = ask(&asks, &slices, settings);
            let entry = |frontend: &Frontend| {
                1400 + 350 * frontend.server.real_servers.len() + 500 * frontend.members.len()
            };
            let built: usize = asked.frontends.iter().map(entry).sum();
            let built = built + 500 * asked.members.len();
            let cost = crate::dataplane::cost(&asks, &slices.iter(), settings);
            assert!(cost >= built as u64, "{cost} < {built}");
            assert!(cost <= 3 * built as u64, "{cost} of {built}");
        }
    }
}

#[test]
fn c12_affinity_is_on_every_virtual_server() {
    let service = service("svc")
        .cluster_ip("10.20.30.41")
        .port(80)
        .node_port(3001)
        .external_ip("50.60.70.81")
        .load_balancer("1.2.3.4")
        .affinity(10800);
    let asked = ask(&service, &[], &node(V4, &["100.101.102.103"]));
    assert_eq!(asked.frontends.len(), 4);
    for frontend in &asked.frontends {
        let config = frontend.server.config;
        assert_eq!((config.timeout, config.flags), (10800, Flags::PERSISTENT), "{}", frontend.key);
        assert_eq!((config.scheduler, config.prefix_len), (Scheduler::RR, 32));
    }
}

#[test]
fn the_scheduler_is_the_same_everywhere_and_maglev_hashes_ports() {
    let service = service("svc").cluster_ip("10.0.0.1").cluster_ip("fd00::1").port(80).affinity(9);
    for (name, flags) in [
        ("rr", Flags::PERSISTENT),
        ("sh", Flags::PERSISTENT),
        ("mh", Flags::PERSISTENT | Flags::SCHED2),
    ] {
        let scheduler = name.parse().unwrap();
        let asked = ask(&service, &[], &Settings { scheduler, ..settings() });
        let configs: Vec<_> = asked.frontends.iter().map(|f| f.server.config).collect();
        assert!(configs.iter().all(|config| config.scheduler == scheduler));
        assert!(configs.iter().all(|config| config.flags == flags), "{name}");
        assert_eq!(configs.iter().map(|config| config.prefix_len).collect::<Vec<_>>(), [32, 128]);
    }
}

#[test]
fn real_servers_have_the_port_of_the_slice_and_are_shared() {
    let service = service("svc")
        .cluster_ip("10.0.0.1")
        .named_port("http", Protocol::Tcp, 80)
        .node_port(30080)
        .named_port("dns", Protocol::Udp, 53);
    let slices = [
        slice("svc")
            .target("http", Protocol::Tcp, 8080)
            .target("dns", Protocol::Udp, 5353)
            .endpoints(&["10.244.0.1", "10.244.0.2"]),
        slice("svc").named("svc-2").target("http", Protocol::Tcp, 9090).endpoints(&["10.244.0.2"]),
    ];
    let asked = ask(&service, &slices, &node(V4, &["192.0.2.1"]));
    let tcp = "10.244.0.1:8080 10.244.0.2:8080 10.244.0.2:9090";
    assert_eq!(
        servers(&asked),
        [
            format!("10.0.0.1:80/tcp bound -> {tcp}"),
            format!("192.0.2.1:30080/tcp -> {tcp}"),
            "10.0.0.1:53/udp bound -> 10.244.0.1:5353 10.244.0.2:5353".to_owned(),
        ]
    );
    let [cluster_ip, node_port, _] = &asked.frontends[..] else { panic!() };
    assert!(Arc::ptr_eq(&cluster_ip.server.real_servers, &node_port.server.real_servers));
}
