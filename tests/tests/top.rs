//! `proxier top`: what it shows is what `ipvsadm` shows of the same kernel, under traffic.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use proxier_tests::command::output;
use proxier_tests::manifest::Service;
use proxier_tests::topology::Family;
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{TCP, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const ADDRESS: &str = "10.96.0.20";
const OFF: &str = "are not counted: net.ipv4.vs.run_estimation is 0";

/// A node with a Service of two pods.
fn world() -> Result<World> {
    let mut world = World::build("rr")?;
    let service = Service::new("web", &[ADDRESS]).port(Protocol::Tcp, 80, TCP);
    let pods = ["pod-a", "pod-d"].map(|name| world.topology.pod(name));
    let objects = vec![service.document(), service.slice(Family::V4, &pods)];
    world.apply(&objects, 2, &[ADDRESS])?;
    world.ready()?;
    Ok(world)
}

fn load(times: u32) -> Load {
    let to = Place::new(Protocol::Tcp, ADDRESS.parse().expect("an address"), 80);
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

/// The Service as JSON.
fn measured(world: &World) -> Result<Value> {
    let text = output(&mut world.proxier(&["top", "-o", "json"])?)?;
    let all: Value = serde_json::from_str(&text).context("read JSON")?;
    ensure!(all["counted"] == true, "{text}");
    let services = all["services"].as_array().context("Services")?;
    services.iter().find(|it| it["name"] == "web").cloned().context("the Service")
}

/// Connections, bytes in and bytes out by address, as `ipvsadm -Ln --stats` (or `--rate`) has them.
fn by_ipvsadm(world: &World, what: &str) -> Result<BTreeMap<String, Value>> {
    let node = &world.topology.node().host.namespace;
    let text = node.sh(&format!("ipvsadm -L -n --exact {what}"))?;
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, address, connections, _, _, bytes_in, bytes_out] = *words else { return None };
        let number = |word: &str| word.parse::<u64>().ok();
        let row = json!([number(connections)?, number(bytes_in)?, number(bytes_out)?]);
        Some((address.to_owned(), row))
    };
    Ok(text.lines().filter_map(row).collect())
}

fn counters(of: &Value, names: [&str; 3]) -> Value {
    names.iter().map(|name| of["counters"][name].clone()).collect()
}

const SUMS: [&str; 3] = ["connections", "bytesIn", "bytesOut"];
const RATES: [&str; 3] = ["connectionsPerSecond", "bytesInPerSecond", "bytesOutPerSecond"];

