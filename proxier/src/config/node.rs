//! What follows from the node object and the host's addresses: the node's own IPs, where node
//! ports listen, and whether configuration and cluster agree on IP families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_ipvs::Family;

use super::{Config, DetectLocal, NodePortAddresses, cluster_cidrs};
use crate::value::parse_cidr;

/// The node's own address of each family; loopback where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeIps {
    /// The family that a node with only one family uses.
    pub primary: Family,
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// Every entry of a setting is of the family that the node does not use, so it cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kube-proxy configuration is incorrect: {}", problems.join("; "))]
pub struct WrongFamily {
    /// One sentence for each such setting.
    pub problems: Vec<String>,
}

/// The node's IPs. `addresses` are those of the node object: all InternalIP, then all ExternalIP.
///
/// The first one decides the primary family, unless `bind_address` is specific: that one replaces
/// the address of its family and makes it the primary one.
pub fn node_ips(bind_address: IpAddr, addresses: &[IpAddr]) -> NodeIps {
    let mut ips =
        NodeIps { primary: Family::Ipv4, v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST };
    // From the back, so that the first of each family is left, and the family of the first of all.
    let bind = Some(bind_address).filter(|ip| !ip.is_unspecified());
    for address in addresses.iter().copied().rev().chain(bind) {
        ips.primary = Family::of(address);
        match address {
            IpAddr::V4(address) => ips.v4 = address,
            IpAddr::V6(address) => ips.v6 = address,
        }
    }
    ips
}

/// The addresses of one family that node ports listen on, in ascending order.
///
/// `host` are the addresses of all interfaces but `kube-ipvs0`. A family that no CIDR names, or
/// that a CIDR of length 0 names, listens on all of them. Loopback and IPv6 link-local addresses
/// never count.
pub fn node_port_ips(
    addresses: &NodePortAddresses,
    node: &NodeIps,
    host: &[IpAddr],
    family: Family,
) -> Vec<IpAddr> {
    if addresses.is_nowhere(node, family) {
        return Vec::new();
    }
    let mut ips = matching(&cidrs(addresses, node), host, family);
    ips.retain(|ip| is_usable(*ip));
    ips
}

/// The addresses of one family that health check node ports listen on: the unspecified one if node
/// ports listen everywhere, otherwise those of `host` that fit, loopback too.
pub fn health_check_ips(
    addresses: &NodePortAddresses,
    node: &NodeIps,
    host: &[IpAddr],
    family: Family,
) -> Vec<IpAddr> {
    if addresses.is_nowhere(node, family) {
        return Vec::new();
    }
    let cidrs = cidrs(addresses, node);
    if is_everywhere(&cidrs, family) {
        return vec![match family {
            Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
        }];
    }
    matching(&cidrs, host, family)
}

/// What is questionable about the configuration. Never a reason to stop.
pub fn questionable(config: &Config, node: &NodeIps, pod_cidrs: &[IpNet]) -> Vec<String> {
    let node_ports = cidrs(&config.node_port_addresses, node);
    let (primary, other) = (node.primary, other(node.primary));
    let has = |list: &[IpNet], family| list.iter().any(|cidr| family_of(cidr) == family);
    let dual = |list: &[IpNet]| has(list, Family::Ipv4) && has(list, Family::Ipv6);
    let lists = [&cluster(config)[..], &node_ports, &config.exclude_cidrs, pod_cidrs];

    let text = if let Some(unresolved) = unresolved(config, node) {
        unresolved
    } else if node_ports.is_empty() {
        "nodePortAddresses is unset; NodePort connections will be accepted on all local IPs. \
         Consider using `--nodeport-addresses primary`"
            .to_owned()
    } else if !has(&node_ports, primary) {
        format!(
            "cluster appears to be {primary}-primary but nodePortAddresses contains only {other} \
             addresses; NodePort connections will be accepted on all local {primary} IPs"
        )
    } else if lists.into_iter().any(dual) && !has(&node_ports, other) {
        format!(
            "cluster appears to be dual-stack but nodePortAddresses contains only {primary} \
             addresses; NodePort connections will be accepted on all local {other} IPs"
        )
    } else {
        return Vec::new();
    };
    vec![format!("Kube-proxy configuration may be incomplete or incorrect: {text}")]
}

/// What to say if node ports are to listen on `primary` addresses and none is known.
pub fn unresolved(config: &Config, node: &NodeIps) -> Option<String> {
    let so = match config.node_port_addresses {
        NodePortAddresses::Primary => "NodePort connections will be accepted on all local IPs",
        NodePortAddresses::PrimaryOnly => "node ports are not opened",
        _ => return None,
    };
    let name = &config.node_name;
    cidrs(&config.node_port_addresses, node).is_empty().then(|| {
        format!(
            "nodePortAddresses is primary, but no address of node {name} is known: {so}. Give the Node \
             {name} with an InternalIP, the address with --bind-address, or networks in place of primary \
             (--nodeport-addresses=192.168.1.0/24)"
        )
    })
}

