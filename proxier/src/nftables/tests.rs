use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_ipvs::{Protocol, VirtualServerKey};

use super::*;
use crate::dataplane::Op;
use crate::dataplane::firewall::{FirewallOptions, LocalDetector, ruleset};
use crate::dataplane::sets::{Member, SetRole};

fn options() -> impl Iterator<Item = FirewallOptions> {
    let detectors = [
        LocalDetector::None,
        LocalDetector::Cidr("10.244.0.0/16".parse().unwrap()),
        LocalDetector::Bridge("cbr0".to_owned()),
        LocalDetector::InterfacePrefix("veth".to_owned()),
    ];
    let with = |detector: LocalDetector| {
        [false, true].map(|on| FirewallOptions {
            masquerade_all: on,
            masquerade_bit: if on { 31 } else { 14 },
            random_fully: !on,
            physdev: on,
            answer_ping: on,
            accept_input: on,
            detector: detector.clone(),
            split: on.then_some(0x1000),
        })
    };
    detectors.into_iter().flat_map(with)
}

fn key(address: &str, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::new(address.parse().unwrap(), 80, protocol)
}

#[test]
fn rules_that_are_read_back_are_those_that_were_made() {
    for family in [Family::Ipv4, Family::Ipv6] {
        for options in options() {
            let drops =
                [key("192.0.2.1", Protocol::Tcp), key("2001:db8::1", Protocol::Sctp)].into();
            let wanted = ruleset(family, &options, &drops).for_nftables();
            // Whatever else, while this node is handed over too.
            let wanted = if options.masquerade_all { wanted.holding() } else { wanted };
            let made = chains(&wanted);
            let (chains, rules): (Vec<_>, Vec<_>) = made.into_iter().unzip();
            let rules: Vec<_> = rules.into_iter().flatten().collect();
            let dropped = wanted.dropped().iter().copied();
            let refused: Vec<_> =
                dropped.map(|key| refused(family, &refused_element(&key).unwrap())).collect();
            assert_eq!(refused.len(), 1);
            let read = understand(family, &[], &chains, &rules, refused);
            assert_eq!(read.as_ref(), Some(&wanted), "{family} {options:?}");
        }
    }
}

/// What every kernel with nftables has, or what asks for it.
#[test]
fn the_kernel_is_asked_for_each_expression_that_it_may_lack() {
    use nft::Expr;
    for family in [Family::Ipv4, Family::Ipv6] {
        for options in options() {
            let wanted = ruleset(family, &options, &BTreeSet::new()).for_nftables();
            let rules = chains(&wanted).into_iter().flat_map(|(_, rules)| rules);
            for expression in rules.flat_map(|rule| rule.expressions) {
                let asked = match &expression {
                    Expr::Payload { .. }
                    | Expr::Meta { .. }
                    | Expr::SetMeta { .. }
                    | Expr::Compare { .. }
                    | Expr::Bitwise { .. }
                    | Expr::Lookup { .. }
                    | Expr::Verdict(_) => continue,
                    Expr::Fib { .. } => Need::Fib,
                    Expr::Ct { .. } => Need::ConnectionTracking,
                    Expr::Masquerade { .. } => Need::Masquerade,
                    Expr::Reject(_) => Need::Reject,
                    _ => panic!("nobody asks for {expression:?}"),
                };
                let (question, wanted) = asked.question(family);
                assert!(Need::ALL.contains(&asked) && question.len() == wanted + 1);
            }
        }
    }
}

#[test]
fn what_others_have_changed_is_seen() {
    let wanted = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    for wanted in [wanted.for_nftables(), wanted.for_nftables().holding()] {
        every_change_is_seen(&wanted);
    }
}

