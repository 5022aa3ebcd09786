//! conntrack's messages (`linux/netfilter/nfnetlink_conntrack.h`).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::net::{IpAddr, SocketAddr};

use netlink_batch::{Attribute, Attributes, Batch, Malformed, PutAttributes};
use netlink_ipvs::{Family, Protocol};

use super::{Direction, Flow};
use netlink_batch::netfilter::{Header, push};

/// `NFNL_SUBSYS_CTNETLINK`
const SUBSYSTEM: u8 = 1;
/// `IPCTNL_MSG_CT_GET`
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_DELETE`; without a flow it empties the table.
const DELETE: u8 = 2;

/// `CTA_*` of a flow.
mod attr {
    pub(super) const ORIGINAL: u16 = 1;
    pub(super) const REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
}

/// `CTA_TUPLE_*`, `CTA_IP_*`, `CTA_PROTO_*`
mod tuple {
    pub(super) const IP: u16 = 1;
    pub(super) const PROTO: u16 = 2;
    pub(super) const ZONE: u16 = 3;

    pub(super) const V4_SOURCE: u16 = 1;
    pub(super) const V4_DESTINATION: u16 = 2;
    pub(super) const V6_SOURCE: u16 = 3;
    pub(super) const V6_DESTINATION: u16 = 4;

    pub(super) const NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
}

/// `IPS_DST_NAT` in `CTA_STATUS`
const DST_NAT: u32 = 1 << 5;

/// `CTA_FILTER_ORIG_FLAGS`, `CTA_FILTER_REPLY_FLAGS`
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// `CTA_FILTER_F_CTA_PROTO_NUM` of the kernel's `nf_internals.h`: compare the protocol.
const FILTER_BY_PROTOCOL: u32 = 1 << 3;

/// A request for the flows of a family, and of a protocol if the kernel shall filter.
pub(super) fn encode_list(batch: &mut Batch, family: Family, protocol: Option<Protocol>) {
    let header = Header { subsystem: SUBSYSTEM, command: GET, flags: 0, family: family.number() };
    push(batch, header, |m| {
        if let Some(protocol) = protocol {
            m.nested(attr::ORIGINAL, |m| {
                m.nested(tuple::PROTO, |m| m.attribute(tuple::NUMBER, &[protocol.number() as u8]));
            });
            m.nested(attr::FILTER, |m| {
                m.attribute(FILTER_ORIGINAL, &FILTER_BY_PROTOCOL.to_ne_bytes());
                m.attribute(FILTER_REPLY, &0_u32.to_ne_bytes());
            });
        }
    });
}

pub(super) fn encode_delete(batch: &mut Batch, flow: &Flow) {
    let family = Family::of(flow.original.source.ip()).number();
    push(batch, Header { subsystem: SUBSYSTEM, command: DELETE, flags: 0, family }, |m| {
        let original = (&flow.original, flow.protocol, flow.original_zone);
        m.nested(attr::ORIGINAL, |m| encode_direction(m, original));
        m.nested(attr::REPLY, |m| encode_direction(m, (&flow.reply, flow.protocol, None)));
        if let Some(zone) = flow.zone {
            m.attribute(attr::ZONE, &zone.to_be_bytes());
        }
        if let Some(id) = flow.id {
            m.attribute(attr::ID, &id.to_be_bytes());
        }
    });
}

fn encode_direction(
    out: &mut Vec<u8>,
    (direction, protocol, zone): (&Direction, Protocol, Option<u16>),
) {
    let Direction { source, destination } = direction;
    out.nested(tuple::IP, |m| {
        for (address, v4, v6) in [
            (source.ip(), tuple::V4_SOURCE, tuple::V6_SOURCE),
            (destination.ip(), tuple::V4_DESTINATION, tuple::V6_DESTINATION),
        ] {
            match address {
                IpAddr::V4(address) => m.attribute(v4, &address.octets()),
                IpAddr::V6(address) => m.attribute(v6, &address.octets()),
            }
        }
    });
    out.nested(tuple::PROTO, |m| {
        m.attribute(tuple::NUMBER, &[protocol.number() as u8]);
        m.attribute(tuple::SOURCE_PORT, &source.port().to_be_bytes());
        m.attribute(tuple::DESTINATION_PORT, &destination.port().to_be_bytes());
    });
    if let Some(zone) = zone {
        out.attribute(tuple::ZONE, &zone.to_be_bytes());
    }
}

/// The parts of a direction as they come, in any order.
#[derive(Debug, Default)]
struct Parts {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    zone: Option<u16>,
}

/// The flow in a list message; `None` if it is of a protocol without ports.
pub(super) fn decode_flow(body: Attributes<'_>) -> Result<Option<Flow>, Malformed> {
    let (mut original, mut reply) = (Parts::default(), Parts::default());
    let (mut id, mut zone, mut status) = (None, None, 0);
    for attribute in body {
        let attribute = attribute?;
        match attribute.kind {
            attr::ORIGINAL => original = Parts::decode(&attribute)?,
            attr::REPLY => reply = Parts::decode(&attribute)?,
            attr::STATUS => status = attribute.be32()?,
            attr::ID => id = Some(attribute.be32()?),
            attr::ZONE => zone = Some(attribute.be16()?),
            _ => {}
        }
    }
    let flow = || {
        Some(Flow {
            protocol: Protocol::from_number(original.protocol?.into()),
            original: original.direction()?,
            reply: reply.direction()?,
            translated: status & DST_NAT != 0,
            zone,
            original_zone: original.zone,
            id,
        })
    };
    Ok(flow())
}

impl Parts {
    fn decode(direction: &Attribute<'_>) -> Result<Self, Malformed> {
        let mut parts = Self::default();
        for part in direction.nested() {
            let part = part?;
            match part.kind {
                tuple::IP => {
                    for address in part.nested() {
                        parts.address(&address?)?;
                    }
                }
                tuple::PROTO => {
                    for number in part.nested() {
                        parts.transport(&number?)?;
                    }
                }
                tuple::ZONE => parts.zone = Some(part.be16()?),
                _ => {}
            }
        }
        Ok(parts)
    }

    fn address(&mut self, address: &Attribute<'_>) -> Result<(), Malformed> {
        match address.kind {
            tuple::V4_SOURCE => self.source = Some(address.bytes::<4>()?.into()),
            tuple::V4_DESTINATION => self.destination = Some(address.bytes::<4>()?.into()),
            tuple::V6_SOURCE => self.source = Some(address.bytes::<16>()?.into()),
            tuple::V6_DESTINATION => self.destination = Some(address.bytes::<16>()?.into()),
            _ => {}
        }
        Ok(())
    }

    fn transport(&mut self, number: &Attribute<'_>) -> Result<(), Malformed> {
        match number.kind {
            tuple::NUMBER => self.protocol = Some(number.u8()?),
            tuple::SOURCE_PORT => self.source_port = Some(number.be16()?),
            tuple::DESTINATION_PORT => self.destination_port = Some(number.be16()?),
            _ => {}
        }
        Ok(())
    }

    fn direction(&self) -> Option<Direction> {
        Some(Direction {
            source: SocketAddr::new(self.source?, self.source_port?),
            destination: SocketAddr::new(self.destination?, self.destination_port?),
        })
    }
}

#[cfg(test)]
mod tests;
