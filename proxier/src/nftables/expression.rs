//! Rules as the kernel's expressions, and back.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol};
use netlink_nftables::{
    Compare, CtKey, Expr, FibFlags, FibResult, MetaKey, NatFlags, PayloadBase, Register, Reject,
    Rule as NftRule, Value, Verdict as NftVerdict, ct_state,
};

use super::element::number;
use super::names::{self, chain_name, set_name};
use crate::dataplane::firewall::{Chain, Fields, Match, Rule, Verdict};
use crate::dataplane::sets::SetRole;

/// Where what is compared stands.
const ONE: Register = Register::FIRST;

/// A rule of a chain of ours.
pub(super) fn rule(family: Family, chain: Chain, rule: &Rule) -> NftRule {
    let mut out = Vec::new();
    rule.matches.iter().for_each(|it| push(family, it, &mut out));
    push_verdict(family, rule.verdict, &mut out);
    NftRule {
        comment: rule.comment.as_deref().map(str::to_owned),
        ..NftRule::new(chain_name(chain), out)
    }
}

/// The rule that keeps the node from virtual servers whose source ranges leave it out. Unlike those of
/// iptables it comes before IPVS, so that where nobody answers packets are dropped and not refused.
pub(super) fn refused(family: Family) -> NftRule {
    let mut out = Vec::new();
    let mut key = Key { out: &mut out, word: 0 };
    key.address(family, Side::Source);
    key.address(family, Side::Destination);
    key.protocol_and_port();
    out.push(lookup(names::REFUSED));
    out.push(Expr::Verdict(NftVerdict::Drop));
    NftRule::new(chain_name(Chain::IpvsOutFilter), out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// Loads the parts of a concatenated key, one after the other.
struct Key<'a> {
    out: &'a mut Vec<Expr>,
    /// The next register.
    word: u32,
}

impl Key<'_> {
    fn register(&mut self, bytes: u32) -> Register {
        let register = Register::word(self.word);
        self.word += bytes.div_ceil(4);
        register
    }

    fn address(&mut self, family: Family, side: Side) {
        let (source, length) = match family {
            Family::Ipv4 => (12, 4),
            Family::Ipv6 => (8, 16),
        };
        let offset = if side == Side::Source { source } else { source + length };
        let to = self.register(length);
        self.out.push(Expr::Payload { base: PayloadBase::Network, offset, length, to });
    }

    fn protocol_and_port(&mut self) {
        let to = self.register(1);
        self.out.push(Expr::Meta { key: MetaKey::TransportProtocol, to });
        self.port();
    }

    /// The destination port, which TCP, UDP and SCTP have in the same place.
    fn port(&mut self) {
        let to = self.register(2);
        self.out.push(Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to });
    }
}

fn push(family: Family, it: &Match, out: &mut Vec<Expr>) {
    match it {
        Match::Source(net) => push_source(family, net, Compare::Eq, out),
        Match::NotSource(net) => push_source(family, net, Compare::Neq, out),
        Match::Interface(name) => push_interface(name, Compare::Eq, out),
        Match::NotInterface(name) => push_interface(name, Compare::Neq, out),
        Match::Protocol(protocol) => push_protocol(number(*protocol), out),
        Match::EchoRequest => {
            let (protocol, kind) = match family {
                Family::Ipv4 => (1, 8),
                Family::Ipv6 => (58, 128),
            };
            push_protocol(Value::byte(protocol), out);
            out.push(Expr::Payload { base: PayloadBase::Transport, offset: 0, length: 1, to: ONE });
            out.push(equal(Value::byte(kind)));
        }
        Match::Set(role, fields) => {
            let mut key = Key { out, word: 0 };
            match fields {
                Fields::Dst if *role == SetRole::IpvsIps => key.address(family, Side::Destination),
                Fields::Dst => key.port(),
                Fields::Src => key.address(family, Side::Source),
                Fields::DstDst | Fields::DstDstSrc => {
                    key.address(family, Side::Destination);
                    key.protocol_and_port();
                    if *fields == Fields::DstDstSrc {
                        key.address(family, Side::Source);
                    }
                }
                Fields::SrcDst => {
                    key.address(family, Side::Source);
                    key.protocol_and_port();
                }
            }
            out.push(lookup(set_name(*role)));
        }
        Match::SourceLocal(local) => {
            let how = if *local { Compare::Eq } else { Compare::Neq };
            push_local(FibFlags::SOURCE, how, out);
        }
        Match::DestinationLocal => push_local(FibFlags::DESTINATION, Compare::Eq, out),
        Match::Mark(bits, set) => {
            out.push(Expr::Meta { key: MetaKey::Mark, to: ONE });
            out.push(masked(Value::mark(*bits), Value::mark(0)));
            let how = if *set { Compare::Eq } else { Compare::Neq };
            out.push(Expr::Compare { how, from: ONE, value: Value::mark(*bits) });
        }
        Match::New => push_state(ct_state::NEW, out),
        Match::Known => push_state(ct_state::ESTABLISHED | ct_state::RELATED, out),
        // Neither is said to nftables: see `Ruleset::for_nftables`, and the set of refused ones.
        Match::NotBridged | Match::VirtualServer(_) => {}
    }
}

