//! Reads any bytes as what ipset answers.

use super::encode::encode_member;
use super::{Command, attr, decode_header, decode_members, decode_versions};
use crate::dataplane::sets::{Member, SetId, SetType};
use crate::kernel::ipset::SetSpec;
use crate::kernel::nfnetlink::{Header, Messages, frames};

/// The bytes as a datagram, and as the attributes of one message.
pub(crate) fn answers(bytes: &[u8]) {
    for frame in frames(bytes) {
        let _ = frame.refusal();
        if let Ok(body) = frame.body() {
            answer(body);
        }
    }
    answer(bytes);
}

fn answer(body: &[u8]) {
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
        let mut members = Vec::new();
        let _ = decode_members(body, set_type, |member| members.push(member));
        for member in members {
            assert_eq!(written_and_read(&member, set_type), [member]);
        }
    }
}

/// A member that was understood is the same after it was written.
fn written_and_read(member: &Member, set_type: SetType) -> Vec<Member> {
    let mut messages = Messages::default();
    messages.push(Header { subsystem: 6, command: 7, flags: 0, family: 2 }, |m| {
        m.nested(attr::ADT, |m| m.nested(attr::DATA, |m| encode_member(m, member)));
    });
    let mut found = Vec::new();
    for frame in frames(messages.bytes()) {
        let _ = decode_members(frame.body().unwrap_or_default(), set_type, |m| found.push(m));
    }
    found
}
