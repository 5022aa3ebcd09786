//! Services, EndpointSlices and the node as this program uses them: parsed, and nothing more than
//! forwarding needs.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol};

use super::{Pods, ServiceSettings};
use crate::text;

/// Namespace and name of an object, in the order of these: one text, since every index has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Between the two parts. It comes before everything that a name may have in it.
    const SEPARATOR: char = '\0';

    /// A key from its two parts.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        Self(Self::text(namespace.as_ref(), name.as_ref()).into())
    }

    /// A key as one text, to be shared among equal ones.
    pub(crate) fn text(namespace: &str, name: &str) -> String {
        let mut text = String::with_capacity(namespace.len() + 1 + name.len());
        text.push_str(namespace);
        text.push(Self::SEPARATOR);
        text.push_str(name);
        text
    }

    /// A key from [its text](Self::text).
    pub(crate) const fn of_text(text: Arc<str>) -> Self {
        Self(text)
    }

    /// Namespace; empty where the kind of object has none.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(Self::SEPARATOR).unwrap_or(("", &self.0))
    }
}

/// As it may be shown; for what is compared or sent there are the parts.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.parts();
        write!(f, "{}/{}", text::name(namespace), text::name(name))
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// [`Service::created`] of one that does not say when it was created: it is newer than any that does.
/// A source that knows which of two undated ones was there first adds to it.
pub const UNDATED: i64 = i64::MAX / 2;

/// A Service that is proxied: not headless, not ExternalName, not left to another proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.creationTimestamp` as seconds since 1970: the older of two services that claim the
    /// same address and port wins. [`UNDATED`] or more without one.
    pub created: i64,
    /// Its cluster IPs, at most one of each family. Empty only for a Service from a manifest that
    /// no API server has completed.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`, parsed, without duplicates.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is absent or `VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, parsed; see [`SourceRanges`].
    pub source_ranges: SourceRanges,
    /// `spec.sessionAffinity: ClientIP` and its timeout in seconds.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `spec.externalTrafficPolicy: Local` on a service that is reachable from outside (type
    /// LoadBalancer or NodePort, or externalIPs).
    pub external_local: bool,
    /// `spec.healthCheckNodePort` of a LoadBalancer with externalTrafficPolicy Local; 0 is none.
    pub health_check_node_port: u16,
    /// What its annotations set for it alone; most have none.
    pub settings: Option<Box<ServiceSettings>>,
}

impl Service {
    /// The cluster IP of a family.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// Whether the service exists in a family: it has a cluster IP of it, or none at all.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.is_empty() || self.cluster_ip(family).is_some()
    }
}

/// One entry of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name, possibly empty; with the protocol it selects the EndpointSlice port.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the cluster IP, external IPs and VIPs.
    pub port: u16,
    /// Node port; 0 is none.
    pub node_port: u16,
}

/// Source ranges of load balancer VIPs, per family: the list of one family does not restrict the
/// other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct SourceRanges {
    ranges: Vec<IpNet>,
}

impl SourceRanges {
    /// From the valid entries of the Service; networks are truncated to their prefix. A range with
    /// prefix length 0 means that its family is not restricted.
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let mut ranges: Vec<IpNet> = ranges.into_iter().map(|net| net.trunc()).collect();
        for any in [Family::Ipv4, Family::Ipv6] {
            if ranges.iter().any(|net| Family::of(net.addr()) == any && net.prefix_len() == 0) {
                ranges.retain(|net| Family::of(net.addr()) != any);
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        Self { ranges }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges of one family; none means unrestricted.
    pub fn of(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        self.ranges.iter().copied().filter(move |net| Family::of(net.addr()) == family)
    }
}

/// An EndpointSlice of one address family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    /// Its own namespace and name.
    pub key: ObjectKey,
    /// Its Service (label `kubernetes.io/service-name`), in the same namespace.
    pub service: ObjectKey,
    /// `addressType`.
    pub family: Family,
    /// Ports, each of which holds for all endpoints.
    pub ports: Box<[SlicePort]>,
    /// Endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Their pods.
    pub pods: Pods,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`, as milliseconds since 1970.
    pub triggered: Option<i64>,
}

impl EndpointSlice {
    /// Whether both lead to the same endpoints, whatever caused the change.
    pub fn same_endpoints(&self, other: &Self) -> bool {
        self.key == other.key
            && self.service == other.service
            && self.family == other.family
            && self.ports == other.ports
            && self.endpoints == other.endpoints
            && self.pods == other.pods
    }
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlicePort {
    /// Name, possibly empty.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the pod; 0 is none that could be used, and then nothing uses it.
    pub port: u16,
}

/// One endpoint: the first address of an entry of `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Conditions.
    pub conditions: Conditions,
    /// Where it is. A node has many endpoints, which share it.
    pub location: Arc<Location>,
}

/// Where an endpoint is, and for whom it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Location {
    /// Node it runs on.
    pub node: Option<Arc<str>>,
    /// Zone that it is in.
    pub zone: Option<Arc<str>>,
    /// Topology hints.
    pub hints: Hints,
}

/// Conditions of an endpoint with the API's defaults applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Takes traffic. Absent means true.
    pub ready: bool,
    /// Would be ready if it were not terminating. Absent means true.
    pub serving: bool,
    /// Its pod is being deleted. Absent means false.
    pub terminating: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self { ready: true, serving: true, terminating: false }
    }
}

/// `hints` of an endpoint; empty where it has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Hints {
    /// `forZones[].name`
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`
    pub nodes: Vec<Arc<str>>,
}

/// This node as the API describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Node {
    /// `metadata.name`
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses`: all InternalIP, then all ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`
    pub pod_cidrs: Vec<IpNet>,
    /// Not being deleted and not tainted `ToBeDeletedByClusterAutoscaler`.
    pub eligible: bool,
    /// Annotation `proxier.io/weight`. It counts only where the weights of all nodes are known
    /// ([`Change::NodeWeight`](super::Change::NodeWeight)).
    pub weight: Option<u16>,
}
