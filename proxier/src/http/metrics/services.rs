//! The kernel's counters of services and endpoints, for those namespaces that are asked for.
//!
//! As text they are many megabytes on a large node, so the text is made while it is sent, and what is
//! kept meanwhile are the numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use netlink_ipvs::{RealServerEntry, RealServerKey, Stats, VirtualServerKey};
use tokio::time::Instant;

use super::text::{Labels, Metric, Text};
use crate::config::ServiceMetrics;
use crate::http::{Counted, Table};
use crate::reconcile::Status;

/// Virtual servers and endpoints of one reading: some 20 MB. Neither a person nor a time series database
/// has use for more.
const MOST: usize = 200_000;
/// In this order they are kept.
pub(super) const SERVICE: [Metric; 5] = [
    Metric::counter(
        "proxier_service_connections_total",
        "Connections that a virtual server has scheduled.",
    ),
    Metric::counter(
        "proxier_service_incoming_packets_total",
        "Packets from clients to a virtual server.",
    ),
    Metric::counter(
        "proxier_service_outgoing_packets_total",
        "Packets from a virtual server to clients.",
    ),
    Metric::counter(
        "proxier_service_incoming_bytes_total",
        "Bytes from clients to a virtual server.",
    ),
    Metric::counter(
        "proxier_service_outgoing_bytes_total",
        "Bytes from a virtual server to clients.",
    ),
];

/// In this order they are kept.
pub(super) const ENDPOINT: [Metric; 8] = [
    Metric::counter(
        "proxier_endpoint_connections_total",
        "Connections that were scheduled to an endpoint.",
    ),
    Metric::counter("proxier_endpoint_incoming_packets_total", "Packets to an endpoint."),
    Metric::counter("proxier_endpoint_outgoing_packets_total", "Packets from an endpoint."),
    Metric::counter("proxier_endpoint_incoming_bytes_total", "Bytes to an endpoint."),
    Metric::counter("proxier_endpoint_outgoing_bytes_total", "Bytes from an endpoint."),
    Metric::gauge("proxier_endpoint_active_connections", "Established connections."),
    Metric::gauge(
        "proxier_endpoint_inactive_connections",
        "Connections that are not established, or no longer.",
    ),
    Metric::gauge("proxier_endpoint_weight", "Weight; 0 takes no new connections."),
];

/// The first so many of [`ENDPOINT`] are counters.
const COUNTERS: usize = 5;

/// The counters at one moment.
#[derive(Debug, Default)]
pub(in crate::http) struct Reading {
    pub(super) failed: bool,
    pub(super) took: Duration,
    /// Virtual servers and endpoints beyond [`MOST`].
    pub(super) left_out: usize,
    servers: Vec<Server>,
    endpoints: Vec<Endpoint>,
    /// The kernel counts nothing: what it says to be 0 is left out.
    uncounted: bool,
}

#[derive(Debug)]
struct Server {
    labels: Labels,
    counts: [u64; 5],
}

#[derive(Debug)]
struct Endpoint {
    /// Index of its server.
    server: usize,
    key: RealServerKey,
    counts: [u64; 8],
}

// === impl Reading ===

impl Reading {
    /// Reads the virtual servers of the services of these namespaces.
    pub(in crate::http) fn new(
        status: &Status,
        namespaces: &ServiceMetrics,
        table: &Table,
    ) -> Self {
        let wanted = wanted(status, namespaces);
        let started = Instant::now();
        let mut reading = Self::default();
        for (key, labels) in wanted {
            // One at a time: all that the kernel says of them would be many times what is kept.
            match table(&[key]) {
                Ok(counted) => reading.take(labels, counted.first()),
                Err(_) => return Self { failed: true, took: started.elapsed(), ..Self::default() },
            }
        }
        reading.took = started.elapsed();
        reading
    }

    fn take(&mut self, labels: Labels, counted: Option<&Counted>) {
        let Some(Counted { server, real_servers, counts: counted }) = counted else { return };
        self.uncounted |= !counted;
        let room = MOST.saturating_sub(self.servers.len() + self.endpoints.len());
        if room == 0 {
            self.left_out += 1 + real_servers.len();
            return;
        }
        self.servers.push(Server { labels, counts: counts(&server.stats) });
        let (server, first) = (self.servers.len() - 1, real_servers.len().min(room - 1));
        let endpoints = real_servers[..first].iter().map(|entry| Endpoint::new(server, entry));
        self.endpoints.extend(endpoints);
        self.left_out += real_servers.len() - first;
    }

