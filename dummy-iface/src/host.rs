//! The addresses of all interfaces of this machine.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

use netlink_batch::{Error, Failure, Malformed, Message};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{protocols::NETLINK_ROUTE, Socket};
use rustix::io::Errno;
use rustix::net::netdevice;

use crate::address::AssignedAddress;
use crate::error::failed;
use crate::route;

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
    let fail = |failure| failed(operation, failure);
    let mut names = BTreeMap::new();
    let mut addresses = Vec::new();
    for entry in list(0).map_err(fail)?.into_iter().filter(Entry::is_reachable) {
        let name = match names.entry(entry.interface) {
            MapEntry::Occupied(known) => known.into_mut(),
            MapEntry::Vacant(new) => {
                new.insert(name_of(entry.interface).map_err(|error| fail(error.into()))?)
            }
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
    pub(crate) assigned: AssignedAddress,
}

impl Entry {
    fn named(self, name: &str) -> InterfaceAddress {
        InterfaceAddress {
            interface: self.interface,
            name: name.to_owned(),
            address: self.assigned.address,
            prefix_len: self.assigned.prefix_len,
        }
    }

    /// The address of a message.
    pub(crate) fn of(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut other) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => other = Some(*address),
                _ => {}
            }
        }
        let assigned = AssignedAddress {
            address: local.or(other)?,
            prefix_len: message.header.prefix_len,
            // On a point-to-point link IFA_LOCAL is ours and IFA_ADDRESS the peer's.
            peer: local.and(other).filter(|peer| Some(*peer) != local),
        };
        Some(Self { interface: message.header.index, assigned })
    }

    /// Whether others can reach it.
    pub(crate) fn is_reachable(&self) -> bool {
        is_reachable(self.assigned.address)
    }
}

/// Neither loopback nor IPv6 link-local. IPv4 link-local (169.254/16) counts as reachable.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !is_link_local(v6),
    }
}

/// `fe80::/10`
pub(crate) fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// The addresses of one interface, or of all if `interface` is 0.
pub(crate) fn list(interface: u32) -> Result<Vec<Entry>, Failure> {
    let mut socket = route::open()?;
    let mut entries = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = AddressMessage::default();
        request.header = AddressHeader { family, index: interface, ..AddressHeader::default() };
        let request = RouteNetlinkMessage::GetAddress(request);
        let part = socket.dump(
            |batch| route::push(batch, &request, 0),
            |list: &mut Vec<Entry>, message| {
                list.extend(decode(message, family)?);
                Ok(())
            },
        )?;
        // A kernel that does not filter lists all interfaces.
        entries.extend(
            part.into_iter().filter(|entry| interface == 0 || entry.interface == interface),
        );
    }
    Ok(entries)
}

fn decode(message: &Message<'_>, family: AddressFamily) -> Result<Option<Entry>, Malformed> {
    // A kernel without this family answers with all that it has.
    if message.payload.first() != Some(&u8::from(family)) {
        return Ok(None);
    }
    Ok(match route::read(message)? {
        Some(RouteNetlinkMessage::NewAddress(address)) => Entry::of(&address),
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

    fn assigned(attributes: Vec<AddressAttribute>) -> Option<(IpAddr, Option<IpAddr>)> {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        Entry::of(&message).map(|entry| (entry.assigned.address, entry.assigned.peer))
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
        assert_eq!(assigned(vec![a.clone(), b.clone()]), Some((local, Some(peer))));
        assert_eq!(assigned(vec![b.clone(), a]), Some((local, Some(peer))));
        let own = AddressAttribute::Address(local);
        assert_eq!(assigned(vec![own, b]), Some((local, None)));
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(assigned(vec![AddressAttribute::Address(v6)]), Some((v6, None)));
        assert_eq!(assigned(vec![]), None);
    }
}
