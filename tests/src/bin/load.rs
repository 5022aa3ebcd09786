//! The load test; `tests/load/run` builds and starts it in the test kernel.
//!
//! ```text
//! load [--steps 100x5,1000x5,...] [--backends iptables,nftables] [--churn SECONDS] [--rates 100,1000]
//!      [--idle SECONDS] [--connect TIMES] [--json FILE]      and beside FILE a picture of the same name, .svg
//! load --local 100,1000 [--backends iptables,nftables] [--json FILE]      Services with Local policies, and nothing else
//! load --write FILE --steps 1000x5      writes the objects as a manifest, and nothing else
//! ```
//! Each size is programmed once by the floor, once by the daemon and once more by the floor, each
//! in a network namespace of its own that is new, with nothing else alive: the kernel's lists of
//! deleted servers are kept for a minute, and dumps count the servers of all namespaces.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dummy_iface::{Event, Monitor};
use proxier::dataplane::firewall::Backend;
use proxier_tests::load::objects::Size;
use proxier_tests::load::{Plan, connect, floor, local, measure, plot, table, write_manifest};
use proxier_tests::netns::require_test_kernel;
use serde_json::{Value, json};
use tokio::time::timeout;

/// What the program does in a namespace that it was started in by itself.
const INSIDE: &str = "PROXIER_LOAD_INSIDE";

#[derive(Debug, Clone)]
struct Options {
    steps: Vec<Size>,
    /// What keeps rules and sets: every size is programmed with each.
    backends: Vec<Backend>,
    churn: u32,
    /// Changes a second, each of them for `churn` seconds.
    rates: Vec<u32>,
    idle: u64,
    /// Connections through each kind of frontend.
    connect: u32,
    /// How many Services have Local policies; nothing else is measured then.
    local: Vec<u32>,
    json: Option<PathBuf>,
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::parse(&words)?;
    if let (Some(path), Some(size)) = (&options.write, options.steps.first()) {
        return write_manifest(*size, path);
    }
    require_test_kernel()?;
    if let Ok(part) = std::env::var(INSIDE) {
        let size = *options.steps.first().context("--steps")?;
        let backend = *options.backends.first().context("--backends")?;
        return inside(&part, size, backend, &options);
    }
    let begin = Instant::now();
    if !options.local.is_empty() {
        let mut reports = Vec::new();
        for services in &options.local {
            for backend in &options.backends {
                let size = Size { services: *services, endpoints: 2 };
                reports.push(in_namespace("local", size, *backend, &options)?);
            }
        }
        let report = json!({"local": reports});
        println!("{report:#}");
        return options.save(&report);
    }
    let (mut reports, mut connections) = (Vec::new(), Vec::new());
    let each = options.steps.iter();
    let each = each.flat_map(|size| options.backends.iter().map(move |backend| (*size, *backend)));
    for (size, backend) in each {
        let part = |part: &str| in_namespace(part, size, backend, &options);
        let first = part("floor")?;
        let mut report = part("daemon")?;
        let floors = [first, part("floor")?];
        let seconds: Vec<f64> =
            floors.iter().filter_map(|floor| floor["seconds"].as_f64()).collect();
        let floor = seconds.iter().sum::<f64>() / 2.0;
        let programming = &report["programming"];
        let took = |name: &str| programming[name].as_f64().unwrap_or_default();
        let netlink = took("members_seconds") + took("ipvs_seconds") + took("addresses_seconds");
        report["ratios"] = json!({
            "netlink": netlink / floor,
            "all": took("step_seconds") / floor,
        });
        report["floor"] = json!({"seconds": floor, "runs": floors});
        reports.push(report);
        options.save(&json!({"sizes": reports}))?;
    }
    if let Some(size) = options.steps.first().filter(|_| options.connect > 0) {
        // What the daemon wants, and cannot set in a namespace.
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_max", "131072")?;
        for backend in &options.backends {
            connections.push(in_namespace("connect", *size, *backend, &options)?);
        }
        options.save(&json!({"sizes": reports, "connect": connections}))?;
    }
    if let Some(json) = &options.json {
        std::fs::write(json.with_extension("svg"), plot::plot(&reports))?;
    }
    println!("\n{}", table::table(&reports));
    println!("{}", table::connections(&connections).unwrap_or_default());
    eprintln!("load: {} s", begin.elapsed().as_secs());
    Ok(())
}

