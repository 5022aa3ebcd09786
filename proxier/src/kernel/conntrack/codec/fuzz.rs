//! Reads any bytes as what conntrack answers.

use netlink_batch::{Attributes, Batch, messages};

use super::{decode_flow, encode_delete};
use netlink_batch::netfilter::attributes;

/// The bytes as a datagram, and as the attributes of one message.
pub(crate) fn answers(bytes: &[u8]) {
    for message in messages(bytes).map_while(Result::ok) {
        if let Ok(body) = attributes(&message) {
            answer(body);
        }
    }
    answer(Attributes(bytes));
}

/// A flow that was understood is the same after it was written to be deleted.
fn answer(body: Attributes<'_>) {
    let Ok(Some(flow)) = decode_flow(body) else { return };
    let mut batch = Batch::default();
    encode_delete(&mut batch, &flow);
    let mut again = messages(batch.bytes()).map(|message| decode_flow(attributes(&message?)?));
    let again = again.next().and_then(Result::ok).flatten();
    assert_eq!(again, Some(flow));
}
