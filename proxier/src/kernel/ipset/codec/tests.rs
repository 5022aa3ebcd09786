use std::collections::{BTreeMap, BTreeSet};

use netlink_batch::{Attributes, Batch, Malformed, PutAttributes};
use netlink_ipvs::Protocol;
use proptest::prelude::*;

use super::*;
use crate::dataplane::sets::Member;
use crate::kernel::captures::{self, HEADERS, body};
use crate::kernel::ipset::{Change, SetHeader, SetSpec};
use netlink_batch::netfilter::{Header, push};

const GOLDEN: &str = include_str!("golden.txt");
const ENCODER: Encoder = Encoder { protocol: 7 };

fn captured(command: &str, direction: char) -> Vec<Vec<u8>> {
    captures::captured(GOLDEN, command, direction)
}

/// The last message that was sent for a command, without the flags that the socket adds.
fn request(command: &str) -> Vec<u8> {
    let mut message = captured(command, '>').pop().unwrap();
    message[6] &= !4; // NLM_F_ACK
    message[7] &= if command.contains(" list ") { 0 } else { !0 }; // NLM_F_DUMP
    message
}

fn encoded(encode: impl FnOnce(&mut Batch)) -> Vec<u8> {
    let mut batch = Batch::default();
    encode(&mut batch);
    batch.bytes().to_vec()
}

/// An answer to a list with these attributes.
fn answer(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    encoded(|batch| push(batch, Header { subsystem: 6, command: 7, flags: 0, family: 2 }, write))
}

fn set(name: &str, set_type: SetType, family: Family) -> SetSpec<'_> {
    SetSpec { name, set_type, family, capacity: 65536 }
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

/// One member of each type, with the command that adds it.
fn members() -> Vec<(&'static str, SetType, Member)> {
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    let (one, two) = (ip("10.0.0.1"), ip("10.0.0.2"));
    let net = |text: &str| text.parse().unwrap();
    vec![
        ("add H1 10.0.0.1", SetType::HashIp, Member::Ip(one)),
        ("add H6 fd00::1", SetType::HashIp, Member::Ip(ip("fd00::1"))),
        ("add P1 10.0.0.1,udp:53", SetType::HashIpPort, Member::IpPort(one, udp, 53)),
        (
            "add I1 10.0.0.1,tcp:80,10.0.0.2",
            SetType::HashIpPortIp,
            Member::IpPortIp(one, tcp, 80, two),
        ),
        (
            "add N4 1.2.3.4,tcp:80,10.0.0.0/8",
            SetType::HashIpPortNet,
            Member::IpPortNet(ip("1.2.3.4"), tcp, 80, net("10.0.0.0/8")),
        ),
        (
            "add N4 1.2.3.4,sctp:80,10.0.0.7",
            SetType::HashIpPortNet,
            Member::IpPortNet(ip("1.2.3.4"), sctp, 80, net("10.0.0.7/32")),
        ),
        (
            "add N6 fd00::1,sctp:80,fd00::/64",
            SetType::HashIpPortNet,
            Member::IpPortNet(ip("fd00::1"), sctp, 80, net("fd00::/64")),
        ),
        ("add B1 30080", SetType::BitmapPort, Member::Port(30080)),
    ]
}

#[test]
fn creates_as_ipset_does() {
    for (command, spec, revision) in [
        ("H1 hash:ip family inet", set("H1", SetType::HashIp, Family::Ipv4), 5),
        ("H6 hash:ip family inet6", set("H6", SetType::HashIp, Family::Ipv6), 5),
        ("P1 hash:ip,port family inet", set("P1", SetType::HashIpPort, Family::Ipv4), 6),
        ("I1 hash:ip,port,ip family inet", set("I1", SetType::HashIpPortIp, Family::Ipv4), 6),
        ("N6 hash:ip,port,net family inet6", set("N6", SetType::HashIpPortNet, Family::Ipv6), 8),
        ("N4 hash:ip,port,net family inet", set("N4", SetType::HashIpPortNet, Family::Ipv4), 8),
        ("B1 bitmap:port", set("B1", SetType::BitmapPort, Family::Ipv4), 3),
    ] {
        let options = match spec.set_type {
            SetType::BitmapPort => "range 0-65535",
            _ => "hashsize 1024 maxelem 65536",
        };
        let command = format!("ipset create {command} {options}");
        let ours = encoded(|m| ENCODER.create(m, &spec, revision));
        assert_eq!(ours, request(&command), "{command}");
        // The question that comes before, and the answer that gave the revision.
        let sent = captured(&command, '>');
        // ipset asks for IPv4 whatever the family.
        let question = encoded(|m| ENCODER.set_type(m, spec.set_type, Family::Ipv4));
        assert_eq!(question, sent[sent.len() - 2], "{command}");
        let answer = captured(&command, '<').pop().unwrap();
        let kernel = decode_versions(body(&answer), Command::Type).unwrap();
        assert_eq!(super::revision(spec.set_type, kernel), Some(revision), "{command}");
    }
}

