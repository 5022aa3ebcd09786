//! The table that kube-proxy leaves in nftables mode, over netlink: found and deleted, nothing else.

use netlink_ipvs::Family;

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{Batch, Error, ErrorKind, PutAttributes, Socket};

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
        let socket = netfilter::open();
        let failed = |error| Error::failed("connect to the kernel's nftables", error);
        Ok(Self { socket: socket.map_err(failed)? })
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
        netfilter::transaction(&mut self.socket, SUBSYSTEM, None, requests).map_err(|rejected| {
            let operation = format!("delete the {family} table {NFTABLES_TABLE}");
            Error::failed(operation, rejected.failure)
        })
    }
}

fn push(batch: &mut Batch, command: u8, family: Family) {
    let header = Header { subsystem: SUBSYSTEM, command, flags: 0, family: family.number() };
    netfilter::push(batch, header, |out| out.text(TABLE_NAME, NFTABLES_TABLE));
}
