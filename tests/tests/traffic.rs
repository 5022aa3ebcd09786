//! End to end: connections through service addresses reach pods, with the daemon's work in a real
//! kernel between them. Who answered and whose address the pod saw is checked.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use proxier_tests::manifest::Service;
use proxier_tests::topology::{Family, Host};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report, Server};
use proxier_tests::world::{SCTP, TCP, UDP, World};
use serde_json::{Value, json};

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

/// A Service with one TCP port 80 and one cluster IP.
fn small(name: &str) -> Service {
    Service::new(name, &["10.96.0.20"]).port(Protocol::Tcp, 80, TCP)
}

/// A Service's documents with these pods behind it, in these families.
fn objects(world: &World, service: &Service, pods: &[&str], families: &[Family]) -> Vec<Value> {
    let pods: Vec<_> = pods.iter().map(|name| world.topology.pod(name)).collect();
    let mut documents = vec![service.document()];
    documents.extend(families.iter().map(|family| service.slice(*family, &pods)));
    documents
}

fn load(protocol: Protocol, address: &str, port: u16, times: u32) -> Load {
    let to = Place::new(protocol, address.parse().expect("an address"), port);
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

fn connect(from: &Host, load: &Load) -> Report {
    Client::new(&from.namespace).connect(load).expect("run the client")
}

fn counts<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, u32> {
    pairs.map(|(name, count)| (name.to_owned(), count)).into()
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_frontend_carries_every_protocol_in_both_families() {
    let mut world = World::build("rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 3, &bound()).unwrap();
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn pods_and_the_node_use_cluster_ips() {
    let mut world = World::build("rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 3, &bound()).unwrap();
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn external_traffic_policy_local_keeps_the_client_address_and_the_node() {
    let mut world = World::build("rr").unwrap();
    let service = web()
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(31999));
    let objects = objects(&world, &service, &["pod-a", "pod-b", "pod-d"], &FAMILIES);
    // Only the cluster IPs lead to pod-d too.
    world.apply(&objects, WEB_VIRTUAL_SERVERS * 2 + 3 * 2, &bound()).unwrap();
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::build("rr").unwrap();
    let objects = objects(&world, &web(), &["pod-a"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS, &bound()).unwrap();
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_port_that_no_service_has_is_refused() {
    let mut world = World::build("rr").unwrap();
    // A process of the node must not be reachable through a service address.
    let node = &world.topology.node().host;
    // Of both families: IPv6's wildcard takes IPv4 too.
    let listening = Place::new(Protocol::Tcp, Ipv6Addr::UNSPECIFIED.into(), 22);
    let _server = Server::start(&node.namespace, "node", &[listening]).unwrap();
    let objects = objects(&world, &web(), &["pod-a"], &FAMILIES);
    world.apply(&objects, WEB_VIRTUAL_SERVERS, &bound()).unwrap();
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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn round_robin_is_even() {
    let mut world = World::build("rr").unwrap();
    let objects = objects(&world, &small("even"), &["pod-a", "pod-b", "pod-d"], &[Family::V4]);
    world.apply(&objects, 3, &["10.96.0.20"]).unwrap();
    let report = connect(&world.topology.client, &load(Protocol::Tcp, "10.96.0.20", 80, 300));
    assert_eq!(report.answered(), 300, "{report:?}");
    for (name, count) in &report.answers {
        assert!(count.abs_diff(100) <= 1, "{name}: {report:?}");
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn weighted_round_robin_follows_the_weights() {
    let mut world = World::build("wrr").unwrap();
    let objects = objects(&world, &small("weighted"), &["pod-a", "pod-b"], &[Family::V4]);
    world.apply(&objects, 2, &["10.96.0.20"]).unwrap();
    // Kubernetes has no weights: an operator's hand sets them while the daemon is down.
    world.stop().unwrap();
    let node = &world.topology.node().host.namespace;
    node.sh(&format!("ipvsadm -e -t 10.96.0.20:80 -r 10.244.0.5:{TCP} -m -w 3")).unwrap();
    let report = connect(&world.topology.client, &load(Protocol::Tcp, "10.96.0.20", 80, 40));
    assert_eq!(report.answers, counts([("pod-a", 30), ("pod-b", 10)]), "{report:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn least_connection_fills_up_a_new_endpoint() {
    let mut world = World::build("lc").unwrap();
    let service = small("least");
    let two = objects(&world, &service, &["pod-a", "pod-b"], &[Family::V4]);
    world.apply(&two, 2, &["10.96.0.20"]).unwrap();
    let held = |world: &World, times| {
        let client = Client::new(&world.topology.client.namespace);
        client.hold(&load(Protocol::Tcp, "10.96.0.20", 80, times)).unwrap()
    };
    let first = held(&world, 6);
    assert_eq!(first.opened.answers, counts([("pod-a", 3), ("pod-b", 3)]), "{:?}", first.opened);
    let three = objects(&world, &service, &["pod-a", "pod-b", "pod-d"], &[Family::V4]);
    world.apply(&three, 3, &["10.96.0.20"]).unwrap();
    let second = held(&world, 3);
    assert_eq!(second.opened.answers, counts([("pod-d", 3)]), "{:?}", second.opened);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn client_affinity_sticks_to_one_pod() {
    let mut world = World::build("rr").unwrap();
    let service = small("sticky").with("sessionAffinity", json!("ClientIP"));
    let objects = objects(&world, &service, &["pod-a", "pod-b", "pod-d"], &[Family::V4]);
    world.apply(&objects, 3, &["10.96.0.20"]).unwrap();
    let report = connect(&world.topology.client, &load(Protocol::Tcp, "10.96.0.20", 80, 20));
    assert_eq!(report.answered(), 20, "{report:?}");
    assert_eq!(report.answers.len(), 1, "{report:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_removed_endpoint_keeps_its_connections_and_gets_no_new_ones() {
    let mut world = World::build("rr").unwrap();
    let service = small("draining");
    let both = objects(&world, &service, &["pod-a", "pod-b"], &[Family::V4]);
    world.apply(&both, 2, &["10.96.0.20"]).unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let mut held = client.hold(&load(Protocol::Tcp, "10.96.0.20", 80, 4)).unwrap();
    assert_eq!(held.opened.answers, counts([("pod-a", 2), ("pod-b", 2)]), "{:?}", held.opened);
    let one = objects(&world, &service, &["pod-b"], &[Family::V4]);
    // It stays, with weight 0, while it has connections.
    let draining = "-r 10.244.0.5:8080 -m -w 0";
    world.apply_until(&one, draining, |text| text.contains(draining)).unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let report = client.connect(&load(Protocol::Tcp, "10.96.0.20", 80, 10)).unwrap();
    assert_eq!(report.answers, counts([("pod-b", 10)]), "{report:?}");
    assert_eq!(held.ask().unwrap().answers, counts([("pod-a", 2), ("pod-b", 2)]));
}
