//! The kernel's counters, read when somebody asks.

use std::sync::Arc;

use netlink_ipvs::{RealServerEntry, VirtualServerEntry, VirtualServerKey};
use tokio::sync::Mutex;

/// A virtual server as the kernel has it, with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The virtual server.
    pub server: VirtualServerEntry,
    /// Its real servers.
    pub real_servers: Vec<RealServerEntry>,
    /// Whether the kernel counts what goes through them. If not, [`netlink_ipvs::Stats`] are all 0.
    pub counts: bool,
}

/// What to say of counters that stay 0.
pub const NOT_COUNTED: &str = "connections, packets and bytes are not counted: net.ipv4.vs.run_estimation is 0; \
     --ipvs-run-estimation=true, or `sysctl -w net.ipv4.vs.run_estimation=1`, has them counted from then on";

/// Reads these virtual servers from the kernel, those of them that are there; an error is one line.
/// It blocks, and is never called by two at once.
pub type Table = Arc<dyn Fn(&[VirtualServerKey]) -> Result<Vec<Counted>, String> + Send + Sync>;

/// Reads every virtual server that the kernel has, without its real servers; otherwise as [`Table`].
pub type Totals = Arc<dyn Fn() -> Result<Vec<VirtualServerEntry>, String> + Send + Sync>;

/// A thread that may wait and work for long, for one at a time: on that of the servers health is
/// answered.
#[derive(Clone)]
pub(super) struct Desk {
    table: Option<Table>,
    totals: Option<Totals>,
    turn: Arc<Mutex<()>>,
}

impl Desk {
    pub(super) fn new(table: Option<Table>, totals: Option<Totals>) -> Self {
        Self { table, totals, turn: Arc::default() }
    }

    /// Whether the kernel's counters can be read.
    pub(super) fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// What `work` makes of the kernel's counters, if they can be read. An error is one of the thread.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(Option<&Table>, Option<&Totals>) -> T + Send + 'static,
    ) -> Result<T, String> {
        // Held by the thread: a client that goes away does not let the next one in too early.
        let turn = self.turn.clone().lock_owned().await;
        let (table, totals) = (self.table.clone(), self.totals.clone());
        let worked = tokio::task::spawn_blocking(move || {
            let made = work(table.as_ref(), totals.as_ref());
            drop(turn);
            made
        });
        worked.await.map_err(|error| error.to_string())
    }
}
