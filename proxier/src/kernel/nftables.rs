//! The table that kube-proxy leaves in nftables mode, over netlink: found and deleted, nothing else.

use netlink_ipvs::Family;

use netlink_batch::{Batch, PutAttributes, Socket};

use super::nfnetlink::{self, Error, ErrorKind, Header};
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
    socket: Socket,
}

impl Nftables {
    /// Opens a connection.
    ///
    /// # Errors
    /// If the kernel has no netfilter.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: nfnetlink::open("connect to the kernel's nftables")? })
    }

    /// Whether kube-proxy's table is there. A kernel without nftables has none.
    ///
    /// # Errors
    /// [`ErrorKind::NoPermission`] without `CAP_NET_ADMIN`.
    pub fn has_table(&mut self, family: Family) -> Result<bool, Error> {
        match self.socket.ask(|batch| push(batch, GET_TABLE, family), |_| Ok(())) {
            Ok(()) => Ok(true),
            Err(failure) => match failure.kind() {
                // The latter two are what a kernel answers that does not know the subsystem.
                ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported => Ok(false),
                _ => {
                    let operation = format!("look for the {family} table {NFTABLES_TABLE}");
                    Err(Error::failed(operation, failure))
                }
            },
        }
    }

    /// Deletes it, at once with everything in it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not there; see [`has_table`](Self::has_table).
    pub fn delete_table(&mut self, family: Family) -> Result<(), Error> {
        let requests = |batch: &mut Batch| push(batch, DELETE_TABLE, family);
        nfnetlink::all_or_none(&mut self.socket, SUBSYSTEM, requests).map_err(|failure| {
            Error::failed(format!("delete the {family} table {NFTABLES_TABLE}"), failure)
        })
    }
}

fn push(batch: &mut Batch, command: u8, family: Family) {
    // `NFPROTO_*` of include/uapi/linux/netfilter.h
    let family = match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    };
    let header = Header { subsystem: SUBSYSTEM, command, flags: 0, family };
    nfnetlink::push(batch, header, |out| out.text(TABLE_NAME, NFTABLES_TABLE));
}
