//! Random tables that a kernel takes, for the property tests here and for those against a kernel.

use std::collections::BTreeSet;
use std::time::Duration;

use netlink_nftables::{
    BaseChain, Chain, ChainKind, Compare, CtDirection, CtKey, Data, DataType, Element, Expr,
    Family, FibFlags, FibResult, Hook, MapData, MetaKey, NatFlags, NatKind, PayloadBase, Policy,
    Range, Register, Reject, Rule, Set, SetFlags, Table, TableKey, Value, Verdict,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A table and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) table: Table,
    pub(crate) chains: Vec<Chain>,
    pub(crate) sets: Vec<(Set, BTreeSet<Element>)>,
    pub(crate) rules: Vec<Rule>,
}

/// The chain to which rules and elements jump; it has no rules.
pub(crate) const TARGET: &str = "target";
/// The chain with the rules. Packets never reach it: what may stand in a rule depends on where they
/// come from.
pub(crate) const RULES: &str = "rules";

pub(crate) fn world() -> impl Strategy<Value = World> {
    (select(vec![Family::Ipv4, Family::Ipv6, Family::Inet]), comment()).prop_flat_map(
        |(family, comment)| {
            let table = Table { comment, ..Table::new(TableKey::new(family, "random")) };
            let sets = vec(set(), 1..4).prop_map(|mut sets| {
                for (index, (set, _)) in sets.iter_mut().enumerate() {
                    set.name = format!("set{index}");
                }
                sets
            });
            let chains = vec(chain(), 1..4).prop_map(|mut chains| {
                for (index, chain) in chains.iter_mut().enumerate() {
                    chain.name = format!("chain{index}");
                }
                chains.extend([TARGET, RULES].map(Chain::new));
                chains
            });
            (Just(table), chains, sets).prop_flat_map(move |(table, chains, sets)| {
                let rules = vec(rule(family, &sets), 0..8);
                (Just((table, chains, sets)), rules)
                    .prop_map(|((table, chains, sets), rules)| World { table, chains, sets, rules })
            })
        },
    )
}

pub(crate) fn comment() -> impl Strategy<Value = Option<String>> {
    option::of("[a-zA-Z][a-z ./-]{0,80}")
}

pub(crate) fn chain() -> impl Strategy<Value = Chain> {
    let hook = select(vec![Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output]);
    let policy = select(vec![Policy::Accept, Policy::Drop]);
    let base = (hook, -150_i32..300, policy).prop_map(|(hook, priority, policy)| BaseChain {
        kind: ChainKind::Filter,
        hook,
        priority,
        policy,
    });
    (option::of(base), comment()).prop_map(|(base, comment)| Chain {
        base,
        comment,
        ..Chain::new("")
    })
}

fn types() -> impl Strategy<Value = DataType> {
    select(vec![
        DataType::Ipv4Addr,
        DataType::Ipv6Addr,
        DataType::EtherAddr,
        DataType::InetProto,
        DataType::InetService,
        DataType::Mark,
        DataType::InterfaceIndex,
        DataType::InterfaceName,
    ])
}

fn value(kind: DataType) -> impl Strategy<Value = Value> {
    let length = kind.length() as usize;
    vec(any::<u8>(), length..=length).prop_map(Value::new)
}

fn key(types: &[DataType]) -> BoxedStrategy<Value> {
    match types {
        [only] => value(*only).boxed(),
        parts => {
            let parts: Vec<_> = parts.iter().map(|part| value(*part)).collect();
            parts.prop_map(|parts| Value::concatenation(&parts)).boxed()
        }
    }
}

fn data() -> impl Strategy<Value = Option<MapData>> {
    let value = vec(types(), 1..3).prop_map(MapData::Value);
    option::of(prop_oneof![Just(MapData::Verdict), value])
}

fn verdict() -> impl Strategy<Value = Verdict> {
    select(vec![
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Continue,
        Verdict::Return,
        Verdict::Jump(TARGET.to_owned()),
        Verdict::Goto(TARGET.to_owned()),
    ])
}

/// Whole seconds: the kernel rounds to its clock tick.
fn seconds() -> impl Strategy<Value = Duration> {
    (100_u64..100_000).prop_map(Duration::from_secs)
}

