//! Messages that a tool and the kernel exchanged, captured for tests: below `# COMMAND` the datagrams that
//! were sent (`>`) and received (`<`), in hexadecimal.

use netlink_batch::{Attributes, messages};

/// `struct nlmsghdr` and `struct nfgenmsg`
pub(super) const HEADERS: usize = 20;

/// The messages that were sent (`>`) or received (`<`) under a command of the captures.
pub(super) fn captured(captures: &str, command: &str, direction: char) -> Vec<Vec<u8>> {
    let section = captures
        .split("\n\n# ")
        .find_map(|section| section.strip_prefix(command)?.strip_prefix('\n'))
        .unwrap_or_else(|| panic!("no capture of {command}"));
    let datagrams = section.lines().filter_map(|line| line.strip_prefix(direction));
    let split = |datagram: &str| {
        let bytes = hex(datagram.trim());
        messages(&bytes).map(|message| message.unwrap().whole.to_vec()).collect::<Vec<_>>()
    };
    datagrams.flat_map(split).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// The attributes of a message.
pub(super) fn body(message: &[u8]) -> Attributes<'_> {
    Attributes(&message[HEADERS..])
}
