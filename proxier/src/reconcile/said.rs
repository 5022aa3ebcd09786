//! What is said of services that do not get what they ask for: once, and in few words however many
//! they are.

use std::sync::Arc;

use netlink_ipvs::VirtualServerKey;
use tracing::warn;

use super::{Notice, Reconciler};
use crate::cluster::ObjectKey;
use crate::dataplane::{Conflict, Contribution, Dataplane, Skipped};
use crate::text;

/// Addresses of one service that are named, and conflicts of one step that have a line of their own.
const NAMED: usize = 20;

impl<D: Dataplane> Reconciler<D> {
    /// Says which addresses of a service are left out, where that has changed.
    pub(super) fn say_skipped(&self, key: &ObjectKey, wanted: Option<&Contribution>) {
        let before = self.desired.contribution(key).map(|before| &*before.skipped);
        let skipped = wanted.map_or(&[][..], |wanted| &wanted.skipped);
        if skipped.is_empty() || before == Some(skipped) {
            return;
        }
        let text = |skipped: &Skipped| {
            let Skipped { kind, address, reason } = skipped;
            format!("{kind} {address}: {reason}")
        };
        let skipped = text::few(skipped.iter().map(text), NAMED);
        warn!(service = %key, skipped, "not programmed");
    }

    /// Keeps in mind that a conflict over this virtual server may have begun, changed or ended.
    pub(super) fn note_conflict(&mut self, key: VirtualServerKey) {
        if self.status.conflicts.contains_key(&key) || self.desired.is_contested(&key) {
            self.contested.insert(key);
        }
    }

    /// Shows and says what has become of the conflicts that were noted: one line for each.
    pub(super) fn say_conflicts(&mut self) {
        let mut said = 0;
        for key in std::mem::take(&mut self.contested) {
            let conflict = self.desired.conflict(&key);
            if self.status.conflicts.get(&key) == conflict.as_ref() {
                continue;
            }
            let conflicts = Arc::make_mut(&mut self.status.conflicts);
            let Some(conflict) = conflict else {
                conflicts.remove(&key);
                continue;
            };
            conflicts.insert(key, conflict.clone());
            said += 1;
            if said <= NAMED {
                say(&conflict);
            }
            self.notices.send(Notice::Conflict(conflict));
        }
        if said > NAMED {
            let more = said - NAMED;
            warn!(more, "more addresses and ports that several services claim: see the status");
        }
    }
}

fn say(conflict: &Conflict) {
    warn!(
        address = %conflict.key, winner = %conflict.winner, losers = conflict.losers_text(),
        "several services claim the same address and port: one of them has it"
    );
}