#[test]
fn adds_and_removes_as_ipset_does() {
    for (command, _, member) in members() {
        let (_, rest) = command.split_once(' ').unwrap();
        let (name, text) = rest.split_once(' ').unwrap();
        assert_eq!(member.to_string(), text);
        let ours = encoded(|m| ENCODER.change(m, &Change::Add(name, member)));
        assert_eq!(ours, request(&format!("ipset {command}")), "{command}");
    }
    let gone = Member::IpPortIp(ip("10.0.0.9"), Protocol::Tcp, 80, ip("10.0.0.2"));
    let ours = encoded(|m| ENCODER.change(m, &Change::Remove("I1", gone)));
    assert_eq!(ours, request("ipset del I1 10.0.0.9,tcp:80,10.0.0.2"));
    let ours = encoded(|m| ENCODER.change(m, &Change::Remove("B1", Member::Port(30081))));
    assert_eq!(ours, request("ipset del B1 30081"));
}

#[test]
fn manages_sets_as_ipset_does() {
    let ours = encoded(|m| ENCODER.two(m, Command::Swap, "H1", "H2"));
    assert_eq!(ours, request("ipset swap H1 H2"));
    let ours = encoded(|m| ENCODER.two(m, Command::Rename, "H2", "H3"));
    assert_eq!(ours, request("ipset rename H2 H3"));
    let ours = encoded(|m| ENCODER.one(m, Command::Flush, "H1"));
    assert_eq!(ours, request("ipset flush H1"));
    let ours = encoded(|m| ENCODER.one(m, Command::Destroy, "H3"));
    assert_eq!(ours, request("ipset destroy H3"));
    assert_eq!(encoded(|m| ENCODER.list(m, "H1")), request("ipset list H1"));
    assert_eq!(encoded(|m| ENCODER.list_headers(m)), request("ipset list -t"));
}

#[test]
fn agrees_on_the_protocol_as_ipset_does() {
    let command = "ipset create H1 hash:ip family inet hashsize 1024 maxelem 65536";
    assert_eq!(encoded(|m| ENCODER.protocol(m)), captured(command, '>')[0]);
    let answer = &captured(command, '<')[0];
    assert_eq!(decode_versions(body(answer), Command::Protocol).unwrap(), (6, 7));
}

/// What `ipset list` of a set showed, as this program reads it.
fn listed(name: &str) -> (SetHeader, BTreeSet<Member>) {
    let mut header = None;
    let mut members = BTreeSet::new();
    for message in captured(&format!("ipset list {name}"), '<') {
        let body = body(&message);
        header = decode_header(body).unwrap().or(header);
        let set_type = header.as_ref().and_then(|header| header.set_type);
        decode_elements(body, set_type, |element| match element {
            Element::Member(member) => drop(members.insert(member)),
            Element::Foreign(element) => panic!("{element} is foreign"),
        })
        .unwrap();
    }
    (header.unwrap(), members)
}

#[test]
fn reads_what_the_kernel_lists() {
    let mut expected = BTreeMap::<&str, BTreeSet<Member>>::new();
    for (command, _, member) in members() {
        expected.entry(&command[4..6]).or_default().insert(member);
    }
    for (name, set_type, family) in [
        ("H1", SetType::HashIp, Some(Family::Ipv4)),
        ("H6", SetType::HashIp, Some(Family::Ipv6)),
        ("P1", SetType::HashIpPort, Some(Family::Ipv4)),
        ("I1", SetType::HashIpPortIp, Some(Family::Ipv4)),
        ("N4", SetType::HashIpPortNet, Some(Family::Ipv4)),
        ("N6", SetType::HashIpPortNet, Some(Family::Ipv6)),
        ("B1", SetType::BitmapPort, None),
    ] {
        let (header, members) = listed(name);
        assert_eq!(members, expected[name], "{name}");
        assert_eq!((header.name.as_str(), header.set_type), (name, Some(set_type)));
        assert_eq!(header.type_name, set_type.name());
        assert_eq!(header.family, family);
        assert_eq!(header.members, Some(members.len() as u32));
        let hash = set_type != SetType::BitmapPort;
        assert_eq!(header.capacity, hash.then_some(65536));
        assert_eq!(header.hash_size, hash.then_some(1024));
        assert_eq!(header.ports, (!hash).then_some((0, 65535)));
        assert!(set(name, set_type, family.unwrap_or(Family::Ipv4)).matches(&header));
    }
}

