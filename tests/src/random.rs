//! Random clusters and random sequences of changes to them.
//!
//! Everything comes from small pools, so that addresses, ports and names meet: services that claim
//! the same, addresses that are the node's, slices that say the same twice. Smaller values come
//! first in every pool, so that what fails shrinks to a few plain objects. The objects are as their
//! authors write them (`spec` fields, absent ones included); what they mean is said in one place,
//! [`facts`](Service::fact), and checked against the manifests' reader.

mod documents;
mod steps;

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub use documents::{service_key, slice_key};
pub(crate) use steps::node_ip;
pub use steps::{Detector, Options, Start, Step, World, history, options, world};

use proxier::builders::{NODE, ip};
use proxier::cluster::Annotation;

/// The node that is not [`NODE`].
pub const OTHER_NODE: &str = "node-2";

/// The addresses that clusters have cluster IPs from.
const CLUSTER_IPS: [[&str; 2]; 4] = [
    ["10.96.0.1", "fd00:96::1"],
    ["10.96.0.2", "fd00:96::2"],
    ["10.96.0.3", "fd00:96::3"],
    ["10.96.0.4", "fd00:96::4"],
];

/// Addresses for external IPs and VIPs: free ones, one that the node has, one that it may get, a
/// cluster IP, a pod's.
const OUTSIDE: [&str; 9] = [
    "203.0.113.1",
    "2001:db8:113::1",
    "203.0.113.2",
    "192.0.2.1",
    "2001:db8::1",
    "192.0.2.2",
    "10.96.0.1",
    "fd00:96::1",
    "10.244.0.1",
];

/// Addresses of the node's other interfaces.
const HOST: [&str; 5] = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "203.0.113.2", "10.96.0.4"];

/// Addresses of pods: of this node, of another one, of this node's own network.
const PODS: [[&str; 2]; 6] = [
    ["10.244.0.1", "fd00:244::1"],
    ["10.244.1.1", "fd00:244:1::1"],
    ["10.244.0.2", "fd00:244::2"],
    ["10.244.1.2", "fd00:244:1::2"],
    ["10.244.1.3", "fd00:244:1::3"],
    ["192.0.2.1", "2001:db8::1"],
];

/// Where clients come from that are neither a pod nor the node.
pub const CLIENTS: [&str; 4] = ["198.51.100.7", "2001:db8:51::7", "198.51.101.7", "10.244.9.9"];

