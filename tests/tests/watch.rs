//! The watches of `proxier::source::kube` against an API server that misbehaves: nothing is lost,
//! nothing is deleted on the strength of an incomplete read, and everything converges.

#[path = "watch/again.rs"]
mod again;
#[path = "watch/bounds.rs"]
mod bounds;
#[path = "watch/client.rs"]
mod client;
#[path = "watch/tls.rs"]
mod tls;
#[path = "watch/together.rs"]
mod together;
#[path = "watch/weights.rs"]
mod weights;

use std::sync::Arc;
use std::time::Duration;

use proxier::cluster::Cluster;
use proxier::source::kube::{Connection, Timing};
use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::apiserver::{ApiServer, Fault, On};
use serde_json::json;

use self::client::{Client, NEVER, seen, stored, timing};

/// A server with ten services, each with a slice, and the node.
async fn server() -> ApiServer {
    let server = ApiServer::start().await.expect("a socket on loopback");
    server.put(node("node-a", "192.0.2.1"));
    server.put(node("node-b", "192.0.2.2"));
    for n in 0..10 {
        server.put(service("dev", &format!("web-{n}"), &format!("10.96.0.{}", n + 1)));
    }
    server.put(service("dev", "web", "10.96.1.1"));
    for n in 0..5 {
        server.put(slice("dev", &format!("web-{n}"), "web", &[&format!("10.0.0.{}", n + 1)]));
    }
    server
}

/// Runs a fault from the first request on, then one in the middle of following, and checks that
/// the client has what the server has and never lost a service that exists.
async fn survives(on: On, times: usize, fault: Fault) -> Client {
    survives_with(timing(), on, times, fault).await
}

async fn survives_with(timing: Timing, on: On, times: usize, fault: Fault) -> Client {
    let server = server().await;
    server.fault(on, times, fault.clone());
    let mut client = Client::start(&server, timing);
    client.until("complete", Cluster::is_complete).await;
    client.converge(&server).await;
    assert_eq!(server.pending_faults(), 0, "the fault must have happened");

    server.fault(on, times, fault);
    server.put(service("dev", "web", "10.96.1.2"));
    server.put(slice("dev", "web-0", "web", &["10.0.1.1", "10.0.1.2"]));
    server.disconnect();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
    client
}

/// A fault while everything is read anew, by a client that has something to lose.
async fn survives_reading_anew(timing: Timing, fault: Fault) {
    let server = server().await;
    let mut client = Client::start(&server, timing);
    client.converge(&server).await;
    server.fault(On::Streaming("services"), 1, fault.clone());
    server.put(service("dev", "web", "10.96.1.3"));
    server.delete("services", "dev", "web-7");
    server.compact();
    server.disconnect();
    client.converge(&server).await;
    assert_eq!(server.pending_faults(), 0, "the fault must have happened");
    // Before the disconnection, or by the complete list after it.
    assert_eq!(client.lost, ["dev/web-7"], "{fault:?}");
}

#[tokio::test]
async fn lists_then_follows() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    let known = client.cluster.node().unwrap();
    assert_eq!((&*known.name, known.addresses[0].to_string().as_str()), ("node-a", "192.0.2.1"));

    server.put(service("dev", "web", "10.96.1.9"));
    server.put(slice("dev", "web-1", "web", &[]));
    server.delete("endpointslices", "dev", "web-2");
    server.delete("services", "dev", "web-3");
    client.converge(&server).await;
    assert_eq!(client.lost, ["dev/web-3"]);
    assert!(client.status.services.is_synced() && client.status.services.is_connected());
    assert_eq!(client.status.services.lists(), 1);
    assert_eq!(client.status.services.failures(), 0);
}

