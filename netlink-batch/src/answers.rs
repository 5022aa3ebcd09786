//! What the kernel answers, for tests.

use netlink_packet_core::{NLMSG_ERROR, NLM_F_ACK_TLVS, NLM_F_CAPPED};

use crate::frame::HEADER;
use crate::PutAttributes;

/// A message.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// An acknowledgement (`code` 0) or a refusal of a request of `request` bytes.
pub(crate) fn answer(
    flags: u16,
    sequence: u32,
    code: i32,
    request: usize,
    text: Option<&str>,
) -> Vec<u8> {
    let mut payload = code.to_ne_bytes().to_vec();
    payload.extend((request as u32).to_ne_bytes());
    payload.resize(4 + HEADER, 0xaa);
    if flags & NLM_F_CAPPED == 0 {
        payload.resize(4 + request.next_multiple_of(4), 0xbb);
    }
    let Some(text) = text else { return message(NLMSG_ERROR, flags, sequence, &payload) };
    payload.attribute(2, &[1, 0, 0, 0]); // NLMSGERR_ATTR_OFFS
    payload.text(1, text);
    message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, sequence, &payload)
}

/// As on our sockets.
pub(crate) fn reply(sequence: u32, code: i32, text: Option<&str>) -> Vec<u8> {
    answer(NLM_F_CAPPED, sequence, code, 103, text)
}
