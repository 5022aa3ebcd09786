//! Who from where reaches what, by the traffic policies of a Service: every combination on a real kernel,
//! against what the Kubernetes documents say of it.
//!
//! Sources: "Traffic policies" in the reference "Virtual IPs and Service Proxies", the fields
//! `externalTrafficPolicy` and `internalTrafficPolicy` of the API, KEP-1669 (terminating endpoints),
//! KEP-2086 (internalTrafficPolicy), KEP-1860 (`ipMode`).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "local_policy/marks.rs"]
mod marks;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxier::dataplane::firewall::Backend;
use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Host, Plan, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{SCTP, TCP, UDP, World};
use serde_json::{Value, json};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// A machine that is no part of the cluster.
    Outside,
    /// Another node, or a pod there that has the node's address.
    OtherNode,
    /// The node, or a pod that has its address.
    ThisNode,
    /// A pod of the node with an address of its own.
    Pod,
    /// A pod of another node, with an address of its own. Its own node has a proxy too, which answers for
    /// all service addresses; what comes to this node is for its node ports.
    PodElsewhere,
}

/// Through what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frontend {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    /// The address of a load balancer that asked not to be taken for one of the node's (`ipMode: Proxy`). It
    /// stands elsewhere and connects to node ports.
    ProxyingLoadBalancer,
    NodePort,
}

/// Where the endpoints are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoints {
    Both,
    Here,
    Elsewhere,
    /// One, on this node, which is being deleted and still answers.
    TerminatingHere,
    None,
}

const CLIENTS: [From; 4] = [From::Outside, From::OtherNode, From::ThisNode, From::Pod];
const FRONTENDS: [Frontend; 5] = [
    Frontend::ClusterIp,
    Frontend::ExternalIp,
    Frontend::LoadBalancer,
    Frontend::ProxyingLoadBalancer,
    Frontend::NodePort,
];
const ENDPOINTS: [Endpoints; 5] = [
    Endpoints::Both,
    Endpoints::Here,
    Endpoints::Elsewhere,
    Endpoints::TerminatingHere,
    Endpoints::None,
];

/// One Service of the matrix.
#[derive(Debug, Clone, Copy)]
struct Case {
    number: u8,
    external_local: bool,
    internal_local: bool,
    endpoints: Endpoints,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Traffic,
    /// `proxier trace` on this node as well, for all that comes to it.
    TraceToo,
}

/// The pods that answer: on this node, on the other one.
const HERE: &str = "pod-a";
const THERE: &str = "pod-d";

/// The ports of each Service.
const PORTS: [(Protocol, u16, u16); 3] =
    [(Protocol::Tcp, 80, TCP), (Protocol::Udp, 53, UDP), (Protocol::Sctp, 7777, SCTP)];

impl Case {
    fn all(external: &[bool], internal: &[bool]) -> Vec<Self> {
        let mut out = Vec::new();
        for &external_local in external {
            for &internal_local in internal {
                for endpoints in ENDPOINTS {
                    let number = u8::try_from(out.len() + 1).unwrap();
                    out.push(Self { number, external_local, internal_local, endpoints });
                }
            }
        }
        out
    }

    fn address(self, frontend: Frontend, family: Family) -> String {
        let number = self.number;
        match (frontend, family) {
            (Frontend::ClusterIp, Family::V4) => format!("10.96.1.{number}"),
            (Frontend::ClusterIp, Family::V6) => format!("fd00:10:96::1:{number:x}"),
            (Frontend::ExternalIp, Family::V4) => format!("203.0.113.{number}"),
            (Frontend::ExternalIp, Family::V6) => format!("2001:db8::1:{number:x}"),
            (Frontend::LoadBalancer, Family::V4) => format!("198.51.100.{number}"),
            (Frontend::LoadBalancer, Family::V6) => format!("2001:db8::2:{number:x}"),
            (Frontend::ProxyingLoadBalancer, Family::V4) => format!("198.51.101.{number}"),
            (Frontend::ProxyingLoadBalancer, Family::V6) => format!("2001:db8::3:{number:x}"),
            (Frontend::NodePort, _) => String::new(),
        }
    }

    fn node_port(self, at: usize) -> u16 {
        30_000 + u16::from(self.number) * 10 + u16::try_from(at).unwrap()
    }

