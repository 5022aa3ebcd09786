//! Objects of the cluster in few words: `service("web").cluster_ip("10.96.0.1").port(80)`.
//!
//! For tests only, those of this crate and of others that ask for the feature `testing`. It panics on
//! addresses that do not parse.

#![allow(
    clippy::missing_panics_doc,
    reason = "test builders panic on text that is not what they build"
)]

use std::borrow::BorrowMut;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::topology::Place;
use crate::cluster::{
    Conditions, Endpoint, EndpointSlice, ObjectKey, Service, ServicePort, SlicePort, SourceRanges,
};
use crate::dataplane::firewall::{Backend, Chain, Entry, FirewallOptions, JUMPS, Ruleset};
use crate::dataplane::split::LocalPolicy;
use crate::dataplane::{Limits, Reserved, Settings};
use crate::value::MarkRange;
use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, RealServerKey, Scheduler, VirtualServerKey};

/// The node on which everything is computed.
pub const NODE: &str = "node-1";

/// Its addresses on other interfaces than `kube-ipvs0`.
pub const NODE_ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an address"))
}

/// `name` in namespace `default`, or `namespace/name`.
pub fn key(name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    ObjectKey::new(namespace, name)
}

/// `10.96.0.1:80/tcp`, `[fd00::1]:53/udp`
pub fn virtual_server(text: &str) -> VirtualServerKey {
    let (socket, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let socket: std::net::SocketAddr =
        socket.parse().unwrap_or_else(|_| panic!("{text} is not an address and port"));
    VirtualServerKey::new(socket.ip(), socket.port(), protocol_of(protocol))
}

/// `10.244.0.1:8080`
pub fn real_server(text: &str) -> RealServerKey {
    let socket: std::net::SocketAddr =
        text.parse().unwrap_or_else(|_| panic!("{text} is not an address and port"));
    RealServerKey::new(socket.ip(), socket.port())
}

fn protocol_of(name: &str) -> Protocol {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter()
        .find(|protocol| protocol.to_string() == name)
        .unwrap_or_else(|| panic!("{name} is not a protocol"))
}

/// Settings of [`NODE`] in zone `zone-a`: both families, round robin, node ports on all its
/// addresses, kube-proxy's default firewall.
pub fn settings() -> Settings {
    let addresses = NODE_ADDRESSES.map(ip);
    let families = [Family::Ipv4, Family::Ipv6];
    Settings {
        place: Place { node: NODE.into(), zone: Some("zone-a".into()) },
        families: families.to_vec(),
        scheduler: Scheduler::RR,
        node_weights: std::sync::Arc::default(),
        missing_modules: std::collections::BTreeSet::new(),
        exclude_cidrs: Vec::new(),
        external_ips: true,
        source_ranges_everywhere: false,
        host_addresses: addresses.into(),
        node_port_addresses: addresses.into(),
        node_ips: addresses.to_vec(),
        backend: Backend::default(),
        local_policy: LocalPolicy::KubeProxy,
        marks: MarkRange::default(),
        firewall: families.map(|family| (family, FirewallOptions::default())).into(),
        successor: None,
        sysctls: std::sync::Arc::from([]),
        keep_foreign: false,
        limits: Limits::default(),
        own_sockets: Vec::new(),
        allow_reserved: Vec::new(),
        reserved: Reserved::default(),
    }
}

/// Rules of which nothing counts but whether they are the same.
pub fn rules(name: &str) -> Ruleset {
    let chains = [(Chain::Services, vec![Entry::Foreign(name.into())])].into();
    Ruleset::found(Family::Ipv4, chains, [true; JUMPS.len()])
}

/// A Service without addresses and ports.
pub fn service(name: &str) -> Service {
    Service {
        key: key(name),
        created: 0,
        cluster_ips: Vec::new(),
        ports: Vec::new(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: SourceRanges::default(),
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: 0,
        settings: None,
    }
}

/// What a Service is given, one call each.
pub trait ServiceExt: BorrowMut<Service> + Sized {
    /// Changes it as a whole.
    #[must_use]
    fn with(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(self.borrow_mut());
        self
    }

    /// Seconds since 1970 at which it was created.
    #[must_use]
    fn created(self, seconds: i64) -> Self {
        self.with(|service| service.created = seconds)
    }

    /// One more cluster IP.
    #[must_use]
    fn cluster_ip(self, address: &str) -> Self {
        self.with(|service| service.cluster_ips.push(ip(address)))
    }

    /// A TCP port without a name.
    #[must_use]
    fn port(self, port: u16) -> Self {
        self.named_port("", Protocol::Tcp, port)
    }

    /// A port with a name.
    #[must_use]
    fn named_port(self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.with(|service| {
            service.ports.push(ServicePort { name: name.into(), protocol, port, node_port: 0 });
        })
    }

    /// Node port of the port given last.
    #[must_use]
    fn node_port(self, port: u16) -> Self {
        self.with(|service| {
            service.ports.last_mut().expect("a node port follows a port").node_port = port;
        })
    }

    /// One more external IP.
    #[must_use]
    fn external_ip(self, address: &str) -> Self {
        self.with(|service| service.external_ips.push(ip(address)))
    }

    /// One more load balancer VIP.
    #[must_use]
    fn load_balancer(self, address: &str) -> Self {
        self.with(|service| service.load_balancer_ips.push(ip(address)))
    }

    /// `spec.loadBalancerSourceRanges`
    #[must_use]
    fn source_ranges(self, ranges: &[&str]) -> Self {
        let net = |text: &&str| -> IpNet {
            text.parse().unwrap_or_else(|_| panic!("{text} is not a network"))
        };
        self.with(|service| service.source_ranges = SourceRanges::new(ranges.iter().map(net)))
    }

    /// Session affinity for so many seconds.
    #[must_use]
    fn affinity(self, seconds: u32) -> Self {
        self.with(|service| service.affinity = Some(seconds))
    }

    /// internalTrafficPolicy Local
    #[must_use]
    fn internal_local(self) -> Self {
        self.with(|service| service.internal_local = true)
    }

    /// externalTrafficPolicy Local
    #[must_use]
    fn external_local(self) -> Self {
        self.with(|service| service.external_local = true)
    }

    /// `spec.healthCheckNodePort`
    #[must_use]
    fn health_check(self, port: u16) -> Self {
        self.with(|service| service.health_check_node_port = port)
    }
}

impl ServiceExt for Service {}

/// The slice `NAME-1` of a Service, IPv4, without ports and endpoints.
pub fn slice(service: &str) -> EndpointSlice {
    let owner = key(service);
    EndpointSlice {
        key: ObjectKey::new(owner.namespace(), format!("{}-1", owner.name())),
        service: owner,
        family: Family::Ipv4,
        ports: Box::default(),
        endpoints: Box::default(),
        pods: crate::cluster::Pods::default(),
        triggered: None,
    }
}

/// The slice `NAME-1` of a Service with one unnamed TCP port and these [endpoints](endpoint).
pub fn endpoints(service: &str, port: u16, endpoints: &[&str]) -> EndpointSlice {
    slice(service).target("", Protocol::Tcp, port).endpoints(endpoints)
}

/// What a slice is given, one call each.
pub trait SliceExt: BorrowMut<EndpointSlice> + Sized {
    /// Changes it as a whole.
    #[must_use]
    fn with(mut self, change: impl FnOnce(&mut EndpointSlice)) -> Self {
        change(self.borrow_mut());
        self
    }

    /// Another name.
    #[must_use]
    fn named(self, name: &str) -> Self {
        self.with(|slice| slice.key = ObjectKey::new(slice.key.namespace(), name))
    }

    /// One more port.
    #[must_use]
    fn target(self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.with(|slice| {
            let port = SlicePort { name: name.into(), protocol, port };
            slice.ports = slice.ports.iter().cloned().chain([port]).collect();
        })
    }

    /// These endpoints in place of what it has; the first one decides the family.
    #[must_use]
    fn endpoints(self, endpoints: &[&str]) -> Self {
        self.with(|slice| {
            slice.endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
            if let Some(first) = slice.endpoints.first() {
                slice.family = Family::of(first.address);
            }
        })
    }
}

impl SliceExt for EndpointSlice {}

/// An endpoint in words, in any order after the address: `@NODE`, `in=ZONE`, `zone=A,B`, `node=A,B`
/// (hints), and one of `unready`, `terminating` (still serving), `gone` (terminating, no longer serving).
/// `10.244.0.1 @node-1 terminating`
pub fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split_whitespace();
    let mut endpoint = Endpoint {
        address: ip(words.next().unwrap_or_default()),
        conditions: Conditions::default(),
        location: Arc::default(),
    };
    let names = |list: &str| list.split(',').map(Into::into).collect();
    for word in words {
        let location = Arc::make_mut(&mut endpoint.location);
        if let Some(node) = word.strip_prefix('@') {
            location.node = Some(node.into());
        } else if let Some(zone) = word.strip_prefix("in=") {
            location.zone = Some(zone.into());
        } else if let Some(zones) = word.strip_prefix("zone=") {
            location.hints.zones = names(zones);
        } else if let Some(nodes) = word.strip_prefix("node=") {
            location.hints.nodes = names(nodes);
        } else {
            let (serving, terminating) = match word {
                "unready" => (false, false),
                "terminating" => (true, true),
                "gone" => (false, true),
                other => panic!("{other:?} in endpoint {text:?}"),
            };
            endpoint.conditions = Conditions { ready: false, serving, terminating };
        }
    }
    endpoint
}
