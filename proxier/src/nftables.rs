//! The words of nftables: the firewall rules and sets as a table of ours, as expressions of the kernel and
//! as `nft list table` prints it. No other module knows these words. Pure: `kernel` speaks to the
//! kernel.
//!
//! One table for each family, `ip proxier` and `ip6 proxier`. All that is in it is ours; nothing in
//! it depends on the tables of others. Two rules are said otherwise than to iptables
//! ([`Ruleset::for_nftables`](crate::dataplane::firewall::Ruleset::for_nftables)), and the virtual
//! servers that the node may not use are a set instead of a rule for each.

mod content;
mod element;
mod expression;
mod hold;
mod names;
mod needs;
mod served;
mod text;

use netlink_ipvs::{Family, VirtualServerKey};
use netlink_nftables as nft;
use netlink_nftables::{BaseChain, Chain as NftChain, ChainKind, Policy, TableKey};

use crate::dataplane::firewall::{Chain, Entry, Hook, JUMPS, Jump, Ruleset, Table};
use crate::dataplane::sets::SetId;
use crate::dataplane::split::EXPIRY;

pub use content::{Content, content, rule_words};
pub use element::{element, foreign_text, member, refused, refused_element};
pub use names::{REFUSED, TABLE, chain_name, is_set_of_ours, set_name};
pub use needs::Need;
pub use served::{is_reached, kube_proxy_table, note_served, served_maps};
pub use text::{commands, table_text};

/// The table of a family.
pub fn table(family: Family) -> TableKey {
    TableKey::new(nft_family(family), TABLE)
}

/// What is created for it.
pub fn new_table(family: Family) -> nft::Table {
    let comment = Some("services of Kubernetes: kept by proxier, changes are undone".to_owned());
    nft::Table { comment, ..nft::Table::new(table(family)) }
}

/// What is created for a set.
pub fn new_set(set: SetId) -> nft::Set {
    let comment = Some(set.role.comment().to_owned());
    let flags = names::set_flags(set.set_type());
    let timeout = flags.contains(nft::SetFlags::TIMEOUT).then_some(EXPIRY);
    let data = names::is_map(set).then(|| nft::MapData::Value(vec![nft::DataType::Mark]));
    let new = nft::Set::new(set_name(set.role), names::key(set));
    nft::Set { flags, comment, timeout, data, ..new }
}

/// What is created for the virtual servers that the node may not use.
pub fn new_refused_set(family: Family) -> nft::Set {
    let comment = Some("virtual servers whose source ranges leave this node out".to_owned());
    nft::Set { comment, ..nft::Set::new(names::REFUSED, names::refused_key(family)) }
}

const fn nft_family(family: Family) -> nft::Family {
    match family {
        Family::Ipv4 => nft::Family::Ipv4,
        Family::Ipv6 => nft::Family::Ipv6,
    }
}

/// The chains of the table, in the order of a packet's way, each with its rules.
pub fn chains(rules: &Ruleset) -> Vec<(NftChain, Vec<nft::Rule>)> {
    let family = rules.family();
    let mut out = Vec::new();
    for place in names::WAY {
        match place {
            // What has no rules of ours need not be called.
            names::Place::Base(table, hook)
                if jumps(*table, *hook).all(|it| !wanted(rules, it.to)) => {}
            names::Place::Ours(chain) if !wanted(rules, *chain) => {}
            names::Place::Base(table, hook) => {
                let rules = base_rules(rules, *table, *hook).collect();
                out.push((base_chain(*table, *hook), rules));
            }
            names::Place::Ours(chain) => {
                let entries = rules.chain(*chain).unwrap_or_default().iter();
                let own = entries.filter_map(|entry| match entry {
                    Entry::Ours(rule) => Some(expression::rule(family, *chain, rule)),
                    Entry::Foreign(_) => None,
                });
                let refused = (*chain == Chain::IpvsOutFilter).then(|| expression::refused(family));
                let mut new = NftChain::new(chain_name(*chain));
                new.comment = Some(names::about(*chain).to_owned());
                out.push((new, own.chain(refused).collect()));
            }
        }
    }
    if rules.holds() {
        out.extend(hold::chains(family));
    }
    out
}

fn wanted(rules: &Ruleset, chain: Chain) -> bool {
    !chain.is_of_split() || rules.chain(chain).is_some()
}