fn every_change_is_seen(wanted: &Ruleset) {
    let (chains, rules): (Vec<_>, Vec<_>) = chains(wanted).into_iter().unzip();
    let rules: Vec<nft::Rule> = rules.into_iter().flatten().collect();
    let read = |chains: &[NftChain], rules: &[nft::Rule]| {
        understand(Family::Ipv4, &[], chains, rules, Vec::new())
    };
    assert_eq!(read(&chains, &rules).as_ref(), Some(wanted));
    assert_eq!(read(&[], &[]), None);
    // Any rule and any chain that is missing, one that comes twice, another order, one more of each.
    for at in 0..rules.len() {
        let mut fewer = rules.clone();
        let one = fewer.remove(at);
        assert_ne!(read(&chains, &fewer).as_ref(), Some(wanted), "without {one:?}");
        let mut more = rules.clone();
        more.insert(at, one.clone());
        assert_ne!(read(&chains, &more).as_ref(), Some(wanted), "twice {one:?}");
        let next = rules.get(at + 1).filter(|next| next.chain == one.chain && **next != one);
        if next.is_some() {
            let mut swapped = rules.clone();
            swapped.swap(at, at + 1);
            assert_ne!(read(&chains, &swapped).as_ref(), Some(wanted), "later {one:?}");
        }
    }
    for at in 0..chains.len() {
        let mut fewer = chains.clone();
        let one = fewer.remove(at);
        assert_ne!(read(&fewer, &rules).as_ref(), Some(wanted), "without {}", one.name);
        let mut other = chains.clone();
        if let Some(base) = &mut other[at].base {
            base.policy = Policy::Drop;
            assert_ne!(read(&other, &rules).as_ref(), Some(wanted), "dropping {}", one.name);
        }
    }
    let strange = understand(Family::Ipv4, &[], &chains, &rules, vec![None]);
    assert_ne!(
        strange.as_ref(),
        Some(wanted),
        "an element that keeps the node from something else"
    );
    let mut more = chains.clone();
    more.push(NftChain::new("stranger"));
    assert_ne!(read(&more, &rules).as_ref(), Some(wanted));
}

#[test]
fn members_that_are_read_back_are_those_that_were_made() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (role, one) in [
        (SetRole::IpvsIps, Member::Ip(ip("10.96.0.1"))),
        (SetRole::IpvsIps, Member::Ip(ip("fd00::1"))),
        (SetRole::NodePortTcp, Member::Port(30080)),
        (SetRole::ClusterIp, Member::IpPort(ip("10.96.0.1"), Protocol::Udp, 53)),
        (SetRole::NodePortSctp, Member::IpPort(ip("fd00::1"), Protocol::Sctp, 9)),
        (SetRole::LoopBack, Member::IpPortIp(ip("10.0.0.1"), Protocol::Tcp, 80, ip("10.0.0.1"))),
        (SetRole::LoopBack, Member::IpPortIp(ip("fd00::1"), Protocol::Tcp, 80, ip("fd00::2"))),
    ]
    .into_iter()
    .chain(["10.0.0.0/8", "0.0.0.0/0", "128.0.0.0/1", "10.0.0.7/32", "fc00::/7", "::/0"].map(
        |net| {
            let net: ipnet::IpNet = net.parse().unwrap();
            let vip = if net.addr().is_ipv4() { ip("192.0.2.1") } else { ip("2001:db8::1") };
            (SetRole::LoadBalancerSourceCidr, Member::IpPortNet(vip, Protocol::Tcp, 80, net))
        },
    )) {
        let set = role.of(Family::of(one.address().unwrap_or(ip("10.0.0.1"))));
        let made = element(&one);
        assert_eq!(made.key.as_bytes().len(), new_set(set).key_length() as usize, "{one}");
        assert_eq!(member(set, &made), Some(one));
        let others = netlink_nftables::Element { comment: Some("mine".to_owned()), ..made };
        assert_eq!(member(set, &others), None, "one with a comment is not ours");
    }
    // No network.
    let range = |last: &str| {
        let Member::IpPortNet(..) =
            Member::IpPortNet(ip("192.0.2.1"), Protocol::Tcp, 80, "10.0.0.0/8".parse().unwrap())
        else {
            unreachable!()
        };
        let parts = |of: &str| {
            nft::Value::concatenation(&[
                ip("192.0.2.1").into(),
                nft::Value::byte(6),
                nft::Value::port(80),
                ip(of).into(),
            ])
        };
        nft::Element::range(parts("10.0.0.0"), parts(last))
    };
    let set = SetRole::LoadBalancerSourceCidr.of(Family::Ipv4);
    assert!(member(set, &range("10.255.255.255")).is_some());
    assert!(member(set, &range("10.255.255.254")).is_none());
}

