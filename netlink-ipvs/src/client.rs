//! The socket: the only file of this crate that talks to the kernel.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use netlink_packet_generic::constants::CTRL_ATTR_FAMILY_ID;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use crate::batch::{Batch, Limits, Report};
use crate::dump::{Dump, End};
use crate::error::{Cause, Operation};
use crate::frame::{self, Attributes, Content, Malformed};
use crate::wire::cmd;
use crate::{
    Command, Error, Info, RealServerEntry, Timeouts, VirtualServerEntry, VirtualServerKey, decode,
    encode,
};

/// Bytes that one receive takes: some thirty real servers. The kernel makes each datagram of a dump as large as
/// the largest receive so far, and the last one, which only says that it was the last, too: with 32 KiB
/// it spends more on getting and clearing that memory (`init_on_alloc`) than on a virtual server's ten
/// real servers. With `struct skb_shared_info` (320 bytes) this fills 8 KiB; no less, because a
/// datagram may have `NLMSG_GOODSIZE` in any case, which is the same where pages are larger.
const DATAGRAM: usize = (8 << 10) - 320;
/// What one error reply may take of the receive buffer, overhead included: 832 bytes measured
/// without a text.
const REPLY_COST: usize = 2 << 10;
/// How often an interrupted dump is asked for.
const DUMP_ATTEMPTS: u32 = 8;

/// A blocking connection to the IPVS of one network namespace: the one that the calling thread
/// was in when it was opened.
///
/// Changes and dumps need `CAP_NET_ADMIN` in the user namespace of that network namespace.
/// Calls take as long as the kernel works: from an async runtime, use a thread of its own.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    family_id: u16,
    sequence: u32,
    batch: Batch,
    request: Vec<u8>,
    datagram: Vec<u8>,
}

/// Settings of a [`Client`]; the defaults are right unless you measured otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Receive buffer of the socket in bytes (`SO_RCVBUFFORCE`, or `SO_RCVBUF` up to
    /// `net.core.rmem_max` where that is not permitted). Default 8 MiB.
    pub receive_buffer: usize,
    /// Send buffer of the socket in bytes, in the same way. Default 1 MiB.
    pub send_buffer: usize,
    /// How long to wait for a reply. The kernel answers within the send, so that this ends only
    /// what should not happen. Default 10 seconds.
    pub receive_timeout: Duration,
    /// How much goes into one send. Default: 64 KiB and at most 512 commands, less where the
    /// buffers got smaller than asked for.
    pub limits: Option<Limits>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            receive_buffer: 8 << 20,
            send_buffer: 1 << 20,
            receive_timeout: Duration::from_secs(10),
            limits: None,
        }
    }
}

impl Client {
    /// Opens a socket and finds IPVS in the kernel, which loads its module if it can.
    ///
    /// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) where the kernel has no IPVS.
    pub fn open() -> Result<Self, Error> {
        Self::open_with(&Options::default())
    }

    /// As [`Client::open`], with other settings.
    pub fn open_with(options: &Options) -> Result<Self, Error> {
        let failed = |error: &io::Error| Error::new(Operation::Open, system(error));
        let socket = connect(options).map_err(|error| failed(&error))?;
        let limits = options.limits.unwrap_or_else(|| limits_of(&socket));
        let mut client = Self {
            socket,
            family_id: 0,
            sequence: 0,
            batch: Batch::new(0, limits),
            request: Vec::with_capacity(256),
            datagram: Vec::with_capacity(DATAGRAM),
        };
        client.family_id = client.find_family()?;
        client.batch = Batch::new(client.family_id, limits);
        Ok(client)
    }

    /// The id that this kernel gave to the IPVS family (`nlmsg_type` of its messages). It is another
    /// one after the module was loaded again; this client then finds it again.
    pub fn family_id(&self) -> u16 {
        self.family_id
    }

