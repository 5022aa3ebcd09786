//! Adding and removing host addresses, many in one system call.

use std::fmt;
use std::net::IpAddr;

use netlink_batch::{Error, Failure, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeader, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::error::failed;
use crate::{own, route};

/// An address as it is on an interface, with everything that identifies it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignedAddress {
    /// The address itself.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
    /// The other end of a point-to-point link (`ip address add ADDRESS peer PEER`).
    pub peer: Option<IpAddr>,
}

/// One change of the addresses of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "RTM_NEWADDR")]
#[doc(alias = "RTM_DELADDR")]
pub enum AddressChange {
    /// Add as host address: prefix length 32 or 128, scope global, no flags, no label, valid for
    /// ever. For IPv6 the kernel holds an address once whatever its prefix length, so one that
    /// is there with another prefix length stays as it is and counts as unchanged.
    Add(IpAddr),
    /// The same with scope host: the kernel never chooses it as a source address.
    AddForHost(IpAddr),
    /// Remove the host address (prefix length 32 or 128).
    Remove(IpAddr),
    /// Remove exactly this address, as [`observe`](crate::DummyInterface::observe) lists it.
    RemoveAssigned(AssignedAddress),
}

/// What became of a sequence of changes. Unchanged are those that the kernel already had: added and
/// there, removed and not there.
pub type Report = netlink_batch::Report<Error>;

/// Prefix length of an address alone.
pub(crate) const fn host_prefix_len(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        32
    } else {
        128
    }
}

impl AssignedAddress {
    /// The address, if it is a host address: prefix length 32 or 128, no peer.
    pub fn as_host(&self) -> Option<IpAddr> {
        let host = self.prefix_len == host_prefix_len(self.address) && self.peer.is_none();
        host.then_some(self.address)
    }
}

/// As host address.
impl From<IpAddr> for AssignedAddress {
    fn from(address: IpAddr) -> Self {
        Self { address, prefix_len: host_prefix_len(address), peer: None }
    }
}

/// As `ip address` prints it.
impl fmt::Display for AssignedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix_len, peer } = self;
        match peer {
            Some(peer) => write!(f, "{address} peer {peer}/{prefix_len}"),
            None => write!(f, "{address}/{prefix_len}"),
        }
    }
}

impl fmt::Display for AddressChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.adds() { "add" } else { "remove" };
        write!(f, "{what} address {}", self.assigned())
    }
}

impl AddressChange {
    /// Whether the address is there afterwards.
    pub(crate) fn adds(self) -> bool {
        matches!(self, Self::Add(_) | Self::AddForHost(_))
    }

    pub(crate) fn assigned(self) -> AssignedAddress {
        match self {
            Self::Add(address) | Self::AddForHost(address) | Self::Remove(address) => {
                address.into()
            }
            Self::RemoveAssigned(assigned) => assigned,
        }
    }

    fn request(self, interface: u32) -> (RouteNetlinkMessage, u16) {
        let mut message = message(interface, self.assigned());
        if matches!(self, Self::AddForHost(_)) {
            message.header.scope = AddressScope::Host;
        }
        if self.adds() {
            (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
        } else {
            (RouteNetlinkMessage::DelAddress(message), 0)
        }
    }

    /// Whether the kernel refuses it only because nothing has to be done.
    fn is_done_already(self, failure: &Failure) -> bool {
        failure.is_refusal(if self.adds() { Errno::EXIST } else { Errno::ADDRNOTAVAIL })
    }
}

fn message(interface: u32, assigned: AssignedAddress) -> AddressMessage {
    let AssignedAddress { address, prefix_len, peer } = assigned;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let mut message = AddressMessage::default();
    message.header =
        AddressHeader { family, prefix_len, index: interface, ..AddressHeader::default() };
    message.attributes =
        vec![AddressAttribute::Local(address), AddressAttribute::Address(peer.unwrap_or(address))];
    message
}

/// Applies `changes` to the interface with this index and name.
pub(crate) fn apply(
    socket: &mut Socket,
    (index, name): (u32, &str),
    changes: impl IntoIterator<Item = AddressChange>,
) -> Report {
    socket.execute(
        changes,
        |batch, change| {
            own::asked(index, change.assigned().address, change.adds());
            let (message, flags) = change.request(index);
            route::push(batch, &message, flags);
        },
        |change, failure| {
            own::refused(index, change.assigned().address);
            let done = change.is_done_already(&failure);
            (!done).then(|| failed(format!("{change} on {name}"), failure))
        },
    )
}

#[cfg(test)]
mod tests {
    use netlink_batch::{Batch, Refusal};

    use super::*;

    #[test]
    fn changes_print_what_they_do() {
        let v4: IpAddr = "10.96.0.1".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(AddressChange::Add(v4).to_string(), "add address 10.96.0.1/32");
        assert_eq!(AddressChange::Remove(v6).to_string(), "remove address fd00::1/128");
        let mut assigned = AssignedAddress { prefix_len: 24, ..v4.into() };
        assert_eq!(assigned.as_host(), None);
        let change = AddressChange::RemoveAssigned(assigned);
        assert_eq!(change.to_string(), "remove address 10.96.0.1/24");
        assigned = AssignedAddress { peer: Some(v4), ..v4.into() };
        assert_eq!(assigned.as_host(), None);
        assert_eq!(assigned.to_string(), "10.96.0.1 peer 10.96.0.1/32");
    }

    /// `ip address add 10.96.0.1/32 dev <index 5>` without its broadcast, and the IPv6 form, as
    /// bytes of `struct nlmsghdr`, `struct ifaddrmsg` and attributes.
    #[test]
    #[cfg(target_endian = "little")]
    fn requests_are_bare_host_addresses() {
        let request = |change: AddressChange| {
            let mut batch = Batch::default();
            batch.number(1);
            let (message, flags) = change.request(5);
            route::push(&mut batch, &message, flags);
            batch.bytes().to_vec()
        };
        assert_eq!(
            request(AddressChange::Add("10.96.0.1".parse().unwrap())),
            [
                40, 0, 0, 0, 20, 0, 0x01, 0x06, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
                2, 32, 0, 0, 5, 0, 0, 0, // family, prefix length, flags, scope, index
                8, 0, 2, 0, 10, 96, 0, 1, // IFA_LOCAL
                8, 0, 1, 0, 10, 96, 0, 1, // IFA_ADDRESS
            ]
        );
        let bytes = request(AddressChange::Remove("fd00::1".parse().unwrap()));
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[4..8], [21, 0, 0x01, 0]);
        assert_eq!(bytes[16..24], [10, 128, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn nothing_to_do_is_told_from_failure() {
        let address: IpAddr = "10.96.0.1".parse().unwrap();
        let refused =
            |errno: Errno| Failure::Refused(Refusal { code: errno.raw_os_error(), text: None });
        assert!(AddressChange::Add(address).is_done_already(&refused(Errno::EXIST)));
        assert!(!AddressChange::Add(address).is_done_already(&refused(Errno::ADDRNOTAVAIL)));
        assert!(AddressChange::Remove(address).is_done_already(&refused(Errno::ADDRNOTAVAIL)));
        assert!(!AddressChange::Remove(address).is_done_already(&refused(Errno::NODEV)));
    }
}