#[tokio::test]
async fn selectors_are_those_of_kube_proxy() {
    let server = server().await;
    let mut headless = service("dev", "headless", "None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let mut other = service("dev", "other", "10.96.3.3");
    other["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!("other");
    let mut hidden = slice("dev", "hidden", "web", &["10.0.0.99"]);
    hidden["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    let wanted = stored(&server);
    server.put_all([headless, other, hidden]);
    let mut client = Client::start(&server, timing());
    client.until("complete", |cluster| cluster.is_complete() && seen(cluster) == wanted).await;
    assert_eq!(client.cluster.node().unwrap().name.as_ref(), "node-a");
    // What the server does not send cannot have cost anything.
    assert_eq!(client.status.services.events(), 11);
    assert_eq!(client.status.slices.events(), 5);
    assert_eq!(client.status.node.events(), 1);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_list_or_an_event() {
    for after in [0, 1, 100, 1000, 2500] {
        survives(On::Watch("services"), 2, Fault::Cut { after }).await;
        survives(On::Watch("endpointslices"), 2, Fault::Cut { after }).await;
    }
    for after in [0, 3, 10, 11] {
        survives(On::Watch("services"), 1, Fault::HalfEvent { after }).await;
    }
    for after in [0, 1, 1000, 2000] {
        survives_reading_anew(timing(), Fault::Cut { after }).await;
    }
    for after in [0, 5, 9] {
        survives_reading_anew(timing(), Fault::HalfEvent { after }).await;
    }
}

#[tokio::test]
async fn an_orderly_end_too_early_is_no_complete_list() {
    for after in [0, 5, 9] {
        survives_reading_anew(timing(), Fault::End { after }).await;
    }
}

#[tokio::test]
async fn a_stall_without_an_end() {
    // A silent watch is believed for as long as it was asked to last.
    let timing = Timing { watch: Duration::from_millis(700), ..timing() };
    for after in [0, 700] {
        let fault = Fault::Stall { after };
        survives_with(timing.clone(), On::Watch("services"), 1, fault.clone()).await;
        survives_reading_anew(timing.clone(), fault).await;
    }
    survives_with(timing, On::Watch("services"), 1, Fault::Silence).await;
}

#[tokio::test]
async fn refusals() {
    for code in [401, 403, 404, 429, 500, 502, 503, 504] {
        let fault = Fault::Refuse { code, retry_after: None };
        let client = survives(On::Any("services"), 3, fault).await;
        assert!(client.status.services.failures() >= 6);
    }
}

#[tokio::test]
async fn garbage() {
    for line in [
        "garbage",
        "{}",
        "[1,2]",
        "{\"type\":\"ADDED\",\"object\":",
        "\u{0}\u{1}",
        "{\"type\":\"WHAT\",\"object\":{}}",
    ] {
        let fault = Fault::Line { after: 2, line: line.to_owned() };
        survives(On::Watch("services"), 2, fault.clone()).await;
        survives_reading_anew(timing(), fault).await;
    }
    for body in ["", "{}", "<html>proxy error</html>", "{\"kind\":\"ServiceList\",\"items\":[]}"] {
        let fault = Fault::Body(body.to_owned());
        survives(On::Any("services"), 4, fault.clone()).await;
        survives_reading_anew(timing(), fault).await;
    }
}

#[tokio::test]
async fn errors_inside_the_stream() {
    for (code, reason) in [(410, "Expired"), (500, "InternalError"), (429, "TooManyRequests")] {
        let status =
            json!({"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason}});
        let fault = Fault::Line { after: 1, line: status.to_string() };
        survives(On::Watch("services"), 1, fault).await;
    }
}

#[tokio::test]
async fn slow_servers_and_events_twice() {
    let pause = Duration::from_millis(1);
    survives(On::Watch("services"), 1, Fault::Slow { piece: 97, pause }).await;
    survives(On::Watch("services"), 1, Fault::Duplicate).await;
}

#[tokio::test]
async fn a_server_that_refuses_streaming_lists_is_read_in_pages() {
    for code in [400, 422] {
        let fault = Fault::Refuse { code, retry_after: None };
        let client = survives(On::Streaming("services"), 1, fault).await;
        assert_eq!(client.status.services.failures(), 2, "the refusal and the broken connection");
    }
}

#[tokio::test]
async fn a_server_that_does_not_know_streaming_lists_is_read_in_pages() {
    let server = server().await;
    server.fault(On::Streaming("services"), 1, Fault::NoInitialEnd);
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    let lists = server.requests().iter().filter(|r| r.resource == "services" && !r.watch).count();
    assert_eq!(lists, 4, "11 services in pages of 3");
}

#[tokio::test]
async fn faults_in_the_middle_of_pages() {
    for fault in [
        Fault::Cut { after: 300 },
        Fault::Stall { after: 300 },
        Fault::Refuse { code: 410, retry_after: None },
        Fault::Refuse { code: 500, retry_after: None },
        Fault::Body("{\"kind\":\"ServiceList\",\"metadata\":{},\"items\":[]}".to_owned()),
    ] {
        let server = server().await;
        let unsupported = Fault::Refuse { code: 400, retry_after: None };
        server.fault(On::Streaming("services"), 1, unsupported.clone());
        let mut client = Client::start(&server, timing());
        client.converge(&server).await;

        // Everything has to be read anew, and the second page fails.
        server.fault(On::Streaming("services"), usize::MAX / 2, unsupported);
        server.fault(On::List("services"), 1, Fault::Duplicate);
        server.fault(On::List("services"), 1, Fault::Duplicate);
        server.fault(On::List("services"), 1, fault.clone());
        server.put(service("dev", "web", "10.96.7.7"));
        server.compact();
        server.disconnect();
        server.delete("services", "dev", "web-5");
        server.compact();
        client.converge(&server).await;
        assert_eq!(client.lost, ["dev/web-5"], "{fault:?}");
    }
}

#[tokio::test]
async fn history_that_is_gone_is_read_anew_and_deletions_are_found() {
    let mut server = server().await;
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    server.stop().await;
    server.delete("services", "dev", "web-4");
    server.delete("endpointslices", "dev", "web-4");
    server.put(service("dev", "web-9", "10.96.0.99"));
    server.compact();
    server.resume().await.unwrap();
    client.converge(&server).await;
    assert_eq!(client.lost, ["dev/web-4"]);
    assert_eq!(client.status.services.lists(), 2);
}

#[tokio::test]
async fn an_empty_cluster_is_not_a_half_read_one() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    server.clear("services");
    server.compact();
    server.fault(On::Streaming("services"), 3, Fault::End { after: 0 });
    server.disconnect();
    client.converge(&server).await;
    assert_eq!(client.lost.len(), 11);
    assert_eq!(client.cluster.services().len(), 0);
}

#[tokio::test]
async fn while_the_server_is_gone_the_last_state_is_kept() {
    let mut server = server().await;
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    let before = seen(&client.cluster);
    server.stop().await;
    // Each attempt is one more failure: wait for many of them.
    let status = Arc::clone(&client.status);
    let mut failing = status.services.failing();
    tokio::select! {
        change = client.changes.recv() => panic!("nothing has changed: {change:?}"),
        many = tokio::time::timeout(NEVER, failing.wait_for(|n| *n >= 10)) => {
            many.unwrap().unwrap();
        }
    }
    assert_eq!(seen(&client.cluster), before);
    assert!(!status.services.is_connected());
    assert!(status.services.error().unwrap().contains("refused"), "{status:?}");
    server.put(service("dev", "new", "10.96.5.5"));
    server.resume().await.unwrap();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
    assert_eq!(client.status.services.lists(), 1, "watches were resumed, not begun again");
    assert_eq!(status.services.error(), None);
}

#[tokio::test]
async fn a_database_that_was_restored_is_noticed() {
    // The server restarts: the client asks how far it is before it resumes.
    let mut server = server().await;
    let snapshot = server.snapshot();
    server.put(service("dev", "later", "10.96.8.8"));
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    server.stop().await;
    server.restore(snapshot.clone());
    server.resume().await.unwrap();
    client.converge(&server).await;
    assert_eq!(client.lost, ["dev/later"]);

    // The watch stays open: a bookmark gives it away.
    server.put(service("dev", "later", "10.96.8.8"));
    client.converge(&server).await;
    client.lost.clear();
    server.restore(snapshot);
    server.bookmark();
    client.converge(&server).await;
    assert_eq!(client.lost, ["dev/later"]);
}

#[tokio::test]
async fn events_in_the_wrong_order_do_not_leave_the_older_state() {
    let server = server().await;
    server.fault(On::Watch("services"), 1, Fault::Reverse);
    let mut client = Client::start(&server, timing());
    client.until("complete", Cluster::is_complete).await;
    server.put_all((1..=5).map(|n| service("dev", "web", &format!("10.96.2.{n}"))));
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
    assert!(client.status.services.lists() > 1, "what was missed can only be read anew");
}

#[tokio::test]
async fn a_silent_watch_is_given_up_once_the_server_has_sent_bookmarks() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    server.bookmark();
    let mut failing = client.status.services.failing();
    tokio::time::timeout(NEVER, failing.wait_for(|n| *n > 0)).await.unwrap().unwrap();
    client.converge(&server).await;
}

#[tokio::test]
async fn retry_after_is_respected() {
    let server = server().await;
    server.fault(On::Streaming("services"), 1, Fault::Refuse { code: 429, retry_after: Some(1) });
    let start = tokio::time::Instant::now();
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    // Not a speed test: the client must not have come earlier than it was told to.
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn objects_of_odd_shape_are_not_lost_with_their_neighbours() {
    let server = server().await;
    let wanted = stored(&server);
    let mut odd = service("dev", "odd", "10.96.6.6");
    odd["spec"]["ports"] = json!("eighty");
    odd["metadata"]["labels"] = json!(["a"]);
    odd["status"] = json!(17);
    let fqdn = json!({
        "kind": "EndpointSlice", "addressType": "FQDN",
        "metadata": {"namespace": "dev", "name": "fqdn", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["db.example"]}], "ports": null,
    });
    server.put_all([odd, fqdn]);
    for streaming in [true, false] {
        if !streaming {
            server.fault(
                On::Streaming("services"),
                1,
                Fault::Refuse { code: 400, retry_after: None },
            );
        }
        let mut client = Client::start(&server, timing());
        client
            .until("complete", |cluster| {
                let mut seen = seen(cluster);
                cluster.is_complete() && seen.remove("service dev/odd").is_some() && seen == wanted
            })
            .await;
        assert!(client.status.services.object_warnings() > 0);
        assert_eq!(client.status.slices.object_warnings(), 1);
        assert_eq!(client.status.slices.failures(), 0);
    }
}

#[tokio::test]
async fn everything_is_read_anew_now_and_then() {
    let server = server().await;
    let timing = Timing { rebuild: Duration::from_millis(200), ..timing() };
    let mut client = Client::start(&server, timing);
    client.until("complete", Cluster::is_complete).await;
    let status = Arc::clone(&client.status);
    let read = tokio::time::timeout(NEVER, async {
        while status.services.lists() < 3 {
            let change = client.changes.recv().await.unwrap();
            client.apply(change);
        }
    });
    read.await.unwrap();
    client.converge(&server).await;
    assert_eq!(client.lost, [""; 0]);
    assert_eq!(status.services.failures(), 0);
}

#[tokio::test]
async fn huge_lists_and_huge_objects() {
    let server = server().await;
    let addresses: Vec<String> =
        (0..5000).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    server.put(slice("dev", "huge", "many", &addresses));
    server.put_all((0..3000).map(|n| {
        service("dev", &format!("many-{n}"), &format!("10.97.{}.{}", n / 250, n % 250 + 1))
    }));
    let mut client = Client::start(&server, timing());
    client.converge(&server).await;
    assert_eq!(client.cluster.services().len(), 3011);
}

#[tokio::test]
async fn ends_when_nobody_listens() {
    let server = server().await;
    let mut client = Client::start(&server, timing());
    client.until("complete", Cluster::is_complete).await;
    client.changes.close();
    while client.changes.recv().await.is_some() {}
    tokio::time::timeout(NEVER, &mut client.running).await.unwrap().unwrap();
}

/// The kubeconfig of a kubeadm DaemonSet: current context, token file.
#[tokio::test]
async fn a_kubeconfig_with_a_token_file() {
    let server = server().await;
    let folder = std::env::temp_dir().join(format!("proxier-watch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "secret").unwrap();
    let kubeconfig = folder.join("kubeconfig.conf");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "default",
        "clusters": [{"name": "default", "cluster": {"server": server.url()}}],
        "contexts": [
            {"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}},
        ],
        "users": [{"name": "default", "user": {"tokenFile": folder.join("token")}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let connection = Connection { kubeconfig: Some(kubeconfig), ..Connection::default() };
    let mut client = Client::with(connection, timing());
    client.converge(&server).await;
    // A new connection brings the new token.
    std::fs::write(folder.join("token"), "rotated").unwrap();
    server.fault(On::Watch("services"), 1, Fault::Refuse { code: 401, retry_after: None });
    server.disconnect();
    client.converge(&server).await;
    let seen: Vec<_> = server.requests().into_iter().filter_map(|r| r.authorization).collect();
    assert_eq!(seen.len(), server.requests().len());
    assert_eq!(seen.first().map(String::as_str), Some("Bearer secret"));
    assert_eq!(seen.last().map(String::as_str), Some("Bearer rotated"));
    // Without a token nothing is asked: the server would see an anonymous client.
    std::fs::write(folder.join("token"), "\n").unwrap();
    let asked = server.requests().len();
    server.disconnect();
    let status = Arc::clone(&client.status);
    let mut failing = status.services.failing();
    let named = |_: &u64| status.services.error().is_some_and(|e| e.contains("/token is empty"));
    tokio::time::timeout(NEVER, failing.wait_for(named)).await.unwrap().unwrap();
    assert_eq!(server.requests().len(), asked);
    std::fs::write(folder.join("token"), " third\n").unwrap();
    client.converge(&server).await;
    let last = server.requests().pop().and_then(|request| request.authorization);
    assert_eq!(last.as_deref(), Some("Bearer third"));
    std::fs::remove_dir_all(&folder).unwrap();
}
