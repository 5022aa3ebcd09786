//! Requests of which the kernel carries out all or none.

use netlink_packet_core::NLM_F_ACK;
use rustix::io::Errno;
use rustix::net::{sockopt, RecvFlags};

use super::{system, Socket, SEND_OVERHEAD};
use crate::frame::{messages, Content};
use crate::{Batch, Failure, Malformed, Refusal};

impl Socket {
    /// Sends requests of which the kernel carries out all or none, and waits for the reply to the
    /// one at `acknowledged`, or to the first one, which stands for all. Returns the refusals by
    /// their place, and what went wrong besides.
    pub(crate) fn all_or_none(
        &mut self,
        batch: &mut Batch,
        acknowledged: usize,
    ) -> (Vec<(usize, Refusal)>, Option<Failure>) {
        let mut refused = Vec::new();
        let sent = self.finish_dump().and_then(|()| self.send_whole(batch, acknowledged));
        if let Err(failure) = sent {
            return (refused, Some(failure));
        }
        let mut lost = None;
        let mut wait = RecvFlags::empty();
        loop {
            match self.receive(wait) {
                Ok(()) => match replies(&self.datagram, batch, acknowledged, &mut refused) {
                    Ok(false) => {}
                    Ok(true) => return (refused, lost),
                    Err(malformed) => return (refused, Some(malformed.into())),
                },
                // The kernel has finished: what arrived is in the buffer.
                Err(errno @ Errno::NOBUFS) => {
                    lost = Some(Failure::Lost(errno.raw_os_error()));
                    wait = RecvFlags::DONTWAIT;
                }
                Err(errno) => {
                    return (refused, lost.or(Some(Failure::Lost(errno.raw_os_error()))));
                }
            }
        }
    }

    /// Sends all of a batch at once. The send buffer grows to hold it as far as that is permitted.
    fn send_whole(&mut self, batch: &mut Batch, acknowledged: usize) -> Result<(), Failure> {
        batch.number(self.sequence);
        self.sequence = self.sequence.wrapping_add(batch.len() as u32);
        batch.add_flags(acknowledged, NLM_F_ACK);
        let mut sent = self.send(batch.bytes());
        if sent == Err(Errno::MSGSIZE) {
            // It cannot be split.
            let size = batch.bytes().len() + SEND_OVERHEAD;
            if sockopt::set_socket_send_buffer_size_force(&self.raw, size).is_err() {
                let _ = sockopt::set_socket_send_buffer_size(&self.raw, size);
            }
            sent = self.send(batch.bytes());
        }
        sent.map_err(system)
    }
}

/// Adds the refusals in a datagram to the others. Whether no more will come: the request at
/// `acknowledged` has its reply. A refusal of the first request may come instead of all others.
fn replies(
    datagram: &[u8],
    batch: &Batch,
    acknowledged: usize,
    refused: &mut Vec<(usize, Refusal)>,
) -> Result<bool, Malformed> {
    let mut end = false;
    for message in messages(datagram) {
        let message = message?;
        let index = batch.index_of(message.sequence);
        let (Some(index), Content::Reply(result)) = (index, message.content()?) else { continue };
        end |= index == acknowledged || (index == 0 && result.is_err());
        refused.extend(result.err().map(|refusal| (index, refusal)));
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::reply;

    /// Begin, three requests and end, numbered from 7; the last request is acknowledged.
    fn taken(datagram: &[u8]) -> (Result<bool, Malformed>, Vec<(usize, i32)>) {
        let mut batch = Batch::default();
        batch.number(7);
        for _ in 0..5 {
            batch.push(20, 0, |_| ());
        }
        let mut refused = Vec::new();
        let end = replies(datagram, &batch, 3, &mut refused);
        (end, refused.into_iter().map(|(index, refusal)| (index, refusal.code)).collect())
    }

    #[test]
    fn all_refusals_are_taken_up_to_the_answer_of_the_last_request() {
        let first = [reply(8, -2, None), reply(9, -17, None)].concat();
        assert_eq!(taken(&first), (Ok(false), vec![(1, 2), (2, 17)]));
        let last = [reply(9, -17, None), reply(10, 0, None)].concat();
        assert_eq!(taken(&last), (Ok(true), vec![(2, 17)]));
        assert_eq!(taken(&reply(10, -2, None)), (Ok(true), vec![(3, 2)]));
    }

    #[test]
    fn a_refusal_of_the_begin_stands_for_all_and_others_answers_for_nothing() {
        assert_eq!(taken(&reply(7, -85, None)), (Ok(true), vec![(0, 85)]));
        for other in [6, 12] {
            assert_eq!(taken(&reply(other, -1, None)), (Ok(false), vec![]));
        }
        assert!(taken(&[1, 2, 3]).0.is_err());
    }
}
