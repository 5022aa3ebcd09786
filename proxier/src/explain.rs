//! Why a service looks as it does on this node, in words. Pure.

mod endpoints;
mod left_out;
mod settings;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use netlink_ipvs::{Family, Flags, Protocol, VirtualServerKey};

use self::endpoints::{Uses, fallbacks, lacking, verdict};
use crate::cluster::topology::{Needs, Selection, merge, select};
use crate::cluster::{Cluster, ObjectKey, Service, ServicePort};
use crate::dataplane::{Desired, Frontend, FrontendKind, Settings};
use crate::render::scheduler_flags;
use crate::text;

/// Real servers and skipped addresses that are named; more are counted.
const NAMED: usize = 50;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A Service, or one port of it by name or number.
    Service(ObjectKey, Option<String>),
    /// An address and port, of one protocol or of all.
    Address(SocketAddr, Option<Protocol>),
    /// An address with whatever ports it has.
    Ip(IpAddr),
}

/// The text names neither a service nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither namespace/name, namespace/name:port nor an address, ADDRESS:PORT or \
     ADDRESS:PORT/protocol (10.96.0.10, 10.96.0.10:53/udp, [fd00::10]:80)"
)]
pub struct ParseSubjectError(String);

impl std::str::FromStr for Subject {
    type Err = ParseSubjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSubjectError(text.to_owned());
        let (place, protocol) = match text.rsplit_once('/') {
            Some((place, "tcp")) => (place, Some(Protocol::Tcp)),
            Some((place, "udp")) => (place, Some(Protocol::Udp)),
            Some((place, "sctp")) => (place, Some(Protocol::Sctp)),
            _ => (text, None),
        };
        if let Ok(address) = place.parse() {
            return Ok(Self::Address(address, protocol));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let (name, port) = match name.split_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (name, None),
        };
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(wrong());
        }
        Ok(Self::Service(ObjectKey::new(namespace, name), port))
    }
}

/// What an explanation draws on.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What Kubernetes says.
    pub cluster: &'a Cluster,
    /// What all services ask for.
    pub desired: &'a Desired,
    /// What is the same for all of them.
    pub settings: &'a Settings,
}

/// The explanation, several lines; an error is one line that says that there is nothing to explain
/// and why.
pub fn explain(subject: &Subject, known: Known<'_>) -> Result<String, String> {
    match subject {
        Subject::Service(key, port) => service(key, port.as_deref(), known),
        Subject::Address(address, protocol) => at(*address, *protocol, known),
        Subject::Ip(address) => at_any_port(*address, known),
    }
}

/// The addresses that it is about.
pub fn addresses(subject: &Subject, desired: &Desired) -> BTreeSet<IpAddr> {
    match subject {
        Subject::Address(address, _) => [address.ip()].into(),
        Subject::Ip(address) => [*address].into(),
        Subject::Service(key, _) => {
            let frontends = desired.contribution(key).map(|asked| &*asked.frontends);
            let address = |frontend: &Frontend| match frontend.key {
                VirtualServerKey::Address { address, .. } => Some(address),
                VirtualServerKey::FirewallMark { .. } => None,
            };
            frontends.unwrap_or_default().iter().filter_map(address).collect()
        }
    }
}

/// Every port that services have at an address; more of the service if it is only one.
fn at_any_port(address: IpAddr, known: Known<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut services = BTreeSet::new();
    for key in known.desired.of_address(address) {
        if let Some((owner, frontend)) = known.desired.owner(key) {
            let _ = writeln!(out, "{key} belongs to {owner} ({})", frontend.kind);
            services.insert(owner.clone());
        }
    }
    match (services.pop_first(), services.is_empty()) {
        (None, _) => return Err(format!("no service has the address {address}")),
        (Some(only), true) => {
            out.push('\n');
            out.push_str(&service(&only, None, known)?);
        }
        (Some(_), false) => {}
    }
    Ok(out)
}

