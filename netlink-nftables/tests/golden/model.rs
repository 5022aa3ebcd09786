//! The content of the `.nft` files as this crate's types.

use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_nftables::{
    ct_state, priority, BaseChain, Chain, ChainKind, Compare, CtDirection, CtKey, DataType,
    Element, Expr, Family, FibFlags, FibResult, Hook, MapData, MetaKey, NatFlags, NatKind,
    PayloadBase, Policy, Range, Register, Reject, Rule, Set, SetFlags, Table, TableKey,
    Transaction, Value, Verdict,
};

const R1: Register = Register::FIRST;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `IPS_DST_NAT`
const DNAT: u32 = 0x20;

fn address(a: u8, b: u8, c: u8, d: u8) -> Value {
    Ipv4Addr::new(a, b, c, d).into()
}

fn frontend(address: Value, protocol: u8, port: u16) -> Value {
    Value::concatenation(&[address, Value::byte(protocol), Value::port(port)])
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { key, to: R1 }
}

fn payload(base: PayloadBase, offset: u32, length: u32, word: u32) -> Expr {
    Expr::Payload { base, offset, length, to: Register::word(word) }
}

fn source() -> Expr {
    payload(PayloadBase::Network, 12, 4, 0)
}

fn port() -> Expr {
    payload(PayloadBase::Transport, 2, 2, 0)
}

fn compare(how: Compare, value: Value) -> Expr {
    Expr::Compare { how, from: R1, value }
}

fn equal(value: Value) -> Expr {
    compare(Compare::Eq, value)
}

fn look_up(set: &str, inverted: bool, to: Option<Register>) -> Expr {
    Expr::Lookup { set: set.into(), from: R1, inverted, to }
}

fn bits(mask: u32, xor: u32) -> Expr {
    Expr::Bitwise { from: R1, to: R1, mask: Value::mark(mask), xor: Value::mark(xor) }
}

fn set_mark() -> Expr {
    Expr::SetMeta { key: MetaKey::Mark, from: R1 }
}

fn ct(key: CtKey, direction: Option<CtDirection>) -> Expr {
    Expr::Ct { key, direction, to: R1 }
}

/// `ip daddr . meta l4proto . th dport`
fn key() -> [Expr; 3] {
    [
        payload(PayloadBase::Network, 16, 4, 0),
        Expr::Meta { key: MetaKey::TransportProtocol, to: Register::word(1) },
        payload(PayloadBase::Transport, 2, 2, 2),
    ]
}

/// `meta l4proto tcp`
fn tcp() -> [Expr; 2] {
    [meta(MetaKey::TransportProtocol), equal(Value::byte(TCP))]
}

fn base(name: &str, kind: ChainKind, hook: Hook, priority: i32, policy: Policy) -> Chain {
    Chain { base: Some(BaseChain { kind, hook, priority, policy }), ..Chain::new(name) }
}

fn range(word: u32) -> Range {
    Range::one(Register::word(word))
}

pub(crate) fn ipv4() -> Transaction {
    let of = TableKey::new(Family::Ipv4, "golden");
    let mut all = Transaction::new();
    all.add_table(&Table {
        comment: Some("all that a proxy needs".into()),
        ..Table::new(of.clone())
    });
    let comment = Some("ports without a service".into());
    all.add_chain(&of, &Chain { comment, ..Chain::new("refuse") });
    let (filter, nat) = (ChainKind::Filter, ChainKind::Nat);
    let accept = Policy::Accept;
    for chain in [
        base("pre", filter.clone(), Hook::Prerouting, priority::MANGLE, accept),
        base("closed", filter, Hook::Input, priority::FILTER, Policy::Drop),
        base("post", nat.clone(), Hook::Postrouting, priority::SRCNAT, accept),
        base("nodeports", nat, Hook::Prerouting, priority::DSTNAT, accept),
    ] {
        all.add_chain(&of, &chain);
    }
    for name in ["pre", "refuse", "closed", "post", "nodeports"] {
        all.add_chain(&of, &Chain::new(name));
    }
    sets(&mut all, &of);
    maps(&mut all, &of);
    for (chain, rules) in [
        ("pre", prerouting()),
        ("refuse", refuse()),
        ("closed", closed()),
        ("post", postrouting()),
        ("nodeports", node_ports()),
    ] {
        for (index, expressions) in rules.into_iter().enumerate() {
            let first = chain == "pre" && index == 0;
            let comment = first.then(|| "to masquerade".into());
            all.append_rule(&of, &Rule { comment, ..Rule::new(chain, expressions) });
        }
    }
    all
}

