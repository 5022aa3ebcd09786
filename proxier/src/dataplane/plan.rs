//! From the difference of two states to ordered operations.
//!
//! Make before break: whatever part of a plan has been carried out, and whatever failed in it, no
//! address is bound without its virtual server and the rules that close it, no service that has
//! endpoints before and after is without, and nothing reaches real servers that source ranges or
//! drops should keep away. The order gives this where everything works; [`Needs`] give it where
//! something fails.

mod protection;
mod virtual_server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use self::protection::Protection;
pub(crate) use self::protection::protects;
use super::sets::{Member, SetId, SetRole, SetType};
use super::{Drains, Op, Settings, State, Subject, Target, VirtualServerState};

/// Ordered operations, and what each virtual server is once they all took place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations, in their order.
    pub ops: Vec<Op>,
    /// What operations need, by their index; most need nothing.
    pub needs: BTreeMap<usize, Needs>,
    /// What is not planned although it is wanted, each with what it waits for.
    pub held: Vec<(Target, Subject)>,
    /// The virtual servers that the plan brings to what is wanted; `None` is one that is removed.
    pub intended: BTreeMap<VirtualServerKey, Option<Arc<VirtualServerState>>>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The targets of earlier operations of a plan without which an operation must not take place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Every one of these.
    pub all: Arc<[Target]>,
    /// At least one of these, unless there are none.
    pub any: Arc<[Target]>,
}

impl Needs {
    fn all(targets: Vec<Target>) -> Self {
        // Most need nothing.
        if targets.is_empty() {
            Self::default()
        } else {
            Self { all: targets.into(), ..Self::default() }
        }
    }

    /// One that is lacking, if the operations on these targets did not take place.
    pub fn missing(&self, missed: &BTreeSet<Target>) -> Option<Target> {
        let all = self.all.iter().find(|target| missed.contains(target));
        let none = !self.any.is_empty() && self.any.iter().all(|target| missed.contains(target));
        all.or_else(|| self.any.first().filter(|_| none)).copied()
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Planning<'a> {
    /// What is wanted.
    pub desired: &'a State,
    /// What is there.
    pub believed: &'a State,
    /// What drains.
    pub drains: &'a Drains,
    /// The settings of this node.
    pub settings: &'a Settings,
    /// Virtual servers that are not to be removed, as others have made them.
    pub foreign: &'a BTreeSet<VirtualServerKey>,
    /// What a target has to wait for: its own next try, or a part of the kernel that was not read.
    pub waits: &'a dyn Fn(&Target) -> Option<Subject>,
}

static NONE: BTreeSet<VirtualServerKey> = BTreeSet::new();

impl<'a> Planning<'a> {
    /// One in which nothing has to wait, and nothing is foreign.
    pub fn new(
        desired: &'a State,
        believed: &'a State,
        drains: &'a Drains,
        settings: &'a Settings,
    ) -> Self {
        Self { desired, believed, drains, settings, foreign: &NONE, waits: &|_| None }
    }
}

/// The order of operations. One that stands higher is carried out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Sysctls,
    Link,
    Sets,
    Firewall,
    AddMembers,
    /// Members by which an address is closed to those that no other set lets through.
    Close,
    /// Members that let others through an address that stays closed.
    Narrow,
    VirtualServers,
    AddRealServers,
    Quiesce,
    /// Marks come and go beside the virtual servers that they lead to.
    Unmark,
    Mark,
    Bind,
    Unbind,
    RemoveRealServers,
    /// A flag that only matters while servers drain goes after them.
    SettleVirtualServers,
    RemoveVirtualServers,
    Reopen,
    RemoveMembers,
    Flows,
    /// Rules in place of others', by which packets go until then.
    TakeOver,
    RemoveLeftovers,
}

impl Phase {
    const COUNT: usize = Self::RemoveLeftovers as usize + 1;
}

/// Plans the way from what is there to what is wanted, for the `touched` targets.
pub fn plan(from: Planning<'_>, touched: &BTreeSet<Target>) -> Plan {
    let mut planner = Planner {
        from,
        phases: std::array::from_fn(|_| Vec::new()),
        planned: Planned::default(),
        flows: BTreeSet::new(),
        out: Plan::default(),
        growing: BTreeMap::new(),
        seen: None,
    };
    // In the order of targets, so that what is needed is planned before what needs it.
    for target in touched {
        // Its virtual server stands for a real server, and comes before it.
        match target {
            Target::RealServer(key, _) if touched.contains(&Target::VirtualServer(*key)) => {}
            Target::RealServer(key, _) if planner.seen == Some(*key) => {}
            _ => planner.target(target),
        }
    }
    planner.grow_sets();
    planner.finish()
}

