//! How long things take, and what comes in.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netlink_ipvs::Family;
use tokio::time::Instant;

use super::Event;
use crate::cluster::{Change, EndpointSlice, ObjectKey};
use crate::dataplane::ForgottenFlows;

/// Numbers of values by size.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    bounds: &'static [f64],
    /// For each bound the values up to it that are above the one before; last, those above all.
    counts: Vec<u64>,
    sum: f64,
}

/// How long things took since the start, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Measures {
    /// A step of the loop.
    pub step: Histogram,
    /// From an event that had to be acted upon to the end of the step that did so. An event that
    /// arrives during a step counts from the beginning of that step: at most too long.
    pub latency: Histogram,
    /// From the time in a slice's annotation `endpoints.kubernetes.io/last-change-trigger-time` to
    /// the end of the step that programmed it.
    pub programming: BTreeMap<Family, Histogram>,
    /// Looking through the connection tracking table for stale flows.
    pub conntrack: BTreeMap<Family, Histogram>,
    /// Flows deleted in it.
    pub flows_deleted: BTreeMap<Family, u64>,
    /// Reading and writing the kernel, by part.
    pub kernel: BTreeMap<&'static str, Duration>,
}

/// What is counted as events come, whatever the loop is doing.
#[derive(Debug)]
pub struct Live {
    services: Events,
    slices: Events,
    /// Milliseconds since 1970.
    queued: AtomicU64,
}

/// Events of one kind of object.
#[derive(Debug, Default)]
struct Events {
    total: AtomicU64,
    pending: AtomicU64,
}

/// What the next step will measure.
#[derive(Debug)]
pub(super) struct Stopwatch {
    /// Slices that are triggered before this say nothing about this process. Milliseconds since
    /// 1970, as all times of triggers.
    start: i64,
    /// Since when how many events have been waiting.
    arrived: Vec<(Instant, u64)>,
    /// So many of the next events have been in the queue since then.
    queued: (usize, Option<Instant>),
    triggers: Vec<(ObjectKey, Family, i64)>,
}

/// `N` bounds, each twice the one before.
const fn doubling<const N: usize>(first: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2.0;
        at += 1;
    }
    bounds
}

/// kube-proxy's for the duration of a sync: 1 ms to 16.384 s.
static SYNC: [f64; 15] = doubling(0.001);
/// From 50 us to 52 s.
static LATENCY: [f64; 21] = doubling(0.000_05);
/// kube-proxy's for network programming: quarters, seconds, 5 seconds, half minutes.
static PROGRAMMING: [f64; 80] = {
    let mut bounds = [0.25; 80];
    bounds[1] = 0.5;
    let mut at = 2;
    while at < 80 {
        let step = match at {
            2 => 0.5,
            3..=61 => 1.0,
            62..=73 => 5.0,
            _ => 30.0,
        };
        bounds[at] = bounds[at - 1] + step;
        at += 1;
    }
    bounds
};

// === impl Histogram ===

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Takes in a value so many times.
    fn observe(&mut self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at] += times;
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^53")]
        let times = times as f64;
        self.sum += value * times;
    }

    /// Each bound with the number of values up to it, without the last, infinite one.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut total = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            total += count;
            (*bound, total)
        })
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

// === impl Measures ===

impl Default for Measures {
    fn default() -> Self {
        Self {
            step: Histogram::new(&SYNC),
            latency: Histogram::new(&LATENCY),
            programming: BTreeMap::new(),
            conntrack: BTreeMap::new(),
            flows_deleted: BTreeMap::new(),
            kernel: BTreeMap::new(),
        }
    }
}

impl Measures {
    /// One with something in each.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let mut example = Self::default();
        example.step.observe(0.003, 1);
        example.step.observe(20.0, 1);
        example.latency.observe(0.0004, 3);
        let mut programming = Histogram::new(&PROGRAMMING);
        programming.observe(0.3, 2);
        programming.observe(100.0, 1);
        example.programming.insert(Family::Ipv4, programming);
        let took = Duration::from_millis(7);
        example.forgotten(&ForgottenFlows { family: Family::Ipv4, deleted: 5, took });
        example.worked("ipvs", took);
        example
    }

    pub(super) fn forgotten(&mut self, flows: &ForgottenFlows) {
        let conntrack = self.conntrack.entry(flows.family).or_insert_with(|| Histogram::new(&SYNC));
        conntrack.observe(flows.took.as_secs_f64(), 1);
        *self.flows_deleted.entry(flows.family).or_default() += flows.deleted;
    }

    /// A part of the kernel was read or written for so long.
    pub(super) fn worked(&mut self, part: &'static str, took: Duration) {
        *self.kernel.entry(part).or_default() += took;
    }
}

// === impl Live ===

impl Default for Live {
    fn default() -> Self {
        let now = AtomicU64::new(millis(SystemTime::now()).cast_unsigned());
        Self { services: Events::default(), slices: Events::default(), queued: now }
    }
}

impl Live {
    /// Events of Services since the start.
    pub fn service_changes(&self) -> u64 {
        self.services.total.load(Relaxed)
    }

    /// Those that no step has taken in yet.
    pub fn service_changes_pending(&self) -> u64 {
        self.services.pending.load(Relaxed)
    }

    /// Events of EndpointSlices since the start.
    pub fn slice_changes(&self) -> u64 {
        self.slices.total.load(Relaxed)
    }

