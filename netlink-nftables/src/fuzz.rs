//! What the fuzz target `nftables` does with bytes, and the replay of its corpus.

use netlink_batch::netfilter;
use netlink_batch::{messages, Attributes, Malformed};

use crate::{decode, describe, monitor, Family, TableKey, Transaction};

/// Reads the bytes as everything that comes from the kernel: events, and the attributes of each kind
/// of object.
///
/// # Panics
/// An object that was understood is not the same after it was written and read again.
pub fn nftables(bytes: &[u8]) {
    for message in messages(bytes).map_while(Result::ok) {
        let _ = monitor::event(&message);
        let _ = describe::message(&message);
        if let Ok(attributes) = netfilter::attributes(&message) {
            all(attributes);
        }
    }
    all(Attributes(bytes));
}

fn all(of: Attributes<'_>) {
    let key = TableKey::new(Family::Ipv4, "table");
    if let Ok(entry) = decode::table(Family::Ipv4, of) {
        let table = entry.table;
        again(
            |all| {
                all.add_table(&table);
            },
            |of| assert_eq!(decode::table(Family::Ipv4, of).map(|it| it.table), Ok(table.clone())),
        );
    }
    if let Ok(entry) = decode::chain(of) {
        again(
            |all| {
                all.add_chain(&key, &entry.object);
            },
            |of| assert_eq!(decode::chain(of).map(|it| it.object).as_ref(), Ok(&entry.object)),
        );
    }
    if let Ok(entry) = decode::set(of) {
        again(
            |all| {
                all.add_set(&key, &entry.object);
            },
            |of| assert_eq!(decode::set(of).map(|it| it.object).as_ref(), Ok(&entry.object)),
        );
    }
    if let Ok(entry) = decode::rule(of) {
        again(
            |all| {
                all.append_rule(&key, &entry.object);
            },
            |of| assert_eq!(decode::rule(of).map(|it| it.object).as_ref(), Ok(&entry.object)),
        );
    }
    let mut elements = Vec::new();
    if decode::elements(of, |entry| elements.push(entry.element)).is_ok() {
        let mut read = Vec::new();
        again(
            |all| {
                all.add_elements(&key, "set", &elements);
            },
            |of| assert_eq!(decode::elements(of, |entry| read.push(entry.element)), Ok(())),
        );
        assert_eq!(read, elements);
    }
}

/// Writes requests, unless they are longer than netlink can say, and reads them.
fn again(write: impl FnOnce(&mut Transaction), mut read: impl FnMut(Attributes<'_>)) {
    let mut transaction = Transaction::new();
    write(&mut transaction);
    if transaction.too_long.is_none() {
        for message in messages(transaction.bytes()) {
            let of = message.and_then(|message| netfilter::attributes(&message));
            read(of.unwrap_or_else(|Malformed(what)| panic!("{what}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_is_read() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/nftables");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            super::nftables(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5, "{count} files");
    }
}