struct Planner<'a> {
    from: Planning<'a>,
    /// The operations of each phase.
    phases: [Vec<(Op, Option<Needs>)>; Phase::COUNT],
    /// The targets of those on which others may depend.
    planned: Planned,
    /// Virtual servers whose stale flows are deleted.
    flows: BTreeSet<VirtualServerKey>,
    out: Plan,
    /// Of the sets at stake, the wanted capacity, and how many members are added.
    growing: BTreeMap<SetId, (u32, usize)>,
    /// The last virtual server that was planned.
    seen: Option<VirtualServerKey>,
}

impl Planner<'_> {
    fn target(&mut self, target: &Target) {
        let Planning { desired, believed, settings, .. } = self.from;
        match *target {
            Target::Sysctl(path) => {
                let wanted = desired.sysctls.get(path);
                if let Some(wanted) = wanted.filter(|_| believed.sysctls.get(path) != wanted) {
                    self.push(Phase::Sysctls, Op::SetSysctl(path, wanted.clone()));
                }
            }
            Target::Link if believed.interface.up && !desired.interface.up => {
                self.push(Phase::Link, Op::TakeLinkDown);
            }
            Target::Link => {}
            Target::Set(set) => match (desired.sets.get(&set), believed.sets.get(&set)) {
                (Some(wanted), None) => {
                    self.push(Phase::Sets, Op::CreateSet(set, wanted.capacity));
                }
                (Some(wanted), Some(_)) => {
                    self.growing.entry(set).or_default().0 = wanted.capacity;
                }
                (None, _) => {}
            },
            Target::Firewall(family) => self.firewall(family),
            Target::Member(set, member) => self.member(set, member),
            Target::ForeignMembers(set) => {
                let known = believed.sets.get(&set).filter(|known| !known.foreign.is_empty());
                if let Some(known) = known.filter(|_| settings.families.contains(&set.family)) {
                    let members = known.foreign.iter().cloned().collect();
                    self.push(Phase::Narrow, Op::RemoveForeignMembers(set, members));
                }
            }
            Target::Expiry(set) => {
                let known = believed.sets.get(&set).filter(|known| !known.members.is_empty());
                if let Some(known) = known.filter(|_| settings.families.contains(&set.family)) {
                    let members = known.members.iter().copied().collect();
                    // Before others go: it would bring them back.
                    self.push(Phase::AddMembers, Op::RenewMembers(set, members));
                }
            }
            Target::VirtualServer(key) | Target::RealServer(key, _) => self.virtual_server(key),
            Target::Flows(key) => {
                let servers = desired.virtual_servers.get(&key);
                let keep = servers.map(|known| known.real_servers.clone()).unwrap_or_default();
                self.forget_flows(key, keep);
            }
            Target::Address(address) => self.address(address),
            Target::ForeignAddress(foreign) => {
                if believed.interface.foreign.contains(&foreign) {
                    self.push(Phase::Link, Op::RemoveForeignAddress(foreign));
                }
            }
            Target::Leftover(leftover) => {
                let family = leftover.family();
                if settings.families.contains(&family)
                    && believed.leftovers.contains(&leftover)
                    && settings.removes(leftover, &believed.leftovers)
                {
                    // Without our rules nothing would take the packets.
                    let needs = self.needs([self.rules_there(family)]);
                    let op = Op::RemoveLeftover(leftover);
                    self.push_unless(Phase::RemoveLeftovers, op, needs);
                }
            }
        }
    }

    fn firewall(&mut self, family: Family) {
        let Planning { desired, believed, .. } = self.from;
        let Some(rules) = desired.firewall.get(&family) else { return };
        if believed.firewall.get(&family) != Some(rules) {
            let last = self.rules_come_last(family);
            let phase = if last { Phase::TakeOver } else { Phase::Firewall };
            // One that is neither there nor planned may be somebody else's, to which rules can refer:
            // only trying tells.
            let sets = SetId::all().filter(|set| set.family == family).map(Target::Set);
            let needs = sets.filter(|set| self.planned.contains(set)).collect();
            let op = Op::InstallFirewall(family, rules.clone());
            self.push_needing(phase, op, Needs::all(needs));
        }
    }

    /// A set, and whether it is there.
    fn set_there(&self, set: SetId) -> (Target, bool) {
        (Target::Set(set), self.from.believed.sets.contains_key(&set))
    }

    /// What an operation needs of this plan, given all that it needs and whether that is there; or
    /// what it waits for, if something is neither there nor planned.
    fn needs(&self, all: impl IntoIterator<Item = (Target, bool)>) -> Result<Needs, Subject> {
        let mut planned = Vec::new();
        for (target, there) in all {
            if self.planned.contains(&target) {
                planned.push(target);
            } else if !there {
                return Err((self.from.waits)(&target).unwrap_or(Subject::Target(target)));
            }
        }
        Ok(Needs::all(planned))
    }

    /// Whether rules of iptables mode take the packets, until everything is there.
    fn is_taken_over(&self, family: Family) -> bool {
        self.from.settings.takes_over(family, &self.from.believed.leftovers)
    }

    /// Whether rules of others do the work until all sets are filled.
    fn rules_come_last(&self, family: Family) -> bool {
        self.from.settings.rules_come_last(family, &self.from.believed.leftovers)
    }

    fn member(&mut self, set: SetId, member: Member) {
        let Planning { desired, believed, settings, .. } = self.from;
        // What closes an address comes after what opens it, and goes before.
        let closes = matches!(set.role, SetRole::LoadBalancerFw | SetRole::IpvsIps);
        match (desired.has_member(set, &member), believed.has_member(set, &member)) {
            (true, false) => {
                let phase = match set.role {
                    _ if closes => Phase::Close,
                    SetRole::LocalMark => Phase::Mark,
                    _ => Phase::AddMembers,
                };
                let needs = match self.set_there(set) {
                    (_, true) => Ok(Needs::default()),
                    lacking => self.needs([lacking]),
                };
                let needs = needs.and_then(|needs| self.mark_needs(&member, needs));
                if self.push_unless(phase, Op::AddMember(set, member), needs) {
                    self.growing.entry(set).or_default().1 += 1;
                }
            }
            (false, true) if settings.families.contains(&set.family) => {
                let protected = protection::closed_by(set, &member);
                let still_there = match protected {
                    Some(Target::Address(ip)) => believed.interface.addresses.contains(&ip),
                    Some(Target::VirtualServer(key)) => {
                        believed.virtual_servers.contains_key(&key)
                            && !desired.virtual_servers.contains_key(&key)
                    }
                    _ => false,
                };
                let phase = match closes {
                    true => Phase::Reopen,
                    false if set.role == SetRole::LocalMark => Phase::Unmark,
                    false if self.narrows(set, &member) => Phase::Narrow,
                    false => Phase::RemoveMembers,
                };
                let op = Op::RemoveMember(set, member);
                let needs = protected.filter(|_| still_there).into_iter().collect();
                self.push_needing(phase, op, Needs::all(needs));
            }
            _ => {}
        }
    }

    /// What the mark of a frontend needs besides: what protects the frontend protects what the mark leads to.
    fn mark_needs(&self, member: &Member, needs: Needs) -> Result<Needs, Subject> {
        let Member::Marked(address, protocol, port, 1..) = *member else { return Ok(needs) };
        match self.protection(&VirtualServerKey::new(address, port, protocol)) {
            Protection::InPlace => Ok(needs),
            Protection::Planned(targets) => {
                Ok(Needs::all(needs.all.iter().copied().chain(targets).collect()))
            }
            Protection::Unknown(subject) | Protection::Missing(subject) => Err(subject),
        }
    }

    /// The mark that a frontend has or should have.
    fn mark_in(state: &State, key: &VirtualServerKey) -> Option<Member> {
        let &VirtualServerKey::Address { address, port, protocol } = key else { return None };
        let members = &state.sets.get(&SetRole::LocalMark.of(key.family()))?.members;
        let first = Member::Marked(address, protocol, port, 0);
        let found = members.range(first..).next()?;
        matches!(found, Member::Marked(ip, of, at, _) if (*ip, *of, *at) == (address, protocol, port))
            .then_some(*found)
    }

    fn address(&mut self, address: IpAddr) {
        let Planning { desired, believed, settings, .. } = self.from;
        let (wanted, bound) = (&desired.interface.addresses, &believed.interface.addresses);
        match (wanted.contains(&address), bound.contains(&address)) {
            (true, false) => {
                let needs = self.bind_needs(address);
                self.push_unless(Phase::Bind, Op::Bind(address), needs);
            }
            (false, true) if settings.families.contains(&Family::of(address)) => {
                self.push(Phase::Unbind, Op::Unbind(address));
            }
            _ => {}
        }
    }

    fn push(&mut self, phase: Phase, op: Op) -> bool {
        self.push_needing(phase, op, Needs::default())
    }

    /// Whether the operation is part of the plan. What it needs may have to wait itself.
    fn push_needing(&mut self, phase: Phase, op: Op, needs: Needs) -> bool {
        let target = op.target();
        let waits = self.from.waits;
        let lacking = |needed: &Target| waits(needed).filter(|_| !self.planned.contains(needed));
        if let Some(subject) = waits(&target).or_else(|| needs.all.iter().find_map(lacking)) {
            self.out.held.push((target, subject));
            return false;
        }
        if is_needed_by_others(&target) && self.comes_in_time(phase, &target) {
            self.planned.insert(target);
        }
        let needs = (!needs.all.is_empty() || !needs.any.is_empty()).then_some(needs);
        self.phases[phase as usize].push((op, needs));
        true
    }

    /// Whether what needs an operation can be part of the same plan. While rules of iptables mode do the work,
    /// what needs ours comes before them.
    fn comes_in_time(&self, phase: Phase, target: &Target) -> bool {
        match target {
            Target::Firewall(family) => phase != Phase::TakeOver || self.is_taken_over(*family),
            _ => true,
        }
    }

    /// The same for an operation that may have to wait for what is not part of the plan.
    fn push_unless(&mut self, phase: Phase, op: Op, needs: Result<Needs, Subject>) -> bool {
        match needs {
            Ok(needs) => self.push_needing(phase, op, needs),
            Err(subject) => {
                self.out.held.push((op.target(), subject));
                false
            }
        }
    }

    /// New members come before old ones go, so a set must hold both for a moment.
    fn grow_sets(&mut self) {
        for (set, (wanted, added)) in std::mem::take(&mut self.growing) {
            let known = self.from.believed.sets.get(&set);
            let Some(known) = known.filter(|_| set.set_type() != SetType::BitmapPort) else {
                continue;
            };
            let most = known.members.len() + added;
            let mut capacity = known.capacity.max(wanted);
            while (capacity as usize) < most {
                capacity = capacity.max(1).saturating_mul(2);
            }
            if capacity > known.capacity {
                self.push(Phase::Sets, Op::GrowSet(set, capacity));
            }
        }
    }

    fn finish(self) -> Plan {
        let mut plan = self.out;
        plan.ops.reserve(self.phases.iter().map(Vec::len).sum());
        let mut all = Vec::new();
        for (op, needs) in self.phases.into_iter().flatten() {
            all.extend(needs.map(|needs| (plan.ops.len(), needs)));
            plan.ops.push(op);
        }
        plan.needs = all.into_iter().collect();
        plan
    }
}

