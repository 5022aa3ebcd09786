//! The loop that keeps the kernel as the cluster says. It owns the index, the desired state and
//! what is believed of the kernel, and nothing else does.
//!
//! It guarantees that
//! 1. nothing is written before every kind of object has been read completely once;
//! 2. changes that arrive during one step are taken together in the next, at the earliest
//!    `min_sync_period` after it;
//! 3. work is in proportion to what changed: only dirty services are computed, only touched
//!    targets are compared;
//! 4. what fails is retried with back-off, alone, and never stops anything else;
//! 5. once in a `sync_period` everything is observed, piece by piece between events, and what differs
//!    is repaired, by the very same steps.

mod audit;
mod balance;
mod directory;
mod due;
mod first;
mod measure;
mod notice;
mod resolver;
mod said;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::VirtualServerKey;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::cluster::{Change, Cluster, Dirty, ObjectKey};
use crate::dataplane::firewall::ruleset;
use crate::dataplane::{
    Dataplane, Desired, Drains, OpErrorKind, Plan, Settings, State, Target, contribution, plan,
};

use audit::Unread;
pub use directory::{Directory, Snapshot};
use due::Due;
use measure::Stopwatch;
pub use measure::{Histogram, Live, Measures};
pub use notice::Notice;
use notice::Notices;
pub use resolver::Resolver;
pub use status::{Counters, Draining, FamilyStatus, NoLocal, Status};

/// What the loop reacts to.
#[derive(Debug)]
pub enum Event {
    /// The cluster has changed. What is in one event becomes visible together: no step sees a part.
    Changes(Vec<Change>),
    /// The addresses of the node's other interfaces are now these.
    HostAddresses(Vec<IpAddr>),
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

/// The loop's state.
pub struct Reconciler<D> {
    dataplane: D,
    resolver: Resolver,
    timing: Timing,
    cluster: Cluster,
    dirty: Dirty,
    host_addresses: Option<Vec<IpAddr>>,
    external_ips: bool,
    settings: Option<Settings>,
    desired: Desired,
    believed: Option<State>,
    touched: BTreeSet<Target>,
    /// Virtual servers over which a conflict may have changed in this step.
    contested: BTreeSet<VirtualServerKey>,
    /// Virtual servers of which nobody knows what the kernel holds.
    unknown: BTreeSet<VirtualServerKey>,
    unread: Unread,
    failed: BTreeMap<Target, String>,
    drains: Drains,
    due: Due,
    notices: Notices,
    status: Status,
    writes_shown: u64,
    shown: Option<Instant>,
    stopwatch: Stopwatch,
    publish: watch::Sender<Arc<Status>>,
}

impl<D: Dataplane> Reconciler<D> {
    /// A loop over a dataplane that it knows nothing about yet. The receiver shows the status after
    /// each step.
    pub fn new(
        dataplane: D,
        resolver: Resolver,
        timing: Timing,
    ) -> (Self, watch::Receiver<Arc<Status>>) {
        let status = Status::default();
        let (publish, receiver) = watch::channel(Arc::new(status.clone()));
        let due = Due {
            audit: Instant::now(),
            drain_check: None,
            retry: None,
            retry_delay: Due::FIRST_RETRY,
        };
        let reconciler = Self {
            dataplane,
            resolver,
            timing,
            cluster: Cluster::new(),
            dirty: Dirty::default(),
            host_addresses: None,
            external_ips: false,
            settings: None,
            desired: Desired::default(),
            believed: None,
            touched: BTreeSet::new(),
            contested: BTreeSet::new(),
            unknown: BTreeSet::new(),
            unread: Unread::default(),
            failed: BTreeMap::new(),
            drains: Drains::new(timing.drain_timeout),
            due,
            notices: Notices::default(),
            status,
            writes_shown: 0,
            shown: None,
            stopwatch: Stopwatch::default(),
            publish,
        };
        (reconciler, receiver)
    }

