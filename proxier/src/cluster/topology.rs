//! Which endpoints this node may use for a service port.
//!
//! | list | endpoints, first rule that gives any |
//! | --- | --- |
//! | cluster | 1. ready ones that fit the topology hints 2. serving and terminating ones, anywhere |
//! | local | 1. ready ones on this node 2. serving and terminating ones on this node |
//!
//! Hints count only when every ready endpoint has one and at least one names this node (first) or
//! its zone (second). They never influence the local list. KEP-1669, KEP-2433, KEP-3015.

use std::collections::BTreeMap;
use std::sync::Arc;

use netlink_ipvs::{Family, Protocol, RealServerKey};

use super::{Endpoint, EndpointSlice, ServicePort};

/// The endpoints of one service port in one family, by address and target port.
pub type Endpoints<'a> = BTreeMap<RealServerKey, &'a Endpoint>;

/// What the slices of one service lead to in one family, by the name and protocol of the port.
pub struct Targets<'a>(BTreeMap<(&'a str, Protocol), Vec<Listening<'a>>>);

/// A target port and who listens there.
type Listening<'a> = (u16, &'a [Endpoint]);

impl<'a> Targets<'a> {
    /// Looks through the slices once, for any number of ports.
    pub fn new(slices: impl IntoIterator<Item = &'a EndpointSlice>, family: Family) -> Self {
        let mut targets: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in slices.into_iter().filter(|slice| slice.family == family) {
            for port in slice.ports.iter().filter(|port| port.port != 0) {
                let lists = targets.entry((&*port.name, port.protocol)).or_default();
                lists.push((port.port, &*slice.endpoints));
            }
        }
        Self(targets)
    }

    /// How many endpoints of one port are named, each as often as it is.
    pub fn count(&self, port: &ServicePort) -> usize {
        let lists = self.0.get(&(&*port.name, port.protocol));
        lists.into_iter().flatten().map(|(_, endpoints)| endpoints.len()).sum()
    }

    /// The endpoints of one port. Where an address and port appears more than once, one that is not
    /// terminating wins.
    pub fn of(&self, port: &ServicePort) -> Endpoints<'a> {
        let mut merged = Endpoints::new();
        let lists = self.0.get(&(&*port.name, port.protocol));
        for (port, endpoints) in lists.into_iter().flatten() {
            for endpoint in *endpoints {
                let key = RealServerKey::new(endpoint.address, *port);
                let known = merged.contains_key(&key);
                if !known || !endpoint.conditions.terminating {
                    merged.insert(key, endpoint);
                }
            }
        }
        merged
    }
}

/// The endpoints of one service port in one family.
pub fn merge<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    family: Family,
) -> Endpoints<'a> {
    Targets::new(slices, family).of(port)
}

/// Where this node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Name of the node.
    pub node: Arc<str>,
    /// Its zone (label `topology.kubernetes.io/zone`).
    pub zone: Option<Arc<str>>,
}

impl Place {
    /// Whether an endpoint runs on this node.
    pub fn is_local(&self, endpoint: &Endpoint) -> bool {
        !self.node.is_empty() && endpoint.location.node.as_ref() == Some(&self.node)
    }

    fn is_hinted_node(&self, endpoint: &Endpoint) -> bool {
        endpoint.location.hints.nodes.contains(&self.node)
    }

    fn is_hinted_zone(&self, endpoint: &Endpoint) -> bool {
        let Some(zone) = self.zone.as_ref().filter(|zone| !zone.is_empty()) else { return false };
        endpoint.location.hints.zones.contains(zone)
    }
}

/// Which lists a service port needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Some frontend uses endpoints of the whole cluster.
    pub cluster: bool,
    /// Some frontend uses endpoints of this node only.
    pub local: bool,
}

/// Which topology hints were followed for the cluster list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// None: every ready endpoint fits.
    Ignored,
    /// Endpoints hinted for this node (`PreferSameNode`).
    Node,
    /// Endpoints hinted for this zone (`PreferSameZone`).
    Zone,
}

/// The endpoints that one service port may use on this node, each list in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// For traffic policy Cluster; `None` when no frontend needs it.
    pub cluster: Option<Vec<RealServerKey>>,
    /// For traffic policy Local; `None` when no frontend needs it.
    pub local: Option<Vec<RealServerKey>>,
    /// Some endpoint could take traffic somewhere in the cluster.
    pub any: bool,
    /// Hints followed for the cluster list.
    pub topology: Topology,
    /// The cluster list holds terminating endpoints because no ready one is left.
    pub cluster_terminating: bool,
    /// The local list holds terminating endpoints because no ready one is left on this node.
    pub local_terminating: bool,
}

/// Applies the rules above to the endpoints of one service port.
pub fn select(endpoints: &Endpoints<'_>, needs: Needs, place: &Place) -> Selection {
    let mut selection = Selection {
        cluster: needs.cluster.then(Vec::new),
        local: needs.local.then(Vec::new),
        any: false,
        topology: Topology::Ignored,
        cluster_terminating: false,
        local_terminating: false,
    };
    let ready = |endpoint: &Endpoint| endpoint.conditions.ready;
    let fallback =
        |endpoint: &Endpoint| endpoint.conditions.serving && endpoint.conditions.terminating;
    let keys = |fits: &dyn Fn(&Endpoint) -> bool| -> Vec<RealServerKey> {
        endpoints.iter().filter(|(_, endpoint)| fits(endpoint)).map(|(key, _)| *key).collect()
    };

    if let Some(cluster) = &mut selection.cluster {
        selection.topology = topology(endpoints, place);
        *cluster = match selection.topology {
            Topology::Ignored => keys(&ready),
            Topology::Node => keys(&|e| ready(e) && place.is_hinted_node(e)),
            Topology::Zone => keys(&|e| ready(e) && place.is_hinted_zone(e)),
        };
        if cluster.is_empty() {
            *cluster = keys(&fallback);
            selection.cluster_terminating = !cluster.is_empty();
        }
        selection.any = !cluster.is_empty();
    }
    if let Some(local) = &mut selection.local {
        selection.any |= endpoints.values().any(|e| ready(e) || fallback(e));
        *local = keys(&|e| ready(e) && place.is_local(e));
        if local.is_empty() {
            *local = keys(&|e| fallback(e) && place.is_local(e));
            selection.local_terminating = !local.is_empty();
        }
    }
    selection
}

fn topology(endpoints: &Endpoints<'_>, place: &Place) -> Topology {
    let mut ready = endpoints.values().filter(|e| e.conditions.ready).peekable();
    if ready.peek().is_none() {
        return Topology::Ignored;
    }
    let (mut all_nodes, mut all_zones, mut this_node, mut this_zone) = (true, true, false, false);
    for endpoint in ready {
        let hints = &endpoint.location.hints;
        all_nodes &= !hints.nodes.is_empty();
        all_zones &= !hints.zones.is_empty();
        this_node |= place.is_hinted_node(endpoint);
        this_zone |= place.is_hinted_zone(endpoint);
    }
    if all_nodes && this_node {
        Topology::Node
    } else if all_zones && this_zone {
        Topology::Zone
    } else {
        Topology::Ignored
    }
}

#[cfg(test)]
mod tests;
