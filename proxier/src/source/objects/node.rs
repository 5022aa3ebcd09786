//! v1 Node.

use super::annotations::node_weight;
use super::{Converted, Converter, Lenient, Report, quote, raw};
use crate::cluster::{Change, Node, ObjectKey};
use crate::source::Warning;
use crate::value::{parse_cidr, parse_ip};

/// Taint of a node that the autoscaler is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

impl Converter {
    /// The key of a Node. It has no namespace, whatever a manifest says.
    fn node_key(&self, raw: &raw::Node) -> Result<ObjectKey, Warning> {
        let metadata = raw.metadata.get();
        let name = raw::Metadata {
            name: metadata.map_or(Lenient::Absent, |metadata| metadata.name.clone()),
            ..raw::Metadata::default()
        };
        self.key("Node", &name).map(|key| ObjectKey::new("", key.name()))
    }

    /// The weight that any Node gives its endpoints, as a fact.
    pub(crate) fn node_weight(&self, raw: raw::Node) -> Converted {
        let key = match self.node_key(&raw) {
            Ok(key) => key,
            Err(warning) => return warning.into(),
        };
        let mut report = Report::new("Node", &key);
        let metadata = raw.metadata.or_default("metadata", &mut report);
        let annotations = metadata.annotations.or_default("metadata.annotations", &mut report);
        let weight = node_weight(annotations, &mut report);
        report.finish(Change::NodeWeight(key.clone(), weight))
    }

    /// A Node as a fact. Whether it is this node is for the caller to know.
    pub(crate) fn node(&self, raw: raw::Node) -> Converted {
        let key = match self.node_key(&raw) {
            Ok(key) => key,
            Err(warning) => return warning.into(),
        };
        let mut report = Report::new("Node", &key);
        let metadata = raw.metadata.or_default("metadata", &mut report);
        let spec = raw.spec.or_default("spec", &mut report);
        let status = raw.status.or_default("status", &mut report);
        let labels = metadata.labels.or_default("metadata.labels", &mut report);
        let zone = labels.zone.take("label topology.kubernetes.io/zone", &mut report);
        let annotations = metadata.annotations.or_default("metadata.annotations", &mut report);
        let weight = node_weight(annotations, &mut report);
        let tainted = spec
            .taints
            .or_default("spec.taints", &mut report)
            .iter()
            .filter_map(|taint| taint.get()?.key.get())
            .any(|key| &**key == TO_BE_DELETED);

        let mut cidrs = spec.pod_cidrs.or_default("spec.podCIDRs", &mut report);
        if cidrs.is_empty() {
            cidrs.push(spec.pod_cidr);
        }
        let mut pod_cidrs = Vec::new();
        for cidr in cidrs {
            let text = cidr.or_default("spec.podCIDRs", &mut report);
            match parse_cidr(&text) {
                Some(cidr) => pod_cidrs.push(cidr),
                None if text.is_empty() => {}
                None => report.warn(format_args!(
                    "spec.podCIDRs: {} is not a network; it is ignored",
                    quote(&text)
                )),
            }
        }

        let (mut addresses, mut external) = (Vec::new(), Vec::new());
        for address in status.addresses.or_default("status.addresses", &mut report) {
            let Some(address) = address.take("status.addresses", &mut report) else { continue };
            let list = match address.kind.get().map(|kind| &**kind) {
                Some("InternalIP") => &mut addresses,
                Some("ExternalIP") => &mut external,
                _ => continue,
            };
            let text = address.address.or_default("status.addresses", &mut report);
            match parse_ip(&text) {
                Some(ip) => list.push(ip),
                None => report.warn(format_args!(
                    "status.addresses: {} is not an IP address; it is ignored",
                    quote(&text)
                )),
            }
        }
        addresses.append(&mut external);

        let change = Change::Node(Node {
            name: self.shared(key.name()),
            zone: zone.filter(|zone| !zone.is_empty()).map(|zone| self.shared(&zone)),
            addresses,
            pod_cidrs,
            eligible: !tainted && metadata.deletion_timestamp.get().is_none(),
            weight,
        });
        report.finish(change)
    }
}
