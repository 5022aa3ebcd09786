//! discovery.k8s.io/v1 EndpointSlice.

use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::Family;

use super::{
    Converted, Converter, Lenient, Origin, Report, parse, port_number, quote, raw, usable_address,
};
use crate::cluster::{
    Change, Conditions, Endpoint, EndpointSlice, Hints, ObjectKey, Pods, SlicePort, Use,
};

impl Converter {
    /// An EndpointSlice as a fact. One that cannot be used is as good as gone.
    pub(crate) fn slice(&self, raw: raw::EndpointSlice) -> Converted {
        let metadata = raw.metadata.get();
        let key = match self.key("EndpointSlice", metadata.unwrap_or(&raw::Metadata::default())) {
            Ok(key) => key,
            Err(warning) => return warning.into(),
        };
        let mut report = Report::new("EndpointSlice", &key);
        let change = match self.convert_slice(&key, raw, &mut report) {
            Some(slice) => Change::Slice(slice),
            None => Change::SliceGone(key.clone()),
        };
        report.finish(change)
    }

    fn convert_slice(
        &self,
        key: &ObjectKey,
        raw: raw::EndpointSlice,
        report: &mut Report<'_>,
    ) -> Option<EndpointSlice> {
        let metadata = raw.metadata.or_default("metadata", report);
        let labels = metadata.labels.or_default("metadata.labels", report);
        if labels.headless != Lenient::Absent {
            return None;
        }
        let service = labels.service_name.or_default("metadata.labels", report);
        if service.is_empty() {
            report.warn(
                "ignored: label kubernetes.io/service-name is missing, so that no Service uses it",
            );
            return None;
        }
        let family = match raw.address_type.or_default("addressType", report).as_ref() {
            "IPv4" => Family::Ipv4,
            "IPv6" => Family::Ipv6,
            other => {
                report.warn(format_args!(
                    "ignored: addressType {} has no addresses to balance; IPv4 and IPv6 have",
                    quote(other)
                ));
                return None;
            }
        };
        let ports = raw.ports.or_default("ports", report);
        let endpoints = raw.endpoints.or_default("endpoints", report);
        let (endpoints, pods) = self.endpoints(endpoints, family, report);
        Some(EndpointSlice {
            key: key.clone(),
            service: self.shared_key(key.namespace(), &service),
            family,
            ports: self.slice_ports(ports, "ports", report).into(),
            endpoints: endpoints.into(),
            pods,
            triggered: triggered(metadata.annotations, report),
        })
    }

    pub(super) fn slice_ports(
        &self,
        raw: Vec<Lenient<raw::ServicePort>>,
        list: &str,
        report: &mut Report<'_>,
    ) -> Vec<SlicePort> {
        let mut seen = std::collections::HashSet::new();
        let mut ports = Vec::with_capacity(raw.len().min(64));
        for (n, raw) in raw.into_iter().enumerate() {
            let field = format_args!("{list}[{n}]");
            let Some(mut raw) = raw.take(field, report) else { continue };
            let Some((name, protocol)) = self.port_protocol(&mut raw, &field, report) else {
                continue;
            };
            // An API server fills in the empty name; without it, it has sent something odd.
            if name.is_none() && self.origin == Origin::Api {
                report.warn(format_args!("{field} has no name; it is ignored"));
                continue;
            }
            let port = port_number(raw.port).unwrap_or_else(|why| {
                report.warn(format_args!(
                    "{field}.port {why}; the port is ignored (IPVS has none that stands for all)"
                ));
                0
            });
            let port = SlicePort { name: name.unwrap_or_else(|| self.shared("")), protocol, port };
            if seen.insert((Arc::clone(&port.name), protocol, port.port)) {
                ports.push(port);
            }
        }
        ports
    }

