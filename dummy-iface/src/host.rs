//! The addresses of all interfaces of this machine.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::netdevice;

use crate::error::Error;
use crate::socket::{Frame, RouteSocket};

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    /// Index of the interface.
    pub interface: u32,
    /// Name of the interface.
    pub name: String,
    /// The address itself (the local one where a point-to-point link has two).
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
}

/// The addresses of all interfaces of this network namespace, up or down, without loopback and
/// IPv6 link-local addresses, ordered by interface.
///
/// # Errors
/// Any failure to read the whole list is an error, never a shorter list.
pub fn host_addresses() -> Result<Vec<InterfaceAddress>, Error> {
    let operation = "list the addresses of all interfaces";
    let fail = |error| Error::io(operation, error);
    let mut names = BTreeMap::new();
    let mut addresses = Vec::new();
    for entry in list(0).map_err(fail)? {
        let name = match names.entry(entry.interface) {
            MapEntry::Occupied(known) => known.into_mut(),
            MapEntry::Vacant(new) => new.insert(name_of(entry.interface).map_err(fail)?),
        };
        // An interface that is gone has taken its addresses along.
        if let Some(name) = name {
            addresses.push(entry.named(name));
        }
    }
    addresses.sort();
    Ok(addresses)
}

/// An address as a message carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) prefix_len: u8,
}

impl Entry {
    pub(crate) fn named(self, name: &str) -> InterfaceAddress {
        InterfaceAddress {
            interface: self.interface,
            name: name.to_owned(),
            address: self.address,
            prefix_len: self.prefix_len,
        }
    }

    /// The address of a message, if it is one that others can reach.
    pub(crate) fn of(message: &AddressMessage) -> Option<Self> {
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link this is ours and IFA_ADDRESS the peer's.
                AddressAttribute::Local(local) => {
                    address = Some(*local);
                    break;
                }
                AddressAttribute::Address(other) => address = Some(*other),
                _ => {}
            }
        }
        let address = address.filter(|address| is_reachable(*address))?;
        Some(Self {
            interface: message.header.index,
            address,
            prefix_len: message.header.prefix_len,
        })
    }
}

/// Neither loopback nor IPv6 link-local. IPv4 link-local (169.254/16) counts as reachable.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// The reachable addresses of one interface, or of all if `interface` is 0.
pub(crate) fn list(interface: u32) -> io::Result<Vec<Entry>> {
    // A dump that failed half-way would keep its socket busy, so each list has its own.
    let mut socket = RouteSocket::open()?;
    let mut entries = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = AddressMessage::default();
        request.header = AddressHeader { family, index: interface, ..AddressHeader::default() };
        let request = RouteNetlinkMessage::GetAddress(request);
        let part = socket.dump(&request, |frame| decode(frame, family))?;
        // A kernel that does not filter lists all interfaces.
        entries.extend(
            part.into_iter().filter(|entry| interface == 0 || entry.interface == interface),
        );
    }
    Ok(entries)
}

fn decode(frame: &Frame<'_>, family: AddressFamily) -> io::Result<Option<Entry>> {
    // A kernel without this family answers with all that it has.
    if frame.payload.first() != Some(&u8::from(family)) {
        return Ok(None);
    }
    let message = NetlinkMessage::deserialize(frame.whole)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
            Entry::of(&address)
        }
        _ => None,
    })
}

/// The name of an interface; `None` if there is none with this index.
fn name_of(index: u32) -> io::Result<Option<String>> {
    // Any socket answers SIOCGIFNAME.
    let socket = Socket::new(NETLINK_ROUTE)?;
    match netdevice::index_to_name(&socket, index) {
        Ok(name) => Ok(Some(name)),
        Err(Errno::NODEV | Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(attributes: Vec<AddressAttribute>) -> Option<IpAddr> {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        Entry::of(&message).map(|entry| entry.address)
    }

    // A13, A14, A16, A17 of the acceptance list.
    #[test]
    fn loopback_and_ipv6_link_local_are_not_listed() {
        for text in ["127.0.0.1", "127.0.0.0", "127.6.7.8", "::1", "fe80::200:ff:fe01:1"] {
            assert!(!is_reachable(text.parse().unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "192.168.0.1", "169.254.0.0", "1000::"] {
            assert!(is_reachable(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn of_a_point_to_point_link_the_local_address_counts() {
        let local: IpAddr = "10.0.0.1".parse().unwrap();
        let peer: IpAddr = "10.0.0.2".parse().unwrap();
        let (a, b) = (AddressAttribute::Address(peer), AddressAttribute::Local(local));
        assert_eq!(address(vec![a.clone(), b.clone()]), Some(local));
        assert_eq!(address(vec![b, a]), Some(local));
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(address(vec![AddressAttribute::Address(v6)]), Some(v6));
        assert_eq!(address(vec![]), None);
    }
}
