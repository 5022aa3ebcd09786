//! What the loop has to tell an operator, as Kubernetes Events.

use tokio::sync::mpsc;

use crate::reconcile::Notice;
use crate::source::kube::{Connection, Regarding, Report, report};

/// Notices that may wait; more are in the log only.
const QUEUE: usize = 256;

/// Starts to tell the API server; where to send notices.
pub(in crate::app) fn start(connection: Connection, node: &str) -> mpsc::Sender<Notice> {
    let (sender, mut notices) = mpsc::channel(QUEUE);
    let (reports, queue) = mpsc::channel(QUEUE);
    let node = node.to_owned();
    let of = node.clone();
    tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            for report in translate(notice, &of) {
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        }
    });
    tokio::spawn(report(connection, node, queue));
    sender
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
        Notice::Drift(targets) => on_node(
            "KernelDrift",
            "Repair",
            format!("somebody else has changed the kernel, it is repaired: {targets}"),
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
