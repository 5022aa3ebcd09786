//! What others wrote, on its way to people: no text in an object, in an answer of the API server, in a
//! configuration, in a file's name or on the command line makes a terminal obey, forges a line, or turns
//! the direction of what is read; and no number of objects makes more warnings than anyone reads.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use proxier_tests::command::program;
use proxier_tests::daemon::Scratch;
use proxier_tests::simulated::cases;
use serde_json::{Value, json};

/// Line ends, escapes of terminals, changes of direction, what is invisible.
const EVIL: &str = "e\u{1b}[2J\u{1b}]0;t\u{7}\nFORGED\r\nFORGED\u{202e}\u{2066}\u{200f}\u{200b}\u{9b}31m\
                    \u{7f}\u{2028}FORGED\u{feff}\u{0}";

fn proxier() -> Command {
    Command::new(program("proxier").unwrap())
}

/// Runs it on some manifests.
fn run(arguments: &[&str], objects: &[Value]) -> Output {
    let scratch = Scratch::create().unwrap();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let path = scratch.replace("objects.json", list.to_string()).unwrap();
    let mut command = proxier();
    command.args(arguments).arg("--manifests").arg(path);
    command.args(["--hostname-override=n1", "--node-address=192.168.1.10", "--proxy-mode=ipvs"]);
    command.output().unwrap()
}

/// Both streams, in which nothing must be obeyed.
fn harmless(output: Output, what: &str) -> String {
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap_or_else(|error| panic!("{what}: {error}"));
    check(&text, what);
    text
}

fn check(text: &str, what: &str) {
    for c in text.chars() {
        let invisible = matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' | '\u{e0000}'..='\u{e007f}');
        assert!(c == '\n' || !(c.is_control() || invisible), "{what}: {c:?} in {text:?}");
    }
    let forged = text.lines().find(|line| line.trim_start().starts_with("FORGED"));
    assert_eq!(forged, None, "{what}: {text}");
}

/// Objects with every field that is read, and some that are not.
fn objects() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "web", "namespace": "ns", "uid": "1", "resourceVersion": "1",
                "creationTimestamp": "2026-02-01T00:00:00Z",
                "labels": {"app": "web"},
                "annotations": {"service.kubernetes.io/topology-mode": "Auto"},
            },
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "externalIPs": ["203.0.113.1"], "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
                "trafficDistribution": "PreferClose",
                "loadBalancerSourceRanges": ["10.0.0.0/8"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080,
                    "targetPort": "http", "appProtocol": "http"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7", "ipMode": "VIP",
                "hostname": "x"}]}},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "ns", "labels": {
                "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "x"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time":
                    "2026-02-01T00:00:00Z"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": "n1", "zone": "a",
                "hostname": "x", "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]},
                "targetRef": {"kind": "Pod", "name": "web-1"}}],
        }),
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDRs": ["10.244.0.0/24"], "taints": [{"key": "x", "effect": "NoSchedule"}]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.10"}]},
        }),
    ]
}

