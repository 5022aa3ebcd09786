//! What the loop shows of itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use netlink_ipvs::{Family, RealServerKey, VirtualServerKey};
use tokio::time::Instant;

use super::{Directory, Live, Measures};
use crate::cluster::{Node, ObjectKey};
use crate::dataplane::{Conflict, Contribution, Health, Op, State, Target, VirtualServerState};

/// What the loop knows, after a step.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Every kind of object has been read completely.
    pub complete: bool,
    /// The kernel is as wanted.
    pub synced: bool,
    /// Things that failed and will be tried again.
    pub pending: usize,
    /// Since when something has been failing.
    pub failing_since: Option<Instant>,
    /// When the kernel was last as wanted.
    pub last_success: Option<Instant>,
    /// When the last step ended; while the first one is under way, when that began. Older than
    /// the sync period and a step's duration, it says that the loop is stuck.
    pub last_step: Option<Instant>,
    /// The families that are served, and how syncing each of them goes.
    pub families: BTreeMap<Family, FamilyStatus>,
    /// Whether the node may be given traffic from outside (see [`Node::eligible`]), once its object
    /// was read.
    pub node_eligible: Option<bool>,
    /// The addresses of the node object.
    pub node_addresses: Arc<[IpAddr]>,
    /// `spec.podCIDRs` of the node object.
    pub pod_cidrs: Arc<[IpNet]>,
    /// The addresses of the host's other interfaces.
    pub host_addresses: Arc<[IpAddr]>,
    /// Why the kernel could not be read.
    pub observe_error: Option<String>,
    /// Services that are proxied.
    pub services: usize,
    /// Virtual servers in the kernel.
    pub virtual_servers: usize,
    /// Real servers in the kernel.
    pub real_servers: usize,
    /// Virtual servers that more than one service claims.
    pub conflicts: Arc<BTreeMap<VirtualServerKey, Conflict>>,
    /// Real servers that keep connections though no longer wanted.
    pub draining: Arc<[Draining]>,
    /// The last errors, newest last.
    pub errors: VecDeque<String>,
    /// Health check node ports.
    pub health: Arc<BTreeMap<ObjectKey, Health>>,
    /// Services with internalTrafficPolicy or externalTrafficPolicy Local and no local endpoint.
    pub no_local: Arc<BTreeMap<ObjectKey, NoLocal>>,
    /// What every service asks for. Unlike the rest it is not of one moment.
    pub directory: Arc<Directory>,
    /// What has been done since the start.
    pub counters: Counters,
    /// How long things took since the start.
    pub measures: Arc<Measures>,
    /// What is counted as events come.
    pub live: Arc<Live>,
}

/// How syncing a family goes as a whole. It fails if the kernel cannot be read, or the family's
/// rules or a set of it cannot be put in place; what only one service lacks does not count, or one
/// bad Service would take every node out of every load balancer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilyStatus {
    /// When it last went well, by the clock of the host.
    pub last_success: Option<SystemTime>,
    /// Since when it has been failing.
    pub failing_since: Option<Instant>,
}

/// Families in which a service with a Local policy has endpoints, but none on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoLocal {
    /// By internalTrafficPolicy.
    pub internal: Vec<Family>,
    /// By externalTrafficPolicy.
    pub external: Vec<Family>,
}

/// A real server that keeps its connections though no longer wanted.
#[derive(Debug, Clone)]
pub struct Draining {
    /// Where.
    pub virtual_server: VirtualServerKey,
    /// Which.
    pub real_server: RealServerKey,
    /// Connections when last counted.
    pub connections: u64,
    /// When it will be removed whatever it has.
    pub deadline: Instant,
}

/// Numbers since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Steps of the loop.
    pub steps: u64,
    /// Contributions computed: one for each service in each step that touches it.
    pub contributions: u64,
    /// Targets that were found changed by somebody else.
    pub drift: u64,
    /// Drains that ended by their limit.
    pub drains_cut: u64,
    /// Rules that could not be put in place.
    pub firewall_failures: BTreeMap<Family, u64>,
    /// Operations that took place and that failed, by kind.
    pub operations: BTreeMap<&'static str, (u64, u64)>,
}

impl Counters {
    pub(super) fn count(&mut self, op: &Op, failed: bool) {
        let kind = match op {
            Op::CreateSet(..) | Op::GrowSet(..) => "set",
            Op::InstallFirewall(..) => "firewall",
            Op::AddMember(..) => "member_add",
            Op::RemoveMember(..) => "member_remove",
            Op::AddVirtualServer(..) => "virtual_server_add",
            Op::SetVirtualServer(..) => "virtual_server_set",
            Op::RemoveVirtualServer(..) => "virtual_server_remove",
            Op::AddRealServer(..) => "real_server_add",
            Op::SetRealServer(..) => "real_server_set",
            Op::RemoveRealServer(..) => "real_server_remove",
            Op::Bind(..) => "address_add",
            Op::Unbind(..) => "address_remove",
            Op::ForgetFlows(..) => "flows",
            Op::RemoveLeftover(..) => "leftover_remove",
        };
        let (done, lost) = self.operations.entry(kind).or_default();
        if failed {
            *lost += 1;
            if let Op::InstallFirewall(family, _) = op {
                *self.firewall_failures.entry(*family).or_default() += 1;
            }
        } else {
            *done += 1;
        }
    }

