//! Rules as the kernel evaluates them, in whose words they may have been written.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::rc::Rc;

use ipnet::IpNet;
use netlink_ipvs::VirtualServerKey;
use proxier::dataplane::sets::{Member, SetId};

use super::iptables::in_member;
use super::nftables::{Field, Set};
use super::{Flow, Machine, Outcome};

/// A place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A chain that the kernel itself calls.
pub(super) struct Base {
    pub(super) hook: Hook,
    /// Lower ones are called first.
    pub(super) priority: i32,
    /// It decides about addresses, once for each connection and direction.
    pub(super) is_nat: bool,
    pub(super) chain: String,
}

/// What ends the walk through a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject,
    Masquerade,
}

/// The rules of one family.
pub(super) struct Rules {
    /// In the order in which they are called.
    base: Vec<Base>,
    chains: HashMap<String, Vec<Rule>>,
}

/// What a packet has to be, each with whether it has to be that.
pub(super) type Matches = Vec<(bool, Match)>;

pub(super) struct Rule {
    pub(super) matches: Matches,
    pub(super) target: Target,
}

pub(super) enum Match {
    Source(IpNet),
    Interface(String),
    Protocol(String),
    /// A member of a set that the state has. What is true is compared with the sender's.
    Member(SetId, Vec<bool>),
    /// An element of a set that the text has.
    Element(Vec<Field>, Rc<Set>),
    SourceLocal,
    DestinationLocal,
    Bridged,
    /// The value of these bits.
    Mark(u32, u32),
    New,
    Known,
    /// Only TCP, UDP and SCTP are walked.
    Ping,
    Vip(IpAddr),
    VipPort(u16),
    VipProtocol(u16),
}

pub(super) enum Target {
    Chain(String),
    Return,
    /// These bits are turned around after those are cleared.
    Mark {
        cleared: u32,
        turned: u32,
    },
    /// The mark becomes that of the member that is the destination and port, if there is one.
    MarkOf(Marks),
    End(Verdict),
}

/// What has marks for destinations and ports.
pub(super) enum Marks {
    Set(SetId),
    Map(Rc<Set>),
}

impl Marks {
    fn of(&self, flow: &Flow, machine: &Machine<'_>) -> Option<u32> {
        match self {
            Self::Set(set) => {
                let members = machine.state.sets.get(set).map(|set| &set.members);
                members.into_iter().flatten().find_map(|member| match member {
                    Member::Marked(.., mark) if in_member(member, &[false, false], flow) => {
                        Some(*mark)
                    }
                    _ => None,
                })
            }
            Self::Map(map) => map.mark(flow),
        }
    }
}

impl Rules {
    /// # Panics
    /// If a rule leads to a chain that is not there.
    pub(super) fn new(mut base: Vec<Base>, chains: HashMap<String, Vec<Rule>>) -> Self {
        for rule in chains.values().flatten() {
            if let Target::Chain(to) = &rule.target {
                assert!(chains.contains_key(to), "a rule leads to {to}, which is not there");
            }
        }
        base.sort_by_key(|base| base.priority);
        Self { base, chains }
    }

    /// Takes a packet through the base chains of a hook that have such priorities. What is accepted
    /// in one goes on to the next.
    pub(super) fn call(
        &self,
        hook: Hook,
        priorities: &impl RangeBounds<i32>,
        flow: &mut Flow,
        machine: &Machine<'_>,
    ) -> Result<(), Outcome> {
        let called = |base: &&Base| base.hook == hook && priorities.contains(&base.priority);
        let known = flow.has_destination;
        for base in self.base.iter().filter(called) {
            if base.is_nat && known && hook != Hook::Postrouting {
                continue;
            }
            match self.walk(&base.chain, flow, machine) {
                Some(Verdict::Drop) => return Err(Outcome::Dropped),
                Some(Verdict::Reject) => return Err(Outcome::Rejected),
                Some(Verdict::Masquerade) => {
                    assert!(base.is_nat && hook == Hook::Postrouting, "masquerade in {hook:?}");
                    flow.masqueraded = true;
                }
                Some(Verdict::Accept) | None => {}
            }
        }
        flow.has_destination = true;
        Ok(())
    }

    fn walk(&self, chain: &str, flow: &mut Flow, machine: &Machine<'_>) -> Option<Verdict> {
        for rule in self.chains.get(chain).into_iter().flatten() {
            if !rule.matches.iter().all(|(wanted, it)| it.is(flow, machine) == *wanted) {
                continue;
            }
            match &rule.target {
                Target::Chain(chain) => {
                    if let Some(verdict) = self.walk(chain, flow, machine) {
                        return Some(verdict);
                    }
                }
                Target::Return => return None,
                Target::MarkOf(marks) => {
                    flow.mark = marks.of(flow, machine).unwrap_or(flow.mark);
                }
                Target::Mark { cleared, turned } => flow.mark = (flow.mark & !cleared) ^ turned,
                Target::End(verdict) => return Some(*verdict),
            }
        }
        None
    }
}

impl Match {
    fn is(&self, flow: &Flow, machine: &Machine<'_>) -> bool {
        let taken_by = match flow.taken_by {
            Some(VirtualServerKey::Address { address, port, protocol }) => {
                Some((address, port, protocol.number()))
            }
            _ => None,
        };
        match self {
            Self::Source(net) => net.contains(&flow.source),
            Self::Interface(name) => match name.strip_suffix(['+', '*']) {
                Some(prefix) => flow.interface.starts_with(prefix),
                None => flow.interface == name,
            },
            Self::Protocol(name) => flow.protocol.to_string() == *name,
            Self::Member(set, sources) => {
                let members = machine.state.sets.get(set).map(|set| &set.members);
                members.into_iter().flatten().any(|member| in_member(member, sources, flow))
            }
            Self::Element(fields, set) => set.has(fields, flow),
            Self::SourceLocal => machine.is_local(flow.source),
            Self::DestinationLocal => machine.is_local(flow.destination),
            Self::Bridged => flow.bridged,
            Self::Mark(value, mask) => flow.mark & mask == *value,
            // Only first packets are walked.
            Self::New => true,
            Self::Known | Self::Ping => false,
            Self::Vip(vip) => taken_by.is_some_and(|(address, ..)| address == *vip),
            Self::VipPort(vport) => taken_by.is_some_and(|(_, port, _)| port == *vport),
            Self::VipProtocol(number) => taken_by.is_some_and(|(.., it)| it == *number),
        }
    }
}

/// Words as a shell splits them.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} in a rule"))
}

/// A hexadecimal number.
pub(super) fn bits(text: &str) -> u32 {
    let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{text} is no mark"));
    u32::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text} is no mark"))
}