fn base_chain(table: Table, hook: Hook) -> NftChain {
    use nft::priority::{DSTNAT, FILTER, MANGLE, SRCNAT};
    let (kind, priority) = match (table, hook) {
        (Table::Nat, Hook::Postrouting) => (ChainKind::Nat, SRCNAT),
        (Table::Nat, _) => (ChainKind::Nat, DSTNAT),
        // Before IPVS, which takes packets of the node itself right after DSTNAT and gives them the
        // address of a pod.
        (Table::Mangle, _) | (Table::Filter, Hook::Output) => (ChainKind::Filter, MANGLE),
        (Table::Filter, _) => (ChainKind::Filter, FILTER),
    };
    let hook_there = match hook {
        Hook::Prerouting => nft::Hook::Prerouting,
        Hook::Input => nft::Hook::Input,
        Hook::Forward => nft::Hook::Forward,
        Hook::Output => nft::Hook::Output,
        Hook::Postrouting => nft::Hook::Postrouting,
    };
    let mut chain = NftChain::new(names::base_name(table, hook));
    chain.base = Some(BaseChain { kind, hook: hook_there, priority, policy: Policy::Accept });
    chain
}

fn base_rules(rules: &Ruleset, table: Table, hook: Hook) -> impl Iterator<Item = nft::Rule> {
    jumps(table, hook).filter(|jump| wanted(rules, jump.to)).map(base_rule)
}

fn base_rule(jump: &Jump) -> nft::Rule {
    let verdict = nft::Verdict::Jump(chain_name(jump.to).to_owned());
    let base = names::base_name(jump.to.table(), jump.from);
    let rule = nft::Rule::new(base, [nft::Expr::Verdict(verdict)]);
    nft::Rule { comment: Some(jump.comment.to_owned()), ..rule }
}

/// The jumps of a base chain in their order: kube-proxy puts each before those that are there.
fn jumps(table: Table, hook: Hook) -> impl Iterator<Item = &'static Jump> {
    let all = JUMPS.iter().rev().filter(|jump| jump.to.is_of_nftables());
    all.filter(move |jump| jump.to.table() == table && jump.from == hook)
}

/// What is there of ours: equal to what is wanted exactly when there is nothing to install. `None`
/// if there is no table, or nothing in it but sets.
pub fn understand(
    family: Family,
    sets: &[nft::Set],
    chains: &[NftChain],
    rules: &[nft::Rule],
    refused: Vec<Option<VirtualServerKey>>,
) -> Option<Ruleset> {
    if chains.is_empty() {
        return None;
    }
    // An element that is not of our making may keep the node from anything.
    let ours = refused.iter().all(Option::is_some);
    let of = |name: &str| -> Vec<&nft::Rule> {
        rules.iter().filter(|rule| rule.chain == name).collect()
    };
    let found = |chain: &NftChain| chains.iter().any(|there| there == chain);
    let holding = chains.iter().any(|chain| hold::is_ours(&chain.name));
    let holds = hold::chains(family)
        .iter()
        .all(|(chain, wanted)| found(chain) && of(&chain.name).into_iter().eq(wanted));
    // A chain that nobody knows may do anything, and a map may lead to it.
    let is_ours = |name: &str| names::is_ours(name) || holds && hold::is_ours(name);
    let known = chains.iter().all(|chain| is_ours(&chain.name)) && sets.iter().all(is_set_of_ours);
    let jump_there = |index: usize| {
        let jump = &JUMPS[index];
        if !jump.to.is_of_nftables() {
            return false;
        }
        let (table, hook) = (jump.to.table(), jump.from);
        let base = base_chain(table, hook);
        // Those that are ours, in their order, and no others.
        let mut wanted = jumps(table, hook).map(base_rule);
        let in_order = of(&base.name).into_iter().all(|rule| wanted.any(|it| it == *rule));
        let there = of(&base.name).into_iter().any(|rule| *rule == base_rule(jump));
        known && ours && found(&base) && in_order && there
    };
    let found_chains = Chain::ALL.into_iter().filter_map(|chain| {
        chains.iter().find(|there| there.name == chain_name(chain))?;
        let gate = expression::refused(family);
        let is_gate = |rule: &nft::Rule| chain == Chain::IpvsOutFilter && *rule == gate;
        let mut gated = chain != Chain::IpvsOutFilter;
        let mut entries = Vec::new();
        for rule in of(chain_name(chain)) {
            if is_gate(rule) && !gated {
                gated = true;
            } else {
                entries.push(match expression::understand(family, rule) {
                    Some(rule) => Entry::Ours(rule),
                    None => Entry::Foreign(format!("{rule:?}").into()),
                });
            }
        }
        gated.then_some((chain, entries))
    });
    let jumps = std::array::from_fn(jump_there);
    let refused = refused.into_iter().flatten().collect();
    let rules = Ruleset::with_drops(family, found_chains.collect(), jumps, refused);
    Some(if holding { rules.holding() } else { rules })
}

#[cfg(test)]
mod tests;
