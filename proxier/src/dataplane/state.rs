//! The content of a dataplane: what is wanted, what is believed and what was read have this one shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, RealServer, VirtualServerConfig, VirtualServerKey};

use super::firewall::Ruleset;
use super::leftovers::Leftover;
use super::sets::{ForeignMember, Member, SetId};
use super::{Op, Target};

/// Real servers in ascending order of their keys, each once. Shared between every state that holds
/// the same ones.
pub type RealServers = Arc<[RealServer]>;

/// A virtual server with its real servers. Shared as these are.
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
    /// How many members a hash set can hold (`maxelem`). Meaningless for bitmaps.
    pub capacity: u32,
    /// Members.
    pub members: BTreeSet<Member>,
    /// Members that this program would never add. None are ever wanted.
    pub foreign: BTreeSet<ForeignMember>,
}

impl SetState {
    /// The capacity of a set that takes as many members as there are.
    pub const UNLIMITED: u32 = u32::MAX;
}

impl Default for SetState {
    fn default() -> Self {
        Self {
            capacity: SetId::DEFAULT_CAPACITY,
            members: BTreeSet::new(),
            foreign: BTreeSet::new(),
        }
    }
}

/// An address on `kube-ipvs0` that this program never adds: with a prefix that is not a host's, or
/// with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
}

/// As `ip address` prints it.
impl fmt::Display for ForeignAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(peer) = self.peer {
            write!(f, " peer {peer}")?;
        }
        write!(f, "/{}", self.prefix_len)
    }
}

/// What the interface `kube-ipvs0` carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceState {
    /// Host addresses: those with the full prefix length.
    pub addresses: BTreeSet<IpAddr>,
    /// All other addresses. One with a shorter prefix is a black hole for its network while the link
    /// is up.
    pub foreign: BTreeSet<ForeignAddress>,
    /// The link is up. It never needs to be: addresses of a link that is down are local too.
    pub up: bool,
}

/// The firewall rules of one family, and what other modes of kube-proxy have left in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesState {
    /// Our rules, if any of them are there.
    pub rules: Option<Ruleset>,
    /// Leftovers.
    pub leftovers: BTreeSet<Leftover>,
}

/// The content of a dataplane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Virtual servers.
    pub virtual_servers: BTreeMap<VirtualServerKey, Arc<VirtualServerState>>,
    /// What is on `kube-ipvs0`.
    pub interface: InterfaceState,
    /// The sets that exist.
    pub sets: BTreeMap<SetId, SetState>,
    /// The firewall rules of each family.
    pub firewall: BTreeMap<Family, Ruleset>,
    /// What other modes of kube-proxy have left.
    pub leftovers: BTreeSet<Leftover>,
    /// Kernel settings by the path of their file. A setting that is read has the wanted value here
    /// if its own is as good.
    pub sysctls: BTreeMap<&'static str, Arc<str>>,
}

