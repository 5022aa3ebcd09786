//! Follows how far a hand-over is: what the successor has, and which connections are left here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netlink_ipvs::{Client, Family, Protocol, VirtualServerKey};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::app::host::iptables_directory;
use crate::config::Config;
use crate::dataplane::hand_over::{Sight, Stage, Successor};
use crate::kernel::firewall::Firewall;
use crate::kernel::successor::{Open, Watched};
use crate::reconcile::Status;
use crate::text::chain;

/// How often both are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is said how far it is, where only numbers change.
const SAY: Duration = Duration::from_secs(30);

/// A hand-over that has ended.
#[derive(Debug)]
pub(in crate::app) struct Over {
    /// To whom, and how it ended.
    pub(in crate::app) successor: Successor,
    pub(in crate::app) stage: Stage,
    /// The services' addresses and ports: flows to them may be left.
    pub(in crate::app) places: BTreeSet<(Protocol, SocketAddr)>,
}

/// A hand-over that goes on.
pub(in crate::app) struct HandOver {
    /// How far it is.
    pub(in crate::app) stage: watch::Receiver<Stage>,
    /// Its end.
    pub(in crate::app) over: oneshot::Receiver<Over>,
}

/// Starts a thread that follows it, since reading takes as long as there is to read. It ends when nobody waits
/// for it.
pub(in crate::app) fn start(
    successor: Successor,
    config: &Config,
    families: Vec<Family>,
    status: watch::Receiver<Arc<Status>>,
) -> anyhow::Result<HandOver> {
    let programs = || Firewall::find(iptables_directory().as_deref());
    let watched = Watched::open(successor, programs)
        .map_err(|error| anyhow::anyhow!("{}", chain(&*error)))
        .with_context(|| format!("look for {successor}"))?;
    let open = Open::new(Client::open().context("count connections")?);
    let (sender, over) = oneshot::channel();
    let (published, stage) = watch::channel(Stage::Waits(BTreeSet::new()));
    let limit = config.drain_timeout;
    let mut follower =
        Follower { successor, watched, open, families, limit, published, said: None };
    std::thread::Builder::new()
        .name("hand-over".to_owned())
        .spawn(move || {
            if let Some(over) = follower.follow(&status, || sender.is_closed()) {
                // Nobody waits any more only when the process is ending.
                let _ = sender.send(over);
            }
        })
        .context("start the thread of the hand-over")?;
    Ok(HandOver { stage, over })
}

struct Follower {
    successor: Successor,
    watched: Watched,
    open: Open,
    families: Vec<Family>,
    /// How long connections may take to end.
    limit: Duration,
    published: watch::Sender<Stage>,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

impl Follower {
    fn follow(
        &mut self,
        status: &watch::Receiver<Arc<Status>>,
        ended: impl Fn() -> bool,
    ) -> Option<Over> {
        let Self { successor, limit, .. } = *self;
        while !status.borrow().synced {
            if ended() {
                return None;
            }
            std::thread::sleep(LOOK);
        }
        info!("ready to hand over: start {successor} on this node now");
        while !ended() {
            let now = status.borrow().clone();
            match self.look(&now) {
                Ok(sight) => {
                    let before = self.published.borrow().clone();
                    let next = before.clone().next(sight, limit);
                    self.say(&before, &next);
                    self.published.send_replace(next);
                }
                Err(error) => warn!(error = chain(&*error), "cannot see how far the hand-over is"),
            }
            let stage = self.published.borrow().clone();
            if matches!(stage, Stage::Over { .. }) {
                return Some(Over { successor, stage, places: places(&now) });
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    fn look(&mut self, status: &Status) -> Result<Sight, Box<dyn std::error::Error>> {
        let frontends = || status.directory.values().flat_map(|asked| &asked.frontends);
        let served = self.watched.served(&self.families)?;
        let lacking = served.lacks(frontends());
        let connections = if lacking.is_empty() {
            let wanted = frontends().map(|frontend| (frontend.key, &frontend.server.real_servers));
            self.open.count(wanted)?
        } else {
            None
        };
        Ok(Sight { lacking, connections, now: Instant::now() })
    }

    fn say(&mut self, before: &Stage, stage: &Stage) {
        let text = stage.to_string();
        let same = std::mem::discriminant(before) == std::mem::discriminant(stage);
        let silent =
            self.said.as_ref().is_some_and(|(said, at)| *said == text || at.elapsed() < SAY);
        if same && silent {
            return;
        }
        info!("handing over to {}: {text}", self.successor);
        self.said = Some((text, Instant::now()));
    }
}

fn places(status: &Status) -> BTreeSet<(Protocol, SocketAddr)> {
    let keys = status.directory.values().flat_map(|asked| &asked.frontends);
    let place = |key: VirtualServerKey| match key {
        VirtualServerKey::Address { address, port, protocol } => {
            Some((protocol, SocketAddr::new(address, port)))
        }
        VirtualServerKey::FirewallMark { .. } => None,
    };
    keys.filter_map(|frontend| place(frontend.key)).collect()
}
