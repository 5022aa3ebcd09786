//! Names and types of what is in our table.

use netlink_ipvs::Family;
use netlink_nftables::{DataType, Set, SetFlags};

use crate::dataplane::firewall::{Chain, Hook, Table};
use crate::dataplane::sets::{SetId, SetRole, SetType};

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "proxier";

/// The set of the virtual servers that the node may not use.
pub const REFUSED: &str = "refused-to-node";

/// A chain of the table.
pub(super) enum Place {
    /// One by which packets come in.
    Base(Table, Hook),
    /// One that those lead to.
    Ours(Chain),
}

/// The chains in the order of a packet's way.
pub(super) const WAY: &[Place] = &[
    Place::Base(Table::Mangle, Hook::Prerouting),
    Place::Base(Table::Mangle, Hook::Output),
    Place::Ours(Chain::LocalMark),
    Place::Base(Table::Nat, Hook::Prerouting),
    Place::Base(Table::Filter, Hook::Output),
    Place::Ours(Chain::IpvsOutFilter),
    Place::Base(Table::Nat, Hook::Output),
    Place::Ours(Chain::Services),
    Place::Ours(Chain::LoadBalancer),
    Place::Ours(Chain::NodePort),
    Place::Ours(Chain::MarkMasq),
    Place::Base(Table::Filter, Hook::Input),
    Place::Ours(Chain::IpvsFilter),
    Place::Ours(Chain::ProxyFirewall),
    Place::Ours(Chain::SourceRanges),
    Place::Base(Table::Filter, Hook::Forward),
    Place::Base(Table::Nat, Hook::Postrouting),
    Place::Ours(Chain::Postrouting),
];

/// The name of a chain of ours.
pub const fn chain_name(chain: Chain) -> &'static str {
    match chain {
        Chain::Services => "services",
        Chain::Postrouting => "masquerading",
        Chain::NodePort => "node-ports",
        Chain::LoadBalancer => "load-balancers",
        Chain::MarkMasq => "mark-to-masquerade",
        Chain::Forward => "forward",
        Chain::NodePortFilter => "open-ports",
        Chain::ProxyFirewall => "restricted",
        Chain::SourceRanges => "allowed-sources",
        Chain::IpvsFilter => "closed-ports",
        Chain::IpvsOutFilter => "node-out",
        Chain::LocalMark => "inside",
    }
}

/// What a chain is for, for people.
pub(super) const fn about(chain: Chain) -> &'static str {
    match chain {
        Chain::Services => "which packets to services get an address of this node as source",
        Chain::Postrouting => "gives packets that were marked an address of this node as source",
        Chain::NodePort => "packets to node ports",
        Chain::LoadBalancer => "packets to load balancer addresses",
        Chain::MarkMasq => "marks packets whose source is replaced on their way out",
        Chain::Forward => "packets of services that this node forwards",
        Chain::NodePortFilter => "ports that are open whatever comes after this chain",
        Chain::ProxyFirewall => "load balancer addresses with source ranges",
        Chain::SourceRanges => "who may reach those; all others are dropped",
        Chain::IpvsFilter => "ports of service addresses that no service has are closed",
        Chain::LocalMark => "leads clients inside the cluster to all endpoints",
        Chain::IpvsOutFilter => "keeps this node from services whose source ranges leave it out",
    }
}

/// The name of the base chain at a hook.
pub(super) const fn base_name(table: Table, hook: Hook) -> &'static str {
    match (table, hook) {
        (Table::Mangle, Hook::Prerouting) => "mark-prerouting",
        (Table::Mangle, Hook::Input) => "mark-input",
        (Table::Mangle, Hook::Forward) => "mark-forward",
        (Table::Mangle, Hook::Output) => "mark-output",
        (Table::Mangle, Hook::Postrouting) => "mark-postrouting",
        (Table::Nat, Hook::Prerouting) => "nat-prerouting",
        (Table::Nat, Hook::Input) => "nat-input",
        (Table::Nat, Hook::Forward) => "nat-forward",
        (Table::Nat, Hook::Output) => "nat-output",
        (Table::Nat, Hook::Postrouting) => "nat-postrouting",
        (Table::Filter, Hook::Prerouting) => "filter-prerouting",
        (Table::Filter, Hook::Input) => "filter-input",
        (Table::Filter, Hook::Forward) => "filter-forward",
        (Table::Filter, Hook::Output) => "filter-output",
        (Table::Filter, Hook::Postrouting) => "filter-postrouting",
    }
}

/// Whether a chain of this name is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    WAY.iter().any(|place| match place {
        Place::Base(table, hook) => base_name(*table, *hook) == name,
        Place::Ours(chain) => chain_name(*chain) == name,
    })
}

/// The name of a set.
pub const fn set_name(role: SetRole) -> &'static str {
    match role {
        SetRole::LoopBack => "hairpin",
        SetRole::ClusterIp => "cluster-ips",
        SetRole::ExternalIp => "external-ips",
        SetRole::ExternalIpLocal => "external-ips-local",
        SetRole::LoadBalancer => "load-balancer-ips",
        SetRole::LoadBalancerFw => "restricted-ips",
        SetRole::LoadBalancerLocal => "load-balancer-ips-local",
        SetRole::LoadBalancerSourceIp => "allowed-node",
        SetRole::LoadBalancerSourceCidr => "source-ranges",
        SetRole::NodePortTcp => "node-ports-tcp",
        SetRole::NodePortLocalTcp => "node-ports-tcp-local",
        SetRole::NodePortUdp => "node-ports-udp",
        SetRole::NodePortLocalUdp => "node-ports-udp-local",
        SetRole::NodePortSctp => "node-ports-sctp",
        SetRole::NodePortLocalSctp => "node-ports-sctp-local",
        SetRole::HealthCheckNodePort => "health-check-ports",
        SetRole::IpvsIps => "service-ips",
        SetRole::LocalMark => "inside-marks",
        SetRole::LocalClosed => "closed-to-outside",
    }
}

/// Whether a set is one of ours, or of a single rule.
pub fn is_set_of_ours(set: &Set) -> bool {
    let name = set.name.as_str();
    let named = name == REFUSED || SetRole::ALL.into_iter().any(|role| set_name(role) == name);
    named || set.flags.contains(SetFlags::ANONYMOUS)
}

/// The types of a set's key.
pub(super) fn key(set: SetId) -> Vec<DataType> {
    use DataType::{InetProto, InetService};
    let address = address(set.family);
    match set.set_type() {
        SetType::HashIp => vec![address],
        SetType::HashIpPort | SetType::Expiring => vec![address, InetProto, InetService],
        SetType::HashIpPortIp | SetType::HashIpPortNet => {
            vec![address, InetProto, InetService, address]
        }
        SetType::BitmapPort => vec![InetService],
    }
}

/// The types of a key of the virtual servers that the node may not use: source, destination.
pub(super) fn refused_key(family: Family) -> Vec<DataType> {
    let address = address(family);
    vec![address, address, DataType::InetProto, DataType::InetService]
}

/// Networks are ranges.
pub(super) fn set_flags(kind: SetType) -> SetFlags {
    match kind {
        SetType::Expiring => SetFlags::TIMEOUT,
        SetType::HashIpPortNet => SetFlags::INTERVAL,
        _ => SetFlags::NONE,
    }
}

/// Whether its members lead to a mark.
pub(super) fn is_map(set: SetId) -> bool {
    set.role == SetRole::LocalMark
}

const fn address(family: Family) -> DataType {
    match family {
        Family::Ipv4 => DataType::Ipv4Addr,
        Family::Ipv6 => DataType::Ipv6Addr,
    }
}
