//! What this node needs for itself stays, whatever services ask for and whoever had it before.

use netlink_ipvs::VirtualServerConfig;

use super::*;
use crate::dataplane::sets::{Member, SetId, SetRole};
use crate::dataplane::{Need, RealServers, SetState, State, VirtualServerState};

const API: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 11));
const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 20));

fn reserved(address: IpAddr, need: Need, port: u16) -> Event {
    let mut reserved = Reserved::default();
    reserved.add(address, need, port);
    Event::Reserved(Origin::Connection, reserved)
}

fn key(address: IpAddr, port: u16) -> VirtualServerKey {
    VirtualServerKey::new(address, port, Protocol::Tcp)
}

/// A kernel as a former run has left it.
#[derive(Default)]
struct Left(State);

impl Left {
    fn bound(mut self, address: IpAddr) -> Self {
        self.0.interface.addresses.insert(address);
        self
    }

    fn served(mut self, address: IpAddr, port: u16, known_as: Option<SetRole>) -> Self {
        let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
        let server = VirtualServerState { config, real_servers: RealServers::from([]) };
        self.0.virtual_servers.insert(key(address, port), server.into());
        if let Some(role) = known_as {
            let member = Member::IpPort(address, Protocol::Tcp, port);
            self.0.sets.entry(role.of(Family::Ipv4)).or_default().members.insert(member);
        }
        self
    }

    fn memory(self) -> Memory {
        Memory { state: self.0, ..Memory::new() }
    }
}

/// A loop that knows where its API server is, and nothing else.
async fn started(left: Left) -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>) {
    let (mut reconciler, status) = reconciler(left.memory());
    reconciler.take(reserved(API, Need::ApiServer, 6443));
    reconciler.take(Event::HostAddresses(vec![NODE]));
    reconciler.step().await;
    assert!(!status.borrow().complete, "no list has come");
    (reconciler, status)
}

/// What a former run had of `web`, which has the API server's address as an external IP.
fn hijacked() -> Left {
    let kubernetes = IpAddr::from([10, 96, 0, 1]);
    Left::default()
        .bound(kubernetes)
        .served(kubernetes, 443, Some(SetRole::ClusterIp))
        .bound(API)
        .served(API, 80, Some(SetRole::ExternalIp))
        .served(IpAddr::from([203, 0, 113, 7]), 80, Some(SetRole::ExternalIp))
        .bound(IpAddr::from([203, 0, 113, 7]))
}

