//! The node's own addresses, its API server and its gateway stay reachable, whatever services ask for, in
//! whatever order; and what one namespace asks for leaves the others alone.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::dataplane::sets::Member;
use crate::dataplane::{Need, Over, Refusal, State};

/// The API server, its endpoint, the gateway, the node, and two that nobody needs.
const API: [u8; 4] = [192, 168, 1, 11];
const POOL: [[u8; 4]; 6] = [
    API,
    [192, 168, 1, 12],
    [192, 168, 1, 1],
    [192, 168, 1, 20],
    [203, 0, 113, 7],
    [203, 0, 113, 8],
];
const NODE: usize = 3;
const API_PORT: u16 = 6443;

#[derive(Debug, Clone)]
enum Step {
    Service { number: u8, external: Vec<usize>, balanced: Vec<usize>, port: u16, node_port: u16 },
    Gone(u8),
    Needs(Origin, Vec<usize>),
    Endpoint(Option<usize>),
}

fn change() -> impl Strategy<Value = Step> {
    let some = || vec(0..POOL.len(), 0..3);
    let ports = || select(vec![80, API_PORT]);
    let service = (1..4_u8, some(), some(), ports(), select(vec![0, API_PORT, 30080]));
    prop_oneof![
        4 => service.prop_map(|(number, external, balanced, port, node_port)| {
            Step::Service { number, external, balanced, port, node_port }
        }),
        1 => (1..4_u8).prop_map(Step::Gone),
        2 => (select(vec![Origin::Host, Origin::Connection]), some())
            .prop_map(|(origin, needs)| Step::Needs(origin, needs)),
        1 => prop::option::of(0..POOL.len()).prop_map(Step::Endpoint),
    ]
}

/// What was said of reserved addresses, kept beside the loop.
#[derive(Default)]
struct Said {
    needs: std::collections::BTreeMap<Origin, Vec<usize>>,
    endpoint: Option<usize>,
}

impl Said {
    fn reserved(&self) -> Vec<IpAddr> {
        let all = self.needs.values().flatten().chain(&self.endpoint);
        all.map(|at| IpAddr::from(POOL[*at])).collect()
    }

    fn take(&mut self, change: Step) -> Event {
        let ips = |list: Vec<usize>| list.into_iter().map(|at| POOL[at].into()).collect();
        match change {
            Step::Service { number, external, balanced, port, node_port } => {
                let mut service = service(number);
                service.external_ips = ips(external);
                service.load_balancer_ips = ips(balanced);
                service.ports[0].port = port;
                service.ports[0].node_port = node_port;
                Change::Service(service).into()
            }
            Step::Gone(number) => Change::ServiceGone(service(number).key).into(),
            Step::Needs(origin, list) => {
                let mut reserved = Reserved::default();
                for at in &list {
                    reserved.add(POOL[*at].into(), Need::ApiServer, API_PORT);
                }
                self.needs.insert(origin, list);
                Event::Reserved(origin, reserved)
            }
            Step::Endpoint(at) => {
                self.endpoint = at;
                let key = ObjectKey::new("default", "kubernetes");
                let mut slice = slice(1, &[]);
                slice.service = key.clone();
                slice.ports[0].port = API_PORT;
                slice.endpoints = at.into_iter().map(|at| endpoint(POOL[at])).collect();
                slice.key = key;
                Change::Slice(slice).into()
            }
        }
    }
}