/// Every text in a value, by its path, and every name of a field.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::String(_) => found.push(at.to_owned()),
        Value::Array(all) => {
            for (n, inner) in all.iter().enumerate() {
                places(inner, &format!("{at}/{n}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, inner) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                places(inner, &format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
}

/// Each object once for each of its texts, which is then this; and with a field of that name.
fn spoilt(text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for object in objects() {
        let mut paths = Vec::new();
        places(&object, "", &mut paths);
        for (n, path) in paths.iter().enumerate() {
            let mut spoilt = object.clone();
            if path != "/metadata/name" && object["kind"] != "Node" {
                spoilt["metadata"]["name"] = json!(format!("web-{n}"));
            }
            *spoilt.pointer_mut(path).unwrap() = json!(text);
            let parent = path.rsplit_once('/').unwrap().0;
            if let Some(Value::Object(fields)) = spoilt.pointer_mut(parent) {
                fields.insert(text.to_owned(), json!(text));
            }
            all.push(spoilt);
        }
    }
    all
}

#[test]
fn texts_of_objects_reach_no_terminal_as_they_are() {
    let mut all = spoilt(EVIL);
    for output in ["table", "json", "all"] {
        let text = harmless(run(&["--dry-run", "--output", output], &all), output);
        assert!(text.contains("\\u{1b}[2J") || text.contains("\\u001b[2J"), "it was there: {text}");
    }

    all.clear();
    let mut slice = objects().swap_remove(1);
    slice["endpoints"][0]["nodeName"] = json!(EVIL);
    slice["endpoints"][0]["hints"] = json!({"forZones": [{"name": EVIL}]});
    slice["ports"][0]["name"] = json!(EVIL);
    let mut service = objects().swap_remove(0);
    service["spec"]["ports"][0]["name"] = json!(EVIL);
    let mut other = objects().swap_remove(0);
    other["metadata"]["name"] = json!("other");
    other["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!(EVIL);
    all.extend([service, slice, other, objects().swap_remove(2)]);
    for what in ["ns/web", "ns/other", "10.96.0.10", "203.0.113.7:80", EVIL.trim_end_matches('\0')]
    {
        let text = harmless(run(&["explain", what], &all), what);
        assert!(text.contains("\\u{1b}[2J"), "it was there: {what}: {text}");
    }
}

#[test]
fn a_name_of_a_megabyte_is_not_a_megabyte_in_each_line() {
    let long = "x".repeat(1 << 20);
    let all = spoilt(&long);
    let output = run(&["--dry-run", "--output", "table"], &all[..20]);
    let text = harmless(output, "long");
    assert!(text.lines().all(|line| line.len() < 10_000), "a line is too long");
}

#[test]
fn arguments_and_names_of_files_reach_no_terminal_as_they_are() {
    let evil = EVIL.trim_end_matches('\0');
    let not_utf8 = OsStr::from_bytes(b"\xff\x1b[2J\nFORGED").to_owned();
    for evil in [OsString::from(evil), not_utf8] {
        let with = |flag: &str| {
            let mut argument = OsString::from(flag);
            argument.push(&evil);
            argument
        };
        for flag in [
            "",
            "--",
            "-",
            "--config=",
            "--hostname-override=",
            "--manifests=",
            "--bind-address=",
            "--vmodule=",
            "--output=",
            "--cluster-cidr=",
            "--proxy-mode=",
            "--ipvs-scheduler=",
            "--feature-gates=",
            "--master=",
            "--kubeconfig=",
            "--detect-local-mode=",
            "--ipvs-sync-period=",
            "--node-address=",
            "--service-metrics=",
            "--write-config-to=/x/",
            "--ipvs-exclude-cidrs=",
            "--nodeport-addresses=",
            "--logging-format=",
            "--v=",
            "--version=",
            "--healthz-port=",
            "--pod-interface-name-prefix=",
        ] {
            for command in ["--dry-run", "explain", "status", "diff"] {
                let mut arguments = vec![OsString::from(command)];
                if command == "explain" {
                    arguments.push(evil.clone());
                }
                // Whatever else is right must not make it wait for a cluster.
                if flag != "--manifests=" {
                    arguments.push("--manifests=/nonexistent".into());
                }
                arguments.push(with(flag));
                let output = proxier().args(&arguments).output().unwrap();
                harmless(output, &format!("{arguments:?}"));
            }
        }
    }
}

#[test]
fn texts_of_configurations_reach_no_terminal_as_they_are() {
    let scratch = Scratch::create().unwrap();
    let base = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "ipvs", "bindAddress": "0.0.0.0", "clusterCIDR": "10.244.0.0/16",
        "healthzBindAddress": "0.0.0.0:10256", "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": "n1", "detectLocalMode": "ClusterCIDR", "configSyncPeriod": "15m",
        "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
        "nodePortAddresses": ["10.0.0.0/8"], "featureGates": {"X": true}, "portRange": "",
        "clientConnection": {"kubeconfig": "", "contentType": "", "acceptContentTypes": ""},
        "ipvs": {"scheduler": "rr", "excludeCIDRs": ["10.0.0.0/8"], "syncPeriod": "30s"},
        "logging": {"format": "text", "vmodule": [{"filePattern": "x", "verbosity": 1}]},
    });
    let mut paths = Vec::new();
    places(&base, "", &mut paths);
    for path in paths {
        let mut config = base.clone();
        *config.pointer_mut(&path).unwrap() = json!(EVIL);
        let parent = path.rsplit_once('/').unwrap().0;
        if let Some(Value::Object(fields)) = config.pointer_mut(parent) {
            fields.insert(EVIL.to_owned(), json!(EVIL));
        }
        let file = scratch.replace("config.yaml", config.to_string()).unwrap();
        let mut command = proxier();
        command.args(["--dry-run", "--manifests=/nonexistent", "--config"]).arg(file);
        harmless(command.output().unwrap(), &path);
    }
}

/// Answers everything with this.
fn server(head: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One that is gone already needs no answer.
            let _ = stream.read(&mut [0; 8192]).and_then(|_| stream.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn answers_of_the_api_server_forge_no_line() {
    let status = json!({"kind": "Status", "apiVersion": "v1", "code": 403, "reason": EVIL,
        "message": EVIL});
    let gone = json!({"type": "ERROR", "object": {"code": 500, "reason": EVIL, "message": EVIL}});
    for (head, body) in [
        ("403 Forbidden", status.to_string()),
        ("500 Internal Server Error", EVIL.to_owned()),
        ("200 OK", gone.to_string() + "\n"),
        ("200 OK", format!("{{\"type\": \"ADDED\", \"object\": {}}}\n", json!({"kind": EVIL}))),
        ("200 OK", EVIL.to_owned() + "\n"),
    ] {
        let master = format!("--master=http://{}", server(head, &body));
        let mut child = proxier()
            .args(["--dry-run", "--hostname-override=n1", "--node-address=192.0.2.1", &master])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut text = String::new();
        // Each of the three watches fails and says why.
        while text.matches("the watch failed").count() < 3 {
            text += &lines.next().expect("it says what fails");
            text.push('\n');
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check(&text, &body);
    }
}

#[test]
fn what_answers_instead_of_the_daemon_reaches_no_terminal_as_it_is() {
    let view = json!({
        "node": EVIL, "version": EVIL, "upSeconds": 1, "complete": true, "synced": false,
        "healthy": true, "services": EVIL, "virtualServers": 1, "realServers": 1,
        "failingTargets": EVIL, "failingSeconds": 1, "state": EVIL,
        "attention": [{"kind": EVIL, "what": EVIL, "seconds": 1, "then": EVIL}],
        "watches": [{"resource": EVIL, "connected": true, "silentSeconds": EVIL, "failures": EVIL}],
        "draining": {"total": 2, "first": [{"virtualServer": EVIL, "realServer": EVIL,
            "connections": EVIL, "secondsLeft": 9}]},
        "conflicts": {"total": 2, "first": [{"virtualServer": EVIL, "winner": EVIL,
            "losers": [EVIL, EVIL]}]},
        "errors": [EVIL],
    });
    for (head, body) in [
        ("200 OK", view.to_string()),
        ("200 OK", EVIL.to_owned()),
        ("500 \u{1b}[2J\u{202e}", EVIL.to_owned()),
    ] {
        let address = server(head, &body);
        for output in ["table", "json"] {
            let mut command = proxier();
            command.args(["status", "--output", output, "--proxy-mode=ipvs"]);
            command.arg(format!("--metrics-bind-address={address}"));
            let text = harmless(command.output().unwrap(), output);
            assert!(text.len() > 40, "{text}");
        }
    }
}

/// 124 MB of warnings were written for this.
#[test]
fn five_thousand_services_with_one_external_ip_are_a_line() {
    let service = |n: usize| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("s{n:04}"), "namespace": "ns"},
            "spec": {"clusterIP": format!("10.96.{}.{}", n >> 8, n & 255),
                "externalIPs": ["203.0.113.1"], "ports": [{"port": 80}]},
        })
    };
    let all: Vec<Value> = (0..5000).map(service).collect();
    let output = run(&["--dry-run", "--output", "json"], &all);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.matches("claim the same address").count(), 1, "{said}");
    assert!(said.contains("and 4989 more"), "{said}");
    assert!(said.len() < 4096, "{} bytes: {said}", said.len());
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["conflicts"][0]["losers"].as_array().unwrap().len(), 10);
    assert_eq!(shown["conflicts"][0]["moreLosers"], 4989);
}

