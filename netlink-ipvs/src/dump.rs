//! Collecting one dump (many datagrams, then an end) without knowing a socket.

use std::ops::ControlFlow;

use netlink_packet_core::NLM_F_DUMP_INTR;
use rustix::io::Errno;

use crate::error::Cause;
use crate::frame::{self, Attributes, Content, Malformed};

/// What has come of a dump so far.
#[derive(Debug)]
pub(crate) struct Dump<T> {
    sequence: u32,
    entries: Vec<T>,
    interrupted: bool,
    malformed: Option<Malformed>,
}

/// The end of a dump.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End<T> {
    /// All entries, as they were at one time.
    Complete(Vec<T>),
    /// The table changed meanwhile (`NLM_F_DUMP_INTR`): ask again.
    Interrupted,
    /// The kernel refused, or sent what makes no sense.
    Failed(Cause),
}

impl<T> Dump<T> {
    pub(crate) fn new(sequence: u32) -> Self {
        Self { sequence, entries: Vec::new(), interrupted: false, malformed: None }
    }

    /// Notes that a datagram was lost.
    pub(crate) fn lost(&mut self) {
        self.interrupted = true;
    }

    /// The entries that came since the last time.
    pub(crate) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.entries)
    }

    /// Takes a received datagram; `Some` at the end of the dump. `decode` gives `None` for an
    /// entry that is to be left out.
    ///
    /// After a malformed entry it reads on to the end: the kernel takes no other dump before.
    pub(crate) fn absorb(
        &mut self,
        datagram: &[u8],
        decode: impl Fn(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Option<End<T>> {
        let flow = frame::messages(datagram, |message| {
            if message.sequence != self.sequence {
                return ControlFlow::Continue(());
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.content {
                Content::Data(attributes) => {
                    match decode(attributes) {
                        Ok(entry) => self.entries.extend(entry),
                        Err(error) => self.malformed = Some(error),
                    }
                    ControlFlow::Continue(())
                }
                Content::Reply(reply) | Content::Done(reply) => {
                    ControlFlow::Break((reply.errno, reply.text.map(Box::<str>::from)))
                }
            }
        });
        match flow {
            Ok(ControlFlow::Continue(())) => None,
            Ok(ControlFlow::Break((errno, text))) => Some(self.end(errno, text)),
            Err(error) => {
                self.malformed = Some(error);
                None
            }
        }
    }

    fn end(&mut self, errno: Option<Errno>, text: Option<Box<str>>) -> End<T> {
        if let Some(errno) = errno {
            End::Failed(Cause::Refused(errno, text))
        } else if let Some(Malformed(what)) = self.malformed {
            End::Failed(Cause::Malformed(what))
        } else if self.interrupted {
            End::Interrupted
        } else {
            End::Complete(self.take())
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR};

    use super::*;
    use crate::wire::attr;

    const SEQUENCE: u32 = 9;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_MULTIPART).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    /// An entry that says `value`.
    fn entry(flags: u16, sequence: u32, value: u32) -> Vec<u8> {
        let mut payload = vec![1, 1, 0, 0, 8, 0, attr::TIMEOUT_UDP as u8, 0];
        payload.extend(value.to_ne_bytes());
        message(0x1c, flags, sequence, &payload)
    }

    fn done(flags: u16, code: i32) -> Vec<u8> {
        message(NLMSG_DONE, flags, SEQUENCE, &code.to_ne_bytes())
    }

    fn udp_timeout(attributes: Attributes<'_>) -> Result<Option<u32>, Malformed> {
        crate::decode::timeouts(attributes).map(|timeouts| Some(timeouts.udp))
    }

    fn absorb_all(datagrams: &[Vec<u8>]) -> Vec<Option<End<u32>>> {
        let mut dump = Dump::new(SEQUENCE);
        datagrams.iter().map(|datagram| dump.absorb(datagram, udp_timeout)).collect()
    }

    #[test]
    fn entries_of_several_datagrams_come_together() {
        let first = [entry(0, SEQUENCE, 1), entry(0, SEQUENCE - 1, 99), entry(0, SEQUENCE, 2)];
        let last = [entry(0, SEQUENCE, 3), done(0, 0)];
        assert_eq!(
            absorb_all(&[first.concat(), last.concat()]),
            [None, Some(End::Complete(vec![1, 2, 3]))]
        );
    }

    #[test]
    fn interruption_shows_on_an_entry_or_at_the_end() {
        for (on_entry, on_end) in [(NLM_F_DUMP_INTR, 0), (0, NLM_F_DUMP_INTR)] {
            let datagrams = [entry(on_entry, SEQUENCE, 1), done(on_end, 0)];
            assert_eq!(absorb_all(&datagrams), [None, Some(End::Interrupted)]);
        }
    }

    #[test]
    fn a_refusal_may_come_instead_or_at_the_end() {
        let refused = || Some(End::Failed(Cause::Refused(Errno::PERM, None)));
        assert_eq!(absorb_all(&[done(0, -1)]), [refused()]);
        let mut error = (-1i32).to_ne_bytes().to_vec();
        error.extend([0; 16]);
        assert_eq!(absorb_all(&[message(NLMSG_ERROR, 0, SEQUENCE, &error)]), [refused()]);
    }

    #[test]
    fn a_malformed_entry_fails_the_dump_at_its_end() {
        let mut bad = entry(0, SEQUENCE, 1);
        bad[16 + 4] = 7; // the value's length is three now
        assert_eq!(
            absorb_all(&[bad, entry(0, SEQUENCE, 2), done(0, 0)]),
            [None, None, Some(End::Failed(Cause::Malformed("number")))]
        );
    }
}
