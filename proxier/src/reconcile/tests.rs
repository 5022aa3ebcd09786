//! The loop over the strict memory, with paused time.

mod audit;
mod hand_over;
mod held;
mod reachable;
mod reserved;
mod settings;

use std::sync::Mutex;

use netlink_ipvs::{Family, Protocol, RealServerKey, Scheduler, VirtualServerKey};
use tokio::time::advance;

use super::*;
use crate::cluster::topology::Place;
use crate::cluster::{
    Conditions, Endpoint, EndpointSlice, Node, ObjectKey, Service, ServicePort, SlicePort,
    SourceRanges,
};
use crate::dataplane::firewall::FirewallOptions;
use crate::dataplane::leftovers::Leftover;
use crate::dataplane::{Connections, Limits, Op, OpErrorKind, Subject, Target};
use crate::memory::Memory;

const TIMING: Timing = Timing {
    sync_period: Duration::from_secs(30),
    min_sync_period: Duration::ZERO,
    drain_timeout: Duration::from_mins(15),
    drain_check: Duration::from_secs(5),
};

fn settings(_: Option<&Node>, host: &[IpAddr]) -> Settings {
    Settings {
        place: Place { node: "node-1".into(), zone: None },
        families: vec![Family::Ipv4],
        host_addresses: host.iter().copied().collect(),
        node_port_addresses: host.iter().copied().collect(),
        node_ips: host.to_vec(),
        firewall: [(Family::Ipv4, FirewallOptions::default())].into(),
        ..crate::builders::settings()
    }
}

fn service(number: u8) -> Service {
    Service {
        key: ObjectKey::new("ns", format!("web-{number}")),
        created: 0,
        cluster_ips: vec![IpAddr::from([10, 96, 0, number])],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: 0,
        }],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: SourceRanges::default(),
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: 0,
        settings: None,
    }
}

fn slice(number: u8, endpoints: &[u8]) -> EndpointSlice {
    EndpointSlice {
        key: ObjectKey::new("ns", format!("web-{number}-1")),
        service: ObjectKey::new("ns", format!("web-{number}")),
        family: Family::Ipv4,
        ports: Box::new([SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }]),
        endpoints: endpoints.iter().map(|last| endpoint([10, 244, number, *last])).collect(),
        pods: crate::cluster::Pods::default(),
        triggered: None,
    }
}

fn endpoint(address: [u8; 4]) -> Endpoint {
    let address = address.into();
    Endpoint { address, conditions: Conditions::default(), location: Arc::default() }
}

fn vip(number: u8) -> VirtualServerKey {
    VirtualServerKey::new(IpAddr::from([10, 96, 0, number]), 80, Protocol::Tcp)
}

fn pod(number: u8, last: u8) -> RealServerKey {
    RealServerKey::new(IpAddr::from([10, 244, number, last]), 8080)
}

fn listed() -> [Event; 3] {
    let keys = |suffix: &str| -> Vec<ObjectKey> {
        (1..=40).map(|n| ObjectKey::new("ns", format!("web-{n}{suffix}"))).collect()
    };
    [
        Event::from(Change::ServicesListed(keys(""))),
        Event::from(Change::SlicesListed(keys("-1"))),
        Event::from(Change::NodeListed),
    ]
}

fn take_lists(reconciler: &mut Reconciler<Memory>) {
    for event in listed() {
        reconciler.take(event);
    }
}

fn reconciler(memory: Memory) -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>) {
    Reconciler::new(memory, Resolver::new(settings), TIMING)
}

/// A step, and those that an audit takes.
async fn step(reconciler: &mut Reconciler<Memory>) {
    reconciler.step().await;
    while reconciler.is_auditing() {
        reconciler.step().await;
    }
}