    /// Tells what an operator should see from now on.
    pub fn notify(&mut self, receiver: mpsc::Sender<Notice>) {
        self.notices = Notices::to(receiver);
    }

    /// Runs until the senders of events are gone; then returns the dataplane as it is.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) -> D {
        const MOST_AT_ONCE: usize = 4096;
        let mut batch = Vec::new();
        let mut not_before = Instant::now();
        loop {
            let wake = self.is_ready().then(|| {
                let work = if self.has_work() { Instant::now() } else { self.due.next() };
                let step = work.max(not_before);
                self.unread.next().map_or(step, |read| read.min(step))
            });
            tokio::select! {
                biased;
                received = events.recv_many(&mut batch, MOST_AT_ONCE) => {
                    if received == 0 {
                        return self.dataplane;
                    }
                    for event in batch.drain(..) {
                        self.take(event);
                    }
                    // The first lists say how long the API server takes, not this loop.
                    let matter = self.has_work() && self.believed.is_some();
                    self.stopwatch.received(received, matter);
                    // What else is already there belongs to the same step, up to a bound.
                    let full = received == MOST_AT_ONCE;
                    if Instant::now() < not_before || (full && !self.is_ready()) {
                        continue;
                    }
                }
                read = self.unread.rules() => self.rules_read(read),
                () = wait_until(wake) => {}
            }
            let started = Instant::now();
            self.begin_due_audit(started);
            let due = self.has_work() || self.due.next() <= started;
            if due && not_before <= started {
                self.step().await;
                self.stopwatch.queued(events.len(), started);
                not_before = Instant::now() + self.timing.min_sync_period;
            } else if self.is_ready() {
                // What this finds is work for a step.
                self.read_on().await;
            }
        }
    }

