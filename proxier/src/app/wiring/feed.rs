//! Starts what sends events: a source of objects, the addresses of the host.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dummy_iface::{DummyInterface, Event as HostEvent, InterfaceAddress, Monitor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::app::host::{memory_limit, needs};
use crate::args::Args;
use crate::config::Config;
use crate::dataplane::{INTERFACE, Limits};
use crate::http::{Current, Refused, Watch, Watches};
use crate::input;
use crate::reconcile::Event;
use crate::source::{files, kube as cluster};
use crate::text::chain;

/// Events that may wait for the loop, each of up to 1,024 changes or what 4 MiB of JSON become. Sources
/// wait when it is full, and what they read then is one event.
pub(in crate::app) const QUEUE: usize = 16;

/// A source of objects that is there and can be used.
pub(in crate::app) enum Source {
    /// Manifests, what they say, and the way to an API server that others of this node use.
    Manifests(files::Manifests, files::Loaded, cluster::Contacts),
    /// The API server.
    Cluster(cluster::Connection, cluster::Options, Arc<cluster::Status>),
}

impl Source {
    /// Manifests if there are any, else the API server. Nothing is started yet.
    pub(in crate::app) async fn find(args: &Args, config: &Config) -> anyhow::Result<Self> {
        let connection = cluster::Connection {
            kubeconfig: config.client.kubeconfig.clone(),
            server: config.client.master.clone(),
            ..cluster::Connection::default()
        };
        if args.own.manifests.is_empty() {
            connection.check().await.context("watch the cluster")?;
            let options = cluster::Options {
                rate: cluster::Rate::new(config.client.qps, config.client.burst),
                node_from: node_from(args, config),
                node_weights: args.own.node_weights,
                memory: config
                    .memory_limit
                    .or_else(memory_limit::of_cgroup)
                    .unwrap_or(Limits::UNLIMITED),
                ..cluster::Options::new(&*config.node_name)
            };
            return Ok(Self::Cluster(connection, options, Arc::default()));
        }
        let new = if args.own.strict { files::Manifests::checked } else { files::Manifests::new };
        let mut manifests = new(args.own.manifests.clone(), &config.node_name);
        let read = input::aside(move || {
            let loaded = manifests.read();
            (manifests, loaded)
        });
        let (manifests, loaded) = read.await.context("read the manifests")?;
        let loaded = loaded.context("read the manifests")?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        // Nothing is asked of a server; what a kubeconfig names is only spared.
        if (connection.kubeconfig.is_some() || connection.server.is_some())
            && let Err(error) = connection.check().await
        {
            tracing::warn!(error = chain(&error), "cannot see which API server this node uses");
        }
        Ok(Self::Manifests(manifests, loaded, connection.contacts))
    }

    /// Returns why nothing will come, once that is certain enough for somebody who waits.
    pub(in crate::app) fn hopeless(&self) -> impl Future<Output = anyhow::Error> + use<> {
        let cluster = match self {
            Self::Cluster(connection, _, status) => Some((connection.clone(), Arc::clone(status))),
            Self::Manifests(..) => None,
        };
        async move {
            let Some((connection, status)) = cluster else { return std::future::pending().await };
            let text = status.hopeless(HOPELESS).await;
            let server = connection.url().await.unwrap_or_default();
            anyhow::anyhow!(
                "the API server {server} cannot be read: {text}; --kubeconfig or --master leads to \
                 another"
            )
        }
    }

    /// How many warnings there are about manifests.
    pub(in crate::app) fn warnings(&self) -> usize {
        match self {
            Self::Manifests(_, loaded, _) => loaded.warnings.len(),
            Self::Cluster(..) => 0,
        }
    }

    /// Where Events can be sent to.
    pub(in crate::app) fn connection(&self) -> Option<cluster::Connection> {
        match self {
            Self::Cluster(connection, ..) => Some(connection.clone()),
            Self::Manifests(..) => None,
        }
    }

