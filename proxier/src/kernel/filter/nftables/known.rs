//! What of the kernel's is known, and up to which generation of its rules.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::{Duration, Instant};

use netlink_batch::{Error, ErrorKind};
use netlink_ipvs::Family;
use netlink_nftables::{Client, Set};

use crate::dataplane::firewall::Ruleset;
use crate::dataplane::sets::{SetId, SetType};
use crate::dataplane::{Op, Part};
use crate::nftables;

/// What the kernel said of its generation counts for so long, unless there is reason to doubt it: an
/// audit asks for all sets at once.
const FRESH: Duration = Duration::from_secs(1);

/// What was read or written, as long as nobody else has changed anything since.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The generation up to which all changes are known.
    generation: u32,
    /// When the kernel last said that it has no other one.
    asked: Option<Instant>,
    /// How often everything became unknown.
    forgotten: u64,
    parts: BTreeSet<Part>,
    /// The sets of each table, as they were listed.
    sets: BTreeMap<Family, Vec<Set>>,
    /// The rules that were read or written last, whether they still count or not.
    rules: BTreeMap<Family, Option<Ruleset>>,
}

impl Known {
    /// The generation up to which all changes are known.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Another number whenever others may have changed anything.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Nothing counts any more.
    pub(super) fn forget(&mut self) {
        self.forgotten += 1;
        self.asked = None;
        self.parts.clear();
        self.sets.clear();
    }

    /// Finds out whether others have changed something.
    pub(super) fn ask(&mut self, client: &mut Client, doubted: bool) -> Result<(), Error> {
        if !doubted && self.asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return Ok(());
        }
        let generation = client.generation()?;
        if generation != self.generation {
            self.forget();
            self.generation = generation;
        }
        self.asked = Some(Instant::now());
        Ok(())
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// It was read or written.
    pub(super) fn add(&mut self, part: Part) {
        self.parts.insert(part);
    }

    /// The sets of a family's table; none if it is not there.
    pub(super) fn sets(&mut self, client: &mut Client, family: Family) -> Result<&[Set], Error> {
        match self.sets.entry(family) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let sets = match client.sets(&nftables::table(family)) {
                    Ok(sets) => sets.into_iter().map(|it| it.object).collect(),
                    Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                    Err(error) => return Err(error),
                };
                Ok(entry.insert(sets))
            }
        }
    }

    /// The rules that were read or written last.
    pub(super) fn rules(&self, family: Family) -> Option<&Ruleset> {
        self.rules.get(&family)?.as_ref()
    }

    pub(super) fn set_rules(&mut self, family: Family, rules: Option<Ruleset>) {
        self.rules.insert(family, rules);
        self.parts.insert(Part::Rules(family));
    }

    /// A transaction took place for the generation that is known. It made the next one, unless it has
    /// changed nothing: then the kernel passes over it. Where that is not sure the kernel is asked.
    pub(super) fn committed<'a>(
        &mut self,
        client: &mut Client,
        ops: impl Iterator<Item = &'a Op> + Clone,
    ) {
        // The kernel passes over 0.
        let next = self.generation.checked_add(1).unwrap_or(1);
        if ops.clone().any(changes) {
            self.generation = next;
        } else {
            match client.generation() {
                Ok(generation) if generation == self.generation => {}
                Ok(generation) if generation == next => self.generation = next,
                Ok(generation) => {
                    self.forget();
                    self.generation = generation;
                }
                Err(_) => self.forget(),
            }
        }
        for op in ops {
            match op {
                Op::CreateSet(set, _) => {
                    self.sets.remove(&set.family);
                    self.parts.insert(Part::Set(*set));
                }
                Op::InstallFirewall(family, rules) => {
                    self.sets.remove(family);
                    self.set_rules(*family, Some(rules.clone()));
                }
                _ => {}
            }
        }
    }
}

/// Whether the kernel refuses a member that is there. Of a network it says the same where it overlaps
/// another one.
pub(super) fn is_told_when_there(set: SetId) -> bool {
    set.set_type() != SetType::HashIpPortNet
}

/// Whether it surely has changed something: rules were written, or the kernel would have refused what it
/// already had or had no more.
fn changes(op: &Op) -> bool {
    match op {
        Op::InstallFirewall(..) | Op::RemoveMember(..) => true,
        Op::RemoveForeignMembers(_, members) => !members.is_empty(),
        Op::RenewMembers(_, members) => !members.is_empty(),
        Op::AddMember(set, _) => is_told_when_there(*set),
        _ => false,
    }
}
