//! Reads any bytes as what conntrack answers.

use super::{decode_flow, encode_delete};
use crate::kernel::nfnetlink::{Messages, frames};

/// The bytes as a datagram, and as the attributes of one message.
pub(crate) fn answers(bytes: &[u8]) {
    for frame in frames(bytes) {
        if let Ok(body) = frame.body() {
            answer(body);
        }
    }
    answer(bytes);
}

/// A flow that was understood is the same after it was written to be deleted.
fn answer(body: &[u8]) {
    let Ok(Some(flow)) = decode_flow(body) else { return };
    let mut messages = Messages::default();
    encode_delete(&mut messages, &flow);
    let mut again = frames(messages.bytes()).map(|frame| decode_flow(frame.body()?));
    let again = again.next().and_then(Result::ok).flatten();
    assert_eq!(again, Some(flow));
}
