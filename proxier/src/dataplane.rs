//! What the kernel should hold, and how to get there. Pure: no I/O, no clock, no logging.
//!
//! [`State`] is the one shape for everything: what one service asks for adds up to the desired
//! state, observing the kernel gives one, and so does the fake. [`plan()`] turns the difference of
//! two into ordered operations.

mod contribution;
mod desired;
mod drain;
pub mod firewall;
pub mod leftovers;
mod plan;
pub mod render;
pub mod sets;
pub mod sysctls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use ipnet::IpNet;
use netlink_ipvs::{
    Family, RealServer, RealServerKey, Scheduler, VirtualServerConfig, VirtualServerKey,
};

pub use contribution::{Contribution, Frontend, FrontendKind, Health, Skipped, contribution};
pub use desired::{Conflict, Desired, Owner};
pub use drain::{Drains, Finished};
use leftovers::Leftover;
pub use plan::{Plan, plan};
use sets::{Member, SetId, SetRole};

use crate::cluster::topology::Place;

/// The name of the dummy interface that carries the virtual addresses.
pub const INTERFACE: &str = "kube-ipvs0";

/// Real servers in ascending order of their keys, each once. Shared between every state that holds
/// the same ones.
pub type RealServers = Arc<[RealServer]>;

/// A virtual server with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServerState {
    /// Scheduler, flags, timeout.
    pub config: VirtualServerConfig,
    /// Real servers.
    pub real_servers: RealServers,
}

/// A set and its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    /// How many members a hash set can hold (`maxelem`). Of no meaning for bitmaps.
    pub capacity: u32,
    /// Members.
    pub members: BTreeSet<Member>,
}

impl Default for SetState {
    fn default() -> Self {
        Self { capacity: SetId::DEFAULT_CAPACITY, members: BTreeSet::new() }
    }
}

/// The content of a dataplane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Virtual servers.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServerState>,
    /// Host addresses on `kube-ipvs0`.
    pub addresses: BTreeSet<IpAddr>,
    /// The sets that exist.
    pub sets: BTreeMap<SetId, SetState>,
    /// The firewall rules of each family, as `iptables-save` prints our part of them.
    pub firewall: BTreeMap<Family, Arc<str>>,
    /// What other modes of kube-proxy have left.
    pub leftovers: BTreeSet<Leftover>,
}

/// The key of one thing in a [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A set as such.
    Set(SetId),
    /// The firewall rules of a family.
    Firewall(Family),
    /// A member of a set.
    Member(SetId, Member),
    /// A virtual server with its real servers.
    VirtualServer(VirtualServerKey),
    /// A host address on `kube-ipvs0`.
    Address(IpAddr),
    /// What another mode of kube-proxy has left.
    Leftover(Leftover),
}

impl Target {
    /// The member by which the firewall knows an address on `kube-ipvs0`.
    pub(crate) fn ipvs_ip(address: IpAddr) -> Self {
        Self::Member(SetRole::IpvsIps.of(Family::of(address)), Member::Ip(address))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(set) => write!(f, "set {set}"),
            Self::Firewall(family) => write!(f, "{family} firewall rules"),
            Self::Member(set, member) => write!(f, "{member} in set {set}"),
            Self::VirtualServer(key) => write!(f, "virtual server {key}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::Leftover(leftover) => leftover.fmt(f),
        }
    }
}

