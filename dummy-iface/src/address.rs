//! Adding and removing host addresses, many in one system call.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::error::Error;
use crate::socket::{BATCH, RouteSocket};

/// One change of the addresses of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "RTM_NEWADDR")]
#[doc(alias = "RTM_DELADDR")]
pub enum AddressChange {
    /// Add as host address: prefix length 32 or 128, scope global, no flags, no label, valid for
    /// ever. For IPv6 the kernel holds an address once whatever its prefix length, so one that
    /// is there with another prefix length stays as it is and counts as unchanged.
    Add(IpAddr),
    /// Remove the host address (prefix length 32 or 128).
    Remove(IpAddr),
    /// Remove the address with exactly this prefix length. Host bits count:
    /// `10.0.0.1/24` is the address 10.0.0.1.
    RemoveNet(IpNet),
}

/// What became of a sequence of changes.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// Changes that were sent to the kernel.
    pub sent: usize,
    /// Of these, the ones that the kernel already had: added and there, removed and not there.
    pub unchanged: usize,
    /// Changes that failed, by position in the sequence, ascending.
    pub failed: Vec<(usize, Error)>,
    /// Answers were lost, so a change that is not in `failed` may have failed all the same: list
    /// the addresses and compare.
    pub uncertain: bool,
}

impl fmt::Display for AddressChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(address) => write!(f, "add address {}", IpNet::from(*address)),
            Self::Remove(address) => write!(f, "remove address {}", IpNet::from(*address)),
            Self::RemoveNet(net) => write!(f, "remove address {net}"),
        }
    }
}

impl AddressChange {
    fn request(self, interface: u32) -> (RouteNetlinkMessage, u16) {
        match self {
            Self::Add(address) => (
                RouteNetlinkMessage::NewAddress(message(interface, address.into())),
                NLM_F_CREATE | NLM_F_EXCL,
            ),
            Self::Remove(address) => {
                (RouteNetlinkMessage::DelAddress(message(interface, address.into())), 0)
            }
            Self::RemoveNet(net) => (RouteNetlinkMessage::DelAddress(message(interface, net)), 0),
        }
    }

    /// Whether the kernel refuses it only because nothing has to be done.
    fn is_done_already(self, errno: Errno) -> bool {
        match self {
            Self::Add(_) => errno == Errno::EXIST,
            Self::Remove(_) | Self::RemoveNet(_) => errno == Errno::ADDRNOTAVAIL,
        }
    }
}

fn message(interface: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: match net {
            IpNet::V4(_) => AddressFamily::Inet,
            IpNet::V6(_) => AddressFamily::Inet6,
        },
        prefix_len: net.prefix_len(),
        index: interface,
        ..AddressHeader::default()
    };
    message.attributes =
        vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// Applies `changes` to the interface with this index and name.
pub(crate) fn apply(
    socket: &mut RouteSocket,
    interface: (u32, &str),
    changes: impl IntoIterator<Item = AddressChange>,
) -> Report {
    let mut report = Report::default();
    let mut changes = changes.into_iter();
    let mut batch = Vec::with_capacity(BATCH.min(changes.size_hint().0));
    loop {
        batch.clear();
        batch.extend(changes.by_ref().take(BATCH));
        if batch.is_empty() {
            return report;
        }
        report.batch(socket, interface, &batch);
    }
}

impl Report {
    fn batch(
        &mut self,
        socket: &mut RouteSocket,
        (index, name): (u32, &str),
        batch: &[AddressChange],
    ) {
        let start = self.sent;
        self.sent += batch.len();
        let outcome = match socket.transact(batch.iter().map(|change| change.request(index))) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The error may have come after the kernel did its work.
                self.uncertain = true;
                let code = Errno::from_io_error(&error).unwrap_or(Errno::IO).raw_os_error();
                for (position, change) in batch.iter().enumerate() {
                    let error = std::io::Error::from_raw_os_error(code);
                    self.failed
                        .push((start + position, Error::io(format!("{change} on {name}"), error)));
                }
                // Late answers must not meet the next batch.
                if let Ok(fresh) = RouteSocket::open() {
                    *socket = fresh;
                }
                return;
            }
        };
        self.uncertain |= outcome.uncertain;
        for (position, refusal) in outcome.refused {
            let change = batch[position];
            if change.is_done_already(refusal.errno) {
                self.unchanged += 1;
            } else {
                let error = Error::refused(format!("{change} on {name}"), refusal);
                self.failed.push((start + position, error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_print_what_they_do() {
        let v4: IpAddr = "10.96.0.1".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(AddressChange::Add(v4).to_string(), "add address 10.96.0.1/32");
        assert_eq!(AddressChange::Remove(v6).to_string(), "remove address fd00::1/128");
        let net = AddressChange::RemoveNet("10.0.0.1/24".parse().unwrap());
        assert_eq!(net.to_string(), "remove address 10.0.0.1/24");
    }

    /// `ip address add 10.96.0.1/32 dev <index 5>` without its broadcast, and the IPv6 form, as
    /// bytes of `struct nlmsghdr`, `struct ifaddrmsg` and attributes.
    #[test]
    #[cfg(target_endian = "little")]
    fn requests_are_bare_host_addresses() {
        let mut bytes = Vec::new();
        let (message, flags) = AddressChange::Add("10.96.0.1".parse().unwrap()).request(5);
        crate::socket::push(&mut bytes, message, flags, 1);
        assert_eq!(
            bytes,
            [
                40, 0, 0, 0, 20, 0, 0x01, 0x06, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
                2, 32, 0, 0, 5, 0, 0, 0, // family, prefix length, flags, scope, index
                8, 0, 2, 0, 10, 96, 0, 1, // IFA_LOCAL
                8, 0, 1, 0, 10, 96, 0, 1, // IFA_ADDRESS
            ]
        );
        bytes.clear();
        let (message, flags) = AddressChange::Remove("fd00::1".parse().unwrap()).request(5);
        crate::socket::push(&mut bytes, message, flags, 2);
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[4..8], [21, 0, 0x01, 0]);
        assert_eq!(bytes[16..24], [10, 128, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn nothing_to_do_is_told_from_failure() {
        let address: IpAddr = "10.96.0.1".parse().unwrap();
        assert!(AddressChange::Add(address).is_done_already(Errno::EXIST));
        assert!(!AddressChange::Add(address).is_done_already(Errno::ADDRNOTAVAIL));
        assert!(AddressChange::Remove(address).is_done_already(Errno::ADDRNOTAVAIL));
        assert!(!AddressChange::Remove(address).is_done_already(Errno::NODEV));
    }
}
