//! Looking at what was not just written: everything once in a while, and what drains.
//!
//! So that no change waits for all of it, it is read in pieces, between which the loop looks for
//! events: the kernel gives real servers one virtual server at a time, and the rules take processes,
//! for which nobody waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use netlink_ipvs::{RealServer, VirtualServerKey};
use tokio::time::Instant;
use tracing::warn;

use super::{Notice, Reconciler};
use crate::dataplane::{Dataplane, Look, OpError, Piece, State, Target, differing};

/// Virtual servers whose real servers are read at once: a millisecond.
const SLICE: usize = 16;
/// Of the time until everything was read, one part in so many goes into reading.
const SHARE: u32 = 10;

/// What is still to be read.
#[derive(Default)]
pub(super) struct Unread {
    pieces: BTreeSet<Piece>,
    /// The rules, from the next look on.
    rules: bool,
    /// The look at the rules that goes on, and what was believed of them when it began.
    looking: Option<(State, Look)>,
    /// Virtual servers whose real servers are to be compared.
    audit: Vec<VirtualServerKey>,
    /// Virtual servers with connections to count of real servers that drain.
    drains: Vec<VirtualServerKey>,
    /// Something of the audit could not be read.
    failed: bool,
    /// Somebody has to be told what came of it.
    ended: bool,
    /// The next read, not before.
    not_before: Option<Instant>,
    /// When all of it is to be read.
    until: Option<Instant>,
}

impl Unread {
    /// Whether there is something to begin with.
    fn has_next(&self) -> bool {
        !self.pieces.is_empty()
            || (self.rules && self.looking.is_none())
            || !self.audit.is_empty()
            || !self.drains.is_empty()
    }

    /// When the next piece is to be read, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.has_next().then(|| self.not_before.unwrap_or_else(Instant::now))
    }

    /// Leaves the processor to others after this read: so long that reading is a small share, and
    /// that all of it is read in time.
    fn pause(&mut self, took: Duration) {
        let now = Instant::now();
        let left = self.pieces.len() + (self.audit.len() + self.drains.len()) / SLICE + 1;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let rest = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let spare = (rest / left).saturating_sub(took);
        self.not_before = Some(now + (took * (SHARE - 1)).min(spare));
    }

    /// Whether an audit has ended that no step has drawn the balance of.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits for the rules; for ever when nobody looks at them.
    pub(super) async fn rules(&mut self) -> Result<State, OpError> {
        match &mut self.looking {
            Some((_, look)) => look.await,
            None => std::future::pending().await,
        }
    }
}

impl<D: Dataplane> Reconciler<D> {
    /// Whether an audit is not at its end.
    pub fn is_auditing(&self) -> bool {
        self.unread.has_next() || self.unread.looking.is_some() || self.unread.ended
    }

    /// From now on everything is read, piece by piece, if it is time.
    pub(super) fn begin_due_audit(&mut self, now: Instant) {
        if self.believed.is_none() || now < self.due.audit {
            return;
        }
        self.due.audit = now + self.timing.sync_period;
        self.unread.until = Some(now + self.timing.sync_period / 2);
        self.unread.pieces = [Piece::Addresses, Piece::VirtualServers, Piece::Sets].into();
        self.unread.rules = true;
        self.unread.failed = false;
    }

    /// Reads the next piece, if it is time.
    pub(super) async fn read_on(&mut self) {
        let began = Instant::now();
        if let Some(read) = self.unread.rules().now_or_never() {
            self.rules_read(read);
        }
        let too_early = self.unread.not_before.is_some_and(|at| at > began);
        if too_early || !self.unread.has_next() {
            return;
        }
        self.read_next().await;
        let took = began.elapsed();
        self.read_for(took);
        self.unread.pause(took);
    }

    async fn read_next(&mut self) {
        if self.unread.rules && self.unread.looking.is_none() {
            let Some(believed) = &self.believed else { return };
            self.unread.rules = false;
            self.unread.looking = Some((believed.rules(), self.dataplane.look_at_rules()));
        }
        if let Some(piece) = self.unread.pieces.pop_first() {
            match self.dataplane.observe_piece(piece).await {
                Ok(read) => self.piece_read(piece, read),
                Err(error) => self.cannot_read(error),
            }
        } else {
            let keys = slice(&mut self.unread.drains);
            self.count(keys).await;
            let keys = slice(&mut self.unread.audit);
            self.compare(keys).await;
        }
    }

