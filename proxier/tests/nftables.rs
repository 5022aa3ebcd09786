//! The table of kube-proxy's nftables mode, made and read back with `nft`: in a network namespace of
//! this machine's kernel, because User-mode Linux has no nftables for IPv4 and IPv6.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/nft.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests crate")]
mod nft_text;
#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use proxier::dataplane::firewall::{FirewallOptions, LocalDetector, ruleset};
use proxier::dataplane::leftovers::NFTABLES_TABLE;
use proxier::dataplane::sets::{Member, SetId, SetRole, SetType};
use proxier::dataplane::{Op, OpErrorKind, SetState, State};
use proxier::kernel::filter::{Failures, Found, Nftables};
use proxier::kernel::tables::Tables;
use proxier::nftables::table_text;

use nft_text::lines;

const TEST: &str = "the_table_is_found_and_deleted_and_no_other";

/// What kube-proxy has in its table, as far as it matters here: a base chain, a map, a set.
const TABLE: &str = "{
    map services { type ipv4_addr . inet_proto . inet_service : verdict; }
    set nodeport-ips { type ipv4_addr; }
    chain nat-prerouting { type nat hook prerouting priority -100; policy accept; jump services; }
    chain services { ip daddr . meta l4proto . th dport vmap @services; }
}";

