//! ipset's answers: versions, headers of sets, members.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::Protocol;

use super::{Command, attr, data, family_of, type_of};
use crate::dataplane::sets::{Member, SetType};
use crate::kernel::ipset::SetHeader;
use crate::kernel::nfnetlink::{Attribute, attributes, malformed};

/// Lowest and highest version in an answer to `Protocol` (of the protocol) or `Type` (of the set
/// type's revisions).
pub(in crate::kernel::ipset) fn decode_versions(
    body: &[u8],
    command: Command,
) -> io::Result<(u8, u8)> {
    let kind = if command == Command::Type { attr::REVISION } else { attr::PROTOCOL };
    let (mut lowest, mut highest) = (None, None);
    for attribute in attributes(body) {
        let attribute = attribute?;
        match attribute.kind {
            attr::LOWEST => lowest = Some(attribute.u8()?),
            found if found == kind => highest = Some(attribute.u8()?),
            _ => {}
        }
    }
    let highest = highest.ok_or_else(|| malformed("an answer without a version"))?;
    Ok((lowest.unwrap_or(highest), highest))
}

/// The header in a list message; `None` in one that continues the members of a set.
pub(in crate::kernel::ipset) fn decode_header(body: &[u8]) -> io::Result<Option<SetHeader>> {
    let mut header = SetHeader::default();
    let mut typed = false;
    for attribute in attributes(body) {
        let attribute = attribute?;
        match attribute.kind {
            attr::SETNAME => attribute.text()?.clone_into(&mut header.name),
            attr::TYPENAME => {
                typed = true;
                attribute.text()?.clone_into(&mut header.type_name);
                header.set_type = type_of(&header.type_name);
            }
            attr::REVISION => header.revision = attribute.u8()?,
            attr::FAMILY => header.family = family_of(attribute.u8()?),
            attr::DATA => {
                for option in attribute.nested() {
                    decode_option(&mut header, &option?)?;
                }
            }
            _ => {}
        }
    }
    Ok(typed.then_some(header))
}

fn decode_option(header: &mut SetHeader, option: &Attribute<'_>) -> io::Result<()> {
    match option.kind {
        data::HASHSIZE => header.hash_size = Some(option.be32()?),
        data::MAXELEM => header.capacity = Some(option.be32()?),
        data::ELEMENTS => header.members = Some(option.be32()?),
        data::REFERENCES => header.references = option.be32()?,
        data::MEMSIZE => header.memory = option.be32()?,
        data::PORT => header.ports.get_or_insert((0, 0)).0 = option.be16()?,
        data::PORT_TO => header.ports.get_or_insert((0, 0)).1 = option.be16()?,
        data::TIMEOUT | data::NETMASK => header.has_options = true,
        data::CADT_FLAGS => header.has_options |= option.be32()? != 0,
        _ => {}
    }
    Ok(())
}

/// Hands every member in a list message to `found`.
pub(in crate::kernel::ipset) fn decode_members(
    body: &[u8],
    set_type: SetType,
    mut found: impl FnMut(Member),
) -> io::Result<()> {
    for attribute in attributes(body) {
        let attribute = attribute?;
        if attribute.kind != attr::ADT {
            continue;
        }
        for member in attribute.nested() {
            let member = member?;
            if member.kind == attr::DATA {
                found(decode_member(set_type, &member)?);
            }
        }
    }
    Ok(())
}

/// The parts of a member as they come, in any order.
#[derive(Debug, Default)]
struct Parts {
    ip: Option<IpAddr>,
    prefix: Option<u8>,
    protocol: Option<u8>,
    port: Option<u16>,
    other: Option<IpAddr>,
    other_prefix: Option<u8>,
}

fn decode_member(set_type: SetType, member: &Attribute<'_>) -> io::Result<Member> {
    let mut parts = Parts::default();
    for attribute in member.nested() {
        let attribute = attribute?;
        match attribute.kind {
            data::IP => parts.ip = Some(decode_address(&attribute)?),
            data::CIDR => parts.prefix = Some(attribute.u8()?),
            data::PORT => parts.port = Some(attribute.be16()?),
            data::PROTO => parts.protocol = Some(attribute.u8()?),
            data::IP2 => parts.other = Some(decode_address(&attribute)?),
            data::CIDR2 => parts.other_prefix = Some(attribute.u8()?),
            // Such as nomatch: it is not the member that it looks like.
            data::CADT_FLAGS if attribute.be32()? != 0 => {
                return Err(malformed("a member with flags"));
            }
            // Counters, comment and marks do not make it another member.
            data::CADT_FLAGS | data::TIMEOUT | data::LINENO | data::BYTES..=data::PAD => {}
            kind => return Err(malformed(&format!("a member with the unknown attribute {kind}"))),
        }
    }
    parts.member(set_type)
}

impl Parts {
    fn member(&self, set_type: SetType) -> io::Result<Member> {
        let unexpected = || malformed(&format!("{self:?} is no member of a {}", set_type.name()));
        let endpoint = || {
            let protocol = Protocol::from_number(self.protocol?.into())?;
            Some((self.address()?, protocol, self.port?))
        };
        let member = match (set_type, self) {
            (SetType::HashIp, Self { protocol: None, port: None, other: None, .. }) => {
                self.address().map(Member::Ip)
            }
            (SetType::HashIpPort, Self { other: None, .. }) => {
                endpoint().map(|(ip, protocol, port)| Member::IpPort(ip, protocol, port))
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
        };
        member.ok_or_else(unexpected)
    }

    /// The first address, if it is one address and no network.
    fn address(&self) -> Option<IpAddr> {
        let ip = self.ip?;
        let net = net(ip, self.prefix)?;
        (net.prefix_len() == net.max_prefix_len()).then_some(ip)
    }
}

fn net(ip: IpAddr, prefix: Option<u8>) -> Option<IpNet> {
    match prefix {
        None => Some(IpNet::from(ip)),
        Some(prefix) => IpNet::new(ip, prefix).ok().map(|net| net.trunc()),
    }
}

fn decode_address(attribute: &Attribute<'_>) -> io::Result<IpAddr> {
    for inner in attribute.nested() {
        let inner = inner?;
        match inner.kind {
            data::IPV4 => return inner.bytes::<4>().map(IpAddr::from),
            data::IPV6 => return inner.bytes::<16>().map(IpAddr::from),
            _ => {}
        }
    }
    Err(malformed("an address of no known family"))
}
