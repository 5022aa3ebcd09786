//! Kubernetes Events against the test API server: created once, counted after that, and never sent
//! again where they are forbidden. Time is paused: what waits for a minute goes on at once.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::time::Duration;

use proxier::cluster::ObjectKey;
use proxier::source::kube::{Connection, Regarding, Report, report};
use proxier_tests::apiserver::object::service;
use proxier_tests::apiserver::{ApiServer, Fault, On, Written};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

fn conflict(name: &str) -> Report {
    Report {
        regarding: Regarding::Service(ObjectKey::new("dev", name)),
        reason: "AddressConflict",
        action: "Program",
        note: format!("{name} {}", "é".repeat(600)),
    }
}

fn drift() -> Report {
    let note = "changed".to_owned();
    Report { regarding: Regarding::Node, reason: "KernelDrift", action: "Repair", note }
}

fn start(server: &ApiServer) -> (mpsc::Sender<Report>, JoinHandle<()>) {
    let connection = Connection { server: Some(server.url()), ..Connection::default() };
    let (sender, reports) = mpsc::channel(16);
    (sender, tokio::spawn(report(connection, "node-a".to_owned(), reports)))
}

/// Waits until the server has so many, and that it gets no more for longer than anything is sent later.
async fn settled(server: &ApiServer, count: usize) -> Vec<Written> {
    let enough = timeout(Duration::from_hours(1), server.written(count)).await;
    assert!(enough.is_ok(), "{count} wanted: {:#?}", server.events());
    let more = timeout(Duration::from_mins(5), server.written(count + 1)).await;
    assert!(more.is_err(), "{count} wanted: {:#?}", server.events());
    server.events()
}

#[tokio::test(start_paused = true)]
async fn the_first_is_created_and_the_rest_counted() {
    let server = ApiServer::start().await.unwrap();
    let mut web = service("dev", "web", "10.96.0.1");
    web["metadata"]["uid"] = json!("0815");
    server.put(web);
    let (reports, _running) = start(&server);
    for report in [conflict("web"), drift(), drift(), conflict("web"), drift()] {
        reports.send(report).await.unwrap();
    }
    let written = settled(&server, 4).await;
    assert_eq!(written.len(), 4, "{written:#?}");
    let events: Vec<&Written> = written.iter().filter(|written| !written.patch).collect();
    let web = &events.iter().find(|event| event.path == "namespaces/dev/events").unwrap().body;
    assert_eq!(
        web["regarding"],
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "dev", "name": "web", "uid": "0815"})
    );
    for (field, value) in [
        ("apiVersion", "events.k8s.io/v1"),
        ("kind", "Event"),
        ("type", "Warning"),
        ("reason", "AddressConflict"),
        ("action", "Program"),
        ("reportingController", "proxier"),
        ("reportingInstance", "proxier-node-a"),
    ] {
        assert_eq!(web[field], value, "{field}: {web}");
    }
    let text = web["note"].as_str().unwrap();
    assert!(text.starts_with("web é") && text.len() <= 1024, "the API allows 1024 bytes");
    let time = web["eventTime"].as_str().unwrap();
    assert!(time.len() == "2026-06-01T12:00:00.123456Z".len() && time.ends_with('Z'), "{time}");

    let node = &events.iter().find(|event| event.path == "namespaces/default/events").unwrap().body;
    // The UID by which `kubectl describe node` looks.
    assert_eq!(
        node["regarding"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "node-a"})
    );
    for (event, count) in [(node, 3), (web, 2)] {
        let end = format!("/events/{}", event["metadata"]["name"].as_str().unwrap());
        let patch = written.iter().find(|w| w.patch && w.path.ends_with(&end)).unwrap();
        assert_eq!(patch.body["series"]["count"], count, "{patch:?}");
        assert!(patch.body["series"]["lastObservedTime"].is_string(), "{patch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_they_are_forbidden_nothing_more_is_sent() {
    let server = ApiServer::start().await.unwrap();
    server.fault(On::Any("events"), 1, Fault::Refuse { code: 403, retry_after: None });
    let (reports, running) = start(&server);
    reports.send(drift()).await.unwrap();
    running.await.unwrap();
    assert_eq!((server.events().len(), server.pending_faults()), (0, 0));
    assert!(reports.is_closed(), "the senders are not kept waiting");
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_told_later() {
    let server = ApiServer::start().await.unwrap();
    server.fault(On::Any("events"), 2, Fault::Refuse { code: 500, retry_after: None });
    let (reports, _running) = start(&server);
    reports.send(drift()).await.unwrap();
    let written = settled(&server, 1).await;
    assert_eq!((written.len(), written[0].patch), (1, false), "{written:#?}");
}

/// A thousand at once, of as many Services: bounded, whatever happens.
#[tokio::test(start_paused = true)]
async fn many_at_once_are_a_trickle() {
    let server = ApiServer::start().await.unwrap();
    let (reports, _running) = start(&server);
    for n in 0..1000 {
        reports.send(conflict(&format!("s{n}"))).await.unwrap();
    }
    // A burst, then one in six seconds, until what was not told is no longer news.
    let more = timeout(Duration::from_hours(1), server.written(141)).await;
    let events = server.events();
    assert!(more.is_err() && events.len() >= 100, "{}", events.len());
    let names: std::collections::BTreeSet<String> =
        events.iter().map(|event| event.body["metadata"]["name"].to_string()).collect();
    assert_eq!(names.len(), events.len());
}
