//! Every rule of the nftables table matters, and so do the elements of every set: without them some packet
//! takes another way. The exceptions are listed with their reasons.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use netlink_nftables::{Expr, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use proxier::builders::{NODE, ip};
use proxier::dataplane::State;
use proxier::dataplane::firewall::Backend;
use proxier::nftables::{Content, content, rule_words};
use proxier_tests::packets::{interfaces, sources};
use proxier_tests::random::{
    Endpoint, Kind, Node, OTHER_NODE, Port, Slice, World, pods_here, world,
};
use proxier_tests::simulated::{Kernel, Simulation, simulate};
use proxier_tests::trace::{Machine, Outcome, Packet};

const WORLDS: usize = 100;

/// How the names begin of what may be left out without any effect on the packets of these worlds, and why.
const UNSEEN: &[(&str, &str)] = &[
    ("services: ip saddr 127.0.0.0/8 return", LOOPBACK),
    ("services: ip saddr ::1 return", LOOPBACK),
    ("mark-to-masquerade: accept", "it saves what follows, which would only mark the packet again"),
    (
        "masquerading: meta mark set meta mark ^ BIT",
        "a packet that passes again is not masqueraded twice",
    ),
    ("allowed-node", NODE_FIRST),
    (
        "allowed-sources: ip daddr . meta l4proto . th dport . ip saddr @allowed-node return",
        NODE_FIRST,
    ),
    ("closed-ports: icmp", "only TCP, UDP and SCTP are walked"),
    (
        "filter-forward: jump restricted",
        "these addresses are bound, so packets to them are not forwarded",
    ),
];
const LOOPBACK: &str =
    "no packet comes from a loopback address: the node's have their destination's";
const NODE_FIRST: &str = "IPVS takes packets of the node before input";

#[test]
fn every_rule_and_set_matters() {
    let mut runner = TestRunner::deterministic();
    let (mut all, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for at in 0..WORLDS {
        let mut world = world().new_tree(&mut runner).expect("a world").current();
        world.backend = Backend::Nftables;
        if at % 4 == 0 {
            rarely_met(&mut world);
        }
        answer_everywhere(&mut world);
        if at % 5 > 2 {
            local_balancers(&mut world);
        }
        if at % 5 == 4 {
            answer_elsewhere_only(&mut world);
        }
        // Most ports are TCP's.
        (0..at % 3).for_each(|_| turn_protocols(&mut world));
        let kernel = Kernel::new(State::default());
        let state = simulate(async { Simulation::settled(kernel, &world).await.state() });
        for family in &world.families {
            let case = Case::new(&world, &state, *family);
            for (what, part) in parts(&case.table, *family) {
                if !seen.contains(&what) && case.tells_without(part) {
                    seen.insert(what.clone());
                }
                all.insert(what);
            }
        }
    }
    let unseen: BTreeSet<&str> = all.difference(&seen).map(String::as_str).collect();
    let begins = |what: &str, known: &str| what.starts_with(known);
    let is_known = |what: &&str| UNSEEN.iter().any(|(known, _)| begins(what, known));
    let matters = |known: &&str| !unseen.iter().any(|what| begins(what, known));
    let new: Vec<&str> = unseen.iter().copied().filter(|what| !is_known(what)).collect();
    let old: Vec<&str> = UNSEEN.iter().map(|(known, _)| *known).filter(matters).collect();
    assert_eq!((new, old), (vec![], vec![]), "without effect, and listed although they matter");
}

/// Every Service has endpoints, on this node and on another one, and source ranges may have this one.
fn answer_everywhere(world: &mut World) {
    world.node = Some(Node { zone: None, addresses: world.host.clone() });
    let endpoint = |(address, node)| Endpoint {
        address,
        ready: None,
        serving: None,
        terminating: None,
        node: Some(node),
        zones: Vec::new(),
        nodes: Vec::new(),
    };
    let slices = world.services.values().flat_map(|service| {
        service.families.iter().map(move |&family| {
            let elsewhere = match family {
                Family::Ipv4 => ip("10.244.1.1"),
                Family::Ipv6 => ip("fd00:244:1::1"),
            };
            let pods = [(pods_here(family)[0], NODE), (elsewhere, OTHER_NODE)];
            let port = |port: &Port| Port { number: 8080, node_port: 0, ..port.clone() };
            let ports = service.ports.iter().map(port).collect();
            let endpoints = pods.map(endpoint).into();
            Slice { name: 0, service: service.name, family, ports, endpoints }
        })
    });
    let named = (0..).zip(slices).map(|(name, slice)| (name, Slice { name, ..slice }));
    world.slices = named.collect();
}

/// No endpoint is on this node.
fn answer_elsewhere_only(world: &mut World) {
    let elsewhere = |endpoint: &Endpoint| endpoint.node == Some(OTHER_NODE);
    world.slices.values_mut().for_each(|slice| slice.endpoints.retain(elsewhere));
}

/// Services with a load balancer's address, Local.
fn local_balancers(world: &mut World) {
    for service in world.services.values_mut() {
        (service.kind, service.external_local) = (Kind::LoadBalancer, true);
        service.ingress = ["203.0.113.3", "2001:db8:113::3"].map(|it| (ip(it), None)).into();
        service.source_ranges.clear();
    }
}

/// What few worlds have: an external IP, Local, with a port that is a node port of another Service, not
/// Local, whose source ranges have this node.
fn rarely_met(world: &mut World) {
    let mut services = world.services.values_mut();
    if let (Some(one), Some(other)) = (services.next(), services.next()) {
        (one.kind, other.kind) = (Kind::ClusterIp, Kind::LoadBalancer);
        (one.external_local, other.external_local) = (true, false);
        one.external_ips = vec![ip("203.0.113.1")];
        one.ports = vec![Port { name: "", protocol: Protocol::Tcp, number: 30_080, node_port: 0 }];
        other.external_ips = Vec::new();
        other.ingress = vec![(ip("203.0.113.3"), None)];
        other.source_ranges = vec!["192.0.2.0/24".parse().expect("a network")];
        other.ports = vec![Port { node_port: 30_080, number: 80, ..one.ports[0].clone() }];
    }
}

/// What was TCP's is UDP's, and so on.
fn turn_protocols(world: &mut World) {
    let of_services = world.services.values_mut().flat_map(|service| &mut service.ports);
    let of_slices = world.slices.values_mut().flat_map(|slice| &mut slice.ports);
    for port in of_services.chain(of_slices) {
        port.protocol = match port.protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
    }
}

/// A world in one family.
struct Case<'a> {
    world: &'a World,
    state: &'a State,
    family: Family,
    table: Content,
    /// With what becomes of them.
    packets: Vec<(Packet, Outcome)>,
}

