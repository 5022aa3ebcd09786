//! Netlink framing: datagram → messages → attributes, borrowed from the caller's buffer.
//!
//! Any bytes may come in: what does not fit its announced length is [`Malformed`], nothing panics.

use std::ops::ControlFlow;

use netlink_packet_core::{NLA_TYPE_MASK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLMSG_DONE, NLMSG_ERROR};

use rustix::io::Errno;

use crate::wire;

const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;

/// Bytes that are not what their place in a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// One message of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) content: Content<'a>,
}

/// What a message says.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// The request was carried out, or refused.
    Reply(Reply<'a>),
    /// The dump is at its end; a refusal can come here as well.
    Done(Reply<'a>),
    /// A generic netlink message, without its header: the request tells what it is.
    Data(Attributes<'a>),
}

/// The kernel's answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    /// Why it was refused; none for success.
    pub(crate) errno: Option<Errno>,
    /// Text of the extended acknowledgement.
    pub(crate) text: Option<&'a str>,
}

/// Calls `each` for every message of a datagram until it breaks.
pub(crate) fn messages<'a, B>(
    mut datagram: &'a [u8],
    mut each: impl FnMut(Message<'a>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, Malformed> {
    while !datagram.is_empty() {
        let header: &[u8; MESSAGE_HEADER] =
            datagram.first_chunk().ok_or(Malformed("netlink header"))?;
        let length = u32_at(header, 0) as usize;
        let payload = datagram.get(MESSAGE_HEADER..length).ok_or(Malformed("netlink header"))?;
        let kind = u16_at(header, 4);
        let flags = u16_at(header, 6);
        let content = match kind {
            NLMSG_ERROR => Content::Reply(error_reply(flags, payload)?),
            NLMSG_DONE => Content::Done(done_reply(flags, payload)?),
            _ if kind < 16 => {
                datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
                continue; // NLMSG_NOOP, NLMSG_OVERRUN and reserved ones
            }
            _ => Content::Data(Attributes(
                payload.get(GENERIC_HEADER..).ok_or(Malformed("generic netlink header"))?,
            )),
        };
        let message = Message { flags, sequence: u32_at(header, 8), content };
        if let ControlFlow::Break(value) = each(message) {
            return Ok(ControlFlow::Break(value));
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(()))
}

/// Attributes one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

/// Iterator over [`Attributes`]: number without flag bits, and value. Ends after the first
/// malformed one.
#[derive(Debug)]
pub(crate) struct AttributesIter<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this kind.
    pub(crate) fn find(self, kind: u16) -> Result<Option<&'a [u8]>, Malformed> {
        for attribute in self {
            match attribute? {
                (found, value) if found == kind => return Ok(Some(value)),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;
    type IntoIter = AttributesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        AttributesIter(self.0)
    }
}

impl<'a> Iterator for AttributesIter<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(header) = bytes.first_chunk::<ATTRIBUTE_HEADER>() else {
            return Some(Err(Malformed("attribute header")));
        };
        let length = usize::from(u16_at(header, 0));
        let Some(value) = bytes.get(ATTRIBUTE_HEADER..length) else {
            return Some(Err(Malformed("attribute length")));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16_at(header, 2) & NLA_TYPE_MASK, value)))
    }
}

/// `struct nlmsgerr`, then the extended acknowledgement's attributes.
fn error_reply(flags: u16, payload: &[u8]) -> Result<Reply<'_>, Malformed> {
    const REQUEST_AT: usize = 4;
    let code = payload.first_chunk().ok_or(Malformed("error message"))?;
    let request = payload.get(REQUEST_AT..REQUEST_AT + MESSAGE_HEADER);
    let request = request.ok_or(Malformed("error message"))?;
    // Without the socket option NETLINK_CAP_ACK the whole request comes back.
    let request_len =
        if flags & NLM_F_CAPPED == 0 { u32_at(request, 0) as usize } else { MESSAGE_HEADER };
    let text_at = request_len.next_multiple_of(4).saturating_add(REQUEST_AT);
    Ok(Reply { errno: errno(*code)?, text: text(flags, payload.get(text_at..)) })
}

