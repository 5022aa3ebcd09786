//! Fail closed: what is to be shut to others has no real servers while what shuts it is missing.

use std::net::SocketAddr;
use std::time::Instant;

use proxier_tests::figure;
use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{TCP, World};
use serde_json::{Value, json};

const VIP: &str = "203.0.113.20";
const OPEN: &str = "10.96.0.21";
const ADDRESSES: [&str; 2] = ["10.96.0.20", OPEN];
/// Who is let in, and who is not: both are the client.
const FRIEND: &str = "192.168.50.100";
const STRANGER: &str = "192.168.50.101";
const SET: &str = "KUBE-LOAD-BALANCER-FW";
/// A set of another type in its place, which cannot go while a rule of somebody else refers to it.
const CAUSE: &str = "ipset create KUBE-LOAD-BALANCER-FW hash:net; iptables -N OTHERS
    iptables -A OTHERS -m set --match-set KUBE-LOAD-BALANCER-FW src -j RETURN";
const END: &str = "iptables -F OTHERS; iptables -X OTHERS";

fn world() -> World {
    let settings = "scheduler: rr, syncPeriod: 1s, minSyncPeriod: 0s";
    let mut world = World::build_with(Topology::build().unwrap(), settings).unwrap();
    world.start_server("pod-a", "pod-a").unwrap();
    let client = &world.topology.client.namespace;
    client.ip(&format!("addr add {STRANGER}/24 dev eth0")).unwrap();
    world
}

fn objects(world: &World) -> Vec<Value> {
    let guarded = Service::new("guarded", &ADDRESSES[..1])
        .port(Protocol::Tcp, 80, TCP)
        .load_balancer(&[VIP])
        .with("loadBalancerSourceRanges", json!([format!("{FRIEND}/32")]));
    let open = Service::new("open", &[OPEN]).port(Protocol::Tcp, 80, TCP);
    let (pod, node) = world.topology.pod("pod-a");
    let endpoint = endpoint(Family::V4, pod, node, Condition::Ready);
    let of = |service: &Service| {
        [service.document(), service.slice_of(Family::V4, std::slice::from_ref(&endpoint))]
    };
    [of(&guarded), of(&open)].into_iter().flatten().collect()
}

fn connect(world: &World, address: &str, from: &str) -> Report {
    let to = Place::new(Protocol::Tcp, address.parse().unwrap(), 80);
    let source = Some(SocketAddr::new(from.parse().unwrap(), 0));
    let load = Load { to, times: 3, source, timeout: 1000, one_socket: false };
    Client::new(&world.topology.client.namespace).connect(&load).unwrap()
}

/// How many of three connections each of both makes to the load balancer's address; to the other
/// Service all of them.
fn let_in(world: &World) -> [u32; 2] {
    assert_eq!(connect(world, OPEN, STRANGER).answered(), 3, "another Service");
    [FRIEND, STRANGER].map(|from| connect(world, VIP, from).answered())
}

/// Virtual and real servers and bound addresses.
fn state(topology: &Topology) -> String {
    let node = &topology.node().host.namespace;
    node.sh("ipvsadm -S -n; ip -o addr show dev kube-ipvs0 2>/dev/null || true").unwrap()
}

fn has_real_servers(state: &str, address: &str) -> bool {
    state.contains(&format!("-a -t {address}:80 -r "))
}

/// Everything but the address that cannot be protected.
fn all_but_the_guarded(state: &str) -> bool {
    let bound = |address: &str| state.contains(&format!(" {address}/32 "));
    ADDRESSES.iter().all(|address| has_real_servers(state, address) && bound(address))
        && !has_real_servers(state, VIP)
}

fn closed(world: &mut World) {
    world
        .wait(
            |topology| Ok(all_but_the_guarded(&state(topology))),
            |topology| format!("all but {VIP}, but:\n{}", state(topology)),
        )
        .unwrap();
    assert_eq!(let_in(world), [0, 0]);
    let said = |words: &[&str]| {
        let output = world.proxier(&[]).unwrap().args(words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (_, text) = said(&["explain", "default/guarded"]);
    let says =
        format!("not programmed by the running proxy: virtual server {VIP}:80/tcp waits for ");
    assert!(text.contains(&says), "{text}");
    let (code, text) = said(&["status"]);
    assert_eq!(code, Some(1), "{text}");
    let says =
        |line: &str| line.starts_with("held back ") && line.contains(VIP) && line.contains(SET);
    assert!(text.lines().any(says), "{text}");
}

fn opened(world: &mut World, what: &str) {
    let began = Instant::now();
    world.topology.node().host.namespace.sh(END).unwrap();
    world
        .wait(
            |topology| Ok(has_real_servers(&state(topology), VIP)),
            |topology| format!("{VIP}, too, but:\n{}", state(topology)),
        )
        .unwrap();
    let took = began.elapsed().as_secs_f64();
    world
        .wait(
            |topology| Ok(state(topology).contains(&format!(" {VIP}/32 "))),
            |topology| format!("{VIP} bound, but:\n{}", state(topology)),
        )
        .unwrap();
    assert_eq!(let_in(world), [3, 0]);
    figure(&format!("{what}: strangers let in: 0; right {took:.1} s after the cause has ended"));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_address_that_cannot_be_protected_serves_nobody_and_stops_nothing() {
    let mut world = world();
    world.topology.node().host.namespace.sh(CAUSE).unwrap();
    world.write(&objects(&world)).unwrap();
    world.start().unwrap();
    closed(&mut world);
    opened(&mut world, "no set for source ranges at the start");

    // The same while it serves.
    let fault = format!(
        "kill -STOP {pid}; trap 'kill -CONT {pid}' EXIT
         iptables -F; iptables -X; ipset destroy {SET}; {CAUSE}",
        pid = world.pid().unwrap()
    );
    world.topology.node().host.namespace.sh(&fault).unwrap();
    closed(&mut world);
    opened(&mut world, "the set for source ranges taken away");
}
