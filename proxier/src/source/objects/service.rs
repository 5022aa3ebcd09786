//! v1 Service.

use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, Protocol};

use super::{
    Converted, Converter, Lenient, Origin, Report, annotations, parse, port_number, quote, raw,
    usable_address,
};
use crate::cluster::{
    Change, NotProxied, ObjectKey, Service, ServicePort, SourceRanges, UNDATED, Use,
};
use crate::value::parse_cidr;

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;
/// Its largest value, one day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

impl Converter {
    /// A Service as the fact that it is proxied, or that it is not and why.
    pub(crate) fn service(&self, raw: raw::Service) -> Converted {
        let metadata = raw.metadata.get();
        let key = match self.key("Service", metadata.unwrap_or(&raw::Metadata::default())) {
            Ok(key) => key,
            Err(warning) => return warning.into(),
        };
        let mut report = Report::new("Service", &key);
        let metadata = raw.metadata.or_default("metadata", &mut report);
        let spec = raw.spec.or_default("spec", &mut report);
        let status = raw.status.or_default("status", &mut report);
        let change = self.convert_service(&key, metadata, spec, status, &mut report);
        report.finish(change)
    }

    fn convert_service(
        &self,
        key: &ObjectKey,
        metadata: raw::Metadata,
        mut spec: raw::ServiceSpec,
        status: raw::ServiceStatus,
        report: &mut Report<'_>,
    ) -> Change {
        let labels = metadata.labels.or_default("metadata.labels", report);
        // The selector asks whether the label exists, not what it says.
        match labels.service_proxy_name {
            Lenient::Absent => {}
            Lenient::Is(name) => {
                return Change::ServiceIgnored(key.clone(), NotProxied::OtherProxy(name.into()));
            }
            Lenient::Wrong(found) => {
                return Change::ServiceIgnored(key.clone(), NotProxied::OtherProxy(found.into()));
            }
        }
        let kind = std::mem::take(&mut spec.kind).take("spec.type", report);
        let kind = match kind.as_deref() {
            None | Some("" | "ClusterIP") => Kind::ClusterIp,
            Some("NodePort") => Kind::NodePort,
            Some("LoadBalancer") => Kind::LoadBalancer,
            Some("ExternalName") => {
                return Change::ServiceIgnored(key.clone(), NotProxied::ExternalName);
            }
            Some(other) => {
                report.warn(format_args!(
                    "spec.type {} is unknown; it is treated as ClusterIP",
                    quote(other)
                ));
                Kind::ClusterIp
            }
        };
        let cluster_ips = match self.cluster_ips(&mut spec, report) {
            Ok(ips) => ips,
            Err(reason) => return Change::ServiceIgnored(key.clone(), reason),
        };

        let external_ips = spec.external_ips.or_default("spec.externalIPs", report);
        let has_external_ips = !external_ips.is_empty();
        let external_ips = frontends(external_ips, "spec.externalIPs", report);
        let external_local = policy(
            spec.external_traffic_policy.take("spec.externalTrafficPolicy", report).as_deref(),
            "spec.externalTrafficPolicy",
            report,
        ) && (kind != Kind::ClusterIp || has_external_ips);
        let internal_local = policy(
            spec.internal_traffic_policy.take("spec.internalTrafficPolicy", report).as_deref(),
            "spec.internalTrafficPolicy",
            report,
        );
        let health_check_node_port = if kind == Kind::LoadBalancer && external_local {
            health_check_port(spec.health_check_node_port, report)
        } else {
            0
        };
        let affinity = affinity(spec.session_affinity, spec.session_affinity_config, report);
        let ports = spec.ports.or_default("spec.ports", report);
        if ports.is_empty() && self.origin == Origin::Manifest {
            report.warn("spec.ports is empty: nothing of it is served");
        }
        let ports = self.service_ports(ports, kind, report);
        let created = metadata
            .creation_timestamp
            .take("metadata.creationTimestamp", report)
            .and_then(|text| parse::timestamp(&text))
            .map_or(UNDATED, |millis| millis.div_euclid(1000));
        let settings =
            annotations::settings(metadata.annotations.or_default("metadata.annotations", report));
        let (load_balancer_ips, source_ranges) =
            load_balancer(status, spec.load_balancer_source_ranges, report);
        // Whoever gives it another address has what they want.
        if cluster_ips.is_none() && external_ips.is_empty() && load_balancer_ips.is_empty() {
            let served = if ports.iter().any(|port| port.node_port != 0) {
                "only its node ports are served"
            } else {
                "nothing of it is served"
            };
            report.warn(format_args!(
                "spec.clusterIP is empty: {served}. An API server would allocate an address; set \
                 spec.clusterIP or spec.externalIPs"
            ));
        }
        Change::Service(Service {
            key: key.clone(),
            created,
            cluster_ips: cluster_ips.unwrap_or_default(),
            ports,
            external_ips,
            load_balancer_ips,
            source_ranges,
            affinity,
            internal_local,
            external_local,
            health_check_node_port,
            settings,
        })
    }