    /// What its watches know about themselves, for the metrics.
    pub(in crate::app) fn watches(&self) -> Option<Watches> {
        let Self::Cluster(_, options, status) = self else { return None };
        let (status, weights) = (Arc::clone(status), options.node_weights);
        Some(Arc::new(move || {
            let mut resources = vec![
                ("services", &status.services),
                ("endpointslices", &status.slices),
                ("nodes", &status.node),
            ];
            resources.extend(weights.then_some(("node-weights", &status.node_weights)));
            let watch = |(resource, watch): (&'static str, &cluster::WatchStatus)| Watch {
                resource,
                silence: watch.silence(),
                connected: watch.is_connected(),
                events: watch.events(),
                lists: watch.lists(),
                failures: watch.failures(),
            };
            resources.into_iter().map(watch).collect()
        }))
    }

    /// Sends what there is, and what changes.
    pub(in crate::app) async fn run(
        self,
        events: mpsc::Sender<Event>,
        current: Option<watch::Sender<Arc<Current>>>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Cluster(connection, options, status) => {
                let needs = needs::follow(connection.contacts.follow(), events.clone());
                let watch = cluster::run(connection, options, events, status);
                // What is found out about the way there is sent before anything comes from there.
                tokio::select! {
                    biased;
                    () = needs => Ok(()),
                    ended = watch => ended.context("watch the cluster"),
                }
            }
            Self::Manifests(manifests, loaded, contacts) => {
                let needs = needs::of_connection(&contacts.follow().borrow());
                if events.send(needs).await.is_err() {
                    return Ok(());
                }
                if events.send(Event::from(loaded.changes)).await.is_err() {
                    return Ok(());
                }
                let broken = manifests.broken();
                tokio::select! {
                    followed = manifests.watch(events) => followed.context("follow the manifests")?,
                    never = tell_broken(broken, current) => match never {},
                }
                // Nothing there that could change (standard input): what was read stays.
                std::future::pending().await
            }
        }
    }
}

