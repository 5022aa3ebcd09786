use netlink_packet_core::NLM_F_DUMP;
use proptest::prelude::*;

use super::*;
use crate::answers::reply;
use crate::{PutAttributes, Report};

/// So many requests of 24 bytes, numbered from `first`.
fn batch(count: usize, first: u32) -> Batch {
    let mut batch = Batch::default();
    batch.number(first);
    for index in 0..count {
        batch.push(20, 0, |out| out.attribute(1, &(index as u32).to_ne_bytes()));
    }
    batch
}

fn report(batch: &Batch) -> Report<Failure> {
    let mut report = Report::default();
    report.add(batch, |_, failure| Some(failure));
    report
}

fn refused(code: i32, text: Option<&str>) -> Failure {
    Failure::Refused(Refusal { code, text: text.map(Into::into) })
}

#[test]
fn requests_are_numbered_and_only_the_last_asks_for_an_answer() {
    let mut batch = batch(3, 7);
    batch.number(u32::MAX);
    batch.add_flags(0, NLM_F_DUMP);
    let bytes = batch.part(0..3).to_vec();
    let seen: Vec<_> = messages(&bytes).map(Result::unwrap).collect();
    assert_eq!(seen.iter().map(|m| m.sequence).collect::<Vec<_>>(), [u32::MAX, 0, 1]);
    let flags: Vec<_> = seen.iter().map(|message| message.flags).collect();
    assert_eq!(flags, [NLM_F_REQUEST | NLM_F_DUMP, NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_ACK]);
    assert!(seen.iter().all(|message| message.kind == 20));
}

#[test]
fn refusals_land_on_their_request_and_the_last_answer_ends_the_batch() {
    let first = u32::MAX - 1; // the sequence number wraps inside the batch
    let mut batch = batch(4, first);
    batch.part(0..4);
    assert!(!batch.absorb(&reply(first - 1, -17, None)));
    let mut datagram = reply(first.wrapping_add(2), -4103, Some("there already"));
    datagram.extend(reply(first.wrapping_add(3), 0, None));
    assert!(batch.absorb(&datagram));
    let seen = report(&batch);
    assert_eq!(seen.failed, [(2, refused(4103, Some("there already")))]);
    assert_eq!((seen.sent, seen.uncertain), (4, vec![]));
}

#[test]
fn what_was_so_already_counts_as_unchanged() {
    let mut batch = batch(3, 1);
    batch.part(0..3);
    assert!(batch.absorb(&[reply(1, -17, None), reply(3, -17, None)].concat()));
    let mut report = Report::<()> { sent: 10, ..Report::default() };
    report.add(&batch, |_, failure| (failure.code() != Some(17)).then_some(()));
    assert!(report.is_success());
    assert_eq!((report.sent, report.unchanged), (13, 2));
}

/// Each part has a fate of its own.
#[test]
fn parts_are_split_by_the_limits_and_told_apart() {
    let mut batch = batch(10, 1);
    let limits = Limits { bytes: 100, commands: 3 };
    assert_eq!(batch.part_within(0, limits), 3);
    assert_eq!(batch.part_within(0, Limits { bytes: 71, commands: 9 }), 2);
    assert_eq!(batch.part_within(0, Limits { bytes: 1, commands: 0 }), 1, "at least one");
    assert_eq!(batch.part_within(9, limits), 10);

    assert_eq!(batch.part(0..3).len(), 3 * 24);
    assert!(batch.absorb(&[reply(2, -1, None), reply(3, 0, None)].concat()));
    batch.part(3..6); // its replies are lost, but for one
    batch.lost(105);
    assert!(!batch.absorb(&reply(5, -2, None)));
    batch.part(6..8);
    batch.not_sent(90);
    batch.part(8..10);
    assert!(batch.absorb(&reply(10, -3, None)));
    let seen = report(&batch);
    let not_sent = || Failure::System(90);
    assert_eq!(
        seen.failed,
        [
            (1, refused(1, None)),
            (4, refused(2, None)),
            (6, not_sent()),
            (7, not_sent()),
            (9, refused(3, None))
        ]
    );
    assert_eq!(seen.uncertain, [3..4, 5..6]);
}

