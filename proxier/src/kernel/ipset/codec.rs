//! ipset's messages (`linux/netfilter/ipset/ip_set.h`): requests, headers of sets, elements.
//!
//! The bytes are those of `ipset` itself; see the captures beside the tests.

mod decode;
mod element;
mod encode;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use netlink_ipvs::Family;

use crate::dataplane::sets::SetType;
pub(super) use decode::{decode_elements, decode_header, decode_versions};
pub(super) use element::Element;
pub use element::ForeignElement;
pub(super) use encode::Encoder;

/// Commands, `enum ipset_cmd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    Protocol = 1,
    Create = 2,
    Destroy = 3,
    Flush = 4,
    Rename = 5,
    Swap = 6,
    List = 7,
    Add = 9,
    Delete = 10,
    Type = 13,
}

/// Attributes of a command.
mod attr {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SETNAME: u16 = 2;
    pub(super) const TYPENAME: u16 = 3;
    pub(super) const SETNAME2: u16 = TYPENAME;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const DATA: u16 = 7;
    pub(super) const ADT: u16 = 8;
    pub(super) const LOWEST: u16 = 10;
}

/// Attributes inside `IPSET_ATTR_DATA`, of sets and of elements.
mod data {
    pub(super) const IP: u16 = 1;
    pub(super) const CIDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const PORT_TO: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const PROTO: u16 = 7;
    pub(super) const CADT_FLAGS: u16 = 8;
    pub(super) const LINENO: u16 = 9;
    // Of sets.
    pub(super) const INITVAL: u16 = 17;
    pub(super) const HASHSIZE: u16 = 18;
    pub(super) const MAXELEM: u16 = 19;
    pub(super) const BUCKETSIZE: u16 = 21;
    pub(super) const RESIZE: u16 = 22;
    pub(super) const ELEMENTS: u16 = 24;
    pub(super) const REFERENCES: u16 = 25;
    pub(super) const MEMSIZE: u16 = 26;
    // Of elements.
    pub(super) const IP2: u16 = 20;
    pub(super) const CIDR2: u16 = 21;
    pub(super) const BYTES: u16 = 24;
    pub(super) const SKBMARK: u16 = 27;
    pub(super) const PAD: u16 = 30;
    // Inside IP.
    pub(super) const IPV4: u16 = 1;
    pub(super) const IPV6: u16 = 2;
}

/// The newest revision of a type whose options are known here: what ipset 7.17 knows. A set of a newer revision could not be listed by that
/// ipset, and the node may go back to kube-proxy.
const fn newest_revision(set_type: SetType) -> u8 {
    match set_type {
        SetType::HashIp | SetType::HashIpPortIp => 6,
        SetType::HashIpPort | SetType::Expiring => 7,
        SetType::HashIpPortNet => 8,
        SetType::BitmapPort => 3,
    }
}

/// The revision in which to make a set, if the kernel and this program have one in common.
pub(super) fn revision(set_type: SetType, (lowest, highest): (u8, u8)) -> Option<u8> {
    let revision = highest.min(newest_revision(set_type));
    (revision >= lowest).then_some(revision)
}

/// Bitmaps of ports have no family.
const fn family_number(set_type: SetType, family: Family) -> u8 {
    match set_type {
        SetType::BitmapPort => 0,
        _ => family.number(),
    }
}

/// `IPSET_FLAG_WITH_SKBINFO`: members have a mark.
const WITH_SKBINFO: u32 = 1 << 6;

/// The type that a set has whose options say nothing else.
fn type_of(name: &str) -> Option<SetType> {
    [
        SetType::HashIp,
        SetType::HashIpPort,
        SetType::HashIpPortIp,
        SetType::HashIpPortNet,
        SetType::BitmapPort,
    ]
    .into_iter()
    .find(|set_type| set_type.name() == name)
}

#[cfg(test)]
mod tests;
