use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_ipvs::{
    Flags, RealServer, RealServerConfig, RealServerKey, Scheduler, VirtualServerConfig,
};

use super::*;
use crate::builders::{ip, real_server, rules, settings, virtual_server};
use crate::dataplane::leftovers::Leftover;
use crate::dataplane::sets::Member;
use crate::dataplane::{Connections, Part, SetState};

const TCP: &str = "10.96.0.1:80/tcp";
const UDP: &str = "10.96.0.1:53/udp";

fn state() -> State {
    let sets = SetId::all().map(|set| (set, SetState::default()));
    State { sets: sets.collect(), ..State::default() }
}

fn servers(list: &[(&str, u32)]) -> Arc<VirtualServerState> {
    let mut real_servers: Vec<RealServer> = list
        .iter()
        .map(|(key, weight)| RealServer {
            key: real_server(key),
            config: RealServerConfig::masquerade(*weight),
        })
        .collect();
    real_servers.sort_unstable();
    let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
    Arc::new(VirtualServerState { config, real_servers: real_servers.into() })
}

fn with(key: &str, list: &[(&str, u32)]) -> State {
    let mut state = state();
    state.virtual_servers.insert(virtual_server(key), servers(list));
    state
}

/// The whole way from one state to another, without drains.
fn way(from: &State, to: &State) -> Vec<String> {
    let touched = from.differences(to);
    let plan = plan(Planning::new(to, from, &Drains::new(Duration::ZERO), &settings()), &touched);
    plan.ops.iter().map(ToString::to_string).collect()
}

/// A cluster IP with all that goes with it.
fn service(address: &str) -> State {
    let mut state = state();
    let address = ip(address);
    let key = VirtualServerKey::new(address, 80, Protocol::Tcp);
    state.virtual_servers.insert(key, servers(&[("10.244.0.1:80", 1)]));
    state.interface.addresses.insert(address);
    let mut add = |role: SetRole, member| {
        let set = role.of(Family::of(address));
        state.sets.entry(set).or_default().members.insert(member);
    };
    add(SetRole::ClusterIp, Member::IpPort(address, Protocol::Tcp, 80));
    add(SetRole::IpvsIps, Member::Ip(address));
    state
}

#[test]
fn makes_before_it_breaks() {
    let (mut old, mut new) = (service("10.96.0.1"), service("10.96.0.2"));
    let set = SetRole::LoopBack.of(Family::Ipv4);
    old.sets.remove(&set);
    old.firewall.insert(Family::Ipv4, rules("old"));
    new.firewall.insert(Family::Ipv4, rules("new"));
    let shared = virtual_server("10.96.0.3:80/tcp");
    old.virtual_servers.insert(shared, servers(&[("10.244.0.1:80", 1), ("10.244.0.2:80", 1)]));
    new.virtual_servers.insert(shared, servers(&[("10.244.0.2:80", 0), ("10.244.0.3:80", 1)]));
    assert_eq!(
        way(&old, &new),
        [
            "create set KUBE-LOOP-BACK",
            "install IPv4 firewall rules",
            "add 10.96.0.2,tcp:80 to set KUBE-CLUSTER-IP",
            "add 10.96.0.2 to set KUBE-IPVS-IPS",
            "add virtual server 10.96.0.2:80/tcp rr",
            "add real server 10.244.0.1:80 to 10.96.0.2:80/tcp, weight 1",
            "add real server 10.244.0.3:80 to 10.96.0.3:80/tcp, weight 1",
            "set real server 10.244.0.2:80 of 10.96.0.3:80/tcp to weight 0",
            "bind 10.96.0.2",
            "unbind 10.96.0.1",
            "remove real server 10.244.0.1:80 of 10.96.0.3:80/tcp",
            "remove virtual server 10.96.0.1:80/tcp",
            "remove 10.96.0.1 from set KUBE-IPVS-IPS",
            "remove 10.96.0.1,tcp:80 from set KUBE-CLUSTER-IP",
        ]
    );
    assert_eq!(way(&new, &new), [""; 0]);
}