fn sets(all: &mut Transaction, of: &TableKey) {
    use DataType::{InetProto, InetService, InterfaceName, Ipv4Addr};
    let add = |all: &mut Transaction, set: Set, elements: Vec<Element>| {
        all.add_set(of, &set);
        all.add_elements(of, &set.name, elements);
    };
    let set = Set {
        comment: Some("VIPs".into()),
        ..Set::new("frontends", [Ipv4Addr, InetProto, InetService])
    };
    let first = Element::new(frontend(address(10, 96, 0, 1), TCP, 443));
    let second = Element::new(frontend(address(10, 96, 0, 10), UDP, 53));
    add(all, set, vec![first.with_comment("default/kubernetes"), second]);

    let set = Set { size: Some(100), ..Set::new("nodes", [Ipv4Addr]) };
    let node = |last| Element::new(address(192, 0, 2, last));
    add(all, set, vec![node(1), node(2)]);

    let set = Set { flags: SetFlags::INTERVAL, ..Set::new("pods", [Ipv4Addr]) };
    let elements = vec![
        Element::end_of_interval(address(0, 0, 0, 0)),
        Element::new(address(10, 1, 0, 7)),
        Element::end_of_interval(address(10, 1, 0, 8)),
        Element::new(address(10, 244, 0, 0)),
        Element::end_of_interval(address(10, 245, 0, 0)),
    ];
    add(all, set, elements);

    let types = [Ipv4Addr, InetProto, InetService, Ipv4Addr];
    let set = Set { flags: SetFlags::INTERVAL, ..Set::new("sources", types) };
    let key = |port, source| {
        let parts = [address(10, 96, 0, 1), Value::byte(TCP), Value::port(port), source];
        Value::concatenation(&parts)
    };
    let elements = vec![
        Element::range(key(443, address(10, 0, 0, 0)), key(443, address(10, 255, 255, 255))),
        Element::range(key(80, address(192, 0, 2, 7)), key(90, address(192, 0, 2, 7))),
    ];
    add(all, set, elements);

    let timeout = Some(Duration::from_secs(300));
    let set = Set { flags: SetFlags::TIMEOUT, timeout, ..Set::new("expiring", [Ipv4Addr]) };
    add(all, set, vec![node(9).with_timeout(Duration::from_secs(90))]);

    let set = Set::new("interfaces", [InterfaceName]);
    let elements = ["lo", "eth0"].map(|name| Element::new(Value::interface(name)));
    add(all, set, elements.to_vec());
}

fn maps(all: &mut Transaction, of: &TableKey) {
    let key = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    let map = Set { data: Some(MapData::Verdict), ..Set::new("verdicts", key) };
    all.add_set(of, &map);
    let first = Element::new(frontend(address(10, 96, 0, 1), TCP, 443));
    let second = Element::new(frontend(address(10, 96, 0, 10), UDP, 53));
    let elements =
        [first.clone().with_data(Verdict::Jump("refuse".into())), second.with_data(Verdict::Drop)];
    all.add_elements(of, "verdicts", elements);

    let map = Set {
        data: Some(MapData::Value(vec![DataType::Mark])),
        flags: SetFlags::TIMEOUT,
        ..Set::new("marks", key)
    };
    all.add_set(of, &map);
    let element = first.with_data(Value::mark(0x12)).with_timeout(Duration::from_secs(180));
    all.add_elements(of, "marks", [element]);
}

