//! Commands for one send, and the kernel's replies back to the commands.

use netlink_batch::{Failure, Limits};
use rustix::io::Errno;

use crate::error::Operation;
use crate::{encode, Command, Error};

/// The longest message of a command, with a margin; a property test holds it.
const MAX_MESSAGE: usize = 192;

/// What became of the commands given to [`Client::execute`](crate::Client::execute).
pub type Report = netlink_batch::Report<Error>;

/// Commands encoded for one send, and what is known of each.
///
/// Pure: whoever owns the socket sends [`bytes`](Self::bytes) and gives every datagram that
/// comes back to [`absorb`](Self::absorb). [`Client`](crate::Client) does just that.
#[derive(Debug)]
pub struct Batch {
    family_id: u16,
    limits: Limits,
    pub(crate) requests: netlink_batch::Batch,
    commands: Vec<Command>,
    /// Whether the requests were taken to be sent.
    taken: bool,
}

impl Batch {
    /// An empty batch for the IPVS family with this id
    /// ([`Client::family_id`](crate::Client::family_id)).
    pub fn new(family_id: u16, limits: Limits) -> Self {
        Self {
            family_id,
            limits,
            requests: netlink_batch::Batch::of_messages(MAX_MESSAGE),
            commands: Vec::with_capacity(limits.commands.max(1)),
            taken: false,
        }
    }

    /// Empties the batch and numbers its messages from `first_sequence`. Keeps its memory.
    pub fn clear(&mut self, first_sequence: u32) {
        self.requests.clear();
        self.requests.number(first_sequence);
        self.commands.clear();
        self.taken = false;
    }

    /// Empties the batch, for a family that may have got another id.
    pub(crate) fn begin(&mut self, family_id: u16) {
        self.family_id = family_id;
        self.clear(0);
    }

    /// Writes the same commands again, for a family that got another id.
    pub(crate) fn rewrite(&mut self, family_id: u16) {
        let commands = std::mem::take(&mut self.commands);
        self.begin(family_id);
        for command in commands {
            self.push(command);
        }
    }

    /// Whether every command was refused with `ENOENT`, as by a kernel that does not know the
    /// family. Then nothing was carried out.
    pub(crate) fn knows_nothing(&self) -> bool {
        let refused = self.requests.refused();
        refused.len() == self.commands.len()
            && refused.iter().all(|(_, refusal)| refusal.is(Errno::NOENT))
    }

    /// Whether one more command fits. An empty batch always has room for one.
    pub fn has_room(&self) -> bool {
        self.requests.has_room(self.limits)
    }

    /// Appends a command.
    pub fn push(&mut self, command: Command) {
        encode::command(&mut self.requests, self.family_id, &command);
        self.commands.push(command);
    }

    /// Number of commands in it.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether it has no command.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The bytes to send in one system call; the last message asks for an acknowledgement.
    pub fn bytes(&mut self) -> &[u8] {
        self.take();
        self.requests.bytes()
    }

    /// Takes the replies in a received datagram; `true` when the last command has its reply, so
    /// that no more will come. Replies to other requests are skipped.
    ///
    /// A datagram that is no netlink message counts as lost replies.
    pub fn absorb(&mut self, datagram: &[u8]) -> bool {
        self.take();
        self.requests.absorb(datagram)
    }

    /// Notes that replies may have been lost (`ENOBUFS`, or none came in time).
    pub fn lost_replies(&mut self, errno: Errno) {
        self.take();
        self.requests.lost(errno.raw_os_error());
    }

    /// Notes that the send itself failed: nothing of it was carried out.
    pub fn not_sent(&mut self, errno: Errno) {
        self.take();
        self.requests.not_sent(errno.raw_os_error());
    }

    fn take(&mut self) {
        if !std::mem::replace(&mut self.taken, true) && !self.is_empty() {
            self.requests.part(0..self.commands.len());
        }
    }

    /// Adds what became of this batch's commands to a report whose next command is the first of
    /// this batch.
    pub fn conclude(&self, report: &mut Report) {
        report.add(&self.requests, |index, failure| {
            Some(Error::new(Operation::Command(self.commands[index]), failure))
        });
    }

    /// Why nobody knows what became of the commands, if so.
    pub(crate) fn uncertainty(&self) -> Option<Failure> {
        let mut found = None;
        self.requests.uncertain(|_, failure| found = Some(failure));
        found
    }
}