/// A set and elements that it takes.
pub(crate) fn set() -> impl Strategy<Value = (Set, BTreeSet<Element>)> {
    let flags = select(vec![
        SetFlags::NONE,
        SetFlags::INTERVAL,
        SetFlags::TIMEOUT,
        SetFlags::INTERVAL | SetFlags::TIMEOUT,
    ]);
    let key = vec(types(), 1..4);
    let fields = (key, data(), flags, option::of(seconds()), option::of(100_u32..999), comment());
    fields.prop_flat_map(|(key, data, flags, timeout, size, comment)| {
        let expires = flags.contains(SetFlags::TIMEOUT);
        let timeout = timeout.filter(|_| expires);
        let set = Set { data, flags, timeout, size, comment, ..Set::new("", key) };
        let elements = elements(&set);
        (Just(set), elements)
    })
}

fn elements(set: &Set) -> BoxedStrategy<BTreeSet<Element>> {
    let keys = btree_set(key(&set.key), 0..12);
    let interval = set.flags.contains(SetFlags::INTERVAL);
    let single = set.key.len() == 1;
    let keys = keys.prop_map(move |keys| match (interval, single) {
        (false, _) => keys.into_iter().map(Element::new).collect(),
        (true, true) => intervals(&keys),
        (true, false) => keys.into_iter().map(|key| Element::range(key.clone(), key)).collect(),
    });
    let expires = set.flags.contains(SetFlags::TIMEOUT);
    let default = set.timeout;
    let extras = vec((mapped(set.data.as_ref()), option::of(seconds()), comment()), 12);
    (keys, extras)
        .prop_map(move |(keys, extras): (Vec<Element>, _)| {
            let with = |(key, (data, timeout, comment)): (Element, (_, Option<Duration>, _))| {
                if key.interval_end {
                    return key;
                }
                // One that is the set's is not told.
                let timeout = timeout.filter(|own| expires && Some(*own) != default);
                Element { data, timeout, comment, ..key }
            };
            keys.into_iter().zip(extras).map(with).collect()
        })
        .boxed()
}

/// From every second key up to the next.
fn intervals(keys: &BTreeSet<Value>) -> Vec<Element> {
    let whole = keys.len() / 2 * 2;
    let mut ends = [false, true].into_iter().cycle();
    let each = keys.iter().take(whole).map(|key| Element {
        interval_end: ends.next() == Some(true),
        ..Element::new(key.clone())
    });
    each.collect()
}

fn mapped(data: Option<&MapData>) -> BoxedStrategy<Option<Data>> {
    match data {
        Some(MapData::Verdict) => verdict().prop_map(|it| Some(it.into())).boxed(),
        Some(MapData::Value(types)) => key(types).prop_map(|it| Some(it.into())).boxed(),
        Some(MapData::Object(_)) | None => Just(None).boxed(),
    }
}

fn rule(family: Family, sets: &[(Set, BTreeSet<Element>)]) -> impl Strategy<Value = Rule> {
    let sets: Vec<Set> = sets.iter().map(|(set, _)| set.clone()).collect();
    let matches = vec(matching(family, sets), 0..5);
    (matches, statement(family), comment()).prop_map(|(matches, last, comment)| {
        let expressions: Vec<Expr> = matches.into_iter().flatten().chain(last).collect();
        Rule { comment, ..Rule::new(RULES, expressions) }
    })
}

fn register() -> impl Strategy<Value = Register> {
    (0_u32..12).prop_map(Register::word)
}

fn compare(from: Register, length: usize) -> impl Strategy<Value = Expr> {
    let how = select(vec![
        Compare::Eq,
        Compare::Neq,
        Compare::Lt,
        Compare::Lte,
        Compare::Gt,
        Compare::Gte,
    ]);
    (how, vec(any::<u8>(), length..=length)).prop_map(move |(how, bytes)| Expr::Compare {
        how,
        from,
        value: Value::new(bytes),
    })
}

