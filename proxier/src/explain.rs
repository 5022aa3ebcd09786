//! Why a service looks as it does on this node. Pure.

mod account;
mod endpoints;
mod left_out;
mod meant;
mod service;
mod settings;
mod subject;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netlink_ipvs::{Protocol, VirtualServerKey};

pub use self::account::{
    EndpointAccount, Explanation, FamilyAccount, Found, FrontendAccount, HealthAccount,
    LocalEndpoints, PortAccount, ServiceAccount, SettingAccount, SkippedAccount,
};
pub use self::meant::namespace;
pub use self::subject::{ParseSubjectError, Subject};
use crate::cluster::topology::merge;
use crate::cluster::{Cluster, ObjectKey, Service, ServicePort};
use crate::dataplane::{Desired, FrontendKind, Settings};
use crate::text as shown;

/// Real servers and skipped addresses that are named to people; more are counted.
const NAMED: usize = 50;

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

/// The explanation.
///
/// # Errors
/// One line that says that there is nothing to explain, and why.
pub fn explain(subject: &Subject, known: Known<'_>) -> Result<Explanation, String> {
    match subject {
        Subject::Service(key, port) => {
            let service = one(key, port.as_slice(), known)?;
            Ok(Explanation { found: Vec::new(), services: vec![service], held_back: Vec::new() })
        }
        Subject::Address(address, protocol) => at(*address, *protocol, known),
        Subject::Ip(address) => at_any_port(*address, known),
        Subject::NodePort(port, protocol) => node_port(*port, *protocol, known),
    }
}

/// Every Service that is proxied, in the order of their names; of one namespace, if one is given.
pub fn services(namespace: Option<&str>, known: Known<'_>) -> Vec<ServiceAccount> {
    let mut services: Vec<&Service> = known
        .cluster
        .services()
        .filter(|service| namespace.is_none_or(|wanted| *service.key.namespace() == *wanted))
        .collect();
    services.sort_unstable_by_key(|service| &service.key);
    services.into_iter().map(|it| service::account(it, &it.ports, known)).collect()
}

/// Every port that Services have at an address, or whose endpoint it is; more of the Service if it is only
/// one.
fn at_any_port(address: IpAddr, known: Known<'_>) -> Result<Explanation, String> {
    let (mut found, mut services) = (BTreeSet::new(), BTreeSet::new());
    for key in known.desired.of_address(address) {
        if let Some((owner, frontend)) = known.desired.owner(key) {
            found.insert(of_frontend(key, owner, frontend.kind));
            services.insert(owner.clone());
        }
    }
    for service in known.cluster.services() {
        let mut endpoints = known.cluster.slices(&service.key).flat_map(|slice| &slice.endpoints);
        if !endpoints.any(|endpoint| endpoint.address == address) {
            continue;
        }
        services.insert(service.key.clone());
        let of = |port| of_endpoint(service, port, |it| it.ip() == address, known);
        let here: Vec<Found> = service.ports.iter().flat_map(of).collect();
        if here.is_empty() {
            found.insert(Found {
                what: address.to_string(),
                service: service.key.to_string(),
                role: "endpoint without a port of the Service".to_owned(),
            });
        }
        found.extend(here);
    }
    let services = match (services.pop_first(), services.is_empty()) {
        (None, _) => {
            return Err(format!("no service has the address {address}, and no endpoint is there"));
        }
        (Some(only), true) => vec![one(&only, &[], known)?],
        (Some(_), false) => Vec::new(),
    };
    Ok(Explanation { found: found.into_iter().collect(), services, held_back: Vec::new() })
}

fn at(
    address: SocketAddr,
    protocol: Option<Protocol>,
    known: Known<'_>,
) -> Result<Explanation, String> {
    let (mut found, mut ports) = (Vec::new(), BTreeSet::new());
    for protocol in protocols(protocol) {
        let key = VirtualServerKey::new(address.ip(), address.port(), protocol);
        if let Some((owner, frontend)) = known.desired.owner(&key) {
            found.push(of_frontend(&key, owner, frontend.kind));
            ports.insert((owner.clone(), frontend.port.to_string()));
        }
    }
    let wanted = |port: &ServicePort| protocol.is_none_or(|protocol| port.protocol == protocol);
    for (service, port) in all_ports(known).filter(|(_, port)| wanted(port)) {
        let here = of_endpoint(service, port, |it| it == address, known);
        if !here.is_empty() {
            found.extend(here);
            ports.insert((service.key.clone(), port.name.to_string()));
        }
    }
    if ports.is_empty() {
        let bound = known.desired.state().interface.addresses.contains(&address.ip());
        return Err(if bound {
            format!(
                "no service has port {} of {}; the address belongs to a service, so new connections \
                 to other ports of it are refused",
                address.port(),
                address.ip()
            )
        } else {
            format!("no service has {address}, and no endpoint is there")
        });
    }
    of_ports(found, ports, known)
}

