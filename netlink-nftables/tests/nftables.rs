//! Against this machine's kernel, each test in a network namespace of its own: User-mode Linux has no
//! nftables for IPv4 and IPv6. What was written is also read with `nft`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use netlink_nftables::{
    Chain, Change, Client, DataType, Element, ElementEntry, ErrorKind, Event, Expr, Family,
    MapData, Monitor, Object, Rule, Set, SetFlags, Table, TableKey, Transaction, Value, Verdict,
};

#[path = "../src/arbitrary.rs"]
mod arbitrary;
#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

mod golden {
    pub(crate) mod model;
}
mod kernel {
    mod atomicity;
    mod intervals;
    mod lists;
    mod monitor;
    mod timeouts;
}

/// Runs `body` in a namespace where this process may do everything.
fn in_namespace(test: &str, body: impl FnOnce()) {
    own_namespace::in_namespace(test, &["--map-root-user"], body);
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn key() -> TableKey {
    TableKey::new(Family::Ipv4, "test")
}

/// A transaction that begins with the table.
fn with_table() -> Transaction {
    let mut transaction = Transaction::new();
    transaction.add_table(&Table::new(key()));
    transaction
}

/// Frontends, one like the other: an address, a protocol, a port.
fn frontends(count: u32) -> impl Iterator<Item = Element> {
    (0..count).map(|number| {
        let address = Value::new((0x0a00_0000 + number).to_be_bytes());
        Element::of_parts(&[address, Value::byte(6), Value::port(80)])
    })
}

fn frontend_set() -> Set {
    Set::new("frontends", [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService])
}

fn elements(client: &mut Client, set: &str) -> BTreeSet<Element> {
    let list = client.elements(&key(), set).unwrap();
    list.into_iter().map(|entry| entry.element).collect()
}