/// Which settings are of the wrong family only: what to warn of, or why it cannot work.
pub fn check_families(
    config: &Config,
    node: &NodeIps,
    pod_cidrs: &[IpNet],
    dual_stack: bool,
) -> Result<Vec<String>, WrongFamily> {
    let (primary, other) = (node.primary, other(node.primary));
    let kind = if dual_stack { "primary" } else { "only" };
    let all_wrong =
        |list: &[IpNet]| !list.is_empty() && list.iter().all(|cidr| family_of(cidr) == other);
    let mut problems = Vec::new();
    let mut fatal = false;

    let contains = |what: &str| {
        format!("cluster is {primary}-{kind} but {what} contains only {other} addresses")
    };
    if all_wrong(&cluster(config)) {
        problems.push(contains("clusterCIDRs"));
        fatal |= !dual_stack && matches!(config.detect_local, DetectLocal::ClusterCidr(_));
    }
    if all_wrong(pod_cidrs) {
        problems.push(contains("node.spec.podCIDRs"));
        fatal |= config.detect_local == DetectLocal::NodeCidr;
    }
    if !dual_stack {
        if all_wrong(&config.exclude_cidrs) {
            problems.push(contains("ipvs.excludeCIDRs"));
        }
        let healthz = config.healthz_bind.map(|address| address.ip());
        for (what, ip) in [
            ("healthzBindAddress", healthz),
            ("metricsBindAddress", Some(config.metrics_bind.ip())),
        ] {
            if ip.is_some_and(|ip| !ip.is_unspecified() && Family::of(ip) == other) {
                problems.push(format!("cluster is {primary}-{kind} but {what} is {other}"));
            }
        }
    }
    if fatal {
        return Err(WrongFamily { problems });
    }
    let warning = |text| format!("Kube-proxy configuration may be incomplete or incorrect: {text}");
    Ok(problems.into_iter().map(warning).collect())
}

// === impl NodePortAddresses ===

impl NodePortAddresses {
    fn is_nowhere(&self, node: &NodeIps, family: Family) -> bool {
        *self == Self::PrimaryOnly && node.of(family).is_loopback()
    }
}

// === impl NodeIps ===

impl NodeIps {
    /// The address of a family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.v4.into(),
            Family::Ipv6 => self.v6.into(),
        }
    }

    /// What to say if the primary address is not known.
    pub fn warning(&self) -> Option<&'static str> {
        self.of(self.primary).is_loopback().then_some(
            "Can't determine this node's IP, assuming loopback; if this is incorrect, please set \
             the --bind-address flag",
        )
    }
}

/// The CIDRs of node ports; the node's own addresses as such if they are wanted and known.
fn cidrs(addresses: &NodePortAddresses, node: &NodeIps) -> Vec<IpNet> {
    match addresses {
        NodePortAddresses::All => Vec::new(),
        NodePortAddresses::Cidrs(cidrs) => cidrs.clone(),
        NodePortAddresses::Primary | NodePortAddresses::PrimaryOnly => {
            let known = [IpAddr::V4(node.v4), IpAddr::V6(node.v6)];
            known.into_iter().filter(|ip| !ip.is_loopback()).map(IpNet::from).collect()
        }
    }
}

fn is_everywhere(cidrs: &[IpNet], family: Family) -> bool {
    let mut own = cidrs.iter().filter(|cidr| family_of(cidr) == family).peekable();
    own.peek().is_none() || own.any(|cidr| cidr.prefix_len() == 0)
}

fn matching(cidrs: &[IpNet], host: &[IpAddr], family: Family) -> Vec<IpAddr> {
    let everywhere = is_everywhere(cidrs, family);
    let host = host.iter().map(IpAddr::to_canonical).filter(|ip| Family::of(*ip) == family);
    let fits = |ip: &IpAddr| everywhere || cidrs.iter().any(|cidr| cidr.contains(ip));
    let mut ips: Vec<_> = host.filter(fits).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// Whether clients outside this node can reach it under this address.
fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

/// `clusterCIDR`, whatever the mode of detection.
fn cluster(config: &Config) -> Vec<IpNet> {
    cluster_cidrs(&config.object.cluster_cidr).into_iter().filter_map(parse_cidr).collect()
}

fn family_of(cidr: &IpNet) -> Family {
    Family::of(cidr.addr())
}

fn other(family: Family) -> Family {
    match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    }
}