#[test]
fn a_set_with_other_options_is_recognised() {
    let (header, members) = listed("C1"); // comment, timeout 60
    assert!(header.has_options);
    assert!(!set("C1", SetType::HashIp, Family::Ipv4).matches(&header));
    // Its members can be read nevertheless.
    assert_eq!(members, [Member::Ip(ip("10.0.0.1"))].into());
    let (header, _) = listed("H1");
    assert!(!set("H1", SetType::HashIp, Family::Ipv6).matches(&header));
    assert!(!set("H1", SetType::HashIpPort, Family::Ipv4).matches(&header));
}

#[test]
fn reads_the_headers_of_all_sets() {
    let headers: Vec<_> = captured("ipset list -t", '<')
        .iter()
        .filter_map(|message| decode_header(body(message)).unwrap())
        .map(|header| (header.name, header.set_type.is_some(), header.members))
        .collect();
    let names: Vec<_> = headers.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["H1", "H6", "P1", "I1", "N6", "N4", "B1", "T1", "C1"]);
    assert!(headers.contains(&("T1".into(), false, Some(0))), "hash:net is not ours");
    assert!(headers.contains(&("N4".into(), true, Some(2))));
}

#[test]
fn revisions_are_the_newest_that_both_know() {
    assert_eq!(revision(SetType::HashIp, (0, 5)), Some(5));
    assert_eq!(revision(SetType::HashIp, (0, 99)), Some(6));
    assert_eq!(revision(SetType::HashIp, (7, 99)), None);
}

/// A list of one element with these attributes.
fn list_of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    answer(|m| m.nested(attr::ADT, |m| m.nested(attr::DATA, write)))
}

/// A member in a list, so that decoding sees what encoding wrote.
fn as_listed(member: &Member) -> Vec<u8> {
    list_of(|m| encode::encode_member(m, member))
}

fn decoded(list: &[u8], set_type: SetType) -> Result<Vec<Element>, Malformed> {
    let mut elements = Vec::new();
    decode_elements(body(list), Some(set_type), |element| elements.push(element)).map(|()| elements)
}

/// The one element of a list, which is foreign.
fn foreign(list: &[u8], set_type: SetType) -> ForeignElement {
    match decoded(list, set_type).unwrap().pop() {
        Some(Element::Foreign(element)) => element,
        other => panic!("{other:?}"),
    }
}

#[test]
fn elements_of_another_shape_are_foreign() {
    let one = |m: &mut Vec<u8>| {
        m.nested(data::IP, |m| m.attribute(data::IPV4, &[10, 0, 0, 1]));
    };
    let endpoint = |m: &mut Vec<u8>, protocol: u8, port: u16| {
        one(m);
        m.attribute(data::PORT, &port.to_be_bytes());
        m.attribute(data::PROTO, &[protocol]);
    };
    let text = |set_type, write: &dyn Fn(&mut Vec<u8>)| {
        foreign(&list_of(|m| write(m)), set_type).to_string()
    };
    let nomatch = |m: &mut Vec<u8>| {
        endpoint(m, 6, 80);
        m.nested(data::IP2, |m| m.attribute(data::IPV4, &[10, 0, 0, 0]));
        m.attribute(data::CIDR2, &[8]);
        m.attribute(data::CADT_FLAGS, &4_u32.to_be_bytes());
    };
    assert_eq!(text(SetType::HashIpPort, &|m| endpoint(m, 1, 0x0800)), "10.0.0.1,icmp:8/0");
    assert_eq!(text(SetType::HashIpPort, &|m| endpoint(m, 58, 0x8001)), "10.0.0.1,icmpv6:128/1");
    assert_eq!(text(SetType::HashIpPort, &|m| endpoint(m, 47, 0)), "10.0.0.1,47:0");
    assert_eq!(text(SetType::HashIpPortNet, &nomatch), "10.0.0.1,tcp:80,10.0.0.0/8 nomatch");
    let net = |m: &mut Vec<u8>| {
        m.nested(data::IP, |m| m.attribute(data::IPV4, &[10, 0, 0, 0]));
        m.attribute(data::CIDR, &[8]);
    };
    assert_eq!(text(SetType::HashIp, &net), "10.0.0.0/8");
    let unknown = |m: &mut Vec<u8>| {
        one(m);
        m.attribute(99, b"?");
    };
    assert_eq!(text(SetType::HashIp, &unknown), "10.0.0.1 with unknown attribute 99");
    assert_eq!(
        text(SetType::HashIp, &|m| m.attribute(data::IP, &[])),
        "an element that cannot be read"
    );
    for (_, set_type, member) in members() {
        for other in
            [SetType::HashIp, SetType::HashIpPort, SetType::HashIpPortIp, SetType::BitmapPort]
        {
            // A network of one address looks like an address.
            let alike = matches!(member, Member::IpPortNet(.., net) if net.prefix_len() == 32)
                && other == SetType::HashIpPortIp;
            if other != set_type && !alike {
                let element = foreign(&as_listed(&member), other);
                assert_eq!(element.to_string(), member.to_string(), "in {other:?}");
            }
        }
    }
}