/// A loop that has read everything and programmed these services with two endpoints each.
async fn settled(services: u8) -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>) {
    let (mut reconciler, status) = reconciler(Memory::new());
    reconciler.take(Event::HostAddresses(vec![IpAddr::from([192, 168, 0, 1])]));
    for number in 1..=services {
        reconciler.take(Event::from(Change::Service(service(number))));
        reconciler.take(Event::from(Change::Slice(slice(number, &[1, 2]))));
    }
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    (reconciler, status)
}

fn done(reconciler: &mut Reconciler<Memory>) -> Vec<String> {
    std::mem::take(&mut reconciler.dataplane().done).iter().map(ToString::to_string).collect()
}

fn weights(reconciler: &mut Reconciler<Memory>, number: u8) -> Vec<(RealServerKey, u32)> {
    let server = &reconciler.dataplane().state.virtual_servers[&vip(number)];
    server.real_servers.iter().map(|real| (real.key, real.config.weight)).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_everything_was_read() {
    let (mut reconciler, status) = reconciler(Memory::new());
    reconciler.take(Event::from(Change::Service(service(1))));
    for event in listed() {
        step(&mut reconciler).await;
        assert!(reconciler.dataplane().done.is_empty());
        assert_eq!(reconciler.dataplane().observed, 0);
        reconciler.take(event);
    }
    // The addresses of the host are as necessary as the lists.
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().done.is_empty());
    assert!(!status.borrow().complete);
    reconciler.take(Event::HostAddresses(vec![]));
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().state.virtual_servers.contains_key(&vip(1)));
    assert!(status.borrow().complete);
}

