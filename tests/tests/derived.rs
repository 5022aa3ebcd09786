//! More scenarios of the kind of `tests/golden`. What the kernel holds in them was not recorded: it was
//! derived by hand from the description of kube-proxy's behaviour, before the daemon was asked.

#![allow(clippy::unwrap_used, reason = "an unreadable answer is a failed test")]

#[path = "derived/families.rs"]
mod families;
#[path = "derived/options.rs"]
mod options;
#[path = "derived/selection.rs"]
mod selection;
#[path = "derived/services.rs"]
mod services;

use std::fmt::Write as _;

use proxier_tests::daemon::Scratch;
use proxier_tests::golden::{Dump, dry_run};
use proxier_tests::manifest;
use serde_json::{Value, json};

/// What most scenarios are configured with.
const USUAL: &str = "clusterCIDR: 10.244.0.0/16,fd00:10:244::/56";

/// Computes the state of `node-a`, which has `192.168.50.10`, `fd00:50::10` and zone `zone-1`.
fn state(config: &str, objects: &[Value]) -> Dump {
    let addresses = ["192.168.50.10", "fd00:50::10"];
    on(
        &node("node-a", json!({ "topology.kubernetes.io/zone": "zone-1" })),
        &addresses,
        config,
        objects,
    )
}

/// As [`state`], for a node with other addresses or another object.
fn on(node: &Value, addresses: &[&str], config: &str, objects: &[Value]) -> Dump {
    let scratch = Scratch::create().unwrap();
    let documents: Vec<Value> = std::iter::once(node).chain(objects).cloned().collect();
    let manifests = scratch.replace("objects.json", manifest::file(&documents)).unwrap();
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
         hostnameOverride: node-a\n{config}\n"
    );
    let config = scratch.replace("config.yaml", text).unwrap();
    let mut words = vec!["--local-policy=kube-proxy".to_owned()];
    words.extend(["--config".to_owned(), config.display().to_string()]);
    words.extend(["--manifests".to_owned(), manifests.display().to_string()]);
    words.extend(addresses.iter().flat_map(|ip| ["--node-address".to_owned(), (*ip).to_owned()]));
    dry_run(None, &words).unwrap()
}

/// The state in lines: `-t ADDRESS:PORT -s SCHEDULER | REAL SERVERS`, `bound ADDRESSES`, `SET: MEMBERS`
/// of every set that has any, but for those of bound addresses.
fn lines(dump: &Dump) -> String {
    let mut out = String::new();
    for (head, servers) in &dump.ipvs {
        let servers: Vec<&str> = servers
            .iter()
            .map(|line| line.strip_suffix(" -m -w 1").unwrap().rsplit_once(" -r ").unwrap().1)
            .collect();
        writeln!(out, "{} | {}", head.strip_prefix("-A ").unwrap(), servers.join(" ")).unwrap();
    }
    let mut bound: Vec<&str> =
        dump.addresses.iter().map(|line| line.split(['/', ' ']).nth(1).unwrap()).collect();
    bound.sort_unstable();
    let mut known = [dump.set("KUBE-IPVS-IPS"), dump.set("KUBE-6-IPVS-IPS")].concat();
    known.sort_unstable();
    assert_eq!(bound, known, "the firewall knows what is bound");
    if !bound.is_empty() {
        writeln!(out, "bound {}", bound.join(" ")).unwrap();
    }
    for (head, members) in &dump.sets {
        let name = head.split(' ').next().unwrap();
        if !members.is_empty() && !name.ends_with("-IPVS-IPS") {
            writeln!(out, "{name}: {}", members.join(" ")).unwrap();
        }
    }
    out
}

#[track_caller]
fn expect(found: &Dump, expected: &[&str]) {
    let (found, mut sorted) = (lines(found), expected.to_vec());
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(found, sorted, "\nfound:\n{}\nexpected:\n{}", found.join("\n"), sorted.join("\n"));
}

/// A Service of these cluster IPs and with these fields of `spec` besides; port `(name, protocol, port)`.
fn service(name: &str, ips: &[&str], ports: &[(&str, &str, u16)], more: Value) -> Value {
    let family = |ip: &&str| if ip.contains(':') { "IPv6" } else { "IPv4" };
    let port = |(name, protocol, port): &(&str, &str, u16)| json!({ "name": name, "protocol": protocol, "port": port });
    let mut spec = json!({
        "type": "ClusterIP",
        "clusterIP": ips.first(),
        "clusterIPs": ips,
        "ipFamilies": ips.iter().map(family).collect::<Vec<_>>(),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
    });
    let Value::Object(more) = more else { panic!("{more} is no object") };
    for (field, value) in more {
        match field.as_str() {
            "nodePorts" => {
                for (port, number) in value.as_array().unwrap().iter().enumerate() {
                    spec["ports"][port]["nodePort"] = number.clone();
                }
            }
            field => spec[field] = value,
        }
    }
    json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

/// Gives a Service the addresses of a load balancer.
fn balanced(mut service: Value, ingress: &[Value]) -> Value {
    service["spec"]["type"] = "LoadBalancer".into();
    service["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    service
}

/// A slice of these ports. An endpoint is `ADDRESS NODE` and what else there is to say: `unready`,
/// `terminating` (and serving), `gone` (terminating and not serving), `zone=Z`, `hint=NODE`.
fn slice(service: &str, name: &str, ports: &[(&str, &str, u16)], endpoints: &[&str]) -> Value {
    let port = |(name, protocol, port): &(&str, &str, u16)| json!({ "name": name, "protocol": protocol, "port": port });
    let endpoint = |text: &&str| {
        let mut words = text.split(' ');
        let mut endpoint = json!({ "addresses": [words.next()], "conditions": { "ready": true } });
        endpoint["nodeName"] = words.next().into();
        for word in words {
            match word {
                "unready" => endpoint["conditions"] = json!({ "ready": false, "serving": false }),
                "terminating" => {
                    endpoint["conditions"] =
                        json!({ "ready": false, "serving": true, "terminating": true });
                }
                "gone" => {
                    endpoint["conditions"] =
                        json!({ "ready": false, "serving": false, "terminating": true });
                }
                word => match word.split_once('=').unwrap() {
                    ("zone", zone) => endpoint["hints"]["forZones"] = json!([{ "name": zone }]),
                    (_, node) => endpoint["hints"]["forNodes"] = json!([{ "name": node }]),
                },
            }
        }
        endpoint
    };
    let v6 = endpoints.iter().any(|text| text.contains(':'));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{name}"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

fn node(name: &str, labels: Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"] },
        "status": { "addresses": [
            { "type": "InternalIP", "address": "192.168.50.10" },
            { "type": "InternalIP", "address": "fd00:50::10" },
        ]},
    });
    node["metadata"]["labels"] = labels;
    node
}