#[test]
fn a_foreign_element_is_what_identifies_it_and_is_removed_as_it_was_listed() {
    let listed = |packets: u64| {
        foreign(
            &list_of(|m| {
                m.nested(data::IP, |m| m.attribute(data::IPV4, &[10, 0, 0, 1]));
                m.attribute(99, b"odd");
                m.attribute(data::BYTES, &packets.to_be_bytes());
                m.attribute(data::TIMEOUT, &60_u32.to_be_bytes());
            }),
            SetType::HashIp,
        )
    };
    // Counters and the time that is left change.
    assert_eq!(listed(1), listed(2));
    let element = listed(1);
    let request = encoded(|m| ENCODER.change(m, &Change::RemoveForeign("H1", &element)));
    let expected = encoded(|m| {
        ENCODER.change(m, &Change::Remove("H1", Member::Ip(ip("10.0.0.1"))));
    });
    let attributes = element.attributes();
    assert!(request.windows(attributes.len()).any(|part| part == attributes));
    // The same but for the attribute of eight bytes.
    assert_eq!(request.len(), expected.len() + 8);
}

#[test]
fn a_parameter_that_is_not_known_makes_it_another_set() {
    let header = |kind: u16| {
        let message = answer(|m| {
            m.text(attr::SETNAME, "H1");
            m.text(attr::TYPENAME, "hash:ip");
            m.attribute(attr::FAMILY, &[2]);
            m.nested(attr::DATA, |m| m.attribute(kind, &[0, 0, 0, 9]));
        });
        decode_header(body(&message)).unwrap().unwrap()
    };
    let wanted = set("H1", SetType::HashIp, Family::Ipv4);
    assert!(wanted.matches(&header(data::MAXELEM)));
    assert!(!wanted.matches(&header(data::TIMEOUT)));
    assert!(!wanted.matches(&header(12)), "IPSET_ATTR_BITMASK");
    assert!(!wanted.matches(&header(99)));
}

fn any_address() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(Into::into), any::<[u8; 16]>().prop_map(Into::into),]
}

fn any_member() -> impl Strategy<Value = (SetType, Member)> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (any_address(), protocol, any::<u16>(), any_address(), 0_u8..=128, 0_usize..5).prop_map(
        |(ip, protocol, port, other, prefix, shape)| match shape {
            0 => (SetType::HashIp, Member::Ip(ip)),
            1 => (SetType::HashIpPort, Member::IpPort(ip, protocol, port)),
            2 => (SetType::HashIpPortIp, Member::IpPortIp(ip, protocol, port, other)),
            3 => {
                let longest = if other.is_ipv4() { 32 } else { 128 };
                let net = ipnet::IpNet::new(other, prefix.min(longest)).unwrap().trunc();
                (SetType::HashIpPortNet, Member::IpPortNet(ip, protocol, port, net))
            }
            _ => (SetType::BitmapPort, Member::Port(port)),
        },
    )
}

proptest! {
    #[test]
    fn members_come_back_as_they_were((set_type, member) in any_member()) {
        prop_assert_eq!(
            decoded(&as_listed(&member), set_type).unwrap(),
            [Element::Member(member)]
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_header(Attributes(&bytes));
        let _ = decode_versions(Attributes(&bytes), Command::Type);
        let _ = decode_elements(Attributes(&bytes), Some(SetType::HashIpPortNet), drop);
    }

    #[test]
    fn damaged_lists_never_panic(
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
        name in prop::sample::select(vec!["H1", "H6", "P1", "I1", "N4", "N6", "B1", "C1"]),
    ) {
        for mut message in captured(&format!("ipset list {name}"), '<') {
            let at = HEADERS + at.index(message.len() - HEADERS);
            message[at] = value;
            let _ = decode_header(body(&message));
            let _ = decoded(&message, SetType::HashIpPortNet);
            let _ = decoded(&message, SetType::HashIp);
        }
    }
}