#[tokio::test(start_paused = true)]
async fn what_a_former_run_has_bound_is_released_before_any_list() {
    for role in [SetRole::ExternalIp, SetRole::ExternalIpLocal, SetRole::LoadBalancer] {
        let mut left = hijacked();
        let sets = &mut left.0.sets;
        let members = sets.remove(&SetRole::ExternalIp.of(Family::Ipv4)).unwrap();
        sets.insert(role.of(Family::Ipv4), members);
        let (mut reconciler, _) = started(left).await;
        let wanted = [Op::Unbind(API), Op::RemoveVirtualServer(key(API, 80))];
        assert_eq!(reconciler.dataplane().done, wanted, "{role:?}: and nothing else");
        // Once is enough.
        reconciler.step().await;
        assert_eq!(reconciler.dataplane().done.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_ip_is_never_released() {
    // As a pod reaches the API server: by the cluster IP.
    let (mut reconciler, _) = {
        let (mut reconciler, status) = reconciler(hijacked().memory());
        reconciler.take(reserved(IpAddr::from([10, 96, 0, 1]), Need::ApiServer, 443));
        reconciler.step().await;
        (reconciler, status)
    };
    assert_eq!(reconciler.dataplane().done, []);
    // Even if somebody's Service had it as an external IP too.
    let both = hijacked().served(API, 443, Some(SetRole::ClusterIp));
    let (mut reconciler, _) = started(both).await;
    assert_eq!(reconciler.dataplane().done, []);
}

#[tokio::test(start_paused = true)]
async fn without_proof_nothing_that_is_served_is_released() {
    // Sets that were flushed tell nothing.
    let mut flushed = hijacked();
    flushed.0.sets.values_mut().for_each(|set: &mut SetState| set.members.clear());
    let (mut reconciler, _) = started(flushed).await;
    assert_eq!(reconciler.dataplane().done, []);
    // But what is bound without a virtual server leads nowhere.
    let (mut reconciler, _) = started(Left::default().bound(API)).await;
    assert_eq!(reconciler.dataplane().done, [Op::Unbind(API)]);
}

#[tokio::test(start_paused = true)]
async fn the_port_alone_is_released_where_the_address_is_not_bound() {
    let left = Left::default()
        .served(IpAddr::from([10, 96, 0, 1]), 443, Some(SetRole::ClusterIp))
        .served(API, 80, Some(SetRole::ExternalIp))
        .served(API, 6443, Some(SetRole::ExternalIp));
    let (mut reconciler, _) = started(left).await;
    assert_eq!(reconciler.dataplane().done, [Op::RemoveVirtualServer(key(API, 6443))]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_tried_again() {
    let mut memory = hijacked().memory();
    let mut left = 2;
    memory.fault = Some(Box::new(move |op| {
        let fails = matches!(op, Op::Unbind(_)) && left > 0;
        left -= i32::from(fails);
        fails.then_some(OpErrorKind::Failed)
    }));
    let (mut reconciler, _) = reconciler(memory);
    reconciler.take(reserved(API, Need::ApiServer, 6443));
    for _ in 0..3 {
        reconciler.step().await;
        advance(Duration::from_secs(30)).await;
    }
    assert!(!reconciler.dataplane().state.interface.addresses.contains(&API));
    // A kernel that cannot be read is tried again as well.
    let mut memory = hijacked().memory();
    memory.blind = true;
    let (mut reconciler, _) = self::reconciler(memory);
    reconciler.take(reserved(API, Need::ApiServer, 6443));
    reconciler.step().await;
    reconciler.dataplane().blind = false;
    reconciler.step().await;
    assert!(reconciler.dataplane().state.interface.addresses.contains(&API), "not before its time");
    advance(Duration::from_secs(1)).await;
    reconciler.step().await;
    assert!(!reconciler.dataplane().state.interface.addresses.contains(&API));
}

/// `web-1` claims an address, and `web-2` asks for nothing odd.
async fn claimed(address: IpAddr) -> (Reconciler<Memory>, watch::Receiver<Arc<Status>>) {
    let (mut reconciler, status) = settled(2).await;
    let claiming = Service { external_ips: vec![address], ..service(1) };
    reconciler.take(Event::from(Change::Service(claiming)));
    step(&mut reconciler).await;
    (reconciler, status)
}

fn has(reconciler: &mut Reconciler<Memory>, address: IpAddr) -> bool {
    let state = &reconciler.dataplane().state;
    let role = SetRole::ExternalIp.of(Family::Ipv4);
    let member = Member::IpPort(address, Protocol::Tcp, 80);
    state.interface.addresses.contains(&address)
        || state.virtual_servers.contains_key(&key(address, 80))
        || state.has_member(role, &member)
        || state.has_member(SetId { role: SetRole::IpvsIps, ..role }, &Member::Ip(address))
}

#[tokio::test(start_paused = true)]
async fn an_address_that_becomes_the_peer_is_released_at_once() {
    let (mut reconciler, status) = claimed(API).await;
    assert!(has(&mut reconciler, API), "nobody needs it");
    let (sender, mut notices) = mpsc::channel(8);
    reconciler.notify(sender);
    reconciler.take(reserved(API, Need::ApiServer, 6443));
    step(&mut reconciler).await;
    assert!(!has(&mut reconciler, API));
    assert!(status.borrow().synced);
    assert_eq!(status.borrow().refused.get("reserved"), Some(&1));
    let Some(Notice::Refused(of, text)) = notices.recv().await else { panic!() };
    assert_eq!(of, ObjectKey::new("ns", "web-1"));
    assert!(text.starts_with("external IP 192.168.1.11: this node connects"), "{text}");
    // And had again when nobody needs it any more.
    reconciler.take(reserved(NODE, Need::ApiServer, 6443));
    step(&mut reconciler).await;
    assert!(has(&mut reconciler, API));
    assert_eq!(status.borrow().refused.get("reserved"), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn the_endpoints_of_the_api_service_are_reserved() {
    let (mut reconciler, _) = claimed(API).await;
    let mut slice = slice(1, &[]);
    slice.key = ObjectKey::new("default", "kubernetes");
    slice.service = ObjectKey::new("default", "kubernetes");
    slice.endpoints = Box::new([endpoint([192, 168, 1, 11])]);
    reconciler.take(Event::from(Change::Slice(slice.clone())));
    step(&mut reconciler).await;
    assert!(!has(&mut reconciler, API));
    // The same name in another namespace is anybody's.
    reconciler.take(Event::from(Change::SliceGone(slice.key.clone())));
    slice.key = ObjectKey::new("ns", "kubernetes");
    slice.service = slice.key.clone();
    reconciler.take(Event::from(Change::Slice(slice)));
    step(&mut reconciler).await;
    assert!(has(&mut reconciler, API));
}

#[tokio::test(start_paused = true)]
async fn what_the_same_origin_says_replaces_what_it_said() {
    let (mut reconciler, _) = claimed(API).await;
    let of_host = |address| {
        let mut reserved = Reserved::default();
        reserved.add(address, Need::Gateway, 0);
        Event::Reserved(Origin::Host, reserved)
    };
    reconciler.take(of_host(API));
    reconciler.take(reserved(NODE, Need::ApiServer, 6443));
    step(&mut reconciler).await;
    assert!(!has(&mut reconciler, API), "the gateway");
    reconciler.take(of_host(IpAddr::from([192, 168, 1, 1])));
    step(&mut reconciler).await;
    assert!(has(&mut reconciler, API));
}

#[tokio::test(start_paused = true)]
async fn a_health_check_node_port_that_is_a_node_port_is_told() {
    let with_health = |number| Service { health_check_node_port: 30100, ..service(number) };
    let with_port = |number| {
        let mut service = service(number);
        service.ports[0].node_port = 30100;
        service
    };
    for services in [[with_health(1), with_port(2)], [with_port(1), with_health(2)]] {
        let (mut reconciler, _) = settled(2).await;
        let (sender, mut notices) = mpsc::channel(8);
        reconciler.notify(sender);
        for service in services {
            assert!(notices.try_recv().is_err());
            reconciler.take(Event::from(Change::Service(service)));
            step(&mut reconciler).await;
        }
        let Some(Notice::Refused(of, text)) = notices.recv().await else { panic!() };
        assert_eq!(of, ObjectKey::new("ns", "web-2"));
        assert_eq!(text, "port 30100 is a node port and a health check node port");
    }
}

/// A kernel with a virtual server of keepalived's, and one of ours that no service asks for any more.
async fn beside_another(keep_foreign: bool) -> (Reconciler<Memory>, [VirtualServerKey; 2]) {
    let (theirs, ours) = (IpAddr::from([198, 51, 100, 9]), IpAddr::from([10, 96, 0, 99]));
    let left = Left::default().served(theirs, 80, None).bound(ours).served(
        ours,
        80,
        Some(SetRole::ClusterIp),
    );
    let resolver = Resolver::new(move |node: Option<&Node>, host: &[IpAddr]| Settings {
        keep_foreign,
        ..settings(node, host)
    });
    let (mut reconciler, status) = Reconciler::new(left.memory(), resolver, TIMING);
    reconciler.take(Event::HostAddresses(vec![]));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    assert!(status.borrow().synced);
    (reconciler, [key(theirs, 80), key(ours, 80)])
}

#[tokio::test(start_paused = true)]
async fn without_a_cluster_what_others_have_made_stays() {
    let (mut reconciler, [theirs, ours]) = beside_another(true).await;
    let left = |reconciler: &mut Reconciler<Memory>| -> Vec<VirtualServerKey> {
        reconciler.dataplane().state.virtual_servers.keys().copied().collect()
    };
    assert_eq!(left(&mut reconciler), [theirs], "not {ours}");
    // Another one that comes while we run, and audits.
    let state = reconciler.dataplane().state.virtual_servers[&theirs].clone();
    let late = key(IpAddr::from([198, 51, 100, 10]), 80);
    reconciler.dataplane().state.virtual_servers.insert(late, state);
    for _ in 0..3 {
        advance(TIMING.sync_period).await;
        step(&mut reconciler).await;
    }
    assert_eq!(left(&mut reconciler), [theirs, late]);
    // A service that asks for it has it, and it goes with the service.
    let asks = Service { external_ips: vec![IpAddr::from([198, 51, 100, 9])], ..service(1) };
    reconciler.take(Event::from(Change::Service(asks.clone())));
    step(&mut reconciler).await;
    reconciler.take(Event::from(Change::ServiceGone(asks.key)));
    step(&mut reconciler).await;
    assert_eq!(left(&mut reconciler), [late]);
}

#[tokio::test(start_paused = true)]
async fn in_a_cluster_all_of_ipvs_is_ours() {
    let (mut reconciler, _) = beside_another(false).await;
    assert!(reconciler.dataplane().state.virtual_servers.is_empty());
}
