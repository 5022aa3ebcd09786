//! The table that kube-proxy leaves in nftables mode, over netlink: found and deleted, nothing else.

use netlink_ipvs::Family;

use super::nfnetlink::{Error, ErrorKind, Failure, Header, Messages, NfSocket};
use crate::dataplane::leftovers::NFTABLES_TABLE;

/// `NFNL_SUBSYS_NFTABLES`
const SUBSYSTEM: u8 = 10;

// include/uapi/linux/netfilter/nf_tables.h
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const TABLE_NAME: u16 = 1;

/// A connection to the nftables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Nftables {
    socket: NfSocket,
}

impl Nftables {
    /// Opens a connection.
    ///
    /// # Errors
    /// If the kernel has no netfilter.
    pub fn open() -> Result<Self, Error> {
        let opened = NfSocket::open();
        let socket =
            opened.map_err(|error| Error::io("connect to the kernel's nftables", error))?;
        Ok(Self { socket })
    }

    /// Whether kube-proxy's table is there. A kernel without nftables has none.
    ///
    /// # Errors
    /// [`ErrorKind::NoPermission`] without `CAP_NET_ADMIN`.
    pub fn has_table(&mut self, family: Family) -> Result<bool, Error> {
        let operation = || format!("look for the {family} table {NFTABLES_TABLE}");
        let mut request = Messages::default();
        push(&mut request, GET_TABLE, family);
        let answer = self.socket.transact(&mut request, |_| Ok(()));
        let outcome = answer.map_err(|error| Error::io(operation(), error))?;
        let Some((_, refusal)) = outcome.refused.into_iter().next() else { return Ok(true) };
        match ErrorKind::of_errno(refusal.code) {
            // The latter two are what a kernel answers that does not know the subsystem.
            ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported => Ok(false),
            kind => Err(Error::with_source(kind, operation(), refusal)),
        }
    }

    /// Deletes it, at once with everything in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not there; see [`has_table`](Self::has_table).
    pub fn delete_table(&mut self, family: Family) -> Result<(), Error> {
        let operation = format!("delete the {family} table {NFTABLES_TABLE}");
        let done = self.socket.all_or_none(SUBSYSTEM, |batch| push(batch, DELETE_TABLE, family));
        done.map_err(|failure| match failure {
            Failure::Io(error) => Error::io(operation, error),
            Failure::Refused(refusal) => {
                Error::with_source(ErrorKind::of_errno(refusal.code), operation, refusal)
            }
        })
    }
}

fn push(messages: &mut Messages, command: u8, family: Family) {
    // `NFPROTO_*` of include/uapi/linux/netfilter.h
    let family = match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    };
    let header = Header { subsystem: SUBSYSTEM, command, flags: 0, family };
    messages.push(header, |messages| messages.text(TABLE_NAME, NFTABLES_TABLE));
}
