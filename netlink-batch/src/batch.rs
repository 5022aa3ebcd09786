//! Requests that are sent together, and what the kernel says to each.

use std::ops::Range;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use rustix::io::Errno;

use crate::frame::{messages, Content, HEADER};
use crate::{Failure, Malformed, Refusal};

/// Where `nlmsg_flags` and `nlmsg_seq` are in a message.
const FLAGS: Range<usize> = 6..8;
const SEQUENCE: Range<usize> = 8..12;

/// How much goes into one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; must fit the socket's send buffer.
    pub bytes: usize,
    /// Requests; if all of them are refused, the replies must fit the receive buffer.
    pub commands: usize,
}

/// Requests, and what is known of each.
///
/// Pure: whoever owns a socket sends a [`part`](Self::part) and gives every datagram that comes
/// back to [`absorb`](Self::absorb). [`Socket`](crate::Socket) does just that.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message begins.
    starts: Vec<usize>,
    /// The longest message so far, of all that were ever in it.
    longest: usize,
    first_sequence: u32,
    /// In the order of the requests.
    refused: Vec<(usize, Refusal)>,
    /// What was sent, in order and without gaps.
    parts: Vec<Part>,
}

/// Requests of one send.
#[derive(Debug, Clone)]
struct Part {
    requests: Range<usize>,
    /// Whether the last one has its reply.
    answered: bool,
    fate: Fate,
}

/// What silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Success, if the last request is answered.
    Delivered,
    /// Nothing: replies were lost.
    RepliesLost(i32),
    /// Failure: the kernel did not get it.
    NotSent(i32),
}

impl Default for Limits {
    /// 64 KiB and 512 requests: larger sends gain nothing (measured).
    fn default() -> Self {
        Self { bytes: 64 << 10, commands: 512 }
    }
}

impl Batch {
    /// An empty one for messages that are rarely longer than this.
    pub fn of_messages(longest: usize) -> Self {
        Self { longest, ..Self::default() }
    }