#[test]
fn what_needs_something_that_cannot_be_made_now_waits_for_it() {
    let (family, set) = (Family::Ipv4, SetRole::ClusterIp.of(Family::Ipv4));
    let leftover = Leftover::Iptables(family);
    let mut new = service("10.96.0.1");
    new.firewall.insert(family, rules("new"));
    let mut old = State { leftovers: [leftover].into(), ..state() };
    old.sets.remove(&set);
    let member = Member::IpPort(ip("10.96.0.1"), Protocol::Tcp, 80);
    for unread in [Subject::Part(Part::Set(set)), Subject::Target(Target::Set(set))] {
        let waits = |target: &Target| (*target == Target::Set(set)).then_some(unread);
        let (drains, settings) = (Drains::new(Duration::ZERO), settings());
        let from = Planning { waits: &waits, ..Planning::new(&new, &old, &drains, &settings) };
        let plan = plan(from, &old.differences(&new));
        for target in [Target::Set(set), Target::Member(set, member)] {
            assert!(plan.held.contains(&(target, unread)), "{target}: {:?}", plan.held);
            assert!(!plan.ops.iter().any(|op| op.target() == target), "{target}: {:?}", plan.ops);
        }
        // Rules can refer to a set that somebody else made; what they replace waits for them.
        let at = |target| plan.ops.iter().position(|op| op.target() == target).unwrap();
        let rules = Target::Firewall(family);
        assert!(!plan.needs.contains_key(&at(rules)));
        assert_eq!(*plan.needs[&at(Target::Leftover(leftover))].all, [rules]);
    }
    // Rules that have to wait themselves leave in place what does the work.
    let rules = Target::Firewall(family);
    let waits = |target: &Target| (*target == rules).then_some(Subject::Target(rules));
    let (drains, settings) = (Drains::new(Duration::ZERO), settings());
    let from = Planning { waits: &waits, ..Planning::new(&new, &old, &drains, &settings) };
    let plan = plan(from, &old.differences(&new));
    assert!(plan.held.contains(&(Target::Leftover(leftover), Subject::Target(rules))));
}

#[test]
fn an_address_is_opened_before_it_is_closed_to_others_and_the_other_way_round() {
    let address = ip("1.2.3.4");
    let mut restricted = state();
    let net = "10.0.0.0/8".parse().unwrap();
    for (role, member) in [
        (SetRole::LoadBalancerFw, Member::IpPort(address, Protocol::Tcp, 80)),
        (SetRole::LoadBalancerSourceCidr, Member::IpPortNet(address, Protocol::Tcp, 80, net)),
        (SetRole::LoadBalancerSourceIp, Member::IpPortIp(address, Protocol::Tcp, 80, address)),
    ] {
        restricted.sets.entry(role.of(Family::Ipv4)).or_default().members.insert(member);
    }
    let restrict = way(&state(), &restricted);
    assert_eq!(restrict.last().unwrap(), "add 1.2.3.4,tcp:80 to set KUBE-LOAD-BALANCER-FW");
    let free = way(&restricted, &state());
    assert_eq!(free[0], "remove 1.2.3.4,tcp:80 from set KUBE-LOAD-BALANCER-FW");
    assert_eq!((restrict.len(), free.len()), (3, 3));
}

#[test]
fn b16_i02_weights_are_set_in_place() {
    let change = |from: u32, to: u32| {
        way(&with(TCP, &[("10.244.0.1:80", from)]), &with(TCP, &[("10.244.0.1:80", to)]))
    };
    let set = |weight: u32| format!("set real server 10.244.0.1:80 of {TCP} to weight {weight}");
    assert_eq!(change(0, 1), [set(1)]);
    assert_eq!(change(100, 1), [set(1)]);
    assert_eq!(change(1, 0), [set(0)]);
    assert_eq!(change(1, 1), [""; 0]);
}

