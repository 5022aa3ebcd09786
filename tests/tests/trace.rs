//! Faults that are put into a node, one by one, on a real kernel: what `status`, `explain`, `trace`, `diff` or
//! `migrate --check` says names the cause, and where it is `trace` that is asked, traffic does what it says.
//!
//! docs/troubleshooting.md has the same table: `UPDATE=1 cargo test -p proxier-tests --test trace` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use proxier::dataplane::firewall::Backend;
use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Host};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{TCP, World};
use serde_json::{Value, json};

const DOCUMENT: &str = "docs/troubleshooting.md";
const MARKS: (&str, &str) = ("<!-- faults -->\n", "<!-- end of faults -->\n");

/// Something that is wrong on a node.
struct Fault {
    what: &'static str,
    /// What puts it into the node, and what takes it out again. Nothing where the Services have it.
    put: Option<(&'static str, &'static str)>,
    /// What is asked.
    ask: &'static str,
    /// What the answer has.
    says: &'static str,
    then: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "`targetPort` names a port that the pods do not have",
        put: None,
        ask: "explain default/misnamed",
        says: "has no port named",
        then: "give both the same name, in the Service and in the pod",
    },
    Fault {
        what: "`internalTrafficPolicy: Local`, and all endpoints elsewhere",
        put: None,
        ask: "explain default/local",
        says: "internalTrafficPolicy Local, and no endpoint on this node",
        then: "a pod on each node (DaemonSet), or the policy `Cluster`",
    },
    Fault {
        what: "a client outside `loadBalancerSourceRanges`",
        put: None,
        ask: "trace 192.168.50.100 198.51.100.4:80",
        says: "KUBE-SOURCE-RANGES-FIREWALL: -j DROP",
        then: "add its network to the ranges",
    },
    Fault {
        what: "two Services claim one external IP",
        put: None,
        ask: "status",
        says: "claimed by more than one Service",
        then: "take the address from one of them; `proxier explain ADDRESS:PORT` says who has it",
    },
    Fault {
        what: "a pod that is not ready",
        put: None,
        ask: "explain default/unready",
        says: "left out: not ready",
        then: "the pod's readiness probe",
    },
    Fault {
        what: "an annotation that cannot be used",
        put: None,
        ask: "explain default/unready",
        says: "proxier.io/weights",
        then: "[services.md](services.md) has what each annotation takes",
    },
    Fault {
        what: "the wrong protocol",
        put: None,
        ask: "trace 192.168.50.100 198.51.100.1:80/udp",
        says: "there is no virtual server 198.51.100.1:80/udp; it has 80/tcp",
        then: "`protocol` of the Service's port",
    },
    Fault {
        what: "nothing listens on `targetPort` in the pod",
        put: None,
        ask: "trace 192.168.50.100 198.51.100.5:80",
        says: "it answers, if something listens there",
        then: "`trace` reaches the pod and clients are refused: the port that the pod listens on",
    },
    Fault {
        what: "a rule of somebody else drops packets to it",
        put: Some((
            "iptables -I INPUT 1 -p tcp --dport 80 -s 192.168.50.100 -j DROP",
            "iptables -D INPUT 1",
        )),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "filter INPUT: -s 192.168.50.100/32 -p tcp --dport 80 -j DROP",
        then: "who wrote the rule",
    },
    Fault {
        what: "the chain INPUT is closed",
        put: Some(("iptables -P INPUT DROP", "iptables -P INPUT ACCEPT")),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "filter INPUT: policy drop",
        then: "`--accept-input`, or a rule that accepts addresses and ports of Services",
    },
    Fault {
        what: "a rule drops the answers",
        put: Some((
            "iptables -I FORWARD 1 -s 10.244.0.0/16 -d 192.168.50.0/24 -j DROP",
            "iptables -D FORWARD 1",
        )),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "filter FORWARD: -s 10.244.0.0/16 -d 192.168.50.0/24 -j DROP",
        then: "who wrote the rule; often a network policy",
    },
    Fault {
        what: "something else translates the address",
        put: Some((
            "iptables -t nat -I PREROUTING 1 -d 198.51.100.1 -p tcp --dport 80 -j DNAT --to 10.244.1.9:81",
            "iptables -t nat -D PREROUTING 1",
        )),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "-j DNAT --to-destination 10.244.1.9:81",
        then: "who wrote the rule: another service proxy, `hostPort`, a container runtime",
    },
    Fault {
        what: "the node does not forward",
        put: Some(("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1")),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "net.ipv4.ip_forward is 0",
        then: "`sysctl -w net.ipv4.ip_forward=1`, and see to it at every boot",
    },
    Fault {
        what: "the same for IPv6",
        put: Some((
            "sysctl -qw net.ipv6.conf.all.forwarding=0",
            "sysctl -qw net.ipv6.conf.all.forwarding=1",
        )),
        ask: "trace fd00:50::100 [2001:db8::1]:80",
        says: "net.ipv6.conf.all.forwarding is 0",
        then: "`sysctl -w net.ipv6.conf.all.forwarding=1`, and see to it at every boot",
    },
    Fault {
        what: "`rp_filter` where clients come in by another interface than they are reached by",
        put: Some((
            "sysctl -qw net.ipv4.conf.all.rp_filter=1; ip route add 192.168.50.100/32 dev cni0",
            "sysctl -qw net.ipv4.conf.all.rp_filter=0; ip route del 192.168.50.100/32 dev cni0",
        )),
        ask: "trace 192.168.50.100 198.51.100.1:80 --interface eth0",
        says: "rp_filter drops it",
        then: "`sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2`, or a route back",
    },
    Fault {
        what: "a virtual server was deleted behind our back",
        put: Some(("ipvsadm -D -t 198.51.100.1:80", "")),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "there is no virtual server 198.51.100.1:80/tcp",
        then: "the daemon puts it back at the next check; if it goes again, who else writes IPVS",
    },
    Fault {
        what: "an address is no longer bound",
        put: Some(("ip addr del 198.51.100.1/32 dev kube-ipvs0", "")),
        ask: "trace 192.168.50.100 198.51.100.1:80",
        says: "198.51.100.1 is no address of this node, although there is a virtual server",
        then: "the daemon binds it again at once; NetworkManager or systemd-networkd may take it away",
    },
    Fault {
        what: "an address of a Service is on another interface of the node",
        put: Some(("ip addr add 198.51.100.1/32 dev cni0", "ip addr del 198.51.100.1/32 dev cni0")),
        ask: "migrate --check",
        says: "198.51.100.1 is a Service's address and on cni0",
        then: "one of the two: connections to the Service's ports are taken from the node's processes",
    },
    Fault {
        what: "a kernel setting was changed",
        put: Some(("sysctl -qw net.ipv4.vs.conntrack=0", "sysctl -qw net.ipv4.vs.conntrack=1")),
        ask: "diff",
        says: "net.ipv4.vs.conntrack",
        then: "the daemon sets it again; who writes it: `sysctl.d`, tuned",
    },
    Fault {
        what: "no proxy runs",
        put: None,
        ask: "status",
        says: "no proxy answers on 127.0.0.1:10249",
        then: "its log; what is in the kernel goes on working",
    },
];

