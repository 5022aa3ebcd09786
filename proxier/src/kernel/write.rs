//! Carrying out a plan: what stands together and goes to the same part of the kernel goes in one
//! batch.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use dummy_iface::{AddressChange, AssignedAddress, DummyInterface, Ensured};
use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::ipset::{self, ForeignElement, SetSpec};
use super::{Kernel, failed, op_error};
use crate::dataplane::firewall::Ruleset;
use crate::dataplane::leftovers::Leftover;
use crate::dataplane::sets::SetId;
use crate::dataplane::{
    Execution, ForgottenFlows, INTERFACE, Op, OpError, OpErrorKind, Outcome, Plan, RealServers,
};
use crate::iptables::Scope;

/// Which part of the kernel an operation goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Sysctls,
    Sets,
    Firewall,
    Members,
    Ipvs,
    Addresses,
    Link,
    Flows,
    Leftovers,
}

/// Operations that failed, by their place among those of a batch, in ascending order.
type Failures = Vec<(usize, OpError)>;

impl Channel {
    fn of(op: &Op) -> Self {
        match op {
            Op::SetSysctl(..) => Self::Sysctls,
            Op::TakeLinkDown => Self::Link,
            Op::CreateSet(..) | Op::GrowSet(..) => Self::Sets,
            Op::InstallFirewall(..) => Self::Firewall,
            Op::AddMember(..) | Op::RemoveMember(..) | Op::RemoveForeignMembers(..) => {
                Self::Members
            }
            Op::AddVirtualServer(..)
            | Op::SetVirtualServer(..)
            | Op::RemoveVirtualServer(..)
            | Op::AddRealServer(..)
            | Op::SetRealServer(..)
            | Op::RemoveRealServer(..) => Self::Ipvs,
            Op::Bind(..) | Op::Unbind(..) | Op::RemoveForeignAddress(..) => Self::Addresses,
            Op::ForgetFlows(..) => Self::Flows,
            Op::RemoveLeftover(..) => Self::Leftovers,
        }
    }

    /// The name under which its time is measured.
    fn name(self) -> &'static str {
        match self {
            Self::Sysctls => "sysctl",
            Self::Sets | Self::Members => "ipset",
            Self::Firewall | Self::Leftovers => "firewall",
            Self::Ipvs => "ipvs",
            Self::Addresses | Self::Link => "address",
            Self::Flows => "conntrack",
        }
    }
}

/// The length of the next batch of a plan. An operation that needs one of several others waits for
/// their answers; everything else is refused by the kernel itself if what it needs was.
fn batch(plan: &Plan, start: usize) -> usize {
    let channel = plan.ops.get(start).map(Channel::of);
    let same = plan.ops[start..].iter().take_while(|op| Some(Channel::of(op)) == channel).count();
    if channel != Some(Channel::Ipvs) {
        return same;
    }
    let chooses = |(_, needs): &(&usize, &crate::dataplane::Needs)| !needs.any.is_empty();
    let next = plan.needs.range(start + 1..start + same).find(chooses);
    next.map_or(same, |(index, _)| index - start)
}

impl Kernel {
    pub(super) fn carry_out(&mut self, plan: &Plan) -> Outcome {
        let mut execution = Execution::new(plan);
        if let Err(error) = self.ensure_interface() {
            tracing::warn!(error = error.text, "no {INTERFACE}");
        }
        let mut start = 0;
        while start < plan.ops.len() {
            let end = start + batch(plan, start);
            let began = Instant::now();
            let channel = Channel::of(&plan.ops[start]);
            let indices: Vec<usize> =
                (start..end).filter(|index| execution.may_begin(*index)).collect();
            let ops: Vec<&Op> = indices.iter().map(|index| &plan.ops[*index]).collect();
            let failures = self.batch(channel, &ops, &mut execution.outcome.flows);
            for (at, error) in failures {
                execution.failed(indices[at], error);
            }
            *execution.outcome.took.entry(channel.name()).or_default() += began.elapsed();
            start = end;
        }
        execution.outcome
    }

