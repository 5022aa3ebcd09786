//! `deploy/examples`, the cases that the project started from: what is computed, what the kernel holds,
//! and what traffic does.

#![allow(clippy::unwrap_used, reason = "a broken example is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use proxier_tests::command::{output, program};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::golden::{Part, compare, dry_run, observe};
use proxier_tests::topology::{Plan, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report, Server};
use serde_json::Value;

#[path = "examples/alone.rs"]
mod alone;

/// The configuration of the examples' cluster, seen from its first node.
const CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
                      kind: KubeProxyConfiguration\n\
                      mode: ipvs\n\
                      hostnameOverride: node-1\n\
                      clusterCIDR: 10.244.0.0/16,fd00:10:244::/48\n";

/// The database outside the cluster.
const DATABASE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 103);

/// The first node, and the machine outside the cluster.
const NODE: &str = "192.168.1.10";
const CLIENT_OUTSIDE: &str = "192.168.1.100";

#[test]
fn the_examples_are_computed_as_recorded() {
    let scratch = Scratch::create().unwrap();
    let config = scratch.replace("config.yaml", CONFIG).unwrap();
    for format in ["ipvsadm", "addresses", "ipset", "iptables", "ip6tables"] {
        let mut command = Command::new(program("proxier").unwrap());
        command.arg("--dry-run").arg("--config").arg(&config).arg("--manifests").arg(examples());
        command.args([
            "--node-address",
            NODE,
            "--node-address",
            "fd00:192:168:1::10",
            "-o",
            format,
        ]);
        let printed = output(&mut command).unwrap();
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{format}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&recorded, &printed).unwrap();
        }
        let wanted = fs::read_to_string(&recorded).unwrap();
        assert!(
            wanted == printed,
            "{} differs (UPDATE=1 records what is printed):\n{}",
            recorded.display(),
            lines_that_differ(&wanted, &printed)
        );
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_kernel_holds_what_the_dry_run_prints_and_traffic_arrives() {
    let topology = build();
    let _servers = serve(&topology);
    let node = &topology.node().host.namespace;

    let scratch = Scratch::create().unwrap();
    let config = scratch.replace("config.yaml", CONFIG).unwrap();
    let words = ["--config".into(), config.clone(), "--manifests".into(), examples()];
    let words = words.map(|word| word.into_os_string().into_string().unwrap());
    let mut expected = dry_run(Some(node), &words).unwrap();
    expected.addresses.insert("link kube-ipvs0 dummy DOWN".to_owned());
    let parts = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];
    let difference =
        || observe(Some(node), &expected, &parts).map(|actual| compare(&expected, &actual, &parts));
    let mut daemon =
        Daemon::start(Some(node), &config, &examples(), &scratch.path().join("log")).unwrap();
    daemon
        .wait(
            || Ok(difference()?.is_empty().then_some(())),
            || {
                format!(
                    "the kernel differs from the dry run:\n{}",
                    difference().unwrap_or_default()
                )
            },
        )
        .unwrap();

    for case in cases() {
        case.check(&topology);
    }
    daemon.stop().unwrap();
    assert_eq!(difference().unwrap(), "", "the daemon's end changed something");

    // A second run finds everything as it should be: it writes nothing.
    let log = scratch.path().join("second-log");
    let mut again = Daemon::start(Some(node), &config, &examples(), &log).unwrap();
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    again
        .wait(
            || Ok(read().contains("ready: the kernel is as the cluster says").then_some(())),
            || "the second run is not ready".to_owned(),
        )
        .unwrap();
    assert!(!read().contains("programmed changes="), "it wrote:\n{}", read());
    again.stop().unwrap();
}

/// Connections to one place and who must answer.
struct Case {
    to: Place,
    /// From outside the cluster; otherwise from a pod.
    outside: bool,
    /// The pods' addresses and ports; every one gets the same share.
    answers: &'static [&'static str],
    /// The client's address as the pods see it, where it is the same for all.
    seen_as: Option<&'static str>,
}

