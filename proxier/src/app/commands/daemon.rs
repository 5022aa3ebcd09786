//! The daemon: prepares the host, starts the loop on its own thread, and what feeds it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dummy_iface::DummyInterface;
use netlink_ipvs::Family;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::app::host::alone::Alone;
use crate::app::host::{Host, checks, open_ipvs, privileges, sysctls};
use crate::app::wiring::hand_over::{HandOver, Over};
use crate::app::wiring::reload::{self, Reload};
use crate::app::wiring::{self, counters, ending, feed, notices, rulesets};
use crate::args::Args;
use crate::config::Config;
use crate::dataplane::INTERFACE;
use crate::http::{self, Current, Sources};
use crate::kernel::{Kernel, cleanup, sysctl};
use crate::reconcile::{Notice, Reconciler, Resolver, Status, Timing};
use crate::telemetry::LogHandle;
use crate::text;
use crate::value::MarkRange;

/// Runs until SIGTERM or SIGINT. A file that hangs does not hold up the end.
pub(in crate::app) fn run(args: &Args, config: Config, log: LogHandle) -> anyhow::Result<ExitCode> {
    if let Some(successor) = config.successor
        && !cleanup::is_anything_ours()?
    {
        info!(
            "nothing of a proxy in IPVS mode is on this node: nothing to hand over to {successor}"
        );
        return Ok(ExitCode::SUCCESS);
    }
    // The kernel may round each piece of a heap of a few megabytes up to two. One that cannot leave that
    // to us goes on as it does.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
    let _alone = tokio::select! {
        alone = Alone::wait(patience(&config)) => alone?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let mut host = Host::prepare(&config)?;
    checks::host(&config, &mut host);
    let files =
        args.own.manifests.iter().chain(&config.client.kubeconfig).chain(&args.always.config);
    privileges::give_up(files.map(PathBuf::as_path))?;
    let (sender, events) = mpsc::channel(feed::QUEUE);
    let mut tasks = tokio::task::JoinSet::new();
    feed::host(args, &sender, &mut tasks)?;
    let watches = source.watches();
    let notices = source
        .connection()
        .map(|connection| notices::start(connection, &config.node_name, config.sync_period));
    let config = Arc::new(config);
    let (current, configured) = watch::channel(Arc::new(Current::new(Arc::clone(&config))));
    tasks.spawn(source.run(sender.clone(), Some(current.clone())));
    let dual_stack = host.abilities.families.len() > 1;
    let (resolver, timing) = wiring::program(&config, &host.abilities);
    let reload = Reload {
        args: args.clone(),
        config: Arc::clone(&config),
        abilities: host.abilities.clone(),
        events: sender.clone(),
        current,
        log,
        refused: None,
    };
    let doubt = host.filter.doubt();
    let families = host.abilities.families.clone();
    let ([status, node_ports], mut end) =
        start_loop(host, resolver, timing, events, notices).await?;
    let mut hand_over = config
        .successor
        .map(|to| wiring::hand_over::start(to, &config, families, status.clone()))
        .transpose()?;
    let mut over = None;
    let log_ready = tokio::spawn(ready(status.clone()));
    tasks.spawn(checks::node(config, dual_stack, status.clone()));
    if let Some(doubt) = doubt {
        tasks.spawn(rulesets::follow(doubt, status.clone(), sender.clone()));
    }
    let (table, totals) = (Some(counters::table()), Some(counters::totals()));
    let stage = hand_over.as_ref().map(|it| it.stage.clone());
    let sources = Sources::new(configured, status);
    let _servers =
        http::serve(Sources { node_ports, watches, table, totals, hand_over: stage, ..sources })
            .await?;
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
        ended = handed(&mut hand_over) => over = Some(ended.context("the hand-over ended")?),
    }
    log_ready.abort();
    // With the last sender the loop ends, after the step it is in.
    reload.abort();
    tasks.shutdown().await;
    end.await.context("the dataplane thread ended")??;
    if restart {
        return Err(reload::start_again());
    }
    if let Some(over) = over {
        clean_up(&over, args.own.local_policy_marks)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How long a daemon that runs may take to end. One to which a node is handed over is started meanwhile, and takes
/// its place when that is stopped.
fn patience(config: &Config) -> Duration {
    if config.successor.is_some() { Alone::UNTIL_IT_ENDS } else { Alone::PATIENCE }
}

/// Waits until a node is handed over, if it is to be.
async fn handed(hand_over: &mut Option<HandOver>) -> Result<Over, oneshot::error::RecvError> {
    match hand_over {
        Some(hand_over) => (&mut hand_over.over).await,
        None => std::future::pending().await,
    }
}

/// The successor has the node: everything of ours goes, and nothing else.
fn clean_up(over: &Over, marks: MarkRange) -> anyhow::Result<()> {
    let report = cleanup::leave(&mut open_ipvs()?, &over.places, marks);
    for line in &report.removed {
        info!("removed {}", text::line(line));
    }
    if !report.failed.is_empty() {
        bail!("not everything could be removed: {}", report.failed.join("; "));
    }
    info!("handed over to {}: {}", over.successor, over.stage);
    Ok(())
}

fn signal(kind: tokio::signal::unix::SignalKind) -> anyhow::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind).context("wait for signals")
}

/// What the loop publishes: after every step, and for health check node ports.
type Published = [watch::Receiver<Arc<Status>>; 2];

/// Starts the loop on a thread of its own; what it publishes, and how it ended.
async fn start_loop(
    host: Host,
    resolver: Resolver,
    timing: Timing,
    events: mpsc::Receiver<crate::reconcile::Event>,
    notices: Option<mpsc::Sender<Notice>>,
) -> anyhow::Result<(Published, oneshot::Receiver<anyhow::Result<()>>)> {
    let (started, status) = oneshot::channel();
    // Netlink batches execute inside send: not on the thread that answers health checks.
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || {
            let result = dataplane(host, resolver, timing, events, notices, started);
            // Nobody waits any more only when the process is ending.
            let _ = ended.send(result);
        })
        .context("start the dataplane thread")?;
    let Ok(published) = status.await else {
        end.await.context("the dataplane thread ended")??;
        bail!("the dataplane thread ended before it began");
    };
    Ok((published, end))
}

/// The loop, on this thread until its senders are gone.
fn dataplane(
    host: Host,
    resolver: Resolver,
    timing: Timing,
    events: mpsc::Receiver<crate::reconcile::Event>,
    notices: Option<mpsc::Sender<Notice>>,
    started: oneshot::Sender<Published>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let kernel = Kernel::open(host.ipvs, host.filter, host.abilities.families)?;
        let (mut reconciler, status) = Reconciler::new(kernel, resolver, timing);
        if let Some(notices) = notices {
            reconciler.notify(notices);
        }
        // Nobody waits any more only when the process is ending.
        let _ = started.send([status, reconciler.node_ports()]);
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
pub(in crate::app) async fn init_only(config: &Config) -> anyhow::Result<ExitCode> {
    // Looking makes the kernel load IPVS, and with it the settings below net/ipv4/vs; and iptables, which
    // is tried, loads modules that only this step may load.
    let host = Host::look(config)?;
    sysctls::apply(config)?;
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if off.is_ok_and(|text| text.trim() == "1") && host.abilities.families.contains(&Family::Ipv6) {
        // The daemon's container may not change it.
        DummyInterface::ensure(INTERFACE).context("set up kube-ipvs0")?;
        if let Some(why) = sysctl::allow_ipv6() {
            warn!("{why}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
