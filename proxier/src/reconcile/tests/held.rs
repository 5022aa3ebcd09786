//! What is held back: who is told of it, and that it goes on when what it needs is there.

use super::*;
use crate::dataplane::sets::{SetId, SetRole};

/// A loop over two services, of which nothing can be programmed that `broken` says, until the
/// result says otherwise.
async fn with_fault(
    mut broken: impl FnMut(&Op) -> bool + Send + 'static,
) -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>, Arc<Mutex<bool>>) {
    let (mut reconciler, status) = settled(1).await;
    let on = Arc::new(Mutex::new(true));
    let fault = Arc::clone(&on);
    reconciler.dataplane().fault = Some(Box::new(move |op| {
        (broken(op) && *fault.lock().unwrap()).then_some(OpErrorKind::Failed)
    }));
    (reconciler, status, on)
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_for_what_is_shown_and_told_of_after_a_sync_period() {
    let (mut reconciler, status, fault) =
        with_fault(|op| matches!(op, Op::AddVirtualServer(key, _) if *key == vip(2))).await;
    let (sender, mut notices) = mpsc::channel(100);
    reconciler.notify(sender);
    reconciler.take(Event::from(Change::Service(service(2))));
    reconciler.take(Event::from(Change::Slice(slice(2, &[1]))));
    step(&mut reconciler).await;
    let held = HeldBack {
        target: Target::Address([10, 96, 0, 2].into()),
        waits_for: Subject::Target(Target::VirtualServer(vip(2))),
    };
    assert!(status.borrow().held_back.contains(&held), "{:?}", status.borrow().held_back);
    assert_eq!(held.to_string(), "address 10.96.0.2 waits for virtual server 10.96.0.2:80/tcp");
    assert_eq!(status.borrow().held, status.borrow().held_back.len());
    assert!(status.borrow().counters.held_back > 0);
    assert_eq!(notices.try_recv().ok(), None, "it may be over soon");

    for _ in 0..3 {
        advance(TIMING.sync_period).await;
        step(&mut reconciler).await;
    }
    let told: Vec<Notice> = std::iter::from_fn(|| notices.try_recv().ok()).collect();
    let of_services: Vec<&Notice> =
        told.iter().filter(|notice| matches!(notice, Notice::HeldBack(..))).collect();
    let [Notice::HeldBack(service, _)] = *of_services else { panic!("{told:?}") };
    assert_eq!(service.to_string(), "ns/web-2");

    *fault.lock().unwrap() = false;
    advance(TIMING.sync_period).await;
    step(&mut reconciler).await;
    assert!(status.borrow().synced && status.borrow().held_back.is_empty());
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
}

/// Flows that are deleted say nothing about their virtual server, which goes on with its back-off.
#[tokio::test(start_paused = true)]
async fn a_virtual_server_that_waits_is_not_forgotten_when_its_flows_are_deleted() {
    // No address waits for it.
    let node_port = VirtualServerKey::new([192, 168, 0, 1].into(), 30080, Protocol::Udp);
    let (mut reconciler, status, fault) = with_fault(move |op| match op {
        Op::AddVirtualServer(key, _) => *key == node_port,
        op => matches!(op, Op::ForgetFlows(..)),
    })
    .await;
    let mut dns = service(2);
    dns.ports[0].protocol = Protocol::Udp;
    dns.ports[0].node_port = 30080;
    reconciler.take(Event::from(Change::Service(dns)));
    // It fails at once and after half a second, and so do its flows once it has endpoints.
    step(&mut reconciler).await;
    advance(Duration::from_millis(500)).await;
    step(&mut reconciler).await;
    advance(Duration::from_secs(1)).await;
    let mut endpoints = slice(2, &[1]);
    endpoints.ports[0].protocol = Protocol::Udp;
    reconciler.take(Event::from(Change::Slice(endpoints)));
    step(&mut reconciler).await;
    advance(Duration::from_millis(500)).await;
    step(&mut reconciler).await;
    *fault.lock().unwrap() = false;
    // The flows come first.
    advance(Duration::from_secs(1)).await;
    step(&mut reconciler).await;
    assert!(!status.borrow().synced);
    advance(Duration::from_secs(1)).await;
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
}

#[tokio::test(start_paused = true)]
async fn flows_that_could_not_be_deleted_are_deleted_later() {
    let (mut reconciler, status, fault) = with_fault(|op| matches!(op, Op::ForgetFlows(..))).await;
    let mut dns = service(2);
    dns.ports[0].protocol = Protocol::Udp;
    reconciler.take(Event::from(Change::Service(dns)));
    let endpoints = |endpoints: &[u8]| {
        let mut slice = slice(2, endpoints);
        slice.ports[0].protocol = Protocol::Udp;
        Event::from(Change::Slice(slice))
    };
    let tries = |status: &watch::Receiver<Arc<Status>>| {
        status.borrow().counters.operations.get("flows").copied().unwrap_or_default()
    };
    *fault.lock().unwrap() = false;
    reconciler.take(endpoints(&[1, 2]));
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    let (searched, _) = tries(&status);

    *fault.lock().unwrap() = true;
    reconciler.take(endpoints(&[1]));
    step(&mut reconciler).await;
    assert_eq!(tries(&status), (searched, 1));
    assert!(!status.borrow().synced);
    // Tried again by itself, later and later: after 0.5, 1, 2 and 4 seconds.
    for seconds in 0..8 {
        step(&mut reconciler).await;
        let (_, failed) = tries(&status);
        assert!(failed <= 5, "{failed} tries within {seconds} s");
        advance(Duration::from_secs(1)).await;
    }
    assert!(tries(&status).1 >= 4, "{:?}", tries(&status));
    *fault.lock().unwrap() = false;
    advance(Duration::from_secs(30)).await;
    step(&mut reconciler).await;
    assert_eq!(tries(&status).0, searched + 1);
    assert!(status.borrow().synced);
}

/// A loop over a service with source ranges that the node is in, so that no rule has to drop what it
/// sends; and whether the set can be made that closes its address to others.
fn guarded() -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>, Arc<Mutex<bool>>) {
    let can = Arc::new(Mutex::new(true));
    let able = Arc::clone(&can);
    let mut memory = Memory::new();
    memory.fault = Some(Box::new(move |op| {
        let hit = matches!(op, Op::CreateSet(set, _) if *set == CLOSING);
        (hit && !*able.lock().unwrap()).then_some(OpErrorKind::Failed)
    }));
    let (mut reconciler, status) = reconciler(memory);
    let mut guarded = service(1);
    guarded.load_balancer_ips = vec![[203, 0, 113, 1].into()];
    guarded.source_ranges = SourceRanges::new(["192.0.2.0/24".parse().unwrap()]);
    reconciler.take(Event::HostAddresses(vec![[192, 0, 2, 1].into()]));
    reconciler.take(Event::from(Change::Service(guarded)));
    reconciler.take(Event::from(Change::Slice(slice(1, &[1]))));
    take_lists(&mut reconciler);
    (reconciler, status, can)
}

