//! Rules as the kernel evaluates them, whoever keeps them.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeBounds;

use super::story::Story;
use super::{Flow, Machine, Outcome};
use crate::dataplane::firewall::Hook;

/// A chain that the kernel itself calls.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) hook: Hook,
    /// Lower ones are called first.
    pub(super) priority: i32,
    /// It decides about addresses, once for each connection and direction.
    pub(super) is_nat: bool,
    /// Its name in [`Rules::chains`].
    pub(super) chain: String,
    /// What no rule decides about is dropped.
    pub(super) drops: bool,
}

/// What ends the walk through a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject,
    Masquerade,
    /// The destination is another one from here on: it is nothing of ours any more.
    Translate,
}

/// What a rule does to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is not for this packet.
    None,
    /// It may be, by something that is not known here.
    Doubt(String),
    /// It is, and the next one follows.
    Next,
    /// As before, and the mark of the packet is another one.
    Marked,
    Jump(String),
    Goto(String),
    Return,
    End(Verdict),
}

/// One rule, and how people find it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) text: String,
    pub(super) by: Box<dyn Evaluate>,
}

/// A rule in the words of who keeps it.
pub(super) trait Evaluate: fmt::Debug {
    /// What it does to a packet, whose mark it may change.
    fn evaluate(&self, flow: &mut Flow, machine: &Machine<'_>) -> Effect;

    /// Whether it has no condition.
    fn is_plain(&self) -> bool;
}

/// The rules of one family.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// In the order in which they are called.
    pub(super) base: Vec<Base>,
    pub(super) chains: HashMap<String, Vec<Rule>>,
}

/// Deeper than any ruleset that the kernel takes.
const DEEPEST: usize = 64;

impl Rules {
    pub(super) fn sort(&mut self) {
        self.base.sort_by_key(|base| base.priority);
    }

    /// Takes a packet through the base chains of a hook that have such priorities. What is accepted
    /// in one goes on to the next.
    pub(super) fn call(
        &self,
        hook: Hook,
        priorities: &impl RangeBounds<i32>,
        flow: &mut Flow,
        machine: &Machine<'_>,
        story: &mut Story,
    ) -> Result<(), Outcome> {
        let called = |base: &&Base| base.hook == hook && priorities.contains(&base.priority);
        let known = flow.has_destination;
        for base in self.base.iter().filter(called) {
            let is_asked = hook == Hook::Postrouting && !flow.is_answer || !known;
            if base.is_nat && !is_asked {
                continue;
            }
            let end = self.walk(&base.chain, 0, flow, machine, (hook, story));
            let end = end.or_else(|| {
                base.drops.then(|| {
                    story.say(hook.name(), || format!("{}: policy drop", base.chain));
                    Verdict::Drop
                })
            });
            match end {
                Some(Verdict::Drop) => return Err(Outcome::Dropped),
                Some(Verdict::Reject) => return Err(Outcome::Rejected),
                Some(Verdict::Translate) => return Err(Outcome::NotOurs),
                Some(Verdict::Masquerade) => flow.masqueraded = true,
                Some(Verdict::Accept) | None => {}
            }
        }
        flow.has_destination = true;
        Ok(())
    }

    fn walk(
        &self,
        chain: &str,
        depth: usize,
        flow: &mut Flow,
        machine: &Machine<'_>,
        (hook, story): (Hook, &mut Story),
    ) -> Option<Verdict> {
        if depth > DEEPEST {
            return None;
        }
        for rule in self.chains.get(chain).into_iter().flatten() {
            let effect = rule.by.evaluate(flow, machine);
            let said = || format!("{chain}: {}", rule.text);
            match effect {
                Effect::None | Effect::Next => {}
                Effect::Doubt(why) => story.doubt(hook.name(), &said, &why),
                Effect::Marked => story.say(hook.name(), || match flow.mark {
                    0 => said(),
                    mark => format!("{}: mark {mark:#x}", said()),
                }),
                Effect::Jump(ref to) | Effect::Goto(ref to) => {
                    // Without a condition, the names of chains say where it leads.
                    let before = (!rule.by.is_plain()).then(|| story.begin(hook.name(), said));
                    let end = self.walk(to, depth + 1, flow, machine, (hook, story));
                    if let Some(before) = before {
                        story.forget_if_nothing_since(before);
                    }
                    if end.is_some() || matches!(effect, Effect::Goto(_)) {
                        return end;
                    }
                }
                Effect::Return => {
                    story.say(hook.name(), said);
                    return None;
                }
                Effect::End(verdict) => {
                    story.say(hook.name(), said);
                    return Some(verdict);
                }
            }
        }
        None
    }
}
