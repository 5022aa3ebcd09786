//! ipset's answers: versions, headers of sets, lists of elements.

use netlink_batch::{Attribute, Attributes, Malformed};
use netlink_ipvs::Family;

use super::element::{Element, decode_element};
use super::{Command, WITH_SKBINFO, attr, data, type_of};
use crate::dataplane::sets::SetType;
use crate::dataplane::split::EXPIRY;
use crate::kernel::ipset::SetHeader;

/// Lowest and highest version in an answer to `Protocol` (of the protocol) or `Type` (of the set
/// type's revisions).
pub(in crate::kernel::ipset) fn decode_versions(
    body: Attributes<'_>,
    command: Command,
) -> Result<(u8, u8), Malformed> {
    let kind = if command == Command::Type { attr::REVISION } else { attr::PROTOCOL };
    let (mut lowest, mut highest) = (None, None);
    for attribute in body {
        let attribute = attribute?;
        match attribute.kind {
            attr::LOWEST => lowest = Some(attribute.u8()?),
            found if found == kind => highest = Some(attribute.u8()?),
            _ => {}
        }
    }
    let highest = highest.ok_or(Malformed("answer: it has no version"))?;
    Ok((lowest.unwrap_or(highest), highest))
}

/// The header in a list message; `None` in one that continues the members of a set.
pub(in crate::kernel::ipset) fn decode_header(
    body: Attributes<'_>,
) -> Result<Option<SetHeader>, Malformed> {
    let mut header = SetHeader::default();
    let mut typed = false;
    for attribute in body {
        let attribute = attribute?;
        match attribute.kind {
            attr::SETNAME => attribute.text()?.clone_into(&mut header.name),
            attr::TYPENAME => {
                typed = true;
                attribute.text()?.clone_into(&mut header.type_name);
                header.set_type = type_of(&header.type_name);
            }
            attr::REVISION => header.revision = attribute.u8()?,
            attr::FAMILY => header.family = Family::from_number(attribute.u8()?),
            attr::DATA => {
                for option in attribute.nested() {
                    decode_option(&mut header, &option?)?;
                }
            }
            _ => {}
        }
    }
    if header.set_type == Some(SetType::HashIpPort) && header.expires && header.marks {
        header.set_type = Some(SetType::Expiring);
    } else {
        header.has_options |= header.expires || header.marks;
    }
    Ok(typed.then_some(header))
}

fn decode_option(header: &mut SetHeader, option: &Attribute<'_>) -> Result<(), Malformed> {
    match option.kind {
        data::HASHSIZE => header.hash_size = Some(option.be32()?),
        data::MAXELEM => header.capacity = Some(option.be32()?),
        data::ELEMENTS => header.members = Some(option.be32()?),
        data::REFERENCES => header.references = option.be32()?,
        data::MEMSIZE => header.memory = option.be32()?,
        data::PORT => header.ports.get_or_insert((0, 0)).0 = option.be16()?,
        data::PORT_TO => header.ports.get_or_insert((0, 0)).1 = option.be16()?,
        data::TIMEOUT => {
            header.expires = option.be32()? == EXPIRY.as_secs() as u32;
            header.has_options |= !header.expires;
        }
        data::CADT_FLAGS => {
            let flags = option.be32()?;
            header.marks = flags & WITH_SKBINFO != 0;
            header.has_options |= flags & !WITH_SKBINFO != 0;
        }
        // How the kernel keeps a hash; makes no difference to what it holds.
        data::INITVAL | data::BUCKETSIZE | data::RESIZE => {}
        // Such as a netmask, or what this program has not heard of.
        _ => header.has_options = true,
    }
    Ok(())
}

/// Hands every element in a list message to `found`; `None` is a type that is not used here.
pub(in crate::kernel::ipset) fn decode_elements(
    body: Attributes<'_>,
    set_type: Option<SetType>,
    mut found: impl FnMut(Element),
) -> Result<(), Malformed> {
    for attribute in body {
        let attribute = attribute?;
        if attribute.kind != attr::ADT {
            continue;
        }
        for element in attribute.nested() {
            let element = element?;
            if element.kind == attr::DATA {
                found(decode_element(set_type, &element)?);
            }
        }
    }
    Ok(())
}