const CLOSING: SetId = SetId { family: Family::Ipv4, role: SetRole::LoadBalancerFw };

/// Nothing is behind the address, for as long as the set cannot be made; then everything is right.
async fn closed_until_the_set_is_made(
    (mut reconciler, status, can): (
        Reconciler<Memory>,
        watch::Receiver<Arc<Status>>,
        Arc<Mutex<bool>>,
    ),
) {
    let key = VirtualServerKey::new([203, 0, 113, 1].into(), 80, Protocol::Tcp);
    for _ in 0..3 {
        step(&mut reconciler).await;
        let servers = reconciler.dataplane().state.virtual_servers.get(&key).cloned();
        assert!(servers.is_none_or(|server| server.real_servers.is_empty()));
        let held = status.borrow().held_back.clone();
        assert!(held.iter().any(|held| held.target == Target::VirtualServer(key)), "{held:?}");
        assert!(held.iter().all(|held| held.waits_for != Subject::Target(held.target)), "{held:?}");
        advance(Duration::from_secs(10)).await;
    }
    *can.lock().unwrap() = true;
    advance(Duration::from_secs(30)).await;
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
}

/// The virtual server itself can be made, what shuts it to others cannot.
#[tokio::test(start_paused = true)]
async fn real_servers_come_once_the_set_that_closes_them_can_be_made() {
    let (reconciler, status, can) = guarded();
    *can.lock().unwrap() = false;
    closed_until_the_set_is_made((reconciler, status, can)).await;
}

#[tokio::test(start_paused = true)]
async fn real_servers_go_when_the_set_that_closes_them_is_gone_and_cannot_be_made() {
    let (mut reconciler, status, can) = guarded();
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    *can.lock().unwrap() = false;
    reconciler.dataplane().state.sets.remove(&CLOSING);
    reconciler.take(Event::Disturbed);
    closed_until_the_set_is_made((reconciler, status, can)).await;
}

/// Taking the link down takes the IPv6 addresses away: they are back in the same step.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_taken_down_has_its_ipv6_addresses_again() {
    let both = |node: Option<&Node>, host: &[IpAddr]| Settings {
        families: vec![Family::Ipv4, Family::Ipv6],
        firewall: [Family::Ipv4, Family::Ipv6].map(|of| (of, FirewallOptions::default())).into(),
        ..settings(node, host)
    };
    let (mut reconciler, status) = Reconciler::new(Memory::new(), Resolver::new(both), TIMING);
    let mut dual = service(1);
    dual.cluster_ips.push("fd00:10:96::1".parse().unwrap());
    reconciler.take(Event::HostAddresses(vec![]));
    reconciler.take(Event::from(Change::Service(dual)));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    let wanted = reconciler.dataplane().state.clone();
    assert_eq!(wanted.interface.addresses.len(), 2);
    reconciler.dataplane().state.interface.up = true;
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    assert_eq!(reconciler.dataplane().state, wanted);
    assert_eq!(status.borrow().counters.drift, 1, "what went by our own doing is no drift");
}
