//! `/healthz` and `/livez`, as load balancers and the kubelet ask for them.
//!
//! A family is unhealthy when syncing it has been failing, or the loop has been silent, for 2 x
//! `syncPeriod`, whether there is anything to sync or not; the whole is, when the loop is stuck in its
//! first step, before any family is known. Before everything has been read once it
//! is healthy: what an earlier run has programmed still forwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::server::{Handler, Response, not_found, response};
use super::time::{NEVER, rfc3339};
use super::{Current, Refused};
use crate::dataplane::hand_over::Stage;
use crate::reconcile::Status;

pub(super) const JSON: &str = "application/json";

/// Judges the health of the loop by its status.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    current: watch::Receiver<Arc<Current>>,
    status: watch::Receiver<Arc<Status>>,
    hand_over: Option<watch::Receiver<Stage>>,
    started: SystemTime,
    answers: Arc<Answers>,
    deaf: Arc<Mutex<Option<Refused>>>,
}

/// Answers given, by status code.
#[derive(Debug, Default)]
pub(super) struct Answers {
    healthz: [AtomicU64; 2],
    livez: [AtomicU64; 2],
}

/// What is to be thought of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// It has been silent for too long, maybe since its first step, before any family was synced.
    stuck: bool,
    /// The families that are served: when each was last synced, and whether it is healthy.
    families: BTreeMap<String, (SystemTime, bool)>,
}

/// The health server.
#[derive(Debug)]
pub(super) struct HealthServer {
    monitor: Monitor,
}

/// The body of both answers, in the order in which it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'a str, FamilyBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

// === impl Monitor ===

impl Monitor {
    pub(super) fn new(
        current: watch::Receiver<Arc<Current>>,
        status: watch::Receiver<Arc<Status>>,
        hand_over: Option<watch::Receiver<Stage>>,
    ) -> Self {
        Self {
            current,
            status,
            hand_over,
            started: SystemTime::now(),
            answers: Arc::default(),
            deaf: Arc::default(),
        }
    }

    /// Why the health server does not listen, and since when.
    pub(super) fn deaf(&self) -> Option<Refused> {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps why the health server does not listen, or that it does.
    pub(super) fn set_deaf(&self, deaf: Option<Refused>) {
        *self.deaf.lock().unwrap_or_else(PoisonError::into_inner) = deaf;
    }

    /// How far the hand-over of this node is, if it is handed over.
    pub(super) fn hand_over(&self) -> Option<Stage> {
        self.hand_over.as_ref().map(|stage| stage.borrow().clone())
    }

    /// The configuration in force.
    pub(super) fn current(&self) -> Arc<Current> {
        self.current.borrow().clone()
    }

    /// When it was made.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// The last status.
    pub(super) fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Answers given so far.
    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(super) fn verdict(&self, status: &Status) -> Verdict {
        let now = Instant::now();
        let limit = self.current().config.sync_period * 2;
        let late = |since: Option<Instant>| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        let stuck = late(status.last_step);
        let families = status.families.iter().map(|(family, of_family)| {
            let last = of_family.last_success.unwrap_or(self.started);
            (family.to_string(), (last, !stuck && !late(of_family.failing_since)))
        });
        Verdict { stuck, families: families.collect() }
    }

    /// Whether traffic from outside may be sent to this node. A program without a node object to
    /// go by decides for itself.
    fn eligible(status: &Status) -> bool {
        status.node_eligible.unwrap_or(status.complete)
    }

    fn answer(&self, with_node: bool) -> Response {
        let status = self.status();
        let verdict = self.verdict(&status);
        let eligible = with_node.then(|| Self::eligible(&status));
        let fine = verdict.healthy() && eligible != Some(false);
        self.answers.count(with_node, fine);
        let code = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = verdict.body(fine, eligible, SystemTime::now());
        response(code, JSON, body)
    }
}

// === impl Answers ===

impl Answers {
    fn count(&self, healthz: bool, fine: bool) {
        let counters = if healthz { &self.healthz } else { &self.livez };
        counters[usize::from(!fine)].fetch_add(1, Ordering::Relaxed);
    }

    /// How often `/healthz` was answered with each status code.
    pub(super) fn healthz(&self) -> [(u16, u64); 2] {
        Self::read(&self.healthz)
    }

    /// How often `/livez` was answered with each status code.
    pub(super) fn livez(&self) -> [(u16, u64); 2] {
        Self::read(&self.livez)
    }

    fn read(counters: &[AtomicU64; 2]) -> [(u16, u64); 2] {
        let [fine, not] = counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
        [(200, fine), (503, not)]
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether the loop goes on and every family is healthy.
    pub(super) fn healthy(&self) -> bool {
        !self.stuck && self.families.values().all(|(_, healthy)| *healthy)
    }

    /// Which families are healthy.
    #[cfg(test)]
    pub(super) fn states(&self) -> BTreeMap<&str, bool> {
        self.families.iter().map(|(name, (_, healthy))| (name.as_str(), *healthy)).collect()
    }

    /// The answer's body. `fine` is what its status code says.
    fn body(&self, fine: bool, eligible: Option<bool>, now: SystemTime) -> String {
        // A client of the days when this was one time takes it for that of the answer.
        let last =
            if fine { Some(now) } else { self.families.values().map(|(last, _)| *last).max() };
        let family = |(last, healthy): &(SystemTime, bool)| FamilyBody {
            last_updated: rfc3339(*last),
            healthy: *healthy,
        };
        let body = Body {
            last_updated: last.map_or_else(|| NEVER.to_owned(), rfc3339),
            current_time: rfc3339(now),
            node_eligible: eligible,
            healthy: self.healthy(),
            status: self
                .families
                .iter()
                .map(|(name, state)| (name.as_str(), family(state)))
                .collect(),
        };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

// === impl HealthServer ===

impl HealthServer {
    pub(super) fn new(monitor: Monitor) -> Self {
        Self { monitor }
    }
}

impl Handler for HealthServer {
    async fn answer(&self, request: &Request<Incoming>) -> Response {
        match request.uri().path() {
            "/healthz" => self.monitor.answer(true),
            "/livez" => self.monitor.answer(false),
            _ => not_found(),
        }
    }
}