#[tokio::test(start_paused = true)]
async fn one_changed_endpoint_costs_the_same_among_any_number_of_services() {
    let mut costs = Vec::new();
    for services in [2, 20] {
        let (mut reconciler, status) = settled(services).await;
        done(&mut reconciler);
        let before = status.borrow().counters.clone();
        reconciler.take(Event::from(Change::Slice(slice(2, &[1, 2, 3]))));
        step(&mut reconciler).await;
        let after = status.borrow().counters.clone();
        costs.push((
            done(&mut reconciler),
            after.contributions - before.contributions,
            reconciler.dataplane().observed,
        ));
    }
    let op = "add real server 10.244.2.3:8080 to 10.96.0.2:80/tcp, weight 1".to_owned();
    assert_eq!(costs[0], (vec![op], 1, 1));
    assert_eq!(costs[0], costs[1]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_over_a_right_kernel_writes_nothing() {
    let (mut first, _) = settled(5).await;
    let mut memory = Memory::new();
    memory.state = first.dataplane().state.clone();
    let (mut second, status) = reconciler(memory);
    second.take(Event::HostAddresses(vec![IpAddr::from([192, 168, 0, 1])]));
    for number in 1..=5 {
        second.take(Event::from(Change::Service(service(number))));
        second.take(Event::from(Change::Slice(slice(number, &[1, 2]))));
    }
    take_lists(&mut second);
    step(&mut second).await;
    assert_eq!(done(&mut second), [""; 0]);
    assert!(status.borrow().synced);
    assert_eq!(status.borrow().virtual_servers, 5);
    assert_eq!(status.borrow().real_servers, 10);
}

#[tokio::test(start_paused = true)]
async fn what_iptables_mode_left_does_the_work_until_everything_is_there() {
    let mut memory = Memory::new();
    let families = [Family::Ipv4, Family::Ipv6];
    memory.state.leftovers = families.into_iter().map(Leftover::Iptables).collect();
    memory.state.leftovers.insert(Leftover::Nftables(Family::Ipv4));
    let (mut reconciler, status) = reconciler(memory);
    reconciler.take(Event::HostAddresses(vec![]));
    reconciler.take(Event::from(Change::Service(service(1))));
    reconciler.take(Event::from(Change::Slice(slice(1, &[1]))));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    let operations = done(&mut reconciler);
    assert_eq!(
        operations[operations.len() - 4..],
        [
            "bind 10.96.0.1",
            "install IPv4 firewall rules",
            "remove IPv4 rules of kube-proxy's iptables mode",
            "remove IPv4 table of kube-proxy's nftables mode",
        ]
    );
    assert!(status.borrow().synced);
    assert_eq!(reconciler.dataplane().state.leftovers, [Leftover::Iptables(Family::Ipv6)].into());
}

#[tokio::test(start_paused = true)]
async fn the_api_server_and_the_dns_come_before_everything_else() {
    let (mut reconciler, _) = reconciler(Memory::new());
    reconciler.take(Event::HostAddresses(vec![]));
    let mut api = service(99);
    api.key = ObjectKey::new("default", "kubernetes");
    for service in [service(1), api.clone()] {
        reconciler.take(Event::from(Change::Service(service)));
    }
    for event in [
        Event::from(Change::ServicesListed(vec![api.key, service(1).key])),
        Event::from(Change::SlicesListed(vec![])),
        Event::from(Change::NodeListed),
    ] {
        reconciler.take(event);
    }
    step(&mut reconciler).await;
    let binds: Vec<String> =
        done(&mut reconciler).into_iter().filter(|op| op.starts_with("bind")).collect();
    assert_eq!(binds, ["bind 10.96.0.99", "bind 10.96.0.1"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_real_server_goes_at_once_a_busy_one_when_its_connections_are_gone() {
    let (mut reconciler, status) = settled(1).await;
    let busy = Connections { active: 1, inactive: 0 };
    reconciler.dataplane().connections.insert((vip(1), pod(1, 2)), busy);
    done(&mut reconciler);
    reconciler.take(Event::from(Change::Slice(slice(1, &[3]))));
    step(&mut reconciler).await;
    assert_eq!(weights(&mut reconciler, 1), [(pod(1, 2), 0), (pod(1, 3), 1)]);
    let ops = done(&mut reconciler);
    assert!(ops[0].starts_with("add real server 10.244.1.3:8080"), "make before break: {ops:?}");
    assert_eq!(status.borrow().draining.len(), 1);

    // It keeps its connection while it is counted, and goes with the connection.
    tokio::time::advance(TIMING.drain_check).await;
    step(&mut reconciler).await;
    assert_eq!(done(&mut reconciler), [""; 0]);
    reconciler.dataplane().connections.clear();
    tokio::time::advance(TIMING.drain_check).await;
    step(&mut reconciler).await;
    assert_eq!(done(&mut reconciler), ["remove real server 10.244.1.2:8080 of 10.96.0.1:80/tcp"]);
    assert!(status.borrow().draining.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_limit() {
    let (mut reconciler, status) = settled(1).await;
    let busy = Connections { active: 0, inactive: 3 };
    reconciler.dataplane().connections.insert((vip(1), pod(1, 2)), busy);
    reconciler.take(Event::from(Change::Slice(slice(1, &[1]))));
    step(&mut reconciler).await;
    tokio::time::advance(TIMING.drain_timeout.saturating_sub(Duration::from_secs(1))).await;
    step(&mut reconciler).await;
    assert_eq!(weights(&mut reconciler, 1), [(pod(1, 1), 1), (pod(1, 2), 0)]);
    tokio::time::advance(TIMING.drain_check).await;
    step(&mut reconciler).await;
    assert_eq!(weights(&mut reconciler, 1), [(pod(1, 1), 1)]);
    assert_eq!(status.borrow().counters.drains_cut, 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_while_it_drains_gets_its_weight_back_in_place() {
    let (mut reconciler, _) = settled(1).await;
    let busy = Connections { active: 1, inactive: 0 };
    reconciler.dataplane().connections.insert((vip(1), pod(1, 2)), busy);
    reconciler.take(Event::from(Change::Slice(slice(1, &[1]))));
    step(&mut reconciler).await;
    done(&mut reconciler);
    reconciler.take(Event::from(Change::Slice(slice(1, &[1, 2]))));
    step(&mut reconciler).await;
    let expected = "set real server 10.244.1.2:8080 of 10.96.0.1:80/tcp to weight 1";
    assert_eq!(done(&mut reconciler), [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_survives_a_restart() {
    let (mut first, _) = settled(1).await;
    let busy = Connections { active: 1, inactive: 0 };
    first.dataplane().connections.insert((vip(1), pod(1, 2)), busy);
    first.take(Event::from(Change::Slice(slice(1, &[1]))));
    step(&mut first).await;
    let mut memory = Memory::new();
    memory.state = first.dataplane().state.clone();
    memory.connections.clone_from(&first.dataplane().connections);

    let (mut second, status) = reconciler(memory);
    second.take(Event::HostAddresses(vec![IpAddr::from([192, 168, 0, 1])]));
    second.take(Event::from(Change::Service(service(1))));
    second.take(Event::from(Change::Slice(slice(1, &[1]))));
    take_lists(&mut second);
    step(&mut second).await;
    assert_eq!(done(&mut second), [""; 0]);
    assert_eq!(status.borrow().draining.len(), 1);
    second.dataplane().connections.clear();
    tokio::time::advance(TIMING.drain_check).await;
    step(&mut second).await;
    assert_eq!(weights(&mut second, 1), [(pod(1, 1), 1)]);
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired_at_the_next_audit_and_counted() {
    let (mut reconciler, status) = settled(3).await;
    let foreign = VirtualServerKey::new(IpAddr::from([10, 96, 9, 9]), 80, Protocol::Tcp);
    let state = &mut reconciler.dataplane().state;
    let server = state.virtual_servers.remove(&vip(2)).unwrap();
    state.virtual_servers.insert(foreign, server);
    state.interface.addresses.remove(&IpAddr::from([10, 96, 0, 1]));
    step(&mut reconciler).await;
    assert_eq!(status.borrow().counters.drift, 0, "between audits nothing is read");
    tokio::time::advance(TIMING.sync_period).await;
    step(&mut reconciler).await;
    assert_eq!(status.borrow().counters.drift, 3);
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
}

#[tokio::test(start_paused = true)]
async fn an_unbound_address_is_noticed_when_the_kernel_tells() {
    let (mut reconciler, _) = settled(1).await;
    let address = IpAddr::from([10, 96, 0, 1]);
    reconciler.take(Event::Bound(address, true));
    step(&mut reconciler).await;
    assert_eq!(reconciler.dataplane().observed, 1, "as believed: nothing to look at");
    reconciler.dataplane().state.interface.addresses.remove(&address);
    reconciler.take(Event::Bound(address, false));
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().state.interface.addresses.contains(&address));
}

#[tokio::test(start_paused = true)]
async fn one_failing_object_stops_no_other_and_is_retried() {
    let (mut reconciler, status) = settled(1).await;
    let broken = Arc::new(Mutex::new(true));
    let fault = Arc::clone(&broken);
    reconciler.dataplane().fault = Some(Box::new(move |op| {
        let hit = matches!(op, Op::AddVirtualServer(key, _) if *key == vip(2));
        (hit && *fault.lock().unwrap()).then_some(OpErrorKind::Failed)
    }));
    for number in 2..=4 {
        reconciler.take(Event::from(Change::Service(service(number))));
    }
    step(&mut reconciler).await;
    let servers = reconciler.dataplane().state.virtual_servers.len();
    assert_eq!(servers, 3, "all but the broken one");
    assert!(!status.borrow().synced);
    *broken.lock().unwrap() = false;
    tokio::time::advance(Duration::from_secs(1)).await;
    step(&mut reconciler).await;
    assert!(status.borrow().synced, "{:?}", status.borrow().errors);
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_cannot_be_read_is_not_written_to() {
    let mut memory = Memory::new();
    memory.blind = true;
    let (mut reconciler, status) = reconciler(memory);
    reconciler.take(Event::HostAddresses(vec![]));
    reconciler.take(Event::from(Change::Service(service(1))));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().done.is_empty());
    assert!(status.borrow().failing_since.is_some());
    reconciler.dataplane().blind = false;
    tokio::time::advance(Duration::from_millis(500)).await;
    step(&mut reconciler).await;
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
    assert!(status.borrow().failing_since.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_one_service_lacks_is_no_failure_of_the_family_its_rules_are() {
    let refuse = |op: &Op| matches!(op, Op::AddVirtualServer(..)).then_some(OpErrorKind::Failed);
    let (mut reconciler, status) = settled(1).await;
    reconciler.dataplane().fault = Some(Box::new(refuse));
    reconciler.take(Event::from(Change::Service(service(2))));
    step(&mut reconciler).await;
    let seen = status.borrow().clone();
    assert!(!seen.synced && seen.failing_since.is_some());
    assert_eq!(seen.families[&Family::Ipv4].failing_since, None);

    let refuse = |op: &Op| matches!(op, Op::InstallFirewall(..)).then_some(OpErrorKind::Failed);
    reconciler.dataplane().fault = Some(Box::new(refuse));
    reconciler.dataplane().state.firewall.clear();
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    assert!(status.borrow().families[&Family::Ipv4].failing_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn events_are_counted_and_what_triggered_them_is_measured_once() {
    let (mut reconciler, status) = settled(1).await;
    let live = status.borrow().live.clone();
    assert_eq!((live.service_changes(), live.slice_changes()), (1, 1));
    assert_eq!((live.service_changes_pending(), live.slice_changes_pending()), (0, 0));

    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let soon = i64::try_from(now).unwrap() + 60_000;
    let slice = |last, triggered| EndpointSlice { triggered, ..slice(1, &[1, 2, last]) };
    let changed = |slice| Event::from(Change::Slice(slice));
    // From before the start of the process: says nothing. Read again: was measured before.
    for event in
        [changed(slice(3, Some(1))), changed(slice(4, Some(soon))), changed(slice(4, Some(soon)))]
    {
        reconciler.take(event);
    }
    assert_eq!(live.slice_changes_pending(), 3);
    step(&mut reconciler).await;
    let programmed =
        || status.borrow().measures.programming.get(&Family::Ipv4).map(Histogram::count);
    assert_eq!(programmed(), Some(1));
    assert_eq!((live.slice_changes(), live.slice_changes_pending()), (4, 0));

    // A slice that goes away takes with it what is not programmed yet.
    reconciler.take(changed(slice(5, Some(soon))));
    reconciler.take(Event::from(Change::SliceGone(ObjectKey::new("ns", "web-1-1"))));
    step(&mut reconciler).await;
    assert_eq!(programmed(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_latency_of_events_is_measured_but_not_that_of_the_first_lists() {
    let (reconciler, status) = reconciler(Memory::new());
    let latencies = || status.borrow().measures.latency.count();
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        sender.send(Event::HostAddresses(vec![])).await.unwrap();
        sender.send(Event::from(Change::Service(service(1)))).await.unwrap();
        for event in listed() {
            sender.send(event).await.unwrap();
        }
        status.clone().wait_for(|status| status.synced).await.unwrap();
        assert_eq!(latencies(), 0);
        sender.send(Event::from(Change::Service(service(2)))).await.unwrap();
        status.clone().wait_for(|status| status.services == 2).await.unwrap();
        assert_eq!(latencies(), 1);
        // Changes nothing.
        sender.send(Event::from(Change::Service(service(2)))).await.unwrap();
        drop(sender);
    };
    tokio::join!(reconciler.run(receiver), events);
    assert_eq!(latencies(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_the_node_waits_for_nothing() {
    let (mut reconciler, status) = reconciler(Memory::new());
    assert_eq!(status.borrow().node_eligible, None);
    for eligible in [true, false, true] {
        let node = Node { name: "node-1".into(), eligible, ..Node::default() };
        reconciler.take(Event::from(Change::Node(node)));
        assert_eq!(status.borrow().node_eligible, Some(eligible));
    }
    assert_eq!(status.borrow().last_step, None);
}

#[tokio::test(start_paused = true)]
async fn the_loop_takes_a_burst_as_one_step_and_ends_with_its_senders() {
    let (mut reconciler, status) = reconciler(Memory::new());
    reconciler.take(Event::HostAddresses(vec![]));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    let steps = status.borrow().counters.steps;
    let (sender, receiver) = mpsc::channel(1000);
    for round in 0..50 {
        for number in 1..=10 {
            let change = Change::Slice(slice(number, &[round % 7 + 1]));
            sender.send(Event::from(change)).await.unwrap();
            sender.send(Event::from(Change::Service(service(number)))).await.unwrap();
        }
    }
    drop(sender);
    let memory = reconciler.run(receiver).await;
    assert_eq!(memory.state.virtual_servers.len(), 10);
    let real = &memory.state.virtual_servers[&vip(3)].real_servers;
    assert_eq!(real.iter().map(|real| real.key).collect::<Vec<_>>(), [pod(3, 1)]);
    assert_eq!(status.borrow().counters.steps - steps, 1);
}

#[tokio::test(start_paused = true)]
async fn other_work_does_not_put_a_retry_off() {
    let (mut reconciler, status) = settled(1).await;
    let broken = Arc::new(Mutex::new(true));
    let fault = Arc::clone(&broken);
    reconciler.dataplane().fault = Some(Box::new(move |op| {
        let hit = matches!(op, Op::Bind(address) if *address == IpAddr::from([10, 96, 0, 2]));
        (hit && *fault.lock().unwrap()).then_some(OpErrorKind::Failed)
    }));
    reconciler.take(Event::from(Change::Service(service(2))));
    step(&mut reconciler).await;
    assert!(!status.borrow().synced);
    *broken.lock().unwrap() = false;
    for round in 0..20 {
        tokio::time::advance(Duration::from_millis(100)).await;
        reconciler.take(Event::from(Change::Slice(slice(1, &[round % 3 + 1]))));
        step(&mut reconciler).await;
    }
    assert!(status.borrow().synced, "{:?}", status.borrow().errors);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_when_the_kernel_tells_of_a_change() {
    let (mut reconciler, status) = settled(1).await;
    let broken = Arc::new(Mutex::new(true));
    let fault = Arc::clone(&broken);
    reconciler.dataplane().fault = Some(Box::new(move |op| {
        let hit = matches!(op, Op::Bind(address) if *address == IpAddr::from([10, 96, 0, 2]));
        (hit && *fault.lock().unwrap()).then_some(OpErrorKind::Failed)
    }));
    reconciler.take(Event::from(Change::Service(service(2))));
    step(&mut reconciler).await;
    *broken.lock().unwrap() = false;
    step(&mut reconciler).await;
    assert!(!status.borrow().synced, "not before its time");
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    assert!(status.borrow().synced, "{:?}", status.borrow().errors);
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_waits_for_its_first_lists_sleeps() {
    let (reconciler, _status) = reconciler(Memory::new());
    let (sender, receiver) = mpsc::channel::<Event>(1);
    // A loop that spins would never let this time pass.
    let waited = tokio::time::timeout(Duration::from_hours(1), reconciler.run(receiver)).await;
    assert!(waited.is_err());
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_longer_excluded_is_removed() {
    let (mut reconciler, _) = settled(1).await;
    let excluding = |nets: &'static [&'static str]| {
        let exclude = || nets.iter().map(|net| net.parse().unwrap()).collect();
        let resolve = move |node: Option<&Node>, host: &[IpAddr]| Settings {
            exclude_cidrs: exclude(),
            ..settings(node, host)
        };
        Event::Configured(Resolver::new(resolve), TIMING)
    };
    reconciler.take(excluding(&["10.96.0.0/24"]));
    reconciler.take(Event::from(Change::ServiceGone(service(1).key)));
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().state.virtual_servers.contains_key(&vip(1)));
    reconciler.take(excluding(&[]));
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().state.virtual_servers.is_empty());
}
