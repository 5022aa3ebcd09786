//! The socket: the only file of this crate that talks to the kernel.

use std::io;
use std::time::Duration;

use netlink_packet_core::NLM_F_DUMP;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket as Raw, SocketAddr};
use rustix::io::Errno;
use rustix::net::{sockopt, RecvFlags};

use crate::frame::{messages, Content};
use crate::{Batch, Dump, Failure, Limits, Malformed, Message, Report};

mod whole;

/// What one error reply may take of the receive buffer, overhead included: 832 bytes measured
/// without a text.
const REPLY_COST: usize = 2 << 10;
/// What the kernel needs of the send buffer itself (`netlink_sendmsg`).
const SEND_OVERHEAD: usize = 32;
/// How often a list that changes meanwhile is read.
const DUMP_ATTEMPTS: u32 = 16;

/// Settings of a [`Socket`]; the defaults are right unless you measured otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Receive buffer in bytes, forced (`SO_RCVBUFFORCE`). Where that is not permitted the socket
    /// keeps what the system gives it, and less is sent at once. Default 1 MiB.
    pub receive_buffer: usize,
    /// Send buffer in bytes, in the same way. Default 256 KiB.
    pub send_buffer: usize,
    /// How long to wait for a reply. The kernel answers within the send, so that this ends only
    /// what should not happen. Default 10 seconds.
    pub receive_timeout: Duration,
    /// Bytes that one receive takes. The kernel makes each datagram of a list as large as the
    /// largest receive so far, up to 32 KiB; it never needs more than 64 KiB, the default.
    pub datagram: usize,
    /// How much goes into one send. Default: [`Limits::default`], less where the buffers are too
    /// small for that.
    pub limits: Option<Limits>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receive_buffer: 1 << 20,
            send_buffer: 256 << 10,
            receive_timeout: Duration::from_secs(10),
            datagram: 64 << 10,
            limits: None,
        }
    }
}

/// A blocking netlink socket, connected to the kernel of the network namespace in which it was
/// made. Its calls take as long as the kernel works.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    limits: Limits,
    sequence: u32,
    datagram: Vec<u8>,
    batch: Batch,
    /// The number of a list that was not read to its end: the kernel takes no other before.
    unfinished: Option<u32>,
    /// One refusal for want of permission stands for all requests of a send.
    permission_at_once: bool,
}

impl Socket {
    /// A new socket of a protocol such as `NETLINK_ROUTE`.
    pub fn open(protocol: isize, options: &Options) -> io::Result<Self> {
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        Self::over(raw, protocol, options)
    }

    /// Over a socket of this protocol that is bound and not connected.
    pub fn over(raw: Raw, protocol: isize, options: &Options) -> io::Result<Self> {
        raw.connect(&SocketAddr::new(0, 0))?; // to the kernel, and nobody else's messages
                                              // Both only make error replies better (since Linux 4.12 and 4.3).
        let _ = raw.set_ext_ack(true);
        let _ = raw.set_cap_ack(true);
        let _ = sockopt::set_socket_recv_buffer_size_force(&raw, options.receive_buffer);
        let _ = sockopt::set_socket_send_buffer_size_force(&raw, options.send_buffer);
        sockopt::set_socket_timeout(&raw, sockopt::Timeout::Recv, Some(options.receive_timeout))?;
        Ok(Self {
            limits: options.limits.unwrap_or_else(|| limits_of(&raw)),
            raw,
            sequence: 1,
            datagram: Vec::with_capacity(options.datagram),
            batch: Batch::default(),
            unfinished: None,
            permission_at_once: protocol == NETLINK_NETFILTER,
        })
    }

