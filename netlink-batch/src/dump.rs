//! Reading one list: many datagrams, then an end.

use netlink_packet_core::NLM_F_DUMP_INTR;

use crate::frame::{messages, Content};
use crate::{Failure, Malformed, Message};

/// A list that is being read, without a socket: see [`Socket::begin`](crate::Socket::begin).
#[derive(Debug)]
pub struct Dump {
    sequence: u32,
    interrupted: bool,
    malformed: Option<Malformed>,
}

impl Dump {
    /// Of the request with this number.
    pub fn new(sequence: u32) -> Self {
        Self { sequence, interrupted: false, malformed: None }
    }

    /// The number of its request.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Notes that a datagram was lost.
    pub fn lost(&mut self) {
        self.interrupted = true;
    }

    /// Notes that what was received makes no sense.
    pub(crate) fn malformed(&mut self, malformed: Malformed) {
        self.malformed = Some(malformed);
    }

    /// Takes a received datagram and hands each message of the list to `each`. `Some` at the end:
    /// whether the list changed meanwhile (`NLM_F_DUMP_INTR`).
    ///
    /// After a malformed message it reads on to the end: the kernel takes no other dump before.
    pub fn absorb(
        &mut self,
        datagram: &[u8],
        mut each: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Option<Result<bool, Failure>> {
        for message in messages(datagram) {
            let content = message.and_then(|message| {
                if message.sequence != self.sequence {
                    return Ok(Content::Nothing);
                }
                self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let content = message.content()?;
                if content == Content::Data && self.malformed.is_none() {
                    each(&message)?;
                }
                Ok(content)
            });
            match content {
                Ok(Content::Reply(result) | Content::Done(result)) => {
                    let malformed = self.malformed.map_or(Ok(()), |what| Err(what.into()));
                    let end = result.map_err(Failure::from).and(malformed);
                    return Some(end.map(|()| self.interrupted));
                }
                Ok(_) => {}
                Err(malformed) => self.malformed = Some(malformed),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NLM_F_MULTIPART};

    use super::*;
    use crate::answers::message;
    use crate::Refusal;

    const SEQUENCE: u32 = 9;

    fn entry(flags: u16, sequence: u32, value: u8) -> Vec<u8> {
        message(0x1c, flags | NLM_F_MULTIPART, sequence, &[value, 0, 0, 0])
    }

    fn done(flags: u16, code: i32) -> Vec<u8> {
        message(NLMSG_DONE, flags | NLM_F_MULTIPART, SEQUENCE, &code.to_ne_bytes())
    }

    /// The values that came, and the ends that each datagram brought. 99 is a malformed one.
    fn absorb_all(datagrams: &[Vec<u8>]) -> (Vec<u8>, Vec<Option<Result<bool, Failure>>>) {
        let mut dump = Dump::new(SEQUENCE);
        let mut values = Vec::new();
        let mut take = |message: &Message<'_>| match message.payload[0] {
            99 => Err(Malformed("value")),
            value => {
                values.push(value);
                Ok(())
            }
        };
        let ends = datagrams.iter().map(|datagram| dump.absorb(datagram, &mut take)).collect();
        (values, ends)
    }

    #[test]
    fn entries_of_several_datagrams_come_together() {
        let first = [entry(0, SEQUENCE, 1), entry(0, SEQUENCE - 1, 9), entry(0, SEQUENCE, 2)];
        let last = [entry(0, SEQUENCE, 3), done(0, 0)];
        let seen = absorb_all(&[first.concat(), last.concat()]);
        assert_eq!(seen, (vec![1, 2, 3], vec![None, Some(Ok(false))]));
    }

    #[test]
    fn interruption_shows_on_an_entry_or_at_the_end() {
        for (on_entry, on_end) in [(NLM_F_DUMP_INTR, 0), (0, NLM_F_DUMP_INTR)] {
            let (_, ends) = absorb_all(&[entry(on_entry, SEQUENCE, 1), done(on_end, 0)]);
            assert_eq!(ends, [None, Some(Ok(true))]);
        }
        let mut dump = Dump::new(SEQUENCE);
        dump.lost();
        assert_eq!(dump.absorb(&done(0, 0), |_| Ok(())), Some(Ok(true)));
    }

    #[test]
    fn a_refusal_may_come_instead_or_at_the_end() {
        let refused = || Some(Err(Failure::Refused(Refusal { code: 1, text: None })));
        assert_eq!(absorb_all(&[done(0, -1)]).1, [refused()]);
        let mut error = (-1_i32).to_ne_bytes().to_vec();
        error.extend([0; 16]);
        assert_eq!(absorb_all(&[message(NLMSG_ERROR, 0, SEQUENCE, &error)]).1, [refused()]);
    }

    #[test]
    fn a_malformed_entry_fails_the_dump_at_its_end() {
        let datagrams = [entry(0, SEQUENCE, 99), entry(0, SEQUENCE, 2), done(0, 0)];
        let end = Some(Err(Failure::Malformed(Malformed("value"))));
        assert_eq!(absorb_all(&datagrams), (vec![], vec![None, None, end]));
    }
}
