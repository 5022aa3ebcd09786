//! How the settings of the dataplane follow from the configuration, the node object and the
//! addresses of the host. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::Family;

use crate::cluster::Node;
use crate::cluster::topology::Place;
use crate::config::node::{node_ips, node_port_ips};
use crate::config::{Config, DetectLocal};
use crate::dataplane::firewall::{Backend, FirewallOptions, LocalDetector};
use crate::dataplane::sysctls::Sysctl;
use crate::dataplane::{Limits, Reserved, Settings};

/// What the host's firewall tools and kernel can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Families that can be served.
    pub families: Vec<Family>,
    /// By what rules and sets are kept.
    pub backend: Backend,
    /// The backend can choose random source ports fully.
    pub random_fully: bool,
    /// Bytes of memory that this process may have; none where nobody limits them.
    pub memory: Option<u64>,
    /// The kernel settings that this kernel has and that are to be kept.
    pub sysctls: Arc<[Sysctl]>,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            families: vec![Family::Ipv4, Family::Ipv6],
            backend: Backend::default(),
            random_fully: true,
            memory: None,
            sysctls: Arc::from([]),
        }
    }
}

/// The settings for a node. `host_addresses` are those of its other interfaces.
pub fn settings(
    config: &Config,
    abilities: &Abilities,
    node: Option<&Node>,
    host_addresses: &[IpAddr],
) -> Settings {
    let api_addresses = node.map(|node| node.addresses.as_slice()).unwrap_or_default();
    let ips = node_ips(config.bind_address, api_addresses);
    let node_ports = abilities.families.iter().flat_map(|family| {
        node_port_ips(&config.node_port_addresses, &ips, host_addresses, *family)
    });
    let firewall = abilities.families.iter().map(|family| {
        let options = FirewallOptions {
            random_fully: abilities.random_fully,
            detector: detector(&config.detect_local, node, *family),
            ..config.firewall.clone()
        };
        (*family, options)
    });
    Settings {
        place: Place {
            node: config.node_name.clone(),
            zone: node.and_then(|node| node.zone.clone()),
        },
        families: abilities.families.clone(),
        scheduler: config.scheduler,
        node_weights: Arc::default(),
        missing_modules: BTreeSet::new(),
        exclude_cidrs: config.exclude_cidrs.clone(),
        external_ips: config.external_ips,
        source_ranges_everywhere: config.source_ranges_everywhere,
        host_addresses: host_addresses.iter().copied().collect(),
        node_port_addresses: node_ports.collect(),
        node_ips: vec![ips.v4.into(), ips.v6.into()],
        backend: abilities.backend,
        local_policy: config.local_policy,
        marks: config.marks,
        firewall: firewall.collect(),
        successor: config.successor,
        sysctls: abilities.sysctls.clone(),
        keep_foreign: config.keep_foreign,
        limits: config
            .memory_limit
            .or(abilities.memory)
            .map_or_else(Limits::default, Limits::of_memory),
        own_sockets: config.healthz_bind.into_iter().chain([config.metrics_bind]).collect(),
        allow_reserved: config.allow_reserved.clone(),
        reserved: Reserved::default(),
    }
}

/// How the traffic of this node's pods is recognised in one family.
fn detector(detect: &DetectLocal, node: Option<&Node>, family: Family) -> LocalDetector {
    let first = |cidrs: &[ipnet::IpNet]| {
        let of_family = cidrs.iter().find(|cidr| Family::of(cidr.addr()) == family);
        of_family.map_or(LocalDetector::None, |cidr| LocalDetector::Cidr(cidr.trunc()))
    };
    match detect {
        DetectLocal::ClusterCidr(cidrs) => first(cidrs),
        DetectLocal::NodeCidr => first(node.map(|node| &*node.pod_cidrs).unwrap_or_default()),
        DetectLocal::Bridge(name) => LocalDetector::Bridge(name.clone()),
        DetectLocal::InterfacePrefix(prefix) => LocalDetector::InterfacePrefix(prefix.clone()),
    }
}