    fn endpoints(
        &self,
        raw: Vec<Lenient<raw::Endpoint>>,
        family: Family,
        report: &mut Report<'_>,
    ) -> (Vec<Endpoint>, Pods) {
        let mut endpoints = Vec::with_capacity(raw.len());
        let mut pods = Vec::with_capacity(raw.len());
        for (n, raw) in raw.into_iter().enumerate() {
            let field = format_args!("endpoints[{n}]");
            let Some(raw) = raw.take(field, report) else { continue };
            let addresses = raw.addresses.or_default(format_args!("{field}.addresses"), report);
            let Some(text) = addresses.into_iter().next() else {
                report.warn(format_args!("{field} has no address; it is ignored"));
                continue;
            };
            let Some(text) = text.take(format_args!("{field}.addresses[0]"), report) else {
                continue;
            };
            let Some(address) = backend(&text, family, &field, report) else { continue };
            let node = raw.node_name.take(format_args!("{field}.nodeName"), report);
            let zone = raw.zone.take(format_args!("{field}.zone"), report);
            pods.push(pod(raw.target_ref));
            endpoints.push(Endpoint {
                address,
                conditions: conditions(raw.conditions, &field, report),
                location: self.location(node, zone, self.hints(raw.hints, &field, report)),
            });
        }
        let pods = Pods::new(pods.iter().map(Option::as_deref).map(Option::unwrap_or_default));
        (endpoints, pods)
    }

    fn hints(
        &self,
        raw: Lenient<raw::Hints>,
        field: &dyn std::fmt::Display,
        report: &mut Report<'_>,
    ) -> Hints {
        let Some(raw) = raw.take(format_args!("{field}.hints"), report) else {
            return Hints::default();
        };
        let mut names = |list: Lenient<Vec<Lenient<raw::Named>>>, kind: &str| -> Vec<Arc<str>> {
            let field = format_args!("{field}.hints.{kind}");
            let mut names = Vec::new();
            for named in list.or_default(field, report) {
                let name =
                    named.take(field, report).and_then(|named| named.name.take(field, report));
                names.extend(name.map(|name| self.shared(&name)));
            }
            names
        };
        Hints { zones: names(raw.for_zones, "forZones"), nodes: names(raw.for_nodes, "forNodes") }
    }
}

/// The name of the pod that an endpoint is. It is only shown, so nothing is said of one that makes no sense.
fn pod(raw: Lenient<raw::TargetRef>) -> Option<Box<str>> {
    match raw {
        Lenient::Is(raw::TargetRef { kind: Lenient::Is(kind), name: Lenient::Is(name) })
            if &*kind == "Pod" =>
        {
            Some(name)
        }
        _ => None,
    }
}

/// An endpoint's address, which must be of the slice's family.
fn backend(
    text: &str,
    family: Family,
    field: &dyn std::fmt::Display,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let address = usable_address(text, Use::Backend, field, report)?;
    if Family::of(address) != family {
        report.warn(format_args!(
            "{field}: {address} is not an {family} address as addressType says; it is ignored"
        ));
        return None;
    }
    Some(address)
}

/// Absent conditions have the API's defaults.
fn conditions(
    raw: Lenient<raw::Conditions>,
    field: &dyn std::fmt::Display,
    report: &mut Report<'_>,
) -> Conditions {
    let raw = raw.or_default(format_args!("{field}.conditions"), report);
    let default = Conditions::default();
    let mut flag = |raw: Lenient<bool>, name: &str, default: bool| {
        raw.take(format_args!("{field}.conditions.{name}"), report).unwrap_or(default)
    };
    Conditions {
        ready: flag(raw.ready, "ready", default.ready),
        serving: flag(raw.serving, "serving", default.serving),
        terminating: flag(raw.terminating, "terminating", default.terminating),
    }
}

/// When the change that led to this object happened; used by a metric only.
pub(super) fn triggered(raw: Lenient<raw::Annotations>, report: &mut Report<'_>) -> Option<i64> {
    let annotations: raw::Annotations = raw.or_default("metadata.annotations", report);
    parse::timestamp(annotations.triggered.get()?)
}