    fn batch(
        &mut self,
        channel: Channel,
        ops: &[&Op],
        searches: &mut Vec<ForgottenFlows>,
    ) -> Failures {
        let one_by_one = |run: &mut dyn FnMut(&Op) -> Result<(), OpError>| {
            let results = ops.iter().enumerate().map(|(at, op)| (at, run(op)));
            results.filter_map(|(at, result)| Some((at, result.err()?))).collect()
        };
        match channel {
            Channel::Sysctls => one_by_one(&mut |op| self.sysctl_op(op)),
            Channel::Sets => one_by_one(&mut |op| self.set_op(op)),
            Channel::Firewall => one_by_one(&mut |op| self.firewall_op(op)),
            Channel::Members => self.members(ops),
            Channel::Ipvs => self.ipvs.execute(ops),
            Channel::Addresses => self.change_addresses(ops),
            Channel::Link => one_by_one(&mut |_| self.take_link_down()),
            Channel::Flows => self.flows(ops, searches),
            Channel::Leftovers => one_by_one(&mut |op| self.leftover_op(op)),
        }
    }

    fn sysctl_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::SetSysctl(path, value) = op else { return Ok(()) };
        self.sysctls.write(path, value).map_err(|error| failed(&error))
    }

    fn firewall_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::InstallFirewall(family, rules) = op else { return Ok(()) };
        let installation = self.firewall.install(rules).map_err(|error| failed(&*error))?;
        if installation.without_physdev {
            tracing::info!(%family, "the kernel has no match physdev, the rules do without it");
        }
        Ok(())
    }

    fn leftover_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::RemoveLeftover(leftover) = op else { return Ok(()) };
        let done: Result<(), Box<dyn StdError>> = match *leftover {
            Leftover::Iptables(family) => {
                let done = self.firewall.remove_leftovers(family, Scope::NotOurs);
                done.map(drop).map_err(Into::into)
            }
            Leftover::Nftables(family) => match self.nftables.delete_table(family) {
                Err(error) if error.kind() == netlink_batch::ErrorKind::NotFound => Ok(()),
                done => done.map_err(Into::into),
            },
        };
        done.map_err(|error| failed(&*error))?;
        tracing::info!("removed {leftover}");
        Ok(())
    }

    fn set_op(&mut self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::CreateSet(set, capacity) => self.create_set(&SetSpec::of(*set, *capacity)),
            Op::GrowSet(set, capacity) => {
                let remade = self.sets.remake(&SetSpec::of(*set, *capacity));
                // How far it came only reading tells.
                remade.map_err(|error| op_error(OpErrorKind::Unknown, &error))
            }
            _ => Ok(()),
        }
    }

    /// Creates a set; one of the same name that is not what we need goes, unless rules of others
    /// refer to it.
    fn create_set(&mut self, set: &SetSpec<'_>) -> Result<(), OpError> {
        match self.sets.create(set) {
            Err(error) if error.kind() == netlink_batch::ErrorKind::Exists => {}
            result => return result.map_err(|error| failed(&error)),
        }
        match self.sets.destroy(set.name) {
            // Rules may refer to a set of any type, ours as well.
            Err(error) if error.kind() == netlink_batch::ErrorKind::Busy => {
                let found = self.firewall.look(set.family).map_err(|e| failed(&*e))?;
                let ours = found.ours.filter(|rules| self.only_refer_to(set.name, rules));
                self.recreate_without(&ours.ok_or_else(|| failed(&error))?, set)
            }
            Err(error) => Err(failed(&error)),
            Ok(()) => self.sets.create(set).map_err(|error| failed(&error)),
        }
    }

    /// Whether nothing else than these rules refers to a set.
    fn only_refer_to(&mut self, name: &str, rules: &Ruleset) -> bool {
        let ours = SetId::by_name(name).map_or(0, |set| rules.references(set.role));
        let headers = self.sets.list().unwrap_or_default();
        headers.iter().any(|set| set.name == name && set.references as usize == ours)
    }

    /// Makes a set anew that only our rules refer to: they go, and come back at once.
    fn recreate_without(&mut self, rules: &Ruleset, set: &SetSpec<'_>) -> Result<(), OpError> {
        tracing::warn!(
            set = set.name,
            "is of another type: the rules go for a moment, to replace it"
        );
        self.firewall.remove(set.family).map_err(|e| failed(&*e))?;
        let made = self.sets.destroy(set.name).and_then(|()| self.sets.create(set));
        let back = self.firewall.install(rules);
        made.map_err(|error| failed(&error))?;
        // Without them the next audit finds them missing.
        back.map(drop).map_err(|error| op_error(OpErrorKind::Unknown, &*error))
    }

    fn members(&mut self, ops: &[&Op]) -> Failures {
        let foreign: BTreeMap<usize, Vec<ForeignElement>> = ops
            .iter()
            .enumerate()
            .filter_map(|(at, op)| match op {
                Op::RemoveForeignMembers(_, members) => {
                    Some((at, members.iter().map(Into::into).collect()))
                }
                _ => None,
            })
            .collect();
        // Which operation each change belongs to.
        let (mut owners, mut changes) = (Vec::new(), Vec::new());
        for (at, op) in ops.iter().enumerate() {
            match op {
                Op::AddMember(set, member) => {
                    changes.push(ipset::Change::Add(set.name(), *member));
                }
                Op::RemoveMember(set, member) => {
                    changes.push(ipset::Change::Remove(set.name(), *member));
                }
                Op::RemoveForeignMembers(set, _) => {
                    let elements = foreign.get(&at).into_iter().flatten();
                    changes.extend(
                        elements.map(|element| ipset::Change::RemoveForeign(set.name(), element)),
                    );
                }
                _ => {}
            }
            owners.resize(changes.len(), at);
        }
        let report = self.sets.apply(changes);
        let kind = |error: &netlink_batch::Error| match error.kind() {
            netlink_batch::ErrorKind::NotFound => OpErrorKind::Unknown,
            _ => OpErrorKind::Failed,
        };
        let failed = report.failed.iter();
        let failed = failed.map(|(at, error)| (*at, op_error(kind(error), error)));
        by_operation(failed, report.uncertain, |at| owners[at])
    }

    /// Creates `kube-ipvs0` if it is not there.
    fn ensure_interface(&mut self) -> Result<(), OpError> {
        if self.interface.is_none() {
            let (interface, ensured) =
                DummyInterface::ensure(INTERFACE).map_err(|error| failed(&error))?;
            if ensured == Ensured::Created {
                tracing::info!(interface = INTERFACE, "created");
            }
            self.interface = Some(interface);
        }
        Ok(())
    }

    fn change_addresses(&mut self, ops: &[&Op]) -> Failures {
        if let Err(error) = self.ensure_interface() {
            return (0..ops.len()).map(|at| (at, error.clone())).collect();
        }
        let Some(interface) = &self.interface else { return Vec::new() };
        let changes = ops.iter().filter_map(|op| match op {
            Op::Bind(address) => Some(AddressChange::Add(*address)),
            Op::Unbind(address) => Some(AddressChange::Remove(*address)),
            Op::RemoveForeignAddress(foreign) => {
                let crate::dataplane::ForeignAddress { address, prefix_len, peer } = *foreign;
                let assigned = AssignedAddress { address, prefix_len, peer };
                Some(AddressChange::RemoveAssigned(assigned))
            }
            _ => None,
        });
        let ipv6 = ops.iter().any(|op| matches!(op, Op::Bind(address) if address.is_ipv6()));
        let refused = if ipv6 { super::sysctl::allow_ipv6() } else { None };
        let report = interface.apply(changes);
        let gone = report.failed.iter().any(|(_, e)| e.kind() == dummy_iface::ErrorKind::NotFound);
        let kind = |error: &dummy_iface::Error| match error.kind() {
            dummy_iface::ErrorKind::NotFound => OpErrorKind::Unknown,
            _ => OpErrorKind::Failed,
        };
        if gone {
            // Deleted under our hands; the next attempt makes it anew.
            self.interface = None;
        }
        let failed = report.failed.iter();
        let failed = failed.map(|(at, error)| {
            let mut failure = op_error(kind(error), error);
            if let (Some(why), Some(Op::Bind(IpAddr::V6(_)))) = (&refused, ops.get(*at)) {
                failure.text = format!("{}: {why}", failure.text);
            }
            (*at, failure)
        });
        by_operation(failed, report.uncertain, |at| at)
    }

    /// The kernel takes the IPv6 addresses away, or (`keep_addr_on_down`) only the routes by which
    /// packets to them are taken in, which come back with a new address only.
    fn take_link_down(&mut self) -> Result<(), OpError> {
        let Some(interface) = &self.interface else { return Ok(()) };
        interface.set_down().map_err(|error| failed(&error))?;
        let left = interface.observe().map_err(|error| failed(&error))?.addresses;
        let left = left.into_iter().filter(|assigned| assigned.address.is_ipv6());
        let report = interface.apply(left.map(AddressChange::RemoveAssigned));
        match report.failed.first() {
            Some((_, error)) => Err(op_error(OpErrorKind::Unknown, error)),
            None if !report.uncertain.is_empty() => Err(lost_answer()),
            None => Ok(()),
        }
    }

    /// Deletes the flows that lead to no real server of their virtual server, with one dump for
    /// each family.
    fn flows(&mut self, ops: &[&Op], searches: &mut Vec<ForgottenFlows>) -> Failures {
        let mut failures = Vec::new();
        for family in [Family::Ipv4, Family::Ipv6] {
            let of_family =
                |op: &Op| matches!(op, Op::ForgetFlows(key, _) if key.family() == family);
            let own = ops.iter().enumerate().filter(|(_, op)| of_family(op));
            let own: Vec<(usize, &Op)> = own.map(|(at, op)| (at, *op)).collect();
            if let Err(error) = self.flows_of(family, &own, searches) {
                failures.extend(own.into_iter().map(|(at, _)| (at, error.clone())));
            }
        }
        failures.sort_unstable_by_key(|(at, _)| *at);
        failures
    }

    fn flows_of(
        &mut self,
        family: Family,
        ops: &[(usize, &Op)],
        searches: &mut Vec<ForgottenFlows>,
    ) -> Result<(), OpError> {
        let Some(conntrack) = self.conntrack.as_mut().filter(|_| !ops.is_empty()) else {
            return Ok(());
        };
        let wanted: BTreeMap<SocketAddr, &RealServers> = ops
            .iter()
            .filter_map(|(_, op)| match op {
                Op::ForgetFlows(VirtualServerKey::Address { address, port, .. }, keep) => {
                    Some((SocketAddr::new(*address, *port), keep))
                }
                _ => None,
            })
            .collect();
        let started = Instant::now();
        let found = conntrack.flows(family, Protocol::Udp).map_err(|error| failed(&error))?;
        let mut stale = found.flows;
        stale.retain(|flow| flow.is_stale(&wanted));
        let report = if stale.is_empty() { None } else { Some(conntrack.delete(&stale)) };
        let deleted = report
            .as_ref()
            .map_or(0, |report| report.sent.saturating_sub(report.unchanged + report.failed.len()));
        searches.push(ForgottenFlows { family, deleted: deleted as u64, took: started.elapsed() });
        if let Some(report) = report {
            let lost = report.failed.len();
            tracing::info!(%family, deleted, failed = lost, "deleted stale UDP flows");
            if let Some((_, error)) = report.failed.first() {
                return Err(failed(error));
            }
            if !report.uncertain.is_empty() {
                return Err(lost_answer());
            }
        }
        if found.complete {
            return Ok(());
        }
        let text = format!("the {family} flows changed while they were read");
        Err(OpError { kind: OpErrorKind::Failed, text })
    }
}

/// What became of operations, each of which may be several changes, by what became of the changes.
fn by_operation(
    failed: impl Iterator<Item = (usize, OpError)>,
    uncertain: Vec<Range<usize>>,
    operation: impl Fn(usize) -> usize,
) -> Failures {
    let mut out: BTreeMap<usize, OpError> = BTreeMap::new();
    for (at, error) in failed {
        out.entry(operation(at)).or_insert(error);
    }
    let lost: BTreeSet<usize> = uncertain.into_iter().flatten().map(operation).collect();
    for at in lost {
        out.entry(at).or_insert_with(lost_answer);
    }
    out.into_iter().collect()
}

pub(super) fn lost_answer() -> OpError {
    OpError { kind: OpErrorKind::Unknown, text: "the kernel's answer was lost".to_owned() }
}
