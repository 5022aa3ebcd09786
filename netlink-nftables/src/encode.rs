//! Model → attributes, in the order in which `nft` writes them.

use std::time::Duration;

use netlink_batch::PutAttributes;

use crate::wire::{chain, data, desc, element, hook, rule, set, table, userdata};
use crate::{
    BaseChain, Chain, Data, DataType, Element, MapData, Policy, Rule, Set, SetFlags, Table,
    TableKey, Value, Verdict,
};

mod expression;

pub(crate) use expression::expression;

/// The attributes of a new table.
pub(crate) fn table(out: &mut Vec<u8>, new: &Table) {
    out.text(table::NAME, &new.key.name);
    number(out, table::FLAGS, new.flags.0);
    comment(out, table::USERDATA, new.comment.as_deref());
}

/// The attributes of a new chain.
pub(crate) fn chain(out: &mut Vec<u8>, of: &TableKey, new: &Chain) {
    out.text(chain::TABLE, &of.name);
    out.text(chain::NAME, &new.name);
    if let Some(base) = &new.base {
        base_chain(out, base);
    }
    comment(out, chain::USERDATA, new.comment.as_deref());
}

fn base_chain(out: &mut Vec<u8>, base: &BaseChain) {
    out.text(chain::TYPE, base.kind.name());
    number(out, chain::POLICY, u32::from(base.policy == Policy::Accept));
    out.nested(chain::HOOK, |out| {
        number(out, hook::HOOKNUM, base.hook.number());
        out.attribute(hook::PRIORITY, &base.priority.to_be_bytes());
    });
}

/// The attributes of a new rule; `beside` is an attribute with the handle of another one.
pub(crate) fn rule(out: &mut Vec<u8>, of: &TableKey, new: &Rule, beside: Option<(u16, u64)>) {
    out.text(rule::TABLE, &of.name);
    out.text(rule::CHAIN, &new.chain);
    if let Some((kind, handle)) = beside {
        out.attribute(kind, &handle.to_be_bytes());
    }
    out.nested(rule::EXPRESSIONS, |out| {
        for each in &new.expressions {
            expression(out, each);
        }
    });
    comment(out, rule::USERDATA, new.comment.as_deref());
}

/// The attributes of a new set; `id` is unique within its transaction.
pub(crate) fn set(out: &mut Vec<u8>, of: &TableKey, new: &Set, id: u32) {
    out.text(set::TABLE, &of.name);
    out.text(set::NAME, &new.name);
    let concatenation = new.key.len() > 1 && new.flags.contains(SetFlags::INTERVAL);
    let map = if new.data.is_some() { set::MAP_FLAG } else { 0 };
    let concat = if concatenation { set::CONCAT_FLAG } else { 0 };
    number(out, set::FLAGS, new.flags.bits() | map | concat);
    number(out, set::KEY_TYPE, type_number(&new.key));
    number(out, set::KEY_LEN, new.key_length());
    match &new.data {
        Some(MapData::Verdict) => {
            number(out, set::DATA_TYPE, set::VERDICT_TYPE);
            number(out, set::DATA_LEN, 0);
        }
        Some(MapData::Value(types)) => {
            number(out, set::DATA_TYPE, type_number(types));
            number(out, set::DATA_LEN, crate::set::length(types));
        }
        Some(MapData::Object(kind)) => number(out, set::OBJ_TYPE, *kind),
        None => {}
    }
    number(out, set::ID, id);
    if new.size.is_some() || concatenation {
        out.nested(set::DESC, |out| {
            if let Some(size) = new.size {
                number(out, desc::SIZE, size);
            }
            if concatenation {
                fields(out, &new.key);
            }
        });
    }
    milliseconds(out, set::TIMEOUT, new.timeout);
    out.attribute(set::USERDATA, &set_userdata(new));
}

/// The lengths of the parts of a key, which the kernel needs to find one in all intervals.
fn fields(out: &mut Vec<u8>, key: &[DataType]) {
    out.nested(desc::CONCAT, |out| {
        for part in key {
            out.nested(crate::wire::LIST_ELEM, |out| {
                number(out, desc::FIELD_LEN, part.length());
            });
        }
    });
}

