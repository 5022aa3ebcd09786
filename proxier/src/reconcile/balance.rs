//! The end of a step: what came of it, and who is told.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::{Draining, Reconciler};
use crate::dataplane::Dataplane;

impl<D: Dataplane> Reconciler<D> {
    /// Draws the balance of a step.
    pub(super) fn end_step(&mut self, started: Instant) {
        self.status.synced = self.failed.is_empty()
            && self.unknown.is_empty()
            && self.status.observe_error.is_none();
        let families = self.settings.as_ref().map(|settings| &*settings.families);
        if self.status.step_ended(started, families.unwrap_or_default(), &self.failed) {
            self.due.succeed();
        } else {
            self.due.fail(Instant::now(), self.timing.sync_period);
        }
        self.show(started);
    }

    fn show(&mut self, started: Instant) {
        self.status.complete = true;
        self.status.pending = self.failed.len() + self.unknown.len();
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
        let writes = self.status.counters.writes();
        if writes != self.writes_shown {
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
        self.publish.send_replace(Arc::new(self.status.clone()));
    }
}