    /// Empties it. Keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
        self.refused.clear();
        self.parts.clear();
    }

    /// Number of requests in it.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it has no request.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Whether one more request as long as the longest so far fits. An empty one always has room.
    pub fn has_room(&self, limits: Limits) -> bool {
        self.is_empty()
            || (self.len() < limits.commands && self.bytes.len() + self.longest <= limits.bytes)
    }

    /// Appends a request; `body` appends everything after the netlink header.
    /// `NLM_F_REQUEST` is added to the flags.
    pub fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        let sequence = self.first_sequence.wrapping_add(self.len() as u32);
        self.starts.push(start);
        let mut header = [0; HEADER];
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[FLAGS].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        header[SEQUENCE].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&header);
        body(&mut self.bytes);
        let length = self.bytes.len() - start;
        self.longest = self.longest.max(length);
        self.bytes[start..start + 4].copy_from_slice(&(length as u32).to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends the requests of another batch, which keeps them.
    pub fn append(&mut self, other: &Self) {
        let (offset, already) = (self.bytes.len(), self.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.starts.extend(other.starts.iter().map(|start| offset + start));
        self.longest = self.longest.max(other.longest);
        self.renumber(already);
    }

    /// The place of the request with this number.
    pub(crate) fn index_of(&self, sequence: u32) -> Option<usize> {
        let index = sequence.wrapping_sub(self.first_sequence) as usize;
        (index < self.len()).then_some(index)
    }

    /// Numbers the requests from `first`, those that are in it and those that come.
    pub fn number(&mut self, first: u32) {
        if self.first_sequence == first {
            return;
        }
        self.first_sequence = first;
        self.renumber(0);
    }

    fn renumber(&mut self, from: usize) {
        for (index, start) in self.starts.iter().enumerate().skip(from) {
            let sequence = self.first_sequence.wrapping_add(index as u32).to_ne_bytes();
            self.bytes[start + SEQUENCE.start..start + SEQUENCE.end].copy_from_slice(&sequence);
        }
    }

    /// Adds flags to a request.
    pub(crate) fn add_flags(&mut self, index: usize, flags: u16) {
        self.change_flags(index, |present| present | flags);
    }

    fn change_flags(&mut self, index: usize, change: impl FnOnce(u16) -> u16) {
        let Some(start) = self.starts.get(index) else { return };
        let flags = &mut self.bytes[start + FLAGS.start..start + FLAGS.end];
        let changed = change(u16::from_ne_bytes([flags[0], flags[1]]));
        flags.copy_from_slice(&changed.to_ne_bytes());
    }

    /// The end of the longest part from `from` on that keeps to the limits; at least one request.
    pub(crate) fn part_within(&self, from: usize, limits: Limits) -> usize {
        let begin = self.start(from);
        let most = self.len().min(from.saturating_add(limits.commands.max(1)));
        let fits = |end: &usize| self.start(*end) - begin <= limits.bytes;
        (from + 1..=most).rev().find(fits).unwrap_or((from + 1).min(self.len()))
    }

    /// The bytes of these requests, which follow those of the part before, to be sent in one system
    /// call. The last one asks for an acknowledgement.
    pub fn part(&mut self, requests: Range<usize>) -> &[u8] {
        let last = requests.end.saturating_sub(1);
        self.add_flags(last, NLM_F_ACK);
        let bytes = self.start(requests.start)..self.start(requests.end);
        self.parts.push(Part { requests, answered: false, fate: Fate::Delivered });
        &self.bytes[bytes]
    }

    /// Takes the last part back, because it was too long to be sent. Returns its bytes' number.
    pub(crate) fn too_long(&mut self) -> usize {
        let Some(part) = self.parts.pop() else { return 0 };
        self.change_flags(part.requests.end.saturating_sub(1), |flags| flags & !NLM_F_ACK);
        self.start(part.requests.end) - self.start(part.requests.start)
    }

    /// All bytes, as they are.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn start(&self, index: usize) -> usize {
        self.starts.get(index).copied().unwrap_or(self.bytes.len())
    }

    /// Takes the replies in a received datagram; `true` when the last request of the last part has
    /// its reply, so that no more will come. Replies to other requests are skipped.
    ///
    /// A datagram that is no netlink message counts as lost replies.
    pub fn absorb(&mut self, datagram: &[u8]) -> bool {
        if self.try_absorb(datagram).is_err() {
            self.lost(Errno::BADMSG.raw_os_error());
        }
        self.parts.last().is_some_and(|part| part.answered)
    }

    fn try_absorb(&mut self, datagram: &[u8]) -> Result<(), Malformed> {
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        for message in messages(datagram) {
            let message = message?;
            let index = message.sequence.wrapping_sub(self.first_sequence) as usize;
            if !part.requests.contains(&index) {
                continue;
            }
            if let Content::Reply(result) = message.content()? {
                part.answered |= index + 1 == part.requests.end;
                self.refused.extend(result.err().map(|refusal| (index, refusal)));
            }
        }
        Ok(())
    }

    /// Takes the refusal of the first request of the last part for all of it, if it is for want of
    /// permission: netfilter asks once for each send, and answers once.
    pub(crate) fn is_not_permitted(&mut self) -> bool {
        let Some(part) = self.parts.last_mut() else { return false };
        match self.refused.last() {
            Some((index, refusal)) if *index == part.requests.start && refusal.is(Errno::PERM) => {
                let refusal = refusal.clone();
                let others = part.requests.start + 1..part.requests.end;
                self.refused.extend(others.map(|index| (index, refusal.clone())));
                part.answered = true;
                true
            }
            _ => false,
        }
    }

    /// Notes that replies to the last part may have been lost (`ENOBUFS`, or none came in time).
    pub fn lost(&mut self, code: i32) {
        self.decide(Fate::RepliesLost(code));
    }

    /// Notes that the send of the last part failed: nothing of it was carried out.
    pub fn not_sent(&mut self, code: i32) {
        self.decide(Fate::NotSent(code));
    }

    fn decide(&mut self, fate: Fate) {
        if let Some(part) = self.parts.last_mut() {
            part.fate = fate;
        }
    }

    /// The refusals, in the order of the requests.
    pub fn refused(&self) -> &[(usize, Refusal)] {
        &self.refused
    }

    /// Calls `each` for every request that was certainly not carried out, in order.
    pub(crate) fn failures(&self, mut each: impl FnMut(usize, Failure)) {
        let mut refused = self.refused.iter().peekable();
        for Part { requests, fate, .. } in &self.parts {
            if let Fate::NotSent(code) = fate {
                requests.clone().for_each(|index| each(index, Failure::System(*code)));
            }
            while let Some((index, refusal)) = refused.next_if(|(index, _)| *index < requests.end) {
                each(*index, Failure::Refused(refusal.clone()));
            }
        }
    }

    /// Calls `each` for the ranges of requests of which nothing says what became of them. Those that
    /// are in no part are among them.
    pub fn uncertain(&self, mut each: impl FnMut(Range<usize>, Failure)) {
        for Part { requests, answered, fate } in &self.parts {
            let code = match (fate, answered) {
                (Fate::Delivered, true) | (Fate::NotSent(_), _) => continue,
                (Fate::Delivered, false) => Errno::NOBUFS.raw_os_error(),
                (Fate::RepliesLost(code), _) => *code,
            };
            // Replies come in order: the kernel works from front to back.
            let refused = self.refused.iter().map(|(index, _)| *index);
            let last = requests.end - usize::from(*answered);
            let mut start = requests.start;
            for index in refused.filter(|index| requests.contains(index)).chain([last]) {
                if start < index.min(last) {
                    each(start..index.min(last), Failure::Lost(code));
                }
                start = index + 1;
            }
        }
        let taken = self.parts.last().map_or(0, |part| part.requests.end);
        if taken < self.len() {
            each(taken..self.len(), Failure::Lost(Errno::CANCELED.raw_os_error()));
        }
    }
}

#[cfg(test)]
mod tests;