impl State {
    /// The keys of everything in it.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let sets = self.sets.keys().map(|set| Target::Set(*set));
        let firewall = self.firewall.keys().map(|family| Target::Firewall(*family));
        let members = self.sets.iter().flat_map(|(set, state)| {
            state.members.iter().map(|member| Target::Member(*set, *member))
        });
        let servers = self.virtual_servers.keys().map(|key| Target::VirtualServer(*key));
        let addresses = self.addresses.iter().map(|address| Target::Address(*address));
        let leftovers = self.leftovers.iter().map(|leftover| Target::Leftover(*leftover));
        sets.chain(firewall).chain(members).chain(servers).chain(addresses).chain(leftovers)
    }

    /// The rules and what other modes have left.
    pub(crate) fn rules(&self) -> Self {
        let (firewall, leftovers) = (self.firewall.clone(), self.leftovers.clone());
        Self { firewall, leftovers, ..Self::default() }
    }

    /// The keys of everything that differs between two states.
    pub fn differences(&self, other: &Self) -> BTreeSet<Target> {
        let mut out = BTreeSet::new();
        differing(&self.virtual_servers, &other.virtual_servers, |key, _, _| {
            out.insert(Target::VirtualServer(*key));
        });
        differing(&self.firewall, &other.firewall, |family, _, _| {
            out.insert(Target::Firewall(*family));
        });
        out.extend(
            self.addresses.symmetric_difference(&other.addresses).copied().map(Target::Address),
        );
        out.extend(
            self.leftovers.symmetric_difference(&other.leftovers).copied().map(Target::Leftover),
        );
        let none = BTreeSet::new();
        differing(&self.sets, &other.sets, |set, ours, theirs| {
            if ours.map(|set| set.capacity) != theirs.map(|set| set.capacity) {
                out.insert(Target::Set(*set));
            }
            let ours = ours.map_or(&none, |set| &set.members);
            let theirs = theirs.map_or(&none, |set| &set.members);
            out.extend(
                ours.symmetric_difference(theirs).map(|member| Target::Member(*set, *member)),
            );
        });
        out
    }

    /// Takes in an operation that took place, but for those on virtual servers: what they add up
    /// to is known from the plan.
    pub(crate) fn absorb(&mut self, op: &Op) {
        match op {
            Op::CreateSet(set, capacity) => {
                self.sets.insert(*set, SetState { capacity: *capacity, members: BTreeSet::new() });
            }
            Op::GrowSet(set, capacity) => {
                self.sets.entry(*set).or_default().capacity = *capacity;
            }
            Op::InstallFirewall(family, rules) => {
                self.firewall.insert(*family, rules.clone());
            }
            Op::AddMember(set, member) => {
                self.sets.entry(*set).or_default().members.insert(*member);
            }
            Op::RemoveMember(set, member) => {
                self.sets.entry(*set).or_default().members.remove(member);
            }
            Op::Bind(address) => {
                self.addresses.insert(*address);
            }
            Op::Unbind(address) => {
                self.addresses.remove(address);
            }
            Op::RemoveLeftover(leftover) => {
                self.leftovers.remove(leftover);
            }
            Op::AddVirtualServer(..)
            | Op::SetVirtualServer(..)
            | Op::AddRealServer(..)
            | Op::SetRealServer(..)
            | Op::RemoveRealServer(..)
            | Op::RemoveVirtualServer(..)
            | Op::ForgetFlows(..) => {}
        }
    }

    /// Whether a set has a member.
    pub fn has_member(&self, set: SetId, member: &Member) -> bool {
        self.sets.get(&set).is_some_and(|state| state.members.contains(member))
    }
}

/// Calls `differ` for every key whose values are not equal.
pub(crate) fn differing<K: Ord, V: PartialEq>(
    ours: &BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
    mut differ: impl FnMut(&K, Option<&V>, Option<&V>),
) {
    for (key, value) in ours {
        let other = theirs.get(key);
        if other != Some(value) {
            differ(key, Some(value), other);
        }
    }
    for (key, value) in theirs.iter().filter(|(key, _)| !ours.contains_key(key)) {
        differ(key, None, Some(value));
    }
}

