//! What the status page and its JSON show: one page of services with their counters, and how the
//! whole is doing. Whatever the cluster has, an answer is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use netlink_ipvs::{Flags, RealServerConfig, RealServerEntry, VirtualServerKey};
use serde::Serialize;
use tokio::time::Instant;

use super::Watch;
use super::attention::{Attention, State};
use super::counters::{Counted, NOT_COUNTED, Table};
use super::health::Monitor;
use super::query::Query;
use super::time::rfc3339;
use crate::cluster::ObjectKey;
use crate::dataplane::{Contribution, Frontend, InForce, flag_names};
use crate::reconcile::Status;
use crate::text;

/// Services on one page.
const SERVICES: usize = 25;
/// Virtual servers that are shown of one service, and real servers of one virtual server.
const FRONTENDS: usize = 20;
const REAL_SERVERS: usize = 50;
/// Real servers that are shown on one page.
const ROWS: usize = 1000;
/// Conflicts, draining real servers and what is held back.
const OTHERS: usize = 50;

/// The whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) node: String,
    pub(super) version: &'static str,
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

/// The services that were asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    pub(super) search: String,
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) matches: usize,
    /// Why there are no counters.
    pub(super) counters_error: Option<String>,
    pub(super) services: Vec<ServiceView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceView {
    pub(super) namespace: String,
    pub(super) name: String,
    /// What annotations of the Service have set.
    pub(super) settings: Vec<SettingView>,
    /// Its annotations that cannot be used, and why not.
    pub(super) rejected_settings: Vec<String>,
    pub(super) frontends: Part<FrontendView>,
}

