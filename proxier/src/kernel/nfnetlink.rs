//! Netfilter over netlink (`NETLINK_NETFILTER`): what ipset, conntrack and nftables have in common.

use netlink_batch::{Attributes, Batch, Failure, Malformed, Message, Options, Socket};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub use netlink_batch::{Error, ErrorKind};

/// Bytes of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

/// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u8 = 0x10;
const NFNL_MSG_BATCH_END: u8 = 0x11;

/// What stands before the attributes of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    /// `NFNL_SUBSYS_*`
    pub(super) subsystem: u8,
    /// The subsystem's command.
    pub(super) command: u8,
    /// `NLM_F_*` besides `NLM_F_REQUEST`.
    pub(super) flags: u16,
    /// Address family of `struct nfgenmsg`.
    pub(super) family: u8,
}

/// A socket to the netfilter subsystems of the network namespace of this thread.
pub(super) fn open(operation: &str) -> Result<Socket, Error> {
    Socket::open(NETLINK_NETFILTER, &Options::default())
        .map_err(|error| Error::failed(operation, error))
}

/// Appends a request whose attributes `body` writes.
pub(super) fn push(batch: &mut Batch, header: Header, body: impl FnOnce(&mut Vec<u8>)) {
    let kind = u16::from(header.subsystem) << 8 | u16::from(header.command);
    batch.push(kind, header.flags, |out| {
        out.extend([header.family, 0, 0, 0]);
        body(out);
    });
}

/// The attributes of a message.
pub(super) fn body<'a>(message: &Message<'a>) -> Result<Attributes<'a>, Malformed> {
    message.attributes(FAMILY_HEADER)
}

/// Carries out all or none of the requests that `requests` pushes.
pub(super) fn all_or_none(
    socket: &mut Socket,
    subsystem: u8,
    requests: impl FnOnce(&mut Batch),
) -> Result<(), Failure> {
    let edge = |batch: &mut Batch, command: u8| {
        let kind = u16::from(command);
        batch.push(kind, 0, |out| out.extend([0, 0, 0, subsystem]));
    };
    let mut batch = Batch::default();
    edge(&mut batch, NFNL_MSG_BATCH_BEGIN);
    requests(&mut batch);
    // Not the end: kernels before 6.10 do not acknowledge that.
    let last = batch.len() - 1;
    edge(&mut batch, NFNL_MSG_BATCH_END);
    socket.all_or_none(&mut batch, last)
}
