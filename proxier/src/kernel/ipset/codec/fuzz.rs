//! Reads any bytes as what ipset answers.

use netlink_batch::{Attributes, Batch, PutAttributes, messages};

use super::encode::encode_member;
use super::{Command, Element, attr, decode_elements, decode_header, decode_versions};
use crate::dataplane::sets::{SetId, SetType};
use crate::kernel::ipset::SetSpec;
use netlink_batch::netfilter::{Header, attributes, push};

/// The bytes as a datagram, and as the attributes of one message.
pub(crate) fn answers(bytes: &[u8]) {
    for message in messages(bytes).map_while(Result::ok) {
        let _ = message.content();
        if let Ok(body) = attributes(&message) {
            answer(body);
        }
    }
    answer(Attributes(bytes));
}

fn answer(body: Attributes<'_>) {
    let _ = decode_versions(body, Command::Protocol);
    let _ = decode_versions(body, Command::Type);
    if let Ok(Some(header)) = decode_header(body) {
        for set in SetId::all() {
            let _ = SetSpec::of(set, 1).matches(&header);
        }
    }
    for set_type in [
        SetType::HashIp,
        SetType::HashIpPort,
        SetType::HashIpPortIp,
        SetType::HashIpPortNet,
        SetType::BitmapPort,
    ] {
        let mut elements = Vec::new();
        let _ = decode_elements(body, Some(set_type), |element| elements.push(element));
        for element in elements {
            assert_eq!(written_and_read(&element, set_type), [element]);
        }
    }
}

/// An element is the same after it was written.
fn written_and_read(element: &Element, set_type: SetType) -> Vec<Element> {
    let _ = match element {
        Element::Foreign(foreign) => foreign.to_string(),
        Element::Member(member) => member.to_string(),
    };
    let mut batch = Batch::default();
    push(&mut batch, Header { subsystem: 6, command: 7, flags: 0, family: 2 }, |m| {
        m.nested(attr::ADT, |m| {
            m.nested(attr::DATA, |m| match element {
                Element::Member(member) => encode_member(m, member),
                Element::Foreign(foreign) => m.extend(foreign.attributes()),
            });
        });
    });
    let mut found = Vec::new();
    for message in messages(batch.bytes()).map_while(Result::ok) {
        let body = attributes(&message).unwrap_or_default();
        let _ = decode_elements(body, Some(set_type), |element| found.push(element));
    }
    found
}
