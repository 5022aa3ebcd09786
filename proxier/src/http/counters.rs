//! The kernel's counters, read when somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_ipvs::{RealServerEntry, VirtualServerEntry, VirtualServerKey};
use tokio::sync::Mutex;

/// A virtual server as the kernel has it, with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The virtual server.
    pub server: VirtualServerEntry,
    /// Its real servers.
    pub real_servers: Vec<RealServerEntry>,
}

/// Reads these virtual servers from the kernel, those of them that are there; an error is one line.
/// It blocks, and is never called by two at once.
pub type Table = Arc<dyn Fn(&[VirtualServerKey]) -> Result<Vec<Counted>, String> + Send + Sync>;

/// A table that is read by one at a time, on a thread that may wait.
pub(super) struct Counters {
    table: Table,
    turn: Arc<Mutex<()>>,
}

impl Counters {
    pub(super) fn new(table: Table) -> Self {
        Self { table, turn: Arc::default() }
    }

    pub(super) async fn read(&self, keys: Vec<VirtualServerKey>) -> Result<Vec<Counted>, String> {
        self.read_then(keys, |counted, _| counted).await?
    }

    /// What `then` makes of them and the time that it took to read them, on the same thread: it may
    /// be much. An error is one of the thread.
    pub(super) async fn read_then<T: Send + 'static>(
        &self,
        keys: Vec<VirtualServerKey>,
        then: impl FnOnce(Result<Vec<Counted>, String>, Duration) -> T + Send + 'static,
    ) -> Result<T, String> {
        // Held by the thread: a client that goes away does not let the next one in too early.
        let turn = self.turn.clone().lock_owned().await;
        let table = self.table.clone();
        let read = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let counted = table(&keys);
            let made = then(counted, started.elapsed());
            drop(turn);
            made
        });
        read.await.map_err(|error| error.to_string())
    }
}
