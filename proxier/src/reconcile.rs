//! The loop that keeps the kernel as the cluster says: it drives an engine, which decides, with
//! events, time and a [`Dataplane`], and reports what came of it.
//!
//! Changes that arrive during one step are taken together in the next, at the earliest
//! `min_sync_period` after it. What the engine promises is written there.

mod audit;
mod believed;
mod directory;
mod effect;
mod engine;
mod measure;
mod notice;
mod report;
mod reporter;
mod rescue;
mod resolver;
mod retry;
mod said;
mod status;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::cluster::{Change, Cluster};
use crate::dataplane::{Dataplane, Desired, Look, Origin, Reserved, Settings};

pub use directory::{Directory, Published};
use effect::Effect;
use engine::Engine;
pub use measure::{Histogram, Live, Measures};
pub use notice::{Drift, Notice};
use reporter::Reporter;
pub use resolver::Resolver;
pub use status::{Counters, Draining, FamilyStatus, HeldBack, Status};

/// What the loop reacts to.
#[derive(Debug)]
pub enum Event {
    /// The cluster has changed. What is in one event becomes visible together: no step sees a part.
    Changes(Vec<Change>),
    /// The addresses of the node's other interfaces are now these.
    HostAddresses(Vec<IpAddr>),
    /// This node needs these addresses for itself; in place of what the same origin said before.
    Reserved(Origin, Reserved),
    /// The kernel says that an address is now on `kube-ipvs0`, or no longer.
    Bound(IpAddr, bool),
    /// Something else may have touched the kernel: look at everything again.
    Disturbed,
    /// The configuration has changed.
    Configured(Resolver, Timing),
}

impl From<Change> for Event {
    fn from(change: Change) -> Self {
        Self::Changes(vec![change])
    }
}

impl From<Vec<Change>> for Event {
    fn from(changes: Vec<Change>) -> Self {
        Self::Changes(changes)
    }
}

/// When things are due.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Everything is observed at least this often.
    pub sync_period: Duration,
    /// At least this long between the end of one step and the start of the next.
    pub min_sync_period: Duration,
    /// How long a removed real server may keep its connections.
    pub drain_timeout: Duration,
    /// How often the connections of draining real servers are counted.
    pub drain_check: Duration,
}

/// The loop.
pub struct Reconciler<D> {
    dataplane: D,
    engine: Engine,
    reporter: Reporter,
    /// The look at the rules that goes on.
    look: Option<Look>,
}

impl<D: Dataplane> Reconciler<D> {
    /// A loop over a dataplane that it knows nothing about yet. The receiver shows the status after
    /// each step.
    pub fn new(
        dataplane: D,
        resolver: Resolver,
        timing: Timing,
    ) -> (Self, watch::Receiver<Arc<Status>>) {
        let engine = Engine::new(resolver, timing, Instant::now());
        let (reporter, receiver) = Reporter::new();
        (Self { dataplane, engine, reporter, look: None }, receiver)
    }

    /// The status when health check node ports had to change last.
    pub fn node_ports(&self) -> watch::Receiver<Arc<Status>> {
        self.reporter.node_ports()
    }

    /// Tells what an operator should see from now on.
    pub fn notify(&mut self, receiver: mpsc::Sender<Notice>) {
        self.reporter.notify(receiver);
    }

    /// What is wanted, for those who explain it.
    pub fn desired(&self) -> &Desired {
        self.engine.desired()
    }

    /// The objects it knows.
    pub fn cluster(&self) -> &Cluster {
        self.engine.cluster()
    }

    /// The present settings, once everything was read.
    pub fn settings(&self) -> Option<&Settings> {
        self.engine.settings()
    }

