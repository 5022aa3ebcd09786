//! Following the configuration file.
//!
//! A changed file is read and validated as at the start, then applied to the running program; where
//! that cannot be done ([`Config::needs_restart`]), the program starts itself again. A file that
//! cannot be used is reported once and changes nothing.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{feed, program};
use crate::app::host;
use crate::args::Args;
use crate::config::{Config, Host};
use crate::http::{Current, Refused};
use crate::input;
use crate::reconcile::Event;
use crate::settings::Abilities;
use crate::source::files::Folders;
use crate::telemetry::LogHandle;
use crate::text::chain;

/// What several changes of a file in a row may take before it is read.
const SETTLE: Duration = Duration::from_millis(200);

/// The configuration in force, and what has to hear of another one.
pub(in crate::app) struct Reload {
    pub(in crate::app) args: Args,
    pub(in crate::app) config: Arc<Config>,
    pub(in crate::app) abilities: Abilities,
    pub(in crate::app) events: mpsc::Sender<Event>,
    pub(in crate::app) current: watch::Sender<Arc<Current>>,
    pub(in crate::app) log: LogHandle,
    /// Why the file as it is now is not in force: said once.
    pub(in crate::app) refused: Option<Refused>,
}

impl Reload {
    /// Follows the file of `--config`, if there is one, until a change needs a restart.
    pub(in crate::app) async fn follow(mut self) -> anyhow::Result<()> {
        let Some(path) = self.args.always.config.clone() else {
            return std::future::pending().await;
        };
        let mut places = places(&path).await?;
        let mut folders = Folders::open(&places).await.context("be told of changes (inotify)")?;
        loop {
            // First without waiting: it may have changed since it was read.
            if self.look().await {
                return Ok(());
            }
            folders = folders.changed().await.context("be told of changes (inotify)")?;
            tokio::time::sleep(SETTLE).await;
            let now = self::places(&path).await?;
            if now != places {
                folders = Folders::open(&now).await.context("be told of changes (inotify)")?;
                places = now;
            }
        }
    }

    /// Reads the file and does what it says. Whether that needs a restart.
    async fn look(&mut self) -> bool {
        let args = self.args.clone();
        let read = match input::aside(move || Config::load(&args, &Host)).await {
            Ok(read) => read,
            Err(error) => {
                self.refuse(chain(&error));
                return false;
            }
        };
        let new = match read {
            Ok(new) if new == *self.config => {
                if self.refused.take().is_some() {
                    info!("the configuration file says again what is in force");
                    self.publish();
                }
                return false;
            }
            Ok(new) => new,
            Err(error) => {
                self.refuse(chain(&error));
                return false;
            }
        };
        let fields = self.config.differences(&new).join(", ");
        let restart = self.config.needs_restart(&new);
        if let Err(error) = self.apply(new, restart).await {
            self.refuse(chain(&*error));
            return false;
        }
        info!(fields, "the configuration file has changed");
        restart
    }

    /// Checks what can be checked before anything is changed, then changes everything.
    async fn apply(&mut self, new: Config, restart: bool) -> anyhow::Result<()> {
        if self.config.client != new.client {
            feed::Source::find(&self.args, &new).await?;
        }
        host::prepare(&mut host::open_ipvs()?, &new)?;
        if restart {
            return Ok(());
        }
        for warning in new.warnings.iter().filter(|text| !self.config.warnings.contains(text)) {
            warn!("{warning}");
        }
        self.log.apply(&new.logging)?;
        self.config = Arc::new(new);
        self.refused = None;
        self.publish();
        let (resolver, timing) = program(&self.config, &self.abilities);
        // Nobody listens any more only when the process is ending.
        let _ = self.events.send(Event::Configured(resolver, timing)).await;
        Ok(())
    }

    fn refuse(&mut self, text: String) {
        if self.refused.as_ref().is_none_or(|refused| refused.why != text) {
            error!(
                error = text,
                "the configuration file has changed and cannot be used; what it said before stays \
                 in force"
            );
            self.refused = Some(Refused { since: Instant::now(), why: text });
            self.publish();
        }
    }

    fn publish(&self) {
        let (config, refused) = (self.config.clone(), self.refused.clone());
        self.current.send_modify(|current| {
            let manifests = current.manifests.clone();
            *current = Arc::new(Current { config, refused, manifests });
        });
    }
}

/// The folders in which the file is: by its name, and where links lead to. A `ConfigMap` is changed by exchanging the
/// link `..data` beside it, other links by changing the file at their end.
async fn places(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let path = path.to_owned();
    input::aside(move || {
        let end = path.canonicalize().ok().filter(|end| *end != path);
        // The folders that they are in: what is put in place of a file may be a folder.
        let parent = |path: PathBuf| path.parent().map(Path::to_owned).unwrap_or_default();
        [path].into_iter().chain(end).map(parent).collect()
    })
    .await
}

/// Starts this program again in place of itself: same process number, same arguments. Returns only
/// when that fails.
pub(in crate::app) fn start_again() -> anyhow::Error {
    let mut arguments = std::env::args_os();
    // The thread that writes the log does not survive.
    crate::telemetry::flush();
    let mut command = std::process::Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    anyhow::Error::new(command.args(arguments).exec()).context("start again")
}
