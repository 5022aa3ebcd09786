//! Rows J04 to J17: a set that holds one thing and should hold another. Rows D: the same of virtual
//! servers. Rows K07 to K09: what tells virtual and real servers apart, and how they are written.

use std::collections::BTreeSet;
use std::time::Duration;

use netlink_ipvs::{
    Family, Flags, Protocol, RealServerKey, Scheduler, VirtualServerConfig, VirtualServerKey,
};
use proxier::builders::*;
use proxier::dataplane::sets::{Member, SetRole};
use proxier::dataplane::{
    Desired, Drains, Planning, RealServers, Settings, State, Target, VirtualServerState, plan,
};
use proxier::memory::Memory;

fn members(list: &[Member]) -> BTreeSet<Member> {
    list.iter().copied().collect()
}

fn tcp(address: &str, port: u16) -> Member {
    Member::IpPort(ip(address), Protocol::Tcp, port)
}

fn pair(address: &str, protocol: Protocol, other: &str) -> Member {
    Member::IpPortIp(ip(address), protocol, 80, ip(other))
}

fn net(address: &str, net: &str) -> Member {
    Member::IpPortNet(ip(address), Protocol::Tcp, 80, net.parse().unwrap())
}

/// The operations from what the kernel holds to what is wanted, and what it holds then.
fn way(
    kernel: State,
    desired: &State,
    touched: &BTreeSet<Target>,
    settings: &Settings,
) -> (Vec<String>, State) {
    let planned =
        plan(Planning::new(desired, &kernel, &Drains::new(Duration::ZERO), settings), touched);
    let mut memory = Memory::new();
    memory.state = kernel;
    for op in &planned.ops {
        memory.run(op).unwrap_or_else(|error| panic!("{}", error.text));
    }
    (planned.ops.iter().map(ToString::to_string).collect(), memory.state)
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn a_set_is_brought_to_what_is_wanted() {
    use Family::{Ipv4, Ipv6};
    let udp = Member::IpPort(ip("172.17.0.5"), Protocol::Udp, 53);
    let sctp = |address: &str| Member::IpPort(ip(address), Protocol::Sctp, 80);
    let ports = |list: &[u16]| list.iter().copied().map(Member::Port).collect::<Vec<_>>();
    let six = "fe80::202:b3ff:fe1e:8329";
    for (id, role, family, wanted, present) in [
        ("J04", SetRole::ClusterIp, Ipv4, vec![tcp("172.17.0.4", 80)], vec![]),
        // However it is written, an address is one address.
        (
            "J05",
            SetRole::ClusterIp,
            Ipv6,
            vec![tcp("FE80::0202:B3FF:FE1E:8329", 80)],
            vec![tcp(six, 80)],
        ),
        (
            "J06",
            SetRole::ClusterIp,
            Ipv4,
            vec![tcp("172.17.0.4", 80), tcp("172.17.0.5", 80)],
            vec![udp],
        ),
        (
            "J07",
            SetRole::LoopBack,
            Ipv4,
            vec![pair("172.17.0.4", Protocol::Tcp, "172.17.0.4")],
            vec![pair("172.17.0.4", Protocol::Tcp, "172.17.0.4")],
        ),
        (
            "J08",
            SetRole::LoopBack,
            Ipv6,
            vec![pair(six, Protocol::Tcp, six)],
            vec![pair("1001:ab8::2", Protocol::Udp, "1001:ab8::2")],
        ),
        (
            "J09",
            SetRole::LoopBack,
            Ipv4,
            vec![
                pair("172.17.0.4", Protocol::Tcp, "172.17.0.4"),
                pair("172.17.0.5", Protocol::Tcp, "172.17.0.5"),
            ],
            vec![],
        ),
        (
            "J10",
            SetRole::LoadBalancerSourceCidr,
            Ipv4,
            vec![net("172.17.0.4", "172.18.0.0/16"), net("172.17.0.5", "172.19.0.0/16")],
            vec![],
        ),
        (
            "J11",
            SetRole::LoadBalancerSourceCidr,
            Ipv6,
            vec![net(six, "2001:db8::/32")],
            vec![net(six, "2001:db8::/32")],
        ),
        (
            "J12",
            SetRole::LoadBalancerSourceCidr,
            Ipv4,
            vec![],
            vec![net("172.17.0.4", "172.18.0.0/16")],
        ),
        ("J13", SetRole::NodePortTcp, Ipv4, vec![], ports(&[80])),
        ("J14", SetRole::NodePortTcp, Ipv4, ports(&[8080, 9090]), ports(&[80])),
        ("J15", SetRole::NodePortTcp, Ipv4, ports(&[8080]), ports(&[80, 9090, 8081, 8082])),
        ("J16", SetRole::NodePortSctp, Ipv4, vec![sctp("172.17.0.4")], vec![]),
        ("J17", SetRole::NodePortSctp, Ipv6, vec![sctp(six)], vec![sctp(six)]),
    ] {
        let settings = settings();
        let base = || Desired::new(&settings).state().clone();
        let holding = |list: &[Member]| -> State {
            let mut state = base();
            state.sets.get_mut(&role.of(family)).unwrap().members = members(list);
            state
        };
        let (desired, kernel) = (holding(&wanted), holding(&present));
        let differing = members(&wanted).symmetric_difference(&members(&present)).count();
        let touched = kernel.differences(&desired);
        let (ops, reached) = way(kernel, &desired, &touched, &settings);
        assert_eq!(ops.len(), differing, "{id}: what is right is not touched");
        assert_eq!(reached, desired, "{id}");
    }
}

type Change = fn(&mut VirtualServerConfig);

/// A state with this virtual server, as configured.
fn serving(key: &str, change: Change) -> State {
    let mut state = Desired::new(&settings()).state().clone();
    let key = virtual_server(key);
    let mut config = VirtualServerConfig::new(Scheduler::RR, key.family());
    change(&mut config);
    let real_servers = RealServers::from([]);
    state.virtual_servers.insert(key, VirtualServerState { config, real_servers }.into());
    state
}

/// Rows D01 to D03, D05 to D07 and K07.
#[test]
fn a_virtual_server_is_changed_in_place_whatever_its_protocol() {
    for key in ["1.2.3.4:80/tcp", "1.2.3.4:80/sctp", "1.2.3.4:53/udp", "[fd00::1]:80/tcp"] {
        let kernel = serving(key, |_| {});
        let changes: [(Change, Option<&str>); 4] = [
            (|_| {}, None),
            (|config| config.flags = Flags::PERSISTENT, Some("rr")),
            (|config| config.scheduler = Scheduler::WLC, Some("wlc")),
            (|config| config.timeout = 10_800, Some("rr")),
        ];
        for (change, expected) in changes {
            let desired = serving(key, change);
            let touched = kernel.differences(&desired);
            let (ops, reached) = way(kernel.clone(), &desired, &touched, &settings());
            let expected = expected.map(|name| format!("change virtual server {key} to {name}"));
            assert_eq!(ops, Vec::from_iter(expected));
            assert_eq!(reached, desired);
        }
    }
}

/// Rows D04, D08 and D09.
#[test]
fn a_new_virtual_server_comes_before_its_address() {
    for protocol in ["udp", "sctp"] {
        let key = format!("1.2.3.4:53/{protocol}");
        let mut desired = serving(&key, |_| {});
        desired.interface.addresses.insert(ip("1.2.3.4"));
        let nothing = Desired::new(&settings()).state().clone();
        let touched = nothing.differences(&desired);
        let (ops, reached) = way(nothing, &desired, &touched, &settings());
        let added = format!("add virtual server {key} rr");
        assert_eq!(ops, [added.clone(), "bind 1.2.3.4".to_owned()]);
        assert_eq!(reached, desired);

        let mut bound = Desired::new(&settings()).state().clone();
        bound.interface.addresses.insert(ip("1.2.3.4"));
        let touched = bound.differences(&desired);
        assert_eq!(way(bound, &desired, &touched, &settings()).0, [added]);
    }
}

/// Rows D10 and D13.
#[test]
fn what_is_excluded_stays_in_both_families() {
    for (excluded, wanted, kept, gone) in [
        (
            ["3.3.3.0/24", "4.4.4.0/24"],
            ["1.1.1.1:53/udp", "2.2.2.2:54/tcp"],
            ["3.3.3.3:55/udp", "4.4.4.4:56/tcp"],
            ["5.5.5.5:57/tcp", "6.6.6.6:58/udp"],
        ),
        (
            ["3000::/64", "4000::/64"],
            ["[1000::1]:53/udp", "[1000::2]:54/tcp"],
            ["[3000::1]:55/udp", "[4000::1]:56/tcp"],
            ["[5000::1]:57/tcp", "[1000::6]:58/udp"],
        ),
    ] {
        let exclude_cidrs = excluded.map(|net| net.parse().unwrap()).to_vec();
        let settings = Settings { exclude_cidrs, ..settings() };
        let of = |keys: &[&str]| {
            let mut state = Desired::new(&settings).state().clone();
            for key in keys {
                state.virtual_servers.extend(serving(key, |_| {}).virtual_servers);
            }
            state
        };
        let desired = of(&wanted);
        let kernel = of(&[&wanted[..], &kept, &gone].concat());
        let touched = kernel.differences(&desired);
        let (ops, reached) = way(kernel, &desired, &touched, &settings);
        assert_eq!(ops.len(), 2);
        assert_eq!(reached, of(&[wanted, kept].concat()));
    }
}

/// Rows K07 and K08; configurations are compared by the plan's own tests.
#[test]
fn what_tells_servers_apart() {
    let all = [
        "1.2.3.4:80/tcp",
        "1.2.3.4:80/udp",
        "1.2.3.4:80/sctp",
        "1.2.3.4:81/tcp",
        "1.2.3.5:80/tcp",
        "[2012::beef]:80/tcp",
        "[2012::bee0]:80/tcp",
    ];
    let keys: BTreeSet<VirtualServerKey> = all.into_iter().map(virtual_server).collect();
    assert_eq!(keys.len(), all.len());
    let servers: BTreeSet<RealServerKey> =
        ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[2012::1]:80"].map(real_server).into();
    assert_eq!(servers.len(), 4);
}

/// Row K09; the protocol is written as ipvsadm and ipset write it.
#[test]
fn how_servers_are_written() {
    for text in ["10.20.30.40:80/tcp", "[2012::beef]:8080/udp", "[2012::beef]:9/sctp"] {
        assert_eq!(virtual_server(text).to_string(), text);
    }
    for text in ["10.20.30.40:80", "[2012::beef]:8080"] {
        assert_eq!(real_server(text).to_string(), text);
    }
}