fn push_source(family: Family, net: &IpNet, how: Compare, out: &mut Vec<Expr>) {
    let mut key = Key { out, word: 0 };
    key.address(family, Side::Source);
    if net.prefix_len() < net.max_prefix_len() {
        let zero = match net.netmask() {
            IpAddr::V4(_) => Value::new([0; 4]),
            IpAddr::V6(_) => Value::new([0; 16]),
        };
        out.push(masked(net.netmask().into(), zero));
    }
    out.push(Expr::Compare { how, from: ONE, value: net.network().into() });
}

fn push_interface(name: &str, how: Compare, out: &mut Vec<Expr>) {
    out.push(Expr::Meta { key: MetaKey::InputName, to: ONE });
    let value = match name.strip_suffix('+') {
        Some(prefix) => Value::new(prefix.as_bytes()),
        None => Value::interface(name),
    };
    out.push(Expr::Compare { how, from: ONE, value });
}

fn push_protocol(value: Value, out: &mut Vec<Expr>) {
    out.push(Expr::Meta { key: MetaKey::TransportProtocol, to: ONE });
    out.push(equal(value));
}

fn push_local(flags: FibFlags, how: Compare, out: &mut Vec<Expr>) {
    out.push(Expr::Fib { flags, result: FibResult::AddressType, to: ONE });
    let value = Value::mark(FibResult::LOCAL);
    out.push(Expr::Compare { how, from: ONE, value });
}

fn push_state(states: u32, out: &mut Vec<Expr>) {
    out.push(Expr::Ct { key: CtKey::State, direction: None, to: ONE });
    out.push(masked(Value::mark(states), Value::mark(0)));
    out.push(Expr::Compare { how: Compare::Neq, from: ONE, value: Value::mark(0) });
}

fn push_verdict(family: Family, verdict: Verdict, out: &mut Vec<Expr>) {
    match verdict {
        Verdict::Accept => out.push(NftVerdict::Accept.into()),
        Verdict::Drop => out.push(NftVerdict::Drop.into()),
        Verdict::Return => out.push(NftVerdict::Return.into()),
        Verdict::Jump(chain) => out.push(NftVerdict::Jump(chain_name(chain).to_owned()).into()),
        Verdict::Reject => out.push(Expr::Reject(match family {
            Family::Ipv4 => Reject::ICMP_PORT,
            Family::Ipv6 => Reject::ICMPV6_PORT,
        })),
        Verdict::SetMark(bits) => push_mark(!bits, bits, out),
        Verdict::ToggleMark(bits) => push_mark(u32::MAX, bits, out),
        Verdict::MarkOf(role) => {
            let mut key = Key { out, word: 0 };
            key.address(family, Side::Destination);
            key.protocol_and_port();
            let set = set_name(role).to_owned();
            out.push(Expr::Lookup { set, from: ONE, inverted: false, to: Some(ONE) });
            out.push(Expr::SetMeta { key: MetaKey::Mark, from: ONE });
        }
        Verdict::Masquerade { random_fully } => {
            let flags = if random_fully { NatFlags::FULLY_RANDOM } else { NatFlags::NONE };
            out.push(Expr::Masquerade { flags, ports: None });
        }
    }
}

fn push_mark(mask: u32, xor: u32, out: &mut Vec<Expr>) {
    out.push(Expr::Meta { key: MetaKey::Mark, to: ONE });
    out.push(masked(Value::mark(mask), Value::mark(xor)));
    out.push(Expr::SetMeta { key: MetaKey::Mark, from: ONE });
}

