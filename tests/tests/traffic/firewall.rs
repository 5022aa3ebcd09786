//! Traffic that the firewall has a part in, with either backend.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use proxier::dataplane::firewall::Backend;
use proxier_tests::manifest::Service;
use proxier_tests::topology::{Family, Host};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report, Server};
use proxier_tests::world::{SCTP, TCP, UDP, World};
use serde_json::json;

use super::{connect, counts, load, objects};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The addresses of the Service `web`, by family.
const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
const EXTERNAL: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
const BALANCER: [&str; 2] = ["203.0.113.20", "2001:db8::20"];

/// Its ports and node ports.
const PORTS: [(Protocol, u16, u16); 3] =
    [(Protocol::Tcp, 80, 30080), (Protocol::Udp, 53, 30053), (Protocol::Sctp, 7777, 30777)];

fn target(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

fn web() -> Service {
    let service = Service::new("web", &CLUSTER).external_ips(&EXTERNAL).load_balancer(&BALANCER);
    PORTS.iter().fold(service, |service, &(protocol, port, node_port)| {
        service.node_port(protocol, port, target(protocol), node_port)
    })
}

/// Every frontend of `web`: what it is called, its address and its ports.
fn frontends(world: &World, family: Family) -> Vec<(&'static str, String, bool)> {
    let index = usize::from(family == Family::V6);
    vec![
        ("external IP", EXTERNAL[index].to_owned(), false),
        ("load balancer IP", BALANCER[index].to_owned(), false),
        ("node port", world.topology.node().host.address(family).to_string(), true),
        ("cluster IP", CLUSTER[index].to_owned(), false),
    ]
}

fn bound() -> Vec<&'static str> {
    [CLUSTER, EXTERNAL, BALANCER].concat()
}

/// 4 frontends, of which the node port is on two addresses of the node per family (`eth0`, `cni0`),
/// 3 protocols, 2 families.
const WEB_VIRTUAL_SERVERS: usize = 5 * 3 * 2;

