//! Tables as they are listed.

use netlink_ipvs::Family;
use netlink_nftables as nft;
use netlink_nftables::{Chain, Element, Expr, Rule, Set, TableKey};

use super::expression;
use super::text::rule_text;
use crate::dataplane::State;
use crate::dataplane::firewall::Ruleset;

/// A table with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Which table.
    pub key: TableKey,
    /// Its chains with their rules.
    pub chains: Vec<(Chain, Vec<Rule>)>,
    /// Its sets with their elements.
    pub sets: Vec<(Set, Vec<Element>)>,
}

impl Content {
    /// Whether the programs of iptables keep it, where they write to nftables.
    pub fn is_of_iptables(&self) -> bool {
        let TableKey { family, name } = &self.key;
        let tables = ["raw", "mangle", "nat", "filter", "security"];
        matches!(family, nft::Family::Ipv4 | nft::Family::Ipv6) && tables.contains(&name.as_str())
    }

    /// The chains that packets to this host come to and that drop or reject what no rule of theirs accepts,
    /// each with how: by its policy, or by its last rule. What a rule before may accept is not judged.
    pub fn closed_inputs(&self) -> Vec<(&str, &'static str)> {
        let sees =
            matches!(self.key.family, nft::Family::Ipv4 | nft::Family::Ipv6 | nft::Family::Inet);
        let closed = |(chain, rules): &'_ (Chain, Vec<Rule>)| {
            let base = chain.base.as_ref().filter(|base| sees && base.hook == nft::Hook::Input)?;
            let is_end = |rule: &Rule| {
                let mut does = rule.expressions.iter().filter(|it| **it != Expr::Counter);
                let first = does.next();
                matches!(first, Some(Expr::Verdict(nft::Verdict::Drop) | Expr::Reject(_)))
            };
            if base.policy == nft::Policy::Drop {
                Some("policy drop")
            } else if rules.iter().any(is_end) {
                Some("a rule for all that is left")
            } else {
                None
            }
        };
        let all = self.chains.iter();
        all.filter_map(|it| Some((it.0.name.as_str(), closed(it)?))).collect()
    }
}

/// What our table of a family has for this state.
pub fn content(state: &State, family: Family) -> Content {
    let rules = state.firewall.get(&family);
    let named = state.sets.iter().filter(|(set, _)| set.family == family);
    let mut sets: Vec<(Set, Vec<Element>)> = named
        .map(|(set, found)| {
            (super::new_set(*set), found.members.iter().map(super::element).collect())
        })
        .collect();
    let refused = rules.into_iter().flat_map(Ruleset::dropped);
    let refused = refused.filter_map(super::refused_element).collect();
    sets.push((super::new_refused_set(family), refused));
    Content {
        key: super::table(family),
        chains: rules.map(super::chains).unwrap_or_default(),
        sets,
    }
}

/// What nft says of a rule, without its comment, if it is one such as we make.
pub fn rule_words(family: Family, rule: &Rule) -> Option<String> {
    let mut understood = expression::understand(family, rule)?;
    understood.comment = None;
    Some(rule_text(family, &understood))
}