    /// The number by which netlink knows this socket: what the kernel tells of changes that were
    /// made with it carries it ([`Message::port`]).
    pub fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.raw.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// How much goes into one send.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Carries out commands in order, many in one system call, and goes on after one that fails.
    ///
    /// `encode` pushes exactly one request. `error` makes the caller's error, or `None` of a
    /// failure that says that it was so already. `commands` is pulled only as far as the next send
    /// needs.
    pub fn execute<C, E>(
        &mut self,
        commands: impl IntoIterator<Item = C>,
        mut encode: impl FnMut(&mut Batch, &C),
        mut error: impl FnMut(&C, Failure) -> Option<E>,
    ) -> Report<E> {
        let mut report = Report::default();
        let mut commands = commands.into_iter().fuse();
        let mut batch = std::mem::take(&mut self.batch);
        let mut here = Vec::new();
        loop {
            batch.clear();
            here.clear();
            while batch.has_room(self.limits) {
                let Some(command) = commands.next() else { break };
                encode(&mut batch, &command);
                here.push(command);
            }
            if here.is_empty() {
                self.batch = batch;
                return report;
            }
            self.exchange(&mut batch, &mut report);
            report.add(&batch, |index, failure| error(&here[index], failure));
        }
    }

    /// Carries out the one request that `request` pushes.
    pub fn run(&mut self, request: impl FnOnce(&mut Batch)) -> Result<(), Failure> {
        let mut batch = self.request(request);
        self.exchange(&mut batch, &mut Report::<()>::default());
        let mut result = Ok(());
        batch.failures(|_, failure| result = Err(failure));
        batch.uncertain(|_, failure| result = Err(failure));
        self.batch = batch;
        result
    }

    /// Sends a batch, in as many parts as the socket needs, and takes the replies. Counts system
    /// calls and bytes, and leaves what became of the requests in the batch.
    pub fn exchange<E>(&mut self, batch: &mut Batch, report: &mut Report<E>) {
        // If it cannot be, the requests are carried out all the same.
        let _ = self.finish_dump();
        batch.number(self.sequence);
        self.sequence = self.sequence.wrapping_add(batch.len() as u32);
        let mut from = 0;
        while from < batch.len() {
            let to = batch.part_within(from, self.limits);
            let bytes = batch.part(from..to);
            report.sends += 1;
            match self.send(bytes) {
                Ok(()) => {
                    report.bytes += bytes.len();
                    self.collect(batch, &mut report.receives);
                }
                // The kernel took nothing.
                Err(Errno::MSGSIZE) if to - from > 1 => {
                    self.limits.bytes = batch.too_long() / 2;
                    continue;
                }
                Err(errno) => batch.not_sent(errno.raw_os_error()),
            }
            from = to;
        }
    }

    fn collect(&mut self, batch: &mut Batch, receives: &mut usize) {
        let mut wait = RecvFlags::empty();
        loop {
            *receives += 1;
            match self.receive(wait) {
                Ok(()) if batch.absorb(&self.datagram) => return,
                Ok(()) if self.permission_at_once && batch.is_not_permitted() => return,
                Ok(()) => {}
                Err(errno) => {
                    if wait == RecvFlags::empty() {
                        batch.lost(errno.raw_os_error());
                    }
                    if errno != Errno::NOBUFS {
                        return;
                    }
                    // The kernel finished the batch before: what arrived is in the buffer.
                    wait = RecvFlags::DONTWAIT;
                }
            }
        }
    }

    /// Sends the request that `request` pushes and reads the one message that answers it.
    pub fn ask<T>(
        &mut self,
        request: impl FnOnce(&mut Batch),
        mut decode: impl FnMut(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Failure> {
        let sequence = self.send_request(0, request)?;
        loop {
            self.receive(RecvFlags::empty()).map_err(system)?;
            for message in messages(&self.datagram) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                match message.content()? {
                    Content::Data => return Ok(decode(&message)?),
                    Content::Reply(Err(refusal)) | Content::Done(Err(refusal)) => {
                        return Err(refusal.into());
                    }
                    Content::Reply(Ok(())) | Content::Done(Ok(())) => {
                        return Err(Malformed("answer: it is empty").into());
                    }
                    Content::Nothing => {}
                }
            }
        }
    }

    /// Reads the list that `request` asks for; `each` adds a message to it. One that changed
    /// meanwhile is read again, from an empty list.
    pub fn dump<A: Default>(
        &mut self,
        mut request: impl FnMut(&mut Batch),
        mut each: impl FnMut(&mut A, &Message<'_>) -> Result<(), Malformed>,
    ) -> Result<A, Failure> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut list = A::default();
            if !self.dump_once(&mut request, |message| each(&mut list, message))? {
                return Ok(list);
            }
        }
        Err(Failure::Interrupted(DUMP_ATTEMPTS))
    }

