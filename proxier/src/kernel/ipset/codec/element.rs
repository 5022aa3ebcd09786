//! Elements of sets: members that this program could have added, and foreign ones.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_batch::{Attribute, Attributes, Malformed};
use netlink_ipvs::Protocol;
use netlink_packet_core::NLA_F_NET_BYTEORDER;

use super::data;
use crate::dataplane::sets::{ForeignMember, Member, SetType};

/// An element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel::ipset) enum Element {
    Member(Member),
    Foreign(ForeignElement),
}

/// An element of a set that this program never adds: of another protocol, with a flag such as
/// `nomatch`, or with an attribute that is not known here.
///
/// Holds what identifies the element, as the kernel listed it, so that it can be removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignElement(Arc<[u8]>);

impl ForeignElement {
    /// The attributes of the element.
    pub(in crate::kernel::ipset) fn attributes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&ForeignElement> for ForeignMember {
    fn from(element: &ForeignElement) -> Self {
        Self { attributes: Arc::clone(&element.0), text: element.to_string().into() }
    }
}

impl From<&ForeignMember> for ForeignElement {
    fn from(member: &ForeignMember) -> Self {
        Self(Arc::clone(&member.attributes))
    }
}

/// As `ipset save` prints it, as far as the attributes are known.
impl fmt::Display for ForeignElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Parts::decode(Attributes(&self.0)) {
            Ok(parts) => parts.fmt(f),
            Err(_) => f.write_str("an element that cannot be read"),
        }
    }
}

/// Reads an element; `None` is a set type that is not used here. Only broken framing is an error.
pub(super) fn decode_element(
    set_type: Option<SetType>,
    element: &Attribute<'_>,
) -> Result<Element, Malformed> {
    if let Ok(parts) = Parts::decode(element.nested())
        && let Some(member) = set_type.and_then(|set_type| parts.member(set_type))
    {
        return Ok(Element::Member(member));
    }
    let mut identity = Vec::with_capacity(element.value.len());
    for attribute in element.nested() {
        let attribute = attribute?;
        if says_more(attribute.kind) {
            continue;
        }
        let start = identity.len();
        identity.extend(attribute.whole);
        identity.resize(identity.len().next_multiple_of(4), 0);
        if matches!(attribute.kind, data::IP | data::IP2) {
            in_network_order(&mut identity[start..]);
        }
    }
    Ok(Element::Foreign(ForeignElement(identity.into())))
}

/// Says of the number within an address that it is in network byte order: the kernel wants that
/// of a request, and does not say it in a list.
fn in_network_order(address: &mut [u8]) {
    const KIND_WITHIN: std::ops::Range<usize> = 6..8;
    if let Some(&mut [ref mut low, ref mut high]) = address.get_mut(KIND_WITHIN) {
        let kind = u16::from_ne_bytes([*low, *high]) | NLA_F_NET_BYTEORDER;
        [*low, *high] = kind.to_ne_bytes();
    }
}

/// Whether an attribute does not belong to the identity of its element: timeout, counters, comment
/// and marks.
fn says_more(kind: u16) -> bool {
    matches!(kind, data::TIMEOUT | data::LINENO | data::BYTES..=data::PAD)
}

/// The parts of an element as they come, in any order.
#[derive(Debug, Default)]
struct Parts {
    ip: Option<IpAddr>,
    prefix: Option<u8>,
    protocol: Option<u8>,
    port: Option<u16>,
    other: Option<IpAddr>,
    other_prefix: Option<u8>,
    flags: u32,
    mark: u32,
    /// The first attribute that is not known here.
    unknown: Option<u16>,
}

impl Parts {
    fn decode(element: Attributes<'_>) -> Result<Self, Malformed> {
        let mut parts = Self::default();
        for attribute in element {
            let attribute = attribute?;
            match attribute.kind {
                data::IP => parts.ip = Some(decode_address(&attribute)?),
                data::CIDR => parts.prefix = Some(attribute.u8()?),
                data::PORT => parts.port = Some(attribute.be16()?),
                data::PROTO => parts.protocol = Some(attribute.u8()?),
                data::IP2 => parts.other = Some(decode_address(&attribute)?),
                data::CIDR2 => parts.other_prefix = Some(attribute.u8()?),
                data::CADT_FLAGS => parts.flags = attribute.be32()?,
                data::SKBMARK => {
                    let both = u64::from_be_bytes(attribute.bytes::<8>()?);
                    parts.mark = (both >> 32) as u32;
                }
                kind if says_more(kind) => {}
                kind => parts.unknown = parts.unknown.or(Some(kind)),
            }
        }
        Ok(parts)
    }

