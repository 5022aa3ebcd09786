//! What Local traffic policies cost: a cluster where every Service has one, and the firewall mark that goes
//! with it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxier::dataplane::firewall::Backend;
use serde_json::{Value, json};

use super::watched::{Metrics, Watched, forks};
use super::{NO_AUDIT, TRACED};
use crate::apiserver::object::{node, service};
use crate::daemon::{Daemon, Scratch};
use crate::live::{Live, NODE, NODE_ADDRESS};

/// Changes that are counted.
const CHANGES: u32 = 50;
/// More than two renewals: one in a quarter of the five minutes after which members go.
const IDLE: Duration = Duration::from_secs(160);

/// Programs so many Services, changes an endpoint many times, then waits while nothing happens but that members
/// are renewed; in this network namespace, which must be new.
pub fn measure(services: u32, backend: Backend, say: &dyn Fn(&str)) -> Result<Value> {
    let live = Live::start()?;
    live.server.put(node(NODE, NODE_ADDRESS));
    live.server.put_all((0..services).flat_map(|n| [object(n), slice(n, 0)]));
    live.server.compact();
    let scratch = Scratch::create()?;
    let mut words = live.arguments();
    let flags = [
        "--cluster-cidr=10.128.0.0/9",
        "--local-policy-marks=0x1000/0x1fff",
        "--conntrack-max-per-core=0",
        "--ipvs-min-sync-period=0s",
    ];
    words.extend(flags.map(str::to_owned));
    words.extend([format!("--ipvs-sync-period={NO_AUDIT}"), format!("--firewall={backend}")]);
    let daemon = Daemon::start_with(None, words, &scratch.path().join("log"))?;
    let mut watched = Watched { daemon };
    say("programming");
    watched.until_synced(services)?;

    say("single changes");
    let computed = |metrics: &Metrics| metrics.get("proxier_contributions_total");
    let mut round = 0;
    let mut change = |watched: &mut Watched, count: u32| -> Result<()> {
        for _ in 0..count {
            round += 1;
            let before = computed(&Metrics::read()?);
            live.server.put(slice(round % services, round));
            watched.wait("the change", |now| {
                computed(now) > before && now.get("proxier_synced") > 0.5
            })?;
        }
        Ok(())
    };
    change(&mut watched, 5)?;
    let (before, started) = (Metrics::read()?, forks()?);
    change(&mut watched, CHANGES)?;
    let (changed, forked) = (Metrics::read()?, forks()? - started);
    let strace = watched.trace()?;
    change(&mut watched, TRACED)?;
    let trace = strace.end()?;
    let per = |total: f64| total / f64::from(CHANGES);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let traced = |count: usize| count as f64 / f64::from(TRACED);

    say("nothing but renewing");
    let (quiet, used) = (Metrics::read()?, running(&watched)?);
    std::thread::sleep(IDLE);
    let used = running(&watched)?.saturating_sub(used);
    let after = Metrics::read()?;
    let renewed = after.writes() - quiet.writes();
    let steps = |of: &Metrics| {
        of.get("kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family=\"IPv4\"}")
    };
    let milliseconds_a_second = |seconds: f64| seconds * 1000.0 / IDLE.as_secs_f64();
    ensure!(renewed >= 2.0, "renewed {renewed} times in {IDLE:?}");
    Ok(json!({
        "services": services,
        "backend": backend.to_string(),
        "change": {
            "services_computed": per(computed(&changed) - computed(&before)),
            "writes": per(changed.writes() - before.writes()),
            "processes": forked,
            "netlink_messages": traced(trace.messages),
            "netlink_calls": traced(trace.netlink_calls),
        },
        "idle": {
            "seconds": IDLE.as_secs(),
            "renewed": renewed,
            // All of it is renewing: there is no other step.
            "steps_milliseconds_a_second": milliseconds_a_second(steps(&after) - steps(&quiet)),
            // With the rest of the process, and in ticks of 10 ms where the kernel counts so.
            "cpu_milliseconds_a_second": milliseconds_a_second(used.as_secs_f64()),
        },
    }))
}

/// How long all threads of the daemon have run, as the scheduler counts it.
fn running(watched: &Watched) -> Result<Duration> {
    let pid = watched.daemon.pid();
    let mut sum = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().context("schedstat")?;
        sum += Duration::from_nanos(first.parse()?);
    }
    Ok(sum)
}

/// A load balancer's Service with a node port.
fn object(n: u32) -> Value {
    let [.., high, low] = n.to_be_bytes();
    let mut object = service("load", &format!("web-{n}"), &format!("10.96.{high}.{low}"));
    object["spec"]["type"] = json!("LoadBalancer");
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    object["spec"]["ports"][0]["nodePort"] = json!(30_000 + n);
    object["status"]["loadBalancer"]["ingress"] =
        json!([{ "ip": format!("198.18.{high}.{low}"), "ipMode": "VIP" }]);
    object
}

/// Its endpoints: one on this node, and one elsewhere, which is another in every round.
fn slice(n: u32, round: u32) -> Value {
    let [.., high, low] = n.to_be_bytes();
    let endpoint = |address: String, node: &str| json!({ "addresses": [address], "conditions": { "ready": true }, "nodeName": node });
    let name = format!("web-{n}");
    let mut slice = crate::apiserver::object::slice("load", &name, &name, &[]);
    slice["endpoints"] = json!([
        endpoint(format!("10.128.{high}.{low}"), NODE),
        endpoint(format!("10.{}.{high}.{low}", 129 + round % 100), "node-z"),
    ]);
    slice
}