    /// What is wanted, for those who explain it.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// The objects it knows.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The present settings, once everything was read.
    pub fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    /// The dataplane.
    pub fn dataplane(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Takes in an event; the next [`Self::step`] acts on it.
    pub fn take(&mut self, event: Event) {
        self.status.live.count(&event);
        match event {
            Event::Changes(changes) => {
                for change in changes {
                    self.note_trigger(&change);
                    self.cluster.apply(change, &mut self.dirty);
                }
                // What the health server says of the node must not wait for a step.
                if self.status.node(self.cluster.node()) {
                    self.publish.send_replace(Arc::new(self.status.clone()));
                }
            }
            Event::HostAddresses(addresses) => {
                if self.host_addresses.as_ref() != Some(&addresses) {
                    self.status.host_addresses = addresses.as_slice().into();
                    self.host_addresses = Some(addresses);
                    self.settings_changed();
                }
            }
            Event::Bound(address, present) => {
                let believed = self.believed.as_ref();
                if believed.is_some_and(|state| state.addresses.contains(&address) != present) {
                    self.due.audit = Instant::now();
                }
            }
            Event::Disturbed => self.due.disturbed(Instant::now()),
            Event::Configured(resolver, timing) => {
                self.resolver = resolver;
                self.timing = timing;
                self.due.audit = self.due.audit.min(Instant::now() + timing.sync_period);
                self.settings_changed();
            }
        }
    }

    fn settings_changed(&mut self) {
        let (Some(settings), Some(addresses)) = (&self.settings, &self.host_addresses) else {
            return;
        };
        let new = self.resolver.resolve(self.cluster.node(), addresses);
        if *settings != new {
            self.dirty.all = true;
        }
    }

    fn is_ready(&self) -> bool {
        self.cluster.is_complete() && self.host_addresses.is_some()
    }

    fn has_work(&self) -> bool {
        let work = !self.dirty.is_empty() || !self.touched.is_empty() || self.unread.has_ended();
        self.is_ready() && work
    }

    /// One step: read on, compute what is dirty, compare, write, look after what drains.
    pub async fn step(&mut self) {
        if !self.is_ready() {
            return;
        }
        let started = Instant::now();
        self.resolve();
        let adopting = self.believed.is_none();
        if self.status.last_step.is_none() {
            self.status.last_step = Some(started);
            self.publish.send_replace(Arc::new(self.status.clone()));
        }
        if adopting {
            self.adopt().await;
        }
        self.begin_due_audit(started);
        if self.believed.is_none() {
            // A kernel that was never read is not written to.
            self.end_step(started);
            return;
        }
        self.look_after_drains();
        self.read_on().await;
        self.compute();
        if adopting {
            self.converge_in_parts().await;
        }
        if self.due.retry.is_some_and(|at| at <= started) {
            self.touched.extend(self.failed.keys());
            self.due.retry = None;
        }
        // A second round does what the first one brought to light: an idle real server that need
        // not drain, a virtual server that was not as believed.
        for _ in 0..3 {
            self.converge().await;
            self.count_fresh().await;
            if self.touched.is_empty() && self.unknown.is_empty() {
                break;
            }
        }
        self.end_step(started);
    }

    /// Settles what every service depends on.
    fn resolve(&mut self) {
        let addresses = self.host_addresses.as_deref().unwrap_or_default();
        let settings = self.resolver.resolve(self.cluster.node(), addresses);
        if self.settings.as_ref() == Some(&settings) {
            return;
        }
        match &self.settings {
            None => {
                self.desired = Desired::new(&settings.families);
                self.touched.extend(self.desired.state().targets());
            }
            // What was left alone because it was excluded may be ours to remove now.
            Some(known) if known.exclude_cidrs != settings.exclude_cidrs => {
                let servers = self.believed.iter().flat_map(|state| state.virtual_servers.keys());
                self.touched.extend(servers.map(|key| Target::VirtualServer(*key)));
            }
            Some(_) => {}
        }
        self.settings = Some(settings);
        self.dirty.all = true;
        self.render_firewall();
    }

    fn render_firewall(&mut self) {
        let Some(settings) = &self.settings else { return };
        for family in &settings.families {
            let Some(options) = settings.firewall.get(family) else { continue };
            let mut options = options.clone();
            options.physdev &= self.external_ips;
            let rules = ruleset(*family, &options, self.desired.drops());
            let text = Arc::from(rules.save_text());
            self.desired.set_firewall(*family, text, &mut self.touched);
        }
    }

    fn is_ours(&self, target: &Target) -> bool {
        match target {
            Target::VirtualServer(key) => {
                self.settings.as_ref().is_some_and(|settings| settings.owns(key))
                    || self.desired.state().virtual_servers.contains_key(key)
            }
            _ => true,
        }
    }

    fn compute(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut drops_changed = false;
        if dirty.all {
            let known = self.desired.contributions().map(|(key, _)| key.clone());
            let services = self.cluster.services().map(|service| service.key.clone());
            for key in known.chain(services).collect::<BTreeSet<_>>() {
                drops_changed |= self.compute_service(&key);
            }
        } else {
            for key in &dirty.services {
                drops_changed |= self.compute_service(key);
            }
        }
        self.say_conflicts();
        // The match physdev makes the kernel load br_netfilter, which changes what bridges do: not
        // before a rule with it has something to match.
        let external_ips = self.desired.has_external_ips();
        if drops_changed || external_ips != self.external_ips {
            self.external_ips = external_ips;
            self.render_firewall();
        }
        self.status.services = self.cluster.services().len();
    }

    /// Whether the virtual servers that the node may not use have changed.
    fn compute_service(&mut self, key: &ObjectKey) -> bool {
        let Some(settings) = &self.settings else { return false };
        self.status.counters.contributions += 1;
        let wanted = self.cluster.service(key).map(|service| {
            (service.created, contribution(service, &self.cluster.slices(key), settings))
        });
        self.say_skipped(key, wanted.as_ref().map(|(_, contribution)| contribution));
        self.status.service(key, wanted.as_ref().map(|(_, contribution)| contribution));
        let before: Vec<VirtualServerKey> = self.frontends(key);
        let drops_changed = self.desired.set(key, wanted, &mut self.touched);
        self.status.directory.put(key, self.desired.contribution(key));
        for frontend in before.into_iter().chain(self.frontends(key)) {
            self.note_conflict(frontend);
        }
        drops_changed
    }

    fn frontends(&self, key: &ObjectKey) -> Vec<VirtualServerKey> {
        let contribution = self.desired.contribution(key);
        contribution.iter().flat_map(|c| c.frontends.iter().map(|frontend| frontend.key)).collect()
    }

    /// Brings what is touched to what is wanted.
    async fn converge(&mut self) {
        let Some(settings) = &self.settings else { return };
        if !self.unknown.is_empty() {
            let keys: Vec<VirtualServerKey> =
                std::mem::take(&mut self.unknown).into_iter().collect();
            match self.dataplane.observe_virtual_servers(&keys).await {
                Ok(mut found) => {
                    for key in keys {
                        self.status.replace(self.believed.as_mut(), key, found.remove(&key));
                        self.touched.insert(Target::VirtualServer(key));
                    }
                }
                Err(error) => {
                    warn!(error = error.text, "cannot read virtual servers");
                    self.unknown.extend(keys);
                    return;
                }
            }
        }
        let Some(believed) = &self.believed else { return };
        let touched = std::mem::take(&mut self.touched);
        let now = Instant::now();
        for target in &touched {
            self.failed.remove(target);
            if let Target::VirtualServer(key) = target {
                let desired = self.desired.state().virtual_servers.get(key);
                let believed = believed.virtual_servers.get(key);
                self.drains.update(key, desired, believed, now.into_std());
            }
        }
        let plan = plan(self.desired.state(), believed, &touched, &self.drains, settings);
        if plan.is_empty() {
            return;
        }
        let outcome = self.dataplane.apply(&plan).await;
        let measures = Arc::make_mut(&mut self.status.measures);
        outcome.flows.iter().for_each(|flows| measures.forgotten(flows));
        outcome.took.iter().for_each(|(part, took)| measures.worked(part, *took));
        self.absorb(&plan, outcome.failed);
        for (key, _) in &plan.intended {
            let desired = self.desired.state().virtual_servers.get(key);
            let believed = self.believed.as_ref().and_then(|state| state.virtual_servers.get(key));
            self.drains.update(key, desired, believed, now.into_std());
        }
    }

    /// Takes in what became of a plan.
    fn absorb(&mut self, plan: &Plan, failed: Vec<(usize, crate::dataplane::OpError)>) {
        let failed: BTreeMap<usize, crate::dataplane::OpError> = failed.into_iter().collect();
        let mut uncertain = BTreeSet::new();
        for (index, op) in plan.ops.iter().enumerate() {
            let target = op.target();
            self.status.counters.count(op, failed.contains_key(&index));
            let Some(error) = failed.get(&index) else {
                debug!(%op, "done");
                if let Some(believed) = &mut self.believed {
                    believed.absorb(op);
                }
                continue;
            };
            warn!(%op, error = error.text, "failed");
            self.status.error(format!("{op}: {}", error.text));
            self.failed.insert(target, error.text.clone());
            match (error.kind, target) {
                (_, Target::VirtualServer(key)) => {
                    uncertain.insert(key);
                }
                (OpErrorKind::Surprise, _) => {
                    let soon = Instant::now() + self.due.retry_delay;
                    self.due.audit = self.due.audit.min(soon);
                }
                (OpErrorKind::Retry | OpErrorKind::Refused, _) => {}
            }
        }
        for (key, intended) in &plan.intended {
            if !uncertain.contains(key) {
                self.status.replace(self.believed.as_mut(), *key, intended.clone());
            }
        }
        self.unknown.extend(uncertain);
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