/// What is the same for every service of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node's name and zone.
    pub place: Place,
    /// Families that this node serves.
    pub families: Vec<Family>,
    /// Scheduler of every virtual server.
    pub scheduler: Scheduler,
    /// Virtual servers on these addresses are never removed.
    pub exclude_cidrs: Vec<IpNet>,
    /// Whether `spec.externalIPs` is honoured (feature gate `AllowServiceExternalIPs`).
    pub external_ips: bool,
    /// Whether a service's source ranges hold for its node ports and external IPs too.
    pub source_ranges_everywhere: bool,
    /// The node's addresses on its other interfaces: a VIP that is one of them is not bound.
    pub host_addresses: BTreeSet<IpAddr>,
    /// The addresses that node ports listen on.
    pub node_port_addresses: BTreeSet<IpAddr>,
    /// The node's own address of each family, by which source ranges decide whether the node
    /// itself may use a VIP.
    pub node_ips: Vec<IpAddr>,
    /// What the firewall rules depend on, for each family.
    pub firewall: BTreeMap<Family, firewall::FirewallOptions>,
}

impl Settings {
    /// Whether a virtual server may be removed when no service asks for it.
    ///
    /// Every address virtual server of an active family is taken to be ours, as kube-proxy does,
    /// but for excluded addresses; firewall-mark ones never are.
    pub fn owns(&self, key: &VirtualServerKey) -> bool {
        match key {
            VirtualServerKey::FirewallMark { .. } => false,
            VirtualServerKey::Address { address, .. } => {
                self.families.contains(&Family::of(*address))
                    && !self.exclude_cidrs.iter().any(|net| net.contains(address))
            }
        }
    }

    fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}

/// One operation on the kernel. Each is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Create an empty set of this capacity.
    CreateSet(SetId, u32),
    /// Give a set more capacity without a moment in which it lacks members.
    GrowSet(SetId, u32),
    /// Put the rules of a family in place.
    InstallFirewall(Family, Arc<str>),
    /// Add a member.
    AddMember(SetId, Member),
    /// Add a virtual server.
    AddVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// Change a virtual server in place; its connections and real servers stay.
    SetVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// Add a real server.
    AddRealServer(VirtualServerKey, RealServer),
    /// Change a real server in place.
    SetRealServer(VirtualServerKey, RealServer),
    /// Add a host address to `kube-ipvs0`.
    Bind(IpAddr),
    /// Remove a host address from `kube-ipvs0`.
    Unbind(IpAddr),
    /// Remove a real server.
    RemoveRealServer(VirtualServerKey, RealServerKey),
    /// Remove a virtual server with its real servers.
    RemoveVirtualServer(VirtualServerKey),
    /// Remove a member.
    RemoveMember(SetId, Member),
    /// Delete the UDP flows through a virtual server that lead to none of these real servers.
    ForgetFlows(VirtualServerKey, RealServers),
    /// Remove what another mode of kube-proxy has left.
    RemoveLeftover(Leftover),
}

impl Op {
    /// What it works on.
    pub fn target(&self) -> Target {
        match self {
            Self::CreateSet(set, _) | Self::GrowSet(set, _) => Target::Set(*set),
            Self::InstallFirewall(family, _) => Target::Firewall(*family),
            Self::AddMember(set, member) | Self::RemoveMember(set, member) => {
                Target::Member(*set, *member)
            }
            Self::AddVirtualServer(key, _)
            | Self::SetVirtualServer(key, _)
            | Self::AddRealServer(key, _)
            | Self::SetRealServer(key, _)
            | Self::RemoveRealServer(key, _)
            | Self::RemoveVirtualServer(key)
            | Self::ForgetFlows(key, _) => Target::VirtualServer(*key),
            Self::Bind(address) | Self::Unbind(address) => Target::Address(*address),
            Self::RemoveLeftover(leftover) => Target::Leftover(*leftover),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSet(set, _) => write!(f, "create set {set}"),
            Self::GrowSet(set, capacity) => write!(f, "grow set {set} to {capacity} members"),
            Self::InstallFirewall(family, _) => write!(f, "install {family} firewall rules"),
            Self::AddMember(set, member) => write!(f, "add {member} to set {set}"),
            Self::AddVirtualServer(key, config) => {
                write!(f, "add virtual server {key} {}", config.scheduler)
            }
            Self::SetVirtualServer(key, config) => {
                write!(f, "change virtual server {key} to {}", config.scheduler)
            }
            Self::AddRealServer(key, server) => {
                write!(
                    f,
                    "add real server {} to {key}, weight {}",
                    server.key, server.config.weight
                )
            }
            Self::SetRealServer(key, server) => {
                write!(
                    f,
                    "set real server {} of {key} to weight {}",
                    server.key, server.config.weight
                )
            }
            Self::Bind(address) => write!(f, "bind {address}"),
            Self::Unbind(address) => write!(f, "unbind {address}"),
            Self::RemoveRealServer(key, server) => {
                write!(f, "remove real server {server} of {key}")
            }
            Self::RemoveVirtualServer(key) => write!(f, "remove virtual server {key}"),
            Self::RemoveMember(set, member) => write!(f, "remove {member} from set {set}"),
            Self::ForgetFlows(key, _) => write!(f, "delete stale UDP flows of {key}"),
            Self::RemoveLeftover(leftover) => write!(f, "remove {leftover}"),
        }
    }
}

