//! The dataplane in the kernel.

pub mod conntrack;
pub mod firewall;
pub mod ipset;
pub mod nfnetlink;
pub mod sysctl;

use std::error::Error as StdError;

/// An error and its causes as one line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
