//! What there is to say of one Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_ipvs::{Family, Flags};

use super::Known;
use super::account::{
    EndpointAccount, FamilyAccount, FrontendAccount, HealthAccount, LocalEndpoints, PortAccount,
    ServiceAccount, SkippedAccount,
};
use super::endpoints::{Uses, endpoint, fallbacks, lacking};
use super::{left_out, settings};
use crate::cluster::topology::{Needs, Selection, merge, select};
use crate::cluster::{EndpointSlice, Service, ServicePort};
use crate::dataplane::sets::SetRole;
use crate::dataplane::{Contribution, Frontend, FrontendKind, Settings};
use crate::render::scheduler_flags;
use crate::text;

/// Of these ports of it.
pub(super) fn account<'a>(
    service: &Service,
    ports: impl IntoIterator<Item = &'a ServicePort>,
    known: Known<'_>,
) -> ServiceAccount {
    let asked = known.desired.contribution(&service.key).map(|asked| &**asked);
    let port = |port: &ServicePort| PortAccount {
        name: text::name(&port.name).to_string(),
        port: port.port,
        protocol: port.protocol.to_string(),
        node_port: Some(port.node_port).filter(|number| *number != 0),
        families: families(service, port, known),
    };
    ServiceAccount {
        namespace: text::name(service.key.namespace()).to_string(),
        name: text::name(service.key.name()).to_string(),
        internal_traffic_policy_local: service.internal_local,
        external_traffic_policy_local: service.external_local,
        sticky_seconds: service.affinity,
        settings: settings::in_force(asked),
        rejected_settings: settings::rejected(asked),
        ports: ports.into_iter().map(port).collect(),
        skipped: asked.map(skipped).unwrap_or_default(),
        health_check: asked.and_then(health),
    }
}

fn skipped(asked: &Contribution) -> Vec<SkippedAccount> {
    let skipped = asked.skipped.iter();
    skipped.map(|it| SkippedAccount { what: it.what(), reason: it.reason.to_string() }).collect()
}

fn health(asked: &Contribution) -> Option<HealthAccount> {
    let health = asked.health.as_ref()?;
    let counts = health.local_endpoints.iter();
    let local_endpoints = counts
        .map(|(family, count)| LocalEndpoints { family: family.to_string(), count: *count })
        .collect();
    Some(HealthAccount { port: health.port, local_endpoints })
}

fn families(service: &Service, port: &ServicePort, known: Known<'_>) -> Vec<FamilyAccount> {
    let families = known.settings.families.iter().filter(|family| service.has_family(**family));
    families.map(|family| part(service, port, *family, known)).collect()
}

/// One port in one family: its endpoints, then its frontends.
fn part(service: &Service, port: &ServicePort, family: Family, known: Known<'_>) -> FamilyAccount {
    let place = &known.settings.place;
    let endpoints = merge(known.cluster.slices(&service.key), port, family);
    let asked = known.desired.contribution(&service.key);
    let frontends: Vec<&Frontend> = asked
        .into_iter()
        .flat_map(|asked| &asked.frontends)
        .filter(|frontend| frontend.port == port.name && frontend.key.family() == family)
        .filter(|frontend| known.desired.protocol(&frontend.key) == Some(port.protocol))
        .collect();
    // Pods and the node itself reach these through addresses for outside.
    let (inside, frontends): (Vec<_>, Vec<_>) =
        frontends.into_iter().partition(|frontend| frontend.kind == FrontendKind::Inside);
    let needs = Needs { cluster: true, local: service.internal_local || service.external_local };
    let selection = select(&endpoints, needs, place);
    let applied = asked.and_then(|asked| asked.applied.as_deref());
    let has = |frontend: &&&Frontend| {
        known.desired.owner(&frontend.key).is_some_and(|(owner, _)| *owner == service.key)
    };
    let uses = Uses::new(&selection, frontends.iter().chain(&inside).filter(has).copied());
    let of = |(key, it): (&_, &&_)| {
        let by = (service, &*known.settings.node_weights);
        let weight = settings::weight(key, it, by, applied, &frontends);
        endpoint(key, it, &selection, &uses, place, &weight)
    };
    let mut all: Vec<_> = endpoints.iter().map(of).collect();
    all.extend(left_out::endpoints(service, port, family, known));
    name_pods(&mut all, known.cluster.slices(&service.key));
    let mut notes: Vec<String> = fallbacks(&endpoints, &selection).into_iter().collect();
    notes.extend(left_out::hints(&endpoints, selection.topology, place));
    let node_port = |frontend: &&Frontend| frontend.kind == FrontendKind::NodePort;
    let lacks_node_port = port.node_port != 0 && !frontends.iter().any(node_port);
    FamilyAccount {
        family: family.to_string(),
        node: text::name(&place.node).to_string(),
        no_endpoints: endpoints.is_empty().then(|| lacking(service, port, family, known.cluster)),
        endpoints: all,
        notes,
        no_node_port: lacks_node_port.then(|| {
            format!(
                "node port {}: no {family} address of this node is one that nodePortAddresses allows",
                port.node_port
            )
        }),
        frontends: frontends.iter().map(|it| frontend(service, it, &selection, known)).collect(),
        inside: inside.first().map(|it| frontend(service, it, &selection, known)),
    }
}