fn at(address: SocketAddr, protocol: Option<Protocol>, known: Known<'_>) -> Result<String, String> {
    let protocols = match protocol {
        Some(protocol) => vec![protocol],
        None => vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp],
    };
    let mut out = String::new();
    let mut services = BTreeSet::new();
    for protocol in protocols {
        let key = VirtualServerKey::new(address.ip(), address.port(), protocol);
        if let Some((owner, frontend)) = known.desired.owner(&key) {
            let _ = writeln!(out, "{key} belongs to {owner} ({})", frontend.kind);
            services.insert((owner.clone(), frontend.port.to_string()));
        }
    }
    if services.is_empty() {
        let bound = known.desired.state().interface.addresses.contains(&address.ip());
        return Err(if bound {
            format!(
                "no service has port {} of {}; the address belongs to a service, so new connections \
                 to other ports of it are refused",
                address.port(),
                address.ip()
            )
        } else {
            format!("no service has the address {}", address.ip())
        });
    }
    for (owner, port) in services {
        out.push('\n');
        out.push_str(&service(&owner, Some(port.as_str()).filter(|p| !p.is_empty()), known)?);
    }
    Ok(out)
}

fn service(key: &ObjectKey, port: Option<&str>, known: Known<'_>) -> Result<String, String> {
    let Some(service) = known.cluster.service(key) else {
        return Err(match known.cluster.ignored(key) {
            Some(reason) => format!("Service {key} is not proxied: {reason}"),
            None => format!(
                "there is no Service {key}, or its label service.kubernetes.io/service-proxy-name \
                 gives it to another proxy, or it is headless"
            ),
        });
    };
    let ports: Vec<&ServicePort> = service
        .ports
        .iter()
        .filter(|p| port.is_none_or(|want| *p.name == *want || p.port.to_string() == want))
        .collect();
    if ports.is_empty() {
        let port = text::name(port.unwrap_or("at all"));
        return Err(format!("Service {key} has no port {port}"));
    }
    let mut out = String::new();
    let _ = writeln!(out, "Service {key}{}", policies(service));
    settings::of_service(&mut out, known.desired.contribution(key).map(|asked| &**asked));
    for port in ports {
        let name = if port.name.is_empty() {
            String::new()
        } else {
            format!(" {}", text::name(&port.name))
        };
        let _ = writeln!(out, "\nport{name} {}/{}", port.port, port.protocol);
        for family in &known.settings.families {
            if service.has_family(*family) {
                part(&mut out, service, port, *family, known);
            }
        }
    }
    if let Some(contribution) = known.desired.contribution(key) {
        for skipped in contribution.skipped.iter().take(NAMED) {
            let _ = writeln!(out, "\n{} is not programmed: {}", skipped.what(), skipped.reason);
        }
        if contribution.skipped.len() > NAMED {
            let more = contribution.skipped.len() - NAMED;
            let _ = writeln!(out, "\nand {more} more addresses are not programmed");
        }
        if let Some(health) = &contribution.health {
            let counts = health.local_endpoints.iter();
            let counts: Vec<String> =
                counts.map(|(family, count)| format!("{count} ({family})")).collect();
            let _ = writeln!(
                out,
                "\nhealth check node port {}: local ready endpoints {}",
                health.port,
                counts.join(", ")
            );
        }
    }
    Ok(out)
}

fn policies(service: &Service) -> String {
    let mut out = String::new();
    if service.internal_local {
        out.push_str(", internalTrafficPolicy Local");
    }
    if service.external_local {
        out.push_str(", externalTrafficPolicy Local");
    }
    if let Some(seconds) = service.affinity {
        let _ = write!(out, ", clients stick for {seconds} s");
    }
    out
}

