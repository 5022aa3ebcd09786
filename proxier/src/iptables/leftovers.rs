//! What kube-proxy's iptables mode leaves behind: a chain for every service and every endpoint, and
//! jumps of its own. Some chains have the names of ours.

use std::collections::BTreeMap;

use super::installed::jump_position;
use super::save::{self, Removal};
use crate::dataplane::firewall::{Chain, Table};

/// Which leftovers to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything of iptables mode. Its names include chains and jumps that we have too: ours must
    /// have been removed before.
    All,
    /// Only what we do not have: for taking over a node, once our rules are installed (before, our
    /// chains lead to those of its services, which can then only be emptied).
    NotOurs,
}

/// What iptables mode left in one family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers {
    tables: BTreeMap<&'static str, Removal>,
    /// Whether a packet can meet any of it: there are jumps, or rules in its chains.
    active: bool,
}

impl Leftovers {
    /// Looks through the output of `iptables-save` of all tables.
    pub fn find(save_text: &str, scope: Scope) -> Self {
        let mut tables: BTreeMap<&'static str, Removal> = BTreeMap::new();
        // (table, target) of rules that stay.
        let mut referred: Vec<(&'static str, String)> = Vec::new();
        let mut active = false;
        for line in save::lines(save_text) {
            let Some(table) = TABLES.iter().copied().find(|table| *table == line.table) else {
                continue;
            };
            match line.spec {
                None if is_left_over(table, line.chain, scope) => {
                    let removal = tables.entry(table).or_default();
                    removal.emptied.push(line.chain.to_owned());
                }
                Some(_) if is_left_over(table, line.chain, scope) => active = true,
                Some(spec) if spec.contains("KUBE-") => {
                    if is_jump(table, line.chain, spec, scope) {
                        let rule = (line.chain.to_owned(), spec.to_owned());
                        tables.entry(table).or_default().rules.push(rule);
                        active = true;
                    } else {
                        referred.extend(save::target(spec).map(|target| (table, target)));
                    }
                }
                None | Some(_) => {}
            }
        }
        for (table, removal) in &mut tables {
            let stays = |chain: &String| referred.iter().any(|(of, to)| of == table && to == chain);
            removal.deleted =
                removal.emptied.iter().filter(|chain| !stays(chain)).cloned().collect();
        }
        Self { tables, active }
    }

    /// Whether a packet can meet any of it. Empty chains that nothing leads to are left by
    /// kube-proxy's ipvs mode as well, and do nothing.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether nothing was left.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many chains were left.
    pub fn chains(&self) -> usize {
        self.tables.values().map(|removal| removal.emptied.len()).sum()
    }

    /// Chains, as `table: chain`, that rules of others lead to: they are emptied but stay.
    pub fn referred(&self) -> impl Iterator<Item = String> {
        self.tables.iter().flat_map(|(table, removal)| {
            let stays = removal.emptied.iter().filter(|chain| !removal.deleted.contains(chain));
            stays.map(move |chain| format!("{table}: {chain}"))
        })
    }

    /// The input of `iptables-restore --noflush` that removes them; empty when nothing was left.
    pub fn removal_input(&self) -> String {
        let mut out = String::new();
        for (table, removal) in &self.tables {
            removal.write(table, &mut out);
        }
        out
    }
}

/// The tables in which iptables mode has chains.
const TABLES: [&str; 3] = ["filter", "mangle", "nat"];

/// Chains of iptables mode by name.
const CHAINS: [(&str, &[&str]); 3] = [
    (
        "filter",
        &[
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            CANARY,
        ],
    ),
    ("mangle", &[CANARY]),
    ("nat", &["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", CANARY]),
];

const CANARY: &str = "KUBE-PROXY-CANARY";

/// In table nat, those of services and endpoints.
const PREFIXES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-"];

/// (table, from, match before the comment, comment, to)
const JUMPS: [(&str, &str, &str, &str, &str); 12] = {
    const NEW: &str = "-m conntrack --ctstate NEW ";
    const PORTALS: &str = "kubernetes service portals";
    const EXTERNAL: &str = "kubernetes externally-visible service portals";
    const FIREWALL: &str = "kubernetes load balancer firewall";
    [
        ("filter", "INPUT", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        ("filter", "FORWARD", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        ("filter", "INPUT", "", "kubernetes health check service ports", "KUBE-NODEPORTS"),
        ("filter", "FORWARD", NEW, PORTALS, "KUBE-SERVICES"),
        ("filter", "OUTPUT", NEW, PORTALS, "KUBE-SERVICES"),
        ("filter", "FORWARD", "", "kubernetes forwarding rules", "KUBE-FORWARD"),
        ("filter", "INPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "OUTPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "FORWARD", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("nat", "OUTPUT", "", PORTALS, "KUBE-SERVICES"),
        ("nat", "PREROUTING", "", PORTALS, "KUBE-SERVICES"),
        ("nat", "POSTROUTING", "", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
    ]
};

fn is_left_over(table: &str, chain: &str, scope: Scope) -> bool {
    let ours = Chain::ALL.iter().any(|own| own.table().name() == table && own.name() == chain);
    if ours && scope == Scope::NotOurs {
        return false;
    }
    CHAINS.iter().any(|(of, names)| *of == table && names.contains(&chain))
        || (table == "nat" && PREFIXES.iter().any(|prefix| chain.starts_with(prefix)))
}

fn is_jump(table: &str, from: &str, spec: &str, scope: Scope) -> bool {
    JUMPS.iter().any(|(of, chain, matches, comment, to)| {
        let text = || format!("{matches}-m comment --comment {} -j {to}", save::quoted(comment));
        *of == table
            && *chain == from
            && save::same(&text(), spec)
            && !(scope == Scope::NotOurs && is_ours(table, from, spec))
    })
}

/// Whether a rule of a built-in chain is one of our jumps.
fn is_ours(table: &str, from: &str, spec: &str) -> bool {
    let table = Table::ALL.into_iter().find(|own| own.name() == table);
    table.is_some_and(|table| jump_position(table, from, spec).is_some())
}

#[cfg(test)]
mod tests;
