//! Objects of the Kubernetes API as cluster types.
//!
//! Bad parts of an object are left out with a [`Warning`], the rest is used: one bad port does not
//! cost the other ports. The rules are those of kube-proxy and, for manifests that no API server
//! has seen, the defaults and the validation that an API server would apply.

mod annotations;
mod endpoints;
mod intern;
mod lenient;
mod node;
mod parse;
pub(crate) mod raw;
mod service;
mod slice;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use self::intern::Interner;
pub(crate) use self::lenient::{Lenient, Shape, object, quote};
use super::{Change, Warning};
use crate::cluster::{Hints, Location, ObjectKey, Special, Use};
use crate::value::parse_ip;

/// Most names and locations that are shared; a cluster of 5,000 nodes and 10,000 services stays well
/// below.
const SHARED: usize = 1 << 16;
/// Most warnings about one object; the rest is counted.
const WARNINGS: usize = 8;
/// Longest name and namespace that the API server accepts.
const NAME: usize = 253;
const NAMESPACE: usize = 63;

/// Who vouches for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An API server: defaults are applied, cluster IPs and node ports are allocated.
    Api,
    /// A manifest: what an API server would have filled in may be missing.
    Manifest,
}

/// What an object means.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Converted {
    /// The facts to send; none for an object that cannot even be named.
    pub(crate) changes: Vec<Change>,
    /// What was wrong with it.
    pub(crate) warnings: Vec<Warning>,
}

/// Converts objects; clones share their tables of names and locations.
#[derive(Debug, Clone)]
pub(crate) struct Converter {
    origin: Origin,
    names: Arc<Mutex<Interner<str>>>,
    locations: Arc<Mutex<Interner<Location>>>,
}

impl Converter {
    pub(crate) fn new(origin: Origin) -> Self {
        let names = Arc::new(Mutex::new(Interner::new(SHARED)));
        Self { origin, names, locations: Arc::new(Mutex::new(Interner::new(SHARED))) }
    }

    fn shared(&self, name: &str) -> Arc<str> {
        // A panic elsewhere cannot leave the table inconsistent.
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(name)
    }

    /// Where an endpoint is. An empty name is none.
    fn location(
        &self,
        node: Option<Box<str>>,
        zone: Option<Box<str>>,
        hints: Hints,
    ) -> Arc<Location> {
        let name = |name: Option<Box<str>>| {
            name.filter(|name| !name.is_empty()).map(|name| self.shared(&name))
        };
        let location = Location { node: name(node), zone: name(zone), hints };
        self.locations.lock().unwrap_or_else(PoisonError::into_inner).get(location)
    }

    /// The object's key, or a warning that says why it has none.
    pub(crate) fn key(
        &self,
        kind: &'static str,
        metadata: &raw::Metadata,
    ) -> Result<ObjectKey, Warning> {
        let namespace = match metadata.namespace.get() {
            Some(namespace) => namespace,
            None if self.origin == Origin::Manifest => "default",
            None => "",
        };
        let Some(name) = metadata.name.get().filter(|name| !name.is_empty()) else {
            return Err(Warning {
                object: format!("{kind} without a name"),
                text: "ignored: metadata.name is missing or not text; give it one".into(),
            });
        };
        if !is_name(name, NAME) || !is_name(namespace, NAMESPACE) {
            return Err(Warning {
                object: format!("{kind} {}/{}", quote(namespace), quote(name)),
                text: format!(
                    "ignored: metadata.name and metadata.namespace must be lower-case letters, \
                     digits, '-' and '.', at most {NAME} and {NAMESPACE} of them"
                ),
            });
        }
        Ok(self.shared_key(namespace, name))
    }

    fn shared_key(&self, namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::of_text(self.shared(&ObjectKey::text(namespace, name)))
    }

    /// A port's name and protocol. `None`, with a warning, where they cannot be used.
    fn port_protocol(
        &self,
        port: &mut raw::ServicePort,
        field: &dyn fmt::Display,
        report: &mut Report<'_>,
    ) -> Option<(Option<Arc<str>>, netlink_ipvs::Protocol)> {
        let name = std::mem::take(&mut port.name).take(format_args!("{field}.name"), report);
        if let Some(name) = name.as_deref()
            && !is_port_name(name)
        {
            report.warn(format_args!(
                "{field}.name {} is not a port name (lower-case letters, digits and '-', at most \
                 63); the port is ignored",
                quote(name)
            ));
            return None;
        }
        let text =
            std::mem::take(&mut port.protocol).take(format_args!("{field}.protocol"), report);
        let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| "TCP".into());
        let Some(protocol) = parse::protocol(&text) else {
            report.warn(format_args!(
                "{field}.protocol {} is not TCP, UDP or SCTP; the port is ignored",
                quote(&text)
            ));
            return None;
        };
        Some((name.map(|name| self.shared(&name)), protocol))
    }
}

/// Collects the warnings about one object.
pub(crate) struct Report<'a> {
    kind: &'static str,
    key: &'a ObjectKey,
    warnings: Vec<Warning>,
    omitted: usize,
}

impl<'a> Report<'a> {
    fn new(kind: &'static str, key: &'a ObjectKey) -> Self {
        Self { kind, key, warnings: Vec::new(), omitted: 0 }
    }

    fn object(&self) -> String {
        if self.key.namespace().is_empty() {
            format!("{} {}", self.kind, self.key.name())
        } else {
            format!("{} {}", self.kind, self.key)
        }
    }

    pub(crate) fn warn(&mut self, text: impl fmt::Display) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(Warning { object: self.object(), text: text.to_string() });
        } else {
            self.omitted += 1;
        }
    }

    fn finish(self, change: Change) -> Converted {
        Converted { changes: vec![change], warnings: self.into_warnings() }
    }

    fn into_warnings(mut self) -> Vec<Warning> {
        if self.omitted > 0 {
            let object = self.object();
            let text = format!("{} more warnings are not shown", self.omitted);
            self.warnings.push(Warning { object, text });
        }
        self.warnings
    }
}

impl From<Warning> for Converted {
    fn from(warning: Warning) -> Self {
        Self { changes: Vec::new(), warnings: vec![warning] }
    }
}

/// Parses an address and refuses those that would let an object take over the node's own traffic,
/// by the rules of the API server's validation. `None`, with a warning, where it cannot be used.
fn usable_address(
    text: &str,
    role: Use,
    field: &dyn fmt::Display,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    let Some(ip) = parse_ip(text) else {
        report.warn(format_args!("{field}: {} is not an IP address; it is ignored", quote(text)));
        return None;
    };
    if let Some(special) = Special::of(ip, role) {
        let kind = special.kind();
        report.warn(format_args!("{field}: {ip} is a {kind} address; it is ignored"));
        return None;
    }
    Some(ip)
}

fn is_name(text: &str, limit: usize) -> bool {
    text.len() <= limit
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
}

fn is_port_name(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b))
}

/// A port number in `1..=65535`, or why it is none.
fn port_number(raw: Lenient<i64>) -> Result<u16, String> {
    let number = raw.checked()?.ok_or("is missing")?;
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{number} is not in 1-65535"))
}

#[cfg(test)]
mod tests;