fn prerouting() -> Vec<Vec<Expr>> {
    let destination = |key| ct(key, Some(CtDirection::Original));
    let prefix = |last| vec![last, Expr::Verdict(Verdict::Accept)];
    let mut of_range = key().to_vec();
    // hton of l4proto, which has no bytes to swap.
    let attributes = [[1, 9], [2, 9], [3, 1], [4, 1], [5, 2]];
    let data = attributes.map(|[kind, value]| [8, 0, kind, 0, 0, 0, 0, value]).concat();
    of_range.insert(2, Expr::Unknown { name: "byteorder".into(), data: data.into() });
    of_range.extend([
        payload(PayloadBase::Network, 12, 4, 3),
        look_up("sources", true, None),
        Verdict::Drop.into(),
    ]);
    let local = Expr::Fib { flags: FibFlags::DESTINATION, result: FibResult::AddressType, to: R1 };
    vec![
        [
            &key()[..],
            &[
                look_up("frontends", false, None),
                Expr::Counter,
                meta(MetaKey::Mark),
                bits(!0x4000, 0x4000),
                set_mark(),
            ],
        ]
        .concat(),
        [&key()[..], &[look_up("verdicts", false, Some(Register::VERDICT))]].concat(),
        [&key()[..], &[look_up("marks", false, Some(R1)), set_mark()]].concat(),
        vec![
            source(),
            look_up("pods", true, None),
            local,
            equal(Value::mark(FibResult::LOCAL)),
            Verdict::Goto("refuse".into()).into(),
        ],
        of_range,
        vec![meta(MetaKey::InputName), look_up("interfaces", false, None), Verdict::Return.into()],
        vec![meta(MetaKey::InputName), equal(Value::new(*b"eth")), Verdict::Continue.into()],
        [vec![payload(PayloadBase::Network, 12, 1, 0)], prefix(equal(Value::byte(10)))].concat(),
        [
            vec![
                source(),
                Expr::Bitwise {
                    from: R1,
                    to: R1,
                    mask: address(255, 240, 0, 0),
                    xor: address(0, 0, 0, 0),
                },
            ],
            prefix(equal(address(10, 16, 0, 0))),
        ]
        .concat(),
        vec![meta(MetaKey::OutputName), equal(Value::interface("lo")), Verdict::Accept.into()],
        [
            &[destination(CtKey::DestinationIpv4), equal(address(10, 96, 0, 1))],
            &tcp(),
            &[destination(CtKey::DestinationPort), equal(Value::port(443))],
            &[Verdict::Accept.into()][..],
        ]
        .concat(),
        vec![meta(MetaKey::Mark), Expr::SetCt { key: CtKey::Mark, from: R1 }],
    ]
}

fn refuse() -> Vec<Vec<Expr>> {
    vec![
        [&tcp()[..], &[Expr::Reject(Reject::TcpReset)]].concat(),
        vec![Expr::Reject(Reject::ICMP_PORT)],
    ]
}

fn closed() -> Vec<Vec<Expr>> {
    let has = |key, mask, verdict: Verdict| {
        let any = compare(Compare::Neq, Value::mark(0));
        vec![ct(key, None), bits(mask, 0), any, verdict.into()]
    };
    let log = Expr::Unknown { name: "log".into(), data: (*b"\x06\0\x02\0x\0\0\0").into() };
    vec![
        has(CtKey::State, ct_state::ESTABLISHED | ct_state::RELATED, Verdict::Accept),
        has(CtKey::State, ct_state::INVALID, Verdict::Drop),
        has(CtKey::Status, DNAT, Verdict::Accept),
        [
            &tcp()[..],
            &[
                port(),
                compare(Compare::Gte, Value::port(80)),
                compare(Compare::Lte, Value::port(90)),
                Verdict::Accept.into(),
            ],
        ]
        .concat(),
        [
            &tcp()[..],
            &[port(), compare(Compare::Neq, Value::port(22)), log, Verdict::Return.into()],
        ]
        .concat(),
    ]
}

