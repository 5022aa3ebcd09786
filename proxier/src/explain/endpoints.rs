//! What becomes of the endpoints of a port, and why there are none.

use std::collections::BTreeSet;
use std::sync::Arc;

use netlink_ipvs::{Family, RealServerKey};

use super::NAMED;
use super::account::EndpointAccount;
use crate::cluster::topology::{Endpoints, Place, Selection, Topology};
use crate::cluster::{Cluster, Conditions, Endpoint, Service, ServicePort, SlicePort};
use crate::dataplane::Frontend;
use crate::text;

/// Why a port has no endpoints of a family.
pub(super) fn lacking(
    service: &Service,
    port: &ServicePort,
    family: Family,
    cluster: &Cluster,
) -> String {
    let mut slices = cluster.slices(&service.key).filter(|slice| slice.family == family).peekable();
    if slices.peek().is_none() {
        return format!("this service has no EndpointSlice of {family}");
    }
    let (name, protocol) = (text::name(&port.name), port.protocol);
    let is_port = |it: &SlicePort| it.name == port.name && it.protocol == protocol && it.port != 0;
    if slices.any(|slice| slice.ports.iter().any(is_port)) {
        format!("the EndpointSlices with a port named \"{name}\" of {protocol} have no endpoints")
    } else {
        format!("no EndpointSlice of this service has a port named \"{name}\" of {protocol}")
    }
}

/// Which endpoints fit, and which are led to.
pub(super) struct Uses {
    cluster: BTreeSet<RealServerKey>,
    local: BTreeSet<RealServerKey>,
    /// By any of the frontends.
    led_to: BTreeSet<RealServerKey>,
}

impl Uses {
    /// These frontends are those that the service has, and has not lost to another.
    pub(super) fn new<'a>(
        selection: &Selection,
        frontends: impl Iterator<Item = &'a Frontend>,
    ) -> Self {
        let set = |list: &Option<Vec<RealServerKey>>| list.iter().flatten().copied().collect();
        let mut led_to = BTreeSet::new();
        let mut seen = Vec::new();
        for real_servers in frontends.map(|frontend| &frontend.server.real_servers) {
            // Most frontends share one list.
            if !seen.contains(&real_servers.as_ptr()) {
                seen.push(real_servers.as_ptr());
                led_to.extend(real_servers.iter().map(|real| real.key));
            }
        }
        Self { cluster: set(&selection.cluster), local: set(&selection.local), led_to }
    }
}

/// What becomes of one endpoint; `weight` is what there is to say of that.
pub(super) fn endpoint(
    key: &RealServerKey,
    endpoint: &Endpoint,
    selection: &Selection,
    uses: &Uses,
    place: &Place,
    weight: &str,
) -> EndpointAccount {
    let (is_used, verdict) = verdict(key, endpoint, selection, uses, place);
    account(key.to_string(), endpoint, place, is_used, format!("{verdict}{weight}"))
}

/// An endpoint with this verdict.
pub(super) fn account(
    address: String,
    endpoint: &Endpoint,
    place: &Place,
    used: bool,
    verdict: String,
) -> EndpointAccount {
    let shown = |name: &Option<Arc<str>>| name.as_deref().map(|it| text::name(it).to_string());
    let state = match endpoint.conditions {
        Conditions { ready: true, .. } => "ready",
        Conditions { terminating: true, .. } => "terminating",
        _ => "not ready",
    };
    EndpointAccount {
        address,
        ip: endpoint.address,
        pod: None,
        node: shown(&endpoint.location.node),
        zone: shown(&endpoint.location.zone),
        state,
        local: place.is_local(endpoint),
        used,
        verdict,
    }
}

/// Whether it is used, and the same in words.
fn verdict(
    key: &RealServerKey,
    endpoint: &Endpoint,
    selection: &Selection,
    uses: &Uses,
    place: &Place,
) -> (bool, String) {
    let conditions = endpoint.conditions;
    let local = if place.is_local(endpoint) { "local" } else { "not local" };
    let left_out = match (uses.cluster.contains(key), uses.local.contains(key)) {
        (fits, fits_local)
            if !uses.led_to.contains(key)
                && (fits_local || (fits && selection.local.is_none())) =>
        {
            return (false, format!("not used: nothing leads to it on this node, {local}"));
        }
        (true, _) if !uses.led_to.contains(key) => {
            format!("{local}, and the traffic policy is Local")
        }
        (true, _) => return (true, format!("used, {local}")),
        (false, true) => return (true, format!("used by policy Local only, {local}")),
        (false, false) if conditions.ready => {
            let hints = &endpoint.location.hints;
            let names = |list: &[Arc<str>]| text::few(list.iter().map(text::name), NAMED);
            match selection.topology {
                Topology::Node => format!("hinted for nodes {}", names(&hints.nodes)),
                _ => format!("hinted for zones {}", names(&hints.zones)),
            }
        }
        (false, false) if conditions.terminating && conditions.serving => {
            "terminating, and others are ready".to_owned()
        }
        (false, false) if conditions.terminating => "terminating and no longer serving".to_owned(),
        (false, false) => "not ready".to_owned(),
    };
    (false, format!("left out: {left_out}"))
}

/// What is used where no endpoint is ready.
pub(super) fn fallbacks(endpoints: &Endpoints<'_>, selection: &Selection) -> Option<String> {
    if selection.cluster_terminating {
        Some("no endpoint is ready: those that terminate but still serve are used".to_owned())
    } else if !endpoints.is_empty() && selection.cluster.as_ref().is_some_and(Vec::is_empty) {
        Some("no endpoint is ready or still serving".to_owned())
    } else {
        None
    }
}
