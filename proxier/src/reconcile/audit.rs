//! Looking at what was not just written: everything once in a while, and what drains.
//!
//! Both read real servers, which the kernel gives one virtual server at a time. So that no change
//! waits for ten thousand of them, they are read in slices, between which the loop looks for events.

use std::collections::{BTreeMap, BTreeSet};

use netlink_ipvs::{RealServer, VirtualServerKey};
use tokio::time::Instant;
use tracing::warn;

use super::{Notice, Reconciler};
use crate::dataplane::{Dataplane, OpError, State, Target, differing};

/// Virtual servers that are read before the loop looks for events again: some milliseconds.
const SLICE: usize = 64;

/// Virtual servers whose real servers are still to be read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// To compare them.
    audit: Vec<VirtualServerKey>,
    /// To count the connections of those that drain.
    drains: Vec<VirtualServerKey>,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.audit.is_empty() && self.drains.is_empty()
    }
}

impl<D: Dataplane> Reconciler<D> {
    /// Reads everything but real servers, which are read from now on in slices, and notes what is
    /// not as believed.
    pub(super) async fn audit(&mut self) {
        let began = Instant::now();
        self.due.audit = began + self.timing.sync_period;
        let observed = self.dataplane.observe_frame().await;
        self.read_for(began);
        let mut observed = match observed {
            Ok(observed) => observed,
            Err(error) => return self.cannot_read(error),
        };
        self.status.observe_error = None;
        let Some(believed) = &mut self.believed else { return };
        let known = std::mem::take(&mut believed.virtual_servers);
        let found = std::mem::take(&mut observed.virtual_servers);
        let drift = believed.differences(&observed);
        let mut other = Vec::new();
        differing(&known, &found, |key, known, found| {
            if known.map(|server| server.config) != found.map(|server| server.config) {
                other.push(*key);
            }
        });
        self.unread.audit = found.into_keys().filter(|key| known.contains_key(key)).collect();
        *believed = State { virtual_servers: known, ..observed };
        self.drifted(drift);
        self.unsure(other);
    }

    /// Reads the next slice of what is to be compared.
    pub(super) async fn audit_slice(&mut self) {
        let keys = slice(&mut self.unread.audit);
        if keys.is_empty() {
            return;
        }
        let began = Instant::now();
        let read = self.dataplane.real_servers(&keys).await;
        self.read_for(began);
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.unread.audit.clear();
                return self.cannot_read(error);
            }
        };
        let mut found: BTreeMap<VirtualServerKey, Vec<RealServer>> = BTreeMap::new();
        for (key, server, _) in read {
            found.entry(key).or_default().push(server);
        }
        let Some(believed) = &self.believed else { return };
        let mut other = Vec::new();
        for key in keys {
            let mut found = found.remove(&key).unwrap_or_default();
            found.sort_unstable_by_key(|server| server.key);
            // One that was removed meanwhile is right to have none.
            let known = believed.virtual_servers.get(&key);
            if known.is_some_and(|known| *known.real_servers != *found) {
                other.push(key);
            }
        }
        self.unsure(other);
    }

    /// Notes which connections are to be counted, if it is time.
    pub(super) fn look_after_drains(&mut self) {
        let now = Instant::now();
        if self.due.drain_check.is_some_and(|at| at <= now) {
            self.unread.drains = self.drains.virtual_servers();
            let some = !self.unread.drains.is_empty();
            self.due.drain_check = some.then(|| now + self.timing.drain_check);
        }
    }

    /// Counts the connections of what has just begun to drain, and the next slice of what else has
    /// to be counted.
    pub(super) async fn count_slice(&mut self) {
        let mut keys = self.drains.take_fresh();
        if !keys.is_empty() {
            self.due.drain_check.get_or_insert(Instant::now() + self.timing.drain_check);
        }
        keys.extend(slice(&mut self.unread.drains));
        if keys.is_empty() {
            return;
        }
        match self.dataplane.real_servers(&keys).await {
            Ok(counts) => {
                for finished in self.drains.count(&counts, Instant::now().into_std()) {
                    self.touched.insert(Target::VirtualServer(finished.virtual_server));
                    if finished.cut > 0 {
                        self.status.counters.drains_cut += 1;
                        let owner = self.desired.owner(&finished.virtual_server);
                        self.notices.send(Notice::DrainCut {
                            service: owner.map(|(service, _)| service.clone()),
                            virtual_server: finished.virtual_server,
                            real_server: finished.real_server,
                            connections: finished.cut,
                        });
                        warn!(
                            virtual_server = %finished.virtual_server,
                            real_server = %finished.real_server,
                            connections = finished.cut,
                            "drained for too long, removed with its connections"
                        );
                    }
                }
            }
            Err(error) => {
                warn!(error = error.text, "cannot count connections of draining servers");
            }
        }
    }

    /// These virtual servers are not as believed, and will be read again by themselves.
    fn unsure(&mut self, keys: Vec<VirtualServerKey>) {
        let keys = keys.into_iter().map(Target::VirtualServer);
        let known = self.drifted(keys);
        self.unknown.extend(known);
    }

    /// Counts and repairs what is not as believed; returns the virtual servers among it, be they
    /// ours or not.
    fn drifted(&mut self, targets: impl IntoIterator<Item = Target>) -> Vec<VirtualServerKey> {
        let mut servers = Vec::new();
        let mut drift = BTreeSet::new();
        for target in targets {
            if let Target::VirtualServer(key) = target {
                servers.push(key);
            }
            if self.is_ours(&target) {
                drift.insert(target);
            }
            self.touched.insert(target);
        }
        self.note_drift(&drift);
        servers
    }

    pub(super) fn read_for(&mut self, began: Instant) {
        let measures = std::sync::Arc::make_mut(&mut self.status.measures);
        measures.worked("observe", began.elapsed());
    }

    pub(super) fn cannot_read(&mut self, error: OpError) {
        warn!(error = error.text, "cannot read the kernel, keeping what is there");
        self.status.observe_error = Some(error.text);
        self.due.audit = Instant::now() + self.due.retry_delay;
    }
}

/// Takes the next few.
fn slice(keys: &mut Vec<VirtualServerKey>) -> Vec<VirtualServerKey> {
    keys.split_off(keys.len().saturating_sub(SLICE))
}