#[test]
fn a_difference_is_said_as_one_would_tell_nft() {
    let wanted = |ping| {
        let options = FirewallOptions { answer_ping: ping, ..FirewallOptions::default() };
        ruleset(Family::Ipv4, &options, &[key("192.0.2.1", Protocol::Tcp)].into()).for_nftables()
    };
    let say = |op: &Op, there: Option<&Ruleset>| commands(op, there).unwrap().join("\n");
    let install = Op::InstallFirewall(Family::Ipv4, wanted(true));
    assert_eq!(say(&install, None), "add table ip proxier");
    assert_eq!(
        say(&install, Some(&wanted(false))),
        "add rule ip proxier closed-ports icmp type echo-request ip daddr @service-ips return"
    );
    assert_eq!(say(&install, Some(&wanted(true))), "replace the rules of table ip proxier");
    let none = Ruleset::with_drops(Family::Ipv4, [].into(), [false; JUMPS.len()], [].into());
    let all = say(&install, Some(&none));
    assert!(all.contains("add rule ip proxier nat-prerouting jump services"), "{all}");
    assert!(
        all.contains("add element ip proxier refused-to-node { 192.0.2.1 . 192.0.2.1 . tcp . 80 }"),
        "{all}"
    );
    let member = Member::IpPort("fd00::1".parse().unwrap(), Protocol::Udp, 53);
    let set = SetRole::ClusterIp.of(Family::Ipv6);
    for (op, line) in [
        (Op::CreateSet(set, 0), "add set ip6 proxier cluster-ips"),
        (Op::AddMember(set, member), "add element ip6 proxier cluster-ips { fd00::1 . udp . 53 }"),
        (
            Op::RemoveMember(set, member),
            "delete element ip6 proxier cluster-ips { fd00::1 . udp . 53 }",
        ),
    ] {
        assert_eq!(say(&op, None), line);
    }
    assert_eq!(commands(&Op::TakeLinkDown, None), None);
}

#[test]
fn services_of_nftables_mode_are_known_by_its_maps() {
    use netlink_nftables::{Element, ElementEntry, Value};

    use crate::dataplane::hand_over::Served;

    let entry = |parts: &[Value]| ElementEntry {
        element: Element::of_parts(parts).with_data(nft::Verdict::Goto("service".to_owned())),
        expires_in: None,
    };
    let address = |text: &str| Value::from(text.parse::<IpAddr>().unwrap());
    let (tcp, sctp) = (Value::byte(6), Value::byte(132));
    let mut served = Served::default();
    for (family, map, parts) in [
        (Family::Ipv4, "service-ips", vec![address("10.96.0.1"), tcp.clone(), Value::port(443)]),
        (Family::Ipv6, "no-endpoint-services", vec![address("fd00::1"), sctp, Value::port(80)]),
        (Family::Ipv4, "service-nodeports", vec![tcp, Value::port(30080)]),
        // Nothing that is understood.
        (Family::Ipv4, "no-endpoint-nodeports", vec![Value::byte(6)]),
    ] {
        assert!(served_maps().any(|of| of == map), "{map}");
        note_served(family, map, &[entry(&parts)], &mut served);
    }
    let key = |ip: &str, port, protocol| VirtualServerKey::new(ip.parse().unwrap(), port, protocol);
    let addresses =
        [key("10.96.0.1", 443, Protocol::Tcp), key("fd00::1", 80, Protocol::Sctp)].into();
    assert_eq!(served, Served { addresses, node_ports: [(Protocol::Tcp, 30080)].into() });
}

#[test]
fn a_table_counts_when_packets_from_outside_and_of_the_node_come_to_it() {
    let base = |hook, kind| {
        let mut chain = NftChain::new("any");
        let (priority, policy) = (-100, Policy::Accept);
        chain.base = Some(BaseChain { kind, hook, priority, policy });
        chain
    };
    let outside = base(nft::Hook::Prerouting, ChainKind::Nat);
    let node = base(nft::Hook::Output, ChainKind::Nat);
    assert!(is_reached(&[NftChain::new("services"), outside.clone(), node.clone()]));
    assert!(!is_reached(&[NftChain::new("services"), outside]));
    assert!(!is_reached(&[base(nft::Hook::Prerouting, ChainKind::Filter), node]));
}