fn equal(value: Value) -> Expr {
    Expr::Compare { how: Compare::Eq, from: ONE, value }
}

fn masked(mask: Value, xor: Value) -> Expr {
    Expr::Bitwise { from: ONE, to: ONE, mask, xor }
}

fn lookup(set: &str) -> Expr {
    Expr::Lookup { set: set.to_owned(), from: ONE, inverted: false, to: None }
}

/// What a rule says, if it is one that we could have made.
pub(super) fn understand(family: Family, rule: &NftRule) -> Option<Rule> {
    let mut rest = rule.expressions.as_slice();
    let mut matches = Vec::new();
    let verdict = loop {
        if let Some(verdict) = verdict(family, rest) {
            break verdict;
        }
        let (it, length) = candidates(rest).find_map(|it| {
            let mut said = Vec::new();
            push(family, &it, &mut said);
            (!said.is_empty() && rest.starts_with(&said)).then_some((it, said.len()))
        })?;
        matches.push(it);
        rest = rest.get(length..)?;
    };
    let comment = rule.comment.clone().map(Cow::Owned);
    Some(Rule { comment, matches, verdict })
}

/// Matches that may be said by the first of these expressions.
fn candidates(of: &[Expr]) -> impl Iterator<Item = Match> {
    let sets = SetRole::ALL.into_iter();
    let sets = sets.flat_map(|role| Fields::ALL.into_iter().map(move |it| Match::Set(role, it)));
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Match::Protocol);
    let fixed = [
        Match::EchoRequest,
        Match::SourceLocal(true),
        Match::SourceLocal(false),
        Match::DestinationLocal,
        Match::New,
        Match::Known,
    ];
    sets.chain(protocols).chain(fixed).chain(with_value(of))
}

/// Matches with a value of their own, which is in the expressions.
fn with_value(of: &[Expr]) -> Vec<Match> {
    let value = |at: usize| match of.get(at) {
        Some(Expr::Compare { value, .. }) => Some(value.as_bytes()),
        _ => None,
    };
    let mask = match of.get(1) {
        Some(Expr::Bitwise { mask, .. }) => Some(mask.as_bytes()),
        _ => None,
    };
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
    };
    match of.first() {
        Some(Expr::Payload { .. }) => {
            let net = match mask {
                Some(mask) => {
                    let net = address(mask).zip(value(2).and_then(address));
                    net.and_then(|(mask, ip)| IpNet::with_netmask(ip, mask).ok())
                }
                None => value(1).and_then(address).map(IpNet::from),
            };
            net.map(|net| vec![Match::Source(net), Match::NotSource(net)]).unwrap_or_default()
        }
        Some(Expr::Meta { key: MetaKey::InputName, .. }) => {
            let Some(bytes) = value(1) else { return Vec::new() };
            let whole = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            let Ok(name) = std::str::from_utf8(whole) else { return Vec::new() };
            let names = [name.to_owned(), format!("{name}+")];
            names
                .into_iter()
                .flat_map(|it| [Match::Interface(it.clone()), Match::NotInterface(it)])
                .collect()
        }
        Some(Expr::Meta { key: MetaKey::Mark, .. }) => {
            let bits = value(2).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
            let bits = bits.map(u32::from_ne_bytes);
            bits.map(|bits| vec![Match::Mark(bits, true), Match::Mark(bits, false)])
                .unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The verdict that these expressions are, all of them.
fn verdict(family: Family, of: &[Expr]) -> Option<Verdict> {
    let mark = match of.get(1) {
        Some(Expr::Bitwise { xor, .. }) => <[u8; 4]>::try_from(xor.as_bytes()).ok(),
        _ => None,
    };
    let bits = mark.map_or(0, u32::from_ne_bytes);
    let fixed = [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Reject,
        Verdict::Return,
        Verdict::SetMark(bits),
        Verdict::ToggleMark(bits),
        Verdict::Masquerade { random_fully: false },
        Verdict::Masquerade { random_fully: true },
        Verdict::MarkOf(SetRole::LocalMark),
    ];
    let mut all = fixed.into_iter().chain(Chain::ALL.into_iter().map(Verdict::Jump));
    all.find(|verdict| {
        let mut said = Vec::new();
        push_verdict(family, *verdict, &mut said);
        said == of
    })
}
