//! What this crate writes is what `nft` sends for the same (`golden/*.nft`, captured into
//! `golden/*.hex` by `golden/capture`).
//!
//! These differences are known, and taken out of both sides: sequence numbers; the number of a set
//! beside its name (`nft` adds it where a set of the same transaction is used); the number that `nft`
//! gives each element of a list instead of `NFTA_LIST_ELEM`; what `nft` notes in a set's userdata about
//! how its types were declared; the operation of a bitwise expression, which `nft` writes in some
//! statements and leaves out in others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{messages, Attributes, Message};
use netlink_nftables::{Family, Set, Transaction};

mod golden {
    pub(crate) mod model;
}
use golden::model;

/// Kinds of attributes where the differences are, by the command of the message.
mod known {
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const NEW_SETELEM: u8 = 12;
    pub(crate) const SET_USERDATA: &[u16] = &[13];
    pub(crate) const LIST_SET_ID: &[u16] = &[4];
    pub(crate) const LIST: &[u16] = &[3];
    /// Entries of a set's userdata that this crate does not write.
    pub(crate) const DECLARATIONS: std::ops::RangeInclusive<u8> = 3..=6;
}

fn captured(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The messages between begin and end, as text without the known differences.
fn normal(bytes: &[u8]) -> Vec<String> {
    let of_nftables = |message: &Message<'_>| Header::of(message).unwrap().subsystem == 10;
    messages(bytes).map(Result::unwrap).filter(of_nftables).map(|message| text(&message)).collect()
}

fn text(message: &Message<'_>) -> String {
    let header = Header::of(message).unwrap();
    // The last request of a transaction asks for an acknowledgement only when it is sent.
    let mut out = format!("{header:?}\n");
    attributes(&mut out, header.command, &mut Vec::new(), netfilter::attributes(message).unwrap());
    out
}

fn attributes(out: &mut String, command: u8, path: &mut Vec<u16>, of: Attributes<'_>) {
    let expression = of.find(1).unwrap().map(|name| name.value.to_vec()).unwrap_or_default();
    for attribute in of {
        let attribute = attribute.unwrap();
        let nested = attribute.whole[3] & 0x80 != 0;
        let kind = match path.as_slice() {
            known::LIST if command == known::NEW_SETELEM => 1,
            _ => attribute.kind,
        };
        path.push(kind);
        let skipped = command == known::NEW_SETELEM && path == known::LIST_SET_ID;
        if nested {
            writeln!(out, "{:1$}{kind}:", "", path.len()).unwrap();
            let inside = attribute.nested();
            match expression.as_slice() {
                b"lookup\0" => without(out, command, path, inside, 4),
                b"bitwise\0" => without(out, command, path, inside, 6),
                _ => attributes(out, command, path, inside),
            }
        } else if !skipped {
            let value = match path.as_slice() {
                known::SET_USERDATA if command == known::NEW_SET => userdata(attribute.value),
                _ => attribute.value.to_vec(),
            };
            writeln!(out, "{:1$}{kind} = {value:02x?}", "", path.len()).unwrap();
        }
        path.pop();
    }
}

fn without(out: &mut String, command: u8, path: &mut Vec<u16>, of: Attributes<'_>, kind: u16) {
    let mut kept = Vec::new();
    for attribute in of.into_iter().map(Result::unwrap).filter(|each| each.kind != kind) {
        kept.extend_from_slice(attribute.whole);
        kept.resize(kept.len().next_multiple_of(4), 0);
    }
    attributes(out, command, path, Attributes(&kept));
}

fn userdata(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [kind, length, ..] = bytes {
        let (entry, rest) = bytes.split_at(2 + usize::from(*length));
        if !known::DECLARATIONS.contains(kind) {
            kept.extend_from_slice(entry);
        }
        bytes = rest;
    }
    kept
}

#[track_caller]
fn same(transaction: &Transaction, hex: &str) {
    let (ours, theirs) = (normal(transaction.bytes()), normal(&captured(hex)));
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours, theirs, "{:?}", transaction.describe(index));
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.len() > 4, "{} messages", ours.len());
}

#[test]
fn ipv4() {
    same(&model::ipv4(), include_str!("golden/ipv4.hex"));
}

#[test]
fn ipv6() {
    same(&model::ipv6(), include_str!("golden/ipv6.hex"));
}

#[test]
fn inet() {
    same(&model::inet(), include_str!("golden/inet.hex"));
}

#[test]
fn a_difference_is_seen() {
    let mut transaction = Transaction::new();
    let key = netlink_nftables::TableKey::new(Family::Ipv4, "golden");
    transaction.add_set(&key, &Set::new("a", [netlink_nftables::DataType::Mark]));
    let before = normal(transaction.bytes());
    transaction.clear();
    transaction.add_set(&key, &Set::new("a", [netlink_nftables::DataType::Ipv4Addr]));
    assert_ne!(before, normal(transaction.bytes()));
}
