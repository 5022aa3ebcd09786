//! An API server that sends without end: each bound is named, and the last complete state is kept.

use std::sync::Arc;
use std::time::Duration;

use proxier::cluster::Cluster;
use proxier::source::kube::{Connection, Timing};
use proxier_tests::apiserver::object::service;
use proxier_tests::apiserver::{ApiServer, Fault, On};
use tokio::time::Instant;

use super::client::{Client, NEVER, seen, stored, timing};
use super::server;

const EVER: usize = usize::MAX / 8;

/// Everything has to be read anew, in one way.
fn read_anew(server: &ApiServer, pages: bool) {
    if pages {
        let refuse = Fault::Refuse { code: 400, retry_after: None };
        server.fault(On::Streaming("services"), EVER, refuse);
    }
    server.disconnect();
    server.put(service("dev", "web", "10.96.7.7"));
    server.compact();
}

/// Waits until Services fail in these words. Nothing of what was known has changed.
async fn fails(client: &mut Client, words: &str) {
    let before = seen(&client.cluster);
    let status = Arc::clone(&client.status);
    let mut failing = status.services.failing();
    let named = |_: &u64| status.services.error().is_some_and(|error| error.contains(words));
    let failed = tokio::time::timeout(NEVER, failing.wait_for(named)).await;
    assert!(failed.is_ok_and(|failed| failed.is_ok()), "no {words:?} in {status:?}");
    while let Ok(event) = client.changes.try_recv() {
        client.apply(event);
    }
    assert_eq!(seen(&client.cluster), before);
}

fn page(items: &str) -> Fault {
    let metadata = r#"{"resourceVersion":"900"}"#;
    Fault::Body(format!(r#"{{"kind":"ServiceList","metadata":{metadata},"items":[{items}{{}}]}}"#))
}

#[tokio::test]
async fn pages_that_become_huge_in_memory() {
    let ports = format!(r#"{{"spec":{{"ports":[{}{{}}]}}}},"#, "{},".repeat(300_000));
    for (items, words) in [
        ("{},".repeat(200_000), "a list page of more than 100000 objects"),
        (ports, "an object with more than 200000 list entries"),
    ] {
        let server = server().await;
        let mut client = Client::start(&server, timing());
        client.until("complete", Cluster::is_complete).await;
        server.fault(On::List("services"), EVER, page(&items));
        read_anew(&server, true);
        fails(&mut client, words).await;
        server.forgive();
        client.converge(&server).await;
        assert_eq!(client.lost, [""; 0]);
    }
}

#[tokio::test]
async fn events_that_become_huge_in_memory() {
    let entries = "{},".repeat(300_000);
    for line in [
        format!(r#"{{"type":"ADDED","object":{{"spec":{{"ports":[{entries}{{}}]}}}}}}"#),
        format!(r#"{{"type":"ADDED","object":{{"endpoints":[{entries}{{}}]}}}}"#),
        " ".repeat(9 << 20),
    ] {
        let server = server().await;
        let mut client = Client::start(&server, timing());
        client.until("complete", Cluster::is_complete).await;
        server.fault(On::Watch("services"), 3, Fault::Line { after: 1, line });
        read_anew(&server, false);
        client.converge(&server).await;
        assert_eq!(client.lost, [""; 0]);
    }
}

#[tokio::test]
async fn objects_that_are_large_are_read_in_smaller_pages() {
    let server = server().await;
    let refuse = Fault::Refuse { code: 400, retry_after: None };
    server.fault(On::Streaming("services"), EVER, refuse);
    for n in 0..12 {
        let mut large = service("dev", &format!("large-{n}"), &format!("10.96.4.{}", n + 1));
        large["metadata"]["annotations"] = serde_json::json!({"note": "x".repeat(3 << 20)});
        server.put(large);
    }
    let connection = Connection { server: Some(server.url()), ..Connection::default() };
    let patient = Timing { answer: NEVER, initial: NEVER, ..timing() };
    let mut client = Client::with_pages(connection, patient, 64);
    client.converge(&server).await;
    let requests = server.requests();
    let limits: Vec<&str> = requests
        .iter()
        .filter(|request| request.resource == "services" && !request.watch)
        .filter_map(|request| request.query.get("limit").map(String::as_str))
        .collect();
    assert_eq!(limits, ["64", "16", "4", "4", "4", "4", "4", "4"]);
}

/// A page of Services, or the stream of them, comes in drops once. Returns how long it took until
/// everything was read all the same.
async fn drops(pages: bool) -> (Duration, Client) {
    let server = server().await;
    let mut client = Client::start(&server, Timing::default());
    client.until("complete", Cluster::is_complete).await;
    let drops = Fault::Slow { piece: 1, pause: Duration::from_secs(1) };
    let on = if pages { On::List("services") } else { On::Streaming("services") };
    server.fault(on, 1, drops);
    read_anew(&server, pages);
    let start = Instant::now();
    client.pass(Duration::from_mins(3)).await;
    assert_eq!(seen(&client.cluster), stored(&server));
    let silence = client.status.services.silence().unwrap_or_default();
    (start.elapsed().saturating_sub(silence), client)
}

/// The time for a list follows what comes of it: a drop a second would take an hour.
#[tokio::test(start_paused = true)]
async fn a_list_that_comes_in_drops_is_given_up() {
    for pages in [true, false] {
        let (time, client) = drops(pages).await;
        assert!(time <= Duration::from_mins(2), "{pages}: {time:?}");
        assert_eq!(client.lost, [""; 0]);
        assert!(client.status.services.failures() >= 3, "{:?}", client.status);
    }
}