/// nft's number of a key or value: six bits a part.
fn type_number(types: &[DataType]) -> u32 {
    types.iter().fold(0, |number, part| number << 6 | part.number())
}

/// Tells `nft` the byte orders.
fn set_userdata(new: &Set) -> Vec<u8> {
    let mut out = Vec::new();
    let order = byte_order(&new.key).to_ne_bytes();
    entry(&mut out, userdata::SET_KEY_BYTEORDER, &order);
    if let Some(data) = &new.data {
        let order = match data {
            MapData::Value(types) => byte_order(types),
            MapData::Verdict | MapData::Object(_) => userdata::NO_ORDER,
        };
        entry(&mut out, userdata::SET_DATA_BYTEORDER, &order.to_ne_bytes());
    }
    if let Some(comment) = &new.comment {
        text_entry(&mut out, userdata::SET_COMMENT, comment);
    }
    out
}

fn byte_order(types: &[DataType]) -> u32 {
    let [only] = types else { return userdata::NO_ORDER };
    match only {
        DataType::Mark
        | DataType::InterfaceIndex
        | DataType::InterfaceName
        | DataType::EtherAddr => userdata::HOST_ORDER,
        DataType::Other { .. } => userdata::NO_ORDER,
        DataType::Ipv4Addr | DataType::Ipv6Addr | DataType::InetProto | DataType::InetService => {
            userdata::NETWORK_ORDER
        }
    }
}

/// The attributes of an element.
pub(crate) fn element(out: &mut Vec<u8>, new: &Element) {
    flags(out, new);
    milliseconds(out, element::TIMEOUT, new.timeout);
    keys(out, new);
    match &new.data {
        Some(Data::Verdict(decision)) => verdict(out, element::DATA, decision),
        Some(Data::Value(mapped)) => value(out, element::DATA, mapped),
        None => {}
    }
    comment(out, element::USERDATA, new.comment.as_deref());
}

/// The attributes of an element that name it.
pub(crate) fn element_key(out: &mut Vec<u8>, old: &Element) {
    flags(out, old);
    keys(out, old);
}

fn flags(out: &mut Vec<u8>, of: &Element) {
    let end = if of.interval_end { element::INTERVAL_END } else { 0 };
    let catch_all = if of.catch_all { element::CATCHALL } else { 0 };
    if end | catch_all != 0 {
        number(out, element::FLAGS, end | catch_all);
    }
}

fn keys(out: &mut Vec<u8>, of: &Element) {
    if !of.catch_all {
        value(out, element::KEY, &of.key);
    }
    if let Some(last) = &of.key_end {
        value(out, element::KEY_END, last);
    }
}

/// A nested value.
fn value(out: &mut Vec<u8>, kind: u16, value: &Value) {
    out.nested(kind, |out| out.attribute(data::VALUE, value.as_bytes()));
}

/// A nested verdict.
fn verdict(out: &mut Vec<u8>, kind: u16, verdict: &Verdict) {
    out.nested(kind, |out| {
        out.nested(data::VERDICT, |out| {
            out.attribute(data::CODE, &verdict.number().to_be_bytes());
            if let Verdict::Jump(chain) | Verdict::Goto(chain) = verdict {
                out.text(data::CHAIN, chain);
            }
        });
    });
}

#[inline]
fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    out.attribute(kind, &value.to_be_bytes());
}

fn milliseconds(out: &mut Vec<u8>, kind: u16, duration: Option<Duration>) {
    if let Some(duration) = duration {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        out.attribute(kind, &milliseconds.to_be_bytes());
    }
}

fn comment(out: &mut Vec<u8>, kind: u16, comment: Option<&str>) {
    if let Some(comment) = comment {
        let mut bytes = Vec::with_capacity(comment.len() + 3);
        text_entry(&mut bytes, userdata::COMMENT, comment);
        out.attribute(kind, &bytes);
    }
}

fn text_entry(out: &mut Vec<u8>, kind: u8, text: &str) {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    entry(out, kind, &bytes);
}

/// What is longer than the length can say makes the whole longer than the 256 bytes that the kernel
/// takes.
fn entry(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.extend_from_slice(&[kind, value.len() as u8]);
    out.extend_from_slice(value);
}