#[test]
fn d01_to_d09_virtual_servers_are_changed_in_place() {
    let base = with(TCP, &[("10.244.0.1:80", 1)]);
    let changed = |change: fn(&mut VirtualServerConfig)| {
        let mut state = base.clone();
        let server = state.virtual_servers.get_mut(&virtual_server(TCP)).unwrap();
        change(&mut Arc::make_mut(server).config);
        way(&base, &state)
    };
    assert_eq!(changed(|_| {}), [""; 0], "D01");
    assert_eq!(
        changed(|config| config.flags = Flags::PERSISTENT),
        [format!("change virtual server {TCP} to rr")],
        "D02"
    );
    assert_eq!(
        changed(|config| config.scheduler = Scheduler::WLC),
        [format!("change virtual server {TCP} to wlc")],
        "D03"
    );
    assert_eq!(
        changed(|config| config.timeout = 9),
        [format!("change virtual server {TCP} to rr")]
    );
    assert_eq!(changed(|config| config.prefix_len = 24).len(), 1);
    let mut bound = state();
    assert_eq!(way(&base, &base), [""; 0], "D09: bound already");
    bound.interface.addresses.insert(ip("1.2.3.4"));
    assert_eq!(way(&state(), &bound), ["bind 1.2.3.4"], "D04 D08");
}

#[test]
fn d10_to_d13_what_is_not_ours_is_not_removed() {
    let settings = Settings {
        families: vec![Family::Ipv4],
        exclude_cidrs: vec!["3.3.3.0/24".parse().unwrap(), "4.4.4.4/32".parse().unwrap()],
        ..settings()
    };
    let mut kernel = state();
    for key in ["3.3.3.3:55/tcp", "4.4.4.4:56/udp", "5.5.5.5:57/tcp", "[5000::1]:57/tcp"] {
        kernel.virtual_servers.insert(virtual_server(key), servers(&[("10.244.0.1:80", 1)]));
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let key = VirtualServerKey::FirewallMark { mark: 7, family };
        kernel.virtual_servers.insert(key, servers(&[("10.244.0.1:80", 1)]));
    }
    kernel.interface.addresses = ["4.4.4.4", "6.6.6.6", "fd00::1"].map(ip).into();
    for (address, role) in [("6.6.6.6", SetRole::IpvsIps), ("fd00::1", SetRole::IpvsIps)] {
        let set = role.of(Family::of(ip(address)));
        kernel.sets.get_mut(&set).unwrap().members.insert(Member::Ip(ip(address)));
    }
    let desired = State {
        sets: state().sets.into_iter().filter(|(set, _)| set.family == Family::Ipv4).collect(),
        ..State::default()
    };
    let touched = kernel.differences(&desired);
    let drains = Drains::new(Duration::ZERO);
    let planned = plan(Planning::new(&desired, &kernel, &drains, &settings), &touched);
    let ops: Vec<String> = planned.ops.iter().map(ToString::to_string).collect();
    // Addresses on our interface are ours whatever they are, if we serve their family.
    assert_eq!(
        ops,
        [
            "unbind 4.4.4.4",
            "unbind 6.6.6.6",
            "remove virtual server 5.5.5.5:57/tcp",
            "remove 6.6.6.6 from set KUBE-IPVS-IPS",
        ]
    );
    assert_eq!(planned.intended, [(virtual_server("5.5.5.5:57/tcp"), None)].into());
}

#[test]
fn an_excluded_virtual_server_that_is_wanted_is_kept_as_wanted() {
    let settings = Settings { exclude_cidrs: vec!["10.96.0.0/16".parse().unwrap()], ..settings() };
    let (old, new) = (with(TCP, &[("10.244.0.1:80", 1)]), with(TCP, &[("10.244.0.2:80", 1)]));
    let touched = old.differences(&new);
    let planned =
        plan(Planning::new(&new, &old, &Drains::new(Duration::ZERO), &settings), &touched);
    assert_eq!(planned.ops.len(), 2);
}

