//! What one Service asks of the dataplane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, RealServer, RealServerKey, VirtualServerKey};

use super::firewall::Backend;
use super::frontend::{Frontend, FrontendKind, SourceRanges};
use super::refusal::{Refusal, Skipped, refuse, refuse_port};
use super::sets::{Member, SetId, SetRole, SetType};
use super::split::{Inside, LocalPolicy};
use super::tuning::Tuning;
use super::{Applied, Over, Settings, Target, VirtualServerState};
use crate::cluster::topology::{Endpoints, Needs, Targets, select};
use crate::cluster::{Endpoint, EndpointSlice, Service, ServicePort};

/// A health check node port and what it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `spec.healthCheckNodePort`
    pub port: u16,
    /// Number of local ready endpoints (distinct addresses), for each family of the service.
    pub local_endpoints: Vec<(Family, usize)>,
}

/// Families in which a service has endpoints, but none on this node, where a policy asks for such.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// internalTrafficPolicy.
    pub internal: Vec<Family>,
    /// externalTrafficPolicy.
    pub external: Vec<Family>,
}

/// What one Service asks of the dataplane. Two equal ones need no work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Virtual servers, each key once.
    pub frontends: Vec<Frontend>,
    /// Set members that belong to the service as a whole.
    pub members: Vec<(SetId, Member)>,
    /// What could not be had.
    pub skipped: Vec<Skipped>,
    /// Health check node port; few have one.
    pub health: Option<Box<Health>>,
    /// Where a Local policy leaves it without endpoints; most are nowhere.
    pub no_local: Option<Box<NoLocal>>,
    /// What became of its annotations; most have none.
    pub applied: Option<Box<Applied>>,
    /// What clients inside the cluster have of frontends outside, until they have their marks.
    #[allow(clippy::box_collection, reason = "hardly any has one, and all are kept")]
    pub inside: Option<Box<Vec<Inside>>>,
}

impl Contribution {
    /// Everything that it asks for.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let members = self.members.iter().map(|(set, member)| Target::Member(*set, *member));
        let frontends = self.frontends.iter().flat_map(|frontend| {
            let server = Target::VirtualServer(frontend.key);
            let known = frontend.targets().filter_map(|target| match target {
                Target::Address(address) => Some(Target::ipvs_ip(address)),
                _ => None,
            });
            std::iter::once(server).chain(frontend.targets()).chain(known)
        });
        members.chain(frontends)
    }
}

/// What a service is for which there is no memory: nothing but the reason.
pub fn left_out(service: &Service, settings: &Settings, over: Over) -> Contribution {
    let node_port = service.ports.iter().any(|port| port.node_port != 0);
    let node = settings.node_port_addresses.first().filter(|_| node_port);
    let named = FrontendKind::ALL.into_iter();
    let mut named = named.filter_map(|kind| Some((*kind.addresses(service).first()?, kind)));
    let first = named.next().or_else(|| node.map(|address| (*address, FrontendKind::NodePort)));
    let reason = Refusal::OverBudget(over);
    let skipped = first.map(|(address, kind)| Skipped { address, port: None, kind, reason });
    Contribution { skipped: skipped.into_iter().collect(), ..Contribution::default() }
}

/// Computes what a service asks for on this node.
pub fn contribution<'a, S>(service: &Service, slices: &S, settings: &Settings) -> Contribution
where
    S: IntoIterator<Item = &'a EndpointSlice> + Clone,
{
    let (tuning, applied) = Tuning::new(service, slices.clone(), settings);
    let mut out = Contribution { applied, ..Contribution::default() };
    let mut places = BTreeMap::new();
    for family in settings.families.iter().copied().filter(|family| service.has_family(*family)) {
        let mut local_ready = Vec::new();
        let targets = Targets::new(slices.clone(), family);
        let addresses = Addresses::usable(service, family, settings, &mut out);
        for port in &service.ports {
            let endpoints = targets.of(port);
            let (addresses, tuning) = (&addresses, &tuning);
            let (out, places) = (&mut out, &mut places);
            let mut builder =
                Builder { service, port, family, settings, tuning, addresses, out, places };
            builder.port(&endpoints);
            local_ready.extend(
                endpoints
                    .values()
                    .filter(|e| e.conditions.ready && settings.place.is_local(e))
                    .map(|e| e.address),
            );
        }
        if service.health_check_node_port != 0 && !service.ports.is_empty() {
            local_ready.sort_unstable();
            local_ready.dedup();
            let port = service.health_check_node_port;
            let new = || Box::new(Health { port, local_endpoints: Vec::new() });
            let health = out.health.get_or_insert_with(new);
            health.local_endpoints.push((family, local_ready.len()));
            out.members.push((SetRole::HealthCheckNodePort.of(family), Member::Port(port)));
        }
    }
    // Kept for as long as the service exists, and most have one of each.
    out.frontends.shrink_to_fit();
    out.members.shrink_to_fit();
    out
}

