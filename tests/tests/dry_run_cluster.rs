//! `proxier --dry-run` against an API server: the other source of the same output as from manifests.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::apiserver::{Authority, Fault, On};
use proxier_tests::command::output;
use proxier_tests::daemon::Scratch;
use proxier_tests::live::{Live, NODE, NODE_ADDRESS};
use proxier_tests::manifest;
use serde_json::{Value, json};

const FORMATS: [&str; 7] =
    ["table", "json", "ipvsadm", "addresses", "ipset", "iptables", "ip6tables"];

fn objects() -> Vec<Value> {
    let mut nodes = service("dev", "nodes", "10.96.0.2");
    nodes["spec"]["type"] = json!("NodePort");
    nodes["spec"]["ports"][0]["nodePort"] = json!(30080);
    nodes["spec"]["externalIPs"] = json!(["203.0.113.7"]);
    vec![
        node(NODE, NODE_ADDRESS),
        service("dev", "web", "10.96.0.1"),
        slice("dev", "web-1", "web", &["10.244.0.5", "10.244.0.6"]),
        slice("dev", "web-2", "web", &["10.244.0.6", "10.244.0.7"]),
        nodes,
        slice("dev", "nodes-1", "nodes", &["10.244.0.8"]),
        service("dev", "empty", "10.96.0.3"),
    ]
}

fn live() -> Live {
    let live = Live::start().unwrap();
    live.server.put_all(objects());
    live
}

#[test]
fn a_cluster_prints_what_manifests_of_the_same_objects_print() {
    let live = live();
    let folder = Scratch::create().unwrap();
    let path = folder.replace("objects.yaml", manifest::file(&objects())).unwrap();
    for format in FORMATS {
        let cluster = output(&mut live.proxier(&["--dry-run", "-o", format]).unwrap()).unwrap();
        let more = ["--dry-run", "-o", format, "--manifests", path.to_str().unwrap()];
        let manifests = output(&mut live.proxier(&more).unwrap()).unwrap();
        assert_eq!(cluster, manifests, "{format}");
        assert!(
            format == "ip6tables" || cluster.contains("10.96.0.1") || cluster.contains("KUBE-")
        );
    }
}

#[test]
fn the_virtual_servers_of_a_cluster() {
    let dump = live().dry_run().unwrap();
    let real = |vip: &str, pods: &[u8]| -> Vec<String> {
        pods.iter().map(|n| format!("-a -t {vip} -r 10.244.0.{n}:8080 -m -w 1")).collect()
    };
    let wanted = [
        ("10.96.0.1:80", real("10.96.0.1:80", &[5, 6, 7])),
        ("10.96.0.2:80", real("10.96.0.2:80", &[8])),
        ("10.96.0.3:80", vec![]),
        ("192.0.2.1:30080", real("192.0.2.1:30080", &[8])),
        ("203.0.113.7:80", real("203.0.113.7:80", &[8])),
    ];
    let wanted = wanted.map(|(vip, servers)| (format!("-A -t {vip} -s rr"), servers)).into();
    assert_eq!(dump.ipvs, wanted);
    let bound = ["10.96.0.1", "10.96.0.2", "10.96.0.3", "203.0.113.7"];
    let bound: BTreeSet<String> =
        bound.iter().map(|ip| format!("inet {ip}/32 scope global")).collect();
    assert_eq!(dump.addresses, bound);
}

/// Whatever goes wrong while the lists are read: what is printed is complete.
#[test]
fn nothing_half_read_is_printed() {
    let wanted = live().dry_run().unwrap().ipvs;
    for fault in [
        Fault::End { after: 0 },
        Fault::End { after: 2 },
        Fault::Cut { after: 700 },
        Fault::HalfEvent { after: 1 },
        Fault::Body("{}".to_owned()),
        Fault::Refuse { code: 500, retry_after: None },
        // Not known to the server: read in pages instead.
        Fault::Refuse { code: 400, retry_after: None },
    ] {
        for kind in ["services", "endpointslices"] {
            let live = live();
            live.server.fault(On::Streaming(kind), 1, fault.clone());
            let printed = output(&mut live.proxier(&["--dry-run", "-o", "ipvsadm"]).unwrap());
            let printed = proxier_tests::golden::blocks(&printed.unwrap());
            assert_eq!(printed, wanted, "{kind}: {fault:?}");
            assert_eq!(live.server.pending_faults(), 0, "{kind}: {fault:?}");
        }
    }
}

