//! Row L80: when the loop runs. Rows GT: what it measures. Rows L11, L12 and L20: what follows from the node object, and that
//! it is followed.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netlink_ipvs::Family;
use proxier::args::Args;
use proxier::builders::*;
use proxier::cluster::{Change, Node};
use proxier::config::{Config, Environment};
use proxier::dataplane::firewall::LocalDetector;
use proxier::dataplane::{Op, OpErrorKind, Settings};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Histogram, Reconciler, Resolver, Status, Timing};
use proxier::settings::{self, Abilities};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(10);

/// A loop with one thing to do, under way.
struct Loop {
    events: mpsc::Sender<Event>,
    status: watch::Receiver<Arc<Status>>,
    start: Instant,
}

impl Loop {
    /// The first `faults` attempts to bind an address fail.
    async fn start(faults: usize) -> Self {
        let mut memory = Memory::new();
        let mut left = faults;
        memory.fault = Some(Box::new(move |op| {
            let fails = matches!(op, Op::Bind(_)) && left > 0;
            left -= usize::from(fails);
            fails.then_some(OpErrorKind::Failed)
        }));
        let timing =
            Timing { sync_period: MAX, min_sync_period: MIN, drain_timeout: MAX, drain_check: MAX };
        let one_family = |_: Option<&Node>, _: &[IpAddr]| Settings {
            families: vec![Family::Ipv4],
            ..settings()
        };
        let (reconciler, status) = Reconciler::new(memory, Resolver::new(one_family), timing);
        let (events, receiver) = mpsc::channel(100);
        // Not Send, so not a task of its own: it runs beside the test on this thread.
        tokio::task::spawn_local(async move { reconciler.run(receiver).await });
        for event in [
            Event::HostAddresses(vec![]),
            Change::ServicesListed(vec![]).into(),
            Change::SlicesListed(vec![]).into(),
            Change::NodeListed.into(),
        ] {
            events.send(event).await.unwrap();
        }
        Self { events, status, start: Instant::now() }
    }

    /// Waits for the end of the next step: how long after the start, and whether it succeeded.
    async fn step(&mut self) -> (Duration, bool) {
        self.status.changed().await.unwrap();
        (self.start.elapsed(), self.status.borrow_and_update().synced)
    }

    async fn request(&self, number: u8) {
        let service = service(&format!("s{number}")).cluster_ip(&format!("10.96.0.{number}"));
        self.events.send(Change::Service(service.port(80)).into()).await.unwrap();
    }

    async fn at(&self, millis: u64) {
        sleep_until(self.start + Duration::from_millis(millis)).await;
    }
}

/// How many trigger times were measured, of slices that come and go in one step.
async fn measured(events: Vec<Event>) -> u64 {
    let mut this = Loop::start(0).await;
    this.step().await;
    for event in events {
        this.events.send(event).await.unwrap();
    }
    // A Service, so that there is a step whatever the slices say.
    this.request(1).await;
    this.step().await;
    let status = this.status.borrow();
    status.measures.programming.get(&Family::Ipv4).map_or(0, Histogram::count)
}

