//! One service: how it is, in a row; and each of its virtual servers with its real servers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_ipvs::{Flags, RealServerConfig, RealServerEntry, VirtualServerKey};
use serde::Serialize;

use super::load::{Kernel, LoadView, Read};
use super::opened::Opened;
use super::{FRONTENDS, Part, REAL_SERVERS};
use crate::cluster::{ObjectKey, Objects};
use crate::dataplane::{Contribution, Frontend, FrontendKind, InForce, flag_names};
use crate::reconcile::Status;
use crate::text;

/// Problems that are named of one service.
const PROBLEMS: usize = 5;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ServiceView {
    pub(in crate::http) namespace: String,
    pub(in crate::http) name: String,
    /// What somebody has to look at.
    pub(in crate::http) problems: Part<String>,
    pub(in crate::http) endpoints: EndpointCounts,
    /// What goes through it now, if that can be told.
    pub(in crate::http) load: Option<LoadView>,
    /// What annotations of the Service have set.
    pub(in crate::http) settings: Vec<SettingView>,
    /// Its annotations that cannot be used, and why not.
    pub(in crate::http) rejected_settings: Vec<String>,
    pub(in crate::http) frontends: Part<FrontendView>,
    /// More of it, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) opened: Option<Opened>,
}

/// The endpoints of a service, each address once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::http) struct EndpointCounts {
    pub(in crate::http) ready: usize,
    pub(in crate::http) all: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SettingView {
    pub(in crate::http) setting: &'static str,
    pub(in crate::http) value: String,
    pub(in crate::http) annotation: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct FrontendView {
    pub(in crate::http) kind: String,
    pub(in crate::http) port: String,
    pub(in crate::http) virtual_server: String,
    pub(in crate::http) scheduler: String,
    pub(in crate::http) scheduler_flags: Vec<&'static str>,
    /// Every packet is scheduled by itself.
    pub(in crate::http) one_packet: bool,
    pub(in crate::http) sticky_seconds: Option<u32>,
    /// The service that has this address and port instead.
    pub(in crate::http) taken_by: Option<String>,
    /// Whether the kernel has it; unknown where it cannot be read.
    pub(in crate::http) programmed: Option<bool>,
    /// Connections scheduled so far; unknown where they are not counted.
    pub(in crate::http) connections: Option<u64>,
    pub(in crate::http) real_servers: Part<RealServerView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct RealServerView {
    pub(in crate::http) address: String,
    pub(in crate::http) weight: u32,
    /// Connections above which it gets no new ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::http) upper_threshold: Option<u32>,
    pub(in crate::http) active: Option<u32>,
    pub(in crate::http) inactive: Option<u32>,
    pub(in crate::http) connections: Option<u64>,
    /// No service asks for it any more.
    pub(in crate::http) draining: bool,
}

// === impl ServiceView ===

impl ServiceView {
    pub(super) fn new(
        key: &ObjectKey,
        asks: &Contribution,
        status: &Status,
        kernel: Option<&Kernel>,
        rows: &mut usize,
    ) -> Self {
        let shown = asks.frontends.iter().take(FRONTENDS);
        let read = |kernel: &Kernel| {
            let mut load = LoadView::default();
            let mine = shown.filter(|frontend| winner(key, frontend, status).is_none());
            mine.filter_map(|it| kernel.get(&it.key)).for_each(|it| it.add_to(&mut load));
            load
        };
        Self {
            namespace: text::name(key.namespace()).to_string(),
            name: text::name(key.name()).to_string(),
            problems: problems(key, asks, status),
            endpoints: EndpointCounts::of(asks, status.objects.get(key)),
            load: kernel.map(read),
            settings: settings(asks),
            rejected_settings: rejected(asks),
            frontends: Part::of(asks.frontends.iter(), FRONTENDS, |frontend| {
                FrontendView::new(key, frontend, status, kernel, rows)
            }),
            opened: None,
        }
    }

    /// As it is asked for in an address.
    pub(in crate::http) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Whether somebody has to look at a service.
pub(super) fn has_problem(key: &ObjectKey, asks: &Contribution, status: &Status) -> bool {
    !asks.skipped.is_empty()
        || !rejected(asks).is_empty()
        || asks.frontends.iter().any(|frontend| problem(key, frontend, status).is_some())
}

/// Whether some virtual server of it leads nowhere.
pub(super) fn lacks_endpoints(asks: &Contribution) -> bool {
    asks.frontends.iter().any(leads_nowhere)
}

fn leads_nowhere(frontend: &Frontend) -> bool {
    frontend.kind != FrontendKind::Inside && frontend.server.real_servers.is_empty()
}

/// The service that has an address and port instead.
fn winner<'a>(key: &ObjectKey, frontend: &Frontend, status: &'a Status) -> Option<&'a ObjectKey> {
    let conflict = status.conflicts.get(&frontend.key)?;
    Some(&conflict.winner).filter(|winner| *winner != key)
}

/// What is wrong with a virtual server; in the words of `get`.
fn problem(key: &ObjectKey, frontend: &Frontend, status: &Status) -> Option<String> {
    let server = &frontend.key;
    if let Some(winner) = winner(key, frontend, status) {
        return Some(format!("{server} is taken by {winner}"));
    }
    let VirtualServerKey::Address { address, .. } = *server else { return None };
    if let Some(held) = status.held_back.iter().find(|held| held.target.address() == Some(address))
    {
        return Some(format!("not programmed by the running proxy: {held}"));
    }
    leads_nowhere(frontend).then(|| format!("{server} has no endpoints, connections are refused"))
}

fn problems(key: &ObjectKey, asks: &Contribution, status: &Status) -> Part<String> {
    let of_frontends = asks.frontends.iter().filter_map(|it| problem(key, it, status));
    let skipped = asks.skipped.iter().map(|it| format!("{} is left out: {}", it.what(), it.reason));
    let mut all = of_frontends.chain(skipped).chain(rejected(asks));
    let first: Vec<String> = all.by_ref().take(PROBLEMS).collect();
    Part { total: first.len() + all.count(), first }
}

// === impl EndpointCounts ===

impl EndpointCounts {
    /// By the slices; of those that are not known, by what is led to.
    pub(super) fn of(asks: &Contribution, objects: Option<&Objects>) -> Self {
        let Some(slices) = objects.and_then(|objects| objects.slices.as_deref()) else {
            let servers = asks.frontends.iter().map(|it| it.server.real_servers.len());
            let most = servers.max().unwrap_or_default();
            return Self { ready: most, all: most };
        };
        let mut ready: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
            *ready.entry(endpoint.address).or_default() |= endpoint.conditions.ready;
        }
        Self { ready: ready.values().filter(|ready| **ready).count(), all: ready.len() }
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

// === impl FrontendView ===

impl FrontendView {
    fn new(
        service: &ObjectKey,
        frontend: &Frontend,
        status: &Status,
        kernel: Option<&Kernel>,
        rows: &mut usize,
    ) -> Self {
        let config = &frontend.server.config;
        let winner = winner(service, frontend, status);
        let counted = kernel.map(|kernel| kernel.get(&frontend.key));
        let wanted = &frontend.server.real_servers;
        let most = REAL_SERVERS.min(*rows);
        let real_servers = match counted.flatten() {
            // Of the winner.
            _ if winner.is_some() => Part { total: 0, first: Vec::new() },
            Some(Read { counted, total, .. }) => {
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
                .filter(|entry| entry.counts())
                .map(|entry| entry.counted.server.stats.connections),
            real_servers,
        }
    }
}
