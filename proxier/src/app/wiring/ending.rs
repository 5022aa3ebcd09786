//! SIGTERM and SIGINT end the process, whatever hangs: a file that cannot be read, a firewall program, a
//! reader of the log.
//!
//! A thread of its own hears the signals as well as the daemon does. When the daemon has not ended some time
//! later, this thread ends the process. Before the daemon listens there is nothing to be finished: then it
//! does so at once. (The first process of a container has no default action for signals.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::telemetry;

/// How long the daemon may take to finish what it is doing: shorter than the kubelet and systemd wait.
const GRACE: Duration = Duration::from_secs(10);

/// Whether the daemon listens to signals.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Starts the thread.
pub(in crate::app) fn guard() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("wait for signals")?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("wait for signals");
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?)
    };
    let wait = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if LISTENS.load(Ordering::Relaxed) {
            tokio::time::sleep(GRACE).await;
            tracing::warn!("ending, though something still hangs; the dataplane stays");
            telemetry::flush();
        }
        std::process::exit(1);
    };
    telemetry::powerless_thread("signals", move || runtime.block_on(wait))
        .context("wait for signals")
}

/// From now on the daemon hears signals itself and has time to end.
pub(in crate::app) fn listens() {
    LISTENS.store(true, Ordering::Relaxed);
}
