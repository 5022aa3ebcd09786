//! Looking at what was not just written: everything once in a while, and what drains.
//!
//! So that no change waits for all of it, it is read in pieces, between which the loop looks for
//! events: the kernel lists virtual servers a datagram at a time and gives real servers one virtual
//! server at a time, and the rules take processes, for which nobody waits.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use netlink_ipvs::{RealServer, VirtualServerConfig, VirtualServerKey};
use tokio::time::Instant;
use tracing::warn;

use super::{Notice, Reconciler};
use crate::dataplane::{Dataplane, Listing, Look, OpError, State, Target};

/// Virtual servers whose real servers are read at once: a millisecond. About as many are listed at
/// once.
const SLICE: usize = 16;
/// Of the time until everything was read, one part in so many goes into reading.
const SHARE: u32 = 10;

/// What an audit reads, in this order. The rules are looked at beside it, and the real servers come
/// after the virtual servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// First, because the kernel tells of their changes.
    Addresses,
    Sets,
    VirtualServers,
}

impl Part {
    const ALL: [Self; 3] = [Self::Addresses, Self::Sets, Self::VirtualServers];
}

/// What is still to be read.
#[derive(Default)]
pub(super) struct Unread {
    /// What has not begun.
    parts: BTreeSet<Part>,
    /// The list of virtual servers that goes on.
    list: Option<List>,
    /// Virtual servers that are not as believed, or were not when they were listed.
    suspects: BTreeSet<VirtualServerKey>,
    /// What was found to be not as believed among them.
    drift: BTreeSet<Target>,
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

/// A list of virtual servers that is being read.
struct List {
    listing: Listing,
    seen: HashSet<VirtualServerKey>,
    /// How many there should be.
    expected: usize,
}

impl Unread {
    /// Whether there is something to begin with.
    fn has_next(&self) -> bool {
        self.next_part().is_some()
            || (self.rules && self.looking.is_none())
            || self.list.is_some()
            || !self.suspects.is_empty()
            || !self.audit.is_empty()
            || !self.drains.is_empty()
    }

    /// What can begin. A round through the virtual servers ends before the next one, or its end
    /// would never be reached.
    fn next_part(&self) -> Option<Part> {
        let part = *self.parts.first()?;
        let busy = self.list.is_some() || !self.audit.is_empty();
        (part != Part::VirtualServers || !busy).then_some(part)
    }

    /// When the next piece is to be read, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        self.has_next().then(|| self.not_before.unwrap_or_else(Instant::now))
    }

    /// Leaves the processor to others after this read: so long that reading is a small share, and
    /// that all of it is read in time. What may have to be repaired does not wait.
    fn pause(&mut self, took: Duration) {
        if !self.suspects.is_empty() {
            self.not_before = None;
            return;
        }
        let now = Instant::now();
        // After a list of virtual servers come their real servers.
        let listed = |list: &List| 2 * list.expected - list.expected.min(list.seen.len());
        let servers = self.audit.len() + self.drains.len() + self.list.as_ref().map_or(0, listed);
        let left = u32::try_from(self.parts.len() + servers / SLICE + 1).unwrap_or(u32::MAX);
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
        self.unread.parts = Part::ALL.into();
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
        let keys = slice(&mut self.unread.drains);
        self.count(keys).await;
        if !self.unread.suspects.is_empty() {
            self.verify().await;
        } else if let Some(part) = self.unread.next_part() {
            self.unread.parts.remove(&part);
            if let Err(error) = self.read_part(part).await {
                self.cannot_read(error);
            }
        } else if self.unread.list.is_some() {
            self.list_on().await;
        } else {
            let keys = slice(&mut self.unread.audit);
            self.compare(keys).await;
        }
    }

