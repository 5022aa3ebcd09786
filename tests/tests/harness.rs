//! The test harness itself: what the other kernel tests rely on, without the daemon.

use std::process::Command;

use proxier_tests::command::{output, run};
use proxier_tests::golden::{Dump, Part, Scenario, compare, observe, put};
use proxier_tests::netns::require_test_kernel;
use proxier_tests::topology::{Family, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Server};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

fn load(to: Place, times: u32) -> Load {
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_client_reaches_a_pod_with_every_protocol_and_family() {
    let topology = Topology::build().unwrap();
    let pod = topology.node().pod("pod-a");
    for family in [Family::V4, Family::V6] {
        let places = PROTOCOLS.map(|protocol| Place::new(protocol, pod.address(family), 8080));
        let _server = Server::start(&pod.namespace, "pod-a", &places).unwrap();
        for place in places {
            let report = Client::new(&topology.client.namespace).connect(&load(place, 2)).unwrap();
            assert_eq!(report.answers, [("pod-a".to_owned(), 2)].into(), "{place}: {report:?}");
            assert_eq!(report.peers, [(topology.client.address(family), 2)].into(), "{place}");
        }
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn refused_and_no_answer_are_told_apart() {
    let topology = Topology::build().unwrap();
    let pod = topology.node().pod("pod-a");
    pod.namespace.sh("iptables -A INPUT -p tcp --dport 81 -j DROP\niptables -A INPUT -p udp --dport 81 -j DROP").unwrap();
    for protocol in PROTOCOLS {
        let to = Place::new(protocol, pod.ipv4.into(), 80);
        let report = Client::new(&topology.client.namespace).connect(&load(to, 1)).unwrap();
        assert_eq!(report.errors, [("refused".to_owned(), 1)].into(), "{to}");
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let to = Place::new(protocol, pod.ipv4.into(), 81);
        let load = Load { timeout: 300, ..load(to, 1) };
        let report = Client::new(&topology.client.namespace).connect(&load).unwrap();
        assert_eq!(report.errors, [("timeout".to_owned(), 1)].into(), "{to}");
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn pods_of_two_nodes_reach_each_other() {
    let topology = Topology::build().unwrap();
    for to in topology.pods() {
        let place = Place::new(Protocol::Tcp, to.ipv6.into(), 80);
        let _server = Server::start(&to.namespace, to.namespace.name(), &[place]).unwrap();
        for from in topology.pods() {
            let report = Client::new(&from.namespace).connect(&load(place, 1)).unwrap();
            assert_eq!(
                report.peers,
                [(from.ipv6.into(), 1)].into(),
                "{:?} {report:?}",
                from.namespace
            );
        }
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn held_connections_stay_open_and_answer_again() {
    let topology = Topology::build().unwrap();
    let pod = topology.node().pod("pod-b");
    for protocol in [Protocol::Tcp, Protocol::Sctp] {
        let place = Place::new(protocol, pod.ipv4.into(), 80);
        let _server = Server::start(&pod.namespace, "pod-b", &[place]).unwrap();
        let mut held = Client::new(&topology.client.namespace).hold(&load(place, 3)).unwrap();
        assert_eq!(held.opened.answered(), 3, "{:?}", held.opened);
        assert_eq!(held.ask().unwrap().answers, [("pod-b".to_owned(), 3)].into());
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_chosen_source_and_one_socket_are_seen_by_the_server() {
    let topology = Topology::build().unwrap();
    let pod = topology.node().pod("pod-a");
    let place = Place::new(Protocol::Udp, pod.ipv4.into(), 53);
    let _server = Server::start(&pod.namespace, "pod-a", &[place]).unwrap();
    topology.client.namespace.ip("addr add 192.168.50.101/24 dev eth0").unwrap();
    let load = Load {
        source: Some("192.168.50.101:5353".parse().unwrap()),
        one_socket: true,
        ..load(place, 4)
    };
    let report = Client::new(&topology.client.namespace).connect(&load).unwrap();
    assert_eq!(report.peers, [("192.168.50.101".parse().unwrap(), 4)].into(), "{report:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_steady_rate_counts_every_attempt() {
    let topology = Topology::build().unwrap();
    let pod = topology.node().pod("pod-a");
    let place = Place::new(Protocol::Tcp, pod.ipv4.into(), 80);
    let _server = Server::start(&pod.namespace, "pod-a", &[place]).unwrap();
    let client = Client::new(&topology.client.namespace);
    let report = client.rate(&load(place, 20), 200).unwrap().finish().unwrap();
    assert_eq!((report.answered(), report.failed()), (20, 0), "{report:?}");
    let mut rate = client.rate(&load(place, u32::MAX), 200).unwrap();
    let mut before = rate.so_far().unwrap();
    while before.answered() == 0 {
        before = rate.so_far().unwrap();
    }
    let all = rate.end().unwrap();
    assert!(all.answered() >= before.answered(), "{before:?} {all:?}");
    assert_eq!(all.failed(), 0, "{all:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_kernel_is_read_back_as_it_was_written() {
    require_test_kernel().unwrap();
    let script = "
        ip link add kube-ipvs0 type dummy
        ip addr add 10.96.0.1/32 dev kube-ipvs0
        ipvsadm -A -t 10.96.0.1:80 -s wrr
        ipvsadm -a -t 10.96.0.1:80 -r 10.244.0.5:8080 -m -w 7
        ipset create KUBE-CLUSTER-IP hash:ip,port
        ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80
        iptables -t nat -N KUBE-SERVICES
        iptables -t nat -A PREROUTING -j KUBE-SERVICES
        ip6tables -N KUBE-FORWARD";
    output(Command::new("sh").args(["-euc", script])).unwrap();
    let like = Dump {
        sysctls: [("net.ipv4.vs.conntrack".to_owned(), String::new())].into(),
        ..Dump::default()
    };
    let read = observe(
        None,
        &like,
        &[Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules, Part::Sysctls],
    )
    .unwrap();
    assert_eq!(
        read.ipvs["-A -t 10.96.0.1:80 -s wrr"],
        ["-a -t 10.96.0.1:80 -r 10.244.0.5:8080 -m -w 7"]
    );
    assert!(read.addresses.contains("link kube-ipvs0 dummy DOWN"), "{:?}", read.addresses);
    assert!(read.addresses.contains("inet 10.96.0.1/32 scope global"), "{:?}", read.addresses);
    assert_eq!(read.set("KUBE-CLUSTER-IP"), ["10.96.0.1,tcp:80"]);
    assert_eq!(read.nat4.0["PREROUTING"], ["-A PREROUTING -j KUBE-SERVICES"]);
    assert!(read.filter6.0.contains_key("KUBE-FORWARD"));
    assert_eq!(
        read.sysctls["net.ipv4.vs.conntrack"],
        run("sysctl", ["-n", "net.ipv4.vs.conntrack"]).unwrap().trim()
    );
}

/// The goldens come from another kernel, with the other kind of iptables: what is put here is printed
/// alike.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn goldens_put_into_this_kernel_are_read_back_alike() {
    require_test_kernel().unwrap();
    for name in
        ["lb-source-ranges", "dual-stack-service", "three-protocols-one-vip", "scheduler-mh"]
    {
        let golden = Scenario::load(name).unwrap().steps.remove(0).expected;
        put(None, &golden).unwrap();
        let parts = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];
        let difference = compare(&golden, &observe(None, &golden, &parts).unwrap(), &parts);
        assert_eq!(difference, "", "{name}");
        let clean = "ipvsadm -C; ip link delete kube-ipvs0
            for tool in iptables ip6tables; do for table in nat filter; do $tool -t $table -F; $tool -t $table -X; done; done
            ipset destroy";
        output(Command::new("sh").args(["-euc", clean])).unwrap();
    }
}
