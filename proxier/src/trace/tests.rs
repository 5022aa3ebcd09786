//! Rules of others, and what the host itself does to packets. That ours lead packets where the objects say
//! is shown by the properties of the tests' crate.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use netlink_ipvs::{RealServer, RealServerConfig, Scheduler, VirtualServerConfig};
use netlink_nftables as nft;
use netlink_nftables::{
    BaseChain, Chain, ChainKind, Compare, Data, Element, Expr, MetaKey, PayloadBase, Policy,
    Register, Rule, SetFlags, TableKey, Value, Verdict,
};

use super::*;
use crate::builders::ip;
use crate::dataplane::{InterfaceState, VirtualServerState};

const VIP: &str = "10.96.0.1";
const POD: &str = "10.244.0.5";
const CLIENT: &str = "192.0.2.7";

fn state() -> State {
    let key = VirtualServerKey::new(ip(VIP), 80, Protocol::Tcp);
    let server = RealServer {
        key: RealServerKey::new(ip(POD), 8080),
        config: RealServerConfig::masquerade(1),
    };
    let config = VirtualServerConfig::new("rr".parse::<Scheduler>().unwrap(), Family::Ipv4);
    let server = VirtualServerState { config, real_servers: Arc::from([server]) };
    State {
        virtual_servers: [(key, Arc::new(server))].into(),
        interface: InterfaceState { addresses: [ip(VIP)].into(), ..InterfaceState::default() },
        ..State::default()
    }
}

fn host() -> Host {
    let routes =
        "eth0\t00000000\t0\t3\t0\t0\t0\t00000000\ncni0\t0000F40A\t0\t1\t0\t0\t0\t00FFFFFF\n";
    Host {
        addresses: [ip("192.0.2.1")].into(),
        routes: Routes::read(routes, ""),
        ..Host::default()
    }
}

fn packet() -> Packet {
    let from = Sender::Other { address: ip(CLIENT), interface: "eth0".to_owned(), bridged: false };
    Packet { from, destination: ip(VIP), port: 80, protocol: Protocol::Tcp }
}

fn follow(text: Option<&str>, tables: Vec<Content>, host: Host, packet: &Packet) -> Followed {
    let state = state();
    let rules = [(Family::Ipv4, (text.map(str::to_owned), tables))].into();
    Machine::of_rules(&rules, &state, host).follow(packet)
}

/// The outcome, and the last step.
fn by_iptables(text: &str) -> (&'static str, String) {
    let followed = follow(Some(text), Vec::new(), host(), &packet());
    (followed.outcome.name(), followed.steps.last().unwrap().text.clone())
}

#[test]
fn rules_of_others_are_followed() {
    for (rules, outcome, last) in [
        ("*filter\n:INPUT DROP [0:0]\n", "dropped", "filter INPUT: policy drop"),
        (
            "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n",
            "reached",
            "",
        ),
        (
            "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -s 192.0.2.0/24 -j DROP\n",
            "dropped",
            "raw PREROUTING: -s 192.0.2.0/24 -j DROP",
        ),
        (
            "*filter\n-A INPUT ! -i cni0 -m multiport --dports 22,79:81 -j REJECT --reject-with tcp-reset\n",
            "refused",
            "filter INPUT: ! -i cni0 --dports 22,79:81 -j REJECT --reject-with tcp-reset",
        ),
        (
            "*filter\n-A INPUT -p udp -j DROP\n-A INPUT -p 6 -m tcp --dport 81 -j DROP\n",
            "reached",
            "",
        ),
        // The answer of the pod.
        ("*filter\n:FORWARD DROP [0:0]\n", "dropped", "filter FORWARD: policy drop"),
        (
            "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n",
            "reached",
            "",
        ),
        (
            "*filter\n-A FORWARD -s 10.244.0.0/16 -i cni0 -o eth0 -j DROP\n",
            "dropped",
            "filter FORWARD: -s 10.244.0.0/16 -i cni0 -o eth0 -j DROP",
        ),
        // IPVS sends on by OUTPUT.
        (
            "*filter\n:OUTPUT ACCEPT\n-A OUTPUT -d 10.244.0.5/32 -j DROP\n",
            "dropped",
            "filter OUTPUT: -d 10.244.0.5/32 -j DROP",
        ),
        (
            "*nat\n-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.9.9.9:80\n",
            "no service",
            "nat PREROUTING: -d 10.96.0.1/32 -p tcp --dport 80 -j DNAT --to-destination 10.9.9.9:80",
        ),
        (
            "*filter\n:A - [0:0]\n:B - [0:0]\n-A INPUT -g A\n-A INPUT -j DROP\n-A A -j B\n-A B -j RETURN\n",
            "reached",
            "",
        ),
    ] {
        let (found, said) = by_iptables(rules);
        assert_eq!(found, outcome, "{rules}");
        assert!(last.is_empty() || said == last, "{said} of {rules}");
    }
}