    /// The dataplane.
    pub fn dataplane(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Whether an audit is not at its end.
    pub fn is_auditing(&self) -> bool {
        self.engine.is_auditing()
    }

    /// Runs until the senders of events are gone; then returns the dataplane as it is.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) -> D {
        const MOST_AT_ONCE: usize = 4096;
        let mut batch = Vec::new();
        let mut not_before = Instant::now();
        loop {
            let now = Instant::now();
            let wake = if self.engine.is_ready() {
                Some(self.engine.next_wake(now, not_before))
            } else {
                self.engine.rescue_due()
            };
            tokio::select! {
                biased;
                received = events.recv_many(&mut batch, MOST_AT_ONCE) => {
                    if received == 0 {
                        return self.dataplane;
                    }
                    batch.drain(..).for_each(|event| self.take(event));
                    let now = Instant::now();
                    // The first lists measure the API server, not this loop.
                    let matter = self.engine.has_work(now) && self.engine.has_adopted();
                    self.reporter.stopwatch.received(received, matter);
                    // What else is already there belongs to the same step, up to a bound.
                    let full = received == MOST_AT_ONCE;
                    if now < not_before || (full && !self.engine.is_ready()) {
                        continue;
                    }
                }
                found = look(&mut self.look) => self.engine.rules_read(found, Instant::now()),
                () = wait_until(wake) => {}
            }
            self.rescue().await;
            let started = Instant::now();
            if not_before <= started && self.engine.has_work(started) {
                self.carry_out(started).await;
                self.reporter.stopwatch.queued(events.len(), started);
                not_before = Instant::now() + self.engine.timing().min_sync_period;
            } else {
                // What this finds is work for a step.
                self.read_piece().await;
            }
        }
    }

    /// Takes in an event; the next [`Self::step`] acts on it.
    pub fn take(&mut self, event: Event) {
        self.reporter.received(&event, &self.engine);
        self.engine.take(event, Instant::now());
        self.reporter.node(self.engine.cluster().node());
    }

    /// One step, with a piece of an audit if one is under way.
    pub async fn step(&mut self) {
        if !self.engine.is_ready() {
            return self.rescue().await;
        }
        let started = Instant::now();
        if let Some(found) = look(&mut self.look).now_or_never() {
            self.engine.rules_read(found, started);
        }
        self.read_piece().await;
        self.carry_out(started).await;
    }

    /// Releases what this node needs to learn of the cluster at all, before it has.
    async fn rescue(&mut self) {
        while let Some(effect) = self.engine.next_rescue(Instant::now()) {
            match effect {
                Effect::Read(query) => {
                    let answer = self.dataplane.read(&query).await;
                    if let Err(error) = self.engine.rescue_answered(answer, Instant::now()) {
                        Reporter::rescue_failed(&error);
                    }
                }
                Effect::Write(plan) => {
                    let outcome = self.dataplane.write(&plan).await;
                    Reporter::written(&plan, &outcome);
                    let released = self.engine.rescue_written(&plan, &outcome, Instant::now());
                    self.reporter.released(&released);
                }
                Effect::Look(_) | Effect::AwaitLook | Effect::Tell(..) => {}
            }
        }
    }

    async fn carry_out(&mut self, started: Instant) {
        self.reporter.step_begins(started);
        while let Some(effect) = self.engine.next(Instant::now()) {
            self.run_effect(effect).await;
        }
        let report = self.engine.take_report();
        self.reporter.step_ended(&report, &self.engine, started);
    }

    /// Reads a piece of what can wait, if it is time.
    async fn read_piece(&mut self) {
        let began = Instant::now();
        while let Some(effect) = self.engine.next_piece(began) {
            let goes_on_beside = matches!(effect, Effect::Look(_));
            self.run_effect(effect).await;
            if !goes_on_beside {
                self.engine.piece_read(Instant::now(), began.elapsed());
                break;
            }
        }
    }

    async fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Read(query) => {
                let began = Instant::now();
                let answer = self.dataplane.read(&query).await;
                self.engine.answered(&query, answer, began.elapsed(), Instant::now());
            }
            Effect::Tell(foreign, stay) => Reporter::foreign(&foreign, stay),
            Effect::Look(families) => self.look = Some(self.dataplane.look_at_rules(&families)),
            Effect::AwaitLook => {
                let found = look(&mut self.look).await;
                self.engine.rules_read(found, Instant::now());
            }
            Effect::Write(plan) => {
                let outcome = self.dataplane.write(&plan).await;
                Reporter::written(&plan, &outcome);
                self.engine.written(&plan, &outcome, Instant::now());
            }
        }
    }
}

/// Waits for a look; for ever when there is none.
async fn look(look: &mut Option<Look>) -> <Look as Future>::Output {
    match look {
        Some(pending) => {
            let found = pending.await;
            *look = None;
            found
        }
        None => std::future::pending().await,
    }
}

/// Waits until then, or for ever.
async fn wait_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
