//! Certificates: of the client and of the authorities, in files and in the kubeconfig.

use std::fs;
use std::path::Path;

use k8s_openapi::ByteString;
use proxier::source::kube::Connection;
use proxier_tests::apiserver::object::{node, service};
use proxier_tests::apiserver::{ApiServer, Authority, Identity};
use proxier_tests::daemon::Scratch;
use serde_json::{Value, json};

use super::client::{Client, NEVER, timing};
use super::server;

fn kubeconfig(path: &Path, url: &str, cluster: &Value, user: &Value) {
    let mut cluster = cluster.clone();
    cluster["server"] = json!(url);
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": user}],
    });
    // As a whole, as everything that rotates certificates does.
    let next = path.with_extension("next");
    fs::write(&next, text.to_string()).expect("a scratch folder");
    fs::rename(next, path).expect("a scratch folder");
}

/// Waits until each watch has failed in these words.
async fn fails(client: &Client, words: &str) {
    let status = &client.status;
    let reached = tokio::time::timeout(NEVER, async {
        for watch in [&status.services, &status.slices, &status.node] {
            let mut failing = watch.failing();
            let fails = |_: &u64| watch.error().is_some_and(|error| error.contains(words));
            failing.wait_for(fails).await.expect("a watch that is there");
        }
    });
    assert!(reached.await.is_ok(), "no {words:?} in {status:?}");
}

/// Each watch follows a change, as this client and as no other.
async fn works(client: &mut Client, server: &ApiServer, identity: &Identity, address: &str) {
    server.put(service("dev", "web", address));
    client.converge(server).await;
    // The first may be seen by a list; then the watch is not open yet, and survives a disconnection.
    for address in ["192.0.2.3", address] {
        server.put(node("node-a", address));
        client
            .until("the node's address", |cluster| {
                let known = cluster.node().and_then(|node| node.addresses.first());
                known.is_some_and(|known| known.to_string() == address)
            })
            .await;
    }
    let last = server.requests().pop().and_then(|request| request.certificate);
    assert!(last.as_ref() == Some(&identity.der), "another client certificate");
    assert_eq!(client.lost, [""; 0]);
}

/// Both authorities and the client's certificate are replaced; `write` puts into place what the
/// kubeconfig then consists of.
async fn rotates(write: impl Fn(&Path, &str, &Authority, &Identity)) {
    let server = server().await;
    let scratch = Scratch::create().expect("a scratch folder");
    let path = scratch.path().join("kubeconfig");
    let [own, clients] = ["servers", "clients"].map(|name| Authority::new(name).expect("keys"));
    server.secure(&own, &clients).expect("keys");
    let identity = clients.client("node-a").expect("keys");
    write(&path, &server.url(), &own, &identity);
    let connection = Connection { kubeconfig: Some(path.clone()), ..Connection::default() };
    let mut client = Client::with(connection, timing());
    works(&mut client, &server, &identity, "10.96.2.1").await;

    // The server trusts new client certificates only; connections that are open stay.
    let new_clients = Authority::new("new clients").expect("keys");
    server.secure(&own, &new_clients).expect("keys");
    works(&mut client, &server, &identity, "10.96.2.2").await;
    server.disconnect();
    fails(&client, "UnknownCA").await;
    let identity = new_clients.client("node-a").expect("keys");
    write(&path, &server.url(), &own, &identity);
    works(&mut client, &server, &identity, "10.96.2.3").await;

    // The server has a certificate of an authority that the client does not know yet.
    let new = Authority::new("new servers").expect("keys");
    server.secure(&new, &new_clients).expect("keys");
    server.disconnect();
    fails(&client, "UnknownIssuer").await;
    write(&path, &server.url(), &new, &identity);
    works(&mut client, &server, &identity, "10.96.2.4").await;

    // A new certificate of a known authority needs nothing.
    server.secure(&new, &new_clients).expect("keys");
    server.disconnect();
    works(&mut client, &server, &identity, "10.96.2.5").await;
}

#[tokio::test]
async fn certificates_in_files_rotate() {
    rotates(|path, url, own, identity| {
        let folder = path.parent().expect("a folder");
        let place = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).expect("a scratch folder");
            json!(file)
        };
        let cluster = json!({"certificate-authority": place("ca.crt", &own.pem)});
        let user = json!({
            "client-certificate": place("client.crt", &identity.pem),
            "client-key": place("client.key", &identity.key),
        });
        // The kubeconfig itself stays as it is.
        if !path.exists() {
            kubeconfig(path, url, &cluster, &user);
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_in_the_kubeconfig_rotate() {
    rotates(|path, url, own, identity| {
        let data = |text: &str| ByteString(text.as_bytes().to_vec());
        let cluster = json!({"certificate-authority-data": data(&own.pem)});
        let user = json!({
            "client-certificate-data": data(&identity.pem),
            "client-key-data": data(&identity.key),
        });
        kubeconfig(path, url, &cluster, &user);
    })
    .await;
}