#[test]
fn sets_grow_before_they_would_overflow() {
    let set = SetRole::IpvsIps.of(Family::Ipv4);
    let holding = |capacity: u32, members: std::ops::Range<u8>| {
        let mut state = state();
        let members = members.map(|n| Member::Ip(IpAddr::from([10, 96, 0, n]))).collect();
        state.sets.insert(set, SetState { capacity, members, ..SetState::default() });
        state
    };
    let grown = |from: &State, to: &State| {
        let ops = way(from, to);
        ops.into_iter().find(|op| op.starts_with("grow") || op.starts_with("create"))
    };
    let grow = |capacity: u32| Some(format!("grow set KUBE-IPVS-IPS to {capacity} members"));
    // More are wanted than fit.
    assert_eq!(grown(&holding(4, 0..4), &holding(8, 0..5)), grow(8));
    // As many as before, but all others: for a moment the set holds both.
    assert_eq!(grown(&holding(4, 0..4), &holding(4, 4..8)), grow(8));
    assert_eq!(grown(&holding(4, 0..2), &holding(4, 2..4)), None);
    // A foreign member takes a place as well.
    assert_eq!(grown(&holding(4, 0..4), &holding(4, 1..5)), grow(8));
    // A set that is larger than wanted stays so.
    assert_eq!(way(&holding(16, 0..4), &holding(4, 0..4)), [""; 0]);
    // It grows once, first of all.
    let ops = way(&holding(1, 0..1), &holding(64, 1..9));
    assert_eq!(ops.iter().filter(|op| op.starts_with("grow")).count(), 1);
    assert!(ops[0].starts_with("grow set KUBE-IPVS-IPS to 64"));
    // Bitmaps hold every port.
    let ports = SetRole::NodePortTcp.of(Family::Ipv4);
    let mut small = state();
    small.sets.get_mut(&ports).unwrap().capacity = 0;
    assert_eq!(way(&small, &state()), [""; 0]);
}

#[test]
fn real_servers_are_added_in_an_order_of_the_nodes_own() {
    let pods: Vec<String> = (1..=20).map(|n| format!("10.244.0.{n}:80")).collect();
    let pods: Vec<(&str, u32)> = pods.iter().map(|pod| (pod.as_str(), 1)).collect();
    let desired = with(TCP, &pods);
    let order = |node: &str, believed: &State| -> Vec<RealServerKey> {
        let mut settings = settings();
        settings.place.node = node.into();
        let touched = believed.differences(&desired);
        let planned = plan(
            Planning::new(&desired, believed, &Drains::new(Duration::ZERO), &settings),
            &touched,
        );
        let added = planned.ops.iter().filter_map(|op| match op {
            Op::AddRealServer(_, server) => Some(server.key),
            _ => None,
        });
        added.collect()
    };
    let one = order("node-1", &state());
    assert_eq!(one.len(), 20);
    assert_eq!(one, order("node-1", &state()), "always the same");
    assert_ne!(one, order("node-2", &state()), "not that of another node");
    assert!(!one.is_sorted());
    // Those that are added later keep their places among each other.
    let half: Vec<(&str, u32)> = pods.iter().step_by(2).copied().collect();
    let rest = order("node-1", &with(TCP, &half));
    let expected: Vec<_> = one.into_iter().filter(|key| rest.contains(key)).collect();
    assert_eq!(rest, expected);
    assert_eq!(rest.len(), 10);
}

/// The kernel fills the table of hashes in the order in which they were added: a client is to reach the
/// same one through any node.
#[test]
fn hashing_schedulers_have_the_same_order_on_every_node() {
    let pods: Vec<String> = (1..=20).map(|n| format!("10.244.0.{n}:80")).collect();
    let pods: Vec<(&str, u32)> = pods.iter().map(|pod| (pod.as_str(), 1)).collect();
    for scheduler in [Scheduler::MH, Scheduler::SH] {
        let mut desired = with(TCP, &pods);
        for server in desired.virtual_servers.values_mut() {
            Arc::make_mut(server).config.scheduler = scheduler;
        }
        let order = |node: &str| -> Vec<Op> {
            let mut settings = settings();
            settings.place.node = node.into();
            let (believed, drains) = (state(), Drains::new(Duration::ZERO));
            let touched = believed.differences(&desired);
            let planned =
                plan(Planning::new(&desired, &believed, &drains, &settings), &touched).ops;
            planned.into_iter().filter(|op| matches!(op, Op::AddRealServer(..))).collect()
        };
        assert_eq!(order("node-1").len(), 20);
        assert_eq!(order("node-1"), order("node-2"));
    }
}

