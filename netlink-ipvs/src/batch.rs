//! Many commands in one send, and the kernel's replies back to the commands.
//!
//! The kernel carries out all messages of one send in order, within the `send` call, and goes on
//! after a failing one. It reports a failure whether or not an acknowledgement was asked for, so
//! only the last message asks: a batch without failures costs one `send` and one `recv`.
//!
//! A reply that does not fit into the socket's receive buffer is lost, and the next `recv` says
//! `ENOBUFS`. Then silence does not mean success any more, and the commands without a reply are
//! reported as uncertain.

use std::ops::{ControlFlow, Range};

use netlink_packet_core::NLM_F_ACK;
use rustix::io::Errno;

use crate::error::{Cause, Operation};
use crate::frame::{self, Content, Malformed, Reply};
use crate::{Command, Error, encode};

/// The longest message of a command, with a margin; a property test holds it.
pub(crate) const MAX_MESSAGE: usize = 192;

/// What became of the commands given to [`Client::execute`](crate::Client::execute).
///
/// A command is identified by its place in the sequence of commands, from 0. The ones that are
/// in neither list were carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Report {
    /// How many commands were handed to the kernel.
    pub sent: usize,
    /// The commands that were certainly not carried out, and why; in order.
    pub failed: Vec<(usize, Error)>,
    /// The commands whose replies were lost: read back what they were about.
    pub uncertain: Vec<Range<usize>>,
    /// System calls that sent commands.
    pub sends: usize,
    /// System calls that received replies.
    pub receives: usize,
    /// Bytes sent.
    pub bytes: usize,
}

/// Commands encoded for one send, and what is known of each.
///
/// Pure: whoever owns the socket sends [`bytes`](Self::bytes) and gives every datagram that
/// comes back to [`absorb`](Self::absorb). [`Client`](crate::Client) does just that.
#[derive(Debug)]
pub struct Batch {
    family_id: u16,
    limits: Limits,
    buffer: Vec<u8>,
    last_message: usize,
    first_sequence: u32,
    commands: Vec<Command>,
    refused: Vec<(usize, Errno, Option<Box<str>>)>,
    last_answered: bool,
    fate: Fate,
}

/// How much goes into one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; must fit the socket's send buffer.
    pub bytes: usize,
    /// Commands; if all of them fail, the replies must fit the receive buffer.
    pub commands: usize,
}

/// What silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Success.
    Delivered,
    /// Nothing: replies were lost.
    RepliesLost(Errno),
    /// Failure: the kernel did not get the batch.
    NotSent(Errno),
}

impl Default for Limits {
    /// 64 KiB and 512 commands: larger sends gain nothing (measured).
    fn default() -> Self {
        Self { bytes: 64 << 10, commands: 512 }
    }
}

impl Report {
    /// Whether every command was certainly carried out.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && self.uncertain.is_empty()
    }
}

impl Batch {
    /// An empty batch for the IPVS family with this id
    /// ([`Client::family_id`](crate::Client::family_id)).
    pub fn new(family_id: u16, limits: Limits) -> Self {
        Self {
            family_id,
            limits,
            buffer: Vec::with_capacity(limits.bytes.max(MAX_MESSAGE)),
            last_message: 0,
            first_sequence: 0,
            commands: Vec::with_capacity(limits.commands.max(1)),
            refused: Vec::new(),
            last_answered: false,
            fate: Fate::Delivered,
        }
    }

    /// Empties the batch and numbers its messages from `first_sequence`. Keeps its memory.
    pub fn clear(&mut self, first_sequence: u32) {
        self.buffer.clear();
        self.last_message = 0;
        self.first_sequence = first_sequence;
        self.commands.clear();
        self.refused.clear();
        self.last_answered = false;
        self.fate = Fate::Delivered;
    }

    /// Writes the same commands again, for a family that got another id.
    pub(crate) fn rewrite(&mut self, family_id: u16, first_sequence: u32) {
        let commands = std::mem::take(&mut self.commands);
        self.family_id = family_id;
        self.clear(first_sequence);
        for command in commands {
            self.push(command);
        }
    }