/// There are few of one Service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettingView {
    pub(super) setting: &'static str,
    pub(super) value: String,
    pub(super) annotation: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrontendView {
    pub(super) kind: String,
    pub(super) port: String,
    pub(super) virtual_server: String,
    pub(super) scheduler: String,
    pub(super) scheduler_flags: Vec<&'static str>,
    /// Every packet is scheduled by itself.
    pub(super) one_packet: bool,
    pub(super) sticky_seconds: Option<u32>,
    /// The service that has this address and port instead.
    pub(super) taken_by: Option<String>,
    /// Whether the kernel has it; unknown where it cannot be read.
    pub(super) programmed: Option<bool>,
    /// Connections scheduled so far; unknown where they are not counted.
    pub(super) connections: Option<u64>,
    pub(super) real_servers: Part<RealServerView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RealServerView {
    pub(super) address: String,
    pub(super) weight: u32,
    /// Connections above which it gets no new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upper_threshold: Option<u32>,
    pub(super) active: Option<u32>,
    pub(super) inactive: Option<u32>,
    pub(super) connections: Option<u64>,
    /// No service asks for it any more.
    pub(super) draining: bool,
}

/// What the kernel has, each virtual server with the first of its real servers and their number.
type Kernel = BTreeMap<VirtualServerKey, (Counted, usize)>;

/// Reads them one at a time: of one with a hundred thousand real servers few are kept.
fn count(table: &Table, keys: impl Iterator<Item = VirtualServerKey>) -> Result<Kernel, String> {
    let mut kernel = Kernel::new();
    for key in keys {
        for mut counted in table(&[key])? {
            let total = counted.real_servers.len();
            counted.real_servers.truncate(REAL_SERVERS);
            counted.real_servers.shrink_to_fit();
            kernel.insert(key, (counted, total));
        }
    }
    Ok(kernel)
}

// === impl View ===

impl View {
    /// Takes its time: it looks at every service, and reads counters from the kernel.
    pub(super) fn new(
        monitor: &Monitor,
        watches: &[Watch],
        table: Option<&Table>,
        query: Query,
    ) -> Self {
        let (status, current) = (monitor.status(), monitor.current());
        let listing = Listing::new(&status, table, query);
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
        let attention = Attention::of(&status, &current, watches);
        let errors = status.observe_error.iter().chain(status.errors.iter().rev());
        let up = monitor.started().elapsed().unwrap_or(Duration::ZERO);
        Self {
            node: text::name(&current.config.node_name).to_string(),
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

impl<T> Part<T> {
    fn of<S>(all: impl ExactSizeIterator<Item = S>, most: usize, view: impl FnMut(S) -> T) -> Self {
        Self { total: all.len(), first: all.take(most).map(view).collect() }
    }

    /// How many there are beyond those that are shown.
    pub(super) fn more(&self) -> usize {
        self.total - self.first.len()
    }
}

impl Listing {
    fn new(status: &Status, table: Option<&Table>, query: Query) -> Self {
        let all = status.directory.clone();
        let found: Vec<_> = all.iter().filter(|(key, asks)| query.matches(key, asks)).collect();
        let pages = found.len().div_ceil(SERVICES).max(1);
        let page = query.page.min(pages);
        let shown = || found.iter().skip((page - 1) * SERVICES).take(SERVICES);
        let frontends = shown().flat_map(|(_, asks)| asks.frontends.iter().take(FRONTENDS));
        let counted = table.map(|table| count(table, frontends.map(|frontend| frontend.key)));
        let (kernel, counters_error) = match counted {
            None => (None, None),
            Some(Ok(kernel)) => {
                let uncounted = kernel.values().any(|(counted, _)| !counted.counts);
                (Some(kernel), uncounted.then(|| NOT_COUNTED.to_owned()))
            }
            Some(Err(error)) => {
                let error = text::line(error);
                let shown = "the kernel's counters cannot be read, what is wanted is shown";
                (None, Some(format!("{shown}: {error}")))
            }
        };
        let mut rows = ROWS;
        let services = shown().map(|(key, asks)| ServiceView {
            namespace: text::name(key.namespace()).to_string(),
            name: text::name(key.name()).to_string(),
            settings: settings(asks),
            rejected_settings: rejected(asks),
            frontends: Part::of(asks.frontends.iter(), FRONTENDS, |frontend| {
                FrontendView::new(key, frontend, status, kernel.as_ref(), &mut rows)
            }),
        });
        let services = services.collect();
        Self { search: query.search, page, pages, matches: found.len(), counters_error, services }
    }
}

fn threshold(config: RealServerConfig) -> Option<u32> {
    Some(config.upper_threshold).filter(|most| *most > 0)
}

fn settings(asks: &Contribution) -> Vec<SettingView> {
    let in_force = asks.applied.iter().flat_map(|applied| &applied.in_force);
    let view = |it: &InForce| SettingView {
        setting: it.setting,
        value: text::line(&it.value).to_string(),
        annotation: it.annotation.name(),
    };
    in_force.map(view).collect()
}

fn rejected(asks: &Contribution) -> Vec<String> {
    let rejected = asks.applied.iter().flat_map(|applied| &applied.rejected);
    rejected.map(|it| text::line(it).to_string()).collect()
}

impl FrontendView {
    fn new(
        service: &ObjectKey,
        frontend: &Frontend,
        status: &Status,
        kernel: Option<&Kernel>,
        rows: &mut usize,
    ) -> Self {
        let config = &frontend.server.config;
        let conflict = status.conflicts.get(&frontend.key);
        let winner = conflict.map(|conflict| &conflict.winner).filter(|winner| *winner != service);
        let counted = kernel.map(|kernel| kernel.get(&frontend.key));
        let wanted = &frontend.server.real_servers;
        let most = REAL_SERVERS.min(*rows);
        let real_servers = match counted.flatten() {
            // Of the winner.
            _ if winner.is_some() => Part { total: 0, first: Vec::new() },
            Some((counted, total)) => {
                let view = |entry: &RealServerEntry| RealServerView {
                    address: entry.server.key.to_string(),
                    weight: entry.server.config.weight,
                    upper_threshold: threshold(entry.server.config),
                    active: Some(entry.connections.active),
                    inactive: Some(entry.connections.inactive),
                    connections: counted.counts.then_some(entry.stats.connections),
                    draining: !wanted.iter().any(|real| real.key == entry.server.key),
                };
                let first = counted.real_servers.iter().take(most).map(view).collect();
                Part { total: *total, first }
            }
            None => Part::of(wanted.iter(), most, |real| RealServerView {
                address: real.key.to_string(),
                weight: real.config.weight,
                upper_threshold: threshold(real.config),
                active: None,
                inactive: None,
                connections: None,
                draining: false,
            }),
        };
        *rows -= real_servers.first.len();
        Self {
            kind: frontend.kind.to_string(),
            port: text::name(&frontend.port).to_string(),
            virtual_server: frontend.key.to_string(),
            scheduler: config.scheduler.to_string(),
            scheduler_flags: flag_names(config.scheduler, config.flags),
            one_packet: config.flags.contains(Flags::ONE_PACKET),
            sticky_seconds: config.flags.contains(Flags::PERSISTENT).then_some(config.timeout),
            taken_by: winner.map(ToString::to_string),
            programmed: counted.map(|entry| entry.is_some()),
            connections: counted
                .flatten()
                .filter(|(entry, _)| entry.counts)
                .map(|(entry, _)| entry.server.stats.connections),
            real_servers,
        }
    }
}
