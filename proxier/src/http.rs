//! What the daemon tells over HTTP: its health, to load balancers as well, and its metrics.
//!
//! Everything is answered from what the loop publishes, and from the kernel's counters, which are
//! read by one at a time on a thread and a socket of their own; no request reaches the loop or a
//! file that it names, nor holds a lock for which the loop waits. Connections, their age, the size of
//! requests and what is kept for a connection are bounded; who does not read is cut off, and when a
//! server has as many connections as it may have, the oldest makes room.

mod attention;
mod body;
mod counters;
mod health;
mod metrics;
mod node_ports;
mod pace;
mod page;
mod pages;
mod query;
mod server;
mod time;
mod view;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use crate::config::Config;
use crate::dataplane::hand_over::Stage;
use crate::reconcile::Status;
pub(crate) use attention::State;
use counters::Desk;
pub use counters::{Counted, NOT_COUNTED, Table, Totals};
use server::{Handler, Limits};

/// How long after a failed attempt to listen the next one is made.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// The running servers. They end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

/// What one watch of the API server knows about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// What it follows, as the API's paths spell it: `services`.
    pub resource: &'static str,
    /// Since when nothing was heard; `None` before the first word.
    pub silence: Option<Duration>,
    /// Whether its stream is open.
    pub connected: bool,
    /// Events of objects.
    pub events: u64,
    /// Complete reads.
    pub lists: u64,
    /// Failed attempts and broken streams.
    pub failures: u64,
}

/// Asks the watches. Called for each reading of the metrics; must not block.
pub type Watches = Arc<dyn Fn() -> Vec<Watch> + Send + Sync>;

/// The configuration in force. A changed one reaches everything here but where the servers listen.
#[derive(Debug, Clone)]
pub struct Current {
    /// What it says.
    pub config: Arc<Config>,
    /// Why the configuration file, as it is now, is not in force.
    pub refused: Option<Refused>,
    /// Why manifests, as they are now, are not in force, or not all of what is in them.
    pub manifests: Option<Refused>,
}

/// Files that cannot be used, or a place to listen.
#[derive(Debug, Clone)]
pub struct Refused {
    /// When that was found out.
    pub since: Instant,
    /// What is wrong.
    pub why: String,
}

/// What the answers are made of.
pub struct Sources {
    /// The configuration.
    pub current: watch::Receiver<Arc<Current>>,
    /// What the loop publishes.
    pub status: watch::Receiver<Arc<Status>>,
    /// The same, when health check node ports had to change last.
    pub node_ports: watch::Receiver<Arc<Status>>,
    /// The watches of the API server, if there are any.
    pub watches: Option<Watches>,
    /// The kernel's counters, if they can be had.
    pub table: Option<Table>,
    /// The same of all virtual servers at once.
    pub totals: Option<Totals>,
    /// How far the hand-over is, while this node is handed over.
    pub hand_over: Option<watch::Receiver<Stage>>,
}

impl Sources {
    /// Of a loop alone: without a cluster, counters or a hand-over.
    pub fn new(
        current: watch::Receiver<Arc<Current>>,
        status: watch::Receiver<Arc<Status>>,
    ) -> Self {
        let node_ports = status.clone();
        Self {
            current,
            status,
            node_ports,
            watches: None,
            table: None,
            totals: None,
            hand_over: None,
        }
    }
}

/// Starts the health server, the health check node ports and the metrics server.
///
/// What cannot listen is tried again every 5 seconds.
///
/// # Errors
/// With `bindAddressHardFail`, a server that cannot listen at once.
#[allow(clippy::unused_async, reason = "it starts tasks, so it must be called in a runtime")]
pub async fn serve(sources: Sources) -> anyhow::Result<Servers> {
    let mut servers = Servers { health: None, metrics: None, tasks: JoinSet::new() };
    let Sources { current, status, node_ports, watches, table, totals, hand_over } = sources;
    let config = &*current.borrow().config.clone();
    let monitor = health::Monitor::new(current.clone(), status, hand_over);
    if let Some(address) = config.healthz_bind {
        let bind = Bind { what: "health", setting: "healthzBindAddress", address };
        let handler = health::HealthServer::new(monitor.clone());
        servers.health = servers.start(bind, config, handler, server::HEALTH, Some(&monitor))?;
    }
    let address = config.metrics_bind;
    let bind = Bind { what: "metrics", setting: "metricsBindAddress", address };
    let handler = pages::MetricsServer::new(monitor.clone(), watches, Desk::new(table, totals));
    servers.metrics = servers.start(bind, config, handler, server::METRICS, None)?;
    servers.tasks.spawn(node_ports::NodePorts::new(current, monitor, node_ports).run());
    Ok(servers)
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Bind {
    what: &'static str,
    setting: &'static str,
    address: SocketAddr,
}

// === impl Current ===

impl Current {
    /// One that nothing is wrong with.
    pub fn new(config: Arc<Config>) -> Self {
        Self { config, refused: None, manifests: None }
    }
}

// === impl Servers ===

impl Servers {
    /// Where the health server listens, if it does.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Where the metrics server listens, if it does.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// A monitor is told whether it listens.
    fn start(
        &mut self,
        bind: Bind,
        config: &Config,
        handler: impl Handler,
        limits: Limits,
        monitor: Option<&health::Monitor>,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let listener = match bind.listen() {
            Ok(listener) => Some(listener),
            Err(error) if config.bind_address_hard_fail => {
                return Err(error).with_context(|| bind.to_string());
            }
            Err(error) => {
                bind.complain(&error);
                if let Some(monitor) = monitor {
                    let (since, why) = (Instant::now(), format!("cannot {bind}: {error}"));
                    monitor.set_deaf(Some(Refused { since, why }));
                }
                None
            }
        };
        let monitor = monitor.cloned();
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        self.tasks.spawn(async move {
            let listener = match listener {
                Some(listener) => listener,
                None => bind.insist().await,
            };
            if let Some(monitor) = monitor {
                monitor.set_deaf(None);
            }
            server::serve(listener, Arc::new(handler), limits).await;
        });
        Ok(address)
    }
}

// === impl Bind ===

impl Bind {
    fn listen(&self) -> io::Result<TcpListener> {
        server::listen(self.address, false)
    }

    fn complain(&self, error: &io::Error) {
        let hint = if error.kind() == io::ErrorKind::AddrInUse {
            ": look whether kube-proxy still runs on this node"
        } else {
            ""
        };
        warn!(%error, again_in = ?LISTEN_AGAIN, "cannot {self}{hint}");
    }

    async fn insist(&self) -> TcpListener {
        loop {
            tokio::time::sleep(LISTEN_AGAIN).await;
            match self.listen() {
                Ok(listener) => return listener,
                Err(error) => self.complain(&error),
            }
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, setting, address } = self;
        write!(f, "listen on {address} for the {what} server ({setting})")
    }
}
