//! The daemon: prepares the host, starts the loop on its own thread, and what feeds it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dummy_iface::DummyInterface;
use netlink_ipvs::{
    Client, Command, Family, Scheduler, VirtualServer, VirtualServerConfig, VirtualServerKey,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::alone::Alone;
use super::reload::{self, Reload};
use super::{checks, ending, feed, memory_limit, notices, privileges, timeouts};
use crate::args::Args;
use crate::config::Config;
use crate::dataplane::INTERFACE;
use crate::dataplane::sysctls::Sysctl;
use crate::http::{self, Current, Sources};
use crate::kernel::firewall::Firewall;
use crate::kernel::{Kernel, cleanup, sysctl};
use crate::reconcile::{Notice, Reconciler, Resolver, Status, Timing};
use crate::settings::{Abilities, settings};
use crate::telemetry::LogHandle;
use crate::text::{self, chain};

/// How often the connections of draining real servers are counted.
const DRAIN_CHECK: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT. A file that hangs does not hold up the end.
pub(super) fn run(args: &Args, config: Config, log: LogHandle) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads that read something before the capabilities are given up still have them: none stays.
        .thread_keep_alive(Duration::from_millis(1))
        .build()?;
    let result = runtime.block_on(serve(args, config, log));
    runtime.shutdown_background();
    result
}

/// Runs until SIGTERM or SIGINT. The dataplane stays as it is and goes on forwarding.
///
/// A changed configuration that cannot be applied to a running program starts it again, as the same
/// process.
async fn serve(args: &Args, config: Config, log: LogHandle) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    // All that can be missing is found out before anything is changed.
    let source = tokio::select! {
        source = feed::Source::find(args, &config) => source?,
        // A file system may hang.
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let _alone = Alone::wait().await?;
    let host = Host::prepare(&config)?;
    let files =
        args.own.manifests.iter().chain(&config.client.kubeconfig).chain(&args.always.config);
    privileges::give_up(files.map(PathBuf::as_path))?;
    let (sender, events) = mpsc::channel(feed::QUEUE);
    let mut tasks = tokio::task::JoinSet::new();
    feed::host(args, &sender, &mut tasks)?;
    let watches = source.watches();
    let notices =
        source.connection().map(|connection| notices::start(connection, &config.node_name));
    tasks.spawn(source.run(sender.clone()));

    let config = Arc::new(config);
    let dual_stack = host.abilities.families.len() > 1;
    let (resolver, timing) = program(&config, &host.abilities);
    let (current, configured) = watch::channel(Arc::new(Current::new(Arc::clone(&config))));
    let reload = Reload {
        args: args.clone(),
        config: Arc::clone(&config),
        abilities: host.abilities.clone(),
        events: sender.clone(),
        current,
        log,
        refused: None,
    };
    let (started, status) = oneshot::channel();
    // Netlink batches execute inside send: not on the thread that answers health checks.
    let (ended, mut end) = oneshot::channel();
    std::thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || {
            let result = dataplane(host, resolver, timing, events, notices, started);
            // Nobody waits any more only when the process is ending.
            let _ = ended.send(result);
        })
        .context("start the dataplane thread")?;
    let Ok(status) = status.await else {
        end.await.context("the dataplane thread ended")??;
        bail!("the dataplane thread ended before it began");
    };
    let log_ready = tokio::spawn(ready(status.clone()));
    tasks.spawn(checks::node(config, dual_stack, status.clone()));
    let table = Some(super::table::table());
    let _servers = http::serve(Sources { current: configured, status, watches, table }).await?;
    drop(sender);
    let mut reload = tokio::spawn(reload.follow());
    let mut restart = false;

    ending::listens();
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: ending, the dataplane stays"),
        _ = interrupt.recv() => info!("SIGINT: ending, the dataplane stays"),
        ended = &mut reload => {
            ended.context("follow the configuration file")??;
            info!("starting again with the changed configuration, the dataplane stays");
            restart = true;
        }
        Some(ended) = tasks.join_next() => {
            ended.context("a source ended")??;
            bail!("a source has ended");
        }
        result = &mut end => {
            result.context("the dataplane thread ended")??;
            bail!("every source has ended");
        }
    }
    log_ready.abort();
    // With the last sender the loop ends, after the step it is in.
    reload.abort();
    tasks.shutdown().await;
    end.await.context("the dataplane thread ended")??;
    if restart {
        return Err(reload::start_again());
    }
    Ok(ExitCode::SUCCESS)
}

