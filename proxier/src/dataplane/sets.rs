//! The named sets (ipset) that the firewall rules refer to, and their members.
//!
//! Names, types and texts are kube-proxy's own, so that a node can change hands in both
//! directions. Every set exists once per address family, used or not.

mod member;

use std::fmt;

use netlink_ipvs::Family;

pub use member::{ForeignMember, Member};

/// What a set holds, whatever the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetRole {
    /// Local endpoints as (address, port, address): a pod that reaches itself through a service.
    LoopBack,
    /// Cluster IPs and their ports.
    ClusterIp,
    /// External IPs of services with externalTrafficPolicy Cluster.
    ExternalIp,
    /// External IPs of services with externalTrafficPolicy Local.
    ExternalIpLocal,
    /// Load balancer VIPs.
    LoadBalancer,
    /// Load balancer VIPs with source ranges.
    LoadBalancerFw,
    /// Load balancer VIPs of services with externalTrafficPolicy Local.
    LoadBalancerLocal,
    /// Load balancer VIPs whose source ranges include this node.
    LoadBalancerSourceIp,
    /// Load balancer VIPs with each source range.
    LoadBalancerSourceCidr,
    /// TCP node ports.
    NodePortTcp,
    /// TCP node ports of services with externalTrafficPolicy Local.
    NodePortLocalTcp,
    /// UDP node ports.
    NodePortUdp,
    /// UDP node ports of services with externalTrafficPolicy Local.
    NodePortLocalUdp,
    /// SCTP node ports with each node address.
    NodePortSctp,
    /// SCTP node ports of services with externalTrafficPolicy Local.
    NodePortLocalSctp,
    /// Health check node ports.
    HealthCheckNodePort,
    /// Every address on `kube-ipvs0`.
    IpvsIps,
    /// Frontends with externalTrafficPolicy Local and an endpoint on this node, each with the firewall
    /// mark of the virtual server that clients inside the cluster are led to.
    LocalMark,
    /// Frontends with externalTrafficPolicy Local whose service has no endpoint on this node.
    LocalClosed,
}

/// The type of a set as ipset knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetType {
    /// `hash:ip`
    HashIp,
    /// `hash:ip,port`
    HashIpPort,
    /// `hash:ip,port,ip`
    HashIpPortIp,
    /// `hash:ip,port,net`
    HashIpPortNet,
    /// `bitmap:port` with the range 0-65535
    BitmapPort,
    /// `hash:ip,port` whose members have a firewall mark (`skbinfo`) and go after
    /// [`EXPIRY`](super::split::EXPIRY) unless they are renewed (`timeout`).
    Expiring,
}

impl SetType {
    /// ipset's name of the type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HashIp => "hash:ip",
            Self::HashIpPort | Self::Expiring => "hash:ip,port",
            Self::HashIpPortIp => "hash:ip,port,ip",
            Self::HashIpPortNet => "hash:ip,port,net",
            Self::BitmapPort => "bitmap:port",
        }
    }
}

impl SetRole {
    /// All roles, in the order in which kube-proxy creates the sets; then those that it does not have.
    pub const ALL: [Self; 19] = [
        Self::LoopBack,
        Self::ClusterIp,
        Self::ExternalIp,
        Self::ExternalIpLocal,
        Self::LoadBalancer,
        Self::LoadBalancerFw,
        Self::LoadBalancerLocal,
        Self::LoadBalancerSourceIp,
        Self::LoadBalancerSourceCidr,
        Self::NodePortTcp,
        Self::NodePortLocalTcp,
        Self::NodePortUdp,
        Self::NodePortLocalUdp,
        Self::NodePortSctp,
        Self::NodePortLocalSctp,
        Self::HealthCheckNodePort,
        Self::IpvsIps,
        Self::LocalMark,
        Self::LocalClosed,
    ];

    /// Whether it is there only where Local policies are split
    /// ([`LocalPolicy`](super::split::LocalPolicy)).
    pub const fn is_of_split(self) -> bool {
        matches!(self, Self::LocalMark | Self::LocalClosed)
    }

