//! What is installed, as far as it concerns us.

use std::collections::BTreeMap;

use netlink_ipvs::Family;

use super::rule::{jump_spec, read};
use super::save::{self, Removal};
use crate::dataplane::firewall::{Chain, Entry, JUMPS, Ruleset, Table};

/// Our chains, the jumps to them, and rules of others that refer to them; nothing else of the
/// tables is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    rules: Ruleset,
    /// How often each of [`JUMPS`] is there.
    jumps: [usize; JUMPS.len()],
    /// (our chain, complete rule of another chain that leads to it).
    foreign: Vec<(Chain, String)>,
}

impl Installed {
    /// From the output of `iptables-save`, of one table or of all. Where a jump stands in its chain,
    /// how often it is there, and the policy of that chain make no difference to the
    /// [rules](Self::rules).
    pub fn parse(family: Family, save_text: &str) -> Self {
        let mut chains: BTreeMap<Chain, Vec<Entry>> = BTreeMap::new();
        let (mut jumps, mut foreign) = ([0; JUMPS.len()], Vec::new());
        for line in save::lines(save_text) {
            let Some(table) = Table::ALL.into_iter().find(|table| table.name() == line.table)
            else {
                continue;
            };
            match (Chain::by_name(table, line.chain), line.spec) {
                (Some(chain), spec) => {
                    let entries = chains.entry(chain).or_default();
                    entries.extend(spec.map(|spec| match read(family, table, spec) {
                        Ok(rule) => Entry::Ours(rule),
                        Err(spec) => Entry::Foreign(spec.into()),
                    }));
                }
                // A cheap look first: a node may have many thousand rules of others.
                (None, Some(spec)) if spec.contains("KUBE-") => {
                    if let Some(index) = jump_position(table, line.chain, spec) {
                        jumps[index] += 1;
                    } else if let Some(to) =
                        save::target(spec).and_then(|to| Chain::by_name(table, &to))
                    {
                        foreign.push((to, format!("-A {} {spec}", line.chain)));
                    }
                }
                (None, _) => {}
            }
        }
        let rules = Ruleset::found(family, chains, jumps.map(|count| count > 0));
        Self { rules, jumps, foreign }
    }

    /// What is there of ours.
    pub fn rules(&self) -> &Ruleset {
        &self.rules
    }

    /// Whether there is nothing of ours.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Rules of others that lead to our chains, as iptables-save prints them with the name of the
    /// table before them. A chain that is referred to cannot be deleted.
    pub fn foreign_references(&self) -> impl Iterator<Item = String> {
        self.foreign.iter().map(|(to, rule)| format!("{}: {rule}", to.table()))
    }

    /// The input of `iptables-restore --noflush` that removes what is there of ours; empty when
    /// nothing is. Chains that rules of others refer to are emptied but stay.
    pub fn removal_input(&self) -> String {
        let mut out = String::new();
        for table in Table::ALL {
            self.remove_of(table, |_| true, &mut out);
        }
        out
    }

    /// The part of such an input that removes those chains of a table that `which` names.
    pub(super) fn remove_of(&self, table: Table, which: impl Fn(&Chain) -> bool, out: &mut String) {
        let mut removal = Removal::default();
        for (jump, count) in JUMPS.iter().zip(self.jumps) {
            if jump.to.table() == table && which(&jump.to) {
                let rule = (jump.from.name().to_owned(), jump_spec(jump));
                removal.rules.extend(std::iter::repeat_n(rule, count));
            }
        }
        let exists = |chain: &Chain| self.rules.chain(*chain).is_some() && which(chain);
        let mut chains: Vec<Chain> = table.chains().filter(exists).collect();
        chains.sort_unstable_by_key(|chain| chain.name());
        for chain in chains {
            removal.emptied.push(chain.name().to_owned());
            if !self.foreign.iter().any(|(to, _)| *to == chain) {
                removal.deleted.push(chain.name().to_owned());
            }
        }
        removal.write(table.name(), out);
    }
}

/// The position in [`JUMPS`] of the jump that this rule of a built-in chain is.
pub(super) fn jump_position(table: Table, chain: &str, spec: &str) -> Option<usize> {
    JUMPS.iter().position(|jump| {
        jump.to.table() == table && jump.from.name() == chain && save::same(&jump_spec(jump), spec)
    })
}
