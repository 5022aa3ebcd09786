//! Requests to ipset.

use std::net::IpAddr;

use netlink_batch::{Batch, PutAttributes};
use netlink_ipvs::{Family, Protocol};
use netlink_packet_core::{NLA_F_NET_BYTEORDER, NLM_F_CREATE, NLM_F_EXCL};

use super::{Command, WITH_SKBINFO, attr, data, family_number};
use crate::dataplane::sets::{Member, SetType};
use crate::dataplane::split::EXPIRY;
use crate::kernel::ipset::{Change, SetSpec};
use netlink_batch::netfilter::{Header, push};

/// `NFNL_SUBSYS_IPSET`
const SUBSYSTEM: u8 = 6;

/// `IPSET_FLAG_LIST_HEADER`: list sets without their members.
const LIST_HEADER: u32 = 1 << 2;

/// `ipset`'s own default; the table grows by itself.
const HASHSIZE: u32 = 1024;

/// Writes requests in one protocol version.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel::ipset) struct Encoder {
    pub(in crate::kernel::ipset) protocol: u8,
}

impl Encoder {
    fn push(
        self,
        batch: &mut Batch,
        command: Command,
        flags: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let header = Header { subsystem: SUBSYSTEM, command: command as u8, flags, family: 2 };
        push(batch, header, |m| {
            m.attribute(attr::PROTOCOL, &[self.protocol]);
            body(m);
        });
    }

    pub(in crate::kernel::ipset) fn protocol(self, batch: &mut Batch) {
        self.push(batch, Command::Protocol, 0, |_| ());
    }

    pub(in crate::kernel::ipset) fn set_type(
        self,
        batch: &mut Batch,
        set_type: SetType,
        family: Family,
    ) {
        self.push(batch, Command::Type, 0, |m| {
            m.text(attr::TYPENAME, set_type.name());
            m.attribute(attr::FAMILY, &[family_number(set_type, family)]);
        });
    }

    pub(in crate::kernel::ipset) fn create(
        self,
        batch: &mut Batch,
        set: &SetSpec<'_>,
        revision: u8,
    ) {
        self.push(batch, Command::Create, NLM_F_CREATE | NLM_F_EXCL, |m| {
            m.text(attr::SETNAME, set.name);
            m.text(attr::TYPENAME, set.set_type.name());
            m.attribute(attr::REVISION, &[revision]);
            m.attribute(attr::FAMILY, &[family_number(set.set_type, set.family)]);
            m.nested(attr::DATA, |m| {
                if set.set_type == SetType::BitmapPort {
                    be16(m, data::PORT, 0);
                    be16(m, data::PORT_TO, u16::MAX);
                } else {
                    be32(m, data::HASHSIZE, HASHSIZE);
                    be32(m, data::MAXELEM, set.capacity);
                    if set.set_type == SetType::Expiring {
                        be32(m, data::TIMEOUT, EXPIRY.as_secs() as u32);
                        be32(m, data::CADT_FLAGS, WITH_SKBINFO);
                    }
                }
            });
        });
    }

    /// `Destroy` or `Flush`, of one set: without a name the kernel takes all sets.
    pub(in crate::kernel::ipset) fn one(self, batch: &mut Batch, command: Command, name: &str) {
        let flags = if command == Command::Destroy { NLM_F_EXCL } else { 0 };
        self.push(batch, command, flags, |m| m.text(attr::SETNAME, name));
    }

    /// `Rename` or `Swap`.
    pub(in crate::kernel::ipset) fn two(
        self,
        batch: &mut Batch,
        command: Command,
        name: &str,
        other: &str,
    ) {
        self.push(batch, command, 0, |m| {
            m.text(attr::SETNAME, name);
            m.text(attr::SETNAME2, other);
        });
    }

    pub(in crate::kernel::ipset) fn list_headers(self, batch: &mut Batch) {
        self.push(batch, Command::List, 0, |m| be32(m, attr::FLAGS, LIST_HEADER));
    }

    pub(in crate::kernel::ipset) fn list(self, batch: &mut Batch, name: &str) {
        self.push(batch, Command::List, 0, |m| m.text(attr::SETNAME, name));
    }

    /// One change of the elements. `NLM_F_EXCL` makes what is so already an error, but for members that
    /// are renewed by adding them again.
    pub(in crate::kernel::ipset) fn change(self, batch: &mut Batch, change: &Change<'_>) {
        let (command, name) = match change {
            Change::Add(name, _) => (Command::Add, name),
            Change::Remove(name, _) | Change::RemoveForeign(name, _) => (Command::Delete, name),
        };
        let renews = matches!(change, Change::Add(_, Member::Marked(..)));
        let flags = if renews { 0 } else { NLM_F_EXCL };
        self.push(batch, command, flags, |m| {
            m.text(attr::SETNAME, name);
            m.nested(attr::DATA, |m| {
                match change {
                    Change::Add(_, member) | Change::Remove(_, member) => encode_member(m, member),
                    Change::RemoveForeign(_, element) => m.extend(element.attributes()),
                }
                be32(m, data::LINENO, 0);
            });
        });
    }
}

pub(super) fn encode_member(out: &mut Vec<u8>, member: &Member) {
    let m = out;
    match member {
        Member::Ip(ip) => address(m, data::IP, *ip),
        Member::Port(port) => be16(m, data::PORT, *port),
        Member::IpPort(ip, protocol, port) => endpoint(m, *ip, *protocol, *port),
        Member::Marked(ip, protocol, port, mark) => {
            endpoint(m, *ip, *protocol, *port);
            if *mark != 0 {
                // With a mask: the whole mark.
                let both = u64::from(*mark) << 32 | u64::from(u32::MAX);
                m.attribute(data::SKBMARK | NLA_F_NET_BYTEORDER, &both.to_be_bytes());
            }
        }
        Member::IpPortIp(ip, protocol, port, other) => {
            endpoint(m, *ip, *protocol, *port);
            address(m, data::IP2, *other);
        }
        Member::IpPortNet(ip, protocol, port, net) => {
            endpoint(m, *ip, *protocol, *port);
            address(m, data::IP2, net.network());
            if net.prefix_len() < net.max_prefix_len() {
                m.attribute(data::CIDR2, &[net.prefix_len()]);
            }
        }
    }
}

fn endpoint(out: &mut Vec<u8>, ip: IpAddr, protocol: Protocol, port: u16) {
    address(out, data::IP, ip);
    be16(out, data::PORT, port);
    out.attribute(data::PROTO, &[protocol.number() as u8]);
}

fn address(out: &mut Vec<u8>, kind: u16, ip: IpAddr) {
    out.nested(kind, |m| match ip {
        IpAddr::V4(v4) => m.attribute(data::IPV4 | NLA_F_NET_BYTEORDER, &v4.octets()),
        IpAddr::V6(v6) => m.attribute(data::IPV6 | NLA_F_NET_BYTEORDER, &v6.octets()),
    });
}

fn be16(out: &mut Vec<u8>, kind: u16, value: u16) {
    out.attribute(kind | NLA_F_NET_BYTEORDER, &value.to_be_bytes());
}

fn be32(out: &mut Vec<u8>, kind: u16, value: u32) {
    out.attribute(kind | NLA_F_NET_BYTEORDER, &value.to_be_bytes());
}