    /// Compares a piece, and notes what is not as believed.
    fn piece_read(&mut self, piece: Piece, read: State) {
        let Some(believed) = &mut self.believed else { return };
        let mut other = Vec::new();
        let mut known = State::default();
        let drift = match piece {
            Piece::VirtualServers => {
                let found = read.virtual_servers;
                differing(&believed.virtual_servers, &found, |key, known, found| {
                    if known.map(|server| server.config) != found.map(|server| server.config) {
                        other.push(*key);
                    }
                });
                // A round that is not at its end goes on, or the end would never be reached.
                if self.unread.audit.is_empty() {
                    let known = |key: &VirtualServerKey| believed.virtual_servers.contains_key(key);
                    self.unread.audit = found.into_keys().filter(known).collect();
                }
                BTreeSet::new()
            }
            Piece::Addresses => {
                known.addresses = std::mem::take(&mut believed.addresses);
                let drift = known.differences(&read);
                believed.addresses = read.addresses;
                drift
            }
            Piece::Sets => {
                known.sets = std::mem::take(&mut believed.sets);
                let drift = known.differences(&read);
                believed.sets = read.sets;
                drift
            }
        };
        self.drifted(drift);
        self.unsure(other);
        self.look_ended();
    }

    /// Compares the rules, unless they were changed while they were read.
    pub(super) fn rules_read(&mut self, read: Result<State, OpError>) {
        let Some((known, _)) = self.unread.looking.take() else { return };
        match (read, &mut self.believed) {
            (Ok(read), Some(believed)) => {
                if believed.rules() == known {
                    let State { firewall, leftovers, .. } = read.clone();
                    (believed.firewall, believed.leftovers) = (firewall, leftovers);
                    self.drifted(known.differences(&read));
                }
                self.look_ended();
            }
            (Err(error), _) => self.cannot_read(error),
            (Ok(_), None) => {}
        }
    }

    /// Notes the end of an audit, but for the real servers.
    fn look_ended(&mut self) {
        let unread = &mut self.unread;
        if unread.pieces.is_empty() && unread.looking.is_none() && !unread.rules && !unread.failed {
            unread.ended = true;
            self.status.observe_error = None;
        }
    }

    /// Takes note that a step draws the balance of what was read so far.
    pub(super) fn balance_drawn(&mut self) {
        self.unread.ended = false;
    }

    /// Reads real servers, and compares them.
    async fn compare(&mut self, keys: Vec<VirtualServerKey>) {
        if keys.is_empty() {
            return;
        }
        let read = match self.dataplane.real_servers(&keys).await {
            Ok(read) => read,
            Err(error) => return self.cannot_read(error),
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
            // As with an audit: what is not at its end goes on.
            if !self.unread.has_next() {
                self.unread.until = Some(now + self.timing.drain_check);
            }
            if self.unread.drains.is_empty() {
                self.unread.drains = self.drains.virtual_servers();
            }
            let some = !self.unread.drains.is_empty();
            self.due.drain_check = some.then(|| now + self.timing.drain_check);
        }
    }

    /// Counts the connections of what has just begun to drain.
    pub(super) async fn count_fresh(&mut self) {
        let keys = self.drains.take_fresh();
        if !keys.is_empty() {
            self.due.drain_check.get_or_insert(Instant::now() + self.timing.drain_check);
            self.count(keys).await;
        }
    }

    async fn count(&mut self, keys: Vec<VirtualServerKey>) {
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

    pub(super) fn read_for(&mut self, took: Duration) {
        let measures = std::sync::Arc::make_mut(&mut self.status.measures);
        measures.worked("observe", took);
    }

    pub(super) fn cannot_read(&mut self, error: OpError) {
        warn!(error = error.text, "cannot read the kernel, keeping what is there");
        self.status.observe_error = Some(error.text);
        self.due.audit = Instant::now() + self.due.retry_delay;
        self.unread.pieces.clear();
        self.unread.audit.clear();
        self.unread.rules = false;
        (self.unread.failed, self.unread.ended) = (true, true);
    }
}

/// Takes the next few.
fn slice(keys: &mut Vec<VirtualServerKey>) -> Vec<VirtualServerKey> {
    keys.split_off(keys.len().saturating_sub(SLICE))
}
