//! Netfilter over netlink (`NETLINK_NETFILTER`): what ipset, conntrack and nftables have in common.
//!
//! The kernel carries out all messages of one send, in order, before the send returns, and goes
//! on after one that it refuses. So many requests travel in one send, only the last of them asks
//! for an acknowledgement, and refusals are matched to their request by sequence number.

mod error;
mod message;

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

pub use error::{Error, ErrorKind};
pub(super) use error::{Failure, Refusal};
pub(super) use message::{Attribute, Header, Messages, attributes, frames};

/// Room for the replies to a batch in which every request is refused: the kernel accounts up to
/// 2 KiB for each of [`Messages::MOST`].
const RECEIVE_BUFFER: usize = 1 << 20;

/// A datagram never exceeds this.
const DATAGRAM: usize = 1 << 16;

/// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u8 = 0x10;
const NFNL_MSG_BATCH_END: u8 = 0x11;

/// The kernel answers inside the send; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Refused requests by position in the batch.
    pub(super) refused: Vec<(usize, Refusal)>,
    /// Replies were lost: a request that is not in `refused` may have failed.
    pub(super) uncertain: bool,
}

/// A blocking socket to the netfilter subsystems of the network namespace in which it was made.
#[derive(Debug)]
pub(super) struct NfSocket {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
    /// An exchange ended early; what it left behind must not meet the next one.
    broken: bool,
}

impl NfSocket {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: connect()?,
            sequence: 0,
            received: Vec::with_capacity(DATAGRAM),
            broken: false,
        })
    }

    /// Sends one request for a list and hands the content of each message of the answer to
    /// `item`. Returns whether the kernel says that the list changed meanwhile.
    pub(super) fn dump(
        &mut self,
        request: &mut Messages,
        mut item: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, Failure> {
        debug_assert_eq!(request.len(), 1);
        request.add_flags_to_last(NLM_F_DUMP);
        self.send(request)?;
        let mut interrupted = false;
        let mut unreadable = None;
        loop {
            self.receive(RecvFlags::empty())?;
            for frame in frames(&self.received).filter(|f| f.sequence == self.sequence) {
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        self.broken = false;
                        return match (frame.refusal(), unreadable) {
                            (Some(refusal), _) => Err(refusal.into()),
                            (None, Some(error)) => Err(Failure::Io(error)),
                            (None, None) => Ok(interrupted),
                        };
                    }
                    // After an unreadable message the rest is only received.
                    _ if unreadable.is_some() => {}
                    _ => unreadable = frame.body().and_then(&mut item).err(),
                }
            }
        }
    }

    /// Sends a batch and collects what the kernel refused; what it answers besides goes to
    /// `item`. Empties the batch.
    pub(super) fn transact(
        &mut self,
        batch: &mut Messages,
        mut item: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let count = batch.len();
        if count == 0 {
            return Ok(outcome);
        }
        let first = self.sequence.wrapping_add(1);
        batch.ask_for_acknowledgement();
        let sent = self.send(batch);
        batch.clear();
        sent?;
        let mut flags = RecvFlags::empty();
        loop {
            match self.receive(flags) {
                Ok(()) => {}
                // Replies did not fit. All that were kept are queued already: read those.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                    outcome.uncertain = true;
                    flags = RecvFlags::DONTWAIT;
                    continue;
                }
                Err(error) if outcome.uncertain && error.kind() == io::ErrorKind::WouldBlock => {
                    break;
                }
                Err(error) => return Err(error),
            }
            if outcome.absorb(&self.received, first, count, &mut item)? {
                break;
            }
        }
        self.broken = false;
        Ok(outcome)
    }

    /// Sends requests of which the kernel carries out all or none, and waits for its answer.
    pub(super) fn all_or_none(
        &mut self,
        subsystem: u8,
        requests: impl FnOnce(&mut Messages),
    ) -> Result<(), Failure> {
        let mut batch = Messages::default();
        batch.edge(NFNL_MSG_BATCH_BEGIN, subsystem);
        requests(&mut batch);
        // Not of the end: kernels before 6.10 do not acknowledge that.
        batch.ask_for_acknowledgement();
        let last = batch.len() - 1;
        batch.edge(NFNL_MSG_BATCH_END, subsystem);
        let first = self.sequence.wrapping_add(1);
        self.send(&mut batch)?;
        loop {
            self.receive(RecvFlags::empty())?;
            for frame in frames(&self.received).filter(|frame| frame.kind == NLMSG_ERROR) {
                let position = frame.sequence.wrapping_sub(first) as usize;
                match frame.refusal() {
                    // More of them may follow, so this socket is not used any more.
                    Some(refusal) if position < batch.len() => return Err(refusal.into()),
                    None if position == last => {
                        self.broken = false;
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, messages: &mut Messages) -> io::Result<()> {
        if self.broken {
            self.socket = connect()?;
        }
        self.broken = true;
        self.sequence = messages.number(self.sequence);
        self.socket.send(messages.bytes(), 0).map(drop)
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<()> {
        self.received.clear();
        let flags = (flags | RecvFlags::TRUNC).bits().cast_signed();
        let length = loop {
            match self.socket.recv(&mut self.received, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if length > self.received.len() {
            return Err(malformed(&format!("a netlink datagram of {length} bytes did not fit")));
        }
        Ok(())
    }
}

impl Outcome {
    /// Takes one datagram; true when the batch is answered.
    fn absorb(
        &mut self,
        datagram: &[u8],
        first: u32,
        count: usize,
        item: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut complete = false;
        for frame in frames(datagram) {
            let position = frame.sequence.wrapping_sub(first) as usize;
            if position >= count {
                continue;
            }
            if frame.kind != NLMSG_ERROR {
                item(frame.body()?)?;
                continue;
            }
            if let Some(refusal) = frame.refusal() {
                // Without the capability the kernel answers the first message for all.
                if position == 0 && refusal.is_permission() {
                    let all = (0..count).map(|position| (position, refusal.clone()));
                    self.refused = all.collect();
                    return Ok(true);
                }
                self.refused.push((position, refusal));
            }
            complete |= position == count - 1;
        }
        Ok(complete)
    }
}

fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Better texts and shorter answers; right answers come without.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
