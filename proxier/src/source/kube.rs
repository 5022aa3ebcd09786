//! The cluster as its API server describes it: Services, EndpointSlices and this node, followed
//! by watches.
//!
//! Access, authentication and requests are those of the kube crate; the watch itself is not its
//! `watcher`. What that one hides is needed here: the resource versions (to notice an etcd that
//! was restored to an older state), bookmarks (to know that a quiet stream is alive), `Retry-After`
//! and a refusal of streaming lists. And an object must never be lost because one of its fields
//! has an odd type.
//!
//! What a reader may rely on: what is there to be read of a stream is sent at once and as one, and so
//! is a list that replaces an older one; nothing is ever reported gone on the strength of an
//! incomplete read, only by a deletion that the server states or by a list that it declares complete.

mod backoff;
mod bounds;
mod client;
mod contacts;
mod credentials;
mod decode;
mod events;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod limit;
mod lines;
mod outbox;
mod pace;
mod rate;
mod reading;
mod resource;
mod room;
mod server;
mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use self::client::{Connection, Error};
pub use self::contacts::{Contact, Contacts};
pub use self::events::{Regarding, Report, report};
pub use self::rate::Rate;
pub use self::status::{Status, WatchStatus};

use self::resource::{NodeWeights, Services, Slices, ThisNode};
use self::watch::Watch;
use super::Change;
use super::objects::{Converter, Origin};

/// How patient the watches are. The defaults are for production; tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How long the server is asked to keep a watch open. Each watch gets 90 to 100 % of it.
    pub watch: Duration,
    /// Longest wait for an answer to begin, or for the next piece of a list.
    pub answer: Duration,
    /// Longest silence in the initial events of a streaming list before it counts as not
    /// supported.
    pub initial: Duration,
    /// Longest silence on a watch once the server has shown that it sends bookmarks (a kube-apiserver
    /// sends one a minute). Before that, a watch may be silent for as long as it was asked to last.
    pub bookmarks: Duration,
    /// Wait after a first failure; doubles with each further one, each time 50 to 100 % of it.
    pub backoff_first: Duration,
    /// Longest wait while the server may work again at any moment.
    pub backoff_soon: Duration,
    /// Longest wait between attempts.
    pub backoff_most: Duration,
    /// The wait starts over after a connection that worked for this long.
    pub healthy: Duration,
    /// A watch that the server ends sooner than this counts as failed.
    pub shortest: Duration,
    /// Everything is read anew this often (90 to 110 % of it), in case the server and this
    /// program disagree in a way that none of them can see.
    pub rebuild: Duration,
    /// And this long after the last time at the earliest where there is room for what was left out.
    pub again: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(290),
            answer: Duration::from_mins(1),
            initial: Duration::from_secs(30),
            bookmarks: Duration::from_mins(3),
            backoff_first: Duration::from_millis(500),
            backoff_soon: Duration::from_secs(2),
            backoff_most: Duration::from_secs(30),
            healthy: Duration::from_mins(1),
            shortest: Duration::from_secs(1),
            rebuild: Duration::from_hours(4),
            again: Duration::from_mins(10),
        }
    }
}

/// What to watch, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this node.
    pub node: String,
    /// Where the name is from, for those who have to look for a wrong one.
    pub node_from: String,
    /// Objects in one page where a list has to be read in pages.
    pub page_size: u32,
    /// Patience.
    pub timing: Timing,
    /// How many requests are made.
    pub rate: Rate,
    /// Bytes of memory that the process may have.
    pub memory: u64,
    /// The annotations of all Nodes are watched.
    pub node_weights: bool,
}

impl Options {
    /// The defaults for a node.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            node_from: "the caller".to_owned(),
            page_size: 500,
            timing: Timing::default(),
            rate: Rate::default(),
            memory: 2 << 30,
            node_weights: false,
        }
    }
}

/// Watches the cluster and sends what it sees, until the receiver is dropped. Faults of the
/// server or of the network are logged, retried for ever and visible in `status`.
///
/// # Errors
/// The configuration of the connection cannot be used (no such kubeconfig, bad certificate): only
/// when called; later on, files that have become unreadable are one more fault to be retried.
pub async fn run<E: From<Vec<Change>>>(
    connection: Connection,
    options: Options,
    changes: mpsc::Sender<E>,
    status: Arc<Status>,
) -> Result<(), Error> {
    connection.check().await?;
    let converter = Converter::new(Origin::Api);
    let (connection, options) = (&connection, &options);
    let services = Watch::<Services, E>::new(
        connection,
        options,
        &converter,
        changes.clone(),
        &status.services,
    );
    let slices =
        Watch::<Slices, E>::new(connection, options, &converter, changes.clone(), &status.slices);
    let node =
        Watch::<ThisNode, E>::new(connection, options, &converter, changes.clone(), &status.node);
    let weights = &status.node_weights;
    // Nothing is done before this node was read, and that without the weights would be something else.
    let node = async {
        if options.node_weights {
            weights.synced().await;
        }
        node.run().await;
    };
    // Hardly anybody has it.
    let weights = async {
        if options.node_weights {
            let watch =
                Watch::<NodeWeights, E>::new(connection, options, &converter, changes, weights);
            Box::pin(watch.run()).await;
        }
    };
    tokio::join!(services.run(), slices.run(), node, weights);
    Ok(())
}
