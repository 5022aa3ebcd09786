//! When a watch asks again, with the limits of production, on a clock that runs as fast as nothing
//! happens.

use std::sync::Arc;
use std::time::Duration;

use proxier::cluster::Cluster;
use proxier::source::kube::Timing;
use proxier_tests::apiserver::object::service;
use proxier_tests::apiserver::{ApiServer, Fault, On};
use serde_json::json;
use tokio::time::Instant;

use super::client::{Client, seen, stored};
use super::server;

const EVER: usize = usize::MAX / 8;
const KINDS: [&str; 3] = ["services", "endpointslices", "nodes"];
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// No kind of objects can be streamed as a list.
fn refuse_streaming(server: &ApiServer) {
    for kind in KINDS {
        server.fault(On::Streaming(kind), EVER, refuse(500));
    }
}

fn refuse(code: u16) -> Fault {
    Fault::Refuse { code, retry_after: None }
}

/// How often a streaming list of Services was asked for.
fn streaming(server: &ApiServer) -> usize {
    let initial = |name: &str| name == "sendInitialEvents";
    let requests = server.requests();
    let services = requests.iter().filter(|request| request.resource == "services");
    services.filter(|r| r.query.iter().any(|(k, v)| initial(k) && v == "true")).count()
}

#[tokio::test(start_paused = true)]
async fn a_refused_streaming_list_costs_one_request_a_day() {
    for code in [400, 404, 410, 422, 500, 501, 503] {
        let server = server().await;
        server.fault(On::Streaming("services"), EVER, refuse(code));
        let start = Instant::now();
        let mut client = Client::start(&server, Timing::default());
        client.until("complete", Cluster::is_complete).await;
        assert!(start.elapsed() < SECOND / 4, "{code}: a wait before the pages");
        let lists = |server: &ApiServer| {
            let requests = server.requests();
            requests.iter().filter(|r| r.resource == "services" && !r.watch).count()
        };
        assert_eq!((streaming(&server), lists(&server)), (1, 4), "{code}: 11 services by 3");
        assert_eq!(client.status.services.failures(), 1, "{code}");

        // Everything is read anew every four hours or so, in pages.
        client.pass(20 * HOUR).await;
        assert!(client.status.services.lists() >= 4, "{code}");
        assert_eq!(streaming(&server), 1, "{code}: it was remembered");
        // It may have been upgraded since.
        client.pass(20 * HOUR).await;
        assert_eq!(streaming(&server), 2, "{code}");
        assert_eq!(client.lost, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_turns_into_an_error_before_its_end_is_a_refusal_too() {
    let server = server().await;
    let status = json!({"type": "ERROR", "object": {"kind": "Status", "code": 500}});
    let fault = Fault::Line { after: 2, line: status.to_string() };
    server.fault(On::Streaming("services"), EVER, fault);
    let mut client = Client::start(&server, Timing::default());
    client.converge(&server).await;
    assert_eq!(streaming(&server), 1);
}

/// A refusal of everything says nothing about streaming lists.
#[tokio::test(start_paused = true)]
async fn who_is_refused_everything_is_not_taken_for_a_server_without_streaming() {
    for code in [401, 403, 429, 503] {
        let server = server().await;
        server.fault(On::Any("services"), 3, refuse(code));
        let mut client = Client::start(&server, Timing::default());
        client.converge(&server).await;
        server.compact();
        server.disconnect();
        server.put(service("dev", "web", "10.96.1.7"));
        server.compact();
        let before = streaming(&server);
        client.converge(&server).await;
        let pages = client.status.services.lists() > 1 && streaming(&server) == before;
        assert!(!pages, "{code}");
    }
}

/// How a server comes back.
#[derive(Debug, Clone, Copy)]
struct Return {
    /// For so long nobody listens.
    away: Duration,
    /// Then it refuses for so long, with this code.
    refuses: (u64, u16, Option<u64>),
    /// Its history is gone.
    compacted: bool,
    /// It has no streaming lists.
    pages: bool,
}

async fn within_3_seconds(case: Return) {
    let mut server = server().await;
    if case.pages {
        refuse_streaming(&server);
    }
    let mut client = Client::start(&server, Timing::default());
    client.until("complete", Cluster::is_complete).await;
    client.pass(3 * SECOND).await;
    server.stop().await;
    client.pass(case.away).await;
    server.delete("services", "dev", "web-7");
    server.put(service("dev", "web", "10.96.1.9"));
    if case.compacted {
        server.compact();
    }
    let (time, code, retry_after) = case.refuses;
    server.forgive();
    for kind in KINDS {
        server.fault(On::Any(kind), EVER, Fault::Refuse { code, retry_after });
    }
    server.resume().await.expect("the same port");
    client.pass(Duration::from_secs(time)).await;
    server.forgive();
    if case.pages {
        refuse_streaming(&server);
    }
    let (ready, wanted) = (Instant::now(), stored(&server));
    client.until("the changes", |cluster| seen(cluster) == wanted).await;
    assert!(ready.elapsed() <= 3 * SECOND, "{:?}: {case:?}", ready.elapsed());
    assert_eq!(client.lost, ["dev/web-7"], "{case:?}");
    if !case.compacted {
        assert_eq!(client.status.services.lists(), 1, "resumed, not read anew: {case:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_within_3_seconds_after_a_server_is_ready_again() {
    for (away, refuses) in [
        (SECOND / 100, (0, 403, None)),
        (SECOND, (5, 403, None)),
        (20 * SECOND, (20, 403, None)),
        (600 * SECOND, (40, 401, None)),
        (60 * SECOND, (60, 429, Some(1))),
        (60 * SECOND, (240, 503, None)),
        (HOUR, (30, 500, None)),
    ] {
        for (compacted, pages) in [(false, false), (true, false), (true, true)] {
            within_3_seconds(Return { away, refuses, compacted, pages }).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn during_an_hour_of_failures_attempts_are_bounded() {
    let timing = || Timing { rebuild: 10 * HOUR, ..Timing::default() };
    let mut server = server().await;
    let mut client = Client::start(&server, timing());
    client.until("complete", Cluster::is_complete).await;
    let before = seen(&client.cluster);
    let status = Arc::clone(&client.status);
    // A refused client becomes quiet; a port on which nobody listens may be asked at any time.
    for (code, least, most) in
        [(Some(403), 120, 340), (Some(503), 220, 540), (Some(429), 220, 540), (None, 1800, 3700)]
    {
        server.forgive();
        match code {
            Some(code) => server.fault(On::Any("services"), EVER, refuse(code)),
            None => server.stop().await,
        }
        server.disconnect();
        let failures = status.services.failures();
        client.pass(HOUR).await;
        let attempts = status.services.failures() - failures;
        assert!((least..=most).contains(&attempts), "{code:?}: {attempts}");
        assert_eq!(seen(&client.cluster), before);
        if code.is_some() {
            server.forgive();
            client.pass(HOUR / 10).await;
        }
    }
    server.put(service("dev", "new", "10.96.5.5"));
    server.resume().await.expect("the same port");
    tokio::time::resume();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_410_lists_at_once_but_not_in_a_loop() {
    let server = server().await;
    let mut client = Client::start(&server, Timing::default());
    client.until("complete", Cluster::is_complete).await;
    client.pass(100 * SECOND).await;
    // Each watch is told that it is too late, each list works.
    server.fault(On::Streaming("services"), EVER, refuse(400));
    server.fault(On::Watch("services"), EVER, refuse(410));
    server.put(service("dev", "web", "10.96.1.9"));
    server.compact();
    server.disconnect();
    let (start, wanted) = (Instant::now(), stored(&server));
    client.until("the change", |cluster| seen(cluster) == wanted).await;
    assert!(start.elapsed() <= SECOND, "{:?}", start.elapsed());
    let lists = client.status.services.lists();
    client.pass(HOUR).await;
    let lists = client.status.services.lists() - lists;
    assert!((100..600).contains(&lists), "{lists}");
    server.forgive();
    tokio::time::resume();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
}
