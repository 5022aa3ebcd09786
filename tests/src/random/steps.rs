//! Sequences of changes, and the world that they lead to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Family, Scheduler};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proxier::cluster::topology::Place;
use proxier::cluster::{self, Change};
use proxier::dataplane::Settings;
use proxier::dataplane::firewall::{Backend, FirewallOptions, LocalDetector};
use proxier::dataplane::split::LocalPolicy;
use proxier::reconcile::{Event, Resolver};
use proxier::value::MarkRange;

use super::documents::{service_key, slice_key};
use super::{Node, Service, Slice, host, net, node, service, slice};
use proxier::builders::{NODE, ip};

/// What an administrator configures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `iptables.masqueradeAll`
    pub masquerade_all: bool,
    /// `iptables.masqueradeBit`
    pub masquerade_bit: u8,
    /// `--answer-ping` and `--accept-input`, which change nothing for packets that may pass.
    pub opens: [bool; 2],
    /// How pods of this node are recognised.
    pub detector: Detector,
    /// Gate `AllowServiceExternalIPs`.
    pub external_ips: bool,
    /// `ipvs.excludeCIDRs`
    pub exclude_cidrs: Vec<IpNet>,
    /// `nodePortAddresses`; empty is all.
    pub node_ports: Vec<IpNet>,
    /// `ipvs.scheduler`
    pub scheduler: &'static str,
}

/// `detectLocalMode`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// None.
    None,
    /// `ClusterCIDR`: 10.244.0.0/16 and `fd00:244::/32`
    Cidr,
    /// `BridgeInterface`: `cbr0`
    Bridge,
    /// `InterfaceNamePrefix`: `veth`
    Prefix,
}

/// Any options.
pub fn options() -> impl Strategy<Value = Options> {
    let detectors = vec![Detector::None, Detector::Cidr, Detector::Bridge, Detector::Prefix];
    let node_ports = ["192.0.2.0/31", "2001:db8::/64"].map(net).to_vec();
    let exclude = ["10.96.0.2/32", "203.0.113.0/24"].map(net).to_vec();
    (
        any::<bool>(),
        any::<[bool; 2]>(),
        select(vec![14, 0, 31]),
        select(detectors),
        prop_oneof![4 => Just(true), 1 => Just(false)],
        prop_oneof![4 => Just(Vec::new()), 1 => subsequence(exclude, 1..=2)],
        prop_oneof![2 => Just(Vec::new()), 1 => subsequence(node_ports, 0..=2)],
        select(vec!["rr", "rr", "sh", "mh"]),
    )
        .prop_map(|values| {
            let (all, opens, bit, detector, external_ips, exclude_cidrs, node_ports, scheduler) =
                values;
            Options {
                scheduler,
                masquerade_all: all,
                masquerade_bit: bit,
                opens,
                detector,
                external_ips,
                exclude_cidrs,
                node_ports,
            }
        })
}

impl Options {
    /// The detector of one family.
    pub fn detector(&self, family: Family) -> LocalDetector {
        match self.detector {
            Detector::None => LocalDetector::None,
            Detector::Cidr => {
                let cidr = match family {
                    Family::Ipv4 => "10.244.0.0/16",
                    Family::Ipv6 => "fd00:244::/32",
                };
                cidr.parse().map_or(LocalDetector::None, LocalDetector::Cidr)
            }
            Detector::Bridge => LocalDetector::Bridge("cbr0".to_owned()),
            Detector::Prefix => LocalDetector::InterfacePrefix("veth".to_owned()),
        }
    }

    /// The addresses of the node that node ports listen on.
    pub fn node_port_addresses(&self, host: &[IpAddr], family: Family) -> Vec<IpAddr> {
        let nets = self.node_ports.iter().filter(|net| Family::of(net.addr()) == family);
        let nets: Vec<&IpNet> = nets.collect();
        let mut addresses = host.to_vec();
        addresses.retain(|address| {
            Family::of(*address) == family
                && (nets.is_empty() || nets.iter().any(|net| net.contains(address)))
        });
        addresses
    }

    /// How the loop comes by its settings.
    pub fn resolver(&self, families: &[Family], start: Start) -> Resolver {
        let (options, families) = (self.clone(), families.to_vec());
        Resolver::new(move |node, host| {
            let mut settings = options.settings(&families, node, host);
            (settings.backend, settings.local_policy) = start;
            for options in settings.firewall.values_mut() {
                options.split =
                    (settings.local_policy == LocalPolicy::Split).then(|| settings.marks.common());
            }
            settings
        })
    }

    fn settings(
        &self,
        families: &[Family],
        node: Option<&cluster::Node>,
        host: &[IpAddr],
    ) -> Settings {
        let api = node.map(|node| &*node.addresses).unwrap_or_default();
        let firewall = |family: &Family| {
            let options = FirewallOptions {
                masquerade_all: self.masquerade_all,
                masquerade_bit: self.masquerade_bit,
                answer_ping: self.opens[0],
                accept_input: self.opens[1],
                detector: self.detector(*family),
                ..FirewallOptions::default()
            };
            (*family, options)
        };
        let node_ports = families.iter().flat_map(|f| self.node_port_addresses(host, *f));
        Settings {
            place: Place { node: NODE.into(), zone: node.and_then(|node| node.zone.clone()) },
            families: families.to_vec(),
            scheduler: self.scheduler.parse().unwrap_or(Scheduler::RR),
            exclude_cidrs: self.exclude_cidrs.clone(),
            external_ips: self.external_ips,
            host_addresses: host.iter().copied().collect(),
            node_port_addresses: node_ports.collect(),
            node_ips: [Family::Ipv4, Family::Ipv6].map(|f| node_ip(api, f)).to_vec(),
            firewall: families.iter().map(firewall).collect(),
            marks: MarkRange::default().without(self.masquerade_bit),
            ..proxier::builders::settings()
        }
    }
}

