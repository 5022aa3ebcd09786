//! What a watch knows about itself, for metrics and the status page.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The three watches.
#[derive(Debug, Default)]
pub struct Status {
    /// Services.
    pub services: WatchStatus,
    /// EndpointSlices.
    pub slices: WatchStatus,
    /// This node.
    pub node: WatchStatus,
}

/// One watch. All counters only grow.
#[derive(Debug)]
pub struct WatchStatus {
    start: Instant,
    /// Milliseconds after `start`, plus one; 0 is never.
    heard: AtomicU64,
    connected: AtomicBool,
    synced: AtomicBool,
    events: AtomicU64,
    lists: AtomicU64,
    failures: watch::Sender<u64>,
    object_warnings: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Default for WatchStatus {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            heard: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            events: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            failures: watch::Sender::new(0),
            object_warnings: AtomicU64::new(0),
            error: Mutex::new(None),
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
        self.synced.load(Ordering::Relaxed)
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
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        self.synced.store(true, Ordering::Relaxed);
    }

    pub(super) fn connect(&self) {
        self.connected.store(true, Ordering::Relaxed);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn disconnect(&self) {
        self.connected.store(false, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, error: String) {
        self.disconnect();
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.failures.send_modify(|failures| *failures += 1);
    }
}