    /// Writes a sample of a metric, the first one after what the metric is. Whether there was one.
    pub(super) fn write(&self, out: &mut Text, metric: usize, sample: usize) -> bool {
        if self.uncounted && metric < SERVICE.len() + COUNTERS {
            return false;
        }
        let (metric, labels, value) = if let Some(of_service) = SERVICE.get(metric) {
            let Some(server) = self.servers.get(sample) else { return false };
            (of_service, server.labels.clone(), server.counts[metric])
        } else {
            let metric = metric - SERVICE.len();
            let Some(endpoint) = self.endpoints.get(sample) else { return false };
            let labels = self.servers[endpoint.server].labels.clone();
            (&ENDPOINT[metric], labels.and("endpoint", endpoint.key), endpoint.counts[metric])
        };
        if sample == 0 {
            out.head(metric);
        }
        out.sample(metric, &labels, value);
        true
    }
}

impl Endpoint {
    fn new(server: usize, entry: &RealServerEntry) -> Self {
        let [connections, packets_in, packets_out, bytes_in, bytes_out] = counts(&entry.stats);
        let (active, inactive) = (entry.connections.active, entry.connections.inactive);
        let weight = entry.server.config.weight;
        let (active, inactive, weight) = (active.into(), inactive.into(), weight.into());
        let counts =
            [connections, packets_in, packets_out, bytes_in, bytes_out, active, inactive, weight];
        Self { server, key: entry.server.key, counts }
    }
}

fn counts(stats: &Stats) -> [u64; 5] {
    let Stats { connections, packets_in, packets_out, bytes_in, bytes_out, .. } = *stats;
    [connections, packets_in, packets_out, bytes_in, bytes_out]
}

/// What the counters are read for, with the labels of each.
fn wanted(status: &Status, namespaces: &ServiceMetrics) -> BTreeMap<VirtualServerKey, Labels> {
    let mut wanted = BTreeMap::new();
    let all = status.directory.clone();
    for (service, contribution) in
        all.iter().filter(|(key, _)| namespaces.includes(key.namespace()))
    {
        for frontend in &contribution.frontends {
            // A contested one belongs to the winner.
            let conflict = status.conflicts.get(&frontend.key);
            if conflict.is_none_or(|conflict| conflict.winner == *service) {
                let labels = Labels::one("namespace", service.namespace())
                    .and("service", service.name())
                    .and("port", &frontend.port)
                    .and("frontend", frontend.kind)
                    .and("virtual_server", frontend.key);
                wanted.insert(frontend.key, labels);
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::ObjectKey;
    use crate::http::tests::page;

    /// Connections that are open are known all the same.
    #[test]
    fn what_is_not_counted_has_no_series() {
        let services = [(ObjectKey::new("dev", "web"), page::asks(1, &[5]))];
        let inner = page::table(&[5]);
        let series = |counts: bool| {
            let inner = inner.clone();
            let table: Table = Arc::new(move |keys| {
                let mut counted = inner(keys)?;
                for it in &mut counted {
                    it.counts = counts;
                }
                Ok(counted)
            });
            let status = page::with_services(services.clone());
            let reading = Reading::new(&status, &ServiceMetrics::All, &table);
            let mut out = Text::default();
            for metric in 0..SERVICE.len() + ENDPOINT.len() {
                reading.write(&mut out, metric, 0);
            }
            let text = out.into_string();
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            samples.filter_map(|line| Some(line.split_once('{')?.0.to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(series(true).len(), SERVICE.len() + ENDPOINT.len());
        assert_eq!(
            series(false),
            [
                "proxier_endpoint_active_connections",
                "proxier_endpoint_inactive_connections",
                "proxier_endpoint_weight"
            ]
        );
    }

    #[test]
    fn of_too_many_the_rest_is_left_out_and_counted() {
        let services = [("web", 1), ("api", 2)];
        let services = services.map(|(name, n)| (ObjectKey::new("dev", name), page::asks(n, &[5])));
        let inner = page::table(&[5]);
        let many: Table = Arc::new(move |keys| {
            let mut counted = inner(keys)?;
            counted[0].real_servers = vec![counted[0].real_servers[0]; 150_000];
            Ok(counted)
        });
        let status = page::with_services(services);
        let reading = Reading::new(&status, &ServiceMetrics::All, &many);
        assert_eq!((reading.servers.len(), reading.endpoints.len()), (2, MOST - 2));
        assert_eq!(reading.left_out, 2 * (1 + 150_000) - MOST);
    }
}