#[test]
fn what_cannot_be_judged_is_named() {
    let text = "*filter\n-A INPUT -m limit --limit 3/min -j DROP\n-A INPUT -p udp -m limit --limit 3/min -j DROP\n\
                -A INPUT -m set --match-set blocked src -j DROP\n-A INPUT -m limit --limit 1/s -j LOG\n";
    let followed = follow(Some(text), Vec::new(), host(), &packet());
    assert_eq!(followed.outcome.name(), "reached");
    let doubts: Vec<&str> = followed.doubts.iter().map(|doubt| doubt.text.as_str()).collect();
    assert_eq!(
        doubts,
        [
            "filter INPUT: --limit 3/min -j DROP (--limit 3/min)",
            "filter INPUT: --match-set blocked src -j DROP (--match-set blocked)"
        ]
    );
}

/// A table of somebody with one chain.
fn table(
    hook: nft::Hook,
    policy: Policy,
    rules: &[Vec<Expr>],
    sets: Vec<(nft::Set, Vec<Element>)>,
) -> Content {
    let mut chain = Chain::new("guard");
    chain.base = Some(BaseChain { kind: ChainKind::Filter, hook, priority: 0, policy });
    let rules = rules.iter().map(|it| Rule::new("guard", it.clone())).collect();
    let key = TableKey::new(nft::Family::Inet, "firewall");
    Content { key, chains: vec![(chain, rules)], sets }
}

fn port() -> Expr {
    Expr::Payload { base: PayloadBase::Transport, offset: 2, length: 2, to: Register::FIRST }
}