pub(super) fn every_frontend_carries_every_protocol_in_both_families(backend: Backend) {
    let mut world = World::build_by(backend, "rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 3, &bound()).unwrap();
    world.reads_back().unwrap();
    let topology = &world.topology;
    for family in FAMILIES {
        // The client is outside the cluster: it is masqueraded, with the node's address on the way.
        let gateway: IpAddr = match family {
            Family::V4 => "10.244.0.1".parse().unwrap(),
            Family::V6 => "fd00:10:244::1".parse().unwrap(),
        };
        let node = topology.node().host.address(family);
        for (what, address, is_node_port) in frontends(&world, family) {
            for (protocol, port, node_port) in PORTS {
                let port = if is_node_port { node_port } else { port };
                let report = connect(&topology.client, &load(protocol, &address, port, 6));
                let place = format!("{what} {protocol} {address} {port}: {report:?}");
                assert_eq!(
                    report.answers,
                    counts([("pod-a", 2), ("pod-b", 2), ("pod-d", 2)]),
                    "{place}"
                );
                assert_eq!(report.peers, [(gateway, 4), (node, 2)].into(), "{place}");
            }
        }
    }
}

pub(super) fn pods_and_the_node_use_cluster_ips(backend: Backend) {
    let mut world = World::build_by(backend, "rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 3, &bound()).unwrap();
    world.reads_back().unwrap();
    let topology = &world.topology;
    for family in FAMILIES {
        let address = CLUSTER[usize::from(family == Family::V6)];
        for (protocol, port, _) in PORTS {
            // A pod is inside the cluster: its own address arrives, on its node and on another.
            let from = topology.node().pod("pod-c");
            let report = connect(from, &load(protocol, address, port, 6));
            assert_eq!(
                report.answers,
                counts([("pod-a", 2), ("pod-b", 2), ("pod-d", 2)]),
                "{report:?}"
            );
            assert_eq!(report.peers, [(from.address(family), 6)].into(), "{protocol} {address}");

            // The node's own connections leave with the address of the link they leave by.
            let report = connect(&topology.node().host, &load(protocol, address, port, 3));
            assert_eq!(
                report.answers,
                counts([("pod-a", 1), ("pod-b", 1), ("pod-d", 1)]),
                "{report:?}"
            );
            assert!(!report.peers.contains_key(&address.parse().unwrap()), "{report:?}");
        }
    }
}

pub(super) fn external_traffic_policy_local_keeps_the_client_address_and_the_node(
    backend: Backend,
) {
    let mut world = World::build_by(backend, "rr").unwrap();
    let service = web()
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(31999));
    let objects = objects(&world, &service, &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    // Cluster IPs lead to pod-d too, and so do the marks of clients inside the cluster.
    let more = 3 * 2;
    let inside = 3 * 2 * 3;
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 2 + more + inside, &bound()).unwrap();
    world.reads_back().unwrap();
    for family in FAMILIES {
        let client = &world.topology.client;
        for (what, address, is_node_port) in frontends(&world, family) {
            for (protocol, port, node_port) in PORTS {
                let port = if is_node_port { node_port } else { port };
                let report = connect(client, &load(protocol, &address, port, 6));
                let place = format!("{what} {protocol} {address} {port}: {report:?}");
                if what == "cluster IP" {
                    assert_eq!(
                        report.answers,
                        counts([("pod-a", 2), ("pod-b", 2), ("pod-d", 2)]),
                        "{place}"
                    );
                } else {
                    assert_eq!(report.answers, counts([("pod-a", 3), ("pod-b", 3)]), "{place}");
                    assert_eq!(report.peers, [(client.address(family), 6)].into(), "{place}");
                }
            }
        }
    }
}

pub(super) fn a_pod_reaches_itself_through_its_service(backend: Backend) {
    let mut world = World::build_by(backend, "rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS, &bound()).unwrap();
    world.reads_back().unwrap();
    let pod = world.topology.node().pod("pod-a");
    for family in FAMILIES {
        let address = CLUSTER[usize::from(family == Family::V6)];
        for (protocol, port, _) in PORTS {
            let report = connect(pod, &load(protocol, address, port, 2));
            assert_eq!(report.answers, counts([("pod-a", 2)]), "{protocol} {address}: {report:?}");
            // Its own address would be answered past the node.
            assert!(
                !report.peers.contains_key(&pod.address(family)),
                "{protocol} {address}: {report:?}"
            );
        }
    }
}

pub(super) fn a_port_that_no_service_has_is_refused(backend: Backend) {
    let mut world = World::build_by(backend, "rr").unwrap();
    // A process of the node must not be reachable through a service address.
    let node = &world.topology.node().host;
    // Of both families: IPv6's wildcard takes IPv4 too.
    let listening = Place::new(Protocol::Tcp, Ipv6Addr::UNSPECIFIED.into(), 22);
    let _server = Server::start(&node.namespace, "node", &[listening]).unwrap();
    let objects = objects(&world, &web(), &["pod-a"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS, &bound()).unwrap();
    world.reads_back().unwrap();
    let topology = &world.topology;
    for from in [&topology.client, topology.node().pod("pod-c")] {
        for address in bound() {
            for (protocol, port) in [(Protocol::Tcp, 22), (Protocol::Udp, 80)] {
                let report = connect(from, &load(protocol, address, port, 1));
                let place = format!("{protocol} {address} {port}: {report:?}");
                assert_eq!(report.errors, counts([("refused", 1)]), "{place}");
            }
        }
    }
}

/// The address with source ranges, by family.
const GUARDED: [&str; 2] = ["203.0.113.30", "2001:db8::30"];
/// Another address of the client, which is in no range.
const STRANGER: [&str; 2] = ["192.168.50.101", "fd00:50::101"];

pub(super) fn source_ranges_let_nobody_else_in_nor_the_node(backend: Backend) {
    let mut world = World::build_by(backend, "rr").unwrap();
    let client = &world.topology.client.namespace;
    client
        .ip(&format!(
            "addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad",
            STRANGER[0], STRANGER[1]
        ))
        .unwrap();
    let pod = world.topology.node().pod("pod-c");
    let ranges =
        ["192.168.50.100/32", "fd00:50::100/128", &format!("{}/32", pod.ipv4)].map(str::to_owned);
    let cluster = ["10.96.0.30", "fd00:10:96::30"];
    let service = PORTS
        .iter()
        .fold(Service::new("guarded", &cluster), |service, &(protocol, port, _)| {
            service.port(protocol, port, target(protocol))
        })
        .load_balancer(&GUARDED)
        .with("loadBalancerSourceRanges", json!(ranges));
    let objects = objects(&world, &service, &["pod-a", "pod-d"], &FAMILIES);
    world.apply(&objects, 2 * 3 * 2 * 2, &[GUARDED, cluster].concat()).unwrap();
    world.reads_back().unwrap();
    let topology = &world.topology;
    let from = |host: &Host, source: Option<IpAddr>, protocol, address, port| -> Report {
        let source = source.map(|source| SocketAddr::new(source, 0));
        let load = Load { source, timeout: 1000, ..load(protocol, address, port, 1) };
        Client::new(&host.namespace).connect(&load).unwrap()
    };
    for (index, family) in FAMILIES.into_iter().enumerate() {
        for (protocol, port, _) in PORTS {
            let address = GUARDED[index];
            let friend = topology.client.address(family);
            let let_in = from(&topology.client, Some(friend), protocol, address, port);
            assert_eq!(let_in.answered(), 1, "{protocol} {address} {port}: {let_in:?}");
            let stranger = Some(STRANGER[index].parse().unwrap());
            let node = &topology.node().host;
            let other = topology.node().pod("pod-b");
            for (who, host, source) in [
                ("stranger", &topology.client, stranger),
                ("node", node, None),
                ("pod", other, None),
            ] {
                let kept_out = from(host, source, protocol, address, port);
                let place = format!("{who} {protocol} {address} {port}: {kept_out:?}");
                assert_eq!((kept_out.answered(), kept_out.failed()), (0, 1), "{place}");
                // The cluster IP of the same Service is for everybody.
                let report = from(host, source, protocol, cluster[index], port);
                assert_eq!(report.answered(), 1, "{who} {protocol} cluster IP: {report:?}");
            }
        }
    }
    // A pod that is in a range, beside one that is not.
    let report = from(topology.node().pod("pod-c"), None, Protocol::Tcp, GUARDED[0], 80);
    assert_eq!(report.answered(), 1, "{report:?}");
}