/// The same, of what `top` shows.
fn by_top(service: &Value, names: [&str; 3]) -> Result<BTreeMap<String, Value>> {
    let mut rows = BTreeMap::from([(format!("{ADDRESS}:80"), counters(service, names))]);
    for endpoint in service["endpoints"].as_array().context("endpoints")? {
        let address = endpoint["address"].as_str().context("an address")?;
        rows.insert(address.to_owned(), counters(endpoint, names));
    }
    Ok(rows)
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn sums_and_rates_are_those_of_ipvsadm() {
    let world = world().unwrap();
    let client = Client::new(&world.topology.client.namespace);
    let report = client.connect(&load(20)).unwrap();
    assert_eq!(report.answered(), 20, "{report:?}");
    // The kernel's sums lag by up to two seconds; then nothing changes any more.
    let sums = loop {
        let (one, other) = (by_ipvsadm(&world, "--stats").unwrap(), measured(&world).unwrap());
        if one[&format!("{ADDRESS}:80")][0] == 20 {
            break (one, by_top(&other, SUMS).unwrap());
        }
    };
    let now =
        (by_ipvsadm(&world, "--stats").unwrap(), by_top(&measured(&world).unwrap(), SUMS).unwrap());
    assert!(sums.0 == sums.1 || now.0 == now.1, "{sums:?}\n{now:?}");
    assert_eq!(now.0.len(), 3, "{now:?}");

    let mut rate = Client::new(&world.topology.client.namespace).rate(&load(100_000), 50).unwrap();
    // Estimated anew every two seconds: what one of two readings of the other has is right.
    loop {
        let before = by_ipvsadm(&world, "--rate").unwrap();
        let top = by_top(&measured(&world).unwrap(), RATES).unwrap();
        let after = by_ipvsadm(&world, "--rate").unwrap();
        if before == after && top[&format!("{ADDRESS}:80")][0].as_u64() > Some(0) {
            assert_eq!(top, before);
            break;
        }
    }
    let so_far = rate.so_far().unwrap();
    assert_eq!(so_far.failed(), 0, "{so_far:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn in_a_terminal_it_goes_on_and_leaves_the_screen_as_it_was() {
    let world = world().unwrap();
    let _rate = Client::new(&world.topology.client.namespace).rate(&load(100_000), 50).unwrap();
    let mut script = world.terminal("proxier top").unwrap();
    // Neither of them leaves a terminal of this test in disorder.
    let mut terminal = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut screen = terminal.stdout.take().unwrap();
    let (mut shown, mut buffer) = (String::new(), [0; 4096]);
    // Two screens, the second of which has seen connections.
    while !(shown.matches("\x1b[H").count() > 1 && busy(&shown)) {
        let read = screen.read(&mut buffer).unwrap();
        assert!(read > 0, "it ended: {shown}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    kill_process(child_of(&terminal).unwrap(), Signal::INT).unwrap();
    screen.read_to_string(&mut shown).unwrap();
    assert!(terminal.wait().unwrap().success(), "{shown}");
    assert!(
        shown.starts_with("\x1b[?1049h") && shown.trim_end().ends_with("\x1b[?1049l"),
        "{shown}"
    );
}

/// Whether the last screen shows connections a second of the Service.
fn busy(shown: &str) -> bool {
    let line = shown.lines().rev().find(|line| line.contains("default/web"));
    let rate = line.and_then(|line| line.split_whitespace().nth(3));
    rate.and_then(|rate| rate.parse::<u64>().ok()) > Some(0)
}

/// The program that runs in the terminal.
fn child_of(terminal: &Child) -> Result<Pid> {
    let mut pid = terminal.id();
    loop {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        match children.split_whitespace().next() {
            Some(child) => pid = child.parse()?,
            None => return Pid::from_raw(pid.cast_signed()).context("a process"),
        }
    }
}

/// Nothing counted is not nothing.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn without_estimation_nothing_is_shown_as_counted() {
    let mut world = world().unwrap();
    let node = &world.topology.node().host.namespace;
    node.sysctls(&[("net/ipv4/vs/run_estimation", "0")]).unwrap();
    world.restart(&["--service-metrics=*"]).unwrap();
    // Said once everything is in place.
    while !world.log().contains(OFF) {
        std::thread::yield_now();
    }
    let client = Client::new(&world.topology.client.namespace);
    let mut held = client.hold(&load(4)).unwrap();
    assert_eq!(held.opened.answered(), 4, "{:?}", held.opened);
    let once = world.proxier(&["top", "--once", "-n", "default"]).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&once.stderr).into_owned();
    assert!(once.status.success() && said.contains(OFF), "{said}");
    let table = String::from_utf8_lossy(&once.stdout).into_owned();
    let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row, ["default/web", "4", "0", "-", "-", "-"], "{table}");
    let json = output(&mut world.proxier(&["top", "-o", "json"]).unwrap()).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["counted"], false);
    assert_eq!(json["services"][0]["counters"], Value::Null);
    let metrics =
        "exec 3<>/dev/tcp/127.0.0.1/10249 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3";
    let node = &world.topology.node().host.namespace;
    let metrics = output(node.command("bash").args(["-c", metrics])).unwrap();
    let active =
        metrics.lines().filter(|line| line.starts_with("proxier_endpoint_active_connections{"));
    let active: Vec<_> = active.filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(active, ["2", "2"], "{metrics}");
    for absent in ["proxier_service_connections_total", "proxier_endpoint_incoming_bytes_total"] {
        assert!(!metrics.contains(absent), "{absent}: {metrics}");
    }
    assert_eq!(held.ask().unwrap().answered(), 4);
}