/// The same for what grows with the product of services and addresses, and for what is left out.
#[test]
fn many_conflicts_and_many_addresses_that_cannot_be_are_a_few_lines() {
    let service = |n: usize| {
        let shared = (0..200).map(|n| format!("203.0.113.{n}"));
        let never = (0..200).map(|n| format!("127.0.0.{n}"));
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("s{n:04}"), "namespace": "ns"},
            "spec": {"clusterIP": format!("10.96.{}.{}", n >> 8, n & 255),
                "externalIPs": shared.chain(never).collect::<Vec<_>>(), "ports": [{"port": 80}]},
        })
    };
    let all: Vec<Value> = (0..100).map(service).collect();
    let output = run(&["--dry-run", "--output", "json"], &all);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.len() < 200_000, "{} bytes: {}", said.len(), &said[..4096]);
    assert!(said.lines().all(|line| line.len() < 4096 + 100));
}

proptest! {
    #![proptest_config(cases(12))]
    /// The same with texts that nobody has thought of.
    #[test]
    fn no_text_finds_a_way_around(text in "(?s)(.|[\u{0}-\u{1f}\u{7f}-\u{9f}\u{2000}-\u{206f}]){1,40}") {
        let all = spoilt(&text);
        for output in ["table", "json"] {
            let output = run(&["--dry-run", "--output", output], &all);
            let shown = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            check(&shown, &text);
        }
    }
}