    /// At most one cluster IP of each family; `None` where a manifest names none.
    fn cluster_ips(
        &self,
        spec: &mut raw::ServiceSpec,
        report: &mut Report<'_>,
    ) -> Result<Option<Vec<IpAddr>>, NotProxied> {
        let one = std::mem::take(&mut spec.cluster_ip).or_default("spec.clusterIP", report);
        let many = std::mem::take(&mut spec.cluster_ips).or_default("spec.clusterIPs", report);
        let mut many: Vec<Box<str>> = many
            .into_iter()
            .enumerate()
            .map(|(n, ip)| ip.or_default(format_args!("spec.clusterIPs[{n}]"), report))
            .collect();
        let families = std::mem::take(&mut spec.ip_families).or_default("spec.ipFamilies", report);
        let families: Vec<Option<Family>> =
            families.iter().map(|family| family.get().and_then(|text| ip_family(text))).collect();

        let manifest = self.origin == Origin::Manifest;
        // The API server keeps clusterIP and clusterIPs[0] the same; manifests have either.
        let first = if one.is_empty() && manifest { many.first().cloned() } else { Some(one) };
        match first.as_deref() {
            Some("None") => return Err(NotProxied::Headless),
            None | Some("") if manifest => {
                return Ok(None);
            }
            None | Some("") => return Err(NotProxied::NoClusterIp),
            Some(first) => {
                // Without ipFamilies (before dual-stack) the singular field is all there is.
                if many.is_empty() || (families.is_empty() && !manifest) {
                    many = vec![first.into()];
                }
            }
        }
        let mut ips: Vec<IpAddr> = Vec::new();
        for (n, text) in many.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            let field = format_args!("spec.clusterIPs[{n}]");
            let Some(ip) = usable_address(text, Use::ClusterIp, &field, report) else { continue };
            let stated = families.get(n).copied().flatten();
            if (!families.is_empty() && stated != Some(Family::of(ip)))
                || ips.iter().any(|other| Family::of(*other) == Family::of(ip))
            {
                report.warn(format_args!(
                    "{field}: {ip} does not agree with spec.ipFamilies, one address for each \
                     family; it is ignored"
                ));
                continue;
            }
            ips.push(ip);
        }
        if ips.is_empty() && !manifest { Err(NotProxied::NoClusterIp) } else { Ok(Some(ips)) }
    }

    fn service_ports(
        &self,
        raw: Vec<Lenient<raw::ServicePort>>,
        kind: Kind,
        report: &mut Report<'_>,
    ) -> Vec<ServicePort> {
        let mut seen = SeenPorts::default();
        let mut ports = Vec::with_capacity(raw.len().min(64));
        for (n, raw) in raw.into_iter().enumerate() {
            let field = format_args!("spec.ports[{n}]");
            let Some(raw) = raw.take(field, report) else { continue };
            let Some(mut port) = self.service_port(raw, &field, report) else { continue };
            if !seen.names.insert((Arc::clone(&port.name), port.protocol)) {
                report.warn(format_args!(
                    "{field}: a port before it has the same name and protocol; it is ignored"
                ));
                continue;
            }
            if !seen.numbers.insert((port.port, port.protocol)) {
                report.warn(format_args!(
                    "{field}: a port before it has the same number {} and protocol; it is ignored",
                    port.port
                ));
                continue;
            }
            if port.node_port != 0 && !seen.node_ports.insert((port.node_port, port.protocol)) {
                report.warn(format_args!(
                    "{field}.nodePort: a port before it has {} too; it is served without one",
                    port.node_port
                ));
                port.node_port = 0;
            }
            if port.node_port == 0 && kind == Kind::NodePort && self.origin == Origin::Manifest {
                report.warn(format_args!(
                    "{field}.nodePort is empty: an API server would allocate one; set it to have \
                     one"
                ));
            }
            ports.push(port);
        }
        ports
    }

    fn service_port(
        &self,
        mut raw: raw::ServicePort,
        field: &dyn std::fmt::Display,
        report: &mut Report<'_>,
    ) -> Option<ServicePort> {
        let (name, protocol) = self.port_protocol(&mut raw, field, report)?;
        let port = match port_number(raw.port) {
            Ok(port) => port,
            Err(why) => {
                report.warn(format_args!("{field}.port {why}; the port is ignored"));
                return None;
            }
        };
        let number = raw.node_port.or_default(format_args!("{field}.nodePort"), report);
        let node_port = u16::try_from(number).unwrap_or_else(|_| {
            report.warn(format_args!(
                "{field}.nodePort {number} is not in 1-65535; the port is served without one"
            ));
            0
        });
        Some(ServicePort {
            name: name.unwrap_or_else(|| self.shared("")),
            protocol,
            port,
            node_port,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// What the ports so far have taken.
#[derive(Default)]
struct SeenPorts {
    names: std::collections::HashSet<(Arc<str>, Protocol)>,
    numbers: std::collections::HashSet<(u16, Protocol)>,
    node_ports: std::collections::HashSet<(u16, Protocol)>,
}

fn ip_family(text: &str) -> Option<Family> {
    match text {
        "IPv4" => Some(Family::Ipv4),
        "IPv6" => Some(Family::Ipv6),
        _ => None,
    }
}

/// Whether a traffic policy says Local.
fn policy(text: Option<&str>, field: &str, report: &mut Report<'_>) -> bool {
    match text {
        Some("Local") => true,
        None | Some("" | "Cluster") => false,
        Some(other) => {
            report.warn(format_args!("{field} {} is unknown; Cluster is used", quote(other)));
            false
        }
    }
}

fn health_check_port(raw: Lenient<i64>, report: &mut Report<'_>) -> u16 {
    port_number(raw).unwrap_or_else(|why| {
        report.warn(format_args!(
            "spec.healthCheckNodePort {why}: the load balancer cannot ask this node for its \
             health; an API server would allocate one"
        ));
        0
    })
}

fn affinity(
    kind: Lenient<Box<str>>,
    config: Lenient<raw::AffinityConfig>,
    report: &mut Report<'_>,
) -> Option<u32> {
    match kind.take("spec.sessionAffinity", report).as_deref() {
        Some("ClientIP") => {}
        None | Some("" | "None") => return None,
        Some(other) => {
            report.warn(format_args!(
                "spec.sessionAffinity {} is unknown; None is used",
                quote(other)
            ));
            return None;
        }
    }
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let config = config.or_default("spec.sessionAffinityConfig", report);
    let config = config.client_ip.or_default("spec.sessionAffinityConfig.clientIP", report);
    let Some(seconds) = config.timeout_seconds.take(field, report) else {
        return Some(AFFINITY_SECONDS);
    };
    if let Ok(seconds @ 1..=AFFINITY_SECONDS_MAX) = u32::try_from(seconds) {
        return Some(seconds);
    }
    report.warn(format_args!(
        "{field} {seconds} is not in 1-{AFFINITY_SECONDS_MAX}; {AFFINITY_SECONDS} is used"
    ));
    Some(AFFINITY_SECONDS)
}

/// Addresses for virtual servers, in order, each once. Blank ones are not worth a word.
fn frontends(raw: Vec<Lenient<Box<str>>>, field: &str, report: &mut Report<'_>) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (n, raw) in raw.into_iter().enumerate() {
        let field = format_args!("{field}[{n}]");
        let Some(text) = raw.take(field, report).filter(|text| !text.trim().is_empty()) else {
            continue;
        };
        if let Some(ip) = usable_address(&text, Use::Frontend, &field, report)
            && seen.insert(ip)
        {
            ips.push(ip);
        }
    }
    ips
}

/// VIPs, and the networks that may use them.
fn load_balancer(
    status: raw::ServiceStatus,
    ranges: Lenient<Vec<Lenient<Box<str>>>>,
    report: &mut Report<'_>,
) -> (Vec<IpAddr>, SourceRanges) {
    let field = "status.loadBalancer.ingress";
    let status = status.load_balancer.or_default("status.loadBalancer", report);
    let mut vips = Vec::new();
    for (n, ingress) in status.ingress.or_default(field, report).into_iter().enumerate() {
        let Some(ingress) = ingress.take(format_args!("{field}[{n}]"), report) else { continue };
        let mode = ingress.ip_mode.take(format_args!("{field}[{n}].ipMode"), report);
        if mode.is_none_or(|mode| &*mode == "VIP") {
            vips.push(ingress.ip);
        }
    }
    let mut vips = frontends(vips, field, report);

    let field = "spec.loadBalancerSourceRanges";
    let mut usable = Vec::new();
    let mut unusable = false;
    for (n, raw) in ranges.or_default(field, report).into_iter().enumerate() {
        let text = raw.or_default(format_args!("{field}[{n}]"), report);
        match parse_cidr(text.trim()) {
            Some(range) => usable.push(range),
            None if text.trim().is_empty() => {}
            None => {
                unusable = true;
                report.warn(format_args!(
                    "{field}[{n}]: {} is not a network such as 10.0.0.0/8; it is ignored",
                    quote(&text)
                ));
            }
        }
    }
    if unusable && usable.is_empty() && !vips.is_empty() {
        // No ranges means open to everyone: not what a mistyped one was meant to say.
        report.warn(format_args!("{field} has no usable network: the VIPs are not served"));
        vips.clear();
    }
    (vips, SourceRanges::new(usable))
}
