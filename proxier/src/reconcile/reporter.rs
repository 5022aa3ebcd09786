//! Who is told what came of a step: the log, the published status, Events. Nothing that the loop
//! decides depends on any of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netlink_ipvs::{Family, VirtualServerKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::engine::Engine;
use super::measure::Stopwatch;
use super::notice::Notices;
use super::report::Report;
use super::{Draining, Drift, Event, FamilyStatus, HeldBack, Notice, Status};
use crate::cluster::{Change, Node, ObjectKey};
use crate::dataplane::{Fate, Outcome, Part, Plan, Refusal, Subject, Target};

/// The next line of the log, and the next list of many draining servers, are at least so much later.
const OFTEN: Duration = Duration::from_millis(100);
/// So many draining servers, or targets that are held back, are listed anew after each step.
const FEW: usize = 64;
/// Errors that are kept.
const ERRORS: usize = 20;

/// What has been reported, and to whom.
#[derive(Debug)]
pub(super) struct Reporter {
    pub(super) status: Status,
    pub(super) notices: Notices,
    pub(super) stopwatch: Stopwatch,
    writes_shown: u64,
    shown: Option<Instant>,
    publish: watch::Sender<Arc<Status>>,
    /// Those who wait for this one are not woken by every change.
    node_ports: watch::Sender<Arc<Status>>,
}

impl Reporter {
    pub(super) fn new() -> (Self, watch::Receiver<Arc<Status>>) {
        let (publish, receiver) = watch::channel(Arc::default());
        let reporter = Self {
            status: Status::default(),
            notices: Notices::default(),
            stopwatch: Stopwatch::default(),
            writes_shown: 0,
            shown: None,
            publish,
            node_ports: watch::Sender::default(),
        };
        (reporter, receiver)
    }

    /// Who is told what an operator should see.
    pub(super) fn notify(&mut self, receiver: mpsc::Sender<Notice>) {
        self.notices = Notices::to(receiver);
    }

    /// An event came, which the engine has not taken in.
    pub(super) fn received(&mut self, event: &Event, engine: &Engine) {
        self.status.live.count(event);
        match event {
            Event::Changes(changes) => {
                for change in changes {
                    self.note_trigger(change, engine);
                }
            }
            Event::HostAddresses(addresses) if *self.status.host_addresses != **addresses => {
                self.status.host_addresses = addresses.as_slice().into();
            }
            _ => {}
        }
    }

    /// What the health server says of the node must not wait for a step.
    pub(super) fn node(&mut self, node: Option<&Node>) {
        let eligible = node.map(|node| node.eligible);
        let addresses = node.map(|node| &*node.addresses).unwrap_or_default();
        let pod_cidrs = node.map(|node| &*node.pod_cidrs).unwrap_or_default();
        let status = &mut self.status;
        if status.node_eligible != eligible
            || *status.node_addresses != *addresses
            || *status.pod_cidrs != *pod_cidrs
        {
            status.pod_cidrs = pod_cidrs.into();
            status.node_eligible = eligible;
            status.node_addresses = addresses.into();
            self.publish();
        }
    }

    /// A step begins. That of the first one is published, so that one that is stuck is noticed.
    pub(super) fn step_begins(&mut self, started: Instant) {
        if self.status.last_step.is_none() {
            self.status.last_step = Some(started);
            self.publish();
        }
    }

    /// A plan was carried out.
    pub(super) fn written(plan: &Plan, outcome: &Outcome) {
        for (index, op) in plan.ops.iter().enumerate() {
            match outcome.missed.get(&index) {
                None => debug!(%op, "done"),
                Some(Fate::Failed(error) | Fate::Unsupported(error) | Fate::Unknown(error)) => {
                    warn!(%op, error, "failed");
                }
                Some(Fate::HeldBack(needed)) => {
                    warn!(%op, %needed, "held back: what it needs failed");
                }
            }
        }
    }

    /// A step has ended.
    pub(super) fn step_ended(&mut self, report: &Report, engine: &Engine, started: Instant) {
        self.status.counters.add(report);
        self.say(report, engine);
        for key in &report.services {
            self.service(key, engine);
        }
        self.conflicts(&report.frontends, engine);
        self.state(engine, started);
        self.measure(report, started);
        self.complain(engine);
        self.show(engine, started);
    }

