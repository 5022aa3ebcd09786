//! README's picture: the status page of a node that serves traffic, with the Services of the transcripts.
//!
//! `UPDATE=1 PROXIER_FULL=1 tests/run --kernel in_full_the_picture` takes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "more than this picture needs")]
#[path = "browser/driver.rs"]
mod driver;
#[path = "transcripts/story.rs"]
mod story;

use std::path::{Path, PathBuf};

use proxier_tests::daemon::Scratch;
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::World;

use self::driver::Browser;
use self::story::Chapter;

/// Set where the browser runs: in the namespace of the node, whose page only the node itself can see.
const THERE: &str = "PROXIER_PICTURE";
const TEST: &str = "in_full_the_picture_is_of_a_node_that_serves";

/// New connections a second, by service address.
const TRAFFIC: [(&str, u16, u32); 4] = [
    ("203.0.113.10", 80, 60),
    ("2001:db8::10", 80, 30),
    ("198.51.100.20", 80, 40),
    ("10.96.0.30", 443, 20),
];

fn file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let update = std::env::var_os("UPDATE").is_some();
    root.join(if update { "docs/status-page.png" } else { "target/browser/node.png" })
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run; chromium and chromium-driver"]
fn in_full_the_picture_is_of_a_node_that_serves() {
    if std::env::var_os(THERE).is_some() {
        return take();
    }
    let mut world = World::build("rr").unwrap();
    world.write(&story::objects(&world.topology, Chapter::Quiet)).unwrap();
    world.ready().unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let load = |address: &str, port, times| {
        let to = Place::new(Protocol::Tcp, address.parse().unwrap(), port);
        Load { to, times, source: None, timeout: 60_000, one_socket: false }
    };
    let held = client.hold(&load("203.0.113.10", 80, 12)).unwrap();
    assert_eq!(held.opened.answered(), 12, "{:?}", held.opened);
    world.write(&story::objects(&world.topology, Chapter::Rollout)).unwrap();
    let start = |(address, port, rate)| client.rate(&load(address, port, u32::MAX), rate).unwrap();
    let rates = TRAFFIC.map(start);
    let me = std::env::current_exe().unwrap();
    let mut taker = world.topology.node().host.namespace.command(me);
    let taker = taker.args([TEST, "--exact", "--ignored", "--nocapture"]).env(THERE, "1");
    assert!(taker.status().unwrap().success(), "no picture");
    for rate in rates {
        let report = rate.end().unwrap();
        assert!(report.answered() > 0 && report.failed() == 0, "{report:?}");
    }
}

fn take() {
    let scratch = Scratch::create().unwrap();
    let browser = Browser::start(scratch.path(), "light", 1280, 640).unwrap();
    browser.open("http://127.0.0.1:10249/status?refresh=1&sort=connections").unwrap();
    // The trends of three Services, long enough to be seen.
    let long = "return [...document.querySelectorAll('.trend polyline')]
        .filter(line => line.points.length > 20).length >= 3";
    while browser.script(long).unwrap() != true {}
    browser.picture(&file()).unwrap();
}
