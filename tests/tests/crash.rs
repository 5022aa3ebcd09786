//! The daemon is killed with SIGKILL at random moments while everything changes, and started again:
//! nothing is left over, and a Service that has endpoints all the time is never without.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use proxier_tests::command::output;
use proxier_tests::golden::{Dump, Part, compare, observe};
use proxier_tests::manifest::Service;
use proxier_tests::topology::Family;
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{TCP, UDP, World};
use proxier_tests::{figure, full};
use serde_json::{Value, json};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The Service that is asked all the time.
const STEADY: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];

/// How many other Services there may be.
const SERVICES: u16 = 30;

/// How many messages the kernel is sent for a change here, about.
const MESSAGES: u64 = 12;

/// Numbers that look random and follow from the seed (`SplitMix64`).
struct Random(u64);

impl Random {
    /// `PROXIER_SEED`, or another one each time.
    fn seed() -> Result<u64> {
        match std::env::var("PROXIER_SEED") {
            Ok(seed) => seed.parse().context("PROXIER_SEED"),
            Err(_) => Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs()),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn moment(&mut self, window: Duration) -> Duration {
        window.mul_f64(f64::from(u32::try_from(self.below(1000)).unwrap_or_default()) / 1000.0)
    }
}

/// Objects, and the addresses that are to be bound because of them.
struct Cluster {
    objects: Vec<Value>,
    addresses: BTreeSet<IpAddr>,
}

/// Some of the Services, each with some of its endpoints, and the one that always has one.
fn cluster(world: &World, random: &mut Random) -> Result<Cluster> {
    let pods = ["pod-a", "pod-b", "pod-d"];
    let mut chosen: Vec<&str> = pods.into_iter().filter(|_| random.below(2) == 0).collect();
    if chosen.is_empty() {
        chosen.push(pods[usize::try_from(random.below(3))?]);
    }
    let steady = Service::new("steady", &STEADY).port(Protocol::Tcp, 80, TCP);
    let chosen: Vec<_> = chosen.into_iter().map(|pod| world.topology.pod(pod)).collect();
    let mut objects = vec![steady.document()];
    objects.extend(FAMILIES.map(|family| steady.slice(family, &chosen)));
    let mut addresses: BTreeSet<IpAddr> =
        STEADY.map(str::parse).into_iter().collect::<Result<_, _>>()?;
    for number in (0..SERVICES).filter(|_| random.below(2) == 0).collect::<Vec<_>>() {
        let (v4, v6) = (format!("10.96.1.{number}"), format!("fd00:10:96::1:{number:x}"));
        let mut service = Service::new(&format!("service-{number}"), &[&v4, &v6])
            .node_port(Protocol::Tcp, 80, TCP, 30000 + number)
            .port(Protocol::Udp, 53, UDP);
        let mut bound = vec![v4, v6];
        if random.below(3) == 0 {
            let external = format!("203.0.113.{number}");
            service = service.external_ips(&[&external]);
            bound.push(external);
        }
        if random.below(3) == 0 {
            service = service.with("sessionAffinity", json!("ClientIP"));
        }
        for address in bound {
            addresses.insert(address.parse()?);
        }
        objects.push(service.document());
        for family in FAMILIES {
            // Nobody is there: nobody asks.
            let endpoints = (1..=5).filter(|_| random.below(2) == 0);
            let endpoint = |host: u16| match family {
                Family::V4 => format!("10.244.1.{}", 100 + host),
                Family::V6 => format!("fd00:10:244:1::{host:x}"),
            };
            let endpoint = |host: u16| {
                json!({
                    "addresses": [endpoint(host)],
                    "conditions": { "ready": true },
                    "nodeName": "node-b",
                })
            };
            objects.push(service.slice_of(family, &endpoints.map(endpoint).collect::<Vec<_>>()));
        }
    }
    Ok(Cluster { objects, addresses })
}

/// What is seen of the kernel between two daemons.
#[derive(PartialEq, Eq)]
struct Seen {
    /// Addresses of virtual servers.
    served: BTreeSet<IpAddr>,
    /// Addresses on `kube-ipvs0`.
    bound: BTreeSet<IpAddr>,
    /// Virtual servers of the steady Service that have a real server for new connections.
    steady: BTreeSet<IpAddr>,
}

// === impl Seen ===

impl Seen {
    /// From what `ipvsadm -S -n` and `ip -o addr show dev kube-ipvs0` print.
    fn of(text: &str) -> Self {
        let mut seen =
            Self { served: BTreeSet::new(), bound: BTreeSet::new(), steady: BTreeSet::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["-A", _, at, ..] => seen.served.extend(address(at)),
                ["-a", _, at, .., "-w", "1"] => {
                    seen.steady.extend(address(at).filter(|ip| STEADY.contains(&&*ip.to_string())));
                }
                [_, "kube-ipvs0", "inet" | "inet6", at, ..] => {
                    seen.bound
                        .extend(at.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok()));
                }
                _ => {}
            }
        }
        seen
    }

    /// Every virtual server and every address is there, and no other. Node ports are on addresses of
    /// the node.
    fn is(&self, wanted: &Cluster) -> bool {
        let services = self.served.iter().filter(|ip| is_service(ip));
        self.bound == wanted.addresses && services.eq(&wanted.addresses)
    }

    /// Fails if something is not as it must be at any time.
    fn check(&self) -> Result<()> {
        ensure!(
            self.steady.len() == STEADY.len(),
            "without endpoints, of {STEADY:?}: {:?}",
            self.steady
        );
        let open: Vec<_> = self.bound.difference(&self.served).collect();
        ensure!(open.is_empty(), "bound without a virtual server: {open:?}");
        Ok(())
    }
}