    /// Names (IPv4, IPv6), type, and the comment that the rules on the set carry. IPv6 names are
    /// cut to ipset's 31 characters.
    #[allow(clippy::too_many_lines, reason = "one table")]
    const fn facts(self) -> (&'static str, &'static str, SetType, &'static str) {
        use SetType::{BitmapPort, Expiring, HashIp, HashIpPort, HashIpPortIp, HashIpPortNet};
        match self {
            Self::LoopBack => (
                "KUBE-LOOP-BACK",
                "KUBE-6-LOOP-BACK",
                HashIpPortIp,
                "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
            ),
            Self::ClusterIp => (
                "KUBE-CLUSTER-IP",
                "KUBE-6-CLUSTER-IP",
                HashIpPort,
                "Kubernetes service cluster ip + port for masquerade purpose",
            ),
            Self::ExternalIp => (
                "KUBE-EXTERNAL-IP",
                "KUBE-6-EXTERNAL-IP",
                HashIpPort,
                "Kubernetes service external ip + port for masquerade and filter purpose",
            ),
            Self::ExternalIpLocal => (
                "KUBE-EXTERNAL-IP-LOCAL",
                "KUBE-6-EXTERNAL-IP-LOCAL",
                HashIpPort,
                "Kubernetes service external ip + port with externalTrafficPolicy=local",
            ),
            Self::LoadBalancer => (
                "KUBE-LOAD-BALANCER",
                "KUBE-6-LOAD-BALANCER",
                HashIpPort,
                "Kubernetes service lb portal",
            ),
            Self::LoadBalancerFw => (
                "KUBE-LOAD-BALANCER-FW",
                "KUBE-6-LOAD-BALANCER-FW",
                HashIpPort,
                "Kubernetes service load balancer ip + port for load balancer with sourceRange",
            ),
            Self::LoadBalancerLocal => (
                "KUBE-LOAD-BALANCER-LOCAL",
                "KUBE-6-LOAD-BALANCER-LOCAL",
                HashIpPort,
                "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
            ),
            Self::LoadBalancerSourceIp => (
                "KUBE-LOAD-BALANCER-SOURCE-IP",
                "KUBE-6-LOAD-BALANCER-SOURCE-IP",
                HashIpPortIp,
                "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
            ),
            Self::LoadBalancerSourceCidr => (
                "KUBE-LOAD-BALANCER-SOURCE-CIDR",
                "KUBE-6-LOAD-BALANCER-SOURCE-CID",
                HashIpPortNet,
                "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
            ),
            Self::NodePortTcp => (
                "KUBE-NODE-PORT-TCP",
                "KUBE-6-NODE-PORT-TCP",
                BitmapPort,
                "Kubernetes nodeport TCP port for masquerade purpose",
            ),
            Self::NodePortLocalTcp => (
                "KUBE-NODE-PORT-LOCAL-TCP",
                "KUBE-6-NODE-PORT-LOCAL-TCP",
                BitmapPort,
                "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
            ),
            Self::NodePortUdp => (
                "KUBE-NODE-PORT-UDP",
                "KUBE-6-NODE-PORT-UDP",
                BitmapPort,
                "Kubernetes nodeport UDP port for masquerade purpose",
            ),
            Self::NodePortLocalUdp => (
                "KUBE-NODE-PORT-LOCAL-UDP",
                "KUBE-6-NODE-PORT-LOCAL-UDP",
                BitmapPort,
                "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
            ),
            Self::NodePortSctp => (
                "KUBE-NODE-PORT-SCTP-HASH",
                "KUBE-6-NODE-PORT-SCTP-HASH",
                HashIpPort,
                "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
            ),
            Self::NodePortLocalSctp => (
                "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
                "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS",
                HashIpPort,
                "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
            ),
            Self::HealthCheckNodePort => (
                "KUBE-HEALTH-CHECK-NODE-PORT",
                "KUBE-6-HEALTH-CHECK-NODE-PORT",
                BitmapPort,
                "Kubernetes health check node port",
            ),
            Self::IpvsIps => {
                ("KUBE-IPVS-IPS", "KUBE-6-IPVS-IPS", HashIp, "Addresses on the ipvs interface")
            }
            Self::LocalMark => (
                "KUBE-LOCAL-MARK",
                "KUBE-6-LOCAL-MARK",
                Expiring,
                "externalTrafficPolicy=local: marks for clients inside the cluster",
            ),
            Self::LocalClosed => (
                "KUBE-LOCAL-CLOSED",
                "KUBE-6-LOCAL-CLOSED",
                Expiring,
                "externalTrafficPolicy=local without an endpoint on this node",
            ),
        }
    }

    /// The comment of the firewall rules on this set.
    pub const fn comment(self) -> &'static str {
        self.facts().3
    }

    /// ipset's type.
    pub const fn set_type(self) -> SetType {
        self.facts().2
    }

    /// The set of this role for one family.
    pub const fn of(self, family: Family) -> SetId {
        SetId { role: self, family }
    }
}

/// One set: a role in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    /// Family of its addresses; bitmaps of ports exist per family too.
    pub family: Family,
    /// What it holds.
    pub role: SetRole,
}

impl SetId {
    /// Number of members that a hash set holds unless more are needed.
    pub const DEFAULT_CAPACITY: u32 = 65536;

    /// Every set of both families.
    pub fn all() -> impl Iterator<Item = Self> {
        [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .flat_map(|family| SetRole::ALL.into_iter().map(move |role| role.of(family)))
    }

    /// The kernel's name of the set.
    pub const fn name(self) -> &'static str {
        let (v4, v6, ..) = self.role.facts();
        match self.family {
            Family::Ipv4 => v4,
            Family::Ipv6 => v6,
        }
    }

    /// The set with this kernel name, if it is one of ours.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|set| set.name() == name)
    }

    /// ipset's type.
    pub const fn set_type(self) -> SetType {
        self.role.set_type()
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_ipset_and_lead_back_to_their_set() {
        let mut names = std::collections::BTreeSet::new();
        for set in SetId::all() {
            assert!(set.name().len() <= 31, "{set}");
            assert_eq!(SetId::by_name(set.name()), Some(set));
            names.insert(set.name());
        }
        assert_eq!(names.len(), 38);
        assert_eq!(SetId::by_name("FOREIGN"), None);
    }
}
