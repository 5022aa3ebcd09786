//! Changes of endpoints, and when the kernel has them.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_ipvs::{Client, Protocol, VirtualServerKey};
use serde_json::{Value, json};

use super::World;
use super::objects::Size;
use super::watched::Metrics;
use crate::apiserver::Prepared;
use crate::daemon::Daemon;
use crate::live::Live;

/// How long a change may take before it counts as lost.
const LOST: Duration = Duration::from_mins(1);
/// Between two looks into the kernel, and two looks at the clock.
const BETWEEN: Duration = Duration::from_micros(300);
/// Between two looks into the kernel where others work meanwhile: by so much, and by what an older change
/// still takes, a latency can be too long.
const SELDOM: Duration = Duration::from_millis(2);
/// So many changes a second are followed into the kernel.
const FOLLOWED: u32 = 40;

/// Makes changes and looks for them in the kernel.
pub(super) struct Probe {
    ipvs: Client,
    size: Size,
    services: Vec<u32>,
}

/// A change that was made.
struct Waiting {
    since: Instant,
    service: u32,
    wanted: Ipv4Addr,
}

impl Probe {
    pub(super) fn open(size: Size) -> Result<Self> {
        let services = (0..size.services).filter(|service| Size::is_plain(*service)).collect();
        Ok(Self { ipvs: Client::open()?, size, services })
    }

    /// Whether a service has a real server, and not another.
    fn has(&mut self, service: u32, wanted: Ipv4Addr, gone: Option<Ipv4Addr>) -> Result<bool> {
        let address = Size::cluster_ip(service).into();
        let key = VirtualServerKey::new(address, 80, Protocol::Tcp);
        let there = self.ipvs.real_servers(key)?;
        let has = |ip: Ipv4Addr| there.iter().any(|real| real.server.key.address == ip);
        Ok(has(wanted) && !gone.is_some_and(has))
    }

    /// One endpoint of one service changes, in the round after back again; how long until the kernel has the new and not the old.
    pub(super) fn one(&mut self, live: &Live, daemon: &mut Daemon, round: u32) -> Result<Duration> {
        let service = self.services[(round as usize - 1) / 2 % self.services.len()];
        let [first, second] = self.size.flips(service, 0);
        let (wanted, gone) = if round % 2 == 1 { (second, first) } else { (first, second) };
        let since = Instant::now();
        live.server.put(self.size.changed_slice(service, 1, round));
        let question = || Ok(self.has(service, wanted, Some(gone))?.then(|| since.elapsed()));
        let explain = || format!("service {service} did not get {wanted}");
        daemon.wait_asking_every(BETWEEN, question, explain)
    }

    /// The services whose real servers are not those of this round.
    fn lost(&mut self, rounds: &[u32]) -> Result<Vec<u32>> {
        let mut lost = Vec::new();
        for (index, round) in rounds.iter().enumerate() {
            let service = self.services[index];
            let [first, second] = self.size.flips(service, 0);
            let (wanted, gone) = if round % 2 == 1 { (second, first) } else { (first, second) };
            if !self.has(service, wanted, Some(gone))? {
                lost.push(service);
            }
        }
        Ok(lost)
    }
}

