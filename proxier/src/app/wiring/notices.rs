//! What the loop has to tell an operator, as Kubernetes Events.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::reconcile::{Drift, Notice};
use crate::source::kube::{Connection, Regarding, Report, report};

/// Notices that may wait; more are in the log only.
const QUEUE: usize = 256;

/// For how long drift is collected at most.
const COLLECT: Duration = Duration::from_mins(1);

/// Starts to tell the API server; where to send notices. Within two periods of the audit everything is found that
/// somebody has changed at once.
pub(in crate::app) fn start(
    connection: Connection,
    node: &str,
    sync_period: Duration,
) -> mpsc::Sender<Notice> {
    let (sender, notices) = mpsc::channel(QUEUE);
    let (reports, queue) = mpsc::channel(QUEUE);
    let collect = (sync_period * 2).min(COLLECT);
    tokio::spawn(hand_on(notices, reports, node.to_owned(), collect));
    tokio::spawn(report(connection, node.to_owned(), queue));
    sender
}

/// An Event keeps the words of its first: what one audit finds bit by bit is told of together.
async fn hand_on(
    mut notices: mpsc::Receiver<Notice>,
    reports: mpsc::Sender<Report>,
    node: String,
    collect: Duration,
) {
    let mut drift: Option<(Drift, Instant)> = None;
    loop {
        let due = drift.as_ref().map(|(_, due)| *due);
        let notice = tokio::select! {
            notice = notices.recv() => match notice {
                Some(Notice::Drift(found)) => {
                    drift.get_or_insert_with(|| (Drift::default(), Instant::now() + collect)).0.merge(found);
                    continue;
                }
                notice => notice,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
        };
        // At the end, too.
        let told = if notice.is_none() { drift.take() } else { None };
        if notice.is_none() && told.is_none() {
            return;
        }
        let told = told.map(|(drift, _)| Notice::Drift(drift));
        for report in notice.into_iter().chain(told).flat_map(|notice| translate(notice, &node)) {
            if reports.send(report).await.is_err() {
                return;
            }
        }
    }
}

fn translate(notice: Notice, this_node: &str) -> Vec<Report> {
    let on_node =
        |reason, action, note| vec![Report { regarding: Regarding::Node, reason, action, note }];
    match notice {
        Notice::Conflict(conflict) => {
            let note = format!(
                "{} belongs to Service {}, which is older (or first by name): there this Service gets \
                 no connections. Give one of them another address or port.",
                conflict.key, conflict.winner
            );
            let losers = conflict.losers.into_iter();
            let report = |service| Report {
                regarding: Regarding::Service(service),
                reason: "AddressConflict",
                action: "Program",
                note: note.clone(),
            };
            losers.map(report).collect()
        }
        Notice::Refused(service, what) => vec![Report {
            regarding: Regarding::Service(service),
            reason: "NotProgrammed",
            action: "Program",
            note: format!("node {this_node}: not programmed: {what}"),
        }],
        Notice::Setting(service, what) => vec![Report {
            regarding: Regarding::Service(service),
            reason: "SettingNotUsed",
            action: "Program",
            note: format!("node {this_node}: annotation {what}. The cluster-wide setting holds."),
        }],
        Notice::Released(what) => on_node("AddressReleased", "Release", what),
        Notice::DrainCut { service, virtual_server, real_server, connections } => {
            let note = format!(
                "node {this_node}: {real_server} of {virtual_server} was removed with {connections} open \
                 connections after --drain-timeout"
            );
            let regarding = service.map_or(Regarding::Node, Regarding::Service);
            vec![Report { regarding, reason: "DrainCut", action: "Drain", note }]
        }
        Notice::Drift(drift) => on_node(
            "KernelDrift",
            "Repair",
            format!("somebody else has changed the kernel, it is repaired: {drift}"),
        ),
        Notice::HeldBack(service, held) => vec![Report {
            regarding: Regarding::Service(service),
            reason: "HeldBack",
            action: "Program",
            note: format!(
                "node {this_node}: not programmed, since what it needs cannot be put in place: {held}"
            ),
        }],
        Notice::Failing(error) => on_node(
            "SyncFailing",
            "Sync",
            format!("the kernel is not as the cluster says: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_an_audit_finds_bit_by_bit_is_one_event_and_nothing_else_waits_for_it() {
        let (sender, notices) = mpsc::channel(10);
        let (reports, mut told) = mpsc::channel(10);
        tokio::spawn(hand_on(notices, reports, "n1".to_owned(), COLLECT));
        let begin = Instant::now();
        sender.send(Notice::Drift(Drift::default())).await.unwrap();
        sender.send(Notice::Released("10.0.0.1".to_owned())).await.unwrap();
        assert_eq!(told.recv().await.unwrap().reason, "AddressReleased");
        assert_eq!(begin.elapsed(), Duration::ZERO);
        sender.send(Notice::Drift(Drift::default())).await.unwrap();
        assert_eq!(told.recv().await.unwrap().reason, "KernelDrift");
        assert_eq!(begin.elapsed().as_secs(), COLLECT.as_secs());
        // What is found later is an Event again; the last is not lost.
        sender.send(Notice::Drift(Drift::default())).await.unwrap();
        drop(sender);
        assert_eq!(told.recv().await.unwrap().reason, "KernelDrift");
        assert!(told.recv().await.is_none());
    }
}
