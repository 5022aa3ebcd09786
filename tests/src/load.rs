//! The load test: a large cluster in the test API server, the daemon that it feeds, and what that
//! costs, beside the floor in the same boot.

pub mod churn;
pub mod connect;
pub mod floor;
pub mod local;
pub mod memory;
pub mod objects;
pub mod plot;
pub mod table;
pub mod texts;
pub mod watched;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxier::dataplane::firewall::Backend;
use serde_json::{Value, json};

use self::churn::Probe;
use self::objects::Size;
use self::watched::{Metrics, Watched, forks};
use crate::daemon::{Daemon, Scratch};
use crate::live::Live;

/// Time between two audits: the default, and so long that none comes between single changes.
const SYNC_PERIOD: &str = "30s";
/// As [`SYNC_PERIOD`].
const NO_AUDIT: &str = "10h";
/// Endpoint changes that are measured one after the other.
const SINGLE: u32 = 100;
/// Those of them that are traced.
const TRACED: u32 = 20;

/// What is measured at a size besides programming it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The cluster.
    pub size: Size,
    /// What keeps rules and sets.
    pub backend: Backend,
    /// One change at a time, restart.
    pub changes: bool,
    /// How long nothing happens, to see what that costs.
    pub idle: Duration,
    /// Seconds of many changes at each rate.
    pub churn: u32,
    /// How many a second.
    pub rates: Vec<u32>,
    /// Rolling update, loss of nodes, services that come and go, everything listed anew.
    pub profiles: bool,
}

/// A cluster and the daemon that watches it, in this network namespace.
pub(crate) struct World {
    pub(crate) size: Size,
    backend: Backend,
    pub(crate) live: Live,
    pub(crate) watched: Watched,
    /// How often an endpoint of each plain service was exchanged.
    pub(crate) rounds: Vec<u32>,
    scratch: Scratch,
}