/// Of `10.96.0.1:80` or `[fd00::1]:80`.
fn address(at: &str) -> Option<IpAddr> {
    at.rsplit_once(':')?.0.trim_matches(['[', ']']).parse().ok()
}

fn is_service(address: &IpAddr) -> bool {
    let text = address.to_string();
    ["10.96.", "fd00:10:96:", "203.0.113."].iter().any(|prefix| text.starts_with(prefix))
}

fn look(world: &World) -> Result<Seen> {
    let node = &world.topology.node().host.namespace;
    Ok(Seen::of(&node.sh("ipvsadm -S -n; ip -o addr show dev kube-ipvs0 2>/dev/null || true")?))
}

/// Starts the daemon with what is wanted, and returns how long it took to get there.
fn reach(world: &mut World, wanted: &Cluster) -> Result<Duration> {
    let begin = Instant::now();
    world.write(&wanted.objects)?;
    world.ready()?;
    let took = begin.elapsed();
    ensure!(look(world)?.is(wanted), "ready, but not as wanted");
    Ok(took)
}

/// Kills the daemon when it is about to send the kernel its message of this number for a change: most
/// of the time it waits or computes, and a moment hardly ever meets the few milliseconds between two
/// messages. If there are fewer, it is killed after the change.
fn kill_before_message(world: &mut World, wanted: &Cluster, number: u64) -> Result<()> {
    let daemon = world.pid().context("a daemon that runs")?;
    let mut dataplane = None;
    for task in fs::read_dir(format!("/proc/{daemon}/task"))? {
        let task = task?;
        if fs::read_to_string(task.path().join("comm"))?.trim() == "dataplane" {
            dataplane = task.file_name().into_string().ok();
        }
    }
    let mut tracer = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "trace=sendto", "-e"])
        .arg(format!("inject=sendto:signal=SIGKILL:when={number}"))
        .args(["-p", &dataplane.context("the thread that programs the kernel")?])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start strace")?;
    let mut said = BufReader::new(tracer.stderr.take().context("the output of strace")?);
    let mut line = String::new();
    said.read_line(&mut line).context("wait for strace")?;
    ensure!(line.contains("attached"), "{line}");
    world.write(&wanted.objects)?;
    // It ends with whom it traces.
    while tracer.try_wait()?.is_none() && !look(world)?.is(wanted) {}
    world.kill();
    tracer.wait().context("wait for strace")?;
    Ok(())
}

/// With `PROXIER_FULL` set, 300 times; `PROXIER_SEED` repeats what a seed did.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn killed_at_random_moments_it_loses_nothing_and_leaves_nothing() {
    let seed = Random::seed().unwrap();
    kill_at_random(seed).with_context(|| format!("PROXIER_SEED={seed}")).unwrap();
}

fn kill_at_random(seed: u64) -> Result<()> {
    let kills = if full() { 300 } else { 20 };
    let mut random = Random(seed);
    let mut world = World::build("rr")?;
    // How long a start takes: the moments are spread over this time.
    let mut wanted = cluster(&world, &mut random)?;
    let mut start = reach(&mut world, &wanted)?;
    let client = &world.topology.client.namespace;
    let mut rates = Vec::new();
    for address in STEADY {
        let to = Place::new(Protocol::Tcp, address.parse()?, 80);
        let load = Load { to, times: u32::MAX, source: None, timeout: 120_000, one_socket: false };
        rates.push(Client::new(client).rate(&load, 20)?);
    }

    world.kill();
    let mut midway = 0;
    for number in 0..kills {
        // By turns while it carries out a change, and while it starts over what the last one left.
        let carrying_out = number % 2 == 0;
        if carrying_out {
            start = reach(&mut world, &wanted)?;
        }
        let before = look(&world)?;
        wanted = cluster(&world, &mut random)?;
        if carrying_out {
            kill_before_message(&mut world, &wanted, 1 + random.below(MESSAGES))?;
        } else {
            world.write(&wanted.objects)?;
            world.start()?;
            // The moment is what this test is about; nothing is expected to have happened by then.
            std::thread::sleep(random.moment(start));
            world.kill();
        }
        let after = look(&world)?;
        after.check().with_context(|| format!("after SIGKILL number {}", number + 1))?;
        midway += u32::from(after != before && !after.is(&wanted));
    }
    reach(&mut world, &wanted)?;
    let mut made = 0;
    for rate in rates {
        let report = rate.end()?;
        ensure!(report.failed() == 0 && report.answered() > 0, "{report:?}");
        made += report.answered();
    }
    let crashed = settled(&world)?;
    // A daemon that finds nothing comes to the same.
    world.stop()?;
    output(world.proxier(&[])?.arg("cleanup"))?;
    let left = look(&world)?;
    ensure!(left.bound.is_empty() && left.served.is_empty(), "left by the clean-up");
    reach(&mut world, &wanted)?;
    let fresh = settled(&world)?;
    let difference = compare(&fresh, &crashed, &PARTS);
    ensure!(difference.is_empty(), "not as a fresh daemon makes it:\n{difference}");
    figure(&format!(
        "{kills} times SIGKILL, {midway} of them half-way (seed {seed}): same state as a fresh run, \
         {made} connections, 0 failed"
    ));
    Ok(())
}

const PARTS: [Part; 4] = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];

/// The kernel once nothing is left to do. What only drains is left out: it is there because of
/// connections.
fn settled(world: &World) -> Result<Dump> {
    while !world.diff(&[])?.is_empty() {}
    let node = &world.topology.node().host.namespace;
    let mut found = observe(Some(node), &Dump::default(), &PARTS)?;
    for servers in found.ipvs.values_mut() {
        servers.retain(|line| !line.ends_with(" -w 0"));
    }
    Ok(found)
}
