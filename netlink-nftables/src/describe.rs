//! What a request is, for people.

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{Attributes, Message};

use crate::wire::{chain, cmd, elements, rule, set, OF_TABLE};
use crate::Family;

/// `add set ip proxy pods`; `None` if it is not a request of nftables.
pub(crate) fn message(message: &Message<'_>) -> Option<String> {
    let header = Header::of(message).ok()?;
    let attributes = netfilter::attributes(message).ok()?;
    let (what, name) = match header.command {
        cmd::NEW_TABLE => ("add table", None),
        cmd::DEL_TABLE | cmd::DESTROY_TABLE => ("delete table", None),
        cmd::NEW_CHAIN => ("add chain", Some(chain::NAME)),
        cmd::DEL_CHAIN | cmd::DESTROY_CHAIN => ("delete chain", Some(chain::NAME)),
        cmd::NEW_RULE if has(attributes, rule::HANDLE) => ("replace rule in", Some(rule::CHAIN)),
        cmd::NEW_RULE => ("add rule to", Some(rule::CHAIN)),
        cmd::DEL_RULE | cmd::DESTROY_RULE if has(attributes, rule::HANDLE) => {
            ("delete rule from", Some(rule::CHAIN))
        }
        cmd::DEL_RULE | cmd::DESTROY_RULE => ("flush chain", Some(rule::CHAIN)),
        cmd::NEW_SET => ("add set", Some(set::NAME)),
        cmd::DEL_SET | cmd::DESTROY_SET => ("delete set", Some(set::NAME)),
        cmd::NEW_SETELEM => ("add elements to", Some(elements::SET)),
        cmd::DEL_SETELEM | cmd::DESTROY_SETELEM if has(attributes, elements::ELEMENTS) => {
            ("delete elements from", Some(elements::SET))
        }
        cmd::DEL_SETELEM | cmd::DESTROY_SETELEM => ("flush set", Some(elements::SET)),
        _ => return None,
    };
    let family = Family::from_number(header.family)?.name();
    let table = text(attributes, OF_TABLE)?;
    Some(match name.and_then(|kind| text(attributes, kind)) {
        Some(name) => format!("{what} {family} {table} {name}"),
        None => format!("{what} {family} {table}"),
    })
}

fn has(attributes: Attributes<'_>, kind: u16) -> bool {
    attributes.find(kind).is_ok_and(|found| found.is_some())
}

fn text(attributes: Attributes<'_>, kind: u16) -> Option<&str> {
    attributes.find(kind).ok()??.text().ok()
}
