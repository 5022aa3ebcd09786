//! The weights of Nodes.

use std::collections::BTreeMap;

use proxier::cluster::Cluster;
use proxier::source::kube::{Connection, Options};
use proxier_tests::apiserver::ApiServer;
use proxier_tests::apiserver::object::node;
use serde_json::{Value, json};

use super::client::{Client, timing};
use super::server;

/// A Node with this weight.
fn weighing(name: &str, weight: &str) -> Value {
    let mut node = node(name, "192.0.2.9");
    node["metadata"]["annotations"] = json!({ "proxier.io/weight": weight });
    node
}

fn weights(cluster: &Cluster) -> BTreeMap<&str, u16> {
    cluster.node_weights().iter().map(|(node, weight)| (&**node, *weight)).collect()
}

fn client(server: &ApiServer, node_weights: bool) -> Client {
    let connection = Connection { server: Some(server.url()), ..Connection::default() };
    let options = Options { timing: timing(), node_weights, ..Options::new("node-a") };
    Client::with_options(connection, options)
}

#[tokio::test]
async fn the_weights_of_all_nodes_are_known_before_anything_is_done_and_followed() {
    let server = server().await;
    server.put(weighing("node-b", "4"));
    server.put(weighing("node-c", "heavy"));
    let mut client = client(&server, true);
    client.until("complete", Cluster::is_complete).await;
    assert_eq!(weights(&client.cluster), [("node-b", 4)].into());
    assert_eq!(client.status.node_weights.object_warnings(), 1, "of node-c");
    let of_nodes = server.requests();
    let mut of_nodes = of_nodes.iter().filter(|it| it.resource == "nodes" && it.metadata);
    let first = of_nodes.next().expect("metadata alone is asked for");
    assert_eq!(first.query.get("fieldSelector"), None, "of all nodes");

    server.put(weighing("node-b", "0"));
    server.put(weighing("node-a", "7"));
    let wanted = BTreeMap::from([("node-a", 7), ("node-b", 0)]);
    client.until("other weights", |cluster| weights(cluster) == wanted).await;
    // What is deleted, what loses its annotation, and after a gap what is no longer listed.
    server.delete("nodes", "", "node-b");
    client.until("one less", |cluster| weights(cluster) == [("node-a", 7)].into()).await;
    server.put(weighing("node-d", "2"));
    client.until("one more", |cluster| weights(cluster).len() == 2).await;
    server.delete("nodes", "", "node-d");
    server.compact();
    server.disconnect();
    client.until("again one less", |cluster| weights(cluster) == [("node-a", 7)].into()).await;
    server.put(node("node-a", "192.0.2.1"));
    client.until("none", |cluster| weights(cluster).is_empty()).await;
}

/// The loop is not woken for each of the writes that a kubelet makes every few minutes.
#[tokio::test]
async fn a_node_that_is_written_without_another_weight_is_no_change() {
    let server = server().await;
    server.put(weighing("node-b", "4"));
    let mut client = client(&server, true);
    client.until("complete", Cluster::is_complete).await;
    let before = client.status.node_weights.events();
    for n in 0..5 {
        let mut heavy = weighing("node-b", "4");
        heavy["status"]["images"] = json!([n]);
        server.put(heavy);
        let mut plain = node("node-c", "192.0.2.3");
        plain["status"]["images"] = json!([n]);
        server.put(plain);
    }
    while client.status.node_weights.events() < before + 10 {
        tokio::task::yield_now().await;
    }
    server.put(weighing("node-b", "5"));
    let change = client.changes.recv().await.expect("the one that counts");
    assert_eq!(change.len(), 1, "{change:?}");
    client.apply(change);
    assert_eq!(weights(&client.cluster), [("node-b", 5)].into());
}

#[tokio::test]
async fn without_being_asked_for_other_nodes_are_not_read() {
    let server = server().await;
    server.put(weighing("node-b", "4"));
    let mut client = client(&server, false);
    client.converge(&server).await;
    assert_eq!(weights(&client.cluster), BTreeMap::new());
    assert!(server.requests().iter().all(|request| !request.metadata));
}
