//! Endpoints in slices that have no fitting port, and hints that are not followed.

use std::fmt::Write as _;

use netlink_ipvs::{Family, RealServerKey};

use crate::cluster::topology::{Endpoints, Place, Topology};
use crate::cluster::{Cluster, Endpoint, EndpointSlice, Hints, Service, ServicePort};
use crate::text;

/// Lists the endpoints of slices that have no port for this one of the service.
pub(super) fn slices(
    out: &mut String,
    service: &Service,
    port: &ServicePort,
    family: Family,
    cluster: &Cluster,
) {
    for slice in cluster.slices(&service.key).filter(|slice| slice.family == family) {
        let Some(reason) = unfit(slice, port) else { continue };
        for endpoint in &slice.endpoints {
            let node = endpoint.location.node.as_deref().unwrap_or("no node");
            let address = endpoint.address;
            let _ = writeln!(out, "    {address} on {}: left out: {reason}", text::name(node));
        }
    }
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

/// Says which hints are followed, and why others are not.
pub(super) fn hints(
    out: &mut String,
    endpoints: &Endpoints<'_>,
    topology: Topology,
    place: &Place,
) {
    let ready: Vec<_> =
        endpoints.iter().filter(|(_, endpoint)| endpoint.conditions.ready).collect();
    if topology != Topology::Node
        && let Some(reason) = no_nodes(&ready, place)
    {
        let _ = writeln!(out, "    hints for nodes are not followed: {reason}");
    }
    match topology {
        Topology::Node => out.push_str("    every ready endpoint has hints for nodes: followed\n"),
        Topology::Zone => out.push_str("    every ready endpoint has hints for zones: followed\n"),
        Topology::Ignored => {
            if let Some(reason) = no_zones(&ready, place) {
                let _ = writeln!(out, "    hints for zones are not followed: {reason}");
            }
        }
    }
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
