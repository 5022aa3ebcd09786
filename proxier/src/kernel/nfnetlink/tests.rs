use netlink_packet_core::{NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED};
use proptest::prelude::*;

use super::*;

const PLAIN: Header = Header { subsystem: 6, command: 9, flags: 0, family: 2 };

fn reply(sequence: u32, code: i32, text: Option<&str>) -> Vec<u8> {
    let mut body = code.to_ne_bytes().to_vec();
    body.extend(16_u32.to_ne_bytes());
    body.extend([0; 12]);
    let mut flags = NLM_F_CAPPED;
    if let Some(text) = text {
        flags |= NLM_F_ACK_TLVS;
        body.extend((text.len() as u16 + 5).to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(text.as_bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(NLMSG_ERROR.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn absorb(outcome: &mut Outcome, datagram: &[u8], first: u32, count: usize) -> bool {
    outcome.absorb(datagram, first, count, &mut |_| Ok(())).unwrap()
}

fn refusal(code: i32, text: Option<&str>) -> Refusal {
    Refusal { code, message: text.map(Into::into) }
}

#[test]
fn refusals_land_on_their_request_and_the_last_answer_ends_the_batch() {
    let first = u32::MAX - 1; // the sequence number wraps inside the batch
    let mut outcome = Outcome::default();
    assert!(!absorb(&mut outcome, &reply(first - 1, -17, None), first, 4));
    let mut datagram = reply(first.wrapping_add(2), -4103, Some("there already"));
    datagram.extend(reply(first.wrapping_add(3), 0, None));
    assert!(absorb(&mut outcome, &datagram, first, 4));
    assert_eq!(outcome.refused, [(2, refusal(4103, Some("there already")))]);
}

/// The kernel checks the capability once for all messages of a send and answers only the first.
#[test]
fn without_permission_every_request_is_refused_and_nobody_waits() {
    let mut outcome = Outcome::default();
    assert!(absorb(&mut outcome, &reply(5, -1, None), 5, 3));
    let all: Vec<_> = (0..3).map(|position| (position, refusal(1, None))).collect();
    assert_eq!(outcome.refused, all);
}

#[test]
fn batches_are_numbered_and_only_the_last_asks_for_an_answer() {
    let mut messages = Messages::default();
    for value in 0_u8..3 {
        messages.push(PLAIN, |m| m.nested(7, |m| m.attribute(1, &[value; 3])));
    }
    assert_eq!(messages.number(u32::MAX), 2);
    messages.ask_for_acknowledgement();
    let seen: Vec<_> = frames(messages.bytes()).collect();
    assert_eq!(seen.iter().map(|f| f.sequence).collect::<Vec<_>>(), [0, 1, 2]);
    let asks: Vec<_> = seen.iter().map(|f| f.flags & NLM_F_ACK != 0).collect();
    assert_eq!(asks, [false, false, true]);
    for (value, frame) in (0_u8..).zip(&seen) {
        assert_eq!(frame.kind, 6 << 8 | 9);
        let outer = attributes(frame.body().unwrap()).next().unwrap().unwrap();
        let inner = outer.nested().next().unwrap().unwrap();
        assert_eq!((outer.kind, inner.kind, inner.value), (7, 1, &[value; 3][..]));
    }
}

#[test]
fn a_batch_is_full_before_its_replies_or_bytes_overflow() {
    let mut messages = Messages::default();
    while !messages.is_full() {
        messages.push(PLAIN, |m| m.attribute(1, &[0; 10]));
    }
    assert_eq!(messages.len(), Messages::MOST);
    messages.clear();
    while !messages.is_full() {
        messages.push(PLAIN, |m| m.attribute(1, &[0; 1000]));
    }
    assert!(messages.bytes().len() < 70_000, "{}", messages.bytes().len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for frame in frames(&bytes) {
            let _ = frame.refusal();
            let _ = frame.body();
        }
        for attribute in attributes(&bytes).map_while(Result::ok) {
            let _ = (attribute.u8(), attribute.be16(), attribute.be32(), attribute.text());
            attribute.nested().for_each(drop);
        }
        let _ = Outcome::default().absorb(&bytes, 0, usize::MAX, &mut |_| Ok(()));
    }

    #[test]
    fn damaged_replies_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = reply(1, -22, Some("reason"));
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = Outcome::default().absorb(&bytes, 1, 1, &mut |_| Ok(()));
    }
}
