//! The append-only writer: model → bytes at the end of the caller's buffer.
//!
//! Nothing is allocated for a message or an attribute, so that a batch of thousands costs one
//! buffer. Attributes come in the order in which ipvsadm(8) sends them, which makes its captured
//! messages goldens for ours (`tests/golden.rs`).

use std::net::IpAddr;

use netlink_packet_core::{NLA_F_NESTED, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL};

use crate::wire::{self, attr, cmd, dest, fwd, svc, tunnel};
use crate::{
    Command, Family, Forwarding, RealServer, RealServerKey, Tunnel, VirtualServer, VirtualServerKey,
};

/// Bytes of `nlmsghdr` and of `genlmsghdr`.
const HEADERS: usize = 16 + 4;
/// Where `nlmsg_flags` is in a message.
const FLAGS_AT: usize = 6;

/// Appends the request that carries out `command`.
pub(crate) fn command(out: &mut Vec<u8>, family_id: u16, sequence: u32, command: &Command) {
    let number = command_number(command);
    message(out, family_id, number, NLM_F_REQUEST, sequence, |out| body(out, command));
}

/// Adds flags to the message that starts at `start`.
pub(crate) fn add_flags(out: &mut [u8], start: usize, flags: u16) {
    let at = start + FLAGS_AT;
    let present = u16::from_ne_bytes([out[at], out[at + 1]]);
    out[at..at + 2].copy_from_slice(&(present | flags).to_ne_bytes());
}

/// Appends a request without attributes (`GET_INFO`, `GET_CONFIG`).
pub(crate) fn get(out: &mut Vec<u8>, family_id: u16, sequence: u32, number: u8) {
    message(out, family_id, number, NLM_F_REQUEST, sequence, |_| ());
}

/// Appends the request for all virtual servers.
pub(crate) fn dump_virtual_servers(out: &mut Vec<u8>, family_id: u16, sequence: u32) {
    message(out, family_id, cmd::GET_SERVICE, NLM_F_REQUEST | NLM_F_DUMP, sequence, |_| ());
}

/// Appends the request for one virtual server.
pub(crate) fn get_virtual_server(
    out: &mut Vec<u8>,
    family_id: u16,
    sequence: u32,
    key: &VirtualServerKey,
) {
    message(out, family_id, cmd::GET_SERVICE, NLM_F_REQUEST, sequence, |out| service(out, key));
}

/// Appends the request for all real servers of one virtual server.
pub(crate) fn dump_real_servers(
    out: &mut Vec<u8>,
    family_id: u16,
    sequence: u32,
    key: &VirtualServerKey,
) {
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    message(out, family_id, cmd::GET_DEST, flags, sequence, |out| service(out, key));
}

/// Appends the request for the id of the IPVS family.
pub(crate) fn get_family(out: &mut Vec<u8>, sequence: u32) {
    message(out, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_REQUEST, sequence, |out| {
        string(out, CTRL_ATTR_FAMILY_NAME, wire::FAMILY_NAME);
    });
}

/// The attributes of a command, without headers.
pub(crate) fn body(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::AddVirtualServer(server) | Command::SetVirtualServer(server) => {
            nested(out, attr::SERVICE, |out| {
                virtual_server_key(out, &server.key);
                virtual_server_config(out, server);
            });
        }
        Command::DeleteVirtualServer(key) | Command::Zero(Some(key)) => service(out, key),
        Command::AddRealServer(key, server) | Command::SetRealServer(key, server) => {
            service(out, key);
            nested(out, attr::DEST, |out| {
                real_server_key(out, &server.key);
                real_server_config(out, server);
            });
        }
        Command::DeleteRealServer(key, server) => {
            service(out, key);
            nested(out, attr::DEST, |out| real_server_key(out, server));
        }
        Command::SetTimeouts(timeouts) => {
            uint(out, attr::TIMEOUT_TCP, timeouts.tcp);
            uint(out, attr::TIMEOUT_TCP_FIN, timeouts.tcp_fin);
            uint(out, attr::TIMEOUT_UDP, timeouts.udp);
        }
        Command::Flush | Command::Zero(None) => {}
    }
}

/// `IPVS_CMD_*` of a command.
pub(crate) fn command_number(command: &Command) -> u8 {
    match command {
        Command::AddVirtualServer(_) => cmd::NEW_SERVICE,
        Command::SetVirtualServer(_) => cmd::SET_SERVICE,
        Command::DeleteVirtualServer(_) => cmd::DEL_SERVICE,
        Command::AddRealServer(..) => cmd::NEW_DEST,
        Command::SetRealServer(..) => cmd::SET_DEST,
        Command::DeleteRealServer(..) => cmd::DEL_DEST,
        Command::SetTimeouts(_) => cmd::SET_CONFIG,
        Command::Flush => cmd::FLUSH,
        Command::Zero(_) => cmd::ZERO,
    }
}

/// The netmask attribute's bytes: a mask for IPv4, a number for IPv6.
pub(crate) fn netmask(family: Family, prefix_len: u8) -> [u8; 4] {
    match family {
        Family::Ipv4 => {
            let host_bits = 32 - u32::from(prefix_len.min(32));
            u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
        }
        Family::Ipv6 => u32::from(prefix_len).to_ne_bytes(),
    }
}