/// Builds the part of one service port in one family.
struct Builder<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    family: Family,
    settings: &'a Settings,
    tuning: &'a Tuning<'a>,
    addresses: &'a Addresses,
    out: &'a mut Contribution,
    /// Where in `out` each frontend is.
    places: &'a mut BTreeMap<VirtualServerKey, usize>,
}

/// Where a service can be had in one family, but for the addresses of the node.
struct Addresses {
    usable: Vec<(FrontendKind, IpAddr)>,
    /// It asks for some address besides its cluster IP, usable or not.
    outside: bool,
}

impl Addresses {
    fn usable(
        service: &Service,
        family: Family,
        settings: &Settings,
        out: &mut Contribution,
    ) -> Self {
        let mut found = Self { usable: Vec::new(), outside: false };
        for kind in FrontendKind::ALL {
            let addresses = kind.addresses(service).iter().copied();
            for address in addresses.filter(|ip| Family::of(*ip) == family) {
                found.outside |= kind != FrontendKind::ClusterIp;
                match refuse(address, kind, settings) {
                    None => found.usable.push((kind, address)),
                    Some(reason) => {
                        out.skipped.push(Skipped { address, port: None, kind, reason });
                    }
                }
            }
        }
        found
    }
}

/// What the two kinds of frontends lead to.
struct Backends {
    internal: Arc<VirtualServerState>,
    external: Arc<VirtualServerState>,
    /// What clients inside the cluster have through frontends outside.
    inside: Arc<VirtualServerState>,
    /// A Local policy leaves clients outside without an endpoint, although there are some.
    closed: bool,
}