    /// Reads a part and compares it, or begins to.
    async fn read_part(&mut self, part: Part) -> Result<(), OpError> {
        let Some(believed) = &mut self.believed else { return Ok(()) };
        let drift = match part {
            Part::Addresses => {
                let found = self.dataplane.addresses().await?;
                let drift = believed.addresses.symmetric_difference(&found);
                let drift = drift.copied().map(Target::Address).collect();
                believed.addresses = found;
                drift
            }
            Part::Sets => {
                let read = State { sets: self.dataplane.sets().await?, ..State::default() };
                let sets = std::mem::take(&mut believed.sets);
                let drift = State { sets, ..State::default() }.differences(&read);
                believed.sets = read.sets;
                drift
            }
            Part::VirtualServers => {
                let listing = self.dataplane.list_virtual_servers()?;
                let expected = believed.virtual_servers.len();
                self.unread.list = Some(List { listing, seen: HashSet::new(), expected });
                return Ok(());
            }
        };
        self.drifted(drift);
        self.look_ended();
        Ok(())
    }

    /// Reads the next of a list of virtual servers.
    async fn list_on(&mut self) {
        let (Some(list), Some(believed)) = (&mut self.unread.list, &self.believed) else { return };
        match list.listing.next().await {
            Some(Ok(servers)) => {
                let other = |(key, config): &(VirtualServerKey, VirtualServerConfig)| {
                    let known = believed.virtual_servers.get(key);
                    known.is_none_or(|known| known.config != *config)
                };
                list.seen.extend(servers.iter().map(|(key, _)| *key));
                let other = servers.into_iter().filter(other).map(|(key, _)| key);
                self.unread.suspects.extend(other);
            }
            Some(Err(error)) => self.cannot_read(error),
            None => {
                let known = believed.virtual_servers.keys().copied();
                let missing = known.clone().filter(|key| !list.seen.contains(key));
                self.unread.suspects.extend(missing);
                self.unread.audit = known.collect();
                self.unread.list = None;
                self.look_ended();
            }
        }
    }

    /// Reads by themselves some of those that were not as believed: a list may be of before the last
    /// change.
    async fn verify(&mut self) {
        let suspects = std::iter::from_fn(|| self.unread.suspects.pop_first());
        let keys: Vec<VirtualServerKey> = suspects.take(SLICE).collect();
        let mut found = match self.dataplane.observe_virtual_servers(&keys).await {
            Ok(found) => found,
            Err(error) => return self.cannot_read(error),
        };
        for key in keys {
            let found = found.remove(&key);
            let believed = self.believed.as_ref();
            if believed.and_then(|state| state.virtual_servers.get(&key)) != found.as_ref() {
                self.status.replace(self.believed.as_mut(), key, found);
                self.unread.drift.insert(Target::VirtualServer(key));
            }
        }
        if self.unread.suspects.is_empty() {
            let drift = std::mem::take(&mut self.unread.drift);
            self.drifted(drift);
            self.look_ended();
        }
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
        let servers = unread.list.is_none() && unread.suspects.is_empty();
        let rules = !unread.rules && unread.looking.is_none();
        if unread.parts.is_empty() && servers && rules && !unread.failed {
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
        for key in keys {
            let mut found = found.remove(&key).unwrap_or_default();
            found.sort_unstable_by_key(|server| server.key);
            // One that was removed meanwhile is right to have none.
            let known = believed.virtual_servers.get(&key);
            if known.is_some_and(|known| *known.real_servers != *found) {
                self.unread.suspects.insert(key);
            }
        }
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

    /// Counts and repairs what is not as believed.
    fn drifted(&mut self, mut targets: BTreeSet<Target>) {
        self.touched.extend(&targets);
        targets.retain(|target| self.is_ours(target));
        self.note_drift(&targets);
    }

    pub(super) fn read_for(&mut self, took: Duration) {
        let measures = std::sync::Arc::make_mut(&mut self.status.measures);
        measures.worked("observe", took);
    }

    pub(super) fn cannot_read(&mut self, error: OpError) {
        warn!(error = error.text, "cannot read the kernel, keeping what is there");
        self.status.observe_error = Some(error.text);
        self.due.audit = Instant::now() + self.due.retry_delay;
        self.unread.parts.clear();
        self.unread.audit.clear();
        self.unread.suspects.clear();
        self.unread.list = None;
        self.unread.rules = false;
        let drift = std::mem::take(&mut self.unread.drift);
        self.drifted(drift);
        (self.unread.failed, self.unread.ended) = (true, true);
    }
}

/// Takes the next few.
fn slice(keys: &mut Vec<VirtualServerKey>) -> Vec<VirtualServerKey> {
    keys.split_off(keys.len().saturating_sub(SLICE))
}
