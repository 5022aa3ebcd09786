//! The servers of a node in a state of its own, over a kernel in memory whose counters go up and down.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netlink_ipvs::{
    Connections, Protocol, RealServer, RealServerConfig, RealServerEntry, RealServerKey,
    VirtualServer, VirtualServerEntry, VirtualServerKey,
};
use proxier::args::Args;
use proxier::builders::{ServiceExt as _, endpoints, service};
use proxier::cluster::{Change, Pods};
use proxier::config::{Config, Host};
use proxier::dataplane::VirtualServerState;
use proxier::http::{Counted, Current, Servers, Sources, Table, Totals, Watch, serve};
use proxier::memory::Memory;
use proxier::reconcile::{Draining, Event, Reconciler, Resolver, Status, Timing};
use proxier::settings::{Abilities, settings};
use proxier::source::files;
use tokio::sync::{oneshot, watch};

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The examples of `deploy`, and one real server that drains.
    InSync,
    /// The same, and the API server has been silent for an hour.
    NeedsAttention,
    /// The same, and something cannot be programmed.
    NotInSync,
    Empty,
    /// Ten thousand services, of which one in a hundred has no endpoints.
    Large,
}

/// What fails, with a name that means something to a browser.
pub(crate) const HOSTILE: &str = "bind 10.96.0.1: <b>no</b> & \"never\"";
/// Who drains.
pub(crate) const DRAINING: &str = "10.244.9.9:8080";

pub(crate) struct Node {
    pub(crate) address: String,
    _end: oneshot::Sender<()>,
}

impl Node {
    pub(crate) fn start(state: State) -> Self {
        let (tell, address) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (servers, _keep) = start(state).await;
                tell.send(servers.metrics_address().unwrap().to_string()).unwrap();
                let _ = ended.await;
            });
        });
        let address = address.recv().unwrap();
        Self { address: format!("http://{address}"), _end: end }
    }
}

fn changes(state: State) -> Vec<Change> {
    let mut changes = match state {
        State::Empty | State::Large => Vec::new(),
        _ => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            files::load(&[root.join("deploy/examples")], "node-1").unwrap().changes
        }
    };
    if state == State::Large {
        for n in 0..10_000_u32 {
            let name = format!("team-{:02}/app-{n:05}", n % 40);
            let [_, _, high, low] = n.to_be_bytes();
            let asked = service(&name).cluster_ip(&format!("10.97.{high}.{low}")).port(80);
            changes.push(Change::Service(asked));
            if n % 100 > 0 {
                let pod = format!("10.244.{high}.{low} @node-1");
                let mut slice = endpoints(&name, 8080, &[&pod]);
                slice.pods = Pods::new([&*format!("app-{n:05}-7d4b9c-x2k4p")]);
                changes.push(Change::Slice(slice));
            }
        }
    }
    if matches!(state, State::Empty | State::Large) {
        let keys = |of: fn(&Change) -> Option<proxier::cluster::ObjectKey>| {
            changes.iter().filter_map(of).collect()
        };
        let services = keys(|change| match change {
            Change::Service(service) => Some(service.key.clone()),
            _ => None,
        });
        let slices = keys(|change| match change {
            Change::Slice(slice) => Some(slice.key.clone()),
            _ => None,
        });
        changes.extend([
            Change::ServicesListed(services),
            Change::SlicesListed(slices),
            Change::NodeListed,
        ]);
    }
    changes
}