fn look_up(inverted: bool, to: Option<Register>) -> Expr {
    Expr::Lookup { set: "__set0".to_owned(), from: Register::FIRST, inverted, to }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn tables_of_others_are_followed() {
    use Policy::{Accept, Drop};
    use nft::Hook::{Input, Prerouting};

    let compare = |how, value: Value| Expr::Compare { how, from: Register::FIRST, value };
    let meta = |key| Expr::Meta { key, to: Register::FIRST };
    let drop = || Expr::Verdict(Verdict::Drop);
    let flags = SetFlags::ANONYMOUS | SetFlags::INTERVAL;
    let ports = nft::Set { flags, ..nft::Set::new("__set0", [nft::DataType::InetService]) };
    let range = |first: u16, end: u16| {
        vec![Element::new(Value::port(first)), Element::end_of_interval(Value::port(end))]
    };
    let verdicts = nft::Set {
        flags: SetFlags::ANONYMOUS,
        data: Some(nft::MapData::Verdict),
        ..nft::Set::new("__set0", [nft::DataType::InetService])
    };
    let vmap = |port: u16, verdict| {
        vec![Element::new(Value::port(port)).with_data(Data::Verdict(verdict))]
    };
    let to_verdict = Some(Register::VERDICT);
    for (what, table, outcome) in [
        ("policy", table(Input, Drop, &[], vec![]), "dropped"),
        (
            "accepted",
            table(
                Input,
                Drop,
                &[vec![port(), compare(Compare::Eq, Value::port(80)), Verdict::Accept.into()]],
                vec![],
            ),
            "reached",
        ),
        (
            "in a range",
            table(
                Input,
                Accept,
                &[vec![port(), look_up(false, None), drop()]],
                vec![(ports.clone(), range(79, 81))],
            ),
            "dropped",
        ),
        (
            "beyond a range",
            table(
                Input,
                Accept,
                &[vec![port(), look_up(false, None), drop()]],
                vec![(ports.clone(), range(70, 80))],
            ),
            "reached",
        ),
        (
            "in no range",
            table(
                Input,
                Accept,
                &[vec![port(), look_up(true, None), drop()]],
                vec![(ports, range(70, 80))],
            ),
            "dropped",
        ),
        (
            "by a verdict map",
            table(
                Input,
                Accept,
                &[vec![port(), look_up(false, to_verdict)]],
                vec![(verdicts.clone(), vmap(80, Verdict::Drop))],
            ),
            "dropped",
        ),
        (
            "not by a verdict map",
            table(
                Input,
                Accept,
                &[vec![port(), look_up(false, to_verdict)]],
                vec![(verdicts, vmap(81, Verdict::Drop))],
            ),
            "reached",
        ),
        (
            "by the interface",
            table(
                Prerouting,
                Accept,
                &[vec![
                    meta(MetaKey::InputName),
                    compare(Compare::Eq, Value::interface("eth0")),
                    drop(),
                ]],
                vec![],
            ),
            "dropped",
        ),
        (
            "another family",
            table(
                Prerouting,
                Accept,
                &[vec![
                    meta(MetaKey::NetworkProtocol),
                    compare(Compare::Eq, Value::byte(10)),
                    drop(),
                ]],
                vec![],
            ),
            "reached",
        ),
        (
            "rejected",
            table(
                Prerouting,
                Accept,
                &[vec![Expr::Counter, Expr::Reject(nft::Reject::ICMPX_PORT)]],
                vec![],
            ),
            "refused",
        ),
    ] {
        let followed = follow(None, vec![table], host(), &packet());
        assert_eq!(followed.outcome.name(), outcome, "{what}: {followed}");
        assert_eq!(followed.doubts, [], "{what}");
    }
    let unknown = Expr::Unknown { name: "limit".to_owned(), data: Box::default() };
    let guard = table(Input, Accept, &[vec![unknown, drop()]], vec![]);
    let followed = follow(None, vec![guard], host(), &packet());
    assert_eq!(followed.outcome.name(), "reached");
    assert_eq!(
        followed.doubts[0].text,
        "inet firewall guard: rule 1 (`nft list chain inet firewall guard`) (limit)"
    );
}

/// iptables over nftables: the text says it, and the kernel lists the same chains.
#[test]
fn what_iptables_keeps_in_nftables_is_followed_once() {
    let mut closed = table(nft::Hook::Input, Policy::Drop, &[], vec![]);
    closed.key = TableKey::new(nft::Family::Ipv4, "filter");
    let text = "# Generated by iptables-save v1.8.9 (nf_tables)\n*filter\n:INPUT ACCEPT [0:0]\n";
    let outcome =
        |text: &str| follow(Some(text), vec![closed.clone()], host(), &packet()).outcome.name();
    assert_eq!(outcome(text), "reached");
    assert_eq!(outcome(&text.replace(" (nf_tables)", "")), "dropped");
}

#[test]
fn the_host_itself_drops() {
    let said = |host: Host, packet: &Packet| {
        let followed = follow(None, Vec::new(), host, packet);
        (followed.outcome.name(), followed.steps.last().unwrap().text.clone())
    };
    let (outcome, text) = said(Host { forwards_not: [Family::Ipv4].into(), ..host() }, &packet());
    assert!(outcome == "dropped" && text.contains("`sysctl -w net.ipv4.ip_forward=1`"), "{text}");
    // To the node itself nothing is forwarded.
    let node = Packet { from: Sender::Node, ..packet() };
    let (outcome, _) = said(Host { forwards_not: [Family::Ipv4].into(), ..host() }, &node);
    assert_eq!(outcome, "reached");
    let (outcome, text) = said(Host { conntrack_full: Some(1000), ..host() }, &packet());
    assert!(outcome == "dropped" && text.contains("nf_conntrack_max=2000`"), "{text}");
    let strict =
        || Host { strict_interfaces: ["eth0".to_owned(), "cni0".to_owned()].into(), ..host() };
    assert_eq!(said(strict(), &packet()).0, "reached");
    let from = Sender::Other { address: ip(CLIENT), interface: "cni0".to_owned(), bridged: false };
    let (outcome, text) = said(strict(), &Packet { from, ..packet() });
    assert!(
        outcome == "dropped" && text.contains("comes in by cni0 and is reached by eth0"),
        "{text}"
    );
}

#[test]
fn an_answer_that_does_not_come_back_is_lost() {
    let from = |bridged| Sender::Other {
        address: ip("10.244.0.6"),
        interface: "cni0".to_owned(),
        bridged,
    };
    let follow = |bridged, rules| {
        follow(Some(rules), Vec::new(), host(), &Packet { from: from(bridged), ..packet() })
    };
    let lost = follow(false, "");
    assert_eq!(lost.outcome, Outcome::Dropped);
    assert!(lost.to_string().contains("both reached by cni0"), "{lost}");
    assert_eq!(follow(true, "").outcome.name(), "reached");
    let masquerade = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
    assert_eq!(follow(false, masquerade).outcome.name(), "reached");
}

#[test]
fn a_service_that_is_not_there_is_told_from_one_that_is_not_bound() {
    let other = Packet { port: 81, ..packet() };
    let followed = follow(None, Vec::new(), host(), &other);
    assert_eq!(followed.outcome, Outcome::NotOurs);
    let text = followed.to_string();
    assert!(text.contains("there is no virtual server 10.96.0.1:81/tcp; it has 80/tcp"), "{text}");
    let mut unbound = state();
    unbound.interface.addresses.clear();
    let rules = BTreeMap::new();
    let text = Machine::of_rules(&rules, &unbound, host()).follow(&packet()).to_string();
    assert!(text.contains("although there is a virtual server 10.96.0.1:80/tcp"), "{text}");
}
