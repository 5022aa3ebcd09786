//! The words of iptables: the firewall rules as `iptables-save` prints them and `iptables-restore`
//! takes them, and what is read back from them. No other module knows these words. Pure: `kernel`
//! starts the programs.

mod input;
mod installed;
mod leftovers;
mod rule;
pub(crate) mod save;
mod served;
mod spelling;

use std::fmt::Write as _;

use self::rule::{jump_spec, spec};
use crate::dataplane::firewall::{Chain, Entry, JUMPS, Ruleset, Table, drop_rule};

pub use self::input::closed_input;
pub use self::installed::Installed;
pub use self::leftovers::{Leftovers, Scope};
pub use self::served::note_served;

/// What `iptables-save` prints of these rules on a host that has no others: the built-in chains
/// that lead to ours, our chains by name, the jumps, the rules.
pub fn save_text(rules: &Ruleset) -> String {
    let mut out = String::new();
    let exists = |chain: &Chain| rules.chain(*chain).is_some();
    for table in Table::ALL {
        let mut chains: Vec<Chain> = table.chains().filter(exists).collect();
        if table == Table::Mangle && chains.is_empty() {
            continue;
        }
        let _ = writeln!(out, "*{table}");
        for hook in table.hooks() {
            let _ = writeln!(out, ":{} ACCEPT [0:0]", hook.name());
        }
        chains.sort_unstable_by_key(|chain| chain.name());
        for chain in &chains {
            let _ = writeln!(out, ":{chain} - [0:0]");
        }
        for hook in table.hooks() {
            for (index, jump) in JUMPS.iter().enumerate().rev() {
                if jump.to.table() == table && jump.from == *hook && rules.has_jump(index) {
                    let _ = writeln!(out, "-A {} {}", hook.name(), jump_spec(jump));
                }
            }
        }
        for chain in &chains {
            for spec in specs(rules, *chain) {
                let _ = writeln!(out, "-A {chain} {spec}");
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// The input of `iptables-restore --noflush` that installs the rules whatever is there: our
/// chains are created or emptied and filled again, and the jumps that are missing are put
/// first in their chains. Everything else stays as it is. Each table changes at once.
pub fn restore_input(rules: &Ruleset, installed: &Installed) -> String {
    let mut out = String::new();
    let wanted = |chain: &Chain| rules.chain(*chain).is_some();
    for table in Table::ALL {
        let chains: Vec<Chain> = table.chains().filter(wanted).collect();
        if !chains.is_empty() {
            let _ = writeln!(out, "*{table}");
            for chain in &chains {
                let _ = writeln!(out, ":{chain} - [0:0]");
            }
            for chain in &chains {
                for spec in specs(rules, *chain) {
                    let _ = writeln!(out, "-A {chain} {spec}");
                }
            }
            for (index, jump) in JUMPS.iter().enumerate() {
                let missing = rules.has_jump(index) && !installed.rules().has_jump(index);
                if jump.to.table() == table && missing {
                    let _ = writeln!(out, "-I {} 1 {}", jump.from.name(), jump_spec(jump));
                }
            }
            out.push_str("COMMIT\n");
        }
        // Chains that are no longer wanted, such as those of another policy.
        installed.remove_of(table, |chain| !wanted(chain), &mut out);
    }
    out
}

/// The rules of a chain, without the `-A CHAIN`.
fn specs(rules: &Ruleset, chain: Chain) -> Vec<String> {
    let family = rules.family();
    let entries = rules.chain(chain).unwrap_or_default().iter();
    let mut out: Vec<String> = entries
        .map(|entry| match entry {
            Entry::Ours(rule) => spec(family, rule),
            Entry::Foreign(spec) => spec.to_string(),
        })
        .collect();
    if chain == Chain::IpvsOutFilter {
        let drops = rules.dropped().iter().filter_map(drop_rule);
        let mut drops: Vec<String> = drops.map(|rule| spec(family, &rule)).collect();
        drops.sort_unstable();
        drops.append(&mut out);
        return drops;
    }
    out
}

#[cfg(test)]
mod tests;