/// A set of targets, most of which come in ascending order.
#[derive(Default)]
struct Planned {
    ascending: Vec<Target>,
    others: BTreeSet<Target>,
}

impl Planned {
    fn contains(&self, target: &Target) -> bool {
        // What was planned last is asked for most.
        self.ascending.last() == Some(target)
            || self.ascending.binary_search(target).is_ok()
            || self.others.contains(target)
    }

    fn insert(&mut self, target: Target) {
        if self.ascending.last().is_none_or(|last| *last < target) {
            self.ascending.push(target);
        } else {
            self.others.insert(target);
        }
    }
}

fn is_needed_by_others(target: &Target) -> bool {
    match target {
        Target::Set(_) | Target::Firewall(_) | Target::VirtualServer(_) => true,
        Target::Member(set, _) => protection::PROTECTING.contains(&set.role),
        _ => false,
    }
}

/// The virtual server by which an address, a port and a protocol are served.
fn by_port(member: &Member) -> Option<VirtualServerKey> {
    match *member {
        Member::IpPort(address, protocol, port)
        | Member::IpPortIp(address, protocol, port, _)
        | Member::IpPortNet(address, protocol, port, _)
        | Member::Marked(address, protocol, port, _) => {
            Some(VirtualServerKey::new(address, port, protocol))
        }
        Member::Ip(_) | Member::Port(_) => None,
    }
}

/// The first of the keys of an address in their order.
fn first_key(address: IpAddr) -> VirtualServerKey {
    VirtualServerKey::new(address, 0, Protocol::Tcp)
}

#[cfg(test)]
mod tests;
