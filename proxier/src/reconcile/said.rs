//! What is said of services that do not get what they ask for: once, and in few words however many
//! they are.

use std::collections::BTreeSet;

use netlink_ipvs::VirtualServerKey;
use tracing::warn;

use super::Notice;
use super::engine::Engine;
use super::reporter::Reporter;
use crate::cluster::ObjectKey;
use crate::dataplane::{Conflict, Contribution, Skipped};
use crate::text;

/// Addresses of one service that are named, and conflicts of one step that have a line of their own.
const NAMED: usize = 20;

/// Says which addresses of a service are left out, where that has changed.
pub(super) fn skipped(key: &ObjectKey, before: Option<&Contribution>, now: Option<&Contribution>) {
    let skipped = now.map_or(&[][..], |asked| &asked.skipped);
    if skipped.is_empty() || before.is_some_and(|before| *before.skipped == *skipped) {
        return;
    }
    let text = |skipped: &Skipped| {
        let Skipped { kind, address, reason } = skipped;
        format!("{kind} {address}: {reason}")
    };
    let skipped = text::few(skipped.iter().map(text), NAMED);
    warn!(service = %key, skipped, "not programmed");
}

impl Reporter {
    /// Shows and says what has become of conflicts over these virtual servers: one line for each.
    pub(super) fn conflicts(&mut self, keys: &BTreeSet<VirtualServerKey>, engine: &Engine) {
        let mut said = 0;
        for key in keys {
            let known = !self.status.conflicts.is_empty();
            if !known && !engine.desired().is_contested(key) {
                continue;
            }
            let conflict = engine.desired().conflict(key);
            if !self.status.conflicts.put(key, conflict.clone()) {
                continue;
            }
            let Some(conflict) = conflict else { continue };
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
