//! Netfilter (`NETLINK_NETFILTER`): what its subsystems, such as ipset, conntrack and nftables, have
//! in common. Source of the numbers: `include/uapi/linux/netfilter/nfnetlink.h`.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    Attributes, Batch, Failure, Malformed, Message, Options, PutAttributes, Refusal, Socket,
};

/// Bytes of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_BATCH_GENID: u16 = 1;

/// What stands before the attributes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// `NFNL_SUBSYS_*`
    pub subsystem: u8,
    /// The subsystem's command.
    pub command: u8,
    /// `NLM_F_*`; in a request besides `NLM_F_REQUEST`.
    pub flags: u16,
    /// `NFPROTO_*`, the address family of `struct nfgenmsg`.
    pub family: u8,
}

/// Why a transaction was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The requests that were refused, by their place from 0, in order. The kernel goes on after the
    /// first one, so that a later one may be refused only for what the first one did not do. Empty
    /// if it is about all of them: they were not sent, the generation is another one, or the answer
    /// was lost. Some may be missing where there are more than the receive buffer holds.
    pub requests: Vec<(usize, Refusal)>,
    /// Why: what is about all of them, or the first refusal. It is
    /// [uncertain](crate::ErrorKind::Uncertain) whether the transaction was carried out if the
    /// answer was lost; in all other cases it was not.
    pub failure: Failure,
}

impl Header {
    /// The header of a message that is not one of netlink's own.
    pub fn of(message: &Message<'_>) -> Result<Self, Malformed> {
        let [command, subsystem] = message.kind.to_le_bytes();
        let family = *message.payload.first().ok_or(Malformed("netfilter header"))?;
        Ok(Self { subsystem, command, flags: message.flags, family })
    }
}

/// A socket to the netfilter subsystems of the network namespace of this thread.
pub fn open() -> io::Result<Socket> {
    Socket::open(NETLINK_NETFILTER, &Options::default())
}

/// Appends a request whose attributes `body` writes.
pub fn push(batch: &mut Batch, header: Header, body: impl FnOnce(&mut Vec<u8>)) {
    let kind = u16::from_le_bytes([header.command, header.subsystem]);
    batch.push(kind, header.flags, |out| {
        out.extend([header.family, 0, 0, 0]);
        body(out);
    });
}

/// The attributes of a message.
pub fn attributes<'a>(message: &Message<'a>) -> Result<Attributes<'a>, Malformed> {
    message.attributes(FAMILY_HEADER)
}

/// Carries out all or none of the requests that `requests` pushes, in a subsystem that has
/// transactions (nftables). With a `generation` only if the subsystem's is still that; it is refused
/// with `ERESTART` otherwise.
///
/// They go to the kernel in one send: the send buffer grows to hold them where that is permitted.
pub fn transaction(
    socket: &mut Socket,
    subsystem: u8,
    generation: Option<u32>,
    requests: impl FnOnce(&mut Batch),
) -> Result<(), Rejected> {
    let mut batch = Batch::default();
    edge(&mut batch, NFNL_MSG_BATCH_BEGIN, subsystem, generation);
    requests(&mut batch);
    let count = batch.len() - 1;
    if count == 0 {
        return Ok(());
    }
    edge(&mut batch, NFNL_MSG_BATCH_END, subsystem, None);
    // Not the end: kernels before 6.10 do not acknowledge that.
    let (mut requests, of_all) = socket.all_or_none(&mut batch, count);
    // The first message is the begin, which stands for all.
    let begin = requests.iter().position(|(index, _)| *index == 0);
    let begin = begin.map(|at| requests.remove(at).1.into());
    requests.retain(|(index, _)| *index <= count);
    for (index, _) in &mut requests {
        *index -= 1;
    }
    let first = requests.first().map(|(_, refusal)| refusal.clone().into());
    match begin.or(first).or(of_all) {
        Some(failure) => Err(Rejected { requests, failure }),
        None => Ok(()),
    }
}

fn edge(batch: &mut Batch, kind: u16, subsystem: u8, generation: Option<u32>) {
    batch.push(kind, 0, |out| {
        // The subsystem is the header's `res_id`, in network order.
        out.extend([0, 0, 0, subsystem]);
        if let Some(generation) = generation {
            out.attribute(NFNL_BATCH_GENID, &generation.to_be_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header { subsystem: 10, command: 3, flags: 0x400, family: 2 };
        let mut batch = Batch::default();
        push(&mut batch, header, |out| out.text(1, "name"));
        let message = messages(batch.bytes()).next().unwrap().unwrap();
        assert_eq!(message.kind, 0x0a03);
        let read = Header::of(&message).unwrap();
        assert_eq!(Header { flags: 0x401, ..header }, read, "NLM_F_REQUEST");
        let name = attributes(&message).unwrap().find(1).unwrap().unwrap();
        assert_eq!(name.text(), Ok("name"));
        assert!(Header::of(&Message { payload: &[], ..message }).is_err());
    }
}