    fn objects(self, topology: &Topology) -> Vec<Value> {
        let of = |frontend| FAMILIES.map(|family| self.address(frontend, family));
        let texts = |addresses: &[String; 2]| addresses.each_ref().map(|it| it.as_str().to_owned());
        let cluster = texts(&of(Frontend::ClusterIp));
        let external = texts(&of(Frontend::ExternalIp));
        let balancer = texts(&of(Frontend::LoadBalancer));
        let proxying = texts(&of(Frontend::ProxyingLoadBalancer));
        let name = format!("case-{}", self.number);
        let mut service = Service::new(&name, &cluster.each_ref().map(String::as_str))
            .external_ips(&external.each_ref().map(String::as_str))
            .load_balancer(&balancer.each_ref().map(String::as_str))
            .proxying_load_balancer(&proxying.each_ref().map(String::as_str));
        for (at, (protocol, port, target)) in PORTS.into_iter().enumerate() {
            service = service.node_port(protocol, port, target, self.node_port(at));
        }
        if self.external_local {
            service = service.with("externalTrafficPolicy", json!("Local"));
        }
        if self.internal_local {
            service = service.with("internalTrafficPolicy", json!("Local"));
        }
        let pods: &[(&str, Condition)] = match self.endpoints {
            Endpoints::Both => &[(HERE, Condition::Ready), (THERE, Condition::Ready)],
            Endpoints::Here => &[(HERE, Condition::Ready)],
            Endpoints::Elsewhere => &[(THERE, Condition::Ready)],
            Endpoints::TerminatingHere => &[(HERE, Condition::Terminating)],
            Endpoints::None => &[],
        };
        let slice = |family| {
            let all = pods.iter().map(|(pod, condition)| {
                let (pod, node) = topology.pod(pod);
                endpoint(family, pod, node, *condition)
            });
            service.slice_of(family, &all.collect::<Vec<_>>())
        };
        let slices = FAMILIES.map(slice);
        std::iter::once(service.document()).chain(slices).collect()
    }
}

/// What the documents say of a connection.
struct Expected {
    /// Who may answer. Where nobody may, it is refused.
    by: BTreeSet<&'static str>,
    /// It may also be lost.
    lost: bool,
    /// The pod sees the address that this one has.
    keeps: Option<From>,
}

/// * Policy Cluster: all endpoints of the cluster.
/// * externalTrafficPolicy Local is about traffic from outside the cluster: it reaches endpoints on the
///   node that it came to, or none, and keeps its address. "Traffic sent to an External IP or LoadBalancer IP
///   from within the cluster will always get Cluster semantics."
/// * "Clients sending to a NodePort from within the cluster may need to take traffic policy into account when
///   picking a node": they reach endpoints on this node where there are some. Where there is none, traffic for
///   such a node may be dropped; the node itself and its pods reach the others all the same.
/// * internalTrafficPolicy Local is about cluster IPs: endpoints on the client's node, or none.
/// * Where no endpoint of a list is ready, those that terminate and still serve are taken.
/// * `ipMode: Proxy`: nobody in the cluster takes a connection on its way to the load balancer, and it is that
///   one which comes to the node, from outside.
fn expected(case: Case, from: From, frontend: Frontend) -> Expected {
    let all: &[&str] = match case.endpoints {
        Endpoints::Both => &[HERE, THERE],
        Endpoints::Here | Endpoints::TerminatingHere => &[HERE],
        Endpoints::Elsewhere => &[THERE],
        Endpoints::None => &[],
    };
    let only = |node: &str| all.iter().copied().filter(|pod| *pod == node).collect();
    let everybody = || all.iter().copied().collect();
    let plain = |by| Expected { by, lost: false, keeps: None };
    let local = match frontend {
        Frontend::ClusterIp => case.internal_local,
        _ => case.external_local,
    };
    if !local {
        return plain(everybody());
    }
    let here: BTreeSet<_> = only(HERE);
    match (frontend, from) {
        (Frontend::ClusterIp, From::PodElsewhere) => plain(only(THERE)),
        (Frontend::ClusterIp, _) => plain(here),
        (Frontend::ProxyingLoadBalancer, _) => {
            Expected { by: here, lost: false, keeps: Some(From::Outside) }
        }
        (_, From::Outside | From::OtherNode) => {
            Expected { by: here, lost: false, keeps: Some(from) }
        }
        (Frontend::NodePort, From::PodElsewhere) => {
            Expected { lost: here.is_empty() && !all.is_empty(), by: here, keeps: Some(from) }
        }
        (Frontend::NodePort, From::Pod) if !here.is_empty() => {
            Expected { by: here, lost: false, keeps: Some(from) }
        }
        _ => plain(everybody()),
    }
}