/// Loads something, then compares it.
fn matching(family: Family, sets: Vec<Set>) -> BoxedStrategy<Vec<Expr>> {
    let meta = select(vec![
        (MetaKey::Mark, 4),
        (MetaKey::TransportProtocol, 1),
        (MetaKey::NetworkProtocol, 1),
        (MetaKey::Protocol, 2),
        (MetaKey::InputInterface, 4),
        (MetaKey::InputName, 16),
        (MetaKey::OutputName, 16),
    ]);
    let meta = (meta, register()).prop_flat_map(|((key, length), to)| {
        compare(to, length).prop_map(move |then| vec![Expr::Meta { key, to }, then])
    });
    let base = select(vec![PayloadBase::Link, PayloadBase::Network, PayloadBase::Transport]);
    let payload =
        (base, 0_u32..64, 1_u32..=16, register()).prop_flat_map(|(base, offset, length, to)| {
            let load = Expr::Payload { base, offset, length, to };
            compare(to, length as usize).prop_map(move |then| vec![load.clone(), then])
        });
    let original = Some(CtDirection::Original);
    let mut keys = vec![
        (CtKey::State, None, 4),
        (CtKey::Status, None, 4),
        (CtKey::Mark, None, 4),
        (CtKey::TransportProtocol, None, 1),
        (CtKey::DestinationPort, original, 2),
        (CtKey::SourcePort, Some(CtDirection::Reply), 2),
    ];
    if family != Family::Ipv6 {
        keys.push((CtKey::DestinationIpv4, original, 4));
    }
    if family != Family::Ipv4 {
        keys.push((CtKey::SourceIpv6, original, 16));
    }
    let ct = (select(keys), register()).prop_flat_map(|((key, direction, length), to)| {
        compare(to, length).prop_map(move |then| vec![Expr::Ct { key, direction, to }, then])
    });
    let bits = (register(), any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(at, mask, xor)| {
        let (mask, xor) = (Value::new(mask), Value::new(xor));
        let load = Expr::Meta { key: MetaKey::Mark, to: at };
        let set = Expr::SetMeta { key: MetaKey::Mark, from: at };
        vec![load, Expr::Bitwise { from: at, to: at, mask, xor }, set]
    });
    let route = (select(vec![FibFlags::SOURCE, FibFlags::DESTINATION]), register()).prop_map(
        |(flags, to)| {
            let local = Value::mark(FibResult::LOCAL);
            let equal = Expr::Compare { how: Compare::Eq, from: to, value: local };
            vec![Expr::Fib { flags, result: FibResult::AddressType, to }, equal]
        },
    );
    prop_oneof![meta, payload, ct, bits, route, look_up(sets), Just(vec![Expr::Counter])].boxed()
}

fn look_up(sets: Vec<Set>) -> impl Strategy<Value = Vec<Expr>> {
    (select(sets), any::<bool>()).prop_map(|(set, inverted)| {
        let words = set.key_length().div_ceil(4);
        let parts = (0..words)
            .map(|word| Expr::Load { to: Register::word(word), value: Value::mark(word) });
        let (inverted, to) = match set.data {
            Some(MapData::Verdict) => (false, Some(Register::VERDICT)),
            Some(_) => (false, Some(Register::FIRST)),
            None => (inverted, None),
        };
        let look_up = Expr::Lookup { set: set.name, from: Register::FIRST, inverted, to };
        parts.chain([look_up]).collect()
    })
}

/// What ends a rule.
fn statement(family: Family) -> BoxedStrategy<Vec<Expr>> {
    let reject = match family {
        Family::Inet => Reject::Icmpx(1),
        _ => Reject::Icmp(3),
    };
    let flags = select(vec![NatFlags::NONE, NatFlags::RANDOM, NatFlags::FULLY_RANDOM]);
    let (first, last) = (Register::word(8), Register::word(9));
    let family = if family == Family::Inet { Family::Ipv4 } else { family };
    let last_of_rule = prop_oneof![
        verdict().prop_map(Expr::Verdict),
        flags.clone().prop_map(|flags| Expr::Masquerade { flags, ports: None }),
        flags.clone().prop_map(move |flags| {
            Expr::Masquerade { flags, ports: Some(Range { first, last }) }
        }),
        flags
            .clone()
            .prop_map(move |flags| { Expr::Redirect { flags, ports: Some(Range::one(first)) } }),
        flags.prop_map(move |flags| Expr::Nat {
            kind: NatKind::Destination,
            family,
            addresses: Some(Range::one(Register::FIRST)),
            ports: Some(Range { first, last }),
            flags,
        }),
        Just(Expr::Reject(reject)),
        Just(Expr::Reject(Reject::TcpReset)),
    ];
    // Newer kernels refuse to read a register that nothing was put into (6.18: `ENODATA`).
    let loads = [
        Expr::Load { to: Register::FIRST, value: Value::new([10; 16]) },
        Expr::Load { to: first, value: Value::port(80) },
        Expr::Load { to: last, value: Value::port(90) },
    ];
    let loads = loads.to_vec();
    let whole = last_of_rule.prop_map(move |last| [&loads[..], &[last]].concat());
    option::of(whole).prop_map(Option::unwrap_or_default).boxed()
}
