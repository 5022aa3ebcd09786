//! What a watch knows about itself, for metrics and the status page.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The watches.
#[derive(Debug, Default)]
pub struct Status {
    /// Services.
    pub services: WatchStatus,
    /// EndpointSlices.
    pub slices: WatchStatus,
    /// This node.
    pub node: WatchStatus,
    /// The weights of all nodes, where these are watched.
    pub node_weights: WatchStatus,
}

impl Status {
    /// Returns the fault of a watch once each of its failures for this long was one that hardly gets
    /// better by itself: refused, not trusted, no such host.
    pub async fn hopeless(&self, patience: Duration) -> String {
        tokio::select! {
            text = self.services.hopeless(patience) => text,
            text = self.slices.hopeless(patience) => text,
            text = self.node.hopeless(patience) => text,
            text = self.node_weights.hopeless(patience) => text,
        }
    }
}

/// One watch. All counters only grow.
#[derive(Debug)]
pub struct WatchStatus {
    start: Instant,
    /// Milliseconds after `start`, plus one; 0 is never.
    heard: AtomicU64,
    connected: AtomicBool,
    synced: watch::Sender<bool>,
    events: AtomicU64,
    lists: AtomicU64,
    failures: watch::Sender<u64>,
    object_warnings: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

/// The fault that a watch is in.
#[derive(Debug)]
struct Fault {
    text: String,
    /// Since when each failure was one that hardly gets better by itself.
    lasting: Option<Instant>,
}

impl Default for WatchStatus {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            heard: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            synced: watch::Sender::new(false),
            events: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            failures: watch::Sender::new(0),
            object_warnings: AtomicU64::new(0),
            fault: Mutex::new(None),
        }
    }
}

impl WatchStatus {
    /// Time since the server was last heard (an object, a page, a bookmark); `None` if never.
    pub fn silence(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(heard)))
    }

    /// Whether a stream is open.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether everything has been read completely at least once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Returns once everything has been read completely.
    pub(super) async fn synced(&self) {
        // Its sender is here.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Events of objects received.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Complete reads.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Failed attempts and broken streams.
    pub fn failures(&self) -> u64 {
        *self.failures.borrow()
    }

    /// Tells of each failure, and how many there were. [`error`](Self::error) says which it was.
    pub fn failing(&self) -> watch::Receiver<u64> {
        self.failures.subscribe()
    }

    /// Objects and parts of objects that could not be used.
    pub fn object_warnings(&self) -> u64 {
        self.object_warnings.load(Ordering::Relaxed)
    }

    /// The fault that the watch is in, if it is.
    pub fn error(&self) -> Option<String> {
        self.fault().as_ref().map(|fault| fault.text.clone())
    }

    /// Returns the fault once each failure for this long was one that hardly gets better by itself:
    /// refused, not trusted, no such host.
    async fn hopeless(&self, patience: Duration) -> String {
        let mut failing = self.failing();
        loop {
            failing.mark_unchanged();
            let since = self.fault().as_ref().and_then(|fault| fault.lasting);
            match since {
                None => drop(failing.changed().await),
                Some(since) if since.elapsed() >= patience => {
                    return self.error().unwrap_or_default();
                }
                Some(since) => drop(timeout_at(since + patience, failing.changed()).await),
            }
        }
    }

    fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.heard.store(millis + 1, Ordering::Relaxed);
    }

    pub(super) fn event(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn warned(&self, count: usize) {
        self.object_warnings.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.synced.send_replace(true);
    }

    pub(super) fn connect(&self) {
        self.connected.store(true, Ordering::Relaxed);
        *self.fault() = None;
    }

    pub(super) fn disconnect(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, text: String, lasting: bool) {
        self.disconnect();
        {
            let mut fault = self.fault();
            let since = fault.as_ref().and_then(|fault| fault.lasting);
            let lasting = lasting.then(|| since.unwrap_or_else(Instant::now));
            *fault = Some(Fault { text, lasting });
        }
        self.failures.send_modify(|failures| *failures += 1);
    }
}
