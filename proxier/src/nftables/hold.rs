//! Chains that hold back packets of services which IPVS does not take, while another program may remove
//! all virtual servers and `kube-ipvs0`: the clients send them again.
//!
//! Where IPVS has taken a packet, or DNAT of another table has changed it, it does not come here with a service's address.
//! Otherwise the node would answer it (with a reset, since no process of its own listens) or send it on. And
//! answers of a pod whose address IPVS has not put right would make the client reset the pod's connection.

use netlink_ipvs::{Family, Protocol};
use netlink_nftables::{
    BaseChain, Chain, ChainKind, Compare, CtDirection, CtKey, Expr, FibFlags, FibResult, Hook,
    MetaKey, PayloadBase, Policy, Register, Rule, Value, Verdict,
};

use super::element::number;
use super::names::set_name;
use crate::dataplane::sets::SetRole;

/// Packets to services that nothing has taken.
const REQUESTS: &str = "hold-requests";
/// Answers that nothing has given the service's address.
const ANSWERS: &str = "hold-answers";
const PREROUTING: &str = "hold-prerouting";
const OUTPUT: &str = "hold-output";
const INPUT: &str = "hold-input";
const POSTROUTING: &str = "hold-postrouting";

/// Just behind IPVS, and behind the translation of sources.
const BEHIND_IPVS: i32 = 110;
/// `IPS_DST_NAT`
const DNAT: u32 = 1 << 5;

/// Where what is compared stands.
const ONE: Register = Register::FIRST;

/// Services by address, protocol and port.
const BY_ADDRESS: [SetRole; 5] = [
    SetRole::ClusterIp,
    SetRole::ExternalIp,
    SetRole::ExternalIpLocal,
    SetRole::LoadBalancer,
    SetRole::NodePortSctp,
];

/// Services by port.
const BY_PORT: [(Protocol, SetRole); 2] =
    [(Protocol::Tcp, SetRole::NodePortTcp), (Protocol::Udp, SetRole::NodePortUdp)];

/// Whether a chain of this name is one of these.
pub(super) fn is_ours(name: &str) -> bool {
    [REQUESTS, ANSWERS, PREROUTING, OUTPUT, INPUT, POSTROUTING].contains(&name)
}

/// The chains with their rules.
pub(super) fn chains(family: Family) -> Vec<(Chain, Vec<Rule>)> {
    use netlink_nftables::priority::FILTER;
    let jump = |from: &str, direction, elsewhere: bool| {
        let mut out = Vec::new();
        push_direction(direction, &mut out);
        if elsewhere {
            out.push(Expr::Fib {
                flags: FibFlags::DESTINATION,
                result: FibResult::AddressType,
                to: ONE,
            });
            out.push(compare(Compare::Neq, Value::mark(FibResult::LOCAL)));
        }
        let to = if direction == CtDirection::Original { REQUESTS } else { ANSWERS };
        out.push(Verdict::Jump(to.to_owned()).into());
        Rule::new(from, out)
    };
    let requests = BY_ADDRESS.map(|role| request(family, role));
    let node_ports = BY_PORT.map(|(protocol, role)| request_to_node(protocol, role));
    let answers = BY_ADDRESS.map(|role| answer(family, role));
    let answers_of_node = BY_PORT.map(|(protocol, role)| answer_of_node(protocol, role));
    let [to_services, from_services] = [CtDirection::Original, CtDirection::Reply];
    vec![
        // Without their interface, service addresses are those of other hosts.
        (base(PREROUTING, Hook::Prerouting, FILTER), vec![jump(PREROUTING, to_services, true)]),
        (
            base(OUTPUT, Hook::Output, FILTER),
            std::iter::once(jump(OUTPUT, to_services, true)).chain(refusals(family)).collect(),
        ),
        (
            base(INPUT, Hook::Input, BEHIND_IPVS),
            [jump(INPUT, to_services, false), jump(INPUT, from_services, false)]
                .into_iter()
                .chain(node_ports)
                .collect(),
        ),
        (
            base(POSTROUTING, Hook::Postrouting, BEHIND_IPVS),
            vec![jump(POSTROUTING, from_services, false)],
        ),
        (regular(REQUESTS, "packets to services that IPVS has not taken"), requests.into()),
        (
            regular(ANSWERS, "answers of pods that IPVS has not given a service's address"),
            answers.into_iter().chain(answers_of_node).collect(),
        ),
    ]
}

fn base(name: &str, hook: Hook, priority: i32) -> Chain {
    let mut chain = Chain::new(name);
    let (kind, policy) = (ChainKind::Filter, Policy::Accept);
    chain.base = Some(BaseChain { kind, hook, priority, policy });
    chain
}

fn regular(name: &str, about: &str) -> Chain {
    let mut chain = Chain::new(name);
    chain.comment = Some(about.to_owned());
    chain
}

/// A packet to a service that has come here.
fn request(family: Family, role: SetRole) -> Rule {
    let (_, destination, length) = addresses(family);
    let [_, second, third] = places(length);
    let out = vec![
        payload(PayloadBase::Network, destination, length, ONE),
        Expr::Meta { key: MetaKey::TransportProtocol, to: second },
        payload(PayloadBase::Transport, 2, 2, third),
        lookup(role, false),
        Verdict::Drop.into(),
    ];
    Rule::new(REQUESTS, out)
}

