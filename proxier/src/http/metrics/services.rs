//! The kernel's counters of services and endpoints, for those namespaces that are asked for.

use std::collections::BTreeMap;

use netlink_ipvs::{RealServerEntry, Stats, VirtualServerKey};

use super::text::{Labels, Metric, Text};
use crate::config::ServiceMetrics;
use crate::http::Counted;
use crate::reconcile::Status;

type Count = fn(&Stats) -> u64;
type Now = fn(&RealServerEntry) -> u32;

const SERVICE: [(Metric, Count); 5] = [
    (
        Metric::counter(
            "proxier_service_connections_total",
            "Connections that a virtual server has scheduled.",
        ),
        |stats| stats.connections,
    ),
    (
        Metric::counter(
            "proxier_service_incoming_packets_total",
            "Packets from clients to a virtual server.",
        ),
        |stats| stats.packets_in,
    ),
    (
        Metric::counter(
            "proxier_service_outgoing_packets_total",
            "Packets from a virtual server to clients.",
        ),
        |stats| stats.packets_out,
    ),
    (
        Metric::counter(
            "proxier_service_incoming_bytes_total",
            "Bytes from clients to a virtual server.",
        ),
        |stats| stats.bytes_in,
    ),
    (
        Metric::counter(
            "proxier_service_outgoing_bytes_total",
            "Bytes from a virtual server to clients.",
        ),
        |stats| stats.bytes_out,
    ),
];

const ENDPOINT: [(Metric, Count); 5] = [
    (
        Metric::counter(
            "proxier_endpoint_connections_total",
            "Connections that were scheduled to an endpoint.",
        ),
        |stats| stats.connections,
    ),
    (
        Metric::counter("proxier_endpoint_incoming_packets_total", "Packets to an endpoint."),
        |stats| stats.packets_in,
    ),
    (
        Metric::counter("proxier_endpoint_outgoing_packets_total", "Packets from an endpoint."),
        |stats| stats.packets_out,
    ),
    (Metric::counter("proxier_endpoint_incoming_bytes_total", "Bytes to an endpoint."), |stats| {
        stats.bytes_in
    }),
    (
        Metric::counter("proxier_endpoint_outgoing_bytes_total", "Bytes from an endpoint."),
        |stats| stats.bytes_out,
    ),
];

const ENDPOINT_NOW: [(Metric, Now); 3] = [
    (Metric::gauge("proxier_endpoint_active_connections", "Established connections."), |entry| {
        entry.connections.active
    }),
    (
        Metric::gauge(
            "proxier_endpoint_inactive_connections",
            "Connections that are not established, or no longer.",
        ),
        |entry| entry.connections.inactive,
    ),
    (Metric::gauge("proxier_endpoint_weight", "Weight; 0 takes no new connections."), |entry| {
        entry.server.config.weight
    }),
];

/// What the counters are read for, with the labels of each.
#[derive(Debug, Default)]
pub(in crate::http) struct Wanted(BTreeMap<VirtualServerKey, Labels>);

impl Wanted {
    /// The virtual servers of the services of these namespaces.
    pub(in crate::http) fn of(status: &Status, namespaces: &ServiceMetrics) -> Self {
        let found = status.directory.find(|key, _| namespaces.includes(&key.namespace));
        let mut wanted = BTreeMap::new();
        for (service, contribution) in found {
            for frontend in &contribution.frontends {
                // A contested one belongs to the winner.
                let conflict = status.conflicts.get(&frontend.key);
                if conflict.is_none_or(|conflict| conflict.winner == service) {
                    let labels = Labels::one("namespace", &service.namespace)
                        .and("service", &service.name)
                        .and("port", &frontend.port)
                        .and("frontend", frontend.kind)
                        .and("virtual_server", frontend.key);
                    wanted.insert(frontend.key, labels);
                }
            }
        }
        Self(wanted)
    }

    pub(in crate::http) fn keys(&self) -> Vec<VirtualServerKey> {
        self.0.keys().copied().collect()
    }

    pub(in crate::http) fn render(&self, out: &mut Text, counted: &[Counted]) {
        let of_server = |counted: &Counted| self.0.get(&counted.server.server.key).cloned();
        for (metric, count) in &SERVICE {
            let samples = counted
                .iter()
                .filter_map(|counted| Some((of_server(counted)?, count(&counted.server.stats))));
            out.samples(metric, samples);
        }
        let endpoints = || {
            counted.iter().filter_map(|counted| Some((of_server(counted)?, counted))).flat_map(
                |(labels, counted)| {
                    let endpoint = move |entry| (endpoint(&labels, entry), entry);
                    counted.real_servers.iter().map(endpoint)
                },
            )
        };
        for (metric, count) in &ENDPOINT {
            let samples = endpoints().map(|(labels, entry)| (labels, count(&entry.stats)));
            out.samples(metric, samples);
        }
        for (metric, now) in &ENDPOINT_NOW {
            out.samples(metric, endpoints().map(|(labels, entry)| (labels, now(entry))));
        }
    }
}

fn endpoint(labels: &Labels, entry: &RealServerEntry) -> Labels {
    labels.clone().and("endpoint", entry.server.key)
}