impl<'a> Case<'a> {
    fn new(world: &'a World, state: &'a State, family: Family) -> Self {
        let mut places = BTreeSet::new();
        for key in state.virtual_servers.keys() {
            if let VirtualServerKey::Address { address, port, protocol } = *key {
                places.insert((address, port, protocol));
            }
        }
        for address in state.interface.addresses.iter().chain(&world.host) {
            let others = [22, 30_080, 30_200].map(|port| (*address, port, Protocol::Tcp));
            places.extend(others);
        }
        places.retain(|(address, ..)| Family::of(*address) == family);
        let of = |(destination, port, protocol)| {
            let sources = sources(family).into_iter();
            sources.map(move |source| Packet { source, destination, port, protocol })
        };
        let table = content(state, family);
        let mut case = Self { world, state, family, table, packets: Vec::new() };
        let machine = case.machine(case.table.clone());
        let packets = places.into_iter().flat_map(of);
        let packets = packets.filter(|packet| !machine.is_martian(packet));
        case.packets = packets.map(|packet| (packet, machine.walk(&packet))).collect();
        case
    }

    fn machine(&self, table: Content) -> Machine<'a> {
        let interfaces = interfaces(self.world);
        Machine::with_table(table, self.family, self.state, &self.world.host, interfaces)
    }

    /// Whether some packet takes another way without this.
    fn tells_without(&self, part: Part) -> bool {
        let mut table = self.table.clone();
        match part {
            Part::Rule(chain, rule) => _ = table.chains[chain].1.remove(rule),
            Part::Elements(set) => table.sets[set].1.clear(),
        }
        let machine = self.machine(table);
        self.packets.iter().any(|(packet, outcome)| machine.walk(packet) != *outcome)
    }
}

/// A part of a table, by its place.
#[derive(Debug, Clone, Copy)]
enum Part {
    Rule(usize, usize),
    Elements(usize),
}

/// Every rule (`CHAIN: RULE`) and every set that has elements. Names have no mark bits, and those of both
/// families are the same.
fn parts(table: &Content, family: Family) -> Vec<(String, Part)> {
    let mut parts: Vec<(String, Part)> = Vec::new();
    for (at, (set, elements)) in table.sets.iter().enumerate() {
        // Not what maps have: of these the rule is enough.
        if !elements.is_empty() && set.data.is_none() {
            parts.push((set.name.clone(), Part::Elements(at)));
        }
    }
    for (at, (chain, rules)) in table.chains.iter().enumerate() {
        for (number, rule) in rules.iter().enumerate() {
            let jump = || match rule.expressions.as_slice() {
                [Expr::Verdict(Verdict::Jump(to))] => Some(format!("jump {to}")),
                _ => None,
            };
            let words = jump().or_else(|| rule_words(family, rule));
            let rule = words.unwrap_or_else(|| "@refused-to-node drop".to_owned());
            let rule = rule.replace("ip6 ", "ip ");
            let words = rule.split(' ');
            let words = words.map(|word| if word.starts_with("0x") { "BIT" } else { word });
            let words: Vec<&str> = words.collect();
            parts.push((format!("{}: {}", chain.name, words.join(" ")), Part::Rule(at, number)));
        }
    }
    parts
}
