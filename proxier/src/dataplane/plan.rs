//! From the difference of two states to ordered operations.
//!
//! Make before break: whatever prefix of a plan has been carried out, no address is bound without
//! its virtual server, no service that has endpoints before and after is without, and no VIP is
//! open to host processes or unfiltered sources.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use netlink_ipvs::{Family, Flags, Protocol, RealServer, RealServerKey, VirtualServerKey};

use super::leftovers::Leftover;
use super::sets::{SetId, SetRole, SetType};
use super::{Drains, Op, Settings, State, Target, VirtualServerState};

/// Ordered operations, and what each virtual server is once they all took place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations, in their order.
    pub ops: Vec<Op>,
    /// Every virtual server that the plan works on; `None` is one that is removed.
    pub intended: Vec<(VirtualServerKey, Option<VirtualServerState>)>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The order of operations. One that stands higher is carried out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Sets,
    Firewall,
    AddMembers,
    /// Members by which an address is closed to those that no other set lets through.
    Close,
    VirtualServers,
    AddRealServers,
    Quiesce,
    Bind,
    Unbind,
    RemoveRealServers,
    /// A flag that only matters while servers drain goes after them.
    SettleVirtualServers,
    RemoveVirtualServers,
    Reopen,
    RemoveMembers,
    Flows,
    /// Rules in place of those of iptables mode, by which packets go until then.
    TakeOver,
    RemoveLeftovers,
}

impl Phase {
    const COUNT: usize = Self::RemoveLeftovers as usize + 1;
}

/// Plans the way from `believed` to `desired` (with what drains) for the `touched` targets.
pub fn plan(
    desired: &State,
    believed: &State,
    touched: &BTreeSet<Target>,
    drains: &Drains,
    settings: &Settings,
) -> Plan {
    let mut planner = Planner {
        steps: std::array::from_fn(|_| Vec::new()),
        planned: 0,
        intended: Vec::new(),
        capacities: BTreeMap::new(),
        added: BTreeMap::new(),
        settings,
    };
    for target in touched {
        match target {
            Target::Set(set) => match (desired.sets.get(set), believed.sets.get(set)) {
                (Some(wanted), None) => {
                    planner.push(Phase::Sets, Op::CreateSet(*set, wanted.capacity));
                }
                (Some(wanted), Some(_)) => {
                    planner.capacities.insert(*set, wanted.capacity);
                }
                (None, _) => {}
            },
            Target::Firewall(family) => {
                let Some(rules) = desired.firewall.get(family) else { continue };
                if believed.firewall.get(family) != Some(rules) {
                    let op = Op::InstallFirewall(*family, Arc::clone(rules));
                    let taken = believed.leftovers.contains(&Leftover::Iptables(*family));
                    planner.push(if taken { Phase::TakeOver } else { Phase::Firewall }, op);
                }
            }
            Target::Member(set, member) => {
                // What closes an address comes after what opens it, and goes before.
                let closes = matches!(set.role, SetRole::LoadBalancerFw | SetRole::IpvsIps);
                match (desired.has_member(*set, member), believed.has_member(*set, member)) {
                    (true, false) => {
                        let phase = if closes { Phase::Close } else { Phase::AddMembers };
                        planner.push(phase, Op::AddMember(*set, *member));
                        *planner.added.entry(*set).or_default() += 1;
                    }
                    (false, true) if settings.families.contains(&set.family) => {
                        let phase = if closes { Phase::Reopen } else { Phase::RemoveMembers };
                        planner.push(phase, Op::RemoveMember(*set, *member));
                    }
                    _ => {}
                }
            }
            Target::Address(address) => {
                match (desired.addresses.contains(address), believed.addresses.contains(address)) {
                    (true, false) => planner.push(Phase::Bind, Op::Bind(*address)),
                    (false, true) if settings.families.contains(&Family::of(*address)) => {
                        planner.push(Phase::Unbind, Op::Unbind(*address));
                    }
                    _ => {}
                }
            }
            Target::Leftover(leftover) => {
                let served = settings.families.contains(&leftover.family());
                if served && believed.leftovers.contains(leftover) {
                    planner.push(Phase::RemoveLeftovers, Op::RemoveLeftover(*leftover));
                }
            }
            Target::VirtualServer(key) => {
                let wanted = desired.virtual_servers.get(key).map(|s| drains.overlay(key, s));
                planner.virtual_server(*key, wanted, believed.virtual_servers.get(key));
            }
        }
    }
    planner.grow_sets(believed);
    let ops = planner.steps.into_iter().reduce(|mut ops, mut phase| {
        ops.append(&mut phase);
        ops
    });
    Plan { ops: ops.unwrap_or_default(), intended: planner.intended }
}

