//! End to end: connections through service addresses reach pods, with the daemon's work in a real
//! kernel between them. Who answered and whose address the pod saw is checked.

#[path = "traffic/firewall.rs"]
mod firewall;
#[path = "traffic/nftables.rs"]
mod nftables;

use std::collections::BTreeMap;

use proxier::dataplane::firewall::Backend;
use proxier_tests::manifest::Service;
use proxier_tests::topology::{Family, Host};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{TCP, World};
use serde_json::{Value, json};

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

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_frontend_carries_every_protocol_in_both_families() {
    firewall::every_frontend_carries_every_protocol_in_both_families(Backend::Iptables);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn pods_and_the_node_use_cluster_ips() {
    firewall::pods_and_the_node_use_cluster_ips(Backend::Iptables);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn external_traffic_policy_local_keeps_the_client_address_and_the_node() {
    firewall::external_traffic_policy_local_keeps_the_client_address_and_the_node(
        Backend::Iptables,
    );
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_pod_reaches_itself_through_its_service() {
    firewall::a_pod_reaches_itself_through_its_service(Backend::Iptables);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_port_that_no_service_has_is_refused() {
    firewall::a_port_that_no_service_has_is_refused(Backend::Iptables);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn source_ranges_let_nobody_else_in_nor_the_node() {
    firewall::source_ranges_let_nobody_else_in_nor_the_node(Backend::Iptables);
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