/// Connections of a real server, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// Established.
    pub active: u32,
    /// All others.
    pub inactive: u32,
}

impl Connections {
    /// Active and inactive together.
    pub fn total(self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }
}

/// Why an operation did not take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// What the caller has to do about it.
    pub kind: OpErrorKind,
    /// The whole chain of causes as one text.
    pub text: String,
}

/// What a failed operation says about the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpErrorKind {
    /// The kernel holds something else than believed, or nobody knows whether the operation took
    /// place: look again.
    Surprise,
    /// Worth trying again.
    Retry,
    /// Will not work until something outside changes.
    Refused,
}

/// What became of the operations of a plan: every one took place but these, by their index.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Index in the plan, and why.
    pub failed: Vec<(usize, OpError)>,
    /// Searches for stale flows.
    pub flows: Vec<ForgottenFlows>,
    /// How long each part of the dataplane took.
    pub took: BTreeMap<&'static str, Duration>,
}

/// One search for stale flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgottenFlows {
    /// In the flows of this family.
    pub family: Family,
    /// Flows that were deleted.
    pub deleted: u64,
    /// How long it took.
    pub took: Duration,
}

/// A look that goes on beside everything else, until somebody waits for it.
pub type Look = Pin<Box<dyn Future<Output = Result<State, OpError>> + Send>>;

/// The virtual servers that are there, without their real servers, some at a time. What changes
/// meanwhile may be missing, be as it was, or come twice; the last item is the end or an error.
pub type Listing = Pin<
    Box<dyn Stream<Item = Result<Vec<(VirtualServerKey, VirtualServerConfig)>, OpError>> + Send>,
>;

/// The kernel, as the reconciler sees it.
pub trait Dataplane {
    /// Reads everything, or fails; never a part.
    fn observe(&mut self) -> impl Future<Output = Result<State, OpError>>;

    /// Reads the host addresses on `kube-ipvs0`.
    fn addresses(&mut self) -> impl Future<Output = Result<BTreeSet<IpAddr>, OpError>>;

    /// Reads our sets with their members.
    fn sets(&mut self) -> impl Future<Output = Result<BTreeMap<SetId, SetState>, OpError>>;

    /// Begins to list the virtual servers.
    fn list_virtual_servers(&mut self) -> Result<Listing, OpError>;

    /// Begins to read the firewall rules and what other modes have left, which takes a process for
    /// each family: some milliseconds, or many where others have many rules.
    fn look_at_rules(&mut self) -> Look;

    /// Reads some virtual servers; one that does not exist is not in the result.
    fn observe_virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> impl Future<Output = Result<BTreeMap<VirtualServerKey, VirtualServerState>, OpError>>;

    /// Reads the real servers of some virtual servers, with their connections.
    fn real_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> impl Future<Output = Result<Vec<(VirtualServerKey, RealServer, Connections)>, OpError>>;

    /// Carries out a plan in its order. An operation that fails does not stop the others.
    fn apply(&mut self, plan: &Plan) -> impl Future<Output = Outcome>;
}

#[cfg(test)]
#[path = "../../tests/src/builders.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate, which uses all of it")]
mod builders;