    /// Says what happened that should not have.
    fn say(&mut self, report: &Report, engine: &Engine) {
        let errors = report.not_read.iter().chain(report.failed.iter().map(|(_, text)| text));
        for text in errors {
            self.error(text);
        }
        for text in &report.not_read {
            warn!(error = text, "cannot read the kernel, keeping what is there");
        }
        self.drift(&report.drift);
        for cut in &report.cut {
            let finished = cut.finished;
            self.notices.send(Notice::DrainCut {
                service: cut.service.clone(),
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
        if report.held_back > 0 {
            let held = engine.held().len();
            warn!(held, "not programmed, since something that it needs has failed");
        }
    }

    fn error(&mut self, text: &str) {
        if self.status.errors.back().is_some_and(|last| last == text) {
            return;
        }
        let errors = Arc::make_mut(&mut self.status.errors);
        if errors.len() == ERRORS {
            errors.pop_front();
        }
        errors.push_back(text.to_owned());
    }

    /// Says what somebody else has changed: in one line, for it may be everything.
    fn drift(&mut self, drift: &BTreeSet<Target>) {
        /// After so many times somebody else sets it on purpose.
        const OFTEN: u64 = 3;
        if drift.is_empty() {
            return;
        }
        let told = Drift::of(drift);
        let targets = told.to_string();
        warn!(count = drift.len(), targets, "the kernel is not as it was left, repairing");
        self.notices.send(Notice::Drift(told));
        for target in drift {
            let Target::Sysctl(path) = target else { continue };
            let times = self.status.counters.sysctl_drift.get(path).copied().unwrap_or_default();
            if times >= OFTEN {
                warn!(
                    %target, times,
                    "another program keeps changing a kernel setting that services need: find it \
                     (sysctl.d, tuned, another agent) and let only one of the two set it"
                );
            }
        }
    }

    /// Takes in what a service asks for.
    fn service(&mut self, key: &ObjectKey, engine: &Engine) {
        let asked = engine.desired().contribution(key);
        let status = &mut self.status;
        status.objects.put(key, engine.cluster().objects(key));
        let before = status.directory.get(key).cloned();
        if !status.directory.put(key, asked.cloned()) {
            return;
        }
        self.skipped(key, before.as_deref(), asked.map(Arc::as_ref));
        self.settings(key, before.as_deref(), asked.map(Arc::as_ref));
        self.shared_ports(key, asked.map(Arc::as_ref), engine);
        let status = &mut self.status;
        status.health.put(key, asked.and_then(|asked| asked.health.as_deref().cloned()));
        status.no_local.put(key, asked.and_then(|asked| asked.no_local.as_deref().cloned()));
    }

    /// Takes over how things stand.
    fn state(&mut self, engine: &Engine, started: Instant) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let status = &mut self.status;
        let unread = engine.retries().iter().find_map(|(subject, failure)| match subject {
            Subject::Part(part) => Some(format!("read {part}: {}", failure.text)),
            Subject::Target(_) => None,
        });
        status.observe_error = unread;
        status.settings_in_force = engine.shared_settings().cloned();
        let families = engine.settings().map(|settings| &*settings.families).unwrap_or_default();
        status.families.retain(|family, _| families.contains(family));
        let broken: BTreeSet<Family> = engine.retries().iter().flat_map(foundation).collect();
        for family in families {
            let of_family = status.families.entry(*family).or_default();
            if broken.contains(family) {
                of_family.failing_since.get_or_insert(started);
            } else {
                *of_family = FamilyStatus { last_success: Some(clock), failing_since: None };
            }
        }
        status.synced = engine.is_synced();
        if status.synced {
            status.failing_since = None;
            status.last_success = Some(now);
        } else {
            status.failing_since.get_or_insert(started);
        }
        let since = |before: Option<Instant>, there| before.or(Some(started)).filter(|_| there);
        let told = |(kind, count): (&&str, &usize)| Refusal::is_told_kind(kind) && *count > 0;
        status.refused_since = since(status.refused_since, status.refused.iter().any(told));
        status.conflicts_since =
            since(status.conflicts_since, status.conflicts.iter().next().is_some());
        status.last_step = Some(now);
        status.complete = true;
        status.pending = engine.retries().len() + engine.held().len();
        status.services = engine.cluster().services().len();
        (status.virtual_servers, status.real_servers) = engine.believed().counts();
        status.slow_starts = engine.slow_starts().count();
        status.held = engine.held().len();
        if status.held > 0 || !status.held_back.is_empty() {
            let held = engine.held().iter().take(FEW);
            let held = held.map(|(target, by)| HeldBack { target: *target, waits_for: *by });
            status.held_back = held.collect();
        }
    }

    fn measure(&mut self, report: &Report, started: Instant) {
        let families = &self.status.families;
        let fine =
            |family| families.get(&family).is_none_or(|status| status.failing_since.is_none());
        let measures = Arc::make_mut(&mut self.status.measures);
        report.flows.iter().for_each(|flows| measures.forgotten(flows));
        report.took.iter().for_each(|(part, took)| measures.worked(part, *took));
        self.stopwatch.step_ended(started, fine, &self.status.live, measures);
    }

    /// Tells once that it has been failing for too long.
    fn complain(&mut self, engine: &Engine) {
        let status = &self.status;
        let since = status.failing_since;
        let too_long = since.is_some_and(|since| since.elapsed() >= engine.timing().sync_period);
        self.notices.failing(too_long, || {
            let held = status.held_back.first().map(ToString::to_string);
            let mut errors = status.observe_error.iter().chain(status.errors.back());
            errors.next().cloned().or(held).unwrap_or_default()
        });
        let held = status.held_back.iter().map(|held| (owner(engine, &held.target), held));
        self.notices.held_back(too_long, held);
    }

    fn show(&mut self, engine: &Engine, started: Instant) {
        // What is for people to read must not cost each of a thousand changes a second.
        let now = Instant::now();
        let often = self.shown.is_some_and(|shown| now < shown + OFTEN);
        let status = &mut self.status;
        if !often || status.draining.len() < FEW {
            let draining = engine.drains().iter();
            status.draining = draining
                .map(|(virtual_server, real_server, connections, deadline)| Draining {
                    virtual_server,
                    real_server,
                    connections,
                    deadline: Instant::from_std(deadline),
                })
                .collect();
        }
        let writes = status.counters.writes();
        if writes != self.writes_shown && !often {
            info!(
                changes = writes - self.writes_shown,
                virtual_servers = status.virtual_servers,
                real_servers = status.real_servers,
                draining = status.draining.len(),
                failed = engine.retries().len(),
                held_back = status.held,
                millis = started.elapsed().as_millis() as u64,
                "programmed"
            );
            self.writes_shown = writes;
        }
        if !often {
            self.shown = Some(now);
        }
        self.publish();
    }

    /// The status when health check node ports had to change last.
    pub(super) fn node_ports(&self) -> watch::Receiver<Arc<Status>> {
        self.node_ports.subscribe()
    }

    fn publish(&self) {
        let status = Arc::new(self.status.clone());
        if !self.node_ports.borrow().has_node_ports_of(&status) {
            self.node_ports.send_replace(Arc::clone(&status));
        }
        self.publish.send_replace(status);
    }

    /// Notes what has caused a change that is about to be applied.
    fn note_trigger(&mut self, change: &Change, engine: &Engine) {
        match change {
            Change::Slice(slice) if slice.triggered.is_some() => {
                let mut known = engine.cluster().slices(&slice.service);
                // The same slice read again has not been triggered again.
                if !known.any(|known| known.key == slice.key && known.same_endpoints(slice)) {
                    self.stopwatch.triggered(slice);
                }
            }
            Change::SliceGone(key) => {
                if let Some(service) = engine.cluster().service_of_slice(key) {
                    self.stopwatch.forget(service);
                }
            }
            _ => {}
        }
    }
}

/// The service that has the address which a target is about.
fn owner(engine: &Engine, target: &Target) -> Option<ObjectKey> {
    let desired = engine.desired();
    let of = |key: &VirtualServerKey| desired.owner(key).map(|(service, _)| service.clone());
    match target.virtual_server() {
        Some(key) => of(&key),
        None => desired.of_address(target.address()?).find_map(of),
    }
}

/// The families that do not work without this subject. What only one service lacks does not count,
/// or one bad Service would take every node out of every load balancer.
fn foundation((subject, _): (&Subject, &super::retry::Failure)) -> Vec<Family> {
    let all = || vec![Family::Ipv4, Family::Ipv6];
    match subject {
        Subject::Target(Target::Firewall(family)) | Subject::Part(Part::Rules(family)) => {
            vec![*family]
        }
        Subject::Target(Target::Set(set)) | Subject::Part(Part::Set(set)) => vec![set.family],
        Subject::Part(Part::Interface | Part::VirtualServers) => all(),
        Subject::Part(Part::Sysctls | Part::VirtualServer(_)) | Subject::Target(_) => Vec::new(),
    }
}
