//! More of one service: its endpoints, used or not and why, and what `explain` says.

use std::collections::{BTreeMap, BTreeSet};

use netlink_ipvs::RealServerEntry;
use serde::Serialize;

use super::load::{Kernel, Read};
use super::{FRONTENDS, OPENED, Part};
use crate::cluster::{Cluster, ObjectKey, Objects};
use crate::dataplane::{Contribution, Desired, Settings};
use crate::explain::{self, EndpointAccount, Known};
use crate::reconcile::Status;
use crate::text;

/// Bytes of what `explain` says.
const EXPLANATION: usize = 20_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Opened {
    pub(in crate::http) endpoints: Part<OpenedEndpoint>,
    /// As `proxier explain` prints it; the beginning of a long one.
    pub(in crate::http) explanation: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OpenedEndpoint {
    pub(in crate::http) address: String,
    pub(in crate::http) pod: Option<String>,
    pub(in crate::http) node: Option<String>,
    pub(in crate::http) zone: Option<String>,
    /// Whether it is on this node, if that is known.
    pub(in crate::http) local: Option<bool>,
    /// Whether new connections may reach it.
    pub(in crate::http) used: bool,
    /// The same in words, with the reason.
    pub(in crate::http) verdict: String,
    /// In the kernel, where it is there.
    pub(in crate::http) weight: Option<u32>,
    pub(in crate::http) active: Option<u64>,
    pub(in crate::http) inactive: Option<u64>,
}

/// Of one endpoint, in all virtual servers of the service.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    weight: u32,
    active: u64,
    inactive: u64,
}

// === impl Opened ===

impl Opened {
    pub(super) fn new(
        key: &ObjectKey,
        asks: &Contribution,
        status: &Status,
        kernel: Option<&Kernel>,
    ) -> Self {
        let objects = status.objects.get(key).filter(|objects| objects.slices.is_some());
        let known = objects.zip(status.settings_in_force.as_deref());
        let account = known.and_then(|(objects, settings)| account(key, objects, settings, status));
        let sums = sums(asks, kernel);
        let (mut seen, mut endpoints) = (BTreeSet::new(), Vec::new());
        let accounts = account.iter().flat_map(explain::ServiceAccount::families);
        for endpoint in accounts.flat_map(|(_, family)| &family.endpoints) {
            if seen.insert(endpoint.address.as_str()) {
                let sum = sums.get(&endpoint.address).copied();
                endpoints.push(OpenedEndpoint::new(endpoint, sum));
            }
        }
        let others = sums.iter().filter(|(address, _)| !seen.contains(address.as_str()));
        endpoints.extend(others.map(|(address, sum)| OpenedEndpoint::other(address, *sum)));
        Self {
            endpoints: Part::of(endpoints.into_iter(), OPENED, |endpoint| endpoint),
            explanation: account.map(|account| cut(account.to_string())),
        }
    }
}

/// What `explain` knows of a service, from what the loop has published. Whoever has an address that it has
/// lost is needed for that, too.
fn account(
    key: &ObjectKey,
    objects: &Objects,
    settings: &Settings,
    status: &Status,
) -> Option<explain::ServiceAccount> {
    let mut desired = Desired::new(settings);
    let asks = status.directory.get(key)?;
    let rivals: BTreeSet<&ObjectKey> = asks
        .frontends
        .iter()
        .filter_map(|frontend| status.conflicts.get(&frontend.key))
        .map(|conflict| &conflict.winner)
        .take(FRONTENDS)
        .collect();
    for service in rivals.into_iter().chain([key]) {
        let created = status.objects.get(service).map(|objects| objects.service.created);
        if let Some((created, asks)) = created.zip(status.directory.get(service).cloned()) {
            desired.set_shared(service, Some((created, asks)), &mut BTreeSet::new());
        }
    }
    let cluster = Cluster::of(objects);
    let known = Known { cluster: &cluster, desired: &desired, settings };
    explain::services(None, known).pop()
}

/// By the address of the endpoint.
fn sums(asks: &Contribution, kernel: Option<&Kernel>) -> BTreeMap<String, Sum> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let read = |kernel: &'_ Kernel| -> Vec<RealServerEntry> {
        let frontends = asks.frontends.iter().take(FRONTENDS);
        let servers = frontends.filter_map(|frontend| kernel.get(&frontend.key));
        servers.flat_map(Read::real_servers).copied().collect()
    };
    for entry in kernel.map(read).unwrap_or_default() {
        let sum = sums.entry(entry.server.key.to_string()).or_default();
        sum.weight = sum.weight.max(entry.server.config.weight);
        sum.active += u64::from(entry.connections.active);
        sum.inactive += u64::from(entry.connections.inactive);
    }
    sums
}

fn cut(mut text: String) -> String {
    if text.len() > EXPLANATION {
        text.truncate(text.floor_char_boundary(EXPLANATION));
        text.push_str("\n...\n");
    }
    text
}

// === impl OpenedEndpoint ===

impl OpenedEndpoint {
    fn new(account: &EndpointAccount, sum: Option<Sum>) -> Self {
        Self {
            address: account.address.clone(),
            pod: account.pod.clone(),
            node: account.node.clone(),
            zone: account.zone.clone(),
            local: Some(account.local),
            used: account.used,
            verdict: text::line(&account.verdict).to_string(),
            weight: sum.map(|sum| sum.weight),
            active: sum.map(|sum| sum.active),
            inactive: sum.map(|sum| sum.inactive),
        }
    }

    /// One that the kernel has and no slice.
    fn other(address: &str, sum: Sum) -> Self {
        let verdict = match sum.weight {
            0 => "draining: it keeps the connections that it has",
            _ => "in the kernel, but in no EndpointSlice that is known here",
        };
        Self {
            address: address.to_owned(),
            pod: None,
            node: None,
            zone: None,
            local: None,
            used: sum.weight > 0,
            verdict: verdict.to_owned(),
            weight: Some(sum.weight),
            active: Some(sum.active),
            inactive: Some(sum.inactive),
        }
    }
}
