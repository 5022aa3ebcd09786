//! What belongs together arrives together: an endpoint that moves from one slice to another is in
//! one of the two after each event.

use std::time::Duration;

use proxier::cluster::{Change, Cluster, ObjectKey};
use proxier::source::kube::Timing;
use proxier_tests::apiserver::object::slice;
use proxier_tests::apiserver::{ApiServer, Fault, On};

use super::client::{Client, NEVER, seen, stored, timing};
use super::server;

const MOVING: &str = "10.0.9.9";
/// The first and the last one in the order of a list, pages apart.
const SLICES: [&str; 2] = ["a-first", "z-last"];

/// Puts the endpoint into one slice and, before that, takes it from the other one.
fn move_to(server: &ApiServer, to: usize) {
    let (from, to) = (SLICES[1 - to], SLICES[to]);
    server.put_all([
        slice("dev", from, "web", &["10.0.9.1"]),
        slice("dev", to, "web", &["10.0.9.2", MOVING]),
    ]);
}

fn is_there(cluster: &Cluster) -> bool {
    let web = ObjectKey::new("dev", "web");
    let mut slices = cluster.slices(&web);
    slices.any(|slice| slice.endpoints.iter().any(|e| e.address.to_string() == MOVING))
}

/// Takes in events until all is as the server has it. After each the endpoint is there.
async fn never_missing(client: &mut Client, server: &ApiServer, what: &str) {
    let wanted = stored(server);
    let follow = async {
        while seen(&client.cluster) != wanted {
            let event = client.changes.recv().await.expect("the source must not end");
            client.apply(event);
            assert!(is_there(&client.cluster), "{what}: missing in between");
        }
    };
    assert!(tokio::time::timeout(NEVER, follow).await.is_ok(), "{what}: {:?}", client.status);
}

/// A client that knows the endpoint in the first slice.
async fn client(server: &ApiServer, timing: Timing) -> Client {
    move_to(server, 0);
    let mut client = Client::start(server, timing);
    client.converge(server).await;
    client
}

#[tokio::test]
async fn what_is_there_to_be_read_of_a_stream_is_one_event() {
    let server = server().await;
    let mut client = client(&server, timing()).await;
    for n in 0..50 {
        move_to(&server, (n + 1) % 2);
        never_missing(&mut client, &server, &format!("move {n}")).await;
    }
    assert_eq!(client.status.slices.lists(), 1);
}

#[tokio::test]
async fn a_list_after_a_410_is_one_event() {
    for pages in [false, true] {
        let mut server = server().await;
        if pages {
            let refuse = Fault::Refuse { code: 500, retry_after: None };
            server.fault(On::Streaming("endpointslices"), usize::MAX / 2, refuse);
        }
        let mut client = client(&server, timing()).await;
        for n in 0..10 {
            server.stop().await;
            move_to(&server, (n + 1) % 2);
            server.compact();
            server.resume().await.expect("the same port");
            never_missing(&mut client, &server, &format!("list {n}, pages {pages}")).await;
        }
        assert_eq!(client.status.slices.lists(), 11);
        assert_eq!(client.lost, [""; 0]);
    }
}

/// A list that fails half-way says nothing; the next one says everything.
#[tokio::test]
async fn a_list_that_fails_is_not_half_an_event() {
    let server = server().await;
    let mut client = client(&server, timing()).await;
    for (n, after) in [(0, 1), (1, 3), (2, 6)] {
        server.fault(On::Streaming("endpointslices"), 2, Fault::End { after });
        server.compact();
        move_to(&server, (n + 1) % 2);
        server.compact();
        server.disconnect();
        never_missing(&mut client, &server, &format!("end after {after}")).await;
    }
}

#[tokio::test]
async fn the_periodic_list_is_one_event() {
    let server = server().await;
    let timing = Timing { rebuild: Duration::from_millis(20), ..timing() };
    let mut client = client(&server, timing).await;
    let mut moves = 0;
    let lists = client.status.slices.lists();
    while client.status.slices.lists() < lists + 20 {
        moves += 1;
        move_to(&server, moves % 2);
        never_missing(&mut client, &server, &format!("move {moves}")).await;
    }
}

/// A list of what is known already is hardly an event.
#[tokio::test]
async fn a_list_tells_only_what_has_changed() {
    let server = server().await;
    let mut client = client(&server, timing()).await;
    server.put(slice("dev", "web-3", "web", &["10.0.0.77"]));
    server.compact();
    server.disconnect();
    let wanted = stored(&server);
    let mut told = 0;
    while seen(&client.cluster) != wanted {
        let event = client.changes.recv().await.expect("the source must not end");
        // How often a list is read depends on when the server's answers come.
        told += event
            .iter()
            .filter(|change| matches!(change, Change::Slice(_) | Change::Service(_)))
            .count();
        client.apply(event);
    }
    assert_eq!(told, 1, "only the slice that has changed");
}
