//! The kinds of frontends: one table of what is particular to each.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Protocol, VirtualServerKey};

use super::sets::{Member, SetId, SetRole};
use super::{Target, VirtualServerState};
use crate::cluster::Service;

/// Where clients reach a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// `spec.clusterIPs`
    ClusterIp,
    /// `spec.externalIPs`
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip`
    LoadBalancer,
    /// `spec.ports[].nodePort` on an address of the node
    NodePort,
    /// All that are outside, for clients inside the cluster: by firewall mark ([`split`](super::split))
    Inside,
}

/// What is particular to a kind of frontend.
pub(super) struct Facts {
    /// How people call it.
    name: &'static str,
    /// internalTrafficPolicy says which endpoints it has; of all others, externalTrafficPolicy.
    pub(super) internal: bool,
    /// The sets by which the firewall knows it.
    sets: &'static [SetRole],
    /// The same if externalTrafficPolicy is Local.
    local_sets: &'static [SetRole],
    /// Whether source ranges hold for it.
    pub(super) source_ranges: SourceRanges,
    /// Its address belongs on `kube-ipvs0`; else it is one that the node has anyway.
    pub(super) bind: bool,
    /// Its address is whatever somebody wrote, where others were given by the API server.
    written: bool,
}

/// For which frontends the source ranges of a service hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceRanges {
    Never,
    /// With `--source-ranges-everywhere`.
    Everywhere,
    Always,
}

impl FrontendKind {
    /// Whether its address is whatever somebody wrote into a Service.
    pub(crate) const fn is_written(self) -> bool {
        self.facts(Protocol::Tcp).written
    }

    /// Whether source ranges hold for it whatever the settings say.
    pub(super) fn is_always_restricted(self) -> bool {
        self.facts(Protocol::Tcp).source_ranges == SourceRanges::Always
    }

    /// All that have an address, in the order in which a service lists them.
    pub(super) const ALL: [Self; 4] =
        [Self::ClusterIp, Self::ExternalIp, Self::LoadBalancer, Self::NodePort];

    /// The addresses that a service names. Those of the node are the same for every service.
    pub(super) fn addresses(self, service: &Service) -> &[IpAddr] {
        match self {
            Self::ClusterIp => &service.cluster_ips,
            Self::ExternalIp => &service.external_ips,
            Self::LoadBalancer => &service.load_balancer_ips,
            Self::NodePort | Self::Inside => &[],
        }
    }

    pub(super) const fn facts(self, protocol: Protocol) -> Facts {
        use SetRole::{ClusterIp, ExternalIp, ExternalIpLocal, LoadBalancer, LoadBalancerLocal};
        match self {
            Self::ClusterIp => Facts {
                name: "cluster IP",
                internal: true,
                sets: &[ClusterIp],
                local_sets: &[ClusterIp],
                source_ranges: SourceRanges::Never,
                bind: true,
                written: false,
            },
            Self::ExternalIp => Facts {
                name: "external IP",
                internal: false,
                sets: &[ExternalIp],
                local_sets: &[ExternalIpLocal],
                source_ranges: SourceRanges::Everywhere,
                bind: true,
                written: true,
            },
            Self::LoadBalancer => Facts {
                name: "load balancer IP",
                internal: false,
                sets: &[LoadBalancer],
                local_sets: &[LoadBalancer, LoadBalancerLocal],
                source_ranges: SourceRanges::Always,
                bind: true,
                written: true,
            },
            Self::Inside => Facts {
                name: "inside",
                internal: false,
                sets: &[],
                local_sets: &[],
                source_ranges: SourceRanges::Never,
                bind: false,
                written: false,
            },
            Self::NodePort => {
                let (sets, local_sets) = node_port_sets(protocol);
                Facts {
                    name: "node port",
                    internal: false,
                    sets,
                    local_sets,
                    source_ranges: SourceRanges::Everywhere,
                    bind: false,
                    written: false,
                }
            }
        }
    }
}

const fn node_port_sets(protocol: Protocol) -> (&'static [SetRole], &'static [SetRole]) {
    use SetRole::{
        NodePortLocalSctp, NodePortLocalTcp, NodePortLocalUdp, NodePortSctp, NodePortTcp,
        NodePortUdp,
    };
    match protocol {
        Protocol::Tcp => (&[NodePortTcp], &[NodePortTcp, NodePortLocalTcp]),
        Protocol::Udp => (&[NodePortUdp], &[NodePortUdp, NodePortLocalUdp]),
        Protocol::Sctp | Protocol::Other(_) => {
            (&[NodePortSctp], &[NodePortSctp, NodePortLocalSctp])
        }
    }
}

impl Facts {
    /// The sets by which the firewall knows such a frontend.
    pub(super) const fn sets(&self, external_local: bool) -> &'static [SetRole] {
        if external_local { self.local_sets } else { self.sets }
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.facts(Protocol::Tcp).name)
    }
}

/// One virtual server that a service asks for, and all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Where it listens.
    pub key: VirtualServerKey,
    /// What it is.
    pub kind: FrontendKind,
    /// Name of the service port.
    pub port: Arc<str>,
    /// Configuration and real servers.
    pub server: Arc<VirtualServerState>,
    /// Its address belongs on `kube-ipvs0`.
    pub bind: bool,
    /// The node itself may not use it: source ranges that leave the node out.
    pub drop_from_node: bool,
    /// Set members by which the firewall knows it.
    pub members: Vec<(SetId, Member)>,
}

impl Frontend {
    /// What goes with it besides its virtual server.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let address = match self.key {
            VirtualServerKey::Address { address, .. } if self.bind => Some(address),
            _ => None,
        };
        let members = self.members.iter().map(|(set, member)| Target::Member(*set, *member));
        members.chain(address.map(Target::Address))
    }
}
