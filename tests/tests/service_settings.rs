//! Annotations of a Service: the kernel has what they say, traffic follows it, and a change takes no
//! connection away.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::manifest::{self, Condition, Service, endpoint};
use proxier_tests::topology::{Family, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{TCP, UDP, World};
use serde_json::{Value, json};

const ADDRESS: &str = "10.96.0.20";

/// A Service with one port of either protocol.
fn service() -> Service {
    Service::new("tuned", &[ADDRESS]).port(Protocol::Tcp, 80, TCP).port(Protocol::Udp, 53, UDP)
}

fn with(annotations: &[(&str, &str)]) -> Service {
    let named = annotations.iter().map(|(key, value)| (format!("proxier.io/{key}"), value));
    named.fold(service(), |service, (key, value)| service.annotation(&key, value))
}

/// Its documents with these pods, each in a zone: pods of the first node in `a`, others in `b`.
fn objects(topology: &Topology, service: &Service, pods: &[&str]) -> Vec<Value> {
    let endpoint = |name: &&str| {
        let (pod, node) = topology.pod(name);
        let mut endpoint = endpoint(Family::V4, pod, node, Condition::Ready);
        let is_first = node.host.namespace.name() == topology.node().host.namespace.name();
        endpoint["zone"] = if is_first { "a" } else { "b" }.into();
        endpoint
    };
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    vec![service.document(), service.slice_of(Family::V4, &endpoints)]
}

fn load(protocol: Protocol, times: u32) -> Load {
    let port = if protocol == Protocol::Udp { 53 } else { 80 };
    let to = Place::new(protocol, ADDRESS.parse().expect("an address"), port);
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

fn connect(world: &World, times: u32) -> Report {
    let client = Client::new(&world.topology.client.namespace);
    let report = client.connect(&load(Protocol::Tcp, times)).expect("run the client");
    assert_eq!(report.answered(), times, "{report:?}");
    report
}

/// Waits until the virtual server of a protocol, as `ipvsadm -S -n` prints it, ends so, and each of its
/// real servers has the weight of its pod.
fn settle(
    world: &mut World,
    service: &Service,
    pods: &[(&str, u32)],
    (protocol, server): (Protocol, &str),
) {
    let names: Vec<&str> = pods.iter().map(|(name, _)| *name).collect();
    let objects = objects(&world.topology, service, &names);
    let (of, target) = match protocol {
        Protocol::Udp => (format!("-u {ADDRESS}:53"), UDP),
        _ => (format!("-t {ADDRESS}:80"), TCP),
    };
    let mut lines = vec![format!("-A {of} {server}")];
    lines.extend(pods.iter().map(|(name, weight)| {
        let (pod, _) = world.topology.pod(name);
        format!("-a {of} -r {}:{target} -m -w {weight}", pod.ipv4)
    }));
    let wanted = lines.join("\n");
    world
        .apply_until(&objects, &wanted, |text| {
            lines.iter().all(|line| text.lines().any(|found| found == line))
        })
        .expect("the kernel follows");
}

const PODS: [(&str, u32); 3] = [("pod-a", 1), ("pod-b", 1), ("pod-d", 1)];

/// Every scheduler that this kernel has, with its flags, then everything else, while connections are
/// held: none of them is lost, and each stays where it is.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_setting_is_read_back_by_ipvsadm_and_changes_keep_held_connections() {
    let mut world = World::build("rr").unwrap();
    settle(&mut world, &service(), &PODS, (Protocol::Tcp, "-s rr"));
    let namespace = &world.topology.client.namespace;
    let mut held = Client::new(namespace).hold(&load(Protocol::Tcp, 6)).unwrap();
    let opened = held.opened.places.clone();
    assert_eq!(held.opened.answered(), 6, "{:?}", held.opened);
    let node = world.topology.node().host.namespace.name().to_owned();

    for scheduler in
        ["wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "rr"]
    {
        let flags = match scheduler {
            "sh" => "sh-fallback,sh-port",
            "mh" => "mh-fallback,mh-port",
            _ => "flag-1,flag-2,flag-3",
        };
        let service = with(&[("scheduler", scheduler), ("scheduler-flags", flags)]);
        settle(&mut world, &service, &PODS, (Protocol::Tcp, &format!("-s {scheduler} -b {flags}")));
    }
    let weights = format!("zone=a:3,node={node}:5,default:0");
    let service = with(&[("weights", &weights)]);
    let weighted = [("pod-a", 5), ("pod-b", 5), ("pod-d", 0)];
    settle(&mut world, &service, &weighted, (Protocol::Tcp, "-s wrr"));
    let limited = with(&[("max-connections", "100"), ("one-packet", "true")]);
    settle(&mut world, &limited, &PODS, (Protocol::Udp, "-s rr --pe sip -o"));
    let table = world.topology.node().host.namespace.sh("ipvsadm -L -n --thresholds").unwrap();
    // A lower threshold of 0 is three quarters of the upper one.
    assert_eq!(table.matches(" 100        0 ").count(), 6, "{table}");
    let slow = with(&[("slow-start", "1h")]);
    let full = PODS.map(|(pod, weight)| (pod, weight * 10));
    settle(&mut world, &slow, &full, (Protocol::Tcp, "-s wrr"));
    settle(&mut world, &self::service(), &PODS, (Protocol::Tcp, "-s rr"));

    let asked = held.ask().unwrap();
    assert_eq!(asked.places, opened, "{asked:?}");
    world.ready().unwrap();
    assert_eq!(world.diff(&[]).unwrap(), "", "nothing of any setting is left");
    // One that is deleted and added again counts from 0.
    let stats = world.topology.node().host.namespace.sh("ipvsadm -L -n --stats").unwrap();
    let of_tcp = stats.lines().find(|line| line.starts_with("TCP")).unwrap_or_default();
    assert_eq!(of_tcp.split_whitespace().nth(2), Some("6"), "{stats}");
}

/// The share of each pod within 2 % of all connections.
fn shares(report: &Report, wanted: &[(&str, u32)]) {
    let all = report.answered();
    for (pod, share) in wanted {
        let found = report.answers.get(*pod).copied().unwrap_or_default();
        assert!(found.abs_diff(*share) <= all / 50, "{pod}: {found} of {all}, not {share}");
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn connections_follow_the_weights_of_zones() {
    let mut world = World::build("rr").unwrap();
    let service = with(&[("weights", "zone=a:3,zone=b:1")]);
    let weighted = [("pod-a", 3), ("pod-b", 3), ("pod-d", 1)];
    settle(&mut world, &service, &weighted, (Protocol::Tcp, "-s wrr"));
    let report = connect(&world, 3000);
    proxier_tests::figure(&format!("3:3:1 of 3000 connections: {:?}", report.answers));
    shares(&report, &[("pod-a", 1286), ("pod-b", 1286), ("pod-d", 428)]);
}

/// The annotation of a Node weighs its endpoints, those of every Service; another value changes its real
/// servers in place and nothing else.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn connections_follow_the_weight_of_a_node() {
    let mut world = World::build("rr").unwrap();
    settle(&mut world, &service(), &PODS, (Protocol::Tcp, "-s rr"));
    world.restart(&["--v=2"]).unwrap();
    let weigh = |world: &mut World, weight: Option<u16>| {
        let names = PODS.map(|(name, _)| name);
        let mut documents = objects(&world.topology, &service(), &names);
        let mut node = manifest::node(&world.topology.nodes[1]);
        if let Some(weight) = weight {
            node["metadata"]["annotations"] = json!({ "proxier.io/weight": weight.to_string() });
        }
        documents.push(node);
        world.write(&documents).unwrap();
        let pod = world.topology.pod("pod-d").0.ipv4;
        let wanted = format!("{pod}:{TCP} -m -w {}", weight.unwrap_or(1));
        let scheduler = if weight.is_some() { "wrr" } else { "rr" };
        let table = |topology: &Topology| topology.node().host.namespace.sh("ipvsadm -S -n");
        let is_there = |topology: &Topology| {
            let table = table(topology)?;
            let found = table.lines().filter(|line| line.ends_with(&format!(" -s {scheduler}")));
            Ok(found.count() == 2 && table.contains(&wanted))
        };
        world.wait(is_there, |topology| table(topology).unwrap_or_default()).unwrap();
        world.ready().unwrap();
    };
    weigh(&mut world, Some(3));
    let namespace = &world.topology.client.namespace;
    let mut held = Client::new(namespace).hold(&load(Protocol::Tcp, 5)).unwrap();
    let opened = held.opened.places.clone();
    let report = connect(&world, 500);
    proxier_tests::figure(&format!("1:1:3 of 500 connections: {:?}", report.answers));
    shares(&report, &[("pod-a", 100), ("pod-b", 100), ("pod-d", 300)]);

    let done = |world: &World| -> Vec<String> {
        let log = world.log();
        let lines = log.lines().filter_map(|line| line.split_once("done op="));
        lines.map(|(_, op)| op.to_owned()).collect()
    };
    let before = done(&world).len();
    weigh(&mut world, Some(8));
    let ops = done(&world).split_off(before);
    let pod = world.topology.pod("pod-d").0.ipv4.to_string();
    assert_eq!(ops.len(), 2, "TCP and UDP: {ops:?}");
    assert!(ops.iter().all(|op| op.contains(&pod) && op.contains("weight 8")), "{ops:?}");
    shares(&connect(&world, 500), &[("pod-a", 50), ("pod-b", 50), ("pod-d", 400)]);
    weigh(&mut world, Some(0));
    assert_eq!(connect(&world, 10).answers.get("pod-d"), None);
    weigh(&mut world, None);
    assert_eq!(connect(&world, 30).answers.len(), 3);
    let asked = held.ask().unwrap();
    assert_eq!(asked.places, opened, "{asked:?}");
    assert_eq!(world.diff(&[]).unwrap(), "", "nothing of any weight is left");
}

/// A new endpoint has a tenth of its weight at first, and all of it at the end.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn slow_start_follows_its_curve() {
    let mut world = World::build("rr").unwrap();
    // Its steps are so long that the first one lasts until the end of the test.
    let slow = with(&[("slow-start", "1h")]);
    settle(&mut world, &slow, &[("pod-a", 10), ("pod-b", 10)], (Protocol::Tcp, "-s wrr"));
    let began = [("pod-a", 10), ("pod-b", 10), ("pod-d", 1)];
    settle(&mut world, &slow, &began, (Protocol::Tcp, "-s wrr"));
    let report = connect(&world, 3000);
    proxier_tests::figure(&format!("10:10:1 of 3000 connections: {:?}", report.answers));
    shares(&report, &[("pod-a", 1429), ("pod-b", 1429), ("pod-d", 143)]);

    // With short steps it gets there, by way of those between, and the others keep theirs.
    let short = with(&[("slow-start", "20s")]);
    let weight = |topology: &Topology, name: &str| -> anyhow::Result<u32> {
        let table = topology.node().host.namespace.sh("ipvsadm -S -n")?;
        let place = format!("-t {ADDRESS}:80 -r {}:", topology.pod(name).0.ipv4);
        let line = table.lines().find(|line| line.contains(&place)).unwrap_or_default();
        Ok(line.rsplit(' ').next().and_then(|weight| weight.parse().ok()).unwrap_or_default())
    };
    // It is gone, or drains, before it comes again.
    world.write(&objects(&world.topology, &short, &["pod-a", "pod-b"])).unwrap();
    let is_gone = |topology: &Topology| Ok(weight(topology, "pod-d")? == 0);
    world.wait(is_gone, |_| "pod-d takes connections".to_owned()).unwrap();
    world.write(&objects(&world.topology, &short, &["pod-a", "pod-b", "pod-d"])).unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    world
        .wait(
            |topology| {
                let now = weight(topology, "pod-d")?;
                assert_eq!(weight(topology, "pod-a")?, 10);
                // 0 until it is there again.
                seen.borrow_mut().extend((now > 0).then_some(now));
                Ok(now == 10)
            },
            |_| format!("{:?}", seen.borrow()),
        )
        .unwrap();
    let mut steps = seen.into_inner();
    assert!(steps.is_sorted(), "{steps:?}");
    steps.dedup();
    proxier_tests::figure(&format!("weights that were seen: {steps:?}"));
    assert!(steps.len() > 2, "not at once: {steps:?}");
    shares(&connect(&world, 300), &[("pod-a", 100), ("pod-b", 100), ("pod-d", 100)]);

    // A restart does not start anything anew.
    world.restart(&[]).unwrap();
    assert_eq!(weight(&world.topology, "pod-d").unwrap(), 10);
}

/// From one socket of a pod, with answers that come from the Service's address: the socket is connected,
/// so that others would not reach it.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn one_packet_scheduling_spreads_the_packets_of_one_socket() {
    let mut world = World::build("rr").unwrap();
    let pod = |world: &World| {
        let (pod, _) = world.topology.pod("pod-c");
        let load = Load { one_socket: true, ..load(Protocol::Udp, 30) };
        let report = Client::new(&pod.namespace).connect(&load).unwrap();
        assert_eq!(report.answered(), 30, "{report:?}");
        report.answers
    };
    settle(&mut world, &service(), &PODS, (Protocol::Udp, "-s rr"));
    assert_eq!(pod(&world).len(), 1, "without it a flow stays with one pod");
    world.stop().unwrap();
    let node = &world.topology.node().host.namespace;
    // Flows that the kernel still knows stay where they are.
    node.sh("ipvsadm -C").unwrap();
    let service = with(&[("one-packet", "true")]);
    settle(&mut world, &service, &PODS, (Protocol::Udp, "-s rr --pe sip -o"));
    let even: BTreeMap<String, u32> = PODS.map(|(pod, _)| (pod.to_owned(), 10)).into();
    assert_eq!(pod(&world), even);
}

/// The same client and port reach the same pod through either node.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn maglev_sends_a_client_to_the_same_pod_through_any_node() {
    const FLOWS: u16 = 60;
    let mut world = World::build("rr").unwrap();
    let service = with(&[("scheduler", "mh")]);
    let pods = [("pod-a", 1), ("pod-b", 1), ("pod-c", 1), ("pod-d", 1)];
    settle(&mut world, &service, &pods, (Protocol::Udp, "-s mh -b mh-port"));

    let other = &world.topology.nodes[1].host;
    let scratch = Scratch::create().unwrap();
    let nodes = world.topology.nodes.iter().map(manifest::node);
    let names = pods.map(|(name, _)| name);
    let documents: Vec<Value> = nodes.chain(objects(&world.topology, &service, &names)).collect();
    let objects = scratch.replace("objects.json", manifest::file(&documents)).unwrap();
    let words = [
        "--manifests".as_ref(),
        objects.as_os_str(),
        "--proxy-mode=ipvs".as_ref(),
        "--ipvs-scheduler=rr".as_ref(),
        "--cluster-cidr=10.244.0.0/16".as_ref(),
        "--hostname-override=node-b".as_ref(),
    ];
    let log = scratch.path().join("log");
    let mut daemon = Daemon::start_with(Some(&other.namespace), words, &log).unwrap();
    daemon.ready().unwrap();

    let client = &world.topology.client;
    let answers = || -> Vec<String> {
        let ask = |port: u16| {
            let source = Some(SocketAddr::new(client.ipv4.into(), 20_000 + port));
            let report = Client::new(&client.namespace)
                .connect(&Load { source, ..load(Protocol::Udp, 1) })
                .unwrap();
            assert_eq!(report.answered(), 1, "{report:?}");
            report.answers.into_keys().next().unwrap_or_default()
        };
        (0..FLOWS).map(ask).collect()
    };
    let through_first = answers();
    client.namespace.sh(&format!("ip route add {ADDRESS} via {}", other.ipv4)).unwrap();
    let through_other = answers();
    assert_eq!(through_first, through_other);
    let mut pods = through_first;
    pods.sort_unstable();
    pods.dedup();
    assert_eq!(pods, names, "each has some of them");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_endpoint_gets_no_more_connections_than_its_limit() {
    let mut world = World::build("rr").unwrap();
    let service = with(&[("max-connections", "3")]);
    settle(&mut world, &service, &[("pod-a", 1), ("pod-d", 1)], (Protocol::Tcp, "-s rr"));
    let namespace = &world.topology.client.namespace;
    let held = Client::new(namespace).hold(&load(Protocol::Tcp, 8)).unwrap();
    let three: BTreeMap<String, u32> = [("pod-a".to_owned(), 3), ("pod-d".to_owned(), 3)].into();
    assert_eq!(held.opened.answers, three, "{:?}", held.opened);
    assert_eq!(held.opened.failed(), 2, "{:?}", held.opened);
}

/// Two choices at random, the less busy one of them: Debian's kernels have it since 6.12.
#[test]
#[ignore = "needs a kernel with IPVS, of a distribution: tests/vm/run --qemu"]
fn twos_is_used_where_a_kernel_on_two_processors_has_it() {
    let mut world = World::build("lc").unwrap();
    let service = with(&[("scheduler", "twos")]);
    let has = world.topology.node().host.namespace.sh("modprobe ip_vs_twos").is_ok();
    let used = if has { "twos" } else { "lc" };
    settle(&mut world, &service, &PODS, (Protocol::Tcp, &format!("-s {used}")));
    world.ready().unwrap();
    let namespace = &world.topology.client.namespace;
    let mut held = Client::new(namespace).hold(&load(Protocol::Tcp, 60)).unwrap();
    assert_eq!(held.opened.answered(), 60, "{:?}", held.opened);
    proxier_tests::figure(&format!("{used}, 60 held connections: {:?}", held.opened.answers));
    let few = held.opened.answers.values().all(|count| *count >= 10);
    assert!(held.opened.answers.len() == 3 && few, "{:?}", held.opened.answers);
    // Another weight, another scheduler: nothing is lost.
    let weighted = with(&[("scheduler", "twos"), ("weights", "zone=a:3,zone=b:1")]);
    let pods = [("pod-a", 3), ("pod-b", 3), ("pod-d", 1)];
    let used = if has { "twos" } else { "wlc" };
    settle(&mut world, &weighted, &pods, (Protocol::Tcp, &format!("-s {used}")));
    settle(&mut world, &self::service(), &PODS, (Protocol::Tcp, "-s lc"));
    let opened = held.opened.places.clone();
    let asked = held.ask().unwrap();
    assert_eq!(asked.places, opened, "{asked:?}");
}

/// User-mode Linux has no module for `twos`.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_scheduler_that_the_kernel_lacks_leaves_the_cluster_wide_one() {
    let mut world = World::build("lc").unwrap();
    let service = with(&[("scheduler", "twos"), ("max-connections", "70")]);
    settle(&mut world, &service, &PODS, (Protocol::Tcp, "-s lc"));
    world.ready().unwrap();
    assert_eq!(connect(&world, 30).answers.len(), 3);
    let log = world.log();
    assert!(log.contains("no module ip_vs_twos"), "{log}");
}