/// The node's own address of a family, or loopback where it is not known.
pub(crate) fn node_ip(addresses: &[IpAddr], family: Family) -> IpAddr {
    let own = addresses.iter().copied().find(|address| Family::of(*address) == family);
    own.unwrap_or_else(|| {
        ip(match family {
            Family::Ipv4 => "127.0.0.1",
            Family::Ipv6 => "::1",
        })
    })
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A Service is added or changed.
    Service(Service),
    /// A Service is removed, whether it was there or not.
    ServiceGone(u8),
    /// A slice is added or changed.
    Slice(Slice),
    /// A slice is removed, whether it was there or not.
    SliceGone(u8),
    /// The node object changes.
    Node(Node),
    /// The node's addresses change.
    Host(Vec<IpAddr>),
    /// The configuration changes.
    Options(Options),
}

impl Step {
    /// As the loop hears of it.
    pub fn event(&self, families: &[Family], start: Start) -> Event {
        match self {
            Self::Service(service) => service.fact().into(),
            Self::ServiceGone(name) => Change::ServiceGone(service_key(*name)).into(),
            Self::Slice(slice) => slice.fact().into(),
            Self::SliceGone(name) => Change::SliceGone(slice_key(*name)).into(),
            Self::Node(node) => node.fact().into(),
            Self::Host(addresses) => Event::HostAddresses(addresses.clone()),
            Self::Options(options) => {
                let resolver = options.resolver(families, start);
                Event::Configured(resolver, crate::simulated::TIMING)
            }
        }
    }
}

/// Changes that happen one after the other.
pub fn history(
    length: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => slice().prop_map(Step::Slice),
        7 => service().prop_map(Step::Service),
        2 => (0..5_u8).prop_map(Step::ServiceGone),
        2 => (0..6_u8).prop_map(Step::SliceGone),
        1 => node().prop_map(Step::Node),
        1 => host().prop_map(Step::Host),
        1 => options().prop_map(Step::Options),
    ];
    vec(step, length)
}

/// Everything that is so at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Families that the node serves.
    pub families: Vec<Family>,
    /// By what the node keeps rules and sets.
    pub backend: Backend,
    /// `--local-policy`
    pub local_policy: LocalPolicy,
    /// Services by name.
    pub services: BTreeMap<u8, Service>,
    /// Slices by name.
    pub slices: BTreeMap<u8, Slice>,
    /// The node object.
    pub node: Option<Node>,
    /// Addresses of the node's other interfaces.
    pub host: Vec<IpAddr>,
    /// Configuration.
    pub options: Options,
}

/// What is settled when the program starts.
pub type Start = (Backend, LocalPolicy);

/// Any world.
pub fn world() -> impl Strategy<Value = World> {
    let both = vec![Family::Ipv4, Family::Ipv6];
    let families = prop_oneof![4 => Just(both.clone()), 1 => subsequence(both, 1)];
    let backends = select(vec![Backend::Iptables, Backend::Nftables]);
    let policies = select(vec![LocalPolicy::KubeProxy, LocalPolicy::Split]);
    let objects = (vec(service(), 0..4), vec(slice(), 0..5));
    (families, (backends, policies), objects, option::of(node()), host(), options()).prop_map(
        |(families, (backend, local_policy), (services, slices), node, host, options)| World {
            families,
            backend,
            local_policy,
            services: services.into_iter().map(|service| (service.name, service)).collect(),
            slices: slices.into_iter().map(|slice| (slice.name, slice)).collect(),
            node,
            host,
            options,
        },
    )
}

impl World {
    /// What is settled when the program starts.
    pub fn start(&self) -> Start {
        (self.backend, self.local_policy)
    }

    /// Takes in a change.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Service(service) => {
                self.services.insert(service.name, service.clone());
            }
            Step::ServiceGone(name) => {
                self.services.remove(name);
            }
            Step::Slice(slice) => {
                self.slices.insert(slice.name, slice.clone());
            }
            Step::SliceGone(name) => {
                self.slices.remove(name);
            }
            Step::Node(node) => self.node = Some(node.clone()),
            Step::Host(addresses) => self.host.clone_from(addresses),
            Step::Options(options) => self.options = options.clone(),
        }
    }

    /// Everything that a loop hears at its start, complete lists last.
    pub fn events(&self) -> Vec<Event> {
        let services = self.services.values().map(|service| service.fact().into());
        let slices = self.slices.values().map(|slice| slice.fact().into());
        let node = self.node.iter().map(|node| node.fact().into());
        let host = [Event::HostAddresses(self.host.clone())];
        let lists = [
            Change::ServicesListed(self.services.keys().map(|name| service_key(*name)).collect()),
            Change::SlicesListed(self.slices.keys().map(|name| slice_key(*name)).collect()),
            Change::NodeListed,
        ];
        let lists = lists.into_iter().map(Event::from);
        services.chain(slices).chain(node).chain(host).chain(lists).collect()
    }

    /// The objects as documents of one manifest.
    pub fn manifest(&self) -> String {
        let services = self.services.values().map(Service::document);
        let slices = self.slices.values().map(Slice::document);
        let node = self.node.iter().map(Node::document);
        let documents = services.chain(slices).chain(node);
        let documents: Vec<String> = documents.map(|document| document.to_string()).collect();
        documents.join("\n")
    }

    /// How the loop comes by its settings.
    pub fn resolver(&self) -> Resolver {
        self.options.resolver(&self.families, self.start())
    }
}