struct Planner<'a> {
    /// The operations of each phase.
    steps: [Vec<Op>; Phase::COUNT],
    planned: usize,
    intended: Vec<(VirtualServerKey, Option<VirtualServerState>)>,
    /// Wanted capacities of sets that exist.
    capacities: BTreeMap<SetId, u32>,
    /// How many members each set gets.
    added: BTreeMap<SetId, usize>,
    settings: &'a Settings,
}

impl Planner<'_> {
    fn push(&mut self, phase: Phase, op: Op) {
        self.steps[phase as usize].push(op);
        self.planned += 1;
    }

    /// New members come before old ones go, so a set must hold both for a moment.
    fn grow_sets(&mut self, believed: &State) {
        for set in SetId::all().filter(|set| set.set_type() != SetType::BitmapPort) {
            let Some(known) = believed.sets.get(&set) else { continue };
            let most = known.members.len() + self.added.get(&set).copied().unwrap_or_default();
            let wanted = self.capacities.get(&set).copied().unwrap_or_default();
            let mut capacity = known.capacity.max(wanted);
            while (capacity as usize) < most {
                capacity = capacity.max(1).saturating_mul(2);
            }
            if capacity > known.capacity {
                self.push(Phase::Sets, Op::GrowSet(set, capacity));
            }
        }
    }

    fn virtual_server(
        &mut self,
        key: VirtualServerKey,
        wanted: Option<VirtualServerState>,
        known: Option<&VirtualServerState>,
    ) {
        let before = self.planned;
        match (&wanted, known) {
            (None, None) => {}
            (None, Some(known)) => {
                if !self.settings.owns(&key) {
                    return;
                }
                self.push(Phase::RemoveVirtualServers, Op::RemoveVirtualServer(key));
                self.forget_flows(key, &[], known.real_servers.first());
            }
            (Some(wanted), None) => {
                self.push(Phase::VirtualServers, Op::AddVirtualServer(key, wanted.config));
                self.real_servers(key, &wanted.real_servers, &[]);
                self.forget_flows(key, &wanted.real_servers, wanted.real_servers.first());
            }
            (Some(wanted), Some(known)) => {
                if wanted.config != known.config {
                    let settles = known.config.flags.contains(Flags::SCHED1)
                        && !wanted.config.flags.contains(Flags::SCHED1);
                    let phase =
                        if settles { Phase::SettleVirtualServers } else { Phase::VirtualServers };
                    self.push(phase, Op::SetVirtualServer(key, wanted.config));
                }
                if !Arc::ptr_eq(&wanted.real_servers, &known.real_servers) {
                    let gone = self.real_servers(key, &wanted.real_servers, &known.real_servers);
                    self.forget_flows(key, &wanted.real_servers, gone.as_ref());
                }
            }
        }
        if self.planned > before {
            self.intended.push((key, wanted));
        }
    }

    /// Both lists are in ascending order. The result is one real server that is removed, or the
    /// first that is added to none: either way flows may lead elsewhere.
    fn real_servers(
        &mut self,
        key: VirtualServerKey,
        wanted: &[RealServer],
        known: &[RealServer],
    ) -> Option<RealServer> {
        let mut added: Vec<RealServer> = Vec::new();
        let mut stale = if known.is_empty() { wanted.first().copied() } else { None };
        let (mut wanted, mut known) = (wanted.iter().peekable(), known.iter().peekable());
        while wanted.peek().is_some() || known.peek().is_some() {
            let want = wanted.next_if(|want| known.peek().is_none_or(|have| want.key <= have.key));
            let have = known.next_if(|have| want.is_none_or(|want| have.key == want.key));
            match (want, have) {
                (Some(want), Some(have)) if want.config != have.config => {
                    let phase = if want.config.weight == 0 {
                        Phase::Quiesce
                    } else {
                        Phase::AddRealServers
                    };
                    self.push(phase, Op::SetRealServer(key, *want));
                }
                (Some(want), None) => added.push(*want),
                (None, Some(have)) => {
                    stale = Some(*have);
                    self.push(Phase::RemoveRealServers, Op::RemoveRealServer(key, have.key));
                }
                _ => {}
            }
        }
        // Every node in its own order, always the same: or the first connection of every node
        // would go to the same pod.
        added.sort_by_cached_key(|server| shuffled(&self.settings.place.node, &server.key));
        for server in added {
            self.push(Phase::AddRealServers, Op::AddRealServer(key, server));
        }
        stale
    }

    fn forget_flows(
        &mut self,
        key: VirtualServerKey,
        keep: &[RealServer],
        stale: Option<&RealServer>,
    ) {
        let udp = matches!(key, VirtualServerKey::Address { protocol: Protocol::Udp, .. });
        if udp && stale.is_some() {
            self.push(Phase::Flows, Op::ForgetFlows(key, keep.into()));
        }
    }
}

fn shuffled(node: &str, server: &RealServerKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node, server).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
