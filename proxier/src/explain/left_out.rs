//! Endpoints in slices that have no fitting port, and hints that are not followed.

use netlink_ipvs::{Family, RealServerKey};

use super::Known;
use super::account::EndpointAccount;
use super::endpoints::account;
use crate::cluster::topology::{Endpoints, Place, Topology};
use crate::cluster::{Endpoint, EndpointSlice, Hints, Service, ServicePort};
use crate::text;

/// The endpoints of slices that have no port for this one of the service.
pub(super) fn endpoints(
    service: &Service,
    port: &ServicePort,
    family: Family,
    known: Known<'_>,
) -> Vec<EndpointAccount> {
    let mut out = Vec::new();
    for slice in known.cluster.slices(&service.key).filter(|slice| slice.family == family) {
        let Some(reason) = unfit(slice, port) else { continue };
        out.extend(slice.endpoints.iter().map(|endpoint| {
            let (address, verdict) = (endpoint.address.to_string(), format!("left out: {reason}"));
            account(address, endpoint, &known.settings.place, false, verdict)
        }));
    }
    out
}

/// Why a slice has no port for one of its service.
fn unfit(slice: &EndpointSlice, port: &ServicePort) -> Option<String> {
    let (name, protocol) = (text::name(&port.name), port.protocol);
    let mut fits = slice.ports.iter().filter(|it| it.name == port.name && it.protocol == protocol);
    let slice_name = text::name(slice.key.name());
    if slice.ports.is_empty() {
        return Some(format!("its EndpointSlice \"{slice_name}\" has no ports"));
    }
    match fits.clone().next() {
        None => Some(format!(
            "its EndpointSlice \"{slice_name}\" has no port named \"{name}\" of {protocol}"
        )),
        Some(_) if fits.all(|it| it.port == 0) => {
            Some(format!("the port \"{name}\" of its EndpointSlice \"{slice_name}\" has no number"))
        }
        Some(_) => None,
    }
}

/// Which hints are followed, and why others are not.
pub(super) fn hints(endpoints: &Endpoints<'_>, topology: Topology, place: &Place) -> Vec<String> {
    let ready: Vec<_> =
        endpoints.iter().filter(|(_, endpoint)| endpoint.conditions.ready).collect();
    let mut notes = Vec::new();
    if topology != Topology::Node
        && let Some(reason) = no_nodes(&ready, place)
    {
        notes.push(format!("hints for nodes are not followed: {reason}"));
    }
    let followed = match topology {
        Topology::Node => Some("nodes"),
        Topology::Zone => Some("zones"),
        Topology::Ignored => None,
    };
    if let Some(kind) = followed {
        notes.push(format!("every ready endpoint has hints for {kind}: followed"));
    } else if let Some(reason) = no_zones(&ready, place) {
        notes.push(format!("hints for zones are not followed: {reason}"));
    }
    notes
}

type Ready<'a> = [(&'a RealServerKey, &'a &'a Endpoint)];

/// Why the hints for nodes cannot be followed; nothing where there are none.
fn no_nodes(ready: &Ready<'_>, place: &Place) -> Option<String> {
    let node = text::name(&place.node);
    let not_here = || format!("no ready endpoint is hinted for the node {node}");
    unfollowed(ready, |hints| !hints.nodes.is_empty(), not_here)
}

/// The same for zones.
fn no_zones(ready: &Ready<'_>, place: &Place) -> Option<String> {
    let zone = place.zone.as_deref().filter(|zone| !zone.is_empty());
    let not_here = || match zone {
        Some(zone) => format!("no ready endpoint is hinted for the zone {}", text::name(zone)),
        None => format!(
            "the node {} has no zone (label topology.kubernetes.io/zone)",
            text::name(&place.node)
        ),
    };
    unfollowed(ready, |hints| !hints.zones.is_empty(), not_here)
}

/// Which endpoint lacks hints that others have, or what else is wrong with them.
fn unfollowed(
    ready: &Ready<'_>,
    has: impl Fn(&Hints) -> bool,
    not_here: impl Fn() -> String,
) -> Option<String> {
    let has = |endpoint: &Endpoint| has(&endpoint.location.hints);
    ready.iter().find(|(_, endpoint)| has(endpoint))?;
    let lacks = ready.iter().find(|(_, endpoint)| !has(endpoint));
    Some(lacks.map_or_else(not_here, |(key, _)| format!("the ready endpoint {key} has none")))
}