/// Rows GT.
#[tokio::test(start_paused = true)]
async fn trigger_times_are_measured_once_each() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    // After the start of a loop that has yet to start.
    let at = |n: i64| Some(i64::try_from(now).unwrap() + 60_000 * n);
    let slice = |name: &str, address: &str, triggered| {
        let slice = endpoints(name, 80, &[address]).with(|slice| slice.triggered = triggered);
        Event::from(Change::Slice(slice))
    };
    let gone = |name: &str| Event::from(Change::SliceGone(key(&format!("{name}-1"))));
    let (a, b) = ("10.244.0.1", "10.244.0.2");
    local(async {
        for (id, events, expected) in [
            ("GT01", vec![slice("x", a, at(1))], 1),
            ("GT02", vec![slice("x", a, at(1)), slice("x", b, at(2))], 2),
            ("GT03", vec![slice("x", a, at(1)), slice("y", a, at(2)), slice("x", b, at(3))], 3),
            ("GT04", vec![slice("x", a, None)], 0),
            ("GT05", vec![slice("x", a, Some(1))], 0),
            ("GT06", vec![slice("x", a, at(1)), gone("x")], 0),
            ("GT07", vec![slice("x", a, at(1)), gone("x"), slice("x", b, at(2))], 1),
            ("GT08", vec![gone("x")], 0),
        ] {
            assert_eq!(measured(events).await, expected, "{id}");
        }
    })
    .await;
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn requests_are_merged_and_never_closer_than_the_least_interval() {
    local(async {
        let mut this = Loop::start(0).await;
        assert_eq!(this.step().await, (Duration::ZERO, true), "the first one at once");
        for number in 1..=3 {
            this.at(100 * u64::from(number)).await;
            this.request(number).await;
        }
        assert_eq!(this.step().await, (MIN, true), "three in one");
        assert_eq!(this.status.borrow().virtual_servers, 3);
        this.at(2500).await;
        this.request(4).await;
        assert_eq!(this.step().await, (Duration::from_millis(2500), true), "late enough: at once");
        // Without requests nothing runs until everything is looked at again.
        assert_eq!(this.step().await, (MAX, true));
        assert_eq!(this.step().await, (2 * MAX, true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_but_not_before_the_least_interval() {
    local(async {
        let mut this = Loop::start(1).await;
        this.step().await;
        this.request(1).await;
        assert_eq!(this.step().await, (MIN, false));
        assert_eq!(this.step().await, (2 * MIN, true), "the retry is due earlier, and waits");
        assert_eq!(this.step().await, (MAX, true), "and it was the only one");
    })
    .await;
}

struct NoFiles;

impl Environment for NoFiles {
    fn read(&self, _: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> std::io::Result<String> {
        Ok(NODE.to_owned())
    }
}

fn config(flags: &str) -> Config {
    let words = std::iter::once("proxier").chain(flags.split_whitespace());
    Config::load(&Args::parse_from(words).unwrap(), &NoFiles).unwrap()
}

/// The detectors of IPv4 and IPv6, as the words that tell local from other traffic in rules.
fn detectors(flags: &str, pod_cidrs: Option<&str>) -> [String; 2] {
    let node = pod_cidrs.map(|cidrs| Node {
        pod_cidrs: cidrs.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect(),
        ..Node::default()
    });
    let found = settings::settings(&config(flags), &Abilities::default(), node.as_ref(), &[]);
    [Family::Ipv4, Family::Ipv6].map(|family| match &found.firewall[&family].detector {
        LocalDetector::None => String::new(),
        LocalDetector::Cidr(cidr) => cidr.to_string(),
        LocalDetector::Bridge(name) => name.clone(),
        LocalDetector::InterfacePrefix(prefix) => format!("{prefix}+"),
    })
}

#[test]
fn l20_local_traffic_is_told_by_what_the_family_has() {
    let cidr = "--detect-local-mode=ClusterCIDR --cluster-cidr=";
    let long = "a-name-that-no-interface-has";
    for (flags, expected) in [
        (format!("{cidr}10.0.0.0/14"), ["10.0.0.0/14", ""]),
        (format!("{cidr}2002:0:0:1234::/64"), ["", "2002:0:0:1234::/64"]),
        (format!("{cidr}10.0.0.0/14,2002::/64"), ["10.0.0.0/14", "2002::/64"]),
        (format!("{cidr}2002::/64,10.0.0.0/14"), ["10.0.0.0/14", "2002::/64"]),
        (cidr.to_owned(), ["", ""]),
        (
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=eth".to_owned(),
            ["eth", "eth"],
        ),
        (
            format!("--detect-local-mode=BridgeInterface --pod-bridge-interface={long}"),
            [long, long],
        ),
        (
            "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=eth".to_owned(),
            ["eth+", "eth+"],
        ),
    ] {
        assert_eq!(detectors(&flags, None), expected, "{flags}");
    }
    let node = "--detect-local-mode=NodeCIDR --cluster-cidr=10.0.0.0/14";
    for (pod_cidrs, expected) in [
        ("10.0.0.0/24", ["10.0.0.0/24", ""]),
        ("2002::/64 10.0.0.0/24", ["10.0.0.0/24", "2002::/64"]),
        ("", ["", ""]),
    ] {
        assert_eq!(detectors(node, Some(pod_cidrs)), expected, "{pod_cidrs}");
    }
}

/// Rows L11 and L12: kube-proxy waits for the node, gives up, and ends when its pod CIDRs change.
#[test]
fn the_node_object_may_come_late_and_change() {
    let node = "--detect-local-mode=NodeCIDR";
    assert_eq!(detectors(node, None), ["", ""]);
    assert_eq!(detectors(node, Some("10.0.0.0/24")), ["10.0.0.0/24", ""]);
    assert_eq!(detectors(node, Some("10.0.1.0/24")), ["10.0.1.0/24", ""]);
    let flags = config("--nodeport-addresses=primary");
    let host = ["10.0.0.1", "10.0.0.2"].map(ip);
    let addresses = |object: Option<&str>| -> Vec<IpAddr> {
        let node = object.map(|address| Node { addresses: vec![ip(address)], ..Node::default() });
        let found = settings::settings(&flags, &Abilities::default(), node.as_ref(), &host);
        found.node_port_addresses.into_iter().collect()
    };
    assert_eq!(addresses(None), host);
    assert_eq!(addresses(Some("10.0.0.1")), [host[0]]);
    assert_eq!(addresses(Some("10.0.0.2")), [host[1]]);
}
