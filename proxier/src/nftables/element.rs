//! Members of sets as elements, and back.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use netlink_nftables::{Data, Element, Value};

use crate::dataplane::sets::{Member, SetId, SetType};

/// A member as an element.
pub fn element(member: &Member) -> Element {
    let by_port = |address: IpAddr, protocol, port: u16| {
        [Value::from(address), number(protocol), Value::port(port)]
    };
    match *member {
        Member::Ip(address) => Element::new(address),
        Member::Port(port) => Element::new(Value::port(port)),
        Member::IpPort(address, protocol, port) => {
            Element::of_parts(&by_port(address, protocol, port))
        }
        Member::Marked(address, protocol, port, mark) => {
            let data = (mark != 0).then(|| Data::Value(Value::mark(mark)));
            Element { data, ..Element::of_parts(&by_port(address, protocol, port)) }
        }
        Member::IpPortIp(address, protocol, port, second) => {
            let [address, protocol, port] = by_port(address, protocol, port);
            Element::of_parts(&[address, protocol, port, second.into()])
        }
        Member::IpPortNet(address, protocol, port, net) => {
            let [address, protocol, port] = by_port(address, protocol, port);
            let to = |last: IpAddr| {
                Value::concatenation(&[
                    address.clone(),
                    protocol.clone(),
                    port.clone(),
                    last.into(),
                ])
            };
            Element::range(to(net.network()), to(net.broadcast()))
        }
    }
}

/// The member that an element is. `None` if it is none of those that we make.
pub fn member(set: SetId, element: &Element) -> Option<Member> {
    let found = understand(set, element)?;
    // Whatever else it may say.
    (self::element(&found) == *element && found.fits(set)).then_some(found)
}

fn understand(set: SetId, element: &Element) -> Option<Member> {
    let key = element.key.as_bytes();
    if set.set_type() == SetType::BitmapPort {
        return Some(Member::Port(u16::from_be_bytes(key.try_into().ok()?)));
    }
    let (address, rest) = address(set.family, key)?;
    if set.set_type() == SetType::HashIp {
        return Some(Member::Ip(address));
    }
    let (protocol, port, rest) = protocol_and_port(rest)?;
    Some(match set.set_type() {
        SetType::HashIpPort => Member::IpPort(address, protocol, port),
        SetType::Expiring => {
            let mark = match &element.data {
                Some(Data::Value(mark)) => u32::from_ne_bytes(mark.as_bytes().try_into().ok()?),
                _ => 0,
            };
            Member::Marked(address, protocol, port, mark)
        }
        SetType::HashIpPortIp => {
            Member::IpPortIp(address, protocol, port, self::address(set.family, rest)?.0)
        }
        _ => {
            let (first, _) = self::address(set.family, rest)?;
            let end = element.key_end.as_ref()?.as_bytes();
            let (last, _) = self::address(set.family, end.get(key.len() - rest.len()..)?)?;
            Member::IpPortNet(address, protocol, port, network(first, last)?)
        }
    })
}

/// The network from its first to its last address.
fn network(first: IpAddr, last: IpAddr) -> Option<IpNet> {
    let same = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (u32::from(first) ^ u32::from(last)).leading_zeros()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            (u128::from(first) ^ u128::from(last)).leading_zeros()
        }
        _ => return None,
    };
    IpNet::new(first, u8::try_from(same).ok()?).ok()
}

/// The address with which the bytes begin, and the rest.
pub(super) fn address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    Some(match family {
        Family::Ipv4 => {
            let (address, rest) = bytes.split_first_chunk::<4>()?;
            (IpAddr::from(*address), rest)
        }
        Family::Ipv6 => {
            let (address, rest) = bytes.split_first_chunk::<16>()?;
            (IpAddr::from(*address), rest)
        }
    })
}

pub(super) fn protocol_and_port(bytes: &[u8]) -> Option<(Protocol, u16, &[u8])> {
    let ([protocol, _, _, _, high, low, _, _], rest) = bytes.split_first_chunk::<8>()?;
    let protocol = Protocol::from_number(u16::from(*protocol));
    Some((protocol, u16::from_be_bytes([*high, *low]), rest))
}

/// A protocol as the kernel compares it. Services have none that needs more than a byte.
pub(super) fn number(protocol: Protocol) -> Value {
    Value::byte(u8::try_from(protocol.number()).unwrap_or(u8::MAX))
}

/// A virtual server that the node may not use, as an element: a process of the node that connects
/// to it has that address itself as its source.
pub fn refused_element(key: &VirtualServerKey) -> Option<Element> {
    let &VirtualServerKey::Address { address, port, protocol } = key else { return None };
    let parts = [address.into(), address.into(), number(protocol), Value::port(port)];
    Some(Element::of_parts(&parts))
}

/// The virtual server that such an element is about. `None` if it is none of those that we make.
pub fn refused(family: Family, element: &Element) -> Option<VirtualServerKey> {
    let (source, rest) = address(family, element.key.as_bytes())?;
    let (_, rest) = address(family, rest)?;
    let (protocol, port, _) = protocol_and_port(rest)?;
    let key = VirtualServerKey::new(source, port, protocol);
    (refused_element(&key).as_ref() == Some(element)).then_some(key)
}

/// What people read of an element that we would not have made.
pub fn foreign_text(element: &Element) -> String {
    match &element.comment {
        Some(comment) => format!("{:?} \"{comment}\"", element.key),
        None => format!("{:?}", element.key),
    }
}