impl Case {
    fn check(&self, topology: &Topology) {
        let from = if self.outside { &topology.client } else { topology.node().pod("client-pod") };
        let rounds = 2;
        let times = rounds * u32::try_from(self.answers.len().max(1)).unwrap();
        let load = Load { to: self.to, times, source: None, timeout: 5000, one_socket: false };
        let report: Report = Client::new(&from.namespace).connect(&load).unwrap();
        let share = |place: &&str| -> (SocketAddr, u32) { (place.parse().unwrap(), rounds) };
        let wanted: BTreeMap<_, _> = self.answers.iter().map(share).collect();
        assert_eq!(report.places, wanted, "{}: {report:?}", self.to);
        if let Some(address) = self.seen_as {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(report.peers, [(address, times)].into(), "{}: {report:?}", self.to);
        }
    }
}

/// What each example is there to show.
fn cases() -> Vec<Case> {
    let pod = |to: &str, answers| Case {
        to: to.parse().unwrap(),
        outside: false,
        answers,
        seen_as: Some("10.244.0.6"),
    };
    let client =
        |to: &str, answers| Case { to: to.parse().unwrap(), outside: true, answers, seen_as: None };
    vec![
        // service-nodeport
        pod("tcp:10.103.7.30:80", &["10.244.0.30:80", "10.244.1.30:80"]),
        client("tcp:192.168.1.10:30002", &["10.244.0.30:80", "10.244.1.30:80"]),
        // hello-service: each port has its own target
        pod("tcp:10.101.173.15:39090", &["10.244.0.41:9090", "10.244.1.41:9090"]),
        pod("tcp:10.101.173.15:49191", &["10.244.0.41:9191", "10.244.1.41:9191"]),
        client("tcp:192.168.1.10:30725", &["10.244.0.41:9090", "10.244.1.41:9090"]),
        client("tcp:192.168.1.10:31576", &["10.244.0.41:9191", "10.244.1.41:9191"]),
        // mysql-service: its pod is on the other node
        pod("tcp:10.109.33.6:3306", &["10.244.1.36:3306"]),
        Case { seen_as: Some(NODE), ..client("tcp:192.168.1.10:30964", &["10.244.1.36:3306"]) },
        // datarc-test-pod: another target port
        pod("tcp:10.98.240.80:80", &["10.244.0.80:8080", "10.244.1.80:8080"]),
        client("tcp:192.168.1.10:32600", &["10.244.0.80:8080", "10.244.1.80:8080"]),
        // example-service: policy Cluster hides the client, Local does not and keeps to this node
        client("tcp:203.0.113.65:8765", &["10.244.0.76:9376", "10.244.1.76:9376"]),
        client("tcp:192.168.1.10:31765", &["10.244.0.76:9376", "10.244.1.76:9376"]),
        Case {
            seen_as: Some(CLIENT_OUTSIDE),
            ..client("tcp:203.0.113.66:8765", &["10.244.0.76:9376"])
        },
        Case {
            seen_as: Some(CLIENT_OUTSIDE),
            ..client("tcp:192.168.1.10:31766", &["10.244.0.76:9376"])
        },
        pod("tcp:10.96.87.66:8765", &["10.244.0.76:9376", "10.244.1.76:9376"]),
        // business-manager and its three data-product pods
        pod("tcp:10.254.58.10:8080", &["10.244.1.58:8080"]),
        pod(
            "tcp:10.254.116.224:50051",
            &["10.244.0.51:50051", "10.244.0.52:50051", "10.244.1.51:50051"],
        ),
        // kube-dns: two protocols on one port
        pod("udp:10.254.0.2:53", &["10.244.0.2:53", "10.244.1.2:53"]),
        pod("tcp:10.254.0.2:53", &["10.244.0.2:53", "10.244.1.2:53"]),
        pod("tcp:10.254.0.2:9153", &["10.244.0.2:9153", "10.244.1.2:9153"]),
        // kubernetes: the API server on the host network
        pod("tcp:10.254.0.1:443", &["192.168.1.10:6443"]),
        // ingress-nginx: two named ports
        pod("tcp:10.111.190.7:80", &["10.244.0.99:80"]),
        client("tcp:192.168.1.10:30799", &["10.244.0.99:80"]),
        client("tcp:192.168.1.10:31522", &["10.244.0.99:443"]),
        // mysql: outside the cluster, as EndpointSlice and as Endpoints
        pod("tcp:10.110.3.6:3306", &["192.168.0.103:3306"]),
        pod("tcp:10.110.3.7:3306", &["192.168.0.103:3306"]),
        // endpoint-states: the ready one; of a Service without ready ones, the one that still serves
        pod("tcp:10.96.90.1:80", &["10.244.0.91:8080"]),
        pod("tcp:10.96.90.2:80", &["10.244.0.93:8080"]),
    ]
}

