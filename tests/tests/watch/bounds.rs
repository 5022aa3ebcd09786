//! An API server that sends without end: each bound is named, and the last complete state is kept.

use std::sync::Arc;
use std::time::Duration;

use proxier::cluster::Cluster;
use proxier::source::kube::{Connection, Options, Timing};
use proxier_tests::apiserver::object::{service, slice};
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
async fn a_page_of_endless_objects_is_an_error() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.until("complete", Cluster::is_complete).await;
    server.fault(On::List("services"), EVER, page(&"{},".repeat(200_000)));
    read_anew(&server, true);
    fails(&mut client, "a list page of more than 100000 objects").await;
    server.forgive();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
}

#[tokio::test]
async fn a_line_without_an_end_is_an_error() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.until("complete", Cluster::is_complete).await;
    let fault = Fault::Line { after: 1, line: " ".repeat(17 << 20) };
    server.fault(On::Watch("services"), 3, fault);
    read_anew(&server, false);
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
}

/// An object with more entries than are decoded costs nobody but itself.
#[tokio::test]
async fn a_huge_object_stays_as_it_was_and_stops_nothing_else() {
    for pages in [false, true] {
        let server = server().await;
        if pages {
            let refuse = Fault::Refuse { code: 400, retry_after: None };
            server.fault(On::Streaming("services"), EVER, refuse);
        }
        let mut client = Client::start(&server, timing());
        client.converge(&server).await;
        let mut wanted = stored(&server);
        let mut huge = service("dev", "web-3", "10.96.3.3");
        huge["metadata"]["finalizers"] = vec!["a/b"; 250_000].into();
        server.put(huge);
        // Seen by the watch, then by a list.
        for address in ["10.96.7.7", "10.96.7.8"] {
            server.put(service("dev", "web", address));
            wanted.insert("service dev/web".to_owned(), vec![address.to_owned()]);
            client.until("another change", |cluster| seen(cluster) == wanted).await;
            server.disconnect();
            server.compact();
        }
        client.until("a list", |cluster| seen(cluster) == wanted).await;
        assert!(client.status.services.object_warnings() > 0);
        server.put(service("dev", "web-3", "10.96.3.4"));
        client.converge(&server).await;
        server.delete("services", "dev", "web-3");
        client.converge(&server).await;
        assert_eq!(client.lost, ["dev/web-3"]);
    }
}

/// However many objects one namespace has, so much of them is known, and all of the others'.
#[tokio::test]
async fn what_a_namespace_has_too_much_of_is_left_out_until_there_is_room() {
    const MANY: usize = 400;
    let many = |n: usize| (format!("s{n:03}"), format!("10.97.{}.{}", n / 200, n % 200 + 1));
    for pages in [false, true] {
        let server = server().await;
        if pages {
            let refuse = Fault::Refuse { code: 400, retry_after: None };
            server.fault(On::Streaming("services"), EVER, refuse.clone());
            server.fault(On::Streaming("endpointslices"), EVER, refuse);
        }
        for n in 0..MANY {
            let (name, address) = many(n);
            server.put(service("many", &name, &address));
            server.put(slice("many", &name, "none", &["10.244.0.9"]));
        }
        let connection = Connection { server: Some(server.url()), ..Connection::default() };
        // Some hundred Services of one namespace, and twice as many slices.
        let options = Options { timing: timing(), memory: 1 << 20, ..Options::new("node-a") };
        let mut client = Client::with_options(connection, options);
        client.until("complete", Cluster::is_complete).await;
        let of_many = |cluster: &Cluster| {
            cluster.services().filter(|service| service.key.namespace() == "many").count()
        };
        let others = stored(&server).into_iter().filter(|(key, _)| !key.contains("many/"));
        let others: Vec<_> = others.collect();
        let kept = of_many(&client.cluster);
        assert!((50..150).contains(&kept), "{kept} Services");
        let slices = client.cluster.slice_count();
        assert!((100..300).contains(&slices), "{slices} slices");
        let has_others = |cluster: &Cluster| {
            let seen = seen(cluster);
            others.iter().all(|(key, object)| seen.get(key) == Some(object))
        };
        assert!(has_others(&client.cluster));
        // More of them cost nothing, and others go on.
        for n in MANY..MANY + 50 {
            let (name, address) = many(n);
            server.put(service("many", &name, &address));
        }
        server.put(service("dev", "another", "10.96.7.9"));
        let another = proxier::cluster::ObjectKey::new("dev", "another");
        client.until("another", |cluster| cluster.service(&another).is_some()).await;
        assert_eq!(of_many(&client.cluster), kept);
        assert!(client.status.services.object_warnings() >= 50);
        // Room is found again by a list.
        for n in 0..MANY + 20 {
            server.delete("services", "many", &many(n).0);
            server.delete("endpointslices", "many", &many(n).0);
        }
        client.converge(&server).await;
        assert_eq!(of_many(&client.cluster), 30);
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