    /// Operations that changed the kernel.
    pub fn writes(&self) -> u64 {
        self.operations
            .iter()
            .filter(|(kind, _)| **kind != "flows")
            .map(|(_, (done, _))| done)
            .sum()
    }
}

impl Status {
    const ERRORS: usize = 20;

    pub(super) fn error(&mut self, text: String) {
        if self.errors.back() == Some(&text) {
            return;
        }
        if self.errors.len() == Self::ERRORS {
            self.errors.pop_front();
        }
        self.errors.push_back(text);
    }

    /// Takes in the node object. Whether anything that is shown has changed.
    pub(super) fn node(&mut self, node: Option<&Node>) -> bool {
        let eligible = node.map(|node| node.eligible);
        let addresses = node.map(|node| &*node.addresses).unwrap_or_default();
        let pod_cidrs = node.map(|node| &*node.pod_cidrs).unwrap_or_default();
        if self.node_eligible == eligible
            && *self.node_addresses == *addresses
            && *self.pod_cidrs == *pod_cidrs
        {
            return false;
        }
        self.pod_cidrs = pod_cidrs.into();
        self.node_eligible = eligible;
        self.node_addresses = addresses.into();
        true
    }

    /// Ends a step that began at `started` with these targets failed. Whether nothing has failed.
    pub(super) fn step_ended(
        &mut self,
        started: Instant,
        families: &[Family],
        failed: &BTreeMap<Target, String>,
    ) -> bool {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let unread = self.observe_error.is_some();
        let broken: BTreeSet<Family> = failed.keys().filter_map(foundation).collect();
        self.families.retain(|family, _| families.contains(family));
        for family in families {
            let status = self.families.entry(*family).or_default();
            if unread || broken.contains(family) {
                status.failing_since.get_or_insert(started);
            } else {
                *status = FamilyStatus { last_success: Some(clock), failing_since: None };
            }
        }
        if self.synced {
            self.failing_since = None;
            self.last_success = Some(now);
        } else {
            self.failing_since.get_or_insert(started);
        }
        self.last_step = Some(now);
        self.counters.steps += 1;
        self.synced
    }

    /// Counts anew after a complete observation.
    pub(super) fn observed(&mut self, state: &State) {
        self.virtual_servers = state.virtual_servers.len();
        self.real_servers = state.virtual_servers.values().map(|s| s.real_servers.len()).sum();
    }

    /// Puts a virtual server in place of what was believed, and keeps count.
    pub(super) fn replace(
        &mut self,
        believed: Option<&mut State>,
        key: VirtualServerKey,
        server: Option<VirtualServerState>,
    ) {
        let Some(believed) = believed else { return };
        let had = match server {
            Some(server) => {
                self.virtual_servers += 1;
                self.real_servers += server.real_servers.len();
                believed.virtual_servers.insert(key, server)
            }
            None => believed.virtual_servers.remove(&key),
        };
        if let Some(had) = had {
            self.virtual_servers -= 1;
            self.real_servers -= had.real_servers.len();
        }
    }

    /// Takes in what a service asks for.
    pub(super) fn service(&mut self, key: &ObjectKey, wanted: Option<&Contribution>) {
        put(&mut self.health, key, wanted.and_then(|wanted| wanted.health.clone()));
        let no_local = wanted.map(|wanted| NoLocal {
            internal: wanted.no_local_internal.clone(),
            external: wanted.no_local_external.clone(),
        });
        put(&mut self.no_local, key, no_local.filter(|no_local| *no_local != NoLocal::default()));
    }
}

/// The family that does not work without this target.
fn foundation(target: &Target) -> Option<Family> {
    match target {
        Target::Firewall(family) => Some(*family),
        Target::Set(set) => Some(set.family),
        Target::Member(..)
        | Target::VirtualServer(_)
        | Target::Address(_)
        | Target::Leftover(_) => None,
    }
}

/// Changes a shared map only where it differs.
fn put<V: Clone + PartialEq>(
    map: &mut Arc<BTreeMap<ObjectKey, V>>,
    key: &ObjectKey,
    value: Option<V>,
) {
    if map.get(key) == value.as_ref() {
        return;
    }
    let map = Arc::make_mut(map);
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}