/// The examples' two nodes; every pod's address is in one namespace of its node.
fn build() -> Topology {
    let topology = Topology::build_as(&Plan {
        lan4: Ipv4Addr::new(192, 168, 1, 0),
        lan6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 1, 0, 0, 0, 0),
        nodes: [("node-1", &["pods-1", "client-pod"]), ("node-2", &["pods-2"])],
    })
    .unwrap();
    topology.client.namespace.ip(&format!("addr add {DATABASE}/32 dev eth0")).unwrap();
    for node in &topology.nodes {
        node.host.namespace.ip(&format!("route add {DATABASE}/32 dev eth0")).unwrap();
    }
    topology
}

/// A server at every endpoint that the examples name.
fn serve(topology: &Topology) -> Vec<Server> {
    let endpoints = endpoints();
    let mut servers = Vec::new();
    let pods = topology.nodes.iter().map(|node| &node.pods[0]);
    for host in pods.chain([&topology.node().host, &topology.client]) {
        let mine = |place: &&Place| match place.address.ip() {
            IpAddr::V4(ip) if ip == DATABASE => host.ipv4 == topology.client.ipv4,
            ip @ IpAddr::V4(v4) if v4.octets()[0] == 192 => ip == IpAddr::V4(host.ipv4),
            IpAddr::V4(v4) => v4.octets()[..3] == host.ipv4.octets()[..3],
            IpAddr::V6(v6) => v6.segments()[..4] == host.ipv6.segments()[..4],
        };
        let places: Vec<Place> = endpoints.iter().filter(mine).copied().collect();
        let addresses: BTreeSet<IpAddr> = places.iter().map(|place| place.address.ip()).collect();
        let ours = [IpAddr::V4(host.ipv4), IpAddr::V4(DATABASE)];
        let batch = addresses.iter().filter(|address| !ours.contains(address)).map(|address| {
            let (length, nodad) = if address.is_ipv4() { (24, "") } else { (64, " nodad") };
            format!("addr add {address}/{length} dev eth0{nodad}")
        });
        host.namespace.ip(&batch.collect::<Vec<_>>().join("\n")).unwrap();
        servers.push(Server::start(&host.namespace, host.namespace.name(), &places).unwrap());
    }
    servers
}

/// Every address and port of the examples' EndpointSlices and Endpoints.
fn endpoints() -> BTreeSet<Place> {
    let mut places = BTreeSet::new();
    for document in documents() {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let groups = match document["kind"].as_str().unwrap() {
            "EndpointSlice" => vec![(list(&document["endpoints"]), list(&document["ports"]))],
            "Endpoints" => {
                let subsets = list(&document["subsets"]);
                subsets
                    .iter()
                    .map(|subset| (list(&subset["addresses"]), list(&subset["ports"])))
                    .collect()
            }
            _ => continue,
        };
        for (endpoints, ports) in groups {
            for endpoint in &endpoints {
                let address =
                    endpoint["addresses"][0].as_str().or(endpoint["ip"].as_str()).unwrap();
                for port in &ports {
                    let protocol: Protocol =
                        port["protocol"].as_str().unwrap().to_lowercase().parse().unwrap();
                    let number = u16::try_from(port["port"].as_u64().unwrap()).unwrap();
                    places.insert(Place::new(protocol, address.parse().unwrap(), number));
                }
            }
        }
    }
    places
}

fn documents() -> Vec<Value> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(examples()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        documents.extend(
            text.split("\n---\n")
                .map(|document| serde_saphyr::from_str::<Value>(document).unwrap()),
        );
    }
    documents
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

fn lines_that_differ(wanted: &str, printed: &str) -> String {
    let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let (wanted, printed) = (lines(wanted), lines(printed));
    let missing = wanted.difference(&printed).map(|line| format!("- {line}"));
    let unexpected = printed.difference(&wanted).map(|line| format!("+ {line}"));
    missing.chain(unexpected).collect::<Vec<_>>().join("\n")
}
