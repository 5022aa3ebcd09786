//! Carrying out a plan: what stands together and goes to the same part of the kernel goes in one
//! batch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use dummy_iface::{AddressChange, AssignedAddress, DummyInterface, Ensured};
use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::filter::Failures;
use super::{Kernel, failed, op_error};
use crate::dataplane::firewall::Backend;
use crate::dataplane::{
    Execution, ForgottenFlows, INTERFACE, Op, OpError, OpErrorKind, Outcome, Plan, RealServers,
};

/// Which part of the kernel an operation goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Sysctls,
    /// Of the backend nftables, where all of it is one transaction.
    Table,
    Sets,
    Firewall,
    Members,
    Ipvs,
    Addresses,
    Link,
    Flows,
    Leftovers,
}

impl Channel {
    fn of(op: &Op, backend: Backend) -> Self {
        let channel = Self::of_parts(op);
        match (backend, channel) {
            (Backend::Nftables, Self::Sets | Self::Firewall | Self::Members) => Self::Table,
            _ => channel,
        }
    }

    fn of_parts(op: &Op) -> Self {
        match op {
            Op::SetSysctl(..) => Self::Sysctls,
            Op::TakeLinkDown => Self::Link,
            Op::CreateSet(..) | Op::GrowSet(..) => Self::Sets,
            Op::InstallFirewall(..) => Self::Firewall,
            Op::AddMember(..)
            | Op::RemoveMember(..)
            | Op::RemoveForeignMembers(..)
            | Op::RenewMembers(..) => Self::Members,
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
            Self::Table => "nftables",
            Self::Firewall | Self::Leftovers => "firewall",
            Self::Ipvs => "ipvs",
            Self::Addresses | Self::Link => "address",
            Self::Flows => "conntrack",
        }
    }
}

/// The length of the next batch of a plan. An operation that needs one of several others waits for
/// their answers; everything else is refused by the kernel itself if what it needs was.
fn batch(plan: &Plan, start: usize, backend: Backend) -> usize {
    let of = |op| Channel::of(op, backend);
    let channel = plan.ops.get(start).map(of);
    let same = plan.ops[start..].iter().take_while(|op| Some(of(op)) == channel).count();
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
            let backend = self.filter.backend();
            let end = start + batch(plan, start, backend);
            let began = Instant::now();
            let channel = Channel::of(&plan.ops[start], backend);
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
            Channel::Table
            | Channel::Sets
            | Channel::Firewall
            | Channel::Members
            | Channel::Leftovers => self.filter.execute(ops),
            Channel::Ipvs => self.ipvs.execute(ops),
            Channel::Addresses => self.change_addresses(ops),
            Channel::Link => one_by_one(&mut |_| self.take_link_down()),
            Channel::Flows => self.flows(ops, searches),
        }
    }

    fn sysctl_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::SetSysctl(path, value) = op else { return Ok(()) };
        self.sysctls.write(path, value).map_err(|error| failed(&error))
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
pub(super) fn by_operation(
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