    /// Version of IPVS and size of its connection table.
    pub fn info(&mut self) -> Result<Info, Error> {
        self.ask(
            Operation::GetInfo,
            |out, family, sequence| encode::get(out, family, sequence, cmd::GET_INFO),
            |attributes| decode::info(attributes).map(Some),
        )
    }

    /// The timeouts of connections.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.ask(
            Operation::GetTimeouts,
            |out, family, sequence| encode::get(out, family, sequence, cmd::GET_CONFIG),
            |attributes| decode::timeouts(attributes).map(Some),
        )
    }

    /// All virtual servers, in the kernel's order (that of its hash table).
    ///
    /// Entries that the model cannot say (a protocol other than TCP, UDP and SCTP) are left out.
    /// The kernel dumps in pieces, a datagram each, and does not tell when another program
    /// adds or deletes between two pieces: then an entry can be missing or come twice.
    /// [`Client::into_virtual_servers`] gives the pieces.
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServerEntry>, Error> {
        self.dump(
            Operation::DumpVirtualServers,
            encode::dump_virtual_servers,
            decode::virtual_server,
        )
    }

    /// As [`Client::virtual_servers`], a piece of some twenty at a time, for a caller that has other
    /// things to do between two of them. The kernel makes a piece when the one before it is taken.
    ///
    /// Takes the connection, because it can do nothing else until the last piece was read.
    pub fn into_virtual_servers(mut self) -> Result<VirtualServers, Error> {
        let dump = self.begin_virtual_servers()?;
        Ok(VirtualServers { client: self, dump: Some(dump) })
    }

    fn begin_virtual_servers(&mut self) -> Result<Dump<VirtualServerEntry>, Error> {
        let sequence = self.send_request(encode::dump_virtual_servers);
        let failed = |error| Error::new(Operation::DumpVirtualServers, system(&error));
        sequence.map(Dump::new).map_err(failed)
    }

    /// One virtual server; [`NotFound`](crate::ErrorKind::NotFound) if it is not there.
    pub fn virtual_server(&mut self, key: VirtualServerKey) -> Result<VirtualServerEntry, Error> {
        self.ask(
            Operation::GetVirtualServer(key),
            |out, family, sequence| encode::get_virtual_server(out, family, sequence, &key),
            decode::virtual_server,
        )
    }

    /// All real servers of a virtual server, the last added first.
    ///
    /// A virtual server that is not there has none: the kernel reports no error.
    ///
    /// Reading the whole table takes one dump for each virtual server. `/proc/net/ip_vs` has it in
    /// one file, but leaves entries out while another network namespace has virtual servers too:
    /// where all namespaces share one table (Linux 6.1 does), the position in the file counts those
    /// of others in `ip_vs_info_seq_next` and does not in `ip_vs_info_array`.
    pub fn real_servers(&mut self, key: VirtualServerKey) -> Result<Vec<RealServerEntry>, Error> {
        self.dump(
            Operation::DumpRealServers(key),
            |out, family, sequence| encode::dump_real_servers(out, family, sequence, &key),
            |attributes| decode::real_server(attributes, key.family()),
        )
    }

    /// Carries out commands in order, hundreds per system call, and goes on after failures.
    ///
    /// `commands` is pulled only as far as the next send needs, so that it may be computed on
    /// the way.
    pub fn execute<I>(&mut self, commands: I) -> Report
    where
        I: IntoIterator<Item = Command>,
    {
        let mut report = Report::default();
        let mut commands = commands.into_iter().fuse();
        loop {
            self.batch.clear(self.sequence);
            while self.batch.has_room()
                && let Some(command) = commands.next()
            {
                self.batch.push(command);
            }
            if self.batch.is_empty() {
                return report;
            }
            self.exchange_batch(&mut report);
            if self.batch.knows_nothing() && self.family_has_changed() {
                self.batch.rewrite(self.family_id, self.sequence);
                self.exchange_batch(&mut report);
            }
            self.batch.conclude(&mut report);
        }
    }

    /// Carries out one command.
    pub fn run(&mut self, command: Command) -> Result<(), Error> {
        let mut report = self.execute([command]);
        match report.failed.pop() {
            Some((_, error)) => Err(error),
            None if report.uncertain.is_empty() => Ok(()),
            None => Err(self.batch.uncertain_error(command)),
        }
    }

    fn exchange_batch(&mut self, report: &mut Report) {
        self.sequence = self.sequence.wrapping_add(self.batch.len() as u32);
        report.sends += 1;
        let bytes = self.batch.bytes();
        report.bytes += bytes.len();
        if let Err(error) = send(&self.socket, bytes) {
            self.batch.not_sent(errno(&error));
            return;
        }
        let mut wait = RecvFlags::empty();
        loop {
            report.receives += 1;
            match receive(&self.socket, &mut self.datagram, wait) {
                Ok(()) if self.batch.absorb(&self.datagram) => return,
                Ok(()) => {}
                Err(error) => {
                    let errno = errno(&error);
                    if wait == RecvFlags::empty() {
                        self.batch.lost_replies(errno);
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

    /// Whether IPVS has another id than the one in use, because its module was loaded again; takes
    /// it over.
    fn family_has_changed(&mut self) -> bool {
        let before = self.family_id;
        self.family_id = self.find_family().unwrap_or(before);
        self.family_id != before
    }

    fn find_family(&mut self) -> Result<u16, Error> {
        self.ask_once(
            Operation::FindFamily,
            |out, _, sequence| encode::get_family(out, sequence),
            |attributes| match attributes.find(CTRL_ATTR_FAMILY_ID)? {
                Some(&[low, high]) => Ok(Some(u16::from_ne_bytes([low, high]))),
                _ => Err(Malformed("family id")),
            },
        )
    }

    /// Sends a request that has one message as its answer.
    fn ask<T>(
        &mut self,
        operation: Operation,
        request: impl Fn(&mut Vec<u8>, u16, u32),
        decode: impl Fn(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<T, Error> {
        match self.ask_once(operation, &request, &decode) {
            Err(error) if error.is_of_unknown_family() && self.family_has_changed() => {
                self.ask_once(operation, request, decode)
            }
            answer => answer,
        }
    }

    fn ask_once<T>(
        &mut self,
        operation: Operation,
        request: impl Fn(&mut Vec<u8>, u16, u32),
        decode: impl Fn(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<T, Error> {
        let failed = |cause| Error::new(operation, cause);
        let sequence = self.send_request(request).map_err(|error| failed(system(&error)))?;
        loop {
            receive(&self.socket, &mut self.datagram, RecvFlags::empty())
                .map_err(|error| failed(system(&error)))?;
            let flow = frame::messages(&self.datagram, |message| match message.content {
                _ if message.sequence != sequence => ControlFlow::Continue(()),
                Content::Data(attributes) => ControlFlow::Break(match decode(attributes) {
                    Ok(Some(value)) => Ok(value),
                    Ok(None) => Err(Cause::Malformed("entry: it says what this library cannot")),
                    Err(Malformed(what)) => Err(Cause::Malformed(what)),
                }),
                Content::Reply(reply) | Content::Done(reply) => {
                    let text = reply.text.map(Into::into);
                    let nothing = Cause::Malformed("answer: there is no entry in it");
                    let refused = |errno| Cause::Refused(errno, text);
                    ControlFlow::Break(Err(reply.errno.map_or(nothing, refused)))
                }
            });
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(answer)) => return answer.map_err(failed),
                Err(Malformed(what)) => return Err(failed(Cause::Malformed(what))),
            }
        }
    }

    /// Sends a request that has any number of messages as its answer; again if interrupted.
    fn dump<T>(
        &mut self,
        operation: Operation,
        request: impl Fn(&mut Vec<u8>, u16, u32),
        decode: impl Fn(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, Error> {
        let failed = |cause| Error::new(operation, cause);
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.send_request(&request).map_err(|error| failed(system(&error)))?;
            let mut dump = Dump::new(sequence);
            let end = loop {
                if let Some(end) = self.receive_piece(&mut dump, &decode) {
                    break end;
                }
            };
            match end {
                End::Complete(entries) => return Ok(entries),
                End::Interrupted => {}
                End::Failed(Cause::Refused(Errno::NOENT, _)) if self.family_has_changed() => {}
                End::Failed(cause) => return Err(failed(cause)),
            }
        }
        Err(failed(Cause::Interrupted(DUMP_ATTEMPTS)))
    }

    /// Receives the next datagram of a dump; `Some` at its end.
    fn receive_piece<T>(
        &mut self,
        dump: &mut Dump<T>,
        decode: impl Fn(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Option<End<T>> {
        match receive(&self.socket, &mut self.datagram, RecvFlags::empty()) {
            Ok(()) => dump.absorb(&self.datagram, decode),
            Err(error) if errno(&error) == Errno::NOBUFS => {
                dump.lost();
                None
            }
            Err(error) => Some(End::Failed(system(&error))),
        }
    }

    fn send_request(&mut self, request: impl Fn(&mut Vec<u8>, u16, u32)) -> io::Result<u32> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.request.clear();
        request(&mut self.request, self.family_id, sequence);
        send(&self.socket, &self.request)?;
        Ok(sequence)
    }
}

/// Pieces of the kernel's list of virtual servers, in its order: see
/// [`Client::into_virtual_servers`]. An error is the last item.
#[derive(Debug)]
pub struct VirtualServers {
    client: Client,
    /// None after the end.
    dump: Option<Dump<VirtualServerEntry>>,
}

impl Iterator for VirtualServers {
    type Item = Result<Vec<VirtualServerEntry>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut dump = self.dump.take()?;
        let failed = |cause| Some(Err(Error::new(Operation::DumpVirtualServers, cause)));
        match self.client.receive_piece(&mut dump, decode::virtual_server) {
            None => {
                let piece = dump.take();
                self.dump = Some(dump);
                Some(Ok(piece))
            }
            Some(End::Complete(rest)) => (!rest.is_empty()).then_some(Ok(rest)),
            Some(End::Interrupted) => failed(Cause::Interrupted(1)),
            Some(End::Failed(Cause::Refused(Errno::NOENT, _)))
                if self.client.family_has_changed() =>
            {
                match self.client.begin_virtual_servers() {
                    Ok(dump) => self.dump = Some(dump),
                    Err(error) => return Some(Err(error)),
                }
                self.next()
            }
            Some(End::Failed(cause)) => failed(cause),
        }
    }
}

fn connect(options: &Options) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?; // to the kernel, and nobody else's messages
    // Both only make error replies better (since Linux 4.12 and 4.3).
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    if sockopt::set_socket_recv_buffer_size_force(&socket, options.receive_buffer).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, options.receive_buffer)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, options.send_buffer).is_err() {
        sockopt::set_socket_send_buffer_size(&socket, options.send_buffer)?;
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(options.receive_timeout))?;
    Ok(socket)
}

/// Sends must fit the send buffer, and the replies must fit if all commands fail.
fn limits_of(socket: &Socket) -> Limits {
    let mut limits = Limits::default();
    if let Ok(size) = sockopt::socket_send_buffer_size(socket) {
        limits.bytes = limits.bytes.min(size / 2);
    }
    if let Ok(size) = sockopt::socket_recv_buffer_size(socket) {
        limits.commands = limits.commands.min(size / REPLY_COST);
    }
    limits
}

fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    loop {
        match socket.send(bytes, 0) {
            Ok(_) => return Ok(()), // netlink takes a datagram whole or not at all
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn receive(socket: &Socket, datagram: &mut Vec<u8>, flags: RecvFlags) -> io::Result<()> {
    loop {
        datagram.clear();
        let flags = flags | RecvFlags::TRUNC;
        match socket.recv(datagram, flags.bits().cast_signed()) {
            Ok(length) if length > datagram.len() => return Err(Errno::MSGSIZE.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn system(error: &io::Error) -> Cause {
    Cause::System(errno(error))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
