//! What the flags of proxier's own do, in a real kernel, and what the daemon says at its start.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::Command;

use anyhow::{Result, ensure};
use proxier_tests::command::{program, run};
use proxier_tests::daemon::Scratch;
use proxier_tests::golden;
use proxier_tests::manifest::Service;
use proxier_tests::netns::{ip, node_link, require_test_kernel};
use proxier_tests::topology::{Family, Host};
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{SCTP, TCP, UDP, World};
use serde_json::json;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const CLUSTER: [&str; 2] = ["10.96.0.10", "fd00:10:96::10"];
const EXTERNAL: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
const BALANCER: [&str; 2] = ["203.0.113.20", "2001:db8::20"];
const RESTRICTED: &str = "203.0.113.30";

const PORTS: [(Protocol, u16, u16, u16); 3] = [
    (Protocol::Tcp, 80, TCP, 30080),
    (Protocol::Udp, 53, UDP, 30053),
    (Protocol::Sctp, 7777, SCTP, 30777),
];

/// A world with a Service that has every kind of frontend in both families, and one more.
fn world(web: impl FnOnce(Service) -> Service, other: &Service) -> World {
    let mut world = World::build("rr").unwrap();
    let service = Service::new("web", &CLUSTER).external_ips(&EXTERNAL).load_balancer(&BALANCER);
    let service = PORTS.iter().fold(service, |service, &(protocol, port, target, node_port)| {
        service.node_port(protocol, port, target, node_port)
    });
    let (web, node) = (web(service), world.topology.node());
    let pods = [(node.pod("pod-a"), node)];
    let objects = [
        web.document(),
        web.slice(Family::V4, &pods),
        web.slice(Family::V6, &pods),
        other.document(),
        other.slice(Family::V4, &pods),
    ];
    // Node ports are on two addresses of the node in each family; the other service has one port.
    let bound = [CLUSTER, EXTERNAL, BALANCER].concat();
    world.apply(&objects, 5 * 3 * 2 + 2, &bound).unwrap();
    world
}

/// A Service that only some may use.
fn restricted(ranges: &[&str]) -> Service {
    Service::new("restricted", &["10.96.0.30"])
        .load_balancer(&[RESTRICTED])
        .port(Protocol::Tcp, 80, TCP)
        .with("loadBalancerSourceRanges", json!(ranges))
}

/// Whether a connection is answered must be as expected.
#[track_caller]
fn expect(
    from: &Host,
    protocol: Protocol,
    address: &str,
    port: u16,
    answered: bool,
    flags: &[&str],
) {
    let to = Place::new(protocol, address.parse().unwrap(), port);
    // Who expects nothing does not wait long for it.
    let timeout = if answered { 10_000 } else { 300 };
    let load = Load { to, times: 1, source: None, timeout, one_socket: false };
    let report = Client::new(&from.namespace).connect(&load).unwrap();
    let place = format!("{} to {protocol} {address} {port} {flags:?}", from.namespace.name());
    assert_eq!(report.answered() == 1, answered, "{place}: {report:?}");
}

