use netlink_batch::Malformed;

use super::*;
use crate::{decode, DataType, Family, Value, Verdict};

fn key() -> TableKey {
    TableKey::new(Family::Ipv4, "proxy")
}

fn numbered(count: u32) -> impl Iterator<Item = Element> {
    (0..count).map(|number| Element::new(Value::new(number.to_be_bytes())))
}

#[test]
fn many_elements_are_few_requests_and_none_is_lost() {
    let mut transaction = Transaction::new();
    transaction.add_set(&key(), &Set::new("all", [DataType::Ipv4Addr]));
    let requests = transaction.add_elements(&key(), "all", numbered(20_000));
    assert_eq!(requests.start, 1);
    assert_eq!(requests.end, transaction.len());
    assert!(requests.len() < 12, "{requests:?}");
    assert_eq!(transaction.too_long, None);
    let mut seen = Vec::new();
    for message in messages(transaction.bytes()).skip(1) {
        let attributes = netfilter::attributes(&message.unwrap()).unwrap();
        decode::elements(attributes, |entry| seen.push(entry.element)).unwrap();
    }
    assert!(seen.into_iter().eq(numbered(20_000)));
    assert_eq!(transaction.add_elements(&key(), "all", numbered(0)).len(), 0);
}

#[test]
fn a_request_says_what_it_is() {
    let mut transaction = Transaction::new();
    let rule = Rule::new("input", [Verdict::Accept.into()]);
    let expected = [
        (transaction.remove_table(&key()), "delete table ip proxy"),
        (transaction.add_chain(&key(), &Chain::new("input")), "add chain ip proxy input"),
        (transaction.append_rule(&key(), &rule), "add rule to ip proxy input"),
        (transaction.replace_rule(&key(), 7, &rule), "replace rule in ip proxy input"),
        (transaction.delete_rule(&key(), "input", 7), "delete rule from ip proxy input"),
        (transaction.flush_chain(&key(), "input"), "flush chain ip proxy input"),
        (transaction.flush_set(&key(), "pods"), "flush set ip proxy pods"),
        (
            transaction.destroy_elements(&key(), "pods", numbered(1)).start,
            "delete elements from ip proxy pods",
        ),
    ];
    for (index, text) in expected {
        assert_eq!(transaction.describe(index).as_deref(), Some(text));
    }
    assert_eq!(transaction.describe(0).as_deref(), Some("add table ip proxy"));
    assert_eq!(transaction.describe(transaction.len()), None);
}

#[test]
fn what_netlink_cannot_say_is_noted_and_forgotten_when_cleared() {
    let mut transaction = Transaction::new();
    transaction.flush_set(&key(), "pods");
    transaction.flush_set(&key(), &"x".repeat(70_000));
    transaction.flush_set(&key(), &"x".repeat(70_000));
    assert_eq!(transaction.too_long, Some(1));
    transaction.clear();
    assert_eq!((transaction.too_long, transaction.is_empty()), (None, true));
}

#[test]
fn each_set_has_a_number_of_its_own() {
    let mut transaction = Transaction::new();
    for name in ["one", "two"] {
        transaction.add_set(&key(), &Set::new(name, [DataType::Mark]));
    }
    let id = |message: Result<netlink_batch::Message<'_>, Malformed>| {
        let attributes = netfilter::attributes(&message.unwrap()).unwrap();
        attributes.find(set::ID).unwrap().unwrap().be32().unwrap()
    };
    assert_eq!(messages(transaction.bytes()).map(id).collect::<Vec<_>>(), [1, 2]);
}
