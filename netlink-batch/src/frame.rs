//! Framing: datagram → messages, borrowed from the caller's buffer.

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NLM_F_ACK_TLVS, NLM_F_CAPPED};

use crate::{Attributes, Refusal};

/// Bytes of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Below this number a message's type has the same meaning for every family.
const FIRST_OF_FAMILIES: u16 = 16;

/// Bytes that are not what their place in a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`
    pub kind: u16,
    /// `nlmsg_flags`
    pub flags: u16,
    /// `nlmsg_seq`
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
    /// Header and payload.
    pub whole: &'a [u8],
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A request was carried out, or refused (`NLMSG_ERROR`).
    Reply(Result<(), Refusal>),
    /// A dump is at its end; a refusal can come here as well (`NLMSG_DONE`).
    Done(Result<(), Refusal>),
    /// The family's own.
    Data,
    /// Nothing (`NLMSG_NOOP` and reserved numbers).
    Nothing,
}

/// The messages of a datagram. A malformed one is an error, and the last item.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut datagram);
        let header = bytes.first_chunk::<HEADER>();
        let whole = header.and_then(|header| bytes.get(..u32_at(header, 0) as usize));
        let (Some(header), Some(whole)) = (header, whole.filter(|whole| whole.len() >= HEADER))
        else {
            return Some(Err(Malformed("netlink header")));
        };
        datagram = bytes.get(whole.len().next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16_at(header, 4),
            flags: u16_at(header, 6),
            sequence: u32_at(header, 8),
            payload: &whole[HEADER..],
            whole,
        }))
    })
}

impl<'a> Message<'a> {
    /// What it says.
    pub fn content(&self) -> Result<Content, Malformed> {
        Ok(match self.kind {
            NLMSG_ERROR => Content::Reply(self.reply()?),
            NLMSG_DONE if self.payload.is_empty() => Content::Done(Ok(())),
            NLMSG_DONE => Content::Done(self.end()?),
            kind if kind < FIRST_OF_FAMILIES => Content::Nothing,
            _ => Content::Data,
        })
    }

    /// `nlmsg_pid`: in an answer the port of the socket that asked, in what the kernel tells a group
    /// that of the socket that caused it, 0 if none did ([`Socket::port`](crate::Socket::port)).
    pub fn port(&self) -> u32 {
        self.whole.first_chunk::<HEADER>().map_or(0, |header| u32_at(header, 12))
    }

    /// The attributes after a family's header of `header` bytes.
    pub fn attributes(&self, header: usize) -> Result<Attributes<'a>, Malformed> {
        self.payload.get(header..).map(Attributes).ok_or(Malformed("message header"))
    }

    /// `struct nlmsgerr`, then the extended acknowledgement's attributes.
    fn reply(&self) -> Result<Result<(), Refusal>, Malformed> {
        const REQUEST_AT: usize = 4;
        let code = self.payload.first_chunk().ok_or(Malformed("error message"))?;
        let request = self.payload.get(REQUEST_AT..).and_then(|rest| rest.first_chunk::<HEADER>());
        let request = request.ok_or(Malformed("error message"))?;
        // Without the socket option NETLINK_CAP_ACK the whole request comes back.
        let length =
            if self.flags & NLM_F_CAPPED == 0 { u32_at(request, 0) as usize } else { HEADER };
        Ok(self.result(*code, length.next_multiple_of(4).saturating_add(REQUEST_AT)))
    }

    /// A code, then the extended acknowledgement's attributes.
    fn end(&self) -> Result<Result<(), Refusal>, Malformed> {
        let code = self.payload.first_chunk().ok_or(Malformed("end of a dump"))?;
        Ok(self.result(*code, 4))
    }

    /// Error numbers are negative.
    fn result(&self, code: [u8; 4], text_at: usize) -> Result<(), Refusal> {
        match i32::from_ne_bytes(code) {
            0.. => Ok(()),
            code => Err(Refusal { code: code.saturating_neg(), text: self.text(text_at) }),
        }
    }

    /// `NLMSGERR_ATTR_MSG`, the kernel's sentence about an error.
    fn text(&self, at: usize) -> Option<Box<str>> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let text = Attributes(self.payload.get(at..)?).find(NLMSGERR_ATTR_MSG).ok()??;
        text.text().ok().map(Into::into)
    }
}

fn u16_at(bytes: &[u8; HEADER], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answers::{answer, message, reply};

    fn only(bytes: &[u8]) -> Result<Content, Malformed> {
        let mut all = messages(bytes);
        let first = all.next().unwrap().unwrap();
        assert!(all.next().is_none());
        first.content()
    }

    #[test]
    fn the_kernels_text_is_found_behind_the_request() {
        let refusal = Refusal { code: 22, text: Some("why".into()) };
        for (flags, request) in [(0, 16), (0, 103), (NLM_F_CAPPED, 103)] {
            let bytes = answer(flags, 5, -22, request, Some("why"));
            assert_eq!(only(&bytes), Ok(Content::Reply(Err(refusal.clone()))), "{flags} {request}");
        }
        let done = [&(-22_i32).to_ne_bytes()[..], &[8, 0, 1, 0, b'w', b'h', b'y', 0]].concat();
        let bytes = message(NLMSG_DONE, NLM_F_ACK_TLVS, 5, &done);
        assert_eq!(only(&bytes), Ok(Content::Done(Err(refusal))));
    }

    #[test]
    fn a_request_length_that_lies_loses_the_text_only() {
        let mut bytes = answer(0, 5, -22, 16, Some("why"));
        bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(only(&bytes), Ok(Content::Reply(Err(Refusal { code: 22, text: None }))));
    }

    #[test]
    fn any_number_is_read() {
        for (code, expected) in [(1, None), (0, None), (-1, Some(1)), (-4103, Some(4103))] {
            let bytes = reply(5, code, None);
            let Ok(Content::Reply(result)) = only(&bytes) else { panic!("{bytes:?}") };
            assert_eq!(result.err().map(|refusal| refusal.code), expected);
        }
        let Ok(Content::Reply(Err(refusal))) = only(&reply(5, i32::MIN, None)) else { panic!() };
        assert_eq!(refusal.code, i32::MAX);
        assert_eq!(only(&message(1, 0, 5, &[])), Ok(Content::Nothing));
        assert_eq!(only(&message(NLMSG_DONE, 0, 5, &[])), Ok(Content::Done(Ok(()))));
        assert_eq!(only(&message(NLMSG_ERROR, 0, 5, &[0; 4])), Err(Malformed("error message")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes).map_while(Result::ok) {
                let _ = message.content();
                let _ = message.attributes(4);
            }
            for attribute in Attributes(&bytes).into_iter().map_while(Result::ok) {
                let _ = (attribute.u8(), attribute.be16(), attribute.u32(), attribute.text());
                attribute.nested().into_iter().for_each(drop);
            }
        }

        #[test]
        fn damaged_replies_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut bytes = reply(1, -22, Some("reason"));
            let at = at.index(bytes.len());
            bytes[at] = value;
            for message in messages(&bytes).map_while(Result::ok) {
                let _ = message.content();
            }
        }
    }
}