/// How the loop is to work by a configuration.
pub(super) fn program(config: &Arc<Config>, abilities: &Abilities) -> (Resolver, Timing) {
    let timing = Timing {
        sync_period: config.sync_period,
        min_sync_period: config.min_sync_period,
        drain_timeout: config.drain_timeout,
        drain_check: DRAIN_CHECK,
    };
    let (config, abilities) = (Arc::clone(config), abilities.clone());
    (Resolver::new(move |node, host| settings(&config, &abilities, node, host)), timing)
}

fn signal(kind: tokio::signal::unix::SignalKind) -> anyhow::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind).context("wait for signals")
}

/// The loop, on this thread until its senders are gone.
fn dataplane(
    host: Host,
    resolver: Resolver,
    timing: Timing,
    events: mpsc::Receiver<crate::reconcile::Event>,
    notices: Option<mpsc::Sender<Notice>>,
    started: oneshot::Sender<watch::Receiver<Arc<Status>>>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kernel = Kernel::open(host.ipvs, host.firewall, host.abilities.families).await?;
        let (mut reconciler, status) = Reconciler::new(kernel, resolver, timing);
        if let Some(notices) = notices {
            reconciler.notify(notices);
        }
        // Nobody waits any more only when the process is ending.
        let _ = started.send(status);
        reconciler.run(events).await;
        Ok(())
    })
}

/// Says once that everything is programmed.
async fn ready(mut status: watch::Receiver<Arc<Status>>) {
    if let Ok(status) = status.wait_for(|status| status.synced).await {
        info!(
            services = status.services,
            virtual_servers = status.virtual_servers,
            real_servers = status.real_servers,
            "ready: the kernel is as the cluster says"
        );
    }
}