/// So many changes a second for some time, each of another service than the one before.
pub(super) fn steady(world: &mut World, per_second: u32, seconds: u32) -> Result<Value> {
    let mut probe = Probe::open(world.size)?;
    // Made beforehand: making a thousand a second takes a processor of its own.
    let both = |service| [2, 1].map(|round| world.size.changed_slice(service, 1, round).into());
    let slices: Vec<[Prepared; 2]> = probe.services.iter().copied().map(both).collect();
    // A service that an earlier run has left with another endpoint goes on from there.
    let mut rounds = std::mem::take(&mut world.rounds);
    rounds.resize(probe.services.len(), 0);
    let mut waiting = VecDeque::new();
    let mut latencies = Vec::new();
    let (before, cpu) = (Metrics::read()?, world.watched.cpu()?);
    let (start, total) = (Instant::now(), per_second * seconds);
    let (mut late, mut overtaken, mut looked) = (Duration::ZERO, 0, start);
    for number in 0..total {
        let due = Duration::from_secs(1) * number / per_second;
        while start.elapsed() < due {
            if looked.elapsed() >= SELDOM {
                look(&mut probe, &mut waiting, &mut latencies)?;
                looked = Instant::now();
            }
            // The pace itself: nothing is waited for.
            sleep(BETWEEN);
        }
        late = late.max(start.elapsed().saturating_sub(due));
        let index = number as usize % probe.services.len();
        let service = probe.services[index];
        rounds[index] += 1;
        let slice = slices[index][rounds[index] as usize % 2].clone();
        // What was not seen before the next change of the same service never will be.
        let same = waiting.iter().position(|waiting: &Waiting| waiting.service == service);
        if let Some(overtaken_one) = same.and_then(|at| waiting.remove(at)) {
            latencies.push(overtaken_one.since.elapsed());
            overtaken += 1;
        }
        if number % (per_second / FOLLOWED).max(1) == 0 {
            let wanted = probe.size.flips(service, 0)[rounds[index] as usize % 2];
            waiting.push_back(Waiting { since: Instant::now(), service, wanted });
        }
        world.live.server.put(slice);
        if number % 10_000 == 0 {
            world.live.server.compact_but(5000);
        }
    }
    let took = start.elapsed();
    let rest = || {
        look(&mut probe, &mut waiting, &mut latencies)?;
        Ok(waiting.is_empty().then_some(()))
    };
    let daemon = &mut world.watched.daemon;
    daemon.wait_asking_every(SELDOM, rest, || "changes were lost".to_owned())?;
    let end = Instant::now() + LOST;
    let mut lost = probe.lost(&rounds)?;
    while !lost.is_empty() && Instant::now() < end {
        lost = probe.lost(&rounds)?;
    }
    let (after, used) = (Metrics::read()?, world.watched.cpu()? - cpu);
    world.rounds = rounds;
    let steps = "proxier_steps_total";
    Ok(json!({
        "changes": total, "asked_for_a_second": per_second, "seconds": took.as_secs_f64(), "lost": lost.len(),
        "latest_milliseconds": late.as_secs_f64() * 1000.0,
        "samples": latencies.len(), "overtaken": overtaken, "latency": quantiles(&mut latencies),
        "cpu_seconds": used, "steps": after.get(steps) - before.get(steps),
        "writes": after.writes() - before.writes(),
        "resident_kib": world.watched.memory()?["resident_kib"],
    }))
}

/// Takes out what the kernel has by now, up to the first that it has not: looking takes the lock that
/// the daemon's changes need.
fn look(
    probe: &mut Probe,
    waiting: &mut VecDeque<Waiting>,
    latencies: &mut Vec<Duration>,
) -> Result<()> {
    while let Some(Waiting { since, service, wanted }) = waiting.front() {
        if since.elapsed() > LOST {
            bail!("service {service} did not get {wanted} within {LOST:?}");
        }
        if !probe.has(*service, *wanted, None)? {
            break;
        }
        latencies.push(since.elapsed());
        waiting.pop_front();
    }
    Ok(())
}