/// `spec.type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ClusterIP`
    ClusterIp,
    /// `NodePort`
    NodePort,
    /// `LoadBalancer`
    LoadBalancer,
    /// `ClusterIP` with `clusterIP: None`
    Headless,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which of the few names.
    pub name: u8,
    /// Seconds since 1970.
    pub created: u8,
    /// Type.
    pub kind: Kind,
    /// Families of its cluster IPs, the first one first.
    pub families: Vec<Family>,
    /// Which cluster IPs.
    pub cluster_ip: usize,
    /// Ports.
    pub ports: Vec<Port>,
    /// `spec.externalIPs`
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`: an address, and `ipMode`.
    pub ingress: Vec<(IpAddr, Option<&'static str>)>,
    /// `spec.loadBalancerSourceRanges`
    pub source_ranges: Vec<IpNet>,
    /// `spec.sessionAffinity: ClientIP` for so many seconds.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy` is Local.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy` is Local.
    pub external_local: bool,
    /// `spec.healthCheckNodePort`
    pub health_check: u16,
    /// An annotation that sets something for this Service, and its value.
    pub annotation: Option<(Annotation, &'static str)>,
}

/// A port of a Service or of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: &'static str,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub number: u16,
    /// Node port, 0 in slices.
    pub node_port: u16,
}

/// An EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Which of the few names.
    pub name: u8,
    /// Whose it is.
    pub service: u8,
    /// `addressType`
    pub family: Family,
    /// Ports.
    pub ports: Vec<Port>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint, as the API has it: what is absent has a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// `conditions.ready`
    pub ready: Option<bool>,
    /// `conditions.serving`
    pub serving: Option<bool>,
    /// `conditions.terminating`
    pub terminating: Option<bool>,
    /// `nodeName`
    pub node: Option<&'static str>,
    /// `hints.forZones`
    pub zones: Vec<&'static str>,
    /// `hints.forNodes`
    pub nodes: Vec<&'static str>,
}

/// The node object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its zone.
    pub zone: Option<&'static str>,
    /// `status.addresses` of type InternalIP.
    pub addresses: Vec<IpAddr>,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a network"))
}

/// The text of one of a pair by family.
fn of_family(pair: [&str; 2], family: Family) -> IpAddr {
    ip(match family {
        Family::Ipv4 => pair[0],
        Family::Ipv6 => pair[1],
    })
}

impl Service {
    /// Its cluster IPs.
    pub fn cluster_ips(&self) -> Vec<IpAddr> {
        self.families.iter().map(|f| of_family(CLUSTER_IPS[self.cluster_ip], *f)).collect()
    }
}

/// A Service of any name.
pub fn service() -> impl Strategy<Value = Service> {
    let kind = select(vec![
        Kind::ClusterIp,
        Kind::ClusterIp,
        Kind::NodePort,
        Kind::LoadBalancer,
        Kind::LoadBalancer,
        Kind::LoadBalancer,
        Kind::Headless,
    ]);
    let families = select(vec![
        vec![Family::Ipv4],
        vec![Family::Ipv4, Family::Ipv6],
        vec![Family::Ipv6],
        vec![Family::Ipv6, Family::Ipv4],
    ]);
    let identity = (0..5_u8, 0..3_u8, kind, families, 0..CLUSTER_IPS.len());
    let addresses = (vec(port(true), 0..4), outside(), ingress(), source_ranges());
    let policies = (affinity(), any::<bool>(), any::<bool>(), select(vec![0_u16, 30_200, 30_080]));
    (identity, addresses, policies, annotation()).prop_map(|all| {
        let (identity, addresses, policies, annotation) = all;
        let (name, created, kind, families, cluster_ip) = identity;
        let (mut ports, external_ips, ingress, source_ranges) = addresses;
        let (affinity, internal_local, external_local, health_check) = policies;
        only_valid(&mut ports);
        Service {
            name,
            created,
            kind,
            families,
            cluster_ip,
            ports,
            external_ips,
            ingress,
            source_ranges,
            affinity,
            internal_local,
            external_local,
            health_check,
            annotation,
        }
    })
}

/// None whose effect depends on what was before, as slow start's does.
fn annotation() -> impl Strategy<Value = Option<(Annotation, &'static str)>> {
    let known = vec![
        (Annotation::Scheduler, "mh"),
        (Annotation::CiliumAlgorithm, "least-connections"),
        (Annotation::Scheduler, "fastest"),
        (Annotation::Weights, "default:3"),
        (Annotation::MaxConnections, "9"),
        (Annotation::OnePacket, "true"),
    ];
    option::weighted(0.3, select(known))
}

/// The API server lets names, and numbers and node ports of a protocol, be there once only.
fn only_valid(ports: &mut Vec<Port>) {
    let mut seen: Vec<Port> = Vec::new();
    ports.retain(|port| {
        let taken = seen.iter().any(|known| {
            let protocol = known.protocol == port.protocol;
            let node_port = port.node_port != 0 && known.node_port == port.node_port;
            known.name == port.name || (protocol && (known.number == port.number || node_port))
        });
        if !taken {
            seen.push(port.clone());
        }
        !taken
    });
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

/// The port number 30080 is a node port as well, and 22 one of the node's own.
fn port(of_service: bool) -> impl Strategy<Value = Port> {
    let numbers = if of_service { vec![80, 443, 30_080, 22] } else { vec![8080, 80, 9090] };
    let node_ports = if of_service { vec![0, 30_080, 30_081] } else { vec![0] };
    let name = select(vec!["", "a", "b"]);
    (name, protocol(), select(numbers), select(node_ports))
        .prop_map(|(name, protocol, number, node_port)| Port { name, protocol, number, node_port })
}

fn outside() -> impl Strategy<Value = Vec<IpAddr>> {
    subsequence(OUTSIDE.map(ip).to_vec(), 0..3)
}

fn ingress() -> impl Strategy<Value = Vec<(IpAddr, Option<&'static str>)>> {
    let mode = select(vec![None, Some("VIP"), Some("VIP"), Some("Proxy")]);
    vec((select(OUTSIDE.map(ip).to_vec()), mode), 0..3)
}

fn source_ranges() -> impl Strategy<Value = Vec<IpNet>> {
    let ranges = [
        "198.51.100.0/24",
        "2001:db8:51::/64",
        "192.0.2.1/32",
        "2001:db8::/64",
        "198.51.100.9/25",
        "0.0.0.0/0",
    ]
    .map(net);
    prop_oneof![
        2 => Just(Vec::new()),
        3 => subsequence(ranges.to_vec(), 0..4),
    ]
}

fn affinity() -> impl Strategy<Value = Option<u32>> {
    option::weighted(0.3, select(vec![10_800_u32, 60]))
}

/// A slice of any name.
pub fn slice() -> impl Strategy<Value = Slice> {
    let family = select(vec![Family::Ipv4, Family::Ipv4, Family::Ipv6]);
    (0..6_u8, 0..5_u8, family).prop_flat_map(|(name, service, family)| {
        (vec(port(false), 1..4), vec(endpoint(family), 0..5)).prop_map(
            move |(mut ports, endpoints)| {
                // Several ports of one name are fine in a slice.
                ports.dedup();
                Slice { name, service, family, ports, endpoints }
            },
        )
    })
}

fn endpoint(family: Family) -> impl Strategy<Value = Endpoint> {
    let condition = || option::weighted(0.4, any::<bool>());
    let node = option::weighted(0.9, select(vec![NODE, OTHER_NODE]));
    // Hints count only when every endpoint has one, so most endpoints have none or the same.
    let zones = prop_oneof![
        2 => Just(Vec::new()),
        3 => subsequence(vec!["zone-a", "zone-b"], 1..=2),
    ];
    let nodes = prop_oneof![
        3 => Just(Vec::new()),
        2 => subsequence(vec![NODE, OTHER_NODE], 1..=2),
    ];
    let conditions = (condition(), condition(), option::weighted(0.3, any::<bool>()));
    (select(PODS.to_vec()), conditions, node, zones, nodes).prop_map(
        move |(pod, (ready, serving, terminating), node, zones, nodes)| Endpoint {
            address: of_family(pod, family),
            ready,
            serving,
            terminating,
            node,
            zones,
            nodes,
        },
    )
}

/// The node object.
pub fn node() -> impl Strategy<Value = Node> {
    (option::of(select(vec!["zone-a", "zone-b"])), subsequence(HOST.map(ip).to_vec(), 0..=2))
        .prop_map(|(zone, addresses)| Node { zone, addresses })
}

/// Addresses of the node's other interfaces.
pub fn host() -> impl Strategy<Value = Vec<IpAddr>> {
    subsequence(HOST.map(ip).to_vec(), 1..=HOST.len())
}

/// Every address that may mean something, and some that do not.
pub fn addresses() -> Vec<IpAddr> {
    let pairs = CLUSTER_IPS.iter().chain(&PODS).flatten();
    let others = OUTSIDE.iter().chain(&HOST).chain(&CLIENTS);
    let mut all: Vec<IpAddr> = pairs.chain(others).map(|text| ip(text)).collect();
    all.push(ip("127.0.0.1"));
    all.sort_unstable();
    all.dedup();
    all
}

/// Addresses that packets of pods of other nodes come from: their own, or one that replaces it.
pub fn pods_elsewhere(family: Family) -> Vec<IpAddr> {
    let all = ["10.244.9.8", "fd00:244:9::8", "198.51.100.8", "2001:db8:51::8"].map(ip);
    all.into_iter().filter(|ip| Family::of(*ip) == family).collect()
}

/// Addresses that packets of pods of this node come from.
pub fn pods_here(family: Family) -> Vec<IpAddr> {
    vec![of_family(PODS[0], family), of_family(PODS[2], family)]
}
