//! What is installed, as far as it concerns us.

use std::collections::BTreeMap;

use super::save::{self, Removal};
use super::{JUMPS, Jump, OUT_FILTER, Table};

/// Our chains, the jumps to them, and rules of others that refer to them; nothing else of the
/// tables is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installed {
    /// Rules of each of our chains that exist, without the `-A CHAIN`.
    chains: BTreeMap<(Table, &'static str), Vec<String>>,
    /// How often each of [`JUMPS`] is there.
    jumps: [usize; JUMPS.len()],
    /// (table, our chain, complete rule of another chain that leads to it).
    foreign: Vec<(Table, &'static str, String)>,
}

impl Installed {
    /// From the output of `iptables-save`, of one table or of all.
    pub fn parse(save_text: &str) -> Self {
        let mut out = Self::default();
        for line in save::lines(save_text) {
            let Some(table) = Table::ALL.into_iter().find(|table| table.name() == line.table)
            else {
                continue;
            };
            match (own_chain(table, line.chain), line.spec) {
                (Some(chain), spec) => {
                    let rules = out.chains.entry((table, chain)).or_default();
                    rules.extend(spec.map(save::canonical));
                }
                (None, Some(spec)) => out.note_foreign(table, line.chain, spec),
                (None, None) => {}
            }
        }
        // Each of these names another virtual server: in which order they stand is the same.
        if let Some(rules) = out.chains.get_mut(&(Table::Filter, OUT_FILTER)) {
            rules.sort_unstable();
        }
        out
    }

    /// What is there of ours in the form of [`Ruleset::save_text`](super::Ruleset::save_text): the
    /// two texts are equal exactly when there is nothing to install. Where a jump stands in its
    /// chain, how often it is there, and the policy of that chain do not show.
    pub fn save_text(&self) -> String {
        super::save_text(
            |index| self.has_jump(index),
            |table, chain| Some(self.chain(table, chain)?.iter().map(String::as_str).collect()),
        )
    }

    /// Whether there is nothing of ours.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.iter().all(|count| *count == 0)
    }

    /// Rules of others that lead to our chains, as iptables-save prints them with the name of the
    /// table before them. A chain that is referred to cannot be deleted.
    pub fn foreign_references(&self) -> impl Iterator<Item = String> {
        self.foreign.iter().map(|(table, _, rule)| format!("{table}: {rule}"))
    }

    /// The input of `iptables-restore --noflush` that removes what is there of ours; empty when
    /// nothing is. Chains that rules of others refer to are emptied but stay.
    pub fn removal_input(&self) -> String {
        let mut out = String::new();
        for table in Table::ALL {
            let mut removal = Removal::default();
            for (jump, count) in JUMPS.iter().zip(self.jumps) {
                if jump.table == table {
                    let rule = (jump.from.to_owned(), jump.spec());
                    removal.rules.extend(std::iter::repeat_n(rule, count));
                }
            }
            for (_, chain) in self.chains.keys().filter(|(of, _)| *of == table) {
                removal.emptied.push((*chain).to_owned());
                if !self.foreign.iter().any(|(of, to, _)| *of == table && to == chain) {
                    removal.deleted.push((*chain).to_owned());
                }
            }
            removal.write(table.name(), &mut out);
        }
        out
    }

    pub(super) fn chain(&self, table: Table, chain: &'static str) -> Option<&[String]> {
        self.chains.get(&(table, chain)).map(Vec::as_slice)
    }

    pub(super) fn has_jump(&self, index: usize) -> bool {
        self.jumps[index] > 0
    }

    fn note_foreign(&mut self, table: Table, chain: &str, spec: &str) {
        // A cheap look first: a node may have many thousand rules of others.
        if !spec.contains("KUBE-") {
            return;
        }
        if let Some(index) = Jump::position(table, chain, spec) {
            self.jumps[index] += 1;
        } else if let Some(to) = save::target(spec).and_then(|to| own_chain(table, &to)) {
            self.foreign.push((table, to, format!("-A {chain} {spec}")));
        }
    }
}

/// The name of this chain if it is one of ours.
fn own_chain(table: Table, name: &str) -> Option<&'static str> {
    table.chains().iter().copied().find(|chain| *chain == name)
}