/// Larger events, each until the kernel is as it should be.
pub(super) fn profiles(world: &mut World, say: &dyn Fn(&str)) -> Result<Value> {
    const LARGE: Size = Size { services: 1, endpoints: 1000 };
    let mut out = json!({});
    let services = world.size.services;
    let all = f64::from(services) + 1.0;
    // Ten slices of a hundred endpoints, as the endpoint slice controller makes them.
    let put_large = |world: &World, replaced: u32| {
        let whole = LARGE.own_slice(services, replaced);
        let list = whole["endpoints"].as_array().cloned().unwrap_or_default();
        let slices = list.chunks(100).enumerate().map(|(number, part)| {
            let mut slice = whole.clone();
            slice["metadata"]["name"] = json!(format!("large-{number}"));
            slice["endpoints"] = json!(part);
            slice
        });
        world.live.server.put_all(slices.collect::<Vec<_>>());
    };
    say("a service of 1,000 endpoints");
    out["large_service"] = timed(world, all, |world| {
        put_large(world, 0);
        world.live.server.put(Size::service(services));
        Ok(())
    })?;
    say("a rolling update of it");
    out["rolling_update"] = timed(world, all, |world| {
        for replaced in 1..=40 {
            put_large(world, replaced * 25);
            // The pace of the update.
            sleep(Duration::from_millis(25));
        }
        Ok(())
    })?;
    say("nodes lost: one endpoint less in every second service");
    out["nodes_lost"] = timed(world, all, |world| {
        let slices = (0..services).step_by(2).map(|service| {
            let mut slice = world.size.slice(service);
            slice["endpoints"][0]["conditions"] = json!({"ready": false, "serving": false});
            slice
        });
        world.live.server.put_all(slices.collect::<Vec<_>>());
        Ok(())
    })?;
    let some = (services / 10).max(1);
    say("services deleted");
    out["services_deleted"] = timed(world, all - f64::from(some), |world| {
        for service in 0..some {
            let (namespace, name) = Size::name(service);
            world.live.server.delete("services", &namespace, &name);
        }
        Ok(())
    })?;
    say("services created");
    out["services_created"] = timed(world, all, |world| {
        world.live.server.put_all((0..some).map(Size::service).collect::<Vec<_>>());
        Ok(())
    })?;
    say("everything listed anew");
    out["listed_anew"] = timed(world, all, |world| {
        world.live.server.put(Size::node());
        world.live.server.compact();
        let lists = |metrics: &Metrics| metrics.sum("proxier_watch_lists_total", "");
        let before = lists(&Metrics::read()?);
        world.live.server.disconnect();
        world.watched.wait("two more lists", |metrics| lists(metrics) >= before + 2.0)?;
        Ok(())
    })?;
    Ok(out)
}

/// Makes changes and waits until they are programmed.
fn timed(
    world: &mut World,
    services: f64,
    change: impl FnOnce(&mut World) -> Result<()>,
) -> Result<Value> {
    let (before, cpu, start) = (Metrics::read()?, world.watched.cpu()?, Instant::now());
    change(world)?;
    let known = |metrics: &Metrics| (metrics.get("proxier_services") - services).abs() < 0.5;
    world.watched.wait("all services", known)?;
    let after = world.settle()?;
    let took = start.elapsed();
    let steps = "proxier_steps_total";
    Ok(json!({
        "seconds": took.as_secs_f64(), "cpu_seconds": world.watched.cpu()? - cpu,
        "writes": after.writes() - before.writes(), "steps": after.get(steps) - before.get(steps),
        "most_kib": world.watched.memory()?["most_kib"],
    }))
}

impl World {
    /// Waits until an endpoint that changes now is in the kernel: all events before it are, too.
    fn settle(&mut self) -> Result<Metrics> {
        let mut probe = Probe::open(self.size)?;
        let last = *probe.services.last().context("a plain service")?;
        let [first, second] = self.size.flips(last, 0);
        for (round, wanted, gone) in [(1, second, first), (0, first, second)] {
            self.live.server.put(self.size.changed_slice(last, 1, round));
            let question = || Ok(probe.has(last, wanted, Some(gone))?.then_some(()));
            let explain = || "the last change is not programmed".to_owned();
            let between = Duration::from_millis(2);
            self.watched.daemon.wait_asking_every(between, question, explain)?;
        }
        Metrics::read()
    }
}

/// Median, 99th of a hundred, and the most, in milliseconds.
pub(super) fn quantiles(values: &mut [Duration]) -> Value {
    values.sort_unstable();
    let at = |part: f64| {
        #[allow(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "small numbers")]
        let index = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
        values.get(index).map_or(0.0, |value| value.as_secs_f64() * 1000.0)
    };
    json!({"p50_milliseconds": at(0.5), "p99_milliseconds": at(0.99), "most_milliseconds": at(1.0)})
}