    /// Whether every command was refused with `ENOENT`, as by a kernel that does not know the
    /// family. Then nothing was carried out.
    pub(crate) fn knows_nothing(&self) -> bool {
        self.refused.len() == self.commands.len()
            && self.refused.iter().all(|(_, errno, _)| *errno == Errno::NOENT)
    }

    /// Whether one more command fits. An empty batch always has room for one.
    pub fn has_room(&self) -> bool {
        self.commands.is_empty()
            || (self.commands.len() < self.limits.commands
                && self.buffer.len() + MAX_MESSAGE <= self.limits.bytes)
    }

    /// Appends a command.
    pub fn push(&mut self, command: Command) {
        self.last_message = self.buffer.len();
        let sequence = self.first_sequence.wrapping_add(self.commands.len() as u32);
        encode::command(&mut self.buffer, self.family_id, sequence, &command);
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
        if !self.commands.is_empty() {
            encode::add_flags(&mut self.buffer, self.last_message, NLM_F_ACK);
        }
        &self.buffer
    }

    /// Takes the replies in a received datagram; `true` when the last command has its reply, so
    /// that no more will come. Replies to other requests are skipped.
    ///
    /// A datagram that is no netlink message counts as lost replies.
    pub fn absorb(&mut self, datagram: &[u8]) -> bool {
        if let Err(Malformed(_)) = self.try_absorb(datagram) {
            self.fate = Fate::RepliesLost(Errno::BADMSG);
        }
        self.last_answered
    }

    /// Notes that replies may have been lost (`ENOBUFS`, or none came in time).
    pub fn lost_replies(&mut self, errno: Errno) {
        self.fate = Fate::RepliesLost(errno);
    }

    /// Notes that the send itself failed: nothing of it was carried out.
    pub fn not_sent(&mut self, errno: Errno) {
        self.fate = Fate::NotSent(errno);
    }

    /// Adds what became of this batch's commands to a report whose next command is the first of
    /// this batch.
    pub fn conclude(&self, report: &mut Report) {
        let start = report.sent;
        report.sent += self.commands.len();
        if let Fate::NotSent(errno) = self.fate {
            let failed = self.commands.iter().enumerate().map(|(index, command)| {
                let operation = Operation::Command(*command);
                (start + index, Error::new(operation, Cause::System(errno)))
            });
            report.failed.extend(failed);
            return;
        }
        let failed = self.refused.iter().map(|(index, errno, text)| {
            let operation = Operation::Command(self.commands[*index]);
            (start + index, Error::new(operation, Cause::Refused(*errno, text.clone())))
        });
        report.failed.extend(failed);
        let silence_is_success = self.fate == Fate::Delivered && self.last_answered;
        if !silence_is_success {
            self.without_reply(|range| {
                report.uncertain.push(start + range.start..start + range.end);
            });
        }
    }

    /// The error of a command whose reply was lost.
    pub(crate) fn uncertain_error(&self, command: Command) -> Error {
        let errno = match self.fate {
            Fate::RepliesLost(errno) | Fate::NotSent(errno) => errno,
            Fate::Delivered => Errno::NOBUFS,
        };
        Error::new(Operation::Command(command), Cause::Lost(errno))
    }

    fn try_absorb(&mut self, datagram: &[u8]) -> Result<(), Malformed> {
        let _: ControlFlow<()> = frame::messages(datagram, |message| {
            let index = message.sequence.wrapping_sub(self.first_sequence) as usize;
            if let Content::Reply(reply) = message.content
                && index < self.commands.len()
            {
                self.answer(index, reply);
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn answer(&mut self, index: usize, reply: Reply<'_>) {
        self.last_answered |= index + 1 == self.commands.len();
        if let Some(errno) = reply.errno {
            self.refused.push((index, errno, reply.text.map(Into::into)));
        }
    }

    /// Calls `each` for the ranges of commands of which no reply says what became of them.
    fn without_reply(&self, mut each: impl FnMut(Range<usize>)) {
        // Replies come in order: the kernel works through the batch from front to back.
        let answered = self.refused.iter().map(|(index, ..)| *index);
        let last = self.commands.len() - usize::from(self.last_answered);
        let mut start = 0;
        for index in answered.chain([last]) {
            if start < index.min(last) {
                each(start..index.min(last));
            }
            start = index + 1;
        }
    }
}
