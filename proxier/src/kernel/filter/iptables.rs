//! iptables, its programs and ipset.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;

use netlink_ipvs::Family;

use super::Failures;
use crate::dataplane::firewall::Ruleset;
use crate::dataplane::leftovers::{Leftover, NFTABLES_TABLE as KUBE_PROXY};
use crate::dataplane::sets::SetId;
use crate::dataplane::{Look, Op, OpError, OpErrorKind, RulesState, SetState};
use crate::iptables::Scope;
use crate::kernel::firewall::Firewall;
use crate::kernel::ipset::{self, ForeignElement, IpsetClient, SetSpec};
use crate::kernel::tables::Tables;
use crate::kernel::write::by_operation;
use crate::kernel::{failed, op_error};
use crate::nftables::TABLE;

/// Rules by the programs of iptables, sets by ipset.
#[derive(Debug)]
pub struct Iptables {
    pub(super) firewall: Firewall,
    sets: IpsetClient,
    /// Where other modes of kube-proxy, and our own other backend, leave something.
    tables: Tables,
}

impl Iptables {
    /// Opens what else is needed than the programs, and changes nothing.
    ///
    /// # Errors
    /// If the kernel has no ipset, or no netfilter at all.
    pub fn open(firewall: Firewall) -> Result<Self, netlink_batch::Error> {
        Ok(Self { firewall, sets: IpsetClient::open()?, tables: Tables::open()? })
    }

    /// Everything that `iptables-save` prints. One process.
    ///
    /// # Errors
    /// As for [`Firewall::save_text`].
    pub fn save_text(&self, family: Family) -> Result<String, Arc<crate::kernel::firewall::Error>> {
        self.firewall.save_text(family)
    }

    pub(super) fn set(&mut self, set: SetId) -> Result<Option<SetState>, OpError> {
        let (header, content) = match self.sets.set(set.name()) {
            Err(error) if error.kind() == netlink_batch::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|error| failed(&error))?,
        };
        // One of another kind is as good as none; creating ours deals with it.
        if !SetSpec::of(set, 0).matches(&header) {
            return Ok(None);
        }
        let capacity = header.capacity.unwrap_or(SetId::DEFAULT_CAPACITY);
        let foreign = content.foreign.iter().map(Into::into).collect();
        Ok(Some(SetState { capacity, members: content.members, foreign }))
    }

    pub(super) fn look(&mut self, families: &[Family]) -> Look {
        let families = families.to_vec();
        let tables: Vec<_> = families.iter().map(|family| self.left_tables(*family)).collect();
        let (firewall, asked) = (self.firewall.clone(), families.clone());
        let look = move |(family, tables): (Family, Result<Vec<Leftover>, OpError>)| {
            let found = firewall.look(family).map_err(|error| failed(&*error))?;
            let iptables = found.left_over.then_some(Leftover::Iptables(family));
            let leftovers = iptables.into_iter().chain(tables?).collect();
            Ok(RulesState { rules: found.ours, leftovers })
        };
        let all = tokio::task::spawn_blocking(move || {
            let tables = families.iter().copied().zip(tables);
            tables.map(|(family, tables)| (family, look((family, tables)))).collect::<Vec<_>>()
        });
        Box::pin(async move {
            all.await.unwrap_or_else(|error| {
                asked.into_iter().map(|family| (family, Err(failed(&error)))).collect()
            })
        })
    }

    fn left_tables(&mut self, family: Family) -> Result<Vec<Leftover>, OpError> {
        let all = [(KUBE_PROXY, Leftover::Nftables(family)), (TABLE, Leftover::OwnTable(family))];
        let mut out = Vec::new();
        for (name, leftover) in all {
            let there = self.tables.has(name, family).map_err(|error| failed(&error))?;
            out.extend(there.then_some(leftover));
        }
        Ok(out)
    }

    pub(super) fn execute(&mut self, ops: &[&Op]) -> Failures {
        if ops.iter().all(|op| is_of_members(op)) {
            return self.members(ops);
        }
        let results = ops.iter().enumerate().map(|(at, op)| (at, self.one(op)));
        results.filter_map(|(at, result)| Some((at, result.err()?))).collect()
    }

    fn one(&mut self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::InstallFirewall(..) => self.firewall_op(op),
            Op::RemoveLeftover(_) => self.leftover_op(op),
            _ => self.set_op(op),
        }
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
            Leftover::Nftables(family) => {
                self.tables.delete(KUBE_PROXY, family).map_err(Into::into)
            }
            Leftover::OwnTable(family) => self.tables.delete(TABLE, family).map_err(Into::into),
            // Which are the rules and sets that are wanted.
            Leftover::Ipvs(_) => Ok(()),
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
                Op::RenewMembers(set, members) => {
                    let again = members.iter().map(|it| ipset::Change::Add(set.name(), *it));
                    changes.extend(again);
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
}

fn is_of_members(op: &Op) -> bool {
    matches!(
        op,
        Op::AddMember(..)
            | Op::RemoveMember(..)
            | Op::RemoveForeignMembers(..)
            | Op::RenewMembers(..)
    )
}