/// Says of each endpoint which pod it is, where any slice does.
fn name_pods<'a>(
    endpoints: &mut [EndpointAccount],
    slices: impl Iterator<Item = &'a EndpointSlice>,
) {
    let named = slices.flat_map(|slice| slice.endpoints.iter().zip(slice.pods.names()));
    let pods: BTreeMap<IpAddr, String> =
        named.filter_map(|(it, pod)| Some((it.address, pod?))).collect();
    for endpoint in endpoints {
        endpoint.pod = pods.get(&endpoint.ip).map(|pod| text::name(pod).to_string());
    }
}

fn real_servers(frontend: &Frontend) -> Vec<String> {
    frontend.server.real_servers.iter().map(|real| real.key.to_string()).collect()
}

/// One frontend: whose it is, which endpoints it leads to and why these.
fn frontend(
    service: &Service,
    frontend: &Frontend,
    selection: &Selection,
    known: Known<'_>,
) -> FrontendAccount {
    let config = &frontend.server.config;
    let mut words = vec![config.scheduler.to_string()];
    words.extend(scheduler_flags(config).into_iter().map(str::to_owned));
    words.extend(config.flags.contains(Flags::ONE_PACKET).then(|| "one-packet".to_owned()));
    let conflict = known.desired.conflict(&frontend.key);
    let taken_by = conflict.map(|it| it.winner).filter(|winner| *winner != service.key);
    let mut account = FrontendAccount {
        kind: frontend.kind.to_string(),
        virtual_server: frontend.key,
        scheduler: words.join(" "),
        taken_by: taken_by.map(|winner| winner.to_string()),
        real_servers: Vec::new(),
        notes: Vec::new(),
    };
    if account.taken_by.is_none() {
        account.real_servers = real_servers(frontend);
        account.notes = notes(service, frontend, selection, known.settings);
    }
    account
}

fn notes(
    service: &Service,
    frontend: &Frontend,
    selection: &Selection,
    settings: &Settings,
) -> Vec<String> {
    let mut notes = Vec::new();
    let local = match frontend.kind {
        FrontendKind::ClusterIp => service.internal_local,
        FrontendKind::Inside => false,
        _ => service.external_local,
    };
    let none_here = selection.local.as_ref().is_none_or(Vec::is_empty);
    if local && none_here && frontend.kind == FrontendKind::ClusterIp {
        notes.push("internalTrafficPolicy Local, and no endpoint on this node".to_owned());
    } else if settings.refuses_outside(frontend.key.family())
        && frontend.members.iter().any(|(set, _)| set.role == SetRole::LocalClosed)
    {
        notes.push(
            "externalTrafficPolicy Local, and no endpoint on this node: clients outside the cluster are \
             refused; pods and this node reach remote endpoints"
                .to_owned(),
        );
    } else if local && none_here {
        notes.push(
            "externalTrafficPolicy Local, and no endpoint on this node: remote ones serve pods and this \
             node; load balancers are told by the health check node port to go elsewhere"
                .to_owned(),
        );
    }
    let ranges: Vec<String> =
        service.source_ranges.of(frontend.key.family()).map(|net| net.to_string()).collect();
    if frontend.kind == FrontendKind::LoadBalancer && !ranges.is_empty() {
        let node = if frontend.drop_from_node { "not " } else { "" };
        notes.push(format!(
            "only for sources in {}; this node itself is {node}among them",
            ranges.join(", ")
        ));
    }
    if frontend.kind.is_written() && !frontend.bind {
        notes.push(
            "the address is on another interface of this node, so it is not bound".to_owned(),
        );
    }
    notes
}