/// What of a kernel takes something from the node.
fn taken(state: &State, reserved: &[IpAddr]) -> Vec<String> {
    let node = IpAddr::from(POOL[NODE]);
    let mut out = Vec::new();
    for address in &state.interface.addresses {
        if *address == node || reserved.contains(address) {
            out.push(format!("{address} is bound"));
        }
    }
    let served = state.virtual_servers.keys().filter_map(|key| match key {
        VirtualServerKey::Address { address, port, .. } => Some((*address, *port)),
        VirtualServerKey::FirewallMark { .. } => None,
    });
    let members = state.sets.values().flat_map(|set| &set.members);
    let named = members.filter_map(|member| match member {
        Member::IpPort(address, _, port) | Member::IpPortNet(address, _, port, _) => {
            Some((*address, *port))
        }
        Member::Ip(address) => Some((*address, 0)),
        _ => None,
    });
    for (address, port) in served.chain(named) {
        if reserved.contains(&address) && (address != node || port == API_PORT) {
            out.push(format!("{address}:{port} is taken"));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_the_node_needs_is_taken(changes in vec(vec(change(), 1..4), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut reconciler, status) = reconciler(Memory::new());
            reconciler.take(Event::HostAddresses(vec![POOL[NODE].into()]));
            take_lists(&mut reconciler);
            step(&mut reconciler).await;
            let mut said = Said::default();
            for group in changes {
                for change in group {
                    reconciler.take(said.take(change));
                }
                step(&mut reconciler).await;
                let reserved = said.reserved();
                prop_assert_eq!(taken(&reconciler.dataplane().state, &reserved), [""; 0]);
                prop_assert!(status.borrow().synced);
            }
            Ok(())
        })?;
    }
}

/// A service of another namespace with so many external IPs and ports.
fn large(name: &str, created: u8, addresses: u8, ports: u16) -> Service {
    let port = service(1).ports.remove(0);
    Service {
        key: ObjectKey::new("hostile", name),
        created: created.into(),
        cluster_ips: vec![IpAddr::from([10, 96, 1, created])],
        external_ips: (0..addresses).map(|n| [203, 0, created, n].into()).collect(),
        ports: (1..=ports).map(|number| ServicePort { port: number, ..port.clone() }).collect(),
        ..service(1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_asks_for_too_much_costs_the_others_nothing() {
    let (mut reconciler, status) = settled(3).await;
    let limits = Limits { service: 1 << 20, namespace: 2 << 20, node: 4 << 20 };
    let resolve =
        move |node: Option<&Node>, host: &[IpAddr]| Settings { limits, ..settings(node, host) };
    reconciler.take(Event::Configured(Resolver::new(resolve), TIMING));
    step(&mut reconciler).await;
    let before = reconciler.dataplane().state.virtual_servers.clone();
    reconciler.dataplane().done.clear();
    // One that is too large by itself, and more than fit together.
    reconciler.take(Event::from(Change::Service(large("huge", 1, 200, 1000))));
    for created in 2..8 {
        let service = large(&format!("s{created}"), created, 3, 60);
        reconciler.take(Event::from(Change::Service(service)));
    }
    step(&mut reconciler).await;
    let out = |reconciler: &Reconciler<Memory>, name: &str| {
        let asked = reconciler.desired().contribution(&ObjectKey::new("hostile", name)).cloned();
        asked.unwrap().skipped.first().map(|skipped| skipped.reason)
    };
    let over = |over| Some(Refusal::OverBudget(over));
    assert_eq!(out(&reconciler, "huge"), over(Over::Service));
    assert_eq!(out(&reconciler, "s2"), None, "the oldest are had");
    assert_eq!(out(&reconciler, "s7"), over(Over::Namespace), "the newest are not");
    assert!(status.borrow().refused["budget"] > 1);
    let left = before
        .iter()
        .filter(|(key, it)| reconciler.dataplane.state.virtual_servers.get(key) == Some(*it));
    assert_eq!(left.count(), before.len(), "the other namespace");
    // Room that becomes free is used.
    for name in ["s2", "s3", "s4"] {
        reconciler.take(Event::from(Change::ServiceGone(ObjectKey::new("hostile", name))));
    }
    step(&mut reconciler).await;
    assert_eq!(out(&reconciler, "s7"), None);
    assert_eq!(status.borrow().refused["budget"], 1);
    assert!(status.borrow().synced);
}