/// Publishes what is wrong with manifests, since when.
async fn tell_broken(
    mut broken: watch::Receiver<Option<String>>,
    current: Option<watch::Sender<Arc<Current>>>,
) -> Infallible {
    let Some(current) = current else { return std::future::pending().await };
    loop {
        let now = broken.borrow_and_update().clone();
        current.send_modify(|current| {
            let since = current.manifests.as_ref().map_or_else(Instant::now, |before| before.since);
            let manifests = now.map(|why| Refused { since, why });
            *current = Arc::new(Current { manifests, ..Current::clone(current) });
        });
        if broken.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// How long a server may refuse somebody who waits for it: one that starts needs a moment.
const HOPELESS: Duration = Duration::from_secs(3);

/// Where the name of the node is from, in words.
fn node_from(args: &Args, config: &Config) -> String {
    if args.always.hostname_override.as_ref().is_some_and(|name| !name.is_empty()) {
        return "--hostname-override".to_owned();
    }
    match &args.always.config {
        Some(file) if !config.object.hostname_override.is_empty() => {
            format!("hostnameOverride in {}", file.display())
        }
        _ => "the host (uname -n)".to_owned(),
    }
}

/// Starts to follow the addresses of the host, unless they are given.
pub(in crate::app) fn host(
    args: &Args,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let given = !args.own.node_addresses.is_empty();
    // Subscribe first, read second: what happens in between is not missed.
    let monitor = Monitor::open().context("follow the addresses of this host")?;
    let addresses = host_addresses(args)?;
    let needs = needs::of_host().context("read the default routes of this host")?;
    let events = events.clone();
    tasks.spawn(async move {
        if events.send(needs).await.is_ok()
            && events.send(Event::HostAddresses(addresses)).await.is_ok()
        {
            follow_host(monitor, given, events).await;
        }
        Ok(())
    });
    Ok(())
}

async fn follow_host(mut monitor: Monitor, given: bool, events: mpsc::Sender<Event>) {
    let ours = DummyInterface::find(INTERFACE).ok().flatten().map(|i| i.index());
    let mut follower = Follower { given, ours, list_after: None };
    loop {
        let next = match follower.list_after {
            Some(pause) => tokio::time::timeout(pause, monitor.changed()).await.ok(),
            None => Some(monitor.changed().await),
        };
        let event = match next {
            None => {
                let listed = follower.listed(read_host_addresses());
                if let Some(needs) = follower.needs(needs::of_host())
                    && events.send(needs).await.is_err()
                {
                    return;
                }
                listed
            }
            Some(Ok(event)) => follower.heard(&event),
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "no longer told of address changes");
                return;
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// What is known of the host's addresses while they are followed.
struct Follower {
    /// They are given: changes on other interfaces do not matter.
    given: bool,
    /// The index of `kube-ipvs0`, if it is there.
    ours: Option<u32>,
    /// Addresses have changed since they were listed: list them after this pause without another
    /// change.
    list_after: Option<Duration>,
}

impl Follower {
    /// What a burst of address changes may take before it is read as a whole.
    const BURST: Duration = Duration::from_millis(50);
    /// Before a list that failed is tried again.
    const RETRY: Duration = Duration::from_secs(1);

    /// What follows from a change.
    fn heard(&mut self, event: &HostEvent) -> Option<Event> {
        match event {
            HostEvent::Address { interface, address, added } if Some(*interface) == self.ours => {
                Some(Event::Bound(*address, *added))
            }
            // Nobody but us should touch it, and we never set it up.
            HostEvent::Link { index, name, deleted, up } if name == INTERFACE => {
                self.ours = (!deleted).then_some(*index);
                (*deleted || *up).then_some(Event::Disturbed)
            }
            // Under another name it is no longer ours.
            HostEvent::Link { index, .. } if Some(*index) == self.ours => {
                self.ours = None;
                Some(Event::Disturbed)
            }
            // Nothing of ours is a route.
            HostEvent::Route { .. } => None,
            // With a link, routes may have come or gone.
            HostEvent::Address { .. } | HostEvent::Link { .. } => {
                self.list_after = Some(Self::BURST);
                None
            }
            // Changes were lost.
            _ => {
                self.list_after = Some(Self::BURST);
                Some(Event::Disturbed)
            }
        }
    }

    /// What the host needs, if that could be read; else it is tried again.
    fn needs<E: std::error::Error + 'static>(&mut self, read: Result<Event, E>) -> Option<Event> {
        read.inspect_err(|error| {
            self.list_after = Some(Self::RETRY);
            tracing::warn!(error = chain(error), "cannot read the default routes of this host");
        })
        .ok()
    }

    /// What follows from a list. One that failed says nothing: the last good one stays.
    fn listed<E: std::error::Error + 'static>(
        &mut self,
        list: Result<Vec<IpAddr>, E>,
    ) -> Option<Event> {
        match list {
            Ok(addresses) => {
                self.list_after = None;
                (!self.given).then_some(Event::HostAddresses(addresses))
            }
            Err(error) => {
                self.list_after = Some(Self::RETRY);
                tracing::warn!(error = chain(&error), "cannot read the addresses of this host");
                None
            }
        }
    }
}

/// The addresses of the host's other interfaces: as given, or read from the host.
pub(in crate::app) fn host_addresses(args: &Args) -> anyhow::Result<Vec<IpAddr>> {
    if !args.own.node_addresses.is_empty() {
        return Ok(args.own.node_addresses.clone());
    }
    read_host_addresses().context("read the addresses of this host (--node-address gives them)")
}

/// The addresses of all interfaces but ours, without loopback and link-local IPv6 ones.
pub(in crate::app) fn read_host_addresses() -> Result<Vec<IpAddr>, dummy_iface::Error> {
    Ok(reachable(dummy_iface::host_addresses()?))
}

fn reachable(all: Vec<InterfaceAddress>) -> Vec<IpAddr> {
    let others = all.into_iter().filter(|entry| entry.name != INTERFACE);
    let mut addresses: Vec<IpAddr> = others
        .map(|entry| entry.address)
        .filter(|address| match address {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(interface: u32, address: &str) -> HostEvent {
        HostEvent::Address { interface, address: address.parse().unwrap(), added: true }
    }

    fn follower(given: bool) -> Follower {
        Follower { given, ours: Some(7), list_after: None }
    }

    #[test]
    fn a_list_that_fails_says_nothing_and_is_tried_again() {
        let mut follower = follower(false);
        assert!(follower.heard(&address(2, "192.0.2.1")).is_none());
        assert_eq!(follower.list_after, Some(Follower::BURST));
        for _ in 0..2 {
            let failed = Err(std::io::Error::other("the interface went away"));
            assert!(follower.listed(failed).is_none());
            assert_eq!(follower.list_after, Some(Follower::RETRY));
        }
        let list: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
        let event = follower.listed(Ok::<_, std::io::Error>(list.clone()));
        assert!(matches!(event, Some(Event::HostAddresses(found)) if found == list));
        assert_eq!(follower.list_after, None);
    }

    #[test]
    fn changes_of_our_interface_are_passed_on_at_once() {
        let mut follower = follower(false);
        let vip: IpAddr = "10.96.0.1".parse().unwrap();
        let event = follower.heard(&address(7, "10.96.0.1"));
        assert!(matches!(event, Some(Event::Bound(bound, true)) if bound == vip));
        let link = |name: &str, index, deleted| HostEvent::Link {
            index,
            name: name.to_owned(),
            up: false,
            deleted,
        };
        assert!(follower.heard(&link("eth0", 2, true)).is_none());
        assert_eq!(follower.list_after, Some(Follower::BURST), "routes may have gone with it");
        assert!(matches!(follower.heard(&link(INTERFACE, 7, true)), Some(Event::Disturbed)));
        // Somebody else's by now.
        assert!(follower.heard(&address(7, "10.96.0.1")).is_none());
        assert!(follower.heard(&link(INTERFACE, 9, false)).is_none());
        let up = HostEvent::Link { index: 9, name: INTERFACE.to_owned(), up: true, deleted: false };
        assert!(matches!(follower.heard(&up), Some(Event::Disturbed)));
        assert!(matches!(follower.heard(&address(9, "10.96.0.1")), Some(Event::Bound(..))));
        follower.list_after = None;
        assert!(matches!(follower.heard(&HostEvent::Overrun), Some(Event::Disturbed)));
        assert_eq!(follower.list_after, Some(Follower::BURST));
    }

    #[test]
    fn given_addresses_are_not_replaced() {
        let mut follower = follower(true);
        follower.heard(&address(2, "192.0.2.1"));
        assert!(follower.listed(Ok::<_, std::io::Error>(Vec::new())).is_none());
        assert_eq!(follower.list_after, None);
    }

    /// Acceptance rows A01 to A12, both families at once.
    #[test]
    fn our_own_interface_is_not_the_hosts() {
        let encap = "encap7 10.20.30.31 2000:: fe80::1";
        for (row, interfaces, expected) in [
            ("A01", &["eth0 1.2.3.4", "lo 127.0.0.1"][..], "1.2.3.4"),
            ("A02", &["lo 127.0.0.1 ::1"], ""),
            ("A03", &[], ""),
            (
                "A04",
                &["encap0 10.20.30.40 fe80::200:ff:fe01:1", "lo 127.0.0.1", "docker0 172.17.0.1"],
                "10.20.30.40 172.17.0.1",
            ),
            ("A05", &["encaps9 10.20.30.40", "encap7 10.20.30.31"], "10.20.30.31 10.20.30.40"),
            ("A06", &["kube-ipvs0 1.2.3.4 2000::", "encap7 10.20.30.31"], "10.20.30.31"),
            ("A07", &["kube-ipvs0 1.2.3.4 2.3.4.5", "lo 127.0.0.1"], ""),
            ("A08", &["kube-ipvs0 1.2.3.4 2.3.4.5"], ""),
            ("A09", &["kube-ipvs0 1.2.3.4 2.3.4.5", "eth5 3.4.5.6", "lo 127.0.0.1"], "3.4.5.6"),
            ("A10", &["ipvs0 1.2.3.4", "encap7 10.20.30.31"], "1.2.3.4 10.20.30.31"),
            ("A11", &["ipvs0 1.2.3.4 1000::", encap], "1.2.3.4 10.20.30.31 1000:: 2000::"),
            // What is on another interface too is the host's.
            (
                "A12",
                &["ipvs0 1.2.3.4 1000::", encap, "kube-ipvs0 1.2.3.4 2.3.4.5 2000::"],
                "1.2.3.4 10.20.30.31 1000:: 2000::",
            ),
        ] {
            let all = interfaces.iter().zip(1..).flat_map(|(line, interface)| {
                let mut words = line.split(' ');
                let name = words.next().unwrap();
                words.map(move |address| InterfaceAddress {
                    interface,
                    name: name.to_owned(),
                    address: address.parse().unwrap(),
                    prefix_len: 24,
                })
            });
            let expected: Vec<IpAddr> =
                expected.split_whitespace().map(|address| address.parse().unwrap()).collect();
            assert_eq!(reachable(all.collect()), expected, "{row}");
        }
    }
}
