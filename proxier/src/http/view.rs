//! What the status page and its JSON show: one page of services with their counters, and how the
//! whole is doing. Whatever the cluster has, an answer is bounded.

mod listing;
mod load;
mod opened;
mod service;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use netlink_ipvs::VirtualServerKey;
use serde::Serialize;
use tokio::time::Instant;

use super::Watch;
use super::attention::{Attention, State};
use super::counters::{Table, Totals};
use super::health::Monitor;
use super::query::Query;
use super::time::rfc3339;
use crate::reconcile::Status;
use crate::text;
pub(super) use listing::Listing;
pub(super) use load::LoadView;
pub(super) use opened::Opened;
pub(super) use service::{FrontendView, ServiceView};

/// Services on one page.
const SERVICES: usize = 50;
/// Virtual servers that are shown of one service, and real servers of one virtual server.
const FRONTENDS: usize = 20;
const REAL_SERVERS: usize = 50;
/// Real servers that are shown on one page.
const ROWS: usize = 1000;
/// Endpoints that are shown of a service in full.
const OPENED: usize = 200;
/// Addresses of the node.
const ADDRESSES: usize = 8;
/// Conflicts, draining real servers and what is held back.
const OTHERS: usize = 50;

/// The whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) node: String,
    /// Its addresses, as its Node object has them, or the host itself.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) version: &'static str,
    /// The release of the running kernel.
    pub(super) kernel: String,
    /// By what the rules are kept, once that is settled.
    pub(super) backend: Option<String>,
    pub(super) time: String,
    pub(super) up_seconds: u64,
    pub(super) state: State,
    /// What is to be looked at although the kernel is as wanted.
    pub(super) attention: Vec<Attention>,
    /// Everything has been read from the cluster once.
    pub(super) complete: bool,
    /// The kernel is as wanted.
    pub(super) synced: bool,
    pub(super) healthy: bool,
    pub(super) failing_targets: usize,
    pub(super) failing_seconds: Option<u64>,
    pub(super) services: usize,
    pub(super) virtual_servers: usize,
    pub(super) real_servers: usize,
    /// Endpoints that have not reached their weight yet.
    pub(super) slow_starts: usize,
    /// How far the hand-over of this node to another proxy is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hand_over: Option<String>,
    pub(super) watches: Vec<WatchView>,
    /// The last ones, newest first.
    pub(super) errors: Vec<String>,
    /// What is not programmed, since something that it needs has failed.
    pub(super) held_back: Part<HeldView>,
    pub(super) conflicts: Part<ConflictView>,
    pub(super) draining: Part<DrainView>,
    pub(super) listing: Listing,
}

/// The first of them.
#[derive(Debug, Serialize)]
pub(super) struct Part<T> {
    pub(super) total: usize,
    pub(super) first: Vec<T>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WatchView {
    pub(super) resource: &'static str,
    pub(super) connected: bool,
    pub(super) silent_seconds: Option<u64>,
    pub(super) failures: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeldView {
    pub(super) target: String,
    pub(super) waits_for: String,
    /// The address of a service that it is about.
    pub(super) address: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConflictView {
    pub(super) virtual_server: String,
    pub(super) winner: String,
    pub(super) losers: Vec<String>,
    /// Beyond those that are named.
    pub(super) more_losers: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DrainView {
    pub(super) virtual_server: String,
    pub(super) real_server: String,
    pub(super) connections: u64,
    pub(super) seconds_left: u64,
}

// === impl View ===

impl View {
    /// Takes its time: it looks at every service, and reads counters from the kernel.
    pub(super) fn new(
        monitor: &Monitor,
        watches: &[Watch],
        (table, totals): (Option<&Table>, Option<&Totals>),
        query: Query,
    ) -> Self {
        let (status, current) = (monitor.status(), monitor.current());
        let listing = Listing::new(&status, table, totals, query);
        let now = Instant::now();
        let watch = |watch: &Watch| WatchView {
            resource: watch.resource,
            connected: watch.connected,
            silent_seconds: watch.silence.map(|silence| silence.as_secs()),
            failures: watch.failures,
        };
        let conflict =
            |(key, conflict): (&VirtualServerKey, &crate::dataplane::Conflict)| ConflictView {
                virtual_server: key.to_string(),
                winner: conflict.winner.to_string(),
                losers: conflict.losers.iter().map(ToString::to_string).collect(),
                more_losers: conflict.more,
            };
        let held = status.held_back.iter().take(OTHERS).map(|held| HeldView {
            target: held.target.to_string(),
            waits_for: held.waits_for.to_string(),
            address: held.target.address(),
        });
        let held = held.collect();
        let drain = |drain: &crate::reconcile::Draining| DrainView {
            virtual_server: drain.virtual_server.to_string(),
            real_server: drain.real_server.to_string(),
            connections: drain.connections,
            seconds_left: drain.deadline.saturating_duration_since(now).as_secs(),
        };
        let healthy = monitor.verdict(&status).healthy();
        let attention = Attention::of(&status, &current, watches, monitor.deaf().as_ref());
        let errors = status.observe_error.iter().chain(status.errors.iter().rev());
        let up = monitor.started().elapsed().unwrap_or(Duration::ZERO);
        Self {
            node: text::name(&current.config.node_name).to_string(),
            addresses: addresses(&status),
            kernel: kernel(),
            backend: status.settings_in_force.as_ref().map(|settings| settings.backend.to_string()),
            version: env!("CARGO_PKG_VERSION"),
            time: rfc3339(SystemTime::now()),
            up_seconds: up.as_secs(),
            state: State::of(&status, healthy, &attention),
            attention,
            complete: status.complete,
            synced: status.synced,
            healthy,
            failing_targets: status.pending,
            failing_seconds: status.failing_since.map(|since| since.elapsed().as_secs()),
            services: status.services,
            virtual_servers: status.virtual_servers,
            real_servers: status.real_servers,
            slow_starts: status.slow_starts,
            hand_over: monitor.hand_over().map(|stage| stage.to_string()),
            watches: watches.iter().map(watch).collect(),
            errors: errors.map(|error| text::line(error).to_string()).collect(),
            held_back: Part { total: status.held, first: held },
            conflicts: Part::of(status.conflicts.iter(), OTHERS, conflict),
            draining: Part::of(status.draining.iter(), OTHERS, drain),
            listing,
        }
    }
}

/// The node's own; of a host without a Node object, those that it has.
fn addresses(status: &Status) -> Vec<IpAddr> {
    let own = [&status.node_addresses, &status.host_addresses];
    let known = own.into_iter().find(|list| !list.is_empty());
    known.into_iter().flat_map(|list| list.iter().copied()).take(ADDRESSES).collect()
}

fn kernel() -> String {
    text::name(rustix::system::uname().release().to_string_lossy()).to_string()
}

impl<T> Part<T> {
    fn of<S>(all: impl ExactSizeIterator<Item = S>, most: usize, view: impl FnMut(S) -> T) -> Self {
        Self { total: all.len(), first: all.take(most).map(view).collect() }
    }

    /// How many there are beyond those that are shown.
    pub(super) fn more(&self) -> usize {
        self.total - self.first.len()
    }
}
