//! A connection to the kernel's IPVS.

use netlink_batch::{Attributes, Dump, Failure, Malformed, Message, Options, Socket};
use netlink_packet_generic::constants::CTRL_ATTR_FAMILY_ID;
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use crate::batch::{Batch, Report};
use crate::error::Operation;
use crate::wire::cmd;
use crate::{
    decode, encode, Command, Error, Info, RealServerEntry, SyncDaemon, Timeouts,
    VirtualServerEntry, VirtualServerKey,
};

/// Bytes that one receive takes: some thirty real servers. The kernel makes each datagram of a
/// dump as large as the largest receive so far, and the last one, which only says that it was the
/// last, too: with 32 KiB it spends more on getting and clearing that memory (`init_on_alloc`) than
/// on a virtual server's ten real servers. With `struct skb_shared_info` (320 bytes) this fills
/// 8 KiB; no less, because a datagram may have `NLMSG_GOODSIZE` in any case, which is the same
/// where pages are larger.
const DATAGRAM: usize = (8 << 10) - 320;
/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// A blocking connection to the IPVS of one network namespace: the one that the calling thread
/// was in when it was opened.
///
/// Changes and dumps need `CAP_NET_ADMIN` in the user namespace of that network namespace.
/// Calls take as long as the kernel works: from an async runtime, use a thread of its own.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    family_id: u16,
    batch: Batch,
}

impl Client {
    /// Opens a socket and finds IPVS in the kernel, which loads its module if it can.
    ///
    /// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) where the kernel has no IPVS.
    pub fn open() -> Result<Self, Error> {
        Self::open_with(&Self::options())
    }

    /// As [`Client::open`], with a socket of other settings.
    pub fn open_with(options: &Options) -> Result<Self, Error> {
        let socket = Socket::open(NETLINK_GENERIC, options);
        Self::over(socket.map_err(|error| Error::new(Operation::Open, error))?)
    }

    /// As [`Client::open`], over a socket of `NETLINK_GENERIC`; of the network namespace in which
    /// that was made.
    pub fn over(socket: Socket) -> Result<Self, Error> {
        let limits = socket.limits();
        let mut client = Self { socket, family_id: 0, batch: Batch::new(0, limits) };
        client.family_id = client.find_family()?;
        Ok(client)
    }