    /// The member of a set of this type, if it is one that this program could have added.
    fn member(&self, set_type: SetType) -> Option<Member> {
        if self.flags != 0 || self.unknown.is_some() {
            return None;
        }
        let endpoint = || {
            let protocol = Protocol::from_number(self.protocol?.into());
            let programmed = !matches!(protocol, Protocol::Other(_));
            programmed.then_some((self.address()?, protocol, self.port?))
        };
        match (set_type, self) {
            (SetType::HashIp, Self { protocol: None, port: None, other: None, .. }) => {
                self.address().map(Member::Ip)
            }
            (SetType::HashIpPort, Self { other: None, .. }) => {
                endpoint().map(|(ip, protocol, port)| Member::IpPort(ip, protocol, port))
            }
            (SetType::Expiring, Self { other: None, .. }) => {
                endpoint().map(|(ip, protocol, port)| Member::Marked(ip, protocol, port, self.mark))
            }
            (SetType::HashIpPortIp, Self { other: Some(other), other_prefix: None, .. }) => {
                endpoint().map(|(ip, protocol, port)| Member::IpPortIp(ip, protocol, port, *other))
            }
            (SetType::HashIpPortNet, Self { other: Some(other), .. }) => endpoint()
                .zip(net(*other, self.other_prefix))
                .map(|((ip, protocol, port), net)| Member::IpPortNet(ip, protocol, port, net)),
            (SetType::BitmapPort, Self { ip: None, other: None, .. }) => {
                self.port.map(Member::Port)
            }
            _ => None,
        }
    }

    /// The first address, if it is one address and no network.
    fn address(&self) -> Option<IpAddr> {
        let ip = self.ip?;
        let net = net(ip, self.prefix)?;
        (net.prefix_len() == net.max_prefix_len()).then_some(ip)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NOMATCH: u32 = 1 << 2; // IPSET_FLAG_NOMATCH
        let with_prefix = |ip: IpAddr, prefix: Option<u8>| {
            prefix.map_or_else(|| ip.to_string(), |prefix| format!("{ip}/{prefix}"))
        };
        let mut dimensions = Vec::new();
        dimensions.extend(self.ip.map(|ip| with_prefix(ip, self.prefix)));
        dimensions.extend(match (self.protocol, self.port) {
            // An ICMP type and code are where the port is elsewhere.
            (Some(1), Some(port)) => Some(format!("icmp:{}/{}", port >> 8, port & 0xff)),
            (Some(58), Some(port)) => Some(format!("icmpv6:{}/{}", port >> 8, port & 0xff)),
            (Some(number), port) => {
                Some(format!("{}:{}", Protocol::from_number(number.into()), port.unwrap_or(0)))
            }
            (None, port) => port.map(|port| port.to_string()),
        });
        dimensions.extend(self.other.map(|ip| with_prefix(ip, self.other_prefix)));
        f.write_str(&dimensions.join(","))?;
        if self.flags & NOMATCH != 0 {
            f.write_str(" nomatch")?;
        }
        if self.flags & !NOMATCH != 0 {
            write!(f, " flags {:#x}", self.flags & !NOMATCH)?;
        }
        self.unknown.map_or(Ok(()), |kind| write!(f, " with unknown attribute {kind}"))
    }
}

fn net(ip: IpAddr, prefix: Option<u8>) -> Option<IpNet> {
    match prefix {
        None => Some(IpNet::from(ip)),
        Some(prefix) => IpNet::new(ip, prefix).ok().map(|net| net.trunc()),
    }
}

fn decode_address(attribute: &Attribute<'_>) -> Result<IpAddr, Malformed> {
    for inner in attribute.nested() {
        let inner = inner?;
        match inner.kind {
            data::IPV4 => return inner.bytes::<4>().map(IpAddr::from),
            data::IPV6 => return inner.bytes::<16>().map(IpAddr::from),
            _ => {}
        }
    }
    Err(Malformed("address"))
}