fn node_port(
    number: u16,
    protocol: Option<Protocol>,
    known: Known<'_>,
) -> Result<Explanation, String> {
    let (mut found, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let wanted = |port: &ServicePort| protocol.is_none_or(|protocol| port.protocol == protocol);
    for (service, port) in all_ports(known).filter(|(_, port)| wanted(port)) {
        if port.node_port == number {
            ports.insert((service.key.clone(), port.name.to_string()));
        }
        if service.health_check_node_port == number {
            found.insert(Found {
                what: number.to_string(),
                service: service.key.to_string(),
                role: "health check node port".to_owned(),
            });
            ports.insert((service.key.clone(), port.name.to_string()));
        }
    }
    for (service, _) in &ports {
        let asked = known.desired.contribution(service);
        for frontend in asked.into_iter().flat_map(|asked| &asked.frontends) {
            let VirtualServerKey::Address { port, protocol: of, .. } = frontend.key else {
                continue;
            };
            let is_wanted = port == number && protocol.is_none_or(|protocol| of == protocol);
            if is_wanted
                && frontend.kind == FrontendKind::NodePort
                && let Some((owner, _)) = known.desired.owner(&frontend.key)
            {
                found.insert(of_frontend(&frontend.key, owner, frontend.kind));
            }
        }
    }
    if ports.is_empty() {
        return Err(format!("no service has the node port {number}"));
    }
    of_ports(found.into_iter().collect(), ports, known)
}

fn protocols(asked: Option<Protocol>) -> Vec<Protocol> {
    asked.map_or(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp], |one| vec![one])
}

fn all_ports(known: Known<'_>) -> impl Iterator<Item = (&Service, &ServicePort)> {
    known.cluster.services().flat_map(|service| service.ports.iter().map(move |it| (service, it)))
}

fn of_frontend(key: &VirtualServerKey, owner: &ObjectKey, kind: FrontendKind) -> Found {
    Found { what: key.to_string(), service: owner.to_string(), role: kind.to_string() }
}

/// Endpoints of a port that are where `is_wanted` says.
fn of_endpoint(
    service: &Service,
    port: &ServicePort,
    is_wanted: impl Fn(SocketAddr) -> bool,
    known: Known<'_>,
) -> Vec<Found> {
    let mut found = Vec::new();
    for family in known.settings.families.iter().filter(|family| service.has_family(**family)) {
        let endpoints = merge(known.cluster.slices(&service.key), port, *family);
        let here = endpoints.keys().filter(|key| is_wanted(SocketAddr::new(key.address, key.port)));
        found.extend(here.map(|key| Found {
            what: format!("{key}/{}", port.protocol),
            service: service.key.to_string(),
            role: "endpoint".to_owned(),
        }));
    }
    found
}

/// Each of these ports of Services in full.
fn of_ports(
    found: Vec<Found>,
    ports: BTreeSet<(ObjectKey, String)>,
    known: Known<'_>,
) -> Result<Explanation, String> {
    let mut services: BTreeMap<ObjectKey, Vec<String>> = BTreeMap::new();
    for (owner, port) in ports {
        services.entry(owner).or_default().push(port);
    }
    let services = services.iter().map(|(owner, ports)| one(owner, ports, known));
    Ok(Explanation { found, services: services.collect::<Result<_, _>>()?, held_back: Vec::new() })
}

/// A Service with those of its ports that have one of these names or numbers, or with all if none is given.
fn one(key: &ObjectKey, ports: &[String], known: Known<'_>) -> Result<ServiceAccount, String> {
    let Some(service) = known.cluster.service(key) else {
        return Err(match known.cluster.ignored(key) {
            Some(reason) => format!("Service {key} is not proxied: {reason}"),
            None => format!(
                "there is no Service {key}{}, or its label service.kubernetes.io/service-proxy-name \
                 gives it to another proxy, or it is headless",
                meant::service(key, known.cluster)
            ),
        });
    };
    let named = |it: &&ServicePort| {
        let mut wanted = ports.iter();
        ports.is_empty() || wanted.any(|want| *it.name == **want || it.port.to_string() == *want)
    };
    let found: Vec<&ServicePort> = service.ports.iter().filter(named).collect();
    if found.is_empty() {
        let all = service.ports.iter().map(|it| match &*it.name {
            "" => it.port.to_string(),
            name => format!("{} ({})", shown::name(name), it.port),
        });
        return Err(format!(
            "Service {key} has no port {}; it has {}",
            shown::name(ports.first().map_or("at all", String::as_str)),
            Some(shown::few(all, NAMED)).filter(|all| !all.is_empty()).unwrap_or("none".to_owned())
        ));
    }
    Ok(service::account(service, found, known))
}