/// The same for a node port. What answers the node itself may have the same port.
fn request_to_node(protocol: Protocol, role: SetRole) -> Rule {
    let mut out = Vec::new();
    push_direction(CtDirection::Original, &mut out);
    push_protocol(protocol, &mut out);
    out.push(payload(PayloadBase::Transport, 2, 2, ONE));
    out.extend([lookup(role, false), Verdict::Drop.into()]);
    Rule::new(INPUT, out)
}

/// What IPVS answers for a virtual server that is put back and has no real server yet: that comes one
/// message later. The packet that it is about follows the eight bytes of ICMP's header.
fn refusals(family: Family) -> impl Iterator<Item = Rule> {
    const ICMP: u32 = 8;
    let (source, _, length) = addresses(family);
    let (protocol, unreachable, its_protocol, its_port) = match family {
        // Destination unreachable: port.
        Family::Ipv4 => (1, [3, 3], ICMP + 9, ICMP + 20 + 2),
        Family::Ipv6 => (58, [1, 4], ICMP + 6, ICMP + 40 + 2),
    };
    let refusal = move |more: Vec<Expr>| {
        let mut out = vec![
            Expr::Meta { key: MetaKey::TransportProtocol, to: ONE },
            compare(Compare::Eq, Value::byte(protocol)),
            payload(PayloadBase::Transport, 0, 2, ONE),
            compare(Compare::Eq, Value::new(unreachable)),
        ];
        out.extend(more);
        out.push(Verdict::Drop.into());
        Rule::new(OUTPUT, out)
    };
    let of_address =
        vec![payload(PayloadBase::Network, source, length, ONE), lookup(SetRole::IpvsIps, false)];
    let of_node = BY_PORT.map(move |(of, role)| {
        vec![
            payload(PayloadBase::Transport, its_protocol, 1, ONE),
            compare(Compare::Eq, number(of)),
            payload(PayloadBase::Transport, its_port, 2, ONE),
            lookup(role, false),
        ]
    });
    std::iter::once(of_address).chain(of_node).map(refusal)
}

/// A packet that answers one to a service, but not from the service's address.
fn answer(family: Family, role: SetRole) -> Rule {
    let (source, _, length) = addresses(family);
    let [_, second, third] = places(length);
    let key = match family {
        Family::Ipv4 => CtKey::DestinationIpv4,
        Family::Ipv6 => CtKey::DestinationIpv6,
    };
    let protocol = Expr::Meta { key: MetaKey::TransportProtocol, to: second };
    let mut out = vec![
        original(key, ONE),
        protocol.clone(),
        original(CtKey::DestinationPort, third),
        lookup(role, false),
    ];
    push_not_translated(&mut out);
    out.extend([
        payload(PayloadBase::Network, source, length, ONE),
        protocol,
        payload(PayloadBase::Transport, 0, 2, third),
        lookup(role, true),
        Verdict::Drop.into(),
    ]);
    Rule::new(ANSWERS, out)
}

fn answer_of_node(protocol: Protocol, role: SetRole) -> Rule {
    let mut out = Vec::new();
    push_protocol(protocol, &mut out);
    out.extend([original(CtKey::DestinationPort, ONE), lookup(role, false)]);
    push_not_translated(&mut out);
    out.extend([
        payload(PayloadBase::Transport, 0, 2, ONE),
        lookup(role, true),
        Verdict::Drop.into(),
    ]);
    Rule::new(ANSWERS, out)
}

/// Where source and destination stand in the network header, and their length.
const fn addresses(family: Family) -> (u32, u32, u32) {
    match family {
        Family::Ipv4 => (12, 16, 4),
        Family::Ipv6 => (8, 24, 16),
    }
}

/// The registers of an address of this length, a protocol and a port, one after the other.
const fn places(length: u32) -> [Register; 3] {
    let words = length / 4;
    [ONE, Register::word(words), Register::word(words + 1)]
}

fn push_direction(direction: CtDirection, out: &mut Vec<Expr>) {
    let value = match direction {
        CtDirection::Original => 0,
        CtDirection::Reply => 1,
    };
    out.push(Expr::Ct { key: CtKey::Direction, direction: None, to: ONE });
    out.push(compare(Compare::Eq, Value::byte(value)));
}

fn push_protocol(protocol: Protocol, out: &mut Vec<Expr>) {
    out.push(Expr::Meta { key: MetaKey::TransportProtocol, to: ONE });
    out.push(compare(Compare::Eq, number(protocol)));
}

/// No rule of DNAT has changed the connection's destination.
fn push_not_translated(out: &mut Vec<Expr>) {
    out.push(Expr::Ct { key: CtKey::Status, direction: None, to: ONE });
    out.push(Expr::Bitwise { from: ONE, to: ONE, mask: Value::mark(DNAT), xor: Value::mark(0) });
    out.push(compare(Compare::Eq, Value::mark(0)));
}

fn original(key: CtKey, to: Register) -> Expr {
    Expr::Ct { key, direction: Some(CtDirection::Original), to }
}

fn payload(base: PayloadBase, offset: u32, length: u32, to: Register) -> Expr {
    Expr::Payload { base, offset, length, to }
}

fn compare(how: Compare, value: Value) -> Expr {
    Expr::Compare { how, from: ONE, value }
}

fn lookup(role: SetRole, inverted: bool) -> Expr {
    Expr::Lookup { set: set_name(role).to_owned(), from: ONE, inverted, to: None }
}
