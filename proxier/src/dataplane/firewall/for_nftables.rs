//! The rules as the backend nftables has them.

use std::sync::Arc;

use netlink_ipvs::Protocol;

use super::{Chain, Content, Entry, Fields, JUMPS, Match, Rule, Ruleset, Verdict};
use crate::dataplane::sets::{SetRole, SetType};

impl Ruleset {
    /// The same rules as the backend nftables has them.
    ///
    /// * Nobody but iptables has the match `physdev`; without it no packet counts as bridged.
    /// * A set whose members have a protocol needs no match for it, and one of health check ports,
    ///   which are TCP's, needs one: nftables would read two bytes of any packet as its port.
    /// * What a set is stands at the set.
    /// * An accepted packet has passed one base chain and no more. So chains that only accept are left out,
    ///   and in [`Chain::Services`] all rules that keep a packet from no mark that it would not have
    ///   anyway. A marked packet has nothing to find in the rest, and is accepted.
    #[must_use]
    pub fn for_nftables(&self) -> Self {
        let mut content = Content::clone(&self.0);
        for (jump, there) in JUMPS.iter().zip(&mut content.base.jumps) {
            *there &= jump.to.is_of_nftables();
        }
        content.base.chains.retain(|chain, _| chain.is_of_nftables());
        if let Some(entries) = content.base.chains.get_mut(&Chain::Services) {
            // Where the client's address is kept, a node port of the same number must not hide it.
            let kept = Match::Set(SetRole::ExternalIpLocal, Fields::DstDst);
            let keeps = |rule: &Rule| rule.matches == [kept.clone(), Match::DestinationLocal];
            entries.retain(|entry| match entry {
                Entry::Ours(rule) => rule.verdict != Verdict::Accept || keeps(rule),
                Entry::Foreign(_) => true,
            });
        }
        if let Some(entries) = content.base.chains.get_mut(&Chain::MarkMasq) {
            let accept = Rule { comment: None, matches: Vec::new(), verdict: Verdict::Accept };
            entries.push(Entry::Ours(accept));
        }
        for entry in content.base.chains.values_mut().flatten() {
            let Entry::Ours(rule) = entry else { continue };
            let set = rule.matches.iter().find_map(|it| match it {
                Match::Set(of, _) => Some(*of),
                _ => None,
            });
            let by_protocol = set.is_some_and(|role| role.set_type() != SetType::BitmapPort);
            rule.matches.retain(|it| match it {
                Match::NotBridged => false,
                Match::Protocol(_) => !by_protocol,
                _ => true,
            });
            if set == Some(SetRole::HealthCheckNodePort) {
                rule.matches.insert(0, Match::Protocol(Protocol::Tcp));
            }
            if set.is_some() {
                rule.comment = None;
            }
        }
        Self(Arc::new(content))
    }
}
