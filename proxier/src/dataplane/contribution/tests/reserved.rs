//! Addresses that the node needs for itself.

use super::*;
use crate::dataplane::{Need, Reservation};

/// The address of the API server, in most of these tests.
const API: &str = "192.168.1.11";

fn reserved(entries: &[(&str, Need, u16)]) -> Settings {
    let mut settings = settings();
    for (address, need, port) in entries {
        settings.reserved.add(ip(address), *need, *port);
    }
    settings
}

fn web() -> Service {
    service("web").cluster_ip("10.96.0.50").cluster_ip("fd00::50").port(80)
}

/// The addresses that are programmed.
fn programmed(asked: &Contribution) -> Vec<String> {
    let mut addresses: Vec<String> = asked
        .frontends
        .iter()
        .map(|frontend| match frontend.key {
            VirtualServerKey::Address { address, .. } => address.to_string(),
            VirtualServerKey::FirewallMark { .. } => String::new(),
        })
        .collect();
    addresses.sort();
    addresses
}

#[test]
fn no_service_takes_what_the_node_needs() {
    let v6 = "2001:db8::11";
    for need in [Need::ApiServer, Need::ApiEndpoint, Need::Gateway, Need::NameServer] {
        for address in [API, v6] {
            let settings = reserved(&[(address, need, 6443)]);
            for asks in [web().external_ip(address), web().load_balancer(address)] {
                let asked = ask(&asks.external_ip("203.0.113.1"), &[], &settings);
                assert_eq!(programmed(&asked), ["10.96.0.50", "203.0.113.1", "fd00::50"]);
                let text = format!("{:?}", asked.frontends);
                assert!(!text.contains(address), "no member either: {text}");
                let said: Vec<_> = asked.skipped.iter().map(|skipped| skipped.reason).collect();
                assert_eq!(said, [Refusal::Reserved(need)]);
            }
        }
    }
}

#[test]
fn a_cluster_ip_is_always_had() {
    // As a pod reaches the API server.
    let settings = reserved(&[("10.96.0.1", Need::ApiServer, 443)]);
    let kubernetes = service("kubernetes").cluster_ip("10.96.0.1").port(443);
    assert_eq!(programmed(&ask(&kubernetes, &[], &settings)), ["10.96.0.1"]);
    // But nobody else has it as an external IP, whatever the port.
    let asked = ask(&web().external_ip("10.96.0.1"), &[], &settings);
    assert_eq!(programmed(&asked), ["10.96.0.50", "fd00::50"]);
}

#[test]
fn of_an_address_of_the_node_only_the_ports_are_reserved() {
    let own = NODE_ADDRESSES[0];
    let settings = reserved(&[(own, Need::ApiServer, 6443)]);
    let asked = ask(&web().port(6443).external_ip(own), &[], &settings);
    let keys: Vec<_> = asked.frontends.iter().map(|frontend| frontend.key).collect();
    assert!(keys.contains(&virtual_server(&format!("{own}:80"))), "{keys:?}");
    assert!(!keys.contains(&virtual_server(&format!("{own}:6443"))), "{keys:?}");
    let said: Vec<String> = asked.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("external IP 192.0.2.1 port 6443: this node connects to the API"));

    // An API server in the range of node ports.
    let settings = reserved(&[(own, Need::ApiServer, 30443)]);
    let asked = ask(&service("svc").port(80).node_port(30443), &[], &settings);
    let keys: Vec<_> = asked.frontends.iter().map(|frontend| frontend.key).collect();
    assert_eq!(keys, [virtual_server(&format!("[{}]:30443", NODE_ADDRESSES[1]))]);
}

#[test]
fn the_administrator_can_give_it_away() {
    let mut settings = reserved(&[(API, Need::ApiServer, 6443), ("192.168.1.1", Need::Gateway, 0)]);
    settings.reserved = settings.reserved.without(&["192.168.1.11/32".parse().unwrap()]);
    let asked = ask(&web().external_ip(API).external_ip("192.168.1.1"), &[], &settings);
    assert_eq!(programmed(&asked), ["10.96.0.50", API, "fd00::50"]);
}

#[test]
fn the_most_important_need_is_told() {
    let settings = reserved(&[
        (API, Need::Gateway, 0),
        (API, Need::ApiServer, 6443),
        ("::ffff:192.168.1.11", Need::ApiEndpoint, 443),
        ("127.0.0.1", Need::ApiServer, 6443),
        ("::1", Need::ApiServer, 6443),
    ]);
    let found: Vec<_> = settings.reserved.iter().collect();
    let ports = [443, 6443].into();
    assert_eq!(found, [(ip(API), &Reservation { need: Need::ApiServer, ports })]);
}

#[test]
fn no_service_takes_the_port_of_our_own_servers() {
    let own = NODE_ADDRESSES[0];
    let everywhere = Settings { own_sockets: vec!["0.0.0.0:10256".parse().unwrap()], ..settings() };
    let there =
        Settings { own_sockets: vec![format!("{own}:10249").parse().unwrap()], ..settings() };
    for (settings, port, asks, programmed) in [
        (&everywhere, 10256, web().port(10256).external_ip(own), 0),
        (&there, 10249, web().port(10249).load_balancer(own), 0),
        // Another protocol, another address, another port.
        (&everywhere, 10256, web().named_port("", Protocol::Udp, 10256).external_ip(own), 1),
        (&everywhere, 10256, web().port(10256).external_ip("203.0.113.1"), 1),
        (&everywhere, 10255, web().port(10255).external_ip(own), 1),
        // A cluster IP is an address of its own.
        (&everywhere, 10256, service("svc").cluster_ip("10.96.0.9").port(10256), 1),
        // A node port in both families; the second listens on one address only.
        (&everywhere, 10256, service("svc").port(80).node_port(10256), 0),
        (&there, 10249, service("svc").port(80).node_port(10249), 1),
    ] {
        let asked = ask(&asks, &[], settings);
        let at_port = |frontend: &&Frontend| match frontend.key {
            VirtualServerKey::Address { port: it, address, .. } => {
                it == port && !["10.96.0.50", "fd00::50"].contains(&&*address.to_string())
            }
            VirtualServerKey::FirewallMark { .. } => false,
        };
        assert_eq!(asked.frontends.iter().filter(at_port).count(), programmed, "{asks:?}");
        let refused = asked.skipped.iter().filter(|it| it.reason == Refusal::OwnPort).count();
        assert_eq!(refused > 0, programmed == 0 || asks.ports[0].node_port == 10249, "{asks:?}");
    }
}