/// The address attribute's 16 bytes.
pub(crate) fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `AF_*` of a family.
pub(crate) const fn family_number(family: Family) -> u16 {
    match family {
        Family::Ipv4 => wire::AF_INET,
        Family::Ipv6 => wire::AF_INET6,
    }
}

/// `IP_VS_CONN_F_*`, tunnel type, tunnel port and tunnel flags.
pub(crate) const fn forwarding_numbers(forwarding: Forwarding) -> (u32, u8, u16, u16) {
    match forwarding {
        Forwarding::Masquerade => (fwd::MASQ, 0, 0, 0),
        Forwarding::LocalNode => (fwd::LOCALNODE, 0, 0, 0),
        Forwarding::Direct => (fwd::DROUTE, 0, 0, 0),
        Forwarding::Bypass => (fwd::BYPASS, 0, 0, 0),
        Forwarding::Tunnel(Tunnel::Ipip) => (fwd::TUNNEL, tunnel::IPIP, 0, 0),
        Forwarding::Tunnel(Tunnel::Gue { port, flags }) => (fwd::TUNNEL, tunnel::GUE, port, flags),
        Forwarding::Tunnel(Tunnel::Gre { flags }) => (fwd::TUNNEL, tunnel::GRE, 0, flags),
    }
}

fn service(out: &mut Vec<u8>, key: &VirtualServerKey) {
    nested(out, attr::SERVICE, |out| virtual_server_key(out, key));
}

fn virtual_server_key(out: &mut Vec<u8>, key: &VirtualServerKey) {
    attribute(out, svc::AF, &family_number(key.family()).to_ne_bytes());
    match *key {
        VirtualServerKey::Address { address, port, protocol } => {
            attribute(out, svc::PROTOCOL, &u16::from(protocol.number()).to_ne_bytes());
            attribute(out, svc::ADDR, &address_bytes(address));
            attribute(out, svc::PORT, &port.to_be_bytes());
        }
        VirtualServerKey::FirewallMark { mark, .. } => uint(out, svc::FWMARK, mark),
    }
}

fn virtual_server_config(out: &mut Vec<u8>, server: &VirtualServer) {
    let config = &server.config;
    string(out, svc::SCHED_NAME, config.scheduler.as_str());
    if let Some(engine) = &config.persistence_engine {
        string(out, svc::PE_NAME, engine.as_str());
    }
    let mut flags = [0xff; 8]; // the second half is the mask: all of them are ours to set
    flags[..4].copy_from_slice(&config.flags.bits().to_ne_bytes());
    attribute(out, svc::FLAGS, &flags);
    uint(out, svc::TIMEOUT, config.timeout);
    attribute(out, svc::NETMASK, &netmask(server.key.family(), config.prefix_len));
}

fn real_server_key(out: &mut Vec<u8>, key: &RealServerKey) {
    let family = family_number(Family::of(key.address));
    attribute(out, dest::ADDR_FAMILY, &family.to_ne_bytes());
    attribute(out, dest::ADDR, &address_bytes(key.address));
    attribute(out, dest::PORT, &key.port.to_be_bytes());
}

fn real_server_config(out: &mut Vec<u8>, server: &RealServer) {
    let config = &server.config;
    let (method, tunnel, port, flags) = forwarding_numbers(config.forwarding);
    uint(out, dest::FWD_METHOD, method);
    uint(out, dest::WEIGHT, config.weight);
    attribute(out, dest::TUN_TYPE, &[tunnel]);
    attribute(out, dest::TUN_PORT, &port.to_be_bytes());
    attribute(out, dest::TUN_FLAGS, &flags.to_ne_bytes());
    uint(out, dest::U_THRESH, config.upper_threshold);
    uint(out, dest::L_THRESH, config.lower_threshold);
}

/// Appends one netlink message with a generic netlink header; `attributes` appends the rest.
fn message(
    out: &mut Vec<u8>,
    family_id: u16,
    number: u8,
    flags: u16,
    sequence: u32,
    attributes: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    let mut headers = [0; HEADERS];
    headers[4..6].copy_from_slice(&family_id.to_ne_bytes());
    headers[6..8].copy_from_slice(&flags.to_ne_bytes());
    headers[8..12].copy_from_slice(&sequence.to_ne_bytes());
    headers[16] = number;
    headers[17] = wire::FAMILY_VERSION;
    out.extend_from_slice(&headers);
    attributes(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn nested(out: &mut Vec<u8>, kind: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    attribute(out, kind | NLA_F_NESTED, &[]);
    attributes(out);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

fn uint(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, &value.to_ne_bytes());
}

fn string(out: &mut Vec<u8>, kind: u16, text: &str) {
    attribute_header(out, kind, text.len() + 1);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    pad(out);
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute_header(out, kind, value.len());
    out.extend_from_slice(value);
    pad(out);
}

fn attribute_header(out: &mut Vec<u8>, kind: u16, value_len: usize) {
    out.extend_from_slice(&((value_len + 4) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
}

/// Attributes start at multiples of four bytes; messages do, so that `out`'s length tells.
fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}
