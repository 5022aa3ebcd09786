//! What others change in our tables of nftables, as the kernel tells it.

use std::sync::Arc;

use anyhow::Context as _;
use netlink_nftables::{Change, Event as NftEvent, Monitor};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::kernel::filter::Doubt;
use crate::nftables;
use crate::reconcile::{Event, Status};
use crate::text::chain;

/// Follows them for as long as there is a loop. Without that only the audits find them.
pub(in crate::app) async fn follow(
    doubt: Doubt,
    status: watch::Receiver<Arc<Status>>,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    if let Err(error) = tell(&doubt, status, &events).await {
        tracing::warn!(error = chain(&*error), "not told of changes of nftables");
    }
    events.closed().await;
    Ok(())
}

/// Tells once everything is programmed: before that, the kernel would tell of each of our own
/// elements.
async fn tell(
    doubt: &Doubt,
    mut status: watch::Receiver<Arc<Status>>,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    if status.wait_for(|status| status.synced).await.is_err() {
        return Ok(());
    }
    let monitor = Monitor::open().context("listen to nftables")?;
    #[allow(
        deprecated,
        reason = "its successor is unsafe to call; this descriptor lives as long as its owner"
    )]
    let mut monitor = AsyncFd::new(monitor).context("listen to nftables")?;
    // What has changed since everything was read is not told.
    let mut changed = true;
    loop {
        if std::mem::take(&mut changed) {
            doubt.raise();
            if events.send(Event::Disturbed).await.is_err() {
                return Ok(());
            }
        }
        let mut ready = monitor.readable_mut().await.context("listen to nftables")?;
        loop {
            let note = |event| changed |= is_of_others(&event, doubt);
            match ready.get_inner_mut().receive(note) {
                Ok(true) => {}
                Ok(false) => break,
                Err(lost) => {
                    tracing::debug!(error = chain(&lost), "not told of every change of nftables");
                    changed = true;
                }
            }
        }
        ready.clear_ready();
    }
}

fn is_of_others(event: &NftEvent, doubt: &Doubt) -> bool {
    let NftEvent::Change(Change { table, port, .. }) = event else { return false };
    table.name == nftables::TABLE && !doubt.is_own(*port)
}

#[cfg(test)]
mod tests {
    use netlink_nftables::{Family, Object, TableKey};

    use super::*;

    #[test]
    fn only_others_in_our_tables_count() {
        let doubt = Doubt::of_port(7);
        let change = |table: &str, port| {
            let table = TableKey::new(Family::Ipv4, table);
            NftEvent::Change(Change {
                table,
                object: Object::Rule,
                name: None,
                deleted: true,
                port,
            })
        };
        assert!(is_of_others(&change("proxier", 8), &doubt));
        assert!(!is_of_others(&change("proxier", 7), &doubt));
        assert!(!is_of_others(&change("kube-proxy", 8), &doubt));
    }
}