#[test]
fn the_document_has_every_fault() {
    let mut table =
        String::from("| what is wrong | ask | it says | then |\n| --- | --- | --- | --- |\n");
    for fault in FAULTS {
        let Fault { what, ask, says, then, .. } = fault;
        let _ = writeln!(table, "| {what} | `proxier {ask}` | `{says}` | {then} |");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(DOCUMENT);
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(MARKS.0).unwrap();
    let (_, after) = rest.split_once(MARKS.1).unwrap();
    let wanted = format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, wanted).unwrap();
    } else {
        assert!(document == wanted, "{DOCUMENT} is out of date: UPDATE=1 writes it anew");
    }
}

fn objects(world: &World) -> Vec<Value> {
    let pods =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| world.topology.pod(name)).collect() };
    let of = |number: u8, name: &str| {
        Service::new(name, &[&format!("10.96.1.{number}")])
            .port(Protocol::Tcp, 80, TCP)
            .load_balancer(&[&format!("198.51.100.{number}")])
    };
    let both = ["10.96.1.1", "fd00:10:96::1"];
    let web = Service::new("web", &both)
        .port(Protocol::Tcp, 80, TCP)
        .load_balancer(&["198.51.100.1", "2001:db8::1"]);
    let misnamed = of(6, "misnamed");
    let mut other_name = misnamed.slice(Family::V4, &pods(&["pod-a"]));
    other_name["ports"][0]["name"] = json!("web");
    let local = of(3, "local").with("internalTrafficPolicy", json!("Local"));
    let ranged = of(4, "ranged").with("loadBalancerSourceRanges", json!(["203.0.113.0/24"]));
    // pod-c has no server.
    let silent = of(5, "silent");
    let first = of(7, "first").external_ips(&["203.0.113.9"]);
    let second = of(8, "second").external_ips(&["203.0.113.9"]);
    let unready = of(9, "unready").annotation("proxier.io/weights", "heavy");
    let (pod, node) = world.topology.pod("pod-a");
    let mut not_ready = endpoint(Family::V4, pod, node, Condition::Ready);
    not_ready["conditions"]["ready"] = json!(false);
    not_ready["conditions"]["serving"] = json!(false);
    let mut all = vec![
        web.slice(Family::V4, &pods(&["pod-a", "pod-b"])),
        web.slice(Family::V6, &pods(&["pod-a", "pod-b"])),
        of(2, "empty").document(),
        other_name,
        local.slice(Family::V4, &pods(&["pod-d"])),
        ranged.slice(Family::V4, &pods(&["pod-a"])),
        silent.slice(Family::V4, &pods(&["pod-c"])),
        unready.slice_of(Family::V4, &[not_ready]),
    ];
    let services = [&web, &misnamed, &local, &ranged, &silent, &first, &second, &unready];
    all.extend(services.map(Service::document));
    all
}