#[test]
fn a_dry_run_needs_no_more_than_to_list_and_watch() {
    let live = live();
    live.dry_run().unwrap();
    let kinds: BTreeSet<String> =
        live.server.requests().into_iter().map(|request| request.resource).collect();
    assert_eq!(kinds, ["endpointslices", "nodes", "services"].map(str::to_owned).into());
}

/// Runs to its end, with a kubeconfig for this cluster and user; returns what it says of an error.
fn refused(live: &Live, what: &[&str], cluster: &Value, user: &Value) -> String {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": user}],
    });
    let scratch = Scratch::create().unwrap();
    let path = scratch.replace("kubeconfig", kubeconfig.to_string()).unwrap();
    let mut command = live.proxier(what).unwrap();
    let ended = command.arg("--kubeconfig").arg(path).output().unwrap();
    assert!(!ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
    let said = String::from_utf8(ended.stderr).unwrap();
    let last = said.lines().last().unwrap_or_default().to_owned();
    println!("{last}");
    // It did not wait for the minute that a silent server gets.
    assert!(!said.contains("has sent nothing"), "{said}");
    last
}

#[test]
fn a_server_that_is_not_trusted_is_named_soon() {
    let live = live();
    let authority = |name| Authority::new(name).unwrap();
    live.server.secure(&authority("servers"), &authority("clients")).unwrap();
    let url = live.server.url();
    for cluster in [
        json!({"server": url}),
        json!({
            "server": url,
            "certificate-authority-data": ByteString(authority("others").pem.into_bytes()),
        }),
    ] {
        let said = refused(&live, &["--dry-run"], &cluster, &json!({}));
        assert!(said.contains(&format!("the API server {url}/ cannot be read")), "{said}");
        assert!(said.contains("invalid peer certificate: UnknownIssuer"), "{said}");
    }
}

#[test]
fn a_server_that_refuses_is_named_soon_with_its_answer() {
    for (code, what) in
        [(401, &["--dry-run"][..]), (403, &["explain", "dev/web"]), (401, &["explain", "dev/web"])]
    {
        let live = live();
        let refuse = Fault::Refuse { code, retry_after: None };
        live.server.fault(On::Any("services"), usize::MAX / 2, refuse);
        let url = live.server.url();
        let said = refused(&live, what, &json!({"server": url}), &json!({}));
        assert!(said.contains(&format!("the API server {url}/ cannot be read")), "{said}");
        assert!(said.contains(&format!("refused with {code}: refused on command")), "{said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_soon() {
    let mut live = live();
    live.stop_server();
    let url = live.server.url();
    for what in [&["--dry-run"][..], &["explain", "dev/web"]] {
        let said = refused(&live, what, &json!({"server": url}), &json!({}));
        assert!(said.contains(&format!("the API server {url}/ cannot be read")), "{said}");
        assert!(said.contains("Connection refused"), "{said}");
    }
}

#[test]
fn a_token_file_without_a_token_is_named() {
    let live = live();
    let scratch = Scratch::create().unwrap();
    let token = scratch.replace("token", "\n").unwrap();
    let cluster = json!({"server": live.server.url()});
    let said = refused(&live, &["--dry-run"], &cluster, &json!({"tokenFile": token}));
    assert!(said.contains(&format!("the token file {} is empty", token.display())), "{said}");
    assert!(live.server.requests().is_empty(), "nothing is asked as nobody");
}

/// Everything else is computed all the same.
#[test]
fn a_node_without_an_object_is_named_with_where_its_name_is_from() {
    let live = live();
    live.server.delete("nodes", "", NODE);
    let ended = live.proxier(&["--dry-run", "-o", "ipvsadm"]).unwrap().output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    println!("{said}");
    assert!(ended.status.success(), "{said}");
    assert!(said.contains(&format!("has no Node \"{NODE}\" (yet)")), "{said}");
    assert!(said.contains("The name is from --hostname-override;"), "{said}");
    let printed = String::from_utf8(ended.stdout).unwrap();
    assert!(printed.contains("-a -t 10.96.0.1:80 -r 10.244.0.5:8080"), "{printed}");
}
