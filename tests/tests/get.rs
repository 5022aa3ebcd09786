//! `proxier get`: what is wrong is listed first, with its reason, in every form.

use std::net::SocketAddr;
use std::process::Output;

use proxier_tests::http::answer_once;
use proxier_tests::manifest::over;
use serde_json::{Value, json};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: fine, namespace: a, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.10, externalIPs: [203.0.113.9], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: fine-1, namespace: a, labels: {kubernetes.io/service-name: fine}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.1], nodeName: n1, zone: z1}
- {addresses: [10.244.1.1], nodeName: n2}
- {addresses: [10.244.1.2], nodeName: n2, conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: contested, namespace: b, creationTimestamp: '2026-02-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.11, externalIPs: [203.0.113.9], ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: contested-1, namespace: b, labels: {kubernetes.io/service-name: contested}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3], nodeName: n1}]
---
apiVersion: v1
kind: Service
metadata:
  name: twice
  namespace: b
  creationTimestamp: '2026-02-01T00:00:00Z'
  annotations: {proxier.io/scheduler: fastest}
spec: {clusterIP: 10.96.0.12, externalIPs: [192.168.1.10], ports: [{name: http, port: 10256}]}
";

fn get(arguments: &[&str], metrics: Option<SocketAddr>) -> Output {
    let metrics = metrics.map_or("127.0.0.1:9".to_owned(), |address| address.to_string());
    let metrics = format!("--metrics-bind-address={metrics}");
    over(OBJECTS, ["get", &metrics].iter().chain(arguments)).expect("proxier runs")
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(get(arguments, None))).expect("JSON")
}

#[test]
fn what_is_wrong_comes_first_and_says_why() {
    let text = text(get(&["svc", "-A"], None));
    let lines: Vec<&str> = text.lines().collect();
    let [titles, contested, twice, fine] = *lines else { panic!("{text}") };
    assert!(titles.starts_with("NAMESPACE  NAME ") && titles.ends_with("PROBLEM"), "{text}");
    assert!(contested.ends_with("203.0.113.9:80/tcp is taken by a/fine"), "{text}");
    assert!(
        twice
            .ends_with("10.96.0.12:10256/tcp has no endpoints, connections are refused and 2 more"),
        "{text}"
    );
    assert!(
        fine.starts_with("a          fine ") && fine.ends_with("80/tcp     1      1       1"),
        "{text}"
    );
}

#[test]
fn programs_get_every_problem() {
    let services = json_of(&["services", "-A", "-o", "json"]);
    assert_eq!(services["node"], "n1");
    let problems = services["services"][1]["problems"].to_string();
    for words in
        ["has no endpoints", "external IP 192.168.1.10 port 10256 is left out: ", "fastest"]
    {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    let fine = &services["services"][2];
    assert_eq!(fine["endpoints"], json!({"local": 1, "remote": 1, "unused": 1}));
    assert_eq!(fine["externalIps"], json!(["203.0.113.9"]));
    assert_eq!(fine["problems"], json!([]));

    let endpoints = json_of(&["ep", "fine", "-n", "a", "-o", "json"]);
    let rows = endpoints["endpoints"].as_array().expect("rows");
    let states: Vec<_> =
        rows.iter().map(|row| (&row["address"], &row["local"], &row["used"])).collect();
    assert_eq!(
        json!(states),
        json!([
            ["10.244.1.2:8080", false, false],
            ["10.244.0.1:8080", true, true],
            ["10.244.1.1:8080", false, true]
        ])
    );
    let servers = json_of(&["vs", "-n", "b", "-o", "json"]);
    let first = &servers["virtualServers"][0];
    assert_eq!(first["virtualServer"], "203.0.113.9:80/tcp");
    assert_eq!(first["problem"], "203.0.113.9:80/tcp is taken by a/fine");
    assert_eq!(first["realServers"], json!([]));
}

#[test]
fn names_are_what_explain_takes() {
    assert_eq!(text(get(&["svc", "-A", "-o", "name"], None)), "b/contested\nb/twice\na/fine\n");
    assert_eq!(
        text(get(&["vs", "fine", "-n", "a", "-o", "name"], None)),
        "10.96.0.10:80/tcp\n203.0.113.9:80/tcp\n"
    );
    let both = text(get(&["svc", "203.0.113.9", "10.244.0.3", "-o", "name"], None));
    assert_eq!(both, "b/contested\na/fine\n");
}

/// What it cannot program, if there is a running proxy.
#[test]
fn what_the_running_proxy_holds_back_is_a_problem() {
    let held = json!({"heldBack": {"total": 1, "first": [{"target": "address 10.96.0.10",
        "waitsFor": "set KUBE-IPVS-IPS", "address": "10.96.0.10"}]}});
    let (address, daemon) = answer_once(format!("HTTP/1.0 200 OK\r\n\r\n{held}")).expect("a port");
    let text = text(get(&["svc", "-n", "a"], Some(address)));
    daemon.join().expect("a daemon").expect("it was asked");
    let problem =
        "not programmed by the running proxy: address 10.96.0.10 waits for set KUBE-IPVS-IPS";
    assert!(text.contains(problem), "{text}");
}

#[test]
fn a_namespace_without_services_is_said_to_be_so() {
    let other = get(&["svc"], None);
    assert!(other.status.success());
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("no Service is in namespace default; -A lists all 3"), "{said}");
    let none = get(&["svc", "-n", "nowhere"], None);
    assert_eq!(none.status.code(), Some(1));
    let wrong = get(&["svc", "-A", "-n", "a"], None);
    assert_eq!(wrong.status.code(), Some(64));
    let wrong = get(&["svc", "-o", "ipvsadm"], None);
    assert_eq!(wrong.status.code(), Some(64));
}
