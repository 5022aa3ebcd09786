//! What happened in one step, for those who report it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netlink_ipvs::VirtualServerKey;

use super::Counters;
use crate::cluster::ObjectKey;
use crate::dataplane::{Fate, Finished, ForgottenFlows, Outcome, Plan, Target};

/// What happened in one step. Nothing in it is about more than the step.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Contributions computed.
    pub(super) contributions: u64,
    /// Services that were computed; some more than once.
    pub(super) services: Vec<ObjectKey>,
    /// Virtual servers that they ask for, or asked for before; some more than once.
    pub(super) frontends: Vec<VirtualServerKey>,
    /// What somebody else has changed.
    pub(super) drift: BTreeSet<Target>,
    /// What could not be read, and why.
    pub(super) not_read: Vec<String>,
    /// Operations that took place and that failed, by kind.
    pub(super) operations: BTreeMap<&'static str, (u64, u64)>,
    /// Operations that failed, and why.
    pub(super) failed: Vec<(Target, String)>,
    /// Operations that were held back.
    pub(super) held_back: u64,
    /// Drains that ended by their limit.
    pub(super) cut: Vec<Cut>,
    /// Searches for stale flows.
    pub(super) flows: Vec<ForgottenFlows>,
    /// How long each part of the kernel took.
    pub(super) took: BTreeMap<&'static str, Duration>,
}

/// A drain that ended by its limit.
#[derive(Debug)]
pub(super) struct Cut {
    /// The service that had the real server.
    pub(super) service: Option<ObjectKey>,
    pub(super) finished: Finished,
}

impl Report {
    /// What became of a plan.
    pub(super) fn outcome(&mut self, plan: &Plan, outcome: &Outcome) {
        let done = |(index, op)| (!outcome.missed.contains_key(&index)).then(|| Counters::kind(op));
        let mut kinds = plan.ops.iter().enumerate().filter_map(done).peekable();
        // Many in a row are of one kind.
        while let Some(kind) = kinds.next() {
            let others = std::iter::from_fn(|| kinds.next_if_eq(&kind)).count() as u64;
            self.operations.entry(kind).or_default().0 += 1 + others;
        }
        for (index, fate) in &outcome.missed {
            let Some(op) = plan.ops.get(*index) else { continue };
            let text = match fate {
                Fate::HeldBack(_) => {
                    self.held_back += 1;
                    continue;
                }
                Fate::Failed(text) | Fate::Unsupported(text) | Fate::Unknown(text) => text,
            };
            self.operations.entry(Counters::kind(op)).or_default().1 += 1;
            self.failed.push((op.target(), format!("{op}: {text}")));
        }
        self.flows.extend(&outcome.flows);
        for (part, took) in &outcome.took {
            self.took(part, *took);
        }
    }

    /// A part of the kernel was read or written for so long.
    pub(super) fn took(&mut self, part: &'static str, took: Duration) {
        *self.took.entry(part).or_default() += took;
    }
}
