//! Attributes → model.
//!
//! Attributes that this version does not know are skipped; a known one of another length than it
//! can have is an error.

use std::time::Duration;

use netlink_batch::{Attribute, Attributes, Malformed};

use crate::wire::{self, chain, data, desc, element, elements, hook, rule, set, table, userdata};
use crate::{
    BaseChain, Chain, ChainKind, Data, DataType, Element, ElementEntry, Entry, Family, Hook,
    MapData, Policy, Rule, Set, SetFlags, Table, TableEntry, TableFlags, TableKey, Value, Verdict,
};

mod expression;

pub(crate) use expression::expression;

/// Reads a `NEWTABLE` message.
pub(crate) fn table(family: Family, of: Attributes<'_>) -> Result<TableEntry, Malformed> {
    let mut found = Table::new(TableKey::new(family, ""));
    let mut name = None;
    let (mut handle, mut owner) = (0, None);
    for attribute in of {
        let attribute = attribute?;
        match attribute.kind {
            table::NAME => name = Some(text(attribute)?),
            table::FLAGS => found.flags = TableFlags(attribute.be32()?),
            table::HANDLE => handle = be64(attribute)?,
            table::USERDATA => found.comment = comment(attribute, userdata::COMMENT),
            table::OWNER => owner = Some(attribute.be32()?),
            _ => {}
        }
    }
    found.key.name = name.ok_or(Malformed("table without a name"))?;
    Ok(TableEntry { table: found, handle, owner })
}

/// The name of the table of any object's message.
pub(crate) fn table_of(of: Attributes<'_>) -> Result<String, Malformed> {
    text(of.find(wire::OF_TABLE)?.ok_or(Malformed("object without a table"))?)
}

/// Reads a `NEWCHAIN` message.
pub(crate) fn chain(of: Attributes<'_>) -> Result<Entry<Chain>, Malformed> {
    let mut found = Chain::new("");
    let mut name = None;
    let (mut handle, mut kind, mut policy, mut place) =
        (0, ChainKind::Filter, Policy::Accept, None);
    for attribute in of {
        let attribute = attribute?;
        match attribute.kind {
            chain::NAME => name = Some(text(attribute)?),
            chain::HANDLE => handle = be64(attribute)?,
            chain::HOOK => place = Some(hook(attribute.nested())?),
            chain::TYPE => kind = ChainKind::from_name(attribute.text()?),
            chain::POLICY if attribute.be32()? == 0 => policy = Policy::Drop,
            chain::USERDATA => found.comment = comment(attribute, userdata::COMMENT),
            _ => {}
        }
    }
    found.name = name.ok_or(Malformed("chain without a name"))?;
    found.base = place.map(|(hook, priority)| BaseChain { kind, hook, priority, policy });
    Ok(Entry { object: found, handle })
}

fn hook(of: Attributes<'_>) -> Result<(Hook, i32), Malformed> {
    let number = of.find(hook::HOOKNUM)?.ok_or(Malformed("hook without a number"))?.be32()?;
    let priority = of.find(hook::PRIORITY)?.ok_or(Malformed("hook without a priority"))?;
    Ok((Hook::from_number(number), i32::from_be_bytes(priority.bytes()?)))
}

/// Reads a `NEWRULE` message.
pub(crate) fn rule(of: Attributes<'_>) -> Result<Entry<Rule>, Malformed> {
    let mut found = Rule::new("", []);
    let mut name = None;
    let mut handle = 0;
    for attribute in of {
        let attribute = attribute?;
        match attribute.kind {
            rule::CHAIN => name = Some(text(attribute)?),
            rule::HANDLE => handle = be64(attribute)?,
            rule::EXPRESSIONS => {
                let all = attribute.nested().into_iter();
                found.expressions = all.map(|each| expression(each?)).collect::<Result<_, _>>()?;
            }
            rule::USERDATA => found.comment = comment(attribute, userdata::COMMENT),
            _ => {}
        }
    }
    found.chain = name.ok_or(Malformed("rule without a chain"))?;
    Ok(Entry { object: found, handle })
}

/// Reads a `NEWSET` message.
pub(crate) fn set(of: Attributes<'_>) -> Result<Entry<Set>, Malformed> {
    let mut found = Set::new("", []);
    let mut name = None;
    let (mut handle, mut flags, mut key, mut object) = (0, 0, (0, 0), None);
    let (mut data_type, mut data_length) = (None, 0);
    for attribute in of {
        let attribute = attribute?;
        match attribute.kind {
            set::NAME => name = Some(text(attribute)?),
            set::HANDLE => handle = be64(attribute)?,
            set::FLAGS => flags = attribute.be32()?,
            set::KEY_TYPE => key.0 = attribute.be32()?,
            set::KEY_LEN => key.1 = attribute.be32()?,
            set::DATA_TYPE => data_type = Some(attribute.be32()?),
            set::DATA_LEN => data_length = attribute.be32()?,
            set::OBJ_TYPE => object = Some(attribute.be32()?),
            set::DESC => {
                let size = attribute.nested().find(desc::SIZE)?;
                found.size = size.map(|size| size.be32()).transpose()?;
            }
            set::TIMEOUT => found.timeout = Some(milliseconds(attribute)?),
            set::USERDATA => found.comment = comment(attribute, userdata::SET_COMMENT),
            _ => {}
        }
    }
    found.name = name.ok_or(Malformed("set without a name"))?;
    found.flags = SetFlags::from_bits(flags);
    found.key = types(key.0, key.1);
    found.data = match (data_type, object) {
        (_, Some(kind)) => Some(MapData::Object(kind)),
        (Some(set::VERDICT_TYPE), _) => Some(MapData::Verdict),
        (Some(number), _) => Some(MapData::Value(types(number, data_length))),
        (None, None) => None,
    };
    Ok(Entry { object: found, handle })
}