fn postrouting() -> Vec<Vec<Expr>> {
    vec![
        vec![
            meta(MetaKey::Mark),
            bits(0x4000, 0),
            equal(Value::mark(0x4000)),
            meta(MetaKey::Mark),
            bits(!0, 0x4000),
            set_mark(),
            Expr::Masquerade { flags: NatFlags::FULLY_RANDOM, ports: None },
        ],
        vec![
            payload(PayloadBase::Network, 16, 4, 0),
            equal(address(192, 0, 2, 1)),
            Expr::Load { to: R1, value: address(192, 0, 2, 7) },
            Expr::Nat {
                kind: NatKind::Source,
                family: Family::Ipv4,
                addresses: Some(range(0)),
                ports: None,
                flags: NatFlags::NONE,
            },
        ],
        vec![Expr::Masquerade { flags: NatFlags::NONE, ports: None }],
    ]
}

fn node_ports() -> Vec<Vec<Expr>> {
    let port_is = |number| [&tcp()[..], &[port(), equal(Value::port(number))]].concat();
    let to_pod = [
        Expr::Load { to: R1, value: address(10, 244, 0, 7) },
        Expr::Load { to: Register::word(4), value: Value::port(8080) },
        Expr::Nat {
            kind: NatKind::Destination,
            family: Family::Ipv4,
            addresses: Some(range(0)),
            ports: Some(range(4)),
            flags: NatFlags::NONE,
        },
    ];
    let to_host = [
        Expr::Load { to: R1, value: Value::port(8081) },
        Expr::Redirect { flags: NatFlags::NONE, ports: Some(range(0)) },
    ];
    vec![[&port_is(80)[..], &to_pod].concat(), [&port_is(81)[..], &to_host].concat()]
}

pub(crate) fn ipv6() -> Transaction {
    let of = TableKey::new(Family::Ipv6, "golden");
    let ip = |text: &str| Value::from(text.parse::<std::net::Ipv6Addr>().expect("an address"));
    let mut all = Transaction::new();
    all.add_table(&Table::new(of.clone()));
    let pre = base("pre", ChainKind::Filter, Hook::Prerouting, priority::MANGLE, Policy::Accept);
    all.add_chain(&of, &pre);
    let key = [DataType::Ipv6Addr, DataType::InetProto, DataType::InetService];
    all.add_set(&of, &Set::new("frontends", key));
    let element = Element::new(frontend(ip("fd00::1"), TCP, 443));
    all.add_elements(&of, "frontends", [element]);
    let flags = SetFlags::INTERVAL;
    all.add_set(&of, &Set { flags, ..Set::new("pods", [DataType::Ipv6Addr]) });
    let elements = [
        Element::end_of_interval(ip("::")),
        Element::new(ip("fd00:1::")),
        Element::end_of_interval(ip("fd00:1:0:1::")),
    ];
    all.add_elements(&of, "pods", elements);
    for rule in [
        vec![
            payload(PayloadBase::Network, 24, 16, 0),
            Expr::Meta { key: MetaKey::TransportProtocol, to: Register::word(4) },
            payload(PayloadBase::Transport, 2, 2, 5),
            look_up("frontends", false, None),
            Verdict::Accept.into(),
        ],
        vec![
            payload(PayloadBase::Network, 8, 16, 0),
            look_up("pods", false, None),
            Verdict::Accept.into(),
        ],
        vec![
            ct(CtKey::DestinationIpv6, Some(CtDirection::Original)),
            equal(ip("fd00::1")),
            Expr::Reject(Reject::ICMPV6_PORT),
        ],
    ] {
        all.append_rule(&of, &Rule::new("pre", rule));
    }
    all
}

pub(crate) fn inet() -> Transaction {
    let of = TableKey::new(Family::Inet, "golden");
    let mut all = Transaction::new();
    all.add_table(&Table::new(of.clone()));
    let closed = base("closed", ChainKind::Filter, Hook::Input, priority::FILTER, Policy::Drop);
    all.add_chain(&of, &closed);
    for rule in [
        vec![meta(MetaKey::NetworkProtocol), equal(Value::byte(2)), Verdict::Accept.into()],
        vec![Expr::Reject(Reject::Icmpx(3))],
        vec![Expr::Unknown { name: "notrack".into(), data: [].into() }],
    ] {
        all.append_rule(&of, &Rule::new("closed", rule));
    }
    all
}