/// Pods enough that one of the other node is no client of itself.
fn build(backend: Backend) -> World {
    let topology = Topology::build_as(&Plan {
        lan4: Ipv4Addr::new(192, 168, 50, 0),
        lan6: Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0),
        nodes: [("node-a", &["pod-a", "pod-c"]), ("node-b", &["pod-d", "pod-e"])],
    });
    let topology = topology.unwrap();
    // The other node reaches service addresses through this one: at first it has no proxy of its own.
    let [first, second] = &topology.nodes;
    let (v4, v6) = (first.host.ipv4, first.host.ipv6);
    let routes = format!("route add default via {v4}\nroute add ::/0 via {v6}\n");
    second.host.namespace.ip(&routes).unwrap();
    let mut world = World::build_with(topology, "scheduler: rr").unwrap().with_backend(backend);
    for pod in [HERE, THERE] {
        world.start_server(pod, pod).unwrap();
    }
    world
}

fn host(topology: &Topology, from: From) -> &Host {
    match from {
        From::Outside => &topology.client,
        From::OtherNode => &topology.nodes[1].host,
        From::ThisNode => &topology.node().host,
        From::Pod => topology.node().pod("pod-c"),
        From::PodElsewhere => topology.pod("pod-e").0,
    }
}

/// Makes the machine outside a load balancer, too, which sends connections to the addresses of the cases on
/// to node ports, from its own address; the nodes know the way there.
fn balance(topology: &Topology, cases: &[Case], protocols: &[usize]) {
    let balancer = &topology.client;
    balancer
        .namespace
        .sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ])
        .unwrap();
    for family in FAMILIES {
        let node = topology.node().host.address(family);
        let (program, net, place) = match family {
            Family::V4 => ("iptables-restore", "198.51.101.0/24", format!("{node}")),
            Family::V6 => ("ip6tables-restore", "2001:db8::3:0/112", format!("[{node}]")),
        };
        let mut rules = "*nat\n".to_owned();
        for case in cases {
            for at in protocols {
                let (protocol, port, _) = PORTS[*at];
                let address = case.address(Frontend::ProxyingLoadBalancer, family);
                let to = format!("{place}:{}", case.node_port(*at));
                rules.extend(["PREROUTING", "OUTPUT"].map(|chain| {
                    format!(
                        "-A {chain} -d {address} -p {protocol} --dport {port} -j DNAT --to {to}\n"
                    )
                }));
            }
        }
        rules += "-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE\nCOMMIT\n";
        balancer.namespace.sh(&format!("{program} <<'END'\n{rules}END")).unwrap();
        let route = format!("route add {net} via {}\n", balancer.address(family));
        topology.nodes.iter().for_each(|node| node.host.namespace.ip(&route).unwrap());
    }
}

/// Connects so often. What is to be lost need not be waited for as long as an answer.
fn ask(from: &Host, to: Place, times: u32, lost: bool) -> Report {
    let timeout = if lost { 300 } else { 5000 };
    let load = Load { to, times, source: None, timeout, one_socket: false };
    Client::new(&from.namespace).connect(&load).unwrap()
}

