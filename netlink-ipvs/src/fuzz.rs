//! What the fuzz target `ipvs` does with bytes, and the replay of its corpus.

use netlink_batch::{messages, Attributes, Dump};

use crate::{decode, Batch, Command, Limits, Report, VirtualServerKey};

/// Any number that the kernel may give to the family of IPVS: below 16 they have meanings of their own.
const FAMILY: u16 = 28;

/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// Reads the bytes as everything that comes from the kernel: a datagram of a dump, one with the
/// replies to a batch, the attributes of each kind of message.
///
/// # Panics
/// A request that was understood is not the same after it was written and read again.
pub fn ipvs(bytes: &[u8]) {
    let key = VirtualServerKey::new([10, 0, 0, 1].into(), 80, crate::Protocol::Tcp);
    let mut batch = Batch::new(FAMILY, Limits::default());
    for _ in 0..3 {
        batch.push(Command::DeleteVirtualServer(key));
    }
    batch.absorb(bytes);
    let mut report = Report::default();
    batch.conclude(&mut report);
    assert_eq!(report.sent, 3);

    for message in messages(bytes).map_while(Result::ok) {
        let _ = message.content();
        // No sequence number may be guessed: each one counts as ours.
        let _ = Dump::new(message.sequence).absorb(bytes, |message| {
            all(message.attributes(GENERIC_HEADER)?);
            Ok(())
        });
    }
    all(Attributes(bytes));
}

fn all(attributes: Attributes<'_>) {
    let _ = decode::virtual_server(attributes);
    for family in [crate::Family::Ipv4, crate::Family::Ipv6] {
        let _ = decode::real_server(attributes, family);
    }
    let _ = decode::timeouts(attributes);
    let _ = decode::info(attributes);
    let _ = decode::sync_daemon(attributes);
    for number in 0..=20 {
        let Ok(command) = decode::command(number, attributes) else { continue };
        let mut batch = Batch::new(FAMILY, Limits::default());
        batch.push(command);
        let mut again = messages(batch.bytes())
            .map(|message| decode::command(number, message?.attributes(GENERIC_HEADER)?));
        assert_eq!(again.next().and_then(Result::ok), Some(command));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_corpus_is_read() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ipvs");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            super::ipvs(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5, "{count} files");
    }
}
