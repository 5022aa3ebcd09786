//! A blocking rtnetlink socket: dumps that are whole or an error, and batches of requests.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NetlinkMessage, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use crate::error::Refusal;

/// Requests in one send. The replies of a batch in which every request fails must fit into
/// [`RECEIVE_BUFFER`].
pub(crate) const BATCH: usize = 512;

/// Large enough for [`BATCH`] error replies of 2 KiB each as the kernel accounts them.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The kernel sizes the parts of a dump by the largest buffer it has seen, up to 32 KiB; a
/// datagram never exceeds 64 KiB.
const DATAGRAM: usize = 1 << 16;

/// The kernel answers inside the send; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// Attempts at a dump that the kernel marks as interrupted by a change.
const DUMP_ATTEMPTS: usize = 16;

const HEADER: usize = 16;

/// The ports (`nl_pid`) of this process's sockets have this in all but their last byte, so that a
/// [`Monitor`](crate::Monitor) knows whose changes it is told of: random, above every process
/// number, and below what the kernel gives a socket that asks for none.
pub(crate) static PORTS: LazyLock<u32> = LazyLock::new(|| {
    let random = RandomState::new().hash_one(std::process::id());
    0x4000_0000 | (random as u32 & 0x3fff_ff00)
});

/// The part of a port that is in [`PORTS`].
pub(crate) const PORTS_MASK: u32 = 0xffff_ff00;

/// One netlink message within a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
    /// Header and payload, as `NetlinkMessage::deserialize` takes it.
    pub(crate) whole: &'a [u8],
}

/// What became of a batch: refusals by position in the batch.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) refused: Vec<(usize, Refusal)>,
    /// Replies were lost: a request that is not in `refused` may have failed.
    pub(crate) uncertain: bool,
}

#[derive(Debug)]
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

/// The messages of a datagram; ends at the first one that is cut or malformed.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = datagram.split_first_chunk::<HEADER>()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let whole = datagram.get(..length).filter(|whole| whole.len() >= HEADER)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: half(4),
            flags: half(6),
            sequence: word(8),
            payload: &whole[HEADER..],
            whole,
        })
    })
}

impl Frame<'_> {
    /// The error number at the start of an `NLMSG_ERROR` or `NLMSG_DONE`; 0 is success.
    fn code(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code))
    }

    /// The refusal in an `NLMSG_ERROR`; `None` for an acknowledgement.
    fn refusal(&self) -> Option<Refusal> {
        let code = self.code();
        if code == 0 {
            return None;
        }
        Some(Refusal { message: self.extended_ack(), ..Refusal::new(code) })
    }

    /// `NLMSGERR_ATTR_MSG`, the kernel's sentence about an error.
    fn extended_ack(&self) -> Option<Box<str>> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let echoed = self.payload.get(4..)?;
        let request = if self.flags & NLM_F_CAPPED == 0 {
            u32::from_ne_bytes(*echoed.first_chunk()?) as usize
        } else {
            HEADER
        };
        let attributes = echoed.get(request.next_multiple_of(4)..)?;
        NlasIterator::new(attributes).map_while(Result::ok).find_map(|attribute| {
            (attribute.kind() == NLMSGERR_ATTR_MSG)
                .then(|| String::from_utf8_lossy(attribute.value()))
                .map(|text| text.trim_end_matches('\0').into())
        })
    }
}

/// Appends `message` to `buffer` as one request.
pub(crate) fn push(buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = flags | NLM_F_REQUEST;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = buffer.len();
    let end = start + message.buffer_len();
    buffer.resize(end.next_multiple_of(4), 0);
    message.serialize(&mut buffer[start..end]);
}