#[test]
fn stale_udp_flows_are_deleted_last() {
    let (a, b) = (("10.244.0.1:53", 1), ("10.244.0.2:53", 1));
    let kept = |from: &State, to: &State| -> Option<Vec<String>> {
        let touched = from.differences(to);
        let planned =
            plan(Planning::new(to, from, &Drains::new(Duration::ZERO), &settings()), &touched);
        let Some(Op::ForgetFlows(key, keep)) = planned.ops.last() else { return None };
        assert_eq!(*key, virtual_server(UDP));
        Some(keep.iter().map(|server| server.key.to_string()).collect())
    };
    let names = |list: &[(&str, u32)]| -> Option<Vec<String>> {
        Some(list.iter().map(|(key, _)| (*key).to_owned()).collect())
    };
    // An endpoint goes, all go, the virtual server goes.
    assert_eq!(kept(&with(UDP, &[a, b]), &with(UDP, &[b])), names(&[b]));
    assert_eq!(kept(&with(UDP, &[a]), &with(UDP, &[])), names(&[]));
    assert_eq!(kept(&with(UDP, &[a]), &state()), names(&[]));
    // Where there was nobody, clients may have a flow to nowhere.
    assert_eq!(kept(&state(), &with(UDP, &[a])), names(&[a]));
    assert_eq!(kept(&with(UDP, &[]), &with(UDP, &[a])), names(&[a]));
    // Nothing became stale.
    assert_eq!(kept(&with(UDP, &[a]), &with(UDP, &[a, b])), None);
    assert_eq!(kept(&state(), &with(UDP, &[])), None);
    assert_eq!(kept(&with(UDP, &[]), &state()), None);
    // TCP and SCTP connections end by themselves.
    assert_eq!(kept(&with(TCP, &[a, b]), &with(TCP, &[b])), None);
    assert_eq!(kept(&with("10.96.0.1:9/sctp", &[a]), &state()), None);
}

#[test]
fn a_drain_from_its_start_to_its_end() {
    let key = virtual_server(TCP);
    let pods = [("10.244.0.1:80", 1), ("10.244.0.2:80", 1)];
    let mut drains = Drains::new(Duration::from_mins(1));
    let now = Instant::now();
    let mh = |mut state: State| {
        let server = state.virtual_servers.get_mut(&key).unwrap();
        Arc::make_mut(server).config.scheduler = Scheduler::MH;
        state
    };
    let (mut believed, desired) = (mh(with(TCP, &pods)), mh(with(TCP, &pods[1..])));
    let mut step = |drains: &mut Drains| -> Vec<String> {
        let (wanted, found) =
            (desired.virtual_servers.get(&key), believed.virtual_servers.get(&key));
        drains.update(&key, Some(Protocol::Tcp), wanted, found, now);
        let planned = plan(
            Planning::new(&desired, &believed, drains, &settings()),
            &[Target::VirtualServer(key)].into(),
        );
        for (key, intended) in planned.intended {
            believed.virtual_servers.insert(key, intended.unwrap());
        }
        planned.ops.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        step(&mut drains),
        [
            format!("change virtual server {TCP} to mh"),
            format!("set real server 10.244.0.1:80 of {TCP} to weight 0"),
        ]
    );
    assert_eq!(step(&mut drains), [""; 0]);
    let config = RealServerConfig::masquerade(0);
    let drained = RealServer { key: real_server("10.244.0.1:80"), config };
    drains.count(&[(key, drained, Connections::default())], now);
    // The flag goes after the server for which it was there.
    assert_eq!(
        step(&mut drains),
        [
            format!("remove real server 10.244.0.1:80 of {TCP}"),
            format!("change virtual server {TCP} to mh"),
        ]
    );
    assert_eq!(step(&mut drains), [""; 0]);
    assert_eq!(drains.virtual_servers(), []);
}

#[test]
fn a_plan_says_what_every_virtual_server_is_to_be() {
    let (old, new) = (with(TCP, &[("10.244.0.1:80", 1)]), with(UDP, &[]));
    let touched: BTreeSet<Target> = old.targets().chain(new.targets()).collect();
    let planned =
        plan(Planning::new(&new, &old, &Drains::new(Duration::ZERO), &settings()), &touched);
    let wanted = new.virtual_servers[&virtual_server(UDP)].clone();
    assert_eq!(
        planned.intended,
        [(virtual_server(UDP), Some(wanted)), (virtual_server(TCP), None)].into()
    );
    let nothing =
        plan(Planning::new(&new, &new, &Drains::new(Duration::ZERO), &settings()), &touched);
    assert!(nothing.is_empty() && nothing.intended.is_empty());
}