/// Every frontend of `web` but its cluster IP, in one family: address and whether it is a node port.
fn outside(world: &World, family: Family) -> [(String, bool); 3] {
    let index = usize::from(family == Family::V6);
    [
        (EXTERNAL[index].to_owned(), false),
        (BALANCER[index].to_owned(), false),
        (world.topology.node().host.address(family).to_string(), true),
    ]
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn service_addresses_answer_pings_only_if_asked() {
    let mut world = world(|web| web, &restricted(&[]));
    let addresses = || [CLUSTER, EXTERNAL, BALANCER].concat();
    for (flags, expected) in [(&[][..], "refused"), (&["--answer-ping"], "answered")] {
        world.restart(flags).unwrap();
        assert_eq!(world.diff(flags).unwrap(), "");
        let node = world.topology.node();
        for (from, addresses) in
            [(&world.topology.client, addresses()), (node.pod("pod-a"), CLUSTER.to_vec())]
        {
            for address in addresses {
                let found = Client::new(&from.namespace).ping(address.parse().unwrap()).unwrap();
                assert_eq!(found, expected, "{} {address} {flags:?}", from.namespace.name());
            }
        }
        // Ports that no service has stay closed.
        expect(&world.topology.client, Protocol::Tcp, CLUSTER[0], 22, false, flags);
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_closed_input_chain_loses_services_unless_they_are_accepted() {
    let mut world = world(|web| web, &restricted(&["10.0.0.0/8"]));
    // IPv6 finds its neighbours by packets of its own.
    world.topology.node().host.namespace.sh(
        "iptables -P INPUT DROP; ip6tables -P INPUT DROP; ip6tables -A INPUT -p ipv6-icmp -j ACCEPT",
    ).unwrap();
    for (flags, accepted) in [(&[][..], false), (&["--accept-input"], true)] {
        let logged = world.log().len();
        world.restart(flags).unwrap();
        assert_eq!(world.diff(flags).unwrap(), "");
        let log = world.log().split_off(logged);
        for family in ["IPv4", "IPv6"] {
            let warned = log.contains(&format!("the {family} chain INPUT is closed (policy DROP)"));
            assert_eq!(warned, !accepted, "{log}");
        }
        let client = &world.topology.client;
        for family in FAMILIES {
            let cluster_ip = CLUSTER[usize::from(family == Family::V6)].to_owned();
            let places = outside(&world, family).into_iter().chain([(cluster_ip, false)]);
            for (address, is_node_port) in places {
                for (protocol, port, _, node_port) in PORTS {
                    // One protocol is enough to see that nothing comes through.
                    if accepted || protocol == Protocol::Tcp {
                        let port = if is_node_port { node_port } else { port };
                        expect(client, protocol, &address, port, accepted, flags);
                    }
                }
            }
        }
        // Source ranges are looked at first.
        expect(client, Protocol::Tcp, RESTRICTED, 80, false, flags);
        let pod = world.topology.node().pod("pod-c");
        expect(pod, Protocol::Tcp, RESTRICTED, 80, accepted, flags);
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn source_ranges_close_node_ports_and_external_ips_only_if_asked() {
    let ranges = json!(["192.168.50.100/32", "fd00:50::100/128"]);
    let mut world = world(|web| web.with("loadBalancerSourceRanges", ranges), &restricted(&[]));
    for (flags, everywhere) in [(&[][..], false), (&["--source-ranges-everywhere"], true)] {
        world.restart(flags).unwrap();
        assert_eq!(world.diff(flags).unwrap(), "");
        let node = world.topology.node();
        for family in FAMILIES {
            for (address, is_node_port) in outside(&world, family) {
                let port = if is_node_port { 30080 } else { 80 };
                expect(&world.topology.client, Protocol::Tcp, &address, port, true, flags);
                let open = !everywhere && !BALANCER.contains(&address.as_str());
                for outsider in [node.pod("pod-c"), &node.host] {
                    expect(outsider, Protocol::Tcp, &address, port, open, flags);
                }
            }
            // Cluster IPs are never closed.
            let cluster_ip = CLUSTER[usize::from(family == Family::V6)];
            expect(node.pod("pod-c"), Protocol::Tcp, cluster_ip, 80, true, flags);
        }
    }
}

/// A node and its configuration, as files.
fn files(configuration: &str, pod_cidrs: &[&str]) -> Result<Scratch> {
    let scratch = Scratch::create()?;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-a" },
        "spec": { "podCIDRs": pod_cidrs },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.168.50.10" }] },
    });
    scratch.replace("manifests/node.json", node.to_string())?;
    scratch.replace(
        "config.yaml",
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
             hostnameOverride: node-a\n{configuration}\n"
        ),
    )?;
    Ok(scratch)
}

/// Arguments for these files.
fn arguments(scratch: &Scratch) -> [String; 4] {
    let path = |name: &str| scratch.path().join(name).display().to_string();
    ["--config".into(), path("config.yaml"), "--manifests".into(), path("manifests")]
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_start_says_what_was_changed_and_what_is_questionable() {
    said_at_the_start().unwrap();
}

fn said_at_the_start() -> Result<()> {
    use proxier_tests::daemon::Daemon;

    require_test_kernel()?;
    node_link()?;
    let said = |scratch: &Scratch, flags: &[&str], last: &str| -> Result<String> {
        let log = scratch.path().join("log");
        let words: Vec<String> =
            arguments(scratch).into_iter().chain(flags.iter().map(|flag| (*flag).into())).collect();
        let mut daemon = Daemon::start_with(None, words, &log)?;
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        daemon.wait(|| Ok(text().contains(last).then_some(())), || last.to_owned())?;
        daemon.stop()?;
        Ok(text())
    };
    let scratch = files("clusterCIDR: fd00::/64", &["10.244.0.0/24"])?;
    let flags = ["--ipvs-run-estimation=false", "--ipvs-est-nice=-5"];
    // The last of what is checked.
    let wrong = "cluster is IPv4-primary but clusterCIDRs contains only IPv6 addresses";
    let log = said(&scratch, &flags, wrong)?;
    for expected in [
        "net.ipv4.vs.conntrack: 0 -> 1 (what IPVS forwards can be masqueraded)",
        "net.ipv4.vs.run_estimation: 1 -> 0",
        "it came with Linux 6.2",
        "IPVS forgets TCP connections that are idle for 900 s, before keepalive asks for them \
         (net.ipv4.tcp_keepalive_time is 7200 s)",
        "nodePortAddresses is unset; NodePort connections will be accepted on all local IPs",
    ] {
        ensure!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
    ensure!(!log.contains("INPUT is closed"), "{log}");

    let quiet = "nodePortAddresses: [primary]\nipvs: {tcpTimeout: 2h}\nclusterCIDR: 10.0.0.0/8";
    let scratch = files(quiet, &[])?;
    let log = said(&scratch, &[], "ready: the kernel is as the cluster says")?;
    let timeouts =
        "IPVS timeouts: tcp 900 s, tcp-fin 120 s, udp 300 s -> tcp 7200 s, tcp-fin 120 s";
    ensure!(log.contains(timeouts), "{log}");
    for unexpected in ["IPVS forgets", "Kube-proxy configuration", "assuming loopback"] {
        ensure!(!log.contains(unexpected), "{log}");
    }

    let scratch = files("detectLocalMode: NodeCIDR", &["fd00:10:244::/64"])?;
    let ended = Command::new(program("proxier")?).args(arguments(&scratch)).output()?;
    let log = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    ensure!(ended.status.code() == Some(1), "{} {log}", ended.status);
    let fatal = "kube-proxy configuration is incorrect: cluster is IPv4-primary but \
                 node.spec.podCIDRs contains only IPv6 addresses";
    ensure!(log.contains(fatal), "{log}");
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_migration_check_tells_who_is_disturbed() {
    disturbed().unwrap();
}

fn disturbed() -> Result<()> {
    require_test_kernel()?;
    node_link()?;
    let scratch = files("clusterCIDR: 10.244.0.0/16", &[])?;
    let objects = golden::root().join("loadbalancer-vip/objects.yaml");
    // It has the node as well.
    std::fs::remove_file(scratch.path().join("manifests/node.json"))?;
    scratch.replace("manifests/objects.yaml", std::fs::read(objects)?)?;
    let check = || -> Result<String> {
        let mut command = Command::new(program("proxier")?);
        let output = command.args(["migrate", "--check"]).args(arguments(&scratch)).output()?;
        // There is something to do.
        ensure!(output.status.code() == Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let addresses = run(program("proxier")?.display().to_string().as_str(), {
        let mut words = vec!["--dry-run".to_owned(), "-o".to_owned(), "addresses".to_owned()];
        words.extend(arguments(&scratch));
        words
    })?;
    let vip = addresses
        .lines()
        .filter_map(|line| line.strip_prefix("inet ")?.split('/').next())
        .find(|address| !address.starts_with("10."));
    let vip =
        vip.map_or_else(|| anyhow::bail!("no VIP in\n{addresses}"), |vip| Ok(vip.to_owned()))?;

    let text = check()?;
    ensure!(text.contains("with MetalLB or kube-vip in layer 2 set ipvs.strictARP"), "{text}");
    ensure!(!text.contains("keepalived") && !text.contains("node0"), "{text}");

    ip(&format!("addr add {vip}/32 dev node0"))?;
    // What counts is its name.
    let keepalived = scratch.path().join("keepalived");
    std::fs::copy("/bin/sleep", &keepalived)?;
    let mut running = Command::new(&keepalived).arg("600").spawn()?;
    let text = check();
    running.kill()?;
    running.wait()?;
    let text = text?;
    for expected in [
        &format!("{vip} is a Service's address and on node0"),
        "keepalived runs here: virtual servers of its own outside ipvs.excludeCIDRs are removed",
    ] {
        ensure!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    Ok(())
}