/// `--init-only`: sets what needs more privileges than running, and nothing else.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn init_only(config: &Config) -> anyhow::Result<ExitCode> {
    // Looking makes the kernel load IPVS, and with it the settings below net/ipv4/vs; and iptables, which
    // is tried, loads modules that only this step may load.
    let host = Host::look()?;
    super::sysctls::apply(config)?;
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if off.is_ok_and(|text| text.trim() == "1") && host.abilities.families.contains(&Family::Ipv6) {
        // The daemon's container may not change it.
        DummyInterface::ensure(INTERFACE).await.context("set up kube-ipvs0")?;
        if let Some(why) = sysctl::allow_ipv6() {
            warn!("{why}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `cleanup`: removes everything of ours from the kernel.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn clean_up() -> anyhow::Result<ExitCode> {
    // Without IPVS in the kernel there is nothing of it to remove.
    let mut ipvs = Client::open()
        .inspect_err(|error| warn!(error = chain(error), "no virtual servers to remove"))
        .ok();
    let mut firewall = Firewall::find(iptables_directory().as_deref());
    let report = cleanup::clean_up(ipvs.as_mut(), &mut firewall).await;
    let mut out = String::new();
    for (verb, lines) in [("removed", &report.removed), ("kept", &report.kept)] {
        for line in lines {
            let _ = writeln!(out, "{verb} {}", text::line(line));
        }
    }
    if out.is_empty() && report.failed.is_empty() {
        out.push_str("nothing of ours was there\n");
    }
    super::print(&out)?;
    if !report.failed.is_empty() {
        bail!("not everything could be removed: {}", report.failed.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}

/// What the host has, found out before anything is changed.
pub(super) struct Host {
    pub(super) ipvs: Client,
    pub(super) firewall: Firewall,
    pub(super) abilities: Abilities,
}

impl Host {
    /// Checks everything that the daemon cannot do without, then sets kernel settings and timeouts.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        let mut host = Self::look()?;
        host.abilities.sysctls = prepare(&mut host.ipvs, config)?;
        checks::host(config, &mut host);
        Ok(host)
    }

    /// Finds out what is there and changes nothing.
    pub(super) fn look() -> anyhow::Result<Self> {
        let ipvs = open_ipvs()?;
        let firewall = Firewall::find(iptables_directory().as_deref());
        let memory = memory_limit::of_cgroup();
        let mut abilities = Abilities { families: Vec::new(), memory, ..Abilities::default() };
        for family in [Family::Ipv4, Family::Ipv6] {
            match firewall.tools(family) {
                Ok(tools) => {
                    abilities.families.push(family);
                    abilities.random_fully &= tools.random_fully();
                }
                Err(error) if family == Family::Ipv4 => {
                    return Err(anyhow::Error::new(error)).context("IPv4 cannot be served");
                }
                Err(error) => warn!(error = chain(&*error), "IPv6 is not served"),
            }
        }
        Ok(Self { ipvs, firewall, abilities })
    }
}

/// Makes the host what the configuration asks for. What may be refused comes first. The result are
/// the settings that are to stay as they are now.
pub(super) fn prepare(ipvs: &mut Client, config: &Config) -> anyhow::Result<Arc<[Sysctl]>> {
    check_scheduler(ipvs, config.scheduler)?;
    let sysctls = super::sysctls::apply(config)?;
    oom_score(config.oom_score_adj);
    timeouts::set(ipvs, config.ipvs_timeouts)?;
    Ok(sysctls)
}

/// Tells the kernel how early to end this process when memory is short. A container that may not
/// lower the value has the one that the kubelet gave it.
fn oom_score(value: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        debug!(%error, value, "oomScoreAdj is not applied (CAP_SYS_RESOURCE)");
    }
}

/// Makes sure that the kernel has the scheduler, before a service needs it. Making a virtual
/// server is the only way to ask.
fn check_scheduler(ipvs: &mut Client, scheduler: Scheduler) -> anyhow::Result<()> {
    let used = ipvs.virtual_servers().context("list virtual servers")?;
    if used.iter().any(|entry| entry.server.config.scheduler == scheduler) {
        return Ok(());
    }
    // TEST-NET-2, RFC 5737: no service has it.
    let address = std::net::Ipv4Addr::new(198, 51, 100, 0).into();
    let key = VirtualServerKey::new(address, 20000, netlink_ipvs::Protocol::Tcp);
    let config = VirtualServerConfig::new(scheduler, Family::Ipv4);
    let probe = VirtualServer { key, config };
    match ipvs.run(Command::AddVirtualServer(probe)) {
        Ok(()) => {}
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::Exists => {}
        Err(error)
            if matches!(
                error.kind(),
                netlink_ipvs::ErrorKind::NotFound | netlink_ipvs::ErrorKind::Unsupported
            ) =>
        {
            bail!(
                "the kernel has no IPVS scheduler {scheduler}: load the module ip_vs_{scheduler} or \
             choose another (rr, wrr, lc, wlc, sh, mh, ...) with ipvs.scheduler"
            )
        }
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::NoPermission => bail!(
            "no permission to program IPVS: CAP_NET_ADMIN is needed (run as root, or give the \
             container the capability NET_ADMIN)"
        ),
        Err(error) => return Err(error).context("try the scheduler"),
    }
    match ipvs.run(Command::DeleteVirtualServer(key)) {
        // The loop, if it runs, removes what no service asks for.
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::NotFound => Ok(()),
        result => result.context("remove the probe of the scheduler"),
    }
}

pub(super) fn open_ipvs() -> anyhow::Result<Client> {
    Client::open().context("the kernel's IPVS is needed (module ip_vs)")
}

/// Where to look for iptables instead of the usual places.
#[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
fn iptables_directory() -> Option<PathBuf> {
    std::env::var_os(Firewall::DIRECTORY_VARIABLE).map(PathBuf::from)
}