async fn start(state: State) -> (Servers, watch::Sender<Arc<Status>>) {
    let arguments = ["proxier", "--hostname-override=node-1", "--cluster-cidr=10.244.0.0/16"];
    let mut config = Config::load(&Args::parse_from(arguments).unwrap(), &Host).unwrap();
    config.metrics_bind = "127.0.0.1:0".parse().unwrap();
    config.healthz_bind = None;
    // There is no loop that would step.
    config.sync_period = Duration::from_hours(1);
    let config = Arc::new(config);
    let hour = Duration::from_hours(1);
    let timing = Timing {
        sync_period: hour,
        min_sync_period: Duration::ZERO,
        drain_timeout: hour,
        drain_check: hour,
    };
    let for_resolver = config.clone();
    let resolver =
        Resolver::new(move |node, host| settings(&for_resolver, &Abilities::default(), node, host));
    let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, timing);
    reconciler.take(Event::HostAddresses(vec!["192.168.1.10".parse().unwrap()]));
    for change in changes(state) {
        reconciler.take(change.into());
    }
    reconciler.step().await;

    let mut status = (**status.borrow()).clone();
    assert!(status.synced, "{:?}", status.errors);
    let servers = reconciler.desired().state().virtual_servers.clone();
    let gone = RealServerKey::new(DRAINING.parse::<std::net::SocketAddr>().unwrap().ip(), 8080);
    let examples = !matches!(state, State::Empty | State::Large);
    let draining_at = examples
        .then(|| VirtualServerKey::new("10.101.173.15".parse().unwrap(), 39090, Protocol::Tcp));
    status.draining = draining_at
        .iter()
        .map(|at| Draining {
            virtual_server: *at,
            real_server: gone,
            connections: 4321,
            deadline: tokio::time::Instant::now() + Duration::from_hours(5),
        })
        .collect();
    if state == State::NotInSync {
        let now = tokio::time::Instant::now();
        (status.synced, status.pending, status.failing_since) = (false, 2, Some(now));
        Arc::make_mut(&mut status.errors).push_back(HOSTILE.to_owned());
    }
    let (table, totals) = counters(Arc::new(servers), draining_at.map(|at| (at, gone)));
    let silence = if state == State::NeedsAttention { hour } else { Duration::from_secs(12) };
    let watches = move || {
        let services = Watch {
            resource: "services",
            silence: Some(silence),
            connected: true,
            events: 30,
            lists: 1,
            failures: 2,
        };
        let slices = Watch { resource: "endpointslices", ..services.clone() };
        vec![services, slices]
    };
    let (publish, status) = watch::channel(Arc::new(status));
    let current = watch::channel(Arc::new(Current::new(config))).1;
    let sources = Sources {
        watches: Some(Arc::new(watches)),
        table: Some(table),
        totals: Some(totals),
        ..Sources::new(current, status)
    };
    (serve(sources).await.unwrap(), publish)
}

/// What the kernel would count: numbers that can be found again, and rates that differ at every look. The
/// services at higher addresses carry more.
fn counters(
    servers: Arc<std::collections::BTreeMap<VirtualServerKey, Arc<VirtualServerState>>>,
    draining: Option<(VirtualServerKey, RealServerKey)>,
) -> (Table, Totals) {
    let looks = Arc::new(AtomicU64::new(0));
    let entry = move |key: &VirtualServerKey, look: u64, config| {
        let mut server = VirtualServerEntry::from(VirtualServer { key: *key, config });
        let VirtualServerKey::Address { address: std::net::IpAddr::V4(ip), .. } = key else {
            return server;
        };
        let [_, _, high, low] = ip.octets().map(u64::from);
        let rate = high * 10 + low % 10 + (look * 7 + low) % 13;
        server.stats.connections = 999_999;
        server.stats.connection_rate = rate;
        (server.stats.byte_rate_in, server.stats.byte_rate_out) = (rate * 700, rate * 9_000);
        server
    };
    let (all, seen) = (servers.clone(), looks.clone());
    let totals: Totals = Arc::new(move || {
        let look = seen.load(Ordering::Relaxed);
        Ok(all.iter().map(|(key, server)| entry(key, look, server.config)).collect())
    });
    let table: Table = Arc::new(move |keys| {
        let look = looks.fetch_add(1, Ordering::Relaxed);
        let counted = keys.iter().filter_map(|key| {
            let wanted = servers.get(key)?;
            let mut all: Vec<RealServer> = wanted.real_servers.to_vec();
            if let Some((_, gone)) = draining.filter(|(at, _)| at == key) {
                all.push(RealServer { key: gone, config: RealServerConfig::masquerade(0) });
            }
            let real = |(n, server): (u32, RealServer)| {
                let mut entry = RealServerEntry::from(server);
                entry.connections = Connections { active: 1234 + n, inactive: 7, persistent: 0 };
                entry
            };
            let mut server = entry(key, look, wanted.config);
            if wanted.real_servers.is_empty() {
                server.stats = netlink_ipvs::Stats::default();
            }
            Some(Counted { server, real_servers: (0..).zip(all).map(real).collect(), counts: true })
        });
        Ok(counted.collect())
    });
    (table, totals)
}