/// Who has the address that a trace is for, and where the packet goes.
fn packet<'a>(world: &'a World, ask: &str) -> Option<(&'a Host, Place)> {
    let ["trace", client, place, ..] = ask.split(' ').collect::<Vec<_>>()[..] else { return None };
    let (place, protocol) = match place.split_once('/') {
        Some((place, "udp")) => (place, Protocol::Udp),
        _ => (place, Protocol::Tcp),
    };
    let outside = &world.topology.client;
    let is =
        |host: &Host| [host.ipv4.to_string(), host.ipv6.to_string()].contains(&client.to_owned());
    assert!(is(outside), "{client} is not the client of the topology");
    let address: std::net::SocketAddr = place.parse().unwrap();
    Some((outside, Place::new(protocol, address.ip(), address.port())))
}

fn connect(from: &Host, to: Place) -> Report {
    let load = Load { to, times: 1, source: None, timeout: 1000, one_socket: false };
    Client::new(&from.namespace).connect(&load).unwrap()
}

/// What is asked, answered: what it prints, and its exit status.
fn ask(world: &World, words: &str) -> (String, Option<i32>) {
    let words: Vec<&str> = words.split(' ').collect();
    let output = world.proxier(&[]).unwrap().args(&words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.code())
}

/// Asks, and says what is wrong with the answer, or with what traffic does by it.
fn check(world: &World, fault: &Fault) -> Option<String> {
    let (said, status) = ask(world, fault.ask);
    let mut wrong = String::new();
    if !said.contains(fault.says) {
        wrong = format!("{:?} is not in it", fault.says);
    }
    if let Some((from, to)) = packet(world, fault.ask) {
        let report = connect(from, to);
        let reached = status == Some(0) && !fault.says.contains("if something listens");
        if (report.answered() == 1) != reached {
            let _ = write!(wrong, " traffic: {report:?}");
        }
        let is_quick = report.errors.contains_key("refused");
        if status == Some(2) && !is_quick || status == Some(3) && is_quick {
            let _ = write!(wrong, " traffic: {report:?}");
        }
    }
    let text = || format!("{}, `{}`: {wrong}, status {status:?}:\n{said}", fault.what, fault.ask);
    (!wrong.is_empty()).then(text)
}

fn signal(world: &World, name: &str) {
    let pid = world.pid().unwrap();
    world.topology.node().host.namespace.sh(&format!("kill -{name} {pid}")).unwrap();
}

fn programmed(backend: Backend) -> World {
    let mut world =
        World::build_with(proxier_tests::topology::Topology::build().unwrap(), "scheduler: rr")
            .unwrap()
            .with_backend(backend);
    for pod in ["pod-a", "pod-b", "pod-d"] {
        world.start_server(pod, pod).unwrap();
    }
    // Every refusal is told.
    let settings = [("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")];
    world.topology.node().host.namespace.sysctls(&settings).unwrap();
    world.write(&objects(&world)).unwrap();
    world.ready().unwrap();
    world
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_fault_is_named() {
    let mut world = programmed(Backend::Iptables);
    let (from, to) = packet(&world, "trace 192.168.50.100 198.51.100.1:80").unwrap();
    assert_eq!(connect(from, to).answered(), 1);
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for fault in FAULTS {
        asked += 1;
        if fault.says.contains("no proxy answers") {
            world.stop().unwrap();
            wrong.extend(check(&world, fault));
            continue;
        }
        let Some((put, mend)) = fault.put else {
            wrong.extend(check(&world, fault));
            continue;
        };
        signal(&world, "STOP");
        let node = &world.topology.node().host.namespace;
        node.sh(put).unwrap();
        wrong.extend(check(&world, fault));
        node.sh(mend).unwrap();
        signal(&world, "CONT");
        // What it finds then it mends.
        while !world.diff(&[]).unwrap().is_empty() {}
    }
    println!("{asked} faults");
    assert!(asked >= 20 && wrong.is_empty(), "{}", wrong.join("\n"));
}
