//! What there is to say of Services, as data: [`Explanation`] prints itself for people, and serialises
//! for programs.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use netlink_ipvs::VirtualServerKey;
use serde::{Serialize, Serializer};

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whose the address or port is that was asked for; empty where a Service was.
    pub found: Vec<Found>,
    /// The Services that it is about. Where an address belongs to several, [`Self::found`] names them
    /// instead.
    pub services: Vec<ServiceAccount>,
    /// What the running proxy cannot program of it, and why, in words.
    pub held_back: Vec<String>,
}

/// Something that belongs to a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// A virtual server, the address of an endpoint, or a port.
    pub what: String,
    /// `namespace/name`
    pub service: String,
    /// What it is to the Service: `cluster IP`.
    pub role: String,
}

/// What one Service is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `internalTrafficPolicy: Local`
    pub internal_traffic_policy_local: bool,
    /// `externalTrafficPolicy: Local`
    pub external_traffic_policy_local: bool,
    /// For how long a client keeps its endpoint.
    pub sticky_seconds: Option<u32>,
    /// What its annotations have set.
    pub settings: Vec<SettingAccount>,
    /// Its annotations that cannot be used, and why not.
    pub rejected_settings: Vec<String>,
    /// Its ports, or the one that was asked for.
    pub ports: Vec<PortAccount>,
    /// Addresses that it asks for and does not get.
    pub skipped: Vec<SkippedAccount>,
    /// Its health check node port.
    pub health_check: Option<HealthAccount>,
}

/// A setting by annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingAccount {
    /// What is set.
    pub setting: String,
    /// To what.
    pub value: String,
    /// By which annotation.
    pub annotation: String,
}

/// An address that is not programmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedAccount {
    /// `external IP 192.0.2.1`
    pub what: String,
    /// Why not.
    pub reason: String,
}

/// What a load balancer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthAccount {
    /// Where it asks.
    pub port: u16,
    /// Ready endpoints on this node, by family.
    pub local_endpoints: Vec<LocalEndpoints>,
}

/// Ready endpoints on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalEndpoints {
    /// `IPv4` or `IPv6`
    pub family: String,
    /// How many.
    pub count: usize,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortAccount {
    /// Its name; most of Services with one port have none.
    pub name: String,
    /// Its number at the addresses of the Service.
    pub port: u16,
    /// `tcp`, `udp` or `sctp`
    pub protocol: String,
    /// Its number at the addresses of nodes.
    pub node_port: Option<u16>,
    /// What it is in each family that the Service has.
    pub families: Vec<FamilyAccount>,
}

/// A port in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyAccount {
    /// `IPv4` or `IPv6`
    pub family: String,
    /// The node from which it is seen.
    pub node: String,
    /// Why there are no endpoints.
    pub no_endpoints: Option<String>,
    /// Every endpoint of its EndpointSlices.
    pub endpoints: Vec<EndpointAccount>,
    /// Why these endpoints and no others.
    pub notes: Vec<String>,
    /// Why its node port is not there.
    pub no_node_port: Option<String>,
    /// Where clients reach it.
    pub frontends: Vec<FrontendAccount>,
    /// What pods reach through external IPs and those of load balancers, and the node itself through node
    /// ports too, where `externalTrafficPolicy: Local` is about others.
    pub inside: Option<FrontendAccount>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAccount {
    /// Its address, with its port where it has one for this port of the Service.
    pub address: String,
    /// Its address alone.
    #[serde(skip)]
    pub ip: IpAddr,
    /// The pod that it is, where its EndpointSlice says so.
    pub pod: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
    /// The zone that it is in.
    pub zone: Option<String>,
    /// `ready`, `terminating` or `not ready`
    pub state: &'static str,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether new connections through this node may reach it.
    pub used: bool,
    /// The same in words, with the reason.
    pub verdict: String,
}

/// One virtual server of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendAccount {
    /// `cluster IP`
    pub kind: String,
    /// Where it listens.
    #[serde(serialize_with = "shown")]
    pub virtual_server: VirtualServerKey,
    /// The scheduler and its flags.
    pub scheduler: String,
    /// The Service that has this address and port instead.
    pub taken_by: Option<String>,
    /// Where connections go to; none are refused. Empty too where another Service has it.
    pub real_servers: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Explanation {
    /// Addresses of the Services that it is about.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.services.iter().flat_map(ServiceAccount::addresses).collect()
    }
}

impl ServiceAccount {
    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its ports in each of their families.
    pub fn families(&self) -> impl Iterator<Item = (&PortAccount, &FamilyAccount)> {
        self.ports.iter().flat_map(|port| port.families.iter().map(move |family| (port, family)))
    }

    /// Everything that clients can connect to.
    pub fn frontends(&self) -> impl Iterator<Item = &FrontendAccount> {
        self.families().flat_map(|(_, family)| &family.frontends)
    }

    /// Addresses that clients connect to.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.frontends().filter_map(FrontendAccount::address)
    }
}

impl FrontendAccount {
    /// The address that clients connect to.
    pub fn address(&self) -> Option<IpAddr> {
        match self.virtual_server {
            VirtualServerKey::Address { address, .. } => Some(address),
            VirtualServerKey::FirewallMark { .. } => None,
        }
    }
}