    /// The settings of [`Client::open`]: the default ones, but for datagrams of some thirty real
    /// servers.
    pub fn options() -> Options {
        let mut options = Options::default();
        options.datagram = DATAGRAM;
        options
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
            |batch, family| encode::get(batch, family, cmd::GET_INFO),
            decode::info,
        )
    }

    /// The timeouts of connections.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        self.ask(
            Operation::GetTimeouts,
            |batch, family| encode::get(batch, family, cmd::GET_CONFIG),
            decode::timeouts,
        )
    }

    /// All virtual servers, in the kernel's order (that of its hash table).
    ///
    /// The kernel dumps in pieces, a datagram each, and does not tell when another program
    /// adds or deletes between two pieces: then an entry can be missing or come twice.
    /// [`Client::into_virtual_servers`] gives the pieces.
    pub fn virtual_servers(&mut self) -> Result<Vec<VirtualServerEntry>, Error> {
        self.dump(Operation::DumpVirtualServers, all_virtual_servers, decode::virtual_server)
    }

    /// As [`Client::virtual_servers`], a piece of some twenty at a time, for a caller that has other
    /// things to do between two of them. The kernel makes a piece when the one before it is taken.
    ///
    /// Takes the connection, which can do nothing else meanwhile;
    /// [`into_client`](VirtualServers::into_client) gives it back.
    pub fn into_virtual_servers(mut self) -> Result<VirtualServers, Error> {
        let dump = self.begin_virtual_servers()?;
        Ok(VirtualServers { client: self, dump: Some(dump) })
    }

    fn begin_virtual_servers(&mut self) -> Result<Dump, Error> {
        let family = self.family_id;
        let dump = self.socket.begin(|batch| all_virtual_servers(batch, family));
        dump.map_err(|failure| Error::new(Operation::DumpVirtualServers, failure))
    }

    /// One virtual server; [`NotFound`](crate::ErrorKind::NotFound) if it is not there.
    pub fn virtual_server(&mut self, key: VirtualServerKey) -> Result<VirtualServerEntry, Error> {
        self.ask(
            Operation::GetVirtualServer(key),
            |batch, family| encode::get_of(batch, family, cmd::GET_SERVICE, &key),
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
            |batch, family| encode::get_of(batch, family, cmd::GET_DEST, &key),
            |attributes| decode::real_server(attributes, key.family()),
        )
    }

    /// The synchronisation daemons of this network namespace: at most one of each role.
    pub fn sync_daemons(&mut self) -> Result<Vec<SyncDaemon>, Error> {
        self.dump(
            Operation::DumpSyncDaemons,
            |batch, family| encode::get(batch, family, cmd::GET_DAEMON),
            decode::sync_daemon,
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
            // A read may have found that the module was loaded again.
            self.batch.begin(self.family_id);
            while self.batch.has_room() {
                let Some(command) = commands.next() else { break };
                self.batch.push(command);
            }
            if self.batch.is_empty() {
                return report;
            }
            self.socket.exchange(&mut self.batch.requests, &mut report);
            if self.batch.knows_nothing() && self.family_has_changed() {
                self.batch.rewrite(self.family_id);
                self.socket.exchange(&mut self.batch.requests, &mut report);
            }
            self.batch.conclude(&mut report);
        }
    }

    /// Carries out one command.
    pub fn run(&mut self, command: Command) -> Result<(), Error> {
        if let Some((_, error)) = self.execute([command]).failed.pop() {
            return Err(error);
        }
        match self.batch.uncertainty() {
            Some(failure) => Err(Error::new(Operation::Command(command), failure)),
            None => Ok(()),
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
        let id = self.socket.ask(encode::get_family, |message| {
            let id = message.attributes(GENERIC_HEADER)?.find(CTRL_ATTR_FAMILY_ID)?;
            id.ok_or(Malformed("family id"))?.u16()
        });
        id.map_err(|failure| Error::new(Operation::FindFamily, failure))
    }

    /// Sends a request that has one message as its answer.
    fn ask<T>(
        &mut self,
        operation: Operation,
        request: impl Fn(&mut netlink_batch::Batch, u16),
        decode: impl Fn(Attributes<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Error> {
        let answer = self.again_if_loaded_again(|socket, family| {
            socket.ask(
                |batch| request(batch, family),
                |message| decode(message.attributes(GENERIC_HEADER)?),
            )
        });
        answer.map_err(|failure| Error::new(operation, failure))
    }

    /// Sends a request that has any number of messages as its answer.
    fn dump<T>(
        &mut self,
        operation: Operation,
        request: impl Fn(&mut netlink_batch::Batch, u16),
        decode: impl Fn(Attributes<'_>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Error> {
        let list = self.again_if_loaded_again(|socket, family| {
            socket.dump(|batch| request(batch, family), |list, message| add(list, message, &decode))
        });
        list.map_err(|failure| Error::new(operation, failure))
    }

    fn again_if_loaded_again<T>(
        &mut self,
        exchange: impl Fn(&mut Socket, u16) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match exchange(&mut self.socket, self.family_id) {
            Err(failure) if failure.is_refusal(Errno::NOENT) && self.family_has_changed() => {
                exchange(&mut self.socket, self.family_id)
            }
            result => result,
        }
    }
}

fn all_virtual_servers(batch: &mut netlink_batch::Batch, family: u16) {
    encode::get(batch, family, cmd::GET_SERVICE);
}

/// Adds the entry of a message to a list.
fn add<T>(
    list: &mut Vec<T>,
    message: &Message<'_>,
    decode: impl Fn(Attributes<'_>) -> Result<T, Malformed>,
) -> Result<(), Malformed> {
    list.push(decode(message.attributes(GENERIC_HEADER)?)?);
    Ok(())
}

/// Pieces of the kernel's list of virtual servers, in its order: see
/// [`Client::into_virtual_servers`]. An error is the last item.
#[derive(Debug)]
pub struct VirtualServers {
    client: Client,
    /// None after the end.
    dump: Option<Dump>,
}

impl VirtualServers {
    /// The connection. What is left of the list is not read any more.
    pub fn into_client(self) -> Client {
        self.client
    }
}

impl Iterator for VirtualServers {
    type Item = Result<Vec<VirtualServerEntry>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut dump = self.dump.take()?;
        let mut piece = Vec::new();
        let each = |message: &Message<'_>| add(&mut piece, message, decode::virtual_server);
        let failure = match self.client.socket.piece(&mut dump, each) {
            None => {
                self.dump = Some(dump);
                return Some(Ok(piece));
            }
            Some(Ok(false)) => return (!piece.is_empty()).then_some(Ok(piece)),
            Some(Ok(true)) => Failure::Interrupted(1),
            Some(Err(failure)) => failure,
        };
        // Nothing has come yet: the kernel did not know the family.
        if failure.is_refusal(Errno::NOENT) && self.client.family_has_changed() {
            return match self.client.begin_virtual_servers() {
                Ok(dump) => {
                    self.dump = Some(dump);
                    self.next()
                }
                Err(error) => Some(Err(error)),
            };
        }
        Some(Err(Error::new(Operation::DumpVirtualServers, failure)))
    }
}