fn nft(script: &str) -> String {
    let output = Command::new("nft").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn the_table_is_found_and_deleted_and_no_other() {
    own_namespace::in_namespace(TEST, &["--map-root-user"], found_and_deleted);
}

fn found_and_deleted() {
    let mut tables = Tables::open().unwrap();
    for family in [Family::Ipv4, Family::Ipv6] {
        assert!(!tables.has(NFTABLES_TABLE, family).unwrap());
        tables.delete(NFTABLES_TABLE, family).unwrap();
    }
    nft(&format!("table ip kube-proxy {TABLE}"));
    nft("add table ip6 kube-proxy; add chain ip6 kube-proxy services");
    nft("add table ip other; add chain ip other services; add table inet kube-proxy");

    for family in [Family::Ipv4, Family::Ipv6] {
        assert!(tables.has(NFTABLES_TABLE, family).unwrap());
        tables.delete(NFTABLES_TABLE, family).unwrap();
        assert!(!tables.has(NFTABLES_TABLE, family).unwrap());
        // The connection is good for more.
        tables.delete(NFTABLES_TABLE, family).unwrap();
    }
    assert_eq!(nft("list tables"), "table ip other\ntable inet kube-proxy\n");
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn our_tables_are_as_we_print_them_and_read_back() {
    let name = "our_tables_are_as_we_print_them_and_read_back";
    own_namespace::in_namespace(name, &["--map-root-user"], written_and_read);
}

/// A state with members in every set, of both families, in every way in which pods are recognised.
fn states() -> Vec<State> {
    let detectors = [
        LocalDetector::None,
        LocalDetector::Cidr("10.240.0.0/13".parse().unwrap()),
        LocalDetector::Bridge("cbr0".to_owned()),
        LocalDetector::InterfacePrefix("veth".to_owned()),
    ];
    let drops = [
        VirtualServerKey::new(ip("192.0.2.1"), 80, Protocol::Tcp),
        VirtualServerKey::new(ip("2001:db8::1"), 80, Protocol::Udp),
    ];
    let drops = drops.into();
    let state = |(detector, on): (LocalDetector, bool)| {
        let options = FirewallOptions {
            masquerade_all: false,
            random_fully: on,
            answer_ping: on,
            accept_input: on,
            detector,
            split: on.then_some(0x1000),
            ..FirewallOptions::default()
        };
        let mut state = State::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut options = options.clone();
            if let (LocalDetector::Cidr(net), Family::Ipv6) = (&mut options.detector, family) {
                *net = "fd00:240::/29".parse().unwrap();
            }
            let rules = ruleset(family, &options, &drops).for_nftables();
            state.firewall.insert(family, rules);
        }
        for set in SetId::all() {
            let members = members(set);
            let known = SetState { capacity: SetState::UNLIMITED, members, ..SetState::default() };
            state.sets.insert(set, known);
        }
        state
    };
    let detectors = detectors.into_iter().zip([true, false].into_iter().cycle());
    detectors.map(state).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn members(set: SetId) -> BTreeSet<Member> {
    let v4 = set.family == Family::Ipv4;
    let address = |last: u8| {
        if v4 { ip(&format!("10.96.0.{last}")) } else { ip(&format!("fd00:96::{last:x}")) }
    };
    let nets = if v4 {
        ["10.0.0.0/8", "192.0.2.7/32", "128.0.0.0/2"]
    } else {
        ["fd00::/8", "2001:db8::7/128", "::/3"]
    };
    let all = (1..=7).map(|n| (address(n), u16::from(n) + 30000));
    let of = |(n, (address, port)): (usize, (IpAddr, u16))| {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][n % 3];
        match set.set_type() {
            SetType::HashIp => Member::Ip(address),
            SetType::BitmapPort => Member::Port(port),
            SetType::HashIpPort => Member::IpPort(address, protocol, port),
            SetType::Expiring => {
                let mark =
                    if set.role == SetRole::LocalMark { 0x1000 + u32::from(port) } else { 0 };
                Member::Marked(address, protocol, port, mark)
            }
            SetType::HashIpPortIp => Member::IpPortIp(address, protocol, port, address),
            SetType::HashIpPortNet => {
                Member::IpPortNet(address, protocol, port, nets[n % 3].parse().unwrap())
            }
        }
    };
    all.enumerate().map(of).collect()
}

/// What brings a table from nothing, or from another state, to a state.
fn operations(state: &State) -> Vec<Op> {
    let sets = state.sets.keys().map(|set| Op::CreateSet(*set, SetState::UNLIMITED));
    let rules = state.firewall.iter();
    let rules = rules.map(|(family, rules)| Op::InstallFirewall(*family, rules.clone()));
    let members = state
        .sets
        .iter()
        .flat_map(|(set, known)| known.members.iter().map(|member| Op::AddMember(*set, *member)));
    sets.chain(rules).chain(members).collect()
}

fn execute(nftables: &mut Nftables, ops: &[Op]) -> Failures {
    nftables.execute(&ops.iter().collect::<Vec<_>>())
}

fn read(nftables: &mut Nftables) -> State {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut state = State::default();
    for set in SetId::all() {
        match nftables.set(set).unwrap() {
            Found::State(found) => state.sets.extend(found.map(|found| (set, found))),
            Found::Unchanged => panic!("{set} was never read"),
        }
    }
    let look = nftables.look(&[Family::Ipv4, Family::Ipv6]);
    for (family, found) in runtime.block_on(look) {
        let found = found.unwrap();
        assert!(found.leftovers.is_empty());
        state.firewall.extend(found.rules.map(|rules| (family, rules)));
    }
    state
}

fn written_and_read() {
    let mut nftables = Nftables::open(None).unwrap();
    assert_eq!(read(&mut nftables), State::default());
    for state in states() {
        assert_eq!(execute(&mut nftables, &operations(&state)), []);
        for (family, name) in [(Family::Ipv4, "ip"), (Family::Ipv6, "ip6")] {
            let printed = nft(&format!("list table {name} proxier"));
            let (printed, ours) = (lines(&printed), lines(&table_text(&state, family)));
            for (printed, ours) in printed.iter().zip(&ours) {
                assert_eq!(printed, ours);
            }
            assert_eq!(printed.len(), ours.len());
        }
        let mut other = Nftables::open(None).unwrap();
        assert_eq!(read(&mut other), state);
        // nft takes what we print, and makes the same of it.
        let printed =
            [Family::Ipv4, Family::Ipv6].map(|family| table_text(&state, family)).concat();
        nft("flush ruleset");
        std::fs::write("/tmp/proxier-nftables-test", &printed).unwrap();
        let loaded =
            Command::new("nft").args(["-f", "/tmp/proxier-nftables-test"]).status().unwrap();
        assert!(loaded.success());
        let mut other = Nftables::open(None).unwrap();
        let read = read(&mut other);
        assert_eq!(read.sets, state.sets);
        nft("flush ruleset");
    }
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn chains_that_hold_packets_back_come_and_go() {
    let name = "chains_that_hold_packets_back_come_and_go";
    own_namespace::in_namespace(name, &["--map-root-user"], held_back);
}

fn held_back() {
    let mut nftables = Nftables::open(None).unwrap();
    let mut state = states().swap_remove(1);
    let plain: Vec<Op> = operations(&state);
    for rules in state.firewall.values_mut() {
        *rules = rules.holding();
    }
    assert_eq!(execute(&mut nftables, &operations(&state)), []);
    assert_eq!(read(&mut Nftables::open(None).unwrap()), state);
    let printed = nft("list table ip6 proxier");
    for line in [
        "type filter hook input priority 110; policy accept;",
        "ct direction original fib daddr type != local jump hold-requests",
        "ip6 daddr . meta l4proto . th dport @load-balancer-ips drop",
        "ct direction original udp dport @node-ports-udp drop",
        "ct direction reply jump hold-answers",
        "icmpv6 type destination-unreachable icmpv6 code port-unreachable ip6 saddr @service-ips drop",
    ] {
        assert!(printed.contains(line), "{line}\n{printed}");
    }
    // One is missing: what there is is not what is wanted.
    nft("flush chain ip proxier hold-output");
    assert_ne!(read(&mut Nftables::open(None).unwrap()), state);
    assert_eq!(execute(&mut nftables, &plain), []);
    assert!(!nft("list ruleset").contains("hold-"));
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn what_the_kernel_refuses_stops_nothing_else() {
    let name = "what_the_kernel_refuses_stops_nothing_else";
    own_namespace::in_namespace(name, &["--map-root-user"], refused_and_read);
}

fn refused_and_read() {
    let mut nftables = Nftables::open(None).unwrap();
    let sets: Vec<SetId> = SetId::all().filter(|set| set.family == Family::Ipv4).collect();
    let create: Vec<Op> =
        sets.iter().skip(1).map(|set| Op::CreateSet(*set, SetState::UNLIMITED)).collect();
    assert_eq!(execute(&mut nftables, &create), []);

    // One set is not there; of another one, some members were never in it.
    let (missing, present) = (sets[0], SetRole::ClusterIp.of(Family::Ipv4));
    let (some, all) = (members(missing), members(present));
    let all_members = all.clone();
    let strange = Member::IpPort(ip("198.51.100.1"), Protocol::Tcp, 1);
    let mut ops: Vec<Op> = all.iter().map(|it| Op::AddMember(present, *it)).collect();
    ops.insert(2, Op::AddMember(missing, *some.first().unwrap()));
    ops.insert(4, Op::RemoveMember(present, strange));
    let failures = execute(&mut nftables, &ops);
    let places: Vec<_> = failures.iter().map(|(at, error)| (*at, error.kind)).collect();
    assert_eq!(places, [(2, OpErrorKind::Unknown), (4, OpErrorKind::Unknown)]);
    let text = &failures[0].1.text;
    assert!(text.contains("hairpin") && text.contains("No such file"), "{text}");
    let printed = nft("list set ip proxier cluster-ips");
    for member in &all {
        let Member::IpPort(address, protocol, port) = member else { unreachable!() };
        assert!(printed.contains(&format!("{address} . {protocol} . {port}")), "{printed}");
    }

    // What was written is read once, and then only where somebody else has changed something.
    let state = |found: Found| match found {
        Found::State(Some(state)) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(nftables.set(missing).unwrap(), Found::State(None));
    assert_eq!(state(nftables.set(present).unwrap()).members, all, "read after a failure");
    assert_eq!(execute(&mut nftables, &[Op::AddMember(present, strange)]), []);
    assert_eq!(execute(&mut nftables, &[Op::RemoveMember(present, strange)]), []);
    assert_eq!(nftables.set(present).unwrap(), Found::Unchanged, "the changes were our own");
    nft("add element ip proxier cluster-ips { 198.51.100.2 . tcp . 2 comment \"mine\" }");
    nftables.doubt().raise();
    let found = state(nftables.set(present).unwrap());
    assert_eq!((found.members, found.foreign.len()), (all.clone(), 1));
    assert_eq!(nftables.set(present).unwrap(), Found::Unchanged);

    // It goes by what it was read as.
    let foreign = Op::RemoveForeignMembers(present, found.foreign.into_iter().collect());
    assert_eq!(execute(&mut nftables, &[foreign]), []);
    let mut other = Nftables::open(None).unwrap();
    let found = state(other.set(present).unwrap());
    assert_eq!((found.members, found.foreign.len()), (all, 0));

    // What changes nothing is no generation for the kernel: the next change of others is seen.
    let again = Op::AddMember(present, *all_members.first().unwrap());
    assert_eq!(execute(&mut nftables, &[again]), []);
    nft("delete element ip proxier cluster-ips { 10.96.0.1 . tcp . 30001 }");
    nftables.doubt().raise();
    assert_eq!(state(nftables.set(present).unwrap()).members.len(), 6);
    nft("add element ip proxier cluster-ips { 10.96.0.1 . tcp . 30001 }");

    // In a user namespace the send buffer cannot be forced: what is longer goes in parts.
    let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
    let most: u32 = 2 * most.trim().parse::<u32>().unwrap();
    let address = |n: u32| IpAddr::from((0x0b00_0000 + n).to_be_bytes());
    // An element takes 24 bytes.
    let many = (0..most / 20).map(|n| Member::IpPort(address(n), Protocol::Tcp, 80));
    let many: Vec<Op> = many.map(|member| Op::AddMember(present, member)).collect();
    assert_eq!(execute(&mut nftables, &many), []);
    let mut other = Nftables::open(None).unwrap();
    assert_eq!(state(other.set(present).unwrap()).members.len(), many.len() + 7);

    // Another table is nobody's business, but nobody knows what else was changed.
    nft("add table ip other");
    nftables.doubt().raise();
    assert_ne!(nftables.set(present).unwrap(), Found::Unchanged);
    nft("flush ruleset");
    nftables.doubt().raise();
    assert_eq!(nftables.set(present).unwrap(), Found::State(None));
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn networks_give_way_to_others_that_have_addresses_of_theirs() {
    let name = "networks_give_way_to_others_that_have_addresses_of_theirs";
    own_namespace::in_namespace(name, &["--map-root-user"], given_way);
}

fn given_way() {
    let mut nftables = Nftables::open(None).unwrap();
    let set = SetRole::LoadBalancerSourceCidr.of(Family::Ipv4);
    let member =
        |net: &str| Member::IpPortNet(ip("192.0.2.1"), Protocol::Tcp, 80, net.parse().unwrap());
    let first =
        [Op::CreateSet(set, SetState::UNLIMITED), Op::AddMember(set, member("10.1.0.0/16"))];
    assert_eq!(execute(&mut nftables, &first), []);
    let nets = ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/25", "10.1.2.0/24", "10.0.0.0/8"];
    for pair in nets.windows(2) {
        let (old, new) = (member(pair[0]), member(pair[1]));
        // In the order of a plan.
        let ops = [Op::AddMember(set, new), Op::RemoveMember(set, old)];
        assert_eq!(execute(&mut nftables, &ops), [], "{pair:?}");
        let Found::State(found) = Nftables::open(None).unwrap().set(set).unwrap() else {
            panic!("a set that was never read");
        };
        assert_eq!(found.unwrap().members, BTreeSet::from([new]));
    }
}