/// Writes the objects of a size as one manifest.
pub fn write_manifest(size: Size, path: &Path) -> Result<()> {
    use std::io::Write as _;
    let file = std::fs::File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = std::io::BufWriter::new(file);
    let mut separator = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[";
    for object in std::iter::once(Size::node()).chain(size.objects()) {
        write!(out, "{separator}\n{object}")?;
        separator = ",";
    }
    out.write_all(b"\n]}\n")?;
    out.flush().context("write the manifest")
}

/// Measures the daemon in this network namespace, which must be new.
pub fn measure(plan: &Plan, say: &dyn Fn(&str)) -> Result<Value> {
    let size = plan.size;
    let backend = plan.backend.to_string();
    let mut report =
        json!({"services": size.services, "endpoints": size.endpoints, "backend": backend});
    say("objects");
    let mut world = World::start(size, plan.backend)?;
    say("programming");
    let metrics = world.watched.until_synced(size.services)?;
    report["programming"] = programming(&metrics);
    report["memory"] = world.watched.memory()?;
    // First: the kernel looks through what was deleted within a minute or two for each real server
    // that it adds.
    if plan.changes {
        say("restart");
        world.restart(NO_AUDIT)?;
        let metrics = world.watched.until_synced(size.services)?;
        report["restart"] = programming(&metrics);
        say("single changes");
        report["change"] = world.single_changes()?;
        world.restart(SYNC_PERIOD)?;
        world.watched.until_synced(size.services)?;
    }
    if plan.churn > 0 {
        let churn = plan.rates.iter().map(|rate| {
            say(&format!("{rate} changes a second"));
            churn::steady(&mut world, *rate, plan.churn)
        });
        report["churn"] = churn.collect::<Result<_>>()?;
    }
    if plan.profiles {
        report["profiles"] = churn::profiles(&mut world, say)?;
    }
    if !plan.idle.is_zero() {
        say("idle");
        let (before, cpu) = (Metrics::read()?, world.watched.cpu()?);
        std::thread::sleep(plan.idle);
        let (after, used) = (Metrics::read()?, world.watched.cpu()? - cpu);
        let writes = after.writes() - before.writes();
        ensure!(writes == 0.0, "{writes} writes while nothing happened");
        report["idle"] = json!({"seconds": plan.idle.as_secs(), "cpu_seconds": used});
    }
    report["memory_at_the_end"] = world.watched.memory()?;
    Ok(report)
}

/// What the first step did.
fn programming(metrics: &Metrics) -> Value {
    let step = "kubeproxy_sync_proxy_rules_duration_seconds_sum";
    let part =
        |name: &str| metrics.get(&format!("proxier_kernel_seconds_total{{part=\"{name}\"}}"));
    json!({
        // A step is counted for each family.
        "step_seconds": metrics.get(&format!("{step}{{ip_family=\"IPv4\"}}")),
        "steps": metrics.get("proxier_steps_total"),
        "writes": metrics.writes(),
        // With what makes the sets, and in nftables the rules.
        "members_seconds": part("ipset") + part("nftables"),
        "ipvs_seconds": part("ipvs"),
        "addresses_seconds": part("address"),
        "firewall_seconds": part("firewall"),
        "observe_seconds": part("observe"),
    })
}

impl World {
    fn start(size: Size, backend: Backend) -> Result<Self> {
        let live = Live::start()?;
        live.server.put(Size::node());
        live.server.put_all(size.objects());
        live.server.compact();
        let scratch = Scratch::create()?;
        let daemon = Self::daemon(&live, backend, &scratch, SYNC_PERIOD)?;
        Ok(Self { size, backend, live, watched: Watched { daemon }, rounds: Vec::new(), scratch })
    }

    fn daemon(
        live: &Live,
        backend: Backend,
        scratch: &Scratch,
        sync_period: &str,
    ) -> Result<Daemon> {
        let mut words = live.arguments();
        words.push("--conntrack-max-per-core=0".to_owned());
        // What a configuration file without it means; flags alone mean a second.
        words.push("--ipvs-min-sync-period=0s".to_owned());
        words.push(format!("--ipvs-sync-period={sync_period}"));
        words.push(format!("--firewall={backend}"));
        Daemon::start_with(None, words, &scratch.path().join("log"))
    }

    /// Ends the daemon and starts another one.
    fn restart(&mut self, sync_period: &str) -> Result<()> {
        let next = Scratch::create()?;
        self.watched.daemon.terminate()?;
        self.watched =
            Watched { daemon: Self::daemon(&self.live, self.backend, &next, sync_period)? };
        self.scratch = next;
        Ok(())
    }

    /// One endpoint changes, many times one after the other.
    fn single_changes(&mut self) -> Result<Value> {
        let mut probe = Probe::open(self.size)?;
        let mut round = 0;
        let mut change = |world: &mut Self, count: u32| -> Result<Vec<Duration>> {
            (0..count)
                .map(|_| {
                    round += 1;
                    probe.one(&world.live, &mut world.watched.daemon, round)
                })
                .collect()
        };
        change(self, 10)?;
        let (before, cpu, started) = (Metrics::read()?, self.watched.cpu()?, forks()?);
        let mut latencies = change(self, SINGLE)?;
        let (used, forked) = (self.watched.cpu()? - cpu, forks()? - started);
        let after = Metrics::read()?;
        let strace = self.watched.trace()?;
        change(self, TRACED)?;
        let trace = strace.end()?;
        let contributions = |metrics: &Metrics| metrics.get("proxier_contributions_total");
        let per = |total: f64, count: u32| total / f64::from(count);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let traced = |count: usize| per(count as f64, TRACED);
        Ok(json!({
            "changes": SINGLE,
            "cpu_milliseconds": per(used * 1000.0, SINGLE),
            "processes": forked,
            "writes": per(after.writes() - before.writes(), SINGLE),
            "services_computed": per(contributions(&after) - contributions(&before), SINGLE),
            "syscalls": traced(trace.calls),
            "netlink_calls": traced(trace.netlink_calls),
            "netlink_messages": traced(trace.messages),
            "latency": churn::quantiles(&mut latencies),
        }))
    }
}