impl Builder<'_> {
    fn port(&mut self, endpoints: &Endpoints<'_>) {
        let backends = self.backends(endpoints);
        let (addresses, first) = (self.addresses, self.out.frontends.len());
        self.loop_back(endpoints);
        for (kind, address) in &addresses.usable {
            self.frontend(*kind, *address, &backends);
        }
        if self.port.node_port != 0 {
            let (settings, family) = (self.settings, self.family);
            for address in &settings.node_port_addresses {
                if Family::of(*address) == family {
                    self.frontend(FrontendKind::NodePort, *address, &backends);
                }
            }
        }
        self.inside(first, backends);
    }

    /// What clients inside the cluster have of the port's frontends outside, which are among those from
    /// the `first` on.
    fn inside(&mut self, first: usize, backends: Backends) {
        let added = self.out.frontends.iter().enumerate().skip(first);
        let outside = added.filter(|(_, frontend)| frontend.kind != FrontendKind::ClusterIp);
        let frontends: Vec<usize> = outside.map(|(at, _)| at).collect();
        if self.settings.local_policy != LocalPolicy::Split || frontends.is_empty() {
            return;
        }
        let is_led = self.service.external_local
            && !backends.closed
            && !backends.inside.real_servers.is_empty();
        self.out.inside.get_or_insert_default().push(Inside {
            port: self.port.name.clone(),
            protocol: self.port.protocol,
            family: self.family,
            server: backends.inside,
            frontends,
            is_led,
        });
    }

    fn backends(&mut self, endpoints: &Endpoints<'_>) -> Backends {
        let service = self.service;
        let external = self.port.node_port != 0 || self.addresses.outside;
        let needs = Needs {
            cluster: !service.internal_local || external,
            local: service.internal_local || (service.external_local && external),
        };
        let selection = select(endpoints, needs, &self.settings.place);
        let config = self.tuning.virtual_server(self.port.protocol, self.family);
        let server = |keys: &[RealServerKey]| {
            let chosen = keys.iter().filter_map(|key| endpoints.get_key_value(key));
            let tuned = |(key, endpoint): (&RealServerKey, &&Endpoint)| RealServer {
                key: *key,
                config: self.tuning.real_server(endpoint),
            };
            Arc::new(VirtualServerState { config, real_servers: chosen.map(tuned).collect() })
        };
        let cluster = server(selection.cluster.as_deref().unwrap_or_default());
        let local = match &selection.local {
            Some(keys) if selection.cluster.as_ref() != Some(keys) => server(keys),
            _ => Arc::clone(&cluster),
        };
        let has_local = selection.local.is_some() && !local.real_servers.is_empty();
        if !has_local && selection.any && selection.local.is_some() {
            let known = self.out.no_local.get_or_insert_default();
            let note = |families: &mut Vec<Family>| {
                if !families.contains(&self.family) {
                    families.push(self.family);
                }
            };
            if service.internal_local {
                note(&mut known.internal);
            }
            if service.external_local && external {
                note(&mut known.external);
            }
        }
        Backends {
            inside: cluster.clone(),
            closed: self.settings.splits(self.family)
                && self.service.external_local
                && !has_local
                && !cluster.real_servers.is_empty(),
            // Local means local: without a local endpoint there is no real server.
            internal: if service.internal_local { local.clone() } else { cluster.clone() },
            // kube-proxy's choice (kubernetes PR 97081): better a remote endpoint, so that pods and
            // the node itself reach the service through its external address.
            external: if service.external_local && has_local { local } else { cluster },
        }
    }

    /// A pod that reaches itself through a service must not see its own address as the source.
    fn loop_back(&mut self, endpoints: &Endpoints<'_>) {
        let set = SetRole::LoopBack.of(self.family);
        for (key, endpoint) in endpoints {
            if self.settings.place.is_local(endpoint) {
                let member =
                    Member::IpPortIp(key.address, self.port.protocol, key.port, key.address);
                self.out.members.push((set, member));
            }
        }
    }

    fn frontend(&mut self, kind: FrontendKind, address: IpAddr, backends: &Backends) {
        let facts = kind.facts(self.port.protocol);
        let port = match kind {
            FrontendKind::NodePort => self.port.node_port,
            _ => self.port.port,
        };
        let sets = facts.sets(self.service.external_local).iter();
        let mut members: Vec<_> = sets.map(|role| self.member(*role, address, port)).collect();
        let closes = match facts.source_ranges {
            SourceRanges::Never => false,
            SourceRanges::Everywhere => self.settings.source_ranges_everywhere,
            SourceRanges::Always => true,
        };
        let drop_from_node = closes && self.source_ranges(address, port, &mut members);
        let server = if facts.internal { &backends.internal } else { &backends.external };
        let known = |at: &usize| self.out.frontends.get(*at).map(|it| it.kind);
        let key = VirtualServerKey::new(address, port, self.port.protocol);
        let also_internal = self.places.get(&key).and_then(known) == Some(FrontendKind::ClusterIp);
        if backends.closed && !facts.internal && !also_internal {
            let member = Member::Marked(address, self.port.protocol, port, 0);
            members.push((SetRole::LocalClosed.of(self.family), member));
        }
        // An address that the node has must stay the node's own: on `kube-ipvs0` all its other
        // ports would be closed.
        let bind = facts.bind && !self.settings.host_addresses.contains(&address);
        self.push(kind, (address, port), server, bind, drop_from_node, members);
    }

    /// Closes an address and port to all but the service's source ranges, if it has any. Whether
    /// they leave the node itself out.
    fn source_ranges(
        &self,
        address: IpAddr,
        port: u16,
        members: &mut Vec<(SetId, Member)>,
    ) -> bool {
        let protocol = self.port.protocol;
        let mut ranges: Vec<IpNet> = self.service.source_ranges.of(self.family).collect();
        if ranges.is_empty() {
            return false;
        }
        if self.settings.backend == Backend::Nftables {
            // Its sets take no ranges that overlap.
            ranges = IpNet::aggregate(&ranges);
        }
        members.push(self.member(SetRole::LoadBalancerFw, address, port));
        let node = self.settings.node_ip(self.family);
        let mut allows_node = false;
        for range in ranges {
            allows_node |= node.is_some_and(|ip| range.contains(&ip));
            members.push((
                SetRole::LoadBalancerSourceCidr.of(self.family),
                Member::IpPortNet(address, protocol, port, range),
            ));
        }
        if allows_node {
            // A process on the node that connects to the VIP has the VIP as its source address.
            members.push((
                SetRole::LoadBalancerSourceIp.of(self.family),
                Member::IpPortIp(address, protocol, port, address),
            ));
        }
        !allows_node
    }

    /// How an address and port is known in a set: in those of node ports without the address.
    fn member(&self, role: SetRole, address: IpAddr, port: u16) -> (SetId, Member) {
        let member = match role.set_type() {
            SetType::BitmapPort => Member::Port(port),
            _ => Member::IpPort(address, self.port.protocol, port),
        };
        (role.of(self.family), member)
    }

    fn push(
        &mut self,
        kind: FrontendKind,
        (address, port): (IpAddr, u16),
        server: &Arc<VirtualServerState>,
        bind: bool,
        drop_from_node: bool,
        members: Vec<(SetId, Member)>,
    ) {
        if let Some(reason) = refuse_port(address, (port, self.port.protocol), kind, self.settings)
        {
            self.out.skipped.push(Skipped { address, port: Some(port), kind, reason });
            return;
        }
        let key = VirtualServerKey::new(address, port, self.port.protocol);
        // The same address may be an external IP and a VIP, or the cluster IP: one virtual server
        // that the firewall knows in both roles.
        if let Some(known) = self.places.get(&key) {
            let known = &mut self.out.frontends[*known];
            known.bind |= bind;
            known.drop_from_node |= drop_from_node;
            for member in members {
                if !known.members.contains(&member) {
                    known.members.push(member);
                }
            }
            return;
        }
        let (server, port) = (Arc::clone(server), self.port.name.clone());
        self.places.insert(key, self.out.frontends.len());
        self.out.frontends.push(Frontend {
            key,
            kind,
            port,
            server,
            bind,
            drop_from_node,
            members,
        });
    }
}

#[cfg(test)]
mod tests;
