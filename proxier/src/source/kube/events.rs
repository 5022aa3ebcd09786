//! Kubernetes Events (events.k8s.io/v1), for what an operator should see with `kubectl describe`.
//!
//! An Event for the first of its kind, then a count of those that follow, at most once a minute. A
//! server that forbids it is asked no more; whatever else goes wrong costs an Event and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::Connection;
use super::limit::Limit;
use crate::cluster::ObjectKey;
use crate::text;

/// Who reports, as Events say it.
const CONTROLLER: &str = "proxier";
/// How often counts are sent, and what failed is tried again.
const FLUSH: Duration = Duration::from_mins(1);
/// One that did not happen again for so long is a new one when it does.
const SERIES: Duration = Duration::from_mins(10);
/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Different ones at the same time; more are not told.
const MOST: usize = 200;
/// Bytes of a note, by the API's rules.
const NOTE: usize = 1024;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Regarding {
    /// This node.
    Node,
    /// A Service.
    Service(ObjectKey),
}

/// What is to be told. Those of the same reason about the same object are one Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it is about.
    pub regarding: Regarding,
    /// Why, in one word: `AddressConflict`.
    pub reason: &'static str,
    /// What was being done, in one word: `Program`.
    pub action: &'static str,
    /// What has happened, for people.
    pub note: String,
}

/// Events of one reason about one object.
#[derive(Debug)]
struct Series {
    first: Report,
    at: Timestamp,
    /// Its name at the server, once it has it.
    name: Option<String>,
    count: i32,
    /// How many of them the server knows.
    told: i32,
    last: Instant,
}

/// Tells the API server, until the senders are gone or it forbids it.
pub async fn report(connection: Connection, node: String, mut reports: mpsc::Receiver<Report>) {
    let mut recorder = Recorder {
        connection,
        node,
        client: None,
        series: BTreeMap::new(),
        limit: Limit::new(20, Duration::from_secs(6), Instant::now()),
    };
    let mut flush = Instant::now() + FLUSH;
    loop {
        let key = tokio::select! {
            report = reports.recv() => match report {
                Some(report) => recorder.take(report),
                None => return,
            },
            () = sleep_until(flush), if !recorder.series.is_empty() => None,
        };
        let done = match key {
            Some(key) => recorder.tell(&key).await,
            None if Instant::now() >= flush => {
                flush = Instant::now() + FLUSH;
                recorder.flush().await
            }
            None => Ok(()),
        };
        if done.is_err() {
            tracing::debug!("the API server does not take Events from here: none are sent");
            return;
        }
    }
}

/// No Event is wanted from here.
struct Forbidden;

type Key = (Regarding, &'static str);

struct Recorder {
    connection: Connection,
    node: String,
    client: Option<Client>,
    series: BTreeMap<Key, Series>,
    limit: Limit,
}

impl Recorder {
    /// Counts it. The key of one that has to be told at once.
    fn take(&mut self, report: Report) -> Option<Key> {
        let now = Instant::now();
        let key = (report.regarding.clone(), report.reason);
        if let Some(series) = self.series.get_mut(&key) {
            series.count = series.count.saturating_add(1);
            series.last = now;
            return None;
        }
        if self.series.len() >= MOST {
            return None;
        }
        let at = Timestamp::now();
        let series = Series { first: report, at, name: None, count: 1, told: 0, last: now };
        self.series.insert(key.clone(), series);
        Some(key)
    }

    /// Tells what is not told, then forgets what is over.
    async fn flush(&mut self) -> Result<(), Forbidden> {
        let keys: Vec<Key> = self.series.keys().cloned().collect();
        for key in keys {
            self.tell(&key).await?;
        }
        let now = Instant::now();
        self.series.retain(|_, series| now.duration_since(series.last) < SERIES);
        Ok(())
    }

    /// Tells the server of a series, if there is something new in it.
    async fn tell(&mut self, key: &Key) -> Result<(), Forbidden> {
        let Some(series) = self.series.get(key).filter(|series| series.told < series.count) else {
            return Ok(());
        };
        if self.limit.allow(Instant::now()).is_none() {
            return Ok(());
        }
        let client = match &self.client {
            Some(client) => client.clone(),
            None => match self.connection.client().await {
                Ok(client) => self.client.insert(client.http).clone(),
                Err(_) => return Ok(()),
            },
        };
        let (sent, count) = (send(client, &self.node, series), series.count);
        match timeout(PATIENCE, sent).await {
            Ok(Ok(name)) => {
                if let Some(series) = self.series.get_mut(key) {
                    series.name = Some(name);
                    series.told = count;
                }
            }
            Ok(Err(Error::Api(status))) if status.is_forbidden() => return Err(Forbidden),
            // It is gone (they live for an hour), or its namespace is: a new one next time.
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                if let Some(series) = self.series.get_mut(key) {
                    series.name = None;
                }
            }
            other => {
                tracing::debug!(?other, "an Event could not be told");
                self.client = None;
            }
        }
        Ok(())
    }
}

/// Creates the Event, or counts up the one that is there. Its name.
async fn send(client: Client, node: &str, series: &Series) -> Result<String, Error> {
    let report = &series.first;
    let namespace = match &report.regarding {
        Regarding::Node => "default",
        Regarding::Service(key) => key.namespace(),
    };
    let events = Api::<Event>::namespaced(client.clone(), namespace);
    if let Some(name) = &series.name {
        let last = MicroTime(Timestamp::now());
        let series = json!({"series": {"count": series.count, "lastObservedTime": last}});
        events.patch_metadata(name, &PatchParams::default(), &Patch::Merge(series)).await?;
        return Ok(name.clone());
    }
    let regarding = regarding(client, node, &report.regarding).await;
    let object = regarding.name.as_deref().unwrap_or_default();
    let name = format!("{object}.{:x}", series.at.as_nanosecond());
    let shown = text::line(&report.note).to_string();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(series.at)),
        action: Some(report.action.to_owned()),
        reason: Some(report.reason.to_owned()),
        note: Some(shown[..shown.floor_char_boundary(NOTE)].to_owned()),
        type_: Some("Warning".to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(format!("{CONTROLLER}-{node}")),
        ..Event::default()
    };
    match events.create(&PostParams::default(), &event).await {
        // An earlier attempt got through after all.
        Err(Error::Api(status)) if status.code == 409 => Ok(name),
        result => result.map(|_| name),
    }
}

/// The reference by which `kubectl describe` finds the Event.
async fn regarding(client: Client, node: &str, regarding: &Regarding) -> ObjectReference {
    let reference = |kind: &str, name: &str| ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    };
    match regarding {
        // As the kubelet does: the name stands for the UID.
        Regarding::Node => {
            ObjectReference { uid: Some(node.to_owned()), ..reference("Node", node) }
        }
        Regarding::Service(key) => {
            // A list, for that is what a service proxy may do.
            let services =
                Api::<k8s_openapi::api::core::v1::Service>::namespaced(client, key.namespace());
            let one = ListParams::default().fields(&format!("metadata.name={}", key.name()));
            let found = services.list_metadata(&one).await.ok();
            let uid = |found: &PartialObjectMeta<_>| found.metadata.uid.clone();
            ObjectReference {
                namespace: Some(key.namespace().to_owned()),
                uid: found.as_ref().and_then(|list| list.items.first()).and_then(uid),
                ..reference("Service", key.name())
            }
        }
    }
}