fn inside(part: &str, size: Size, backend: Backend, options: &Options) -> Result<()> {
    let begin = Instant::now();
    let Size { services, endpoints } = size;
    let say = |text: &str| {
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!("load: {services} x {endpoints} {backend}: {seconds:6.1} s: {text}");
    };
    let report = if part == "floor" {
        say("floor");
        let manifest = Path::new("/dev/shm/load.json");
        write_manifest(size, manifest)?;
        let state = floor::desired(manifest, backend)?;
        std::fs::remove_file(manifest)?;
        floor::program(&state, backend)?
    } else if part == "local" {
        local::measure(services, backend, &say)?
    } else if part == "connect" {
        say("connections");
        connect::measure(backend, options.connect)?
    } else {
        let large = services >= 10_000;
        measure(
            &Plan {
                size,
                backend,
                changes: services <= 10_000,
                idle: Duration::from_secs(if services >= 1000 { options.idle } else { 0 }),
                churn: if services == 10_000 { options.churn } else { 0 },
                rates: options.rates.clone(),
                profiles: large && services == 10_000,
            },
            &say,
        )?
    };
    println!("{report}");
    Ok(())
}

/// Starts this program in a new namespace, and waits until the namespace is gone again.
fn in_namespace(part: &str, size: Size, backend: Backend, options: &Options) -> Result<Value> {
    let program = std::env::current_exe()?;
    let script = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec \"$0\" \"$@\"";
    let rates: Vec<String> = options.rates.iter().map(ToString::to_string).collect();
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(program)
        .args(["--steps", &format!("{}x{}", size.services, size.endpoints)])
        .args(["--churn", &options.churn.to_string(), "--rates", &rates.join(",")])
        .args(["--backends", &backend.to_string()])
        .args(["--idle", &options.idle.to_string()])
        .args(["--connect", &options.connect.to_string()])
        .env(INSIDE, part)
        .stderr(Stdio::inherit())
        .output()
        .context("start unshare")?;
    ensure!(output.status.success(), "{part}: {}", output.status);
    wait_for_clean_up()?;
    serde_json::from_slice(&output.stdout).context("a report")
}

/// The kernel cleans namespaces up one after the other, long after their last process. So one that
/// ends now, and has one end of a pair of links, is gone when the other end is.
fn wait_for_clean_up() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut links = Monitor::open()?;
        let make = "ip link add load0 type veth peer name load1 netns 1";
        let status = Command::new("unshare").args(["--net", "sh", "-c", make]).status()?;
        ensure!(status.success(), "{make}: {status}");
        let gone = async {
            loop {
                if let Event::Link { name, deleted: true, .. } = links.changed().await?
                    && name == "load1"
                {
                    return anyhow::Ok(());
                }
            }
        };
        let limit = Duration::from_mins(2);
        timeout(limit, gone).await.context("the kernel does not clean up its namespaces")?
    })
}

impl Options {
    /// Writes the report, as far as there is one.
    fn save(&self, report: &Value) -> Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    fn parse(words: &[String]) -> Result<Self> {
        let mut options = Self {
            steps: Vec::new(),
            backends: vec![Backend::Iptables],
            churn: 60,
            rates: vec![100, 300, 500, 1000],
            idle: 60,
            connect: 2000,
            local: Vec::new(),
            json: None,
            write: None,
        };
        let mut steps = "100x5,1000x5,5000x10,10000x10";
        for pair in words.chunks(2) {
            let [option, value] = pair else { bail!("{} needs a value", pair[0]) };
            let number = || value.parse().with_context(|| format!("{option} {value}"));
            match option.as_str() {
                "--steps" => steps = value,
                "--backends" => {
                    let backend = |name| match name {
                        "iptables" => Ok(Backend::Iptables),
                        "nftables" => Ok(Backend::Nftables),
                        _ => bail!("--backends: iptables, nftables or both, not {name}"),
                    };
                    options.backends = value.split(',').map(backend).collect::<Result<_>>()?;
                }
                "--churn" => options.churn = number()?,
                "--rates" => {
                    let rates = value.split(',').map(str::parse).collect::<Result<_, _>>();
                    options.rates = rates.with_context(|| format!("{option} {value}"))?;
                }
                "--idle" => options.idle = u64::from(number()?),
                "--connect" => options.connect = number()?,
                "--local" => {
                    let all = value.split(',').map(str::parse).collect::<Result<_, _>>();
                    options.local = all.with_context(|| format!("{option} {value}"))?;
                }
                "--json" => options.json = Some(value.into()),
                "--write" => options.write = Some(value.into()),
                _ => bail!("unknown option {option}"),
            }
        }
        for step in steps.split(',') {
            let (services, endpoints) = step.split_once('x').context("--steps 100x5,1000x5")?;
            let size = Size { services: services.parse()?, endpoints: endpoints.parse()? };
            ensure!((1..=60_000).contains(&size.services), "--steps: 1 to 60000 services");
            options.steps.push(size);
        }
        Ok(options)
    }
}