    /// As [`dump`](Self::dump), once; says whether the list changed meanwhile.
    pub fn dump_once(
        &mut self,
        request: impl FnOnce(&mut Batch),
        mut each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<bool, Failure> {
        let mut dump = self.begin(request)?;
        loop {
            if let Some(end) = self.piece(&mut dump, &mut each) {
                return end;
            }
        }
    }

    /// Asks for a list, which is read with [`piece`](Self::piece). The kernel makes a piece when
    /// the one before it is taken. Anything else that is asked first ends it.
    pub fn begin(&mut self, request: impl FnOnce(&mut Batch)) -> Result<Dump, Failure> {
        let sequence = self.send_request(NLM_F_DUMP, request)?;
        self.unfinished = Some(sequence);
        Ok(Dump::new(sequence))
    }

    /// Receives the next datagram of a list; `Some` at its end: whether it changed meanwhile.
    pub fn piece(
        &mut self,
        dump: &mut Dump,
        each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Option<Result<bool, Failure>> {
        if self.unfinished != Some(dump.sequence()) {
            return Some(Err(Malformed("list: something else was asked before its end").into()));
        }
        let end = match self.receive(RecvFlags::empty()) {
            Ok(()) => dump.absorb(&self.datagram, each),
            Err(Errno::NOBUFS) => {
                dump.lost();
                None
            }
            Err(Errno::MSGSIZE) => {
                dump.malformed(Malformed("datagram: it is longer than any"));
                None
            }
            Err(errno) => return Some(Err(system(errno))),
        };
        if end.is_some() {
            self.unfinished = None;
        }
        end
    }

    /// Reads what is left of a list that nobody reads any more.
    fn finish_dump(&mut self) -> Result<(), Failure> {
        let Some(sequence) = self.unfinished else { return Ok(()) };
        let mut dump = Dump::new(sequence);
        loop {
            match self.piece(&mut dump, |_| Ok(())) {
                None => {}
                Some(Err(failure @ Failure::System(_))) => return Err(failure),
                Some(_) => return Ok(()),
            }
        }
    }

    fn send_request(
        &mut self,
        flags: u16,
        request: impl FnOnce(&mut Batch),
    ) -> Result<u32, Failure> {
        self.finish_dump()?;
        let mut batch = self.request(request);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(batch.len() as u32);
        batch.number(sequence);
        batch.add_flags(0, flags);
        let sent = self.send(batch.bytes());
        self.batch = batch;
        sent.map_err(system)?;
        Ok(sequence)
    }

    fn request(&mut self, request: impl FnOnce(&mut Batch)) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        request(&mut batch);
        batch
    }

    /// Netlink takes a datagram whole or not at all.
    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        again(|| self.raw.send(bytes, 0)).map(drop)
    }

    fn receive(&mut self, flags: RecvFlags) -> Result<(), Errno> {
        receive(&self.raw, &mut self.datagram, flags)
    }
}

/// Receives a whole datagram, as long as the buffer has capacity.
pub(crate) fn receive(raw: &Raw, datagram: &mut Vec<u8>, flags: RecvFlags) -> Result<(), Errno> {
    let flags = (flags | RecvFlags::TRUNC).bits().try_into().map_err(|_| Errno::INVAL)?;
    let length = again(|| {
        datagram.clear();
        raw.recv(datagram, flags)
    })?;
    if length > datagram.len() {
        Err(Errno::MSGSIZE)
    } else {
        Ok(())
    }
}

/// Until no signal comes in between.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> Result<usize, Errno> {
    loop {
        match call() {
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
}

fn system(errno: Errno) -> Failure {
    Failure::System(errno.raw_os_error())
}

/// Sends must fit the send buffer, and the replies must fit if all requests are refused.
fn limits_of(socket: &Raw) -> Limits {
    let mut limits = Limits::default();
    if let Ok(size) = sockopt::socket_send_buffer_size(socket) {
        limits.bytes = limits.bytes.min(size.saturating_sub(SEND_OVERHEAD));
    }
    if let Ok(size) = sockopt::socket_recv_buffer_size(socket) {
        limits.commands = limits.commands.min(size / REPLY_COST).max(1);
    }
    limits
}