impl State {
    /// The keys of everything in it.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let sysctls = self.sysctls.keys().map(|path| Target::Sysctl(path));
        let sets = self.sets.keys().map(|set| Target::Set(*set));
        let firewall = self.firewall.keys().map(|family| Target::Firewall(*family));
        let members = self.sets.iter().flat_map(|(set, state)| {
            let foreign = (!state.foreign.is_empty()).then_some(Target::ForeignMembers(*set));
            state.members.iter().map(|member| Target::Member(*set, *member)).chain(foreign)
        });
        let servers = self.virtual_servers.keys().map(|key| Target::VirtualServer(*key));
        let leftovers = self.leftovers.iter().map(|leftover| Target::Leftover(*leftover));
        let rest = sysctls.chain(sets).chain(firewall).chain(members).chain(servers);
        rest.chain(self.interface.targets()).chain(leftovers)
    }

    /// The keys of everything that differs between two states.
    pub fn differences(&self, other: &Self) -> BTreeSet<Target> {
        let mut out = self.interface.differences(&other.interface);
        differing(&self.sysctls, &other.sysctls, |path, _, _| {
            out.insert(Target::Sysctl(path));
        });
        differing(&self.virtual_servers, &other.virtual_servers, |key, _, _| {
            out.insert(Target::VirtualServer(*key));
        });
        differing(&self.firewall, &other.firewall, |family, _, _| {
            out.insert(Target::Firewall(*family));
        });
        out.extend(
            self.leftovers.symmetric_difference(&other.leftovers).copied().map(Target::Leftover),
        );
        differing(&self.sets, &other.sets, |set, ours, theirs| {
            out.append(&mut set_differences(*set, ours, theirs));
        });
        out
    }

    /// Takes in an operation that took place, but for those on virtual servers, which
    /// [`VirtualServerState::after`] adds up.
    pub(crate) fn absorb(&mut self, op: &Op) {
        match op {
            Op::CreateSet(set, capacity) => {
                self.sets.insert(*set, SetState { capacity: *capacity, ..SetState::default() });
            }
            Op::GrowSet(set, capacity) => self.sets.entry(*set).or_default().capacity = *capacity,
            Op::InstallFirewall(family, rules) => {
                self.firewall.insert(*family, rules.clone());
            }
            Op::AddMember(set, member) => {
                self.sets.entry(*set).or_default().members.insert(*member);
            }
            Op::RemoveMember(set, member) => {
                self.sets.entry(*set).or_default().members.remove(member);
            }
            Op::RemoveForeignMembers(set, members) => {
                let state = self.sets.entry(*set).or_default();
                members.iter().for_each(|member| _ = state.foreign.remove(member));
            }
            Op::Bind(address) => _ = self.interface.addresses.insert(*address),
            Op::Unbind(address) => _ = self.interface.addresses.remove(address),
            Op::RemoveForeignAddress(foreign) => _ = self.interface.foreign.remove(foreign),
            Op::TakeLinkDown => self.interface.up = false,
            Op::SetSysctl(path, value) => _ = self.sysctls.insert(path, Arc::clone(value)),
            Op::RemoveLeftover(leftover) => _ = self.leftovers.remove(leftover),
            Op::AddVirtualServer(..)
            | Op::SetVirtualServer(..)
            | Op::AddRealServer(..)
            | Op::SetRealServer(..)
            | Op::RemoveRealServer(..)
            | Op::RemoveVirtualServer(..)
            | Op::RenewMembers(..)
            | Op::ForgetFlows(..) => {}
        }
    }

    /// Whether a set has a member.
    pub fn has_member(&self, set: SetId, member: &Member) -> bool {
        self.sets.get(&set).is_some_and(|state| state.members.contains(member))
    }
}

impl InterfaceState {
    fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let addresses = self.addresses.iter().copied().map(Target::Address);
        let foreign = self.foreign.iter().copied().map(Target::ForeignAddress);
        addresses.chain(foreign).chain(self.up.then_some(Target::Link))
    }

    /// The keys of everything that differs.
    pub(crate) fn differences(&self, other: &Self) -> BTreeSet<Target> {
        let addresses = self.addresses.symmetric_difference(&other.addresses).copied();
        let foreign = self.foreign.symmetric_difference(&other.foreign).copied();
        let link = (self.up != other.up).then_some(Target::Link);
        addresses
            .map(Target::Address)
            .chain(foreign.map(Target::ForeignAddress))
            .chain(link)
            .collect()
    }
}

impl VirtualServerState {
    /// What a virtual server is after these operations on it took place, which have effect in this
    /// order. `None` is one that does not exist.
    pub(crate) fn after<'a>(
        known: Option<&Self>,
        ops: impl IntoIterator<Item = &'a Op>,
    ) -> Option<Self> {
        let mut config = known.map(|known| known.config);
        let mut servers: BTreeMap<_, _> = known
            .into_iter()
            .flat_map(|known| known.real_servers.iter())
            .map(|server| (server.key, server.config))
            .collect();
        for op in ops {
            match op {
                Op::AddVirtualServer(_, new) | Op::SetVirtualServer(_, new) => config = Some(*new),
                Op::RemoveVirtualServer(_) => config = None,
                Op::AddRealServer(_, server) | Op::SetRealServer(_, server) => {
                    servers.insert(server.key, server.config);
                }
                Op::RemoveRealServer(_, key) => _ = servers.remove(key),
                _ => {}
            }
        }
        let real_servers = servers.into_iter().map(|(key, config)| RealServer { key, config });
        Some(Self { config: config?, real_servers: real_servers.collect() })
    }
}

/// The keys of everything that differs between two contents of one set.
pub(crate) fn set_differences(
    set: SetId,
    ours: Option<&SetState>,
    theirs: Option<&SetState>,
) -> BTreeSet<Target> {
    let none = SetState::default();
    let (known, found) = (ours.unwrap_or(&none), theirs.unwrap_or(&none));
    let members = known.members.symmetric_difference(&found.members);
    let mut out: BTreeSet<Target> = members.map(|member| Target::Member(set, *member)).collect();
    if ours.map(|set| set.capacity) != theirs.map(|set| set.capacity) {
        out.insert(Target::Set(set));
    }
    if known.foreign != found.foreign {
        out.insert(Target::ForeignMembers(set));
    }
    out
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
