//! The end of a step: what came of it, and who is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Draining, Notice, Reconciler};
use crate::cluster::{Change, ObjectKey};
use crate::dataplane::{Dataplane, Target};

/// The next line of the log, and the next list of many draining servers, are at least so much later.
const OFTEN: Duration = Duration::from_millis(100);
/// So many draining servers are listed anew after each step.
const FEW: usize = 64;

impl<D: Dataplane> Reconciler<D> {
    /// Draws the balance of a step.
    pub(super) fn end_step(&mut self, started: Instant) {
        self.balance_drawn();
        self.status.synced = self.failed.is_empty()
            && self.unknown.is_empty()
            && self.status.observe_error.is_none();
        let families = self.settings.as_ref().map(|settings| &*settings.families);
        if self.status.step_ended(started, families.unwrap_or_default(), &self.failed) {
            self.due.succeed();
        } else {
            self.due.fail(Instant::now(), self.timing.sync_period);
        }
        let families = &self.status.families;
        let fine =
            |family| families.get(&family).is_none_or(|status| status.failing_since.is_none());
        let measures = Arc::make_mut(&mut self.status.measures);
        self.stopwatch.step_ended(started, fine, &self.status.live, measures);
        let since = self.status.failing_since;
        let too_long = since.is_some_and(|since| since.elapsed() >= self.timing.sync_period);
        let status = &self.status;
        self.notices.failing(too_long, || {
            status
                .observe_error
                .iter()
                .chain(status.errors.back())
                .next()
                .cloned()
                .unwrap_or_default()
        });
        self.show(started);
    }

    /// Says what somebody else has changed: in one line, for it may be everything.
    pub(super) fn note_drift(&mut self, drift: &BTreeSet<Target>) {
        const SHOWN: usize = 5;
        if drift.is_empty() {
            return;
        }
        self.status.counters.drift += drift.len() as u64;
        let mut targets: Vec<String> = drift.iter().take(SHOWN).map(ToString::to_string).collect();
        if drift.len() > SHOWN {
            targets.push(format!("{} more", drift.len() - SHOWN));
        }
        let targets = targets.join(", ");
        warn!(count = drift.len(), targets, "the kernel is not as it was left, repairing");
        self.notices.send(Notice::Drift(targets));
    }

    /// Notes what has caused a change that is about to be applied.
    pub(super) fn note_trigger(&mut self, change: &Change) {
        match change {
            Change::Slice(slice) if slice.triggered.is_some() => {
                let owner = ObjectKey::new(slice.key.namespace.clone(), slice.service.clone());
                let mut known = self.cluster.slices(&owner).filter(|known| known.key == slice.key);
                // The same slice read again has not been triggered again.
                if !known.any(|known| known.same_endpoints(slice)) {
                    self.stopwatch.triggered(slice);
                }
            }
            Change::SliceGone(key) => {
                if let Some(service) = self.cluster.service_of_slice(key) {
                    self.stopwatch.forget(&service);
                }
            }
            _ => {}
        }
    }

    fn show(&mut self, started: Instant) {
        self.status.complete = true;
        self.status.pending = self.failed.len() + self.unknown.len();
        // What is for people to read must not cost each of a thousand changes a second.
        let now = Instant::now();
        let often = self.shown.is_some_and(|shown| now < shown + OFTEN);
        if !often || self.status.draining.len() < FEW {
            self.status.draining = self
                .drains
                .iter()
                .map(|(virtual_server, real_server, connections, deadline)| Draining {
                    virtual_server,
                    real_server,
                    connections,
                    deadline: Instant::from_std(deadline),
                })
                .collect();
        }
        let writes = self.status.counters.writes();
        if writes != self.writes_shown && !often {
            info!(
                changes = writes - self.writes_shown,
                virtual_servers = self.status.virtual_servers,
                real_servers = self.status.real_servers,
                draining = self.status.draining.len(),
                failed = self.failed.len(),
                millis = started.elapsed().as_millis() as u64,
                "programmed"
            );
            self.writes_shown = writes;
        }
        if !often {
            self.shown = Some(now);
        }
        self.publish.send_replace(Arc::new(self.status.clone()));
    }
}
