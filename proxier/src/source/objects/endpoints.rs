//! v1 Endpoints, as the EndpointSlices that the control plane would mirror them to.

use netlink_ipvs::Family;

use super::slice::triggered;
use super::{Converted, Converter, Lenient, Report, raw, usable_address};
use crate::cluster::{
    Change, Conditions, Endpoint, EndpointSlice, Hints, ObjectKey, Pods, SlicePort, Use,
};

impl Converter {
    /// Endpoints as one slice for each subset and address family. Their names contain characters
    /// that no object's name has, so that they never collide with slices of the cluster.
    pub(crate) fn legacy_endpoints(&self, raw: raw::Endpoints) -> Converted {
        let metadata = raw.metadata.get();
        let key = match self.key("Endpoints", metadata.unwrap_or(&raw::Metadata::default())) {
            Ok(key) => key,
            Err(warning) => return warning.into(),
        };
        let mut report = Report::new("Endpoints", &key);
        let metadata = raw.metadata.or_default("metadata", &mut report);
        let labels = metadata.labels.or_default("metadata.labels", &mut report);
        let triggered = triggered(metadata.annotations, &mut report);
        let mut changes = Vec::new();
        if labels.headless == Lenient::Absent {
            let subsets = raw.subsets.or_default("subsets", &mut report);
            for (n, subset) in subsets.into_iter().enumerate() {
                let Some(subset) = subset.take(format_args!("subsets[{n}]"), &mut report) else {
                    continue;
                };
                for slice in self.subset(&key, n, subset, &mut report) {
                    changes.push(Change::Slice(EndpointSlice { triggered, ..slice }));
                }
            }
        }
        Converted { changes, warnings: report.into_warnings() }
    }

    fn subset(
        &self,
        key: &ObjectKey,
        n: usize,
        raw: raw::Subset,
        report: &mut Report<'_>,
    ) -> Vec<EndpointSlice> {
        let ports = raw.ports.or_default(format_args!("subsets[{n}].ports"), report);
        let ports = self.slice_ports(ports, &format!("subsets[{n}].ports"), report);
        let not_ready = Conditions { ready: false, serving: false, terminating: false };
        let mut endpoints = Vec::new();
        for (list, name, conditions) in [
            (raw.addresses, "addresses", Conditions::default()),
            (raw.not_ready_addresses, "notReadyAddresses", not_ready),
        ] {
            let list = list.or_default(format_args!("subsets[{n}].{name}"), report);
            for (m, address) in list.into_iter().enumerate() {
                let field = format_args!("subsets[{n}].{name}[{m}]");
                let Some(raw) = address.take(field, report) else { continue };
                let text = raw.ip.or_default(format_args!("{field}.ip"), report);
                let Some(address) = usable_address(&text, Use::Backend, &field, report) else {
                    continue;
                };
                let node = raw.node_name.take(format_args!("{field}.nodeName"), report);
                let location = self.location(node, None, Hints::default());
                endpoints.push(Endpoint { address, conditions, location });
            }
        }
        by_family(key, n, &ports, endpoints)
    }
}

/// One slice for each family that has endpoints.
fn by_family(
    key: &ObjectKey,
    n: usize,
    ports: &[SlicePort],
    endpoints: Vec<Endpoint>,
) -> Vec<EndpointSlice> {
    let (v4, v6): (Vec<_>, Vec<_>) =
        endpoints.into_iter().partition(|endpoint| endpoint.address.is_ipv4());
    [(Family::Ipv4, v4), (Family::Ipv6, v6)]
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .map(|(family, endpoints)| EndpointSlice {
            key: ObjectKey::new(
                key.namespace(),
                format!("{} (Endpoints, subset {n}, {family})", key.name()),
            ),
            service: key.clone(),
            family,
            ports: ports.into(),
            endpoints: endpoints.into(),
            pods: Pods::default(),
            triggered: None,
        })
        .collect()
}
