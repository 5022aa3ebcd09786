//! What the loop shows of itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use netlink_ipvs::{Family, RealServerKey, VirtualServerKey};
use tokio::time::Instant;

use super::report::Report;
use super::{Directory, Live, Measures, Published};
use crate::cluster::{ObjectKey, Objects};
use crate::dataplane::{Conflict, Health, NoLocal, Op, Settings, Subject, Target};

/// What the loop knows, after a step.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Every kind of object has been read completely.
    pub complete: bool,
    /// The kernel is as wanted.
    pub synced: bool,
    /// Things that failed and will be tried again.
    pub pending: usize,
    /// What is held back since something that it needs has failed: the first few.
    pub held_back: Arc<[HeldBack]>,
    /// How much is held back.
    pub held: usize,
    /// Since when something has been failing.
    pub failing_since: Option<Instant>,
    /// When the kernel was last as wanted.
    pub last_success: Option<Instant>,
    /// When the last step ended; while the first one is under way, when that began. Older than
    /// the sync period and a step's duration, it says that the loop is stuck.
    pub last_step: Option<Instant>,
    /// The families that are served, and how syncing each of them goes.
    pub families: BTreeMap<Family, FamilyStatus>,
    /// Whether the node may be given traffic from outside (see [`crate::cluster::Node::eligible`]), once its object
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
    pub conflicts: Published<VirtualServerKey, Conflict>,
    /// Since when there are any.
    pub conflicts_since: Option<Instant>,
    /// What services ask for and do not get, by kind.
    pub refused: BTreeMap<&'static str, usize>,
    /// Since when there is any that services should be told of.
    pub refused_since: Option<Instant>,
    /// Services that have a setting of their own in force, by the name of the setting.
    pub settings: BTreeMap<&'static str, usize>,
    /// Annotations that cannot be used.
    pub rejected_settings: usize,
    /// Endpoints that have not reached their weight yet.
    pub slow_starts: usize,
    /// Real servers that keep connections though no longer wanted.
    pub draining: Arc<[Draining]>,
    /// The last errors, newest last.
    pub errors: Arc<VecDeque<String>>,
    /// Health check node ports.
    pub health: Published<ObjectKey, Health>,
    /// Services with internalTrafficPolicy or externalTrafficPolicy Local and no local endpoint.
    pub no_local: Published<ObjectKey, NoLocal>,
    /// What every service asks for.
    pub directory: Directory,
    /// Every service with its slices.
    pub objects: Published<ObjectKey, Objects>,
    /// What holds for all services, once it is known.
    pub settings_in_force: Option<Arc<Settings>>,
    /// What has been done since the start.
    pub counters: Counters,
    /// How long things took since the start.
    pub measures: Arc<Measures>,
    /// What is counted as events come.
    pub live: Arc<Live>,
}

impl Status {
    /// Whether health check node ports have to be as they are by another status.
    pub(super) fn has_node_ports_of(&self, other: &Self) -> bool {
        self.health.version() == other.health.version()
            && self.host_addresses == other.host_addresses
            && self.node_addresses == other.node_addresses
            && self.families.keys().eq(other.families.keys())
    }
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

/// Something that is not programmed, since it must not be without something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBack {
    /// What.
    pub target: Target,
    /// What has to be read or put in place before.
    pub waits_for: Subject,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} waits for {}", self.target, self.waits_for)
    }
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
    /// How often each kernel setting was found changed by somebody else.
    pub sysctl_drift: BTreeMap<&'static str, u64>,
    /// Operations that were held back, since something that they need had failed.
    pub held_back: u64,
    /// Drains that ended by their limit.
    pub drains_cut: u64,
    /// Rules that could not be put in place.
    pub firewall_failures: BTreeMap<Family, u64>,
    /// Operations that took place and that failed, by kind.
    pub operations: BTreeMap<&'static str, (u64, u64)>,
}

impl Counters {
    /// The name under which operations are counted.
    pub(super) fn kind(op: &Op) -> &'static str {
        match op {
            Op::SetSysctl(..) => "sysctl",
            Op::TakeLinkDown => "link",
            Op::CreateSet(..) | Op::GrowSet(..) => "set",
            Op::InstallFirewall(..) => "firewall",
            Op::AddMember(..) => "member_add",
            Op::RenewMembers(..) => "member_renew",
            Op::RemoveMember(..) | Op::RemoveForeignMembers(..) => "member_remove",
            Op::AddVirtualServer(..) => "virtual_server_add",
            Op::SetVirtualServer(..) => "virtual_server_set",
            Op::RemoveVirtualServer(..) => "virtual_server_remove",
            Op::AddRealServer(..) => "real_server_add",
            Op::SetRealServer(..) => "real_server_set",
            Op::RemoveRealServer(..) => "real_server_remove",
            Op::Bind(..) => "address_add",
            Op::Unbind(..) | Op::RemoveForeignAddress(..) => "address_remove",
            Op::ForgetFlows(..) => "flows",
            Op::RemoveLeftover(..) => "leftover_remove",
        }
    }

    /// Takes in what happened in a step.
    pub(super) fn add(&mut self, report: &Report) {
        self.steps += 1;
        self.contributions += report.contributions;
        self.drift += report.drift.len() as u64;
        self.held_back += report.held_back;
        self.drains_cut += report.cut.len() as u64;
        for (kind, (done, failed)) in &report.operations {
            let sum = self.operations.entry(kind).or_default();
            (sum.0, sum.1) = (sum.0 + done, sum.1 + failed);
        }
        for (target, _) in &report.failed {
            if let Target::Firewall(family) = target {
                *self.firewall_failures.entry(*family).or_default() += 1;
            }
        }
        for target in &report.drift {
            if let Target::Sysctl(path) = target {
                *self.sysctl_drift.entry(path).or_default() += 1;
            }
        }
    }

    /// Operations that changed what the kernel holds.
    pub fn writes(&self) -> u64 {
        self.operations
            .iter()
            .filter(|(kind, _)| !["flows", "member_renew"].contains(kind))
            .map(|(_, (done, _))| done)
            .sum()
    }
}