/// Gives a socket the first free one of our ports, or any when none is free.
fn bind(socket: &mut Socket) -> io::Result<()> {
    for number in 0..=!PORTS_MASK {
        match socket.bind(&SocketAddr::new(*PORTS | number, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    socket.bind_auto().map(drop)
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        bind(&mut socket)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Each of these makes answers better or more certain; none is needed for right ones.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        // Lets the kernel filter dumps (since 4.20).
        let _ = socket.set_netlink_get_strict_chk(true);
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, received: Vec::with_capacity(DATAGRAM) })
    }

    /// Everything that `request` lists, through `decode` (`None` skips a message).
    ///
    /// A dump during which the listed table changed is repeated; what is returned was the whole
    /// table at one moment.
    pub(crate) fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        mut decode: impl FnMut(&Frame<'_>) -> io::Result<Option<T>>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(list) = self.dump_once(request, &mut decode)? {
                return Ok(list);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("the list changed during each of {DUMP_ATTEMPTS} attempts to read it"),
        ))
    }

    fn dump_once<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        decode: &mut impl FnMut(&Frame<'_>) -> io::Result<Option<T>>,
    ) -> io::Result<Option<Vec<T>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        push(&mut bytes, request.clone(), NLM_F_DUMP, self.sequence);
        self.socket.send(&bytes, 0)?;
        let mut list = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive(RecvFlags::empty())?;
            for frame in frames(&self.received) {
                if frame.sequence != self.sequence {
                    continue;
                }
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE | NLMSG_ERROR if frame.code() != 0 => {
                        return Err(Refusal::new(frame.code()).errno.into());
                    }
                    NLMSG_DONE => return Ok((!interrupted).then_some(list)),
                    NLMSG_ERROR => {}
                    _ => list.extend(decode(&frame)?),
                }
            }
        }
    }

    /// The one message that answers `request`, through `decode`.
    pub(crate) fn ask<T>(
        &mut self,
        request: RouteNetlinkMessage,
        decode: impl Fn(&Frame<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        push(&mut bytes, request, 0, self.sequence);
        self.socket.send(&bytes, 0)?;
        loop {
            self.receive(RecvFlags::empty())?;
            let answer = frames(&self.received).find(|frame| frame.sequence == self.sequence);
            match answer {
                None => {}
                Some(frame) if frame.kind == NLMSG_ERROR => {
                    return Err(Refusal::new(frame.code()).errno.into());
                }
                Some(frame) => return decode(&frame),
            }
        }
    }

    /// Sends up to [`BATCH`] requests at once and collects what the kernel refused.
    ///
    /// Only the last request asks for an acknowledgement: refusals are reported without one, and
    /// the kernel answers in order.
    pub(crate) fn transact(
        &mut self,
        requests: impl ExactSizeIterator<Item = (RouteNetlinkMessage, u16)>,
    ) -> io::Result<Outcome> {
        let count = requests.len();
        debug_assert!(count <= BATCH);
        if count == 0 {
            return Ok(Outcome::default());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(count * 64);
        for (message, flags) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            let last = self.sequence == first.wrapping_add(count as u32 - 1);
            push(&mut bytes, message, if last { flags | NLM_F_ACK } else { flags }, self.sequence);
        }
        self.socket.send(&bytes, 0)?;

        let mut outcome = Outcome::default();
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
                    return Ok(outcome);
                }
                Err(error) => return Err(error),
            }
            if outcome.absorb(&self.received, first, count) {
                return Ok(outcome);
            }
        }
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
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a netlink datagram of {length} bytes did not fit"),
            ));
        }
        Ok(())
    }
}

impl Outcome {
    /// Takes the replies of one datagram; true when the last request was answered.
    fn absorb(&mut self, datagram: &[u8], first: u32, count: usize) -> bool {
        let mut complete = false;
        for frame in frames(datagram).filter(|frame| frame.kind == NLMSG_ERROR) {
            let position = frame.sequence.wrapping_sub(first) as usize;
            if position >= count {
                continue;
            }
            if let Some(refusal) = frame.refusal() {
                self.refused.push((position, refusal));
            }
            complete |= position == count - 1;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reply(sequence: u32, code: i32, text: Option<&str>) -> Vec<u8> {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend(16_u32.to_ne_bytes());
        body.extend([0; 12]);
        let mut flags = NLM_F_CAPPED;
        if let Some(text) = text {
            flags |= NLM_F_ACK_TLVS;
            body.extend((text.len() as u16 + 5).to_ne_bytes());
            body.extend(1_u16.to_ne_bytes());
            body.extend(text.as_bytes());
            body.push(0);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn refusals_land_on_their_request_and_the_last_answer_ends_the_batch() {
        let first = u32::MAX - 1; // the sequence number wraps inside the batch
        let mut outcome = Outcome::default();
        let stale = reply(first - 1, -17, None);
        assert!(!outcome.absorb(&stale, first, 4));
        let mut datagram = reply(first.wrapping_add(2), -17, Some("there already"));
        datagram.extend(reply(first.wrapping_add(3), 0, None));
        assert!(outcome.absorb(&datagram, first, 4));
        let refusal = Refusal { errno: Errno::EXIST, message: Some("there already".into()) };
        assert_eq!(outcome.refused, [(2, refusal)]);
    }

    #[test]
    fn a_refused_last_request_ends_the_batch_too() {
        let mut outcome = Outcome::default();
        assert!(outcome.absorb(&reply(7, -19, None), 7, 1));
        assert_eq!(outcome.refused, [(0, Refusal::new(-19))]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for frame in frames(&bytes) {
                let _ = frame.refusal();
            }
            Outcome::default().absorb(&bytes, 0, usize::MAX);
        }

        #[test]
        fn damaged_replies_never_panic(
            at in 0_usize..64,
            value in any::<u8>(),
            text in "[a-z]{0,20}",
        ) {
            let mut bytes = reply(1, -22, Some(&text));
            let at = at % bytes.len();
            bytes[at] = value;
            Outcome::default().absorb(&bytes, 1, 1);
        }
    }
}