/// One port in one family: its endpoints, then its frontends.
fn part(out: &mut String, service: &Service, port: &ServicePort, family: Family, known: Known<'_>) {
    let place = &known.settings.place;
    let endpoints = merge(known.cluster.slices(&service.key), port, family);
    let frontends: Vec<&Frontend> = known
        .desired
        .contribution(&service.key)
        .into_iter()
        .flat_map(|contribution| &contribution.frontends)
        .filter(|frontend| frontend.port == port.name && frontend.key.family() == family)
        .filter(|frontend| match frontend.key {
            VirtualServerKey::Address { protocol, .. } => protocol == port.protocol,
            VirtualServerKey::FirewallMark { .. } => false,
        })
        .collect();
    let _ = writeln!(out, "  {family} endpoints, seen from node {}:", text::name(&place.node));
    if endpoints.is_empty() {
        let _ = writeln!(out, "    none: {}", lacking(service, port, family, known.cluster));
    }
    let needs = Needs { cluster: true, local: service.internal_local || service.external_local };
    let selection = select(&endpoints, needs, place);
    let asked = known.desired.contribution(&service.key);
    let applied = asked.and_then(|asked| asked.applied.as_deref());
    let has = |frontend: &&&Frontend| {
        known.desired.owner(&frontend.key).is_some_and(|(owner, _)| *owner == service.key)
    };
    let uses = Uses::new(&selection, frontends.iter().filter(has).copied());
    for (key, endpoint) in &endpoints {
        let node = text::name(endpoint.location.node.as_deref().unwrap_or("no node"));
        let verdict = verdict(key, endpoint, &selection, &uses, place);
        let weight = settings::weight(key, endpoint, service, applied, &frontends);
        let _ = writeln!(out, "    {key} on {node}: {verdict}{weight}");
    }
    left_out::slices(out, service, port, family, known.cluster);
    fallbacks(out, &endpoints, &selection);
    left_out::hints(out, &endpoints, selection.topology, place);
    let node_port = |frontend: &&Frontend| frontend.kind == FrontendKind::NodePort;
    if port.node_port != 0 && !frontends.iter().any(node_port) {
        let _ = writeln!(
            out,
            "  node port {}: no {family} address of this node is one that nodePortAddresses allows",
            port.node_port
        );
    }
    for frontend in frontends {
        describe(out, service, frontend, &selection, known);
    }
}

/// One frontend: whose it is, which endpoints it leads to and why these.
fn describe(
    out: &mut String,
    service: &Service,
    frontend: &Frontend,
    selection: &Selection,
    known: Known<'_>,
) {
    let _ = write!(out, "  {} {}", frontend.kind, frontend.key);
    let config = &frontend.server.config;
    let _ = write!(out, ", {}", config.scheduler);
    for flag in scheduler_flags(config) {
        let _ = write!(out, " {flag}");
    }
    if config.flags.contains(Flags::ONE_PACKET) {
        out.push_str(" one-packet");
    }
    if let Some(conflict) = known.desired.conflict(&frontend.key)
        && conflict.winner != service.key
    {
        let _ = writeln!(
            out,
            ": taken by {} (cluster IPs and node ports before others, then the older, then by name)",
            conflict.winner
        );
        return;
    }
    let servers = &frontend.server.real_servers;
    let first: Vec<String> = servers.iter().take(NAMED).map(|real| real.key.to_string()).collect();
    if servers.is_empty() {
        out.push_str(": no real server, connections are refused\n");
    } else {
        let more = servers.len() - first.len();
        let _ = writeln!(out, ": {}", text::and_more(&first.join(" "), more));
    }
    let local = match frontend.kind {
        FrontendKind::ClusterIp => service.internal_local,
        _ => service.external_local,
    };
    let none_here = selection.local.as_ref().is_none_or(Vec::is_empty);
    if local && none_here && frontend.kind == FrontendKind::ClusterIp {
        out.push_str("    internalTrafficPolicy Local, and no endpoint on this node\n");
    } else if local && none_here {
        out.push_str(
            "    externalTrafficPolicy Local, and no endpoint on this node: remote ones serve pods \
             and this node; load balancers are told by the health check node port to go elsewhere\n",
        );
    }
    let ranges: Vec<String> =
        service.source_ranges.of(frontend.key.family()).map(|net| net.to_string()).collect();
    if frontend.kind == FrontendKind::LoadBalancer && !ranges.is_empty() {
        let node = if frontend.drop_from_node { "not " } else { "" };
        let _ = writeln!(
            out,
            "    only for sources in {}; this node itself is {node}among them",
            ranges.join(", ")
        );
    }
    let bindable = frontend.kind.is_written();
    if bindable && !frontend.bind {
        out.push_str("    the address is on another interface of this node, so it is not bound\n");
    }
}