#[test]
fn what_is_not_touched_is_not_planned() {
    let (old, new) = (service("10.96.0.1"), service("10.96.0.2"));
    let key = virtual_server("10.96.0.2:80/tcp");
    let mut old = old;
    old.virtual_servers.insert(key, new.virtual_servers[&key].clone());
    for set in [SetRole::ClusterIp, SetRole::IpvsIps].map(|role| role.of(Family::Ipv4)) {
        let members = new.sets[&set].members.clone();
        old.sets.get_mut(&set).unwrap().members.extend(members);
    }
    let touched = [Target::Address(ip("10.96.0.2"))].into();
    let planned =
        plan(Planning::new(&new, &old, &Drains::new(Duration::ZERO), &settings()), &touched);
    assert_eq!(planned.ops, [Op::Bind(ip("10.96.0.2"))]);
}

#[test]
fn a_virtual_server_comes_with_its_real_servers() {
    // What somebody else has removed, while the addresses are bound.
    let mut desired = state();
    let keys = [TCP, UDP].map(virtual_server);
    for key in keys {
        let server = servers(&[("10.244.1.1:80", 1), ("10.244.1.2:80", 1)]);
        desired.virtual_servers.insert(key, server);
    }
    let touched = keys.map(Target::VirtualServer).into();
    let drains = Drains::new(Duration::ZERO);
    let (believed, settings) = (state(), settings());
    let plan = plan(Planning::new(&desired, &believed, &drains, &settings), &touched);
    let of: Vec<_> = plan.ops.iter().filter_map(|op| op.target().virtual_server()).collect();
    assert!(of.len() >= 6, "{:?}", plan.ops);
    for key in keys {
        let at = of.iter().position(|of| *of == key).unwrap();
        assert_eq!(of[at..at + 3], [key; 3], "{:?}", plan.ops);
        assert!(matches!(plan.ops[at], Op::AddVirtualServer(..)), "{:?}", plan.ops);
    }
}

#[test]
fn rules_in_place_of_our_other_backend_s_come_after_all_members_and_before_new_addresses() {
    let family = Family::Ipv4;
    let table = Leftover::OwnTable(family);
    let mut new = service("10.96.0.1");
    let other = service("10.96.0.2");
    new.virtual_servers.extend(other.virtual_servers.clone());
    new.interface.addresses.extend(&other.interface.addresses);
    for (set, known) in &other.sets {
        new.sets.entry(*set).or_default().members.extend(known.members.iter().copied());
    }
    new.firewall.insert(family, rules("new"));
    // One of them is served, by the rules and sets of the other backend.
    let mut old = State { leftovers: [table].into(), ..state() };
    let served = service("10.96.0.1");
    (old.virtual_servers, old.interface) = (served.virtual_servers, served.interface);

    let (drains, settings) = (Drains::new(Duration::ZERO), settings());
    let first = plan(Planning::new(&new, &old, &drains, &settings), &old.differences(&new));
    assert_eq!(first.ops.last(), Some(&Op::InstallFirewall(family, rules("new"))));
    let bind = Target::Address(ip("10.96.0.2"));
    let waits = Subject::Target(Target::Firewall(family));
    for target in [bind, Target::Leftover(table)] {
        assert!(first.held.contains(&(target, waits)), "{target}: {:?}", first.held);
    }
    assert!(first.ops.iter().all(|op| !matches!(op, Op::RemoveRealServer(..))), "{:?}", first.ops);

    old.firewall.insert(family, rules("new"));
    let then = plan(Planning::new(&new, &old, &drains, &settings), &old.differences(&new));
    assert!(then.ops.contains(&Op::Bind(ip("10.96.0.2"))), "{:?}", then.ops);
    assert_eq!(then.ops.last(), Some(&Op::RemoveLeftover(table)));
}