/// The types of which nft's number of a key or value is made, if they make up its length.
fn types(number: u32, length: u32) -> Vec<DataType> {
    let mut parts = Vec::new();
    let mut rest = number;
    while rest != 0 {
        let Some(part) = DataType::from_number(rest & 0x3f) else { break };
        parts.push(part);
        rest >>= 6;
    }
    parts.reverse();
    if rest == 0 && crate::set::length(&parts) == length && !parts.is_empty() {
        return parts;
    }
    vec![DataType::Other { number, length }]
}

/// Hands each element of a `NEWSETELEM` message to `each`.
pub(crate) fn elements(
    of: Attributes<'_>,
    mut each: impl FnMut(ElementEntry),
) -> Result<(), Malformed> {
    let Some(list) = of.find(elements::ELEMENTS)? else { return Ok(()) };
    for item in list.nested() {
        each(element(item?.nested())?);
    }
    Ok(())
}

fn element(of: Attributes<'_>) -> Result<ElementEntry, Malformed> {
    let mut found = Element::new(Value::default());
    let mut key = None;
    let mut expires_in = None;
    for attribute in of {
        let attribute = attribute?;
        match attribute.kind {
            element::KEY => key = Some(value(attribute)?),
            element::KEY_END => found.key_end = Some(value(attribute)?),
            element::DATA => found.data = mapped(attribute)?,
            element::FLAGS => {
                let flags = attribute.be32()?;
                found.interval_end = flags & element::INTERVAL_END != 0;
                found.catch_all = flags & element::CATCHALL != 0;
            }
            element::TIMEOUT => found.timeout = Some(milliseconds(attribute)?),
            element::EXPIRATION => expires_in = Some(milliseconds(attribute)?),
            element::USERDATA => found.comment = comment(attribute, userdata::COMMENT),
            _ => {}
        }
    }
    // Since Linux 6.12 the end of an interval has a timeout that says that it never expires.
    if found.interval_end && found.timeout == Some(Duration::ZERO) {
        found.timeout = None;
    }
    match key {
        Some(key) if !found.catch_all => found.key = key,
        None if !found.catch_all => return Err(Malformed("element without a key")),
        _ => {}
    }
    Ok(ElementEntry { element: found, expires_in })
}

fn mapped(of: Attribute<'_>) -> Result<Option<Data>, Malformed> {
    if let Some(decision) = of.nested().find(data::VERDICT)? {
        return Ok(Some(Data::Verdict(verdict(decision.nested())?)));
    }
    let found = of.nested().find(data::VALUE)?;
    Ok(found.map(|found| Data::Value(Value::new(found.value))))
}

fn value(of: Attribute<'_>) -> Result<Value, Malformed> {
    let found = of.nested().find(data::VALUE)?.ok_or(Malformed("data without a value"))?;
    Ok(Value::new(found.value))
}

fn verdict(of: Attributes<'_>) -> Result<Verdict, Malformed> {
    let code = of.find(data::CODE)?.ok_or(Malformed("verdict without a code"))?;
    let chain = of.find(data::CHAIN)?.map(text).transpose()?;
    Ok(Verdict::from_number(i32::from_be_bytes(code.bytes()?), chain))
}

fn text(attribute: Attribute<'_>) -> Result<String, Malformed> {
    attribute.text().map(str::to_owned)
}

fn be64(attribute: Attribute<'_>) -> Result<u64, Malformed> {
    attribute.bytes().map(u64::from_be_bytes)
}

fn milliseconds(attribute: Attribute<'_>) -> Result<Duration, Malformed> {
    be64(attribute).map(Duration::from_millis)
}

/// The comment in nft's userdata. Whatever else it may be is another program's own affair.
fn comment(attribute: Attribute<'_>, kind: u8) -> Option<String> {
    let mut bytes = attribute.value;
    while let [found, length, rest @ ..] = bytes {
        let value = rest.get(..usize::from(*length))?;
        if *found == kind {
            return std::str::from_utf8(value.strip_suffix(&[0])?).ok().map(str::to_owned);
        }
        bytes = rest.get(usize::from(*length)..)?;
    }
    None
}