/// What is wrong about one way.
fn wrong(
    world: &World,
    ask_whom: Ask,
    case: Case,
    (from, frontend): (From, Frontend),
    (family, at): (Family, usize),
) -> Option<String> {
    let topology = &world.topology;
    let (protocol, port, _) = PORTS[at];
    let node_port = || {
        let node = topology.node().host.address(family);
        Place::new(protocol, node, case.node_port(at))
    };
    let to = match frontend {
        Frontend::NodePort => node_port(),
        _ => Place::new(protocol, case.address(frontend, family).parse().unwrap(), port),
    };
    let address = to.address.ip().to_string();
    let Expected { by, lost, keeps } = expected(case, from, frontend);
    // As often as it takes for round robin to come to everybody twice.
    let times = u32::try_from(by.len() * 2).unwrap().max(1);
    // SCTP heeds no refusal by ICMP (`sctp_v4_err` in net/sctp/protocol.c).
    let silent = lost || by.is_empty() && protocol == Protocol::Sctp;
    let report = ask(host(topology, from), to, times, silent);
    let answered: BTreeSet<&str> = report.answers.keys().map(String::as_str).collect();
    let how: &[&str] = match protocol {
        _ if lost => &["timeout", "refused"],
        Protocol::Sctp => &["timeout"],
        // What a socket of the node is told of a datagram that IPVS drops.
        Protocol::Udp => &["refused", "Operation not permitted (os error 1)"],
        Protocol::Tcp => &["refused"],
    };
    let refused = how.iter().filter_map(|how| report.errors.get(*how)).sum();
    let whole = if by.is_empty() { refused } else { report.answered() };
    let all_peers = |ok: &dyn Fn(&IpAddr) -> bool| report.peers.keys().all(ok);
    let sources = match keeps {
        Some(seen_as) => {
            let own = host(topology, seen_as).address(family);
            all_peers(&|peer| *peer == own)
        }
        // A VIP would be answered by the other node itself.
        None => all_peers(&|peer| peer.to_string() != address || frontend == Frontend::NodePort),
    };
    let traced = (ask_whom == Ask::TraceToo)
        .then(|| mistold(world, (from, frontend), to, node_port(), &by, lost, &report))
        .flatten();
    (answered != by || whole != times || !sources || traced.is_some()).then(|| {
        format!(
            "{case:?} {from:?} {frontend:?} {protocol} {address}: {by:?} (as {keeps:?}) expected, but \
             {report:?}{}",
            traced.map(|it| format!(", and trace {it}")).unwrap_or_default()
        )
    })
}

/// What `proxier trace` says that is not what traffic did. It is asked of what comes to the node.
fn mistold(
    world: &World,
    (from, frontend): (From, Frontend),
    to: Place,
    node_port: Place,
    by: &BTreeSet<&str>,
    lost: bool,
    report: &Report,
) -> Option<String> {
    let topology = &world.topology;
    let family = if to.address.is_ipv4() { Family::V4 } else { Family::V6 };
    let own = host(topology, from).address(family);
    let client = if from == From::ThisNode { "node".to_owned() } else { own.to_string() };
    let (to, taken) = match (frontend, from) {
        (Frontend::NodePort, _) => (to, true),
        // Its own node answers, or sends it to the load balancer.
        (_, From::PodElsewhere) | (Frontend::ProxyingLoadBalancer, From::OtherNode) => return None,
        (Frontend::ProxyingLoadBalancer, From::Outside) => (node_port, true),
        (Frontend::ProxyingLoadBalancer, From::ThisNode | From::Pod) => (to, false),
        _ => (to, true),
    };
    let traced = world.trace(&client, to).unwrap();
    let endpoints = traced.endpoints();
    let wanted: BTreeSet<IpAddr> =
        by.iter().map(|pod| topology.pod(pod).0.address(family)).collect();
    let outcomes: &[&str] = match () {
        () if !taken => &["no service"],
        () if lost => &["refused", "dropped"],
        () if by.is_empty() => &["refused"],
        () => &["reached"],
    };
    let reached: BTreeSet<IpAddr> = endpoints.keys().copied().collect();
    // By which address of its own a node connects the kernel decides; an endpoint that is its own client
    // is masqueraded, and the matrix has none.
    let masqueraded: BTreeSet<bool> = endpoints.values().copied().collect();
    let seen = |as_itself: bool| report.peers.keys().any(|peer| (*peer == own) == as_itself);
    let sources = from == From::ThisNode
        || !taken
        || (masqueraded.contains(&true) == seen(false)
            && masqueraded.contains(&false) == seen(true));
    (!outcomes.contains(&traced.outcome()) || taken && reached != wanted || !sources)
        .then(|| traced.json.to_string())
}