/// The end of a dump: empty, or a code, then the extended acknowledgement's attributes.
fn done_reply(flags: u16, payload: &[u8]) -> Result<Reply<'_>, Malformed> {
    if payload.is_empty() {
        return Ok(Reply { errno: None, text: None });
    }
    let code = payload.first_chunk().ok_or(Malformed("end of a dump"))?;
    Ok(Reply { errno: errno(*code)?, text: text(flags, payload.get(4..)) })
}

/// Error numbers are negative and small (`MAX_ERRNO` in include/linux/err.h); [`Errno`] takes no others.
fn errno(code: [u8; 4]) -> Result<Option<Errno>, Malformed> {
    match i32::from_ne_bytes(code) {
        0.. => Ok(None),
        code @ -4095..0 => Ok(Some(Errno::from_raw_os_error(-code))),
        _ => Err(Malformed("error number")),
    }
}

fn text(flags: u16, attributes: Option<&[u8]>) -> Option<&str> {
    let attributes = attributes.filter(|_| flags & NLM_F_ACK_TLVS != 0)?;
    let bytes = Attributes(attributes).find(wire::NLMSGERR_ATTR_MSG).ok()??;
    std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0'))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A refusal of a request of `request` bytes, with the text "why".
    fn refusal(flags: u16, request: usize) -> Vec<u8> {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend((request as u32).to_ne_bytes());
        payload.resize(4 + MESSAGE_HEADER, 0xaa);
        if flags & NLM_F_CAPPED == 0 {
            payload.resize(4 + request.next_multiple_of(4), 0xbb);
        }
        payload.extend([8, 0, 2, 0, 1, 0, 0, 0]); // NLMSGERR_ATTR_OFFS
        payload.extend([8, 0, 1, 0, b'w', b'h', b'y', 0]);
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend((flags | NLM_F_ACK_TLVS).to_ne_bytes());
        bytes.extend(5u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_kernels_text_is_found_behind_the_request() {
        for (flags, request) in [(0, 16), (0, 103), (NLM_F_CAPPED, 103)] {
            let bytes = refusal(flags, request);
            let mut seen = Vec::new();
            let flow: ControlFlow<()> = messages(&bytes, |message| {
                let Content::Reply(reply) = message.content else { panic!("{message:?}") };
                seen.push((message.sequence, reply));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(flow.is_continue());
            assert_eq!(
                seen,
                [(5, Reply { errno: Some(Errno::INVAL), text: Some("why") })],
                "{flags} {request}"
            );
        }
    }

    #[test]
    fn a_number_that_is_no_errors_is_malformed() {
        for (code, expected) in [
            (1, Ok(None)),
            (0, Ok(None)),
            (-1, Ok(Some(Errno::PERM))),
            (-4095, Ok(Some(Errno::from_raw_os_error(4095)))),
            (-4096, Err(Malformed("error number"))),
            (i32::MIN, Err(Malformed("error number"))),
        ] {
            let mut bytes = refusal(0, 16);
            bytes[16..20].copy_from_slice(&i32::to_ne_bytes(code));
            let seen = messages(&bytes, |message| {
                let Content::Reply(reply) = message.content else { panic!("{message:?}") };
                ControlFlow::Break(reply.errno)
            });
            let seen = seen.map(|flow| flow.break_value().flatten());
            assert_eq!(seen, expected, "{code}");
        }
    }

    #[test]
    fn a_request_length_that_lies_loses_the_text_only() {
        let mut bytes = refusal(0, 16);
        bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        let flow = messages(&bytes, |message| {
            ControlFlow::Break(matches!(
                message.content,
                Content::Reply(Reply { errno: Some(Errno::INVAL), text: None })
            ))
        });
        assert_eq!(flow, Ok(ControlFlow::Break(true)));
    }
}