#[test]
fn a_part_that_is_too_long_is_taken_back() {
    let mut batch = batch(4, 1);
    batch.part(0..4);
    assert_eq!(batch.too_long(), 4 * 24);
    batch.part(0..2);
    let flags: Vec<_> = messages(batch.bytes()).map(|message| message.unwrap().flags).collect();
    assert_eq!(flags[1], NLM_F_REQUEST | NLM_F_ACK);
    assert_eq!(flags[3], NLM_F_REQUEST);
    assert!(batch.absorb(&reply(2, 0, None)), "the part ends with the second");
}

#[test]
fn without_permission_every_request_is_refused_and_nobody_waits() {
    let mut batch = batch(5, 5);
    batch.part(0..2);
    assert!(batch.absorb(&reply(6, 0, None)));
    batch.part(2..5);
    assert!(!batch.absorb(&reply(7, -1, None)));
    assert!(batch.is_not_permitted());
    let seen = report(&batch);
    assert_eq!(seen.failed, [2, 3, 4].map(|index| (index, refused(1, None))));
    assert_eq!(seen.uncertain, []);
}

#[test]
fn a_batch_is_full_before_its_replies_or_bytes_overflow() {
    let limits = Limits::default();
    let mut batch = Batch::default();
    while batch.has_room(limits) {
        batch.push(1, 0, |out| out.attribute(1, &[0; 10]));
    }
    assert_eq!(batch.len(), limits.commands);
    batch.clear();
    while batch.has_room(limits) {
        batch.push(1, 0, |out| out.attribute(1, &[0; 1000]));
    }
    assert!(batch.bytes().len() <= limits.bytes, "{}", batch.bytes().len());
    assert!(batch.bytes().len() > limits.bytes - 1100);
}

proptest! {
    /// Whatever comes back, every request has one outcome.
    #[test]
    fn outcomes_are_disjoint_and_in_order(
        count in 1_usize..20,
        most in 1_usize..8,
        codes in prop::collection::vec(prop::option::of(-5_i32..=0), 20),
        fates in prop::collection::vec(0_u8..3, 20),
    ) {
        let mut batch = batch(count, 100);
        let mut from = 0;
        for fate in &fates {
            if from == count { break }
            let to = batch.part_within(from, Limits { bytes: 1 << 16, commands: most });
            batch.part(from..to);
            match fate {
                0 => batch.not_sent(9),
                1 => batch.lost(105),
                _ => {}
            }
            if *fate > 0 {
                for (index, code) in codes.iter().enumerate().take(to).skip(from) {
                    if let Some(code) = code {
                        batch.absorb(&reply(100 + index as u32, *code, None));
                    }
                }
            }
            from = to;
        }
        let seen = report(&batch);
        let failed: Vec<_> = seen.failed.iter().map(|(index, _)| *index).collect();
        let uncertain: Vec<_> = seen.uncertain.iter().cloned().flatten().collect();
        prop_assert!(failed.is_sorted() && uncertain.is_sorted());
        prop_assert!(failed.iter().all(|index| !uncertain.contains(index) && *index < count));
        for (index, code) in codes.iter().enumerate().take(count) {
            if code.is_some_and(|code| code < 0) {
                prop_assert!(failed.contains(&index) || index >= from);
            }
        }
    }

    #[test]
    fn arbitrary_answers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut batch = batch(3, 1);
        batch.part(0..3);
        batch.absorb(&bytes);
        batch.is_not_permitted();
        let _ = report(&batch);
    }
}

#[test]
fn an_appended_batch_is_numbered_on_and_stays_what_it_was() {
    let (mut both, other) = (batch(2, 7), batch(3, 50));
    let before = other.bytes().to_vec();
    both.append(&other);
    assert_eq!(other.bytes(), before);
    let sequences = |batch: &Batch| -> Vec<_> {
        messages(batch.bytes()).map(|message| message.unwrap().sequence).collect()
    };
    assert_eq!(sequences(&both), [7, 8, 9, 10, 11]);
    let whole = batch(2, 0).bytes().len();
    assert_eq!(messages(&both.bytes()[whole..]).count(), 3);
    both.number(20);
    assert_eq!(sequences(&both), [20, 21, 22, 23, 24]);
    assert_eq!((both.index_of(19), both.index_of(24), both.index_of(25)), (None, Some(4), None));
}