/// What differs from what is expected, for each way of these clients.
fn check(
    world: &World,
    ask_whom: Ask,
    cases: &[Case],
    protocols: &[usize],
    from: &[From],
) -> Vec<String> {
    let mut all = Vec::new();
    for case in cases {
        for family in FAMILIES {
            for frontend in FRONTENDS {
                for at in protocols {
                    all.extend(from.iter().map(|from| {
                        wrong(world, ask_whom, *case, (*from, frontend), (family, *at))
                    }));
                }
            }
        }
    }
    println!("{} ways", all.len());
    all.into_iter().flatten().collect()
}

fn matrix(backend: Backend, ask_whom: Ask, cases: &[Case], protocols: &[usize], from: &[From]) {
    let mut world = build(backend);
    balance(&world.topology, cases, protocols);
    let objects = cases.iter().flat_map(|case| case.objects(&world.topology));
    world.write(&objects.collect::<Vec<_>>()).unwrap();
    world.reads_back().unwrap();
    assert_eq!(world.diff(&[]).unwrap(), "");
    if from.contains(&From::PodElsewhere) {
        world.start_elsewhere().unwrap();
    }
    let wrong = check(&world, ask_whom, cases, protocols, from);
    assert!(wrong.is_empty(), "{} ways are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_client_reaches_what_external_policies_say() {
    matrix(Backend::Iptables, Ask::Traffic, &Case::all(&[false, true], &[false]), &[0], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_client_reaches_what_both_policies_say_together() {
    matrix(Backend::Iptables, Ask::Traffic, &Case::all(&[false, true], &[true]), &[0], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn pods_of_another_node_reach_what_the_policies_say() {
    matrix(
        Backend::Iptables,
        Ask::Traffic,
        &Case::all(&[false, true], &[false, true]),
        &[0],
        &[From::PodElsewhere],
    );
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn local_policies_hold_for_udp_and_sctp() {
    matrix(Backend::Iptables, Ask::Traffic, &Case::all(&[true], &[false]), &[1, 2], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn local_policies_hold_with_nftables() {
    matrix(Backend::Nftables, Ask::Traffic, &Case::all(&[true], &[false]), &[0], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn pods_of_another_node_reach_what_local_policies_say_with_nftables() {
    matrix(
        Backend::Nftables,
        Ask::Traffic,
        &Case::all(&[true], &[false]),
        &[0],
        &[From::PodElsewhere],
    );
}

/// Each policy on a node of its own. The first packet of SCTP names all addresses of the node, and IPVS sends none
/// on that is larger than a frame.
fn every_policy(protocols: &[usize], from: &[From]) {
    for external in [false, true] {
        for internal in [false, true] {
            let cases = Case::all(&[external], &[internal]);
            matrix(Backend::Nftables, Ask::Traffic, &cases, protocols, from);
        }
    }
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_every_client_reaches_what_the_policies_say_with_nftables() {
    every_policy(&[0, 1], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_every_client_reaches_by_sctp_what_the_policies_say_with_nftables() {
    every_policy(&[2], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_pods_of_another_node_reach_what_the_policies_say_with_nftables() {
    every_policy(&[0, 1, 2], &[From::PodElsewhere]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn trace_says_of_every_way_what_traffic_does() {
    let mut cases = Case::all(&[true], &[false]);
    cases.retain(|case| matches!(case.endpoints, Endpoints::Both | Endpoints::Elsewhere));
    matrix(Backend::Iptables, Ask::TraceToo, &cases, &[0], &[From::Outside, From::Pod]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn in_full_trace_says_what_traffic_does_by_all_policies() {
    let all = Case::all(&[false, true], &[false, true]);
    matrix(Backend::Iptables, Ask::TraceToo, &all, &[0], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn trace_says_what_traffic_of_pods_of_another_node_does() {
    let cases = Case::all(&[false, true], &[false]);
    matrix(Backend::Iptables, Ask::TraceToo, &cases, &[0], &[From::PodElsewhere]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn in_full_trace_says_what_traffic_does_for_udp_and_sctp() {
    let local = Case::all(&[true], &[false]);
    matrix(Backend::Iptables, Ask::TraceToo, &local, &[1, 2], &CLIENTS);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_trace_says_what_traffic_does_with_nftables() {
    for clients in [&CLIENTS[..], &[From::PodElsewhere]] {
        matrix(Backend::Nftables, Ask::TraceToo, &Case::all(&[true], &[false]), &[0], clients);
    }
}