    /// Those that no step has taken in yet.
    pub fn slice_changes_pending(&self) -> u64 {
        self.slices.pending.load(Relaxed)
    }

    /// When the last event came; at first, when the loop was made.
    pub fn last_event(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.queued.load(Relaxed))
    }

    pub(super) fn count(&self, event: &Event) {
        self.queued.store(millis(SystemTime::now()).cast_unsigned(), Relaxed);
        let Event::Changes(changes) = event else { return };
        for change in changes {
            let events = match change {
                Change::Service(_) | Change::ServiceIgnored(..) | Change::ServiceGone(_) => {
                    &self.services
                }
                Change::Slice(_) | Change::SliceGone(_) => &self.slices,
                Change::Node(_)
                | Change::NodeListed
                | Change::NodeWeight(..)
                | Change::NodeWeightsListed(_)
                | Change::ServicesListed(_)
                | Change::SlicesListed(_) => continue,
            };
            events.total.fetch_add(1, Relaxed);
            events.pending.fetch_add(1, Relaxed);
        }
    }

    fn taken_in(&self) {
        self.services.pending.store(0, Relaxed);
        self.slices.pending.store(0, Relaxed);
    }
}

// === impl Stopwatch ===

impl Default for Stopwatch {
    fn default() -> Self {
        Self {
            start: millis(SystemTime::now()),
            arrived: Vec::new(),
            queued: (0, None),
            triggers: Vec::new(),
        }
    }
}

impl Stopwatch {
    /// Triggers that are kept while a family fails.
    const MOST_TRIGGERS: usize = 10_000;

    /// After a step that began at `since`, so many events are in the queue.
    pub(super) fn queued(&mut self, count: usize, since: Instant) {
        self.queued = (count, Some(since));
    }

    /// So many events came out of the queue, and have to be acted upon or not.
    pub(super) fn received(&mut self, count: usize, matter: bool) {
        let (queued, since) = &mut self.queued;
        let before = count.min(*queued);
        *queued -= before;
        if !matter {
            return;
        }
        let now = Instant::now();
        let parts = [(since.unwrap_or(now), before), (now, count - before)];
        let some = parts.into_iter().filter(|(_, count)| *count > 0);
        self.arrived.extend(some.map(|(at, count)| (at, count as u64)));
    }

    /// A slice of a service has changed.
    pub(super) fn triggered(&mut self, slice: &EndpointSlice) {
        let Some(at) = slice.triggered.filter(|at| *at > self.start) else { return };
        if self.triggers.len() < Self::MOST_TRIGGERS {
            self.triggers.push((slice.service.clone(), slice.family, at));
        }
    }

    /// A slice of a service is gone: what triggered the changes before it no longer counts.
    pub(super) fn forget(&mut self, service: &ObjectKey) {
        self.triggers.retain(|(of, ..)| of != service);
    }

    /// A step that began at `started` has ended; these families did not fail.
    pub(super) fn step_ended(
        &mut self,
        started: Instant,
        fine: impl Fn(Family) -> bool,
        live: &Live,
        measures: &mut Measures,
    ) {
        let now = Instant::now();
        live.taken_in();
        measures.step.observe((now - started).as_secs_f64(), 1);
        for (at, count) in take(&mut self.arrived) {
            measures.latency.observe((now - at).as_secs_f64(), count);
        }
        let clock = millis(SystemTime::now());
        for (_, family, at) in self.triggers.extract_if(.., |(_, family, _)| fine(*family)) {
            let took = Duration::from_millis((clock - at).max(0).cast_unsigned());
            let programming = measures.programming.entry(family);
            let programming = programming.or_insert_with(|| Histogram::new(&PROGRAMMING));
            programming.observe(took.as_secs_f64(), 1);
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_kube_proxys() {
        let text = |bounds: &[f64]| bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            text(&SYNC),
            "0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 \
             16.384"
        );
        let seconds = (1..60).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            text(&PROGRAMMING),
            format!(
                "0.25 0.5 {seconds} 60 65 70 75 80 85 90 95 100 105 110 115 120 150 180 210 240 \
                 270 300"
            )
        );
    }

    #[test]
    fn a_value_belongs_to_the_first_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::new(&[1.0, 2.0, 4.0]);
        for (value, times) in [(0.5, 1), (1.0, 1), (1.5, 2), (5.0, 1)] {
            histogram.observe(value, times);
        }
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(1.0, 2), (2.0, 4), (4.0, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 9.5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_came_during_a_step_counts_from_its_beginning() {
        let second = Duration::from_secs(1);
        let (mut watch, mut measures, live) =
            (Stopwatch::default(), Measures::default(), Live::default());
        let started = Instant::now();
        tokio::time::advance(second).await;
        watch.step_ended(started, |_| true, &live, &mut measures);
        watch.queued(3, started);
        tokio::time::advance(second).await;
        // Two of the three that waited and did not matter; then the third, and one that has just
        // come.
        watch.received(2, false);
        watch.received(2, true);
        tokio::time::advance(second).await;
        watch.step_ended(Instant::now(), |_| true, &live, &mut measures);
        assert_eq!((measures.latency.count(), measures.latency.sum()), (2, 3.0 + 1.0));
        assert_eq!((measures.step.count(), measures.step.sum()), (2, 1.0));
        watch.step_ended(Instant::now(), |_| true, &live, &mut measures);
        assert_eq!(measures.latency.count(), 2, "each event is measured once");
    }
}
