//! What each command prints on a real node, in a terminal as people have it: `tests/transcripts`, which documents
//! show.
//!
//! `UPDATE=1 tests/run --kernel transcripts` writes these anew, then
//! `UPDATE=1 cargo test -p proxier-tests --test transcripts` the documents.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "transcripts/documents.rs"]
mod documents;
#[path = "transcripts/recorder.rs"]
mod recorder;
#[path = "schemas/check.rs"]
mod schema;
#[path = "transcripts/story.rs"]
mod story;

use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::World;
use serde_json::Value;

use self::recorder::Recorder;
use self::story::Chapter;

/// The client outside, which the story's node serves.
const CLIENT: &str = "192.168.50.100";
/// What is recorded, each by its name.
const STORY: &[&str] = &[
    "status",
    "status-attention",
    "get-services",
    "get-services-wide",
    "get-endpoints",
    "get-endpoints-wide",
    "get-virtual-servers",
    "get-virtual-servers-wide",
    "explain-service",
    "explain-address",
    "explain-node-port",
    "trace-reached",
    "trace-refused",
    "trace-dropped",
    "top",
    "diff-in-sync",
    "diff",
    "migrate",
    "hand-over",
    "dry-run",
    "report",
    "version",
    "cleanup",
];

fn load(to: &str, times: u32) -> Load {
    let to = Place::new(Protocol::Tcp, to.parse().unwrap(), 80);
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

/// What a command prints as JSON; it is as the schema says.
fn json(world: &World, words: &str, schema: &str) -> Value {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["-o", "json"]);
    let output = world.proxier(&words).unwrap().output().unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{words:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))
    });
    schema::conforms(schema, &document);
    document
}

fn signal(world: &World, name: &str) {
    let pid = world.pid().unwrap();
    world.topology.node().host.namespace.sh(&format!("kill -{name} {pid}")).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn commands_on_a_node_print_what_is_recorded() {
    let mut world = World::build("rr").unwrap();
    let mut shown = Recorder::default();
    world.write(&story::objects(&world.topology, Chapter::Quiet)).unwrap();
    world.ready().unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let held = client.hold(&load("203.0.113.10", 6)).unwrap();
    assert_eq!(held.opened.answered(), 6, "{:?}", held.opened);

    // Two of the six are those of the pod that goes now.
    world.write(&story::objects(&world.topology, Chapter::Rollout)).unwrap();
    while json(&world, "status", "status")["draining"]["total"] != 1 {}
    reading(&mut shown, &world);
    top(&mut shown, &world);

    world.write(&story::objects(&world.topology, Chapter::Conflict)).unwrap();
    while json(&world, "status", "status")["state"] != "in sync, needs attention" {}
    shown.show(&world, "status-attention", "proxier status", 2);
    world.write(&story::objects(&world.topology, Chapter::Rollout)).unwrap();
    while json(&world, "status", "status")["state"] != "in sync" {}

    // What somebody changes while the daemon cannot see it stays.
    signal(&world, "STOP");
    let drift = [
        "ipvsadm -d -t 10.96.0.10:80 -r 10.244.0.5:8080",
        "ip address delete 198.51.100.20/32 dev kube-ipvs0",
        "sysctl -q net.ipv4.vs.conntrack=0",
    ];
    shown.after(&world, "diff", &drift, "proxier diff", 1);
    assert_eq!(json(&world, "diff", "diff")["same"], false);
    world.kill();
    let stale =
        ["ip address add 10.96.0.99/32 dev kube-ipvs0", "ipvsadm -A -t 10.96.0.99:80 -s rr"];
    shown.after(&world, "migrate", &stale, "proxier migrate --check", 1);
    let check = json(&world, "migrate --check", "migrate");
    assert_eq!((&check["removals"], &check["adoptedVirtualServers"]), (&1.into(), &16.into()));
    // This kernel has no nftables.
    shown.show(&world, "hand-over", "proxier hand-over --to nftables", 1);
    shown.once(&world, "cleanup", "proxier cleanup", 0);
    drop(held);
    shown.finish(STORY);
}

/// What only reads, on a node where one pod drains.
fn reading(shown: &mut Recorder, world: &World) {
    shown.show(world, "status", "proxier status", 0);
    for (name, kind, schema) in [
        ("get-services", "services", "get-services"),
        ("get-endpoints", "endpoints", "get-endpoints"),
        ("get-virtual-servers", "virtual-servers", "get-virtual-servers"),
    ] {
        let wide = STORY.iter().find(|it| it.strip_suffix("-wide") == Some(name)).unwrap();
        shown.show(world, name, &format!("proxier get {kind}"), 0);
        shown.show(world, wide, &format!("proxier get {kind} -o wide"), 0);
        json(world, &format!("get {kind}"), schema);
    }
    for (name, what) in [
        ("explain-service", "svc/shop"),
        ("explain-address", "203.0.113.10:80"),
        ("explain-node-port", "30020"),
    ] {
        shown.show(world, name, &format!("proxier explain {what}"), 0);
        json(world, &format!("explain {what}"), "explain");
    }
    for (name, place, status, outcome) in [
        ("trace-reached", "203.0.113.10:80", 0, "reached"),
        ("trace-refused", "10.96.0.40:80", 2, "refused"),
        ("trace-dropped", "198.51.100.30:443", 3, "dropped"),
    ] {
        shown.show(world, name, &format!("proxier trace {CLIENT} {place}"), status);
        let document = json(world, &format!("trace {CLIENT} {place}"), "trace");
        assert_eq!(document["outcome"], outcome);
    }
    shown.show(world, "dry-run", "proxier --dry-run", 0);
    shown.show(world, "diff-in-sync", "proxier diff", 0);
    assert_eq!(json(world, "diff", "diff")["same"], true);
    shown.show(world, "report", "proxier report | grep '^==>'", 0);
    shown.show(world, "version", "proxier version", 0);
}

/// The connections that are held, and new ones to one pod of another Service.
fn top(shown: &mut Recorder, world: &World) {
    // The kernel's estimates of what opened those that are held.
    world.topology.node().host.namespace.sh("ipvsadm -Z").unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let mut rate = client.rate(&load("198.51.100.20", 100_000), 50).unwrap();
    let busy = |service: &Value| {
        let rate = |what: &str| service["counters"][what].as_u64() > Some(0);
        rate("connectionsPerSecond") && rate("bytesInPerSecond") && rate("bytesOutPerSecond")
    };
    while !json(world, "top", "top")["services"].as_array().unwrap().iter().any(busy) {}
    shown.show(world, "top", "proxier top --once", 0);
    assert_eq!(rate.so_far().unwrap().failed(), 0);
}
