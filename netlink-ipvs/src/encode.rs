//! The append-only writer: model → bytes at the end of the caller's buffer.
//!
//! Nothing is allocated for a message or an attribute, so that a batch of thousands costs one
//! buffer. Attributes come in the order in which ipvsadm(8) sends them, which makes its captured
//! messages goldens for ours (`tests/golden.rs`).

use std::net::IpAddr;

use netlink_batch::{Batch, PutAttributes};
use netlink_packet_generic::constants::{CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL};

use crate::wire::{self, attr, cmd, daemon, dest, fwd, svc, tunnel};
use crate::{
    Command, Family, Forwarding, RealServer, RealServerKey, SyncDaemon, SyncRole, Tunnel,
    VirtualServer, VirtualServerKey,
};

/// Appends the request that carries out `command`.
pub(crate) fn command(batch: &mut Batch, family_id: u16, command: &Command) {
    message(batch, family_id, command_number(command), |out| body(out, command));
}

/// Appends a request without attributes (`GET_INFO`, `GET_CONFIG`, `GET_DAEMON`, all virtual
/// servers).
pub(crate) fn get(batch: &mut Batch, family_id: u16, number: u8) {
    message(batch, family_id, number, |_| ());
}

/// Appends a request about a virtual server (itself, or its real servers).
pub(crate) fn get_of(batch: &mut Batch, family_id: u16, number: u8, key: &VirtualServerKey) {
    message(batch, family_id, number, |out| service(out, key));
}

/// Appends the request for the id of the IPVS family.
pub(crate) fn get_family(batch: &mut Batch) {
    message(batch, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, |out| {
        out.text(CTRL_ATTR_FAMILY_NAME, wire::FAMILY_NAME);
    });
}

/// The attributes of a command, without headers.
pub(crate) fn body(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::AddVirtualServer(server) | Command::SetVirtualServer(server) => {
            out.nested(attr::SERVICE, |out| {
                virtual_server_key(out, &server.key);
                virtual_server_config(out, server);
            });
        }
        Command::DeleteVirtualServer(key) | Command::Zero(Some(key)) => service(out, key),
        Command::AddRealServer(key, server) | Command::SetRealServer(key, server) => {
            service(out, key);
            out.nested(attr::DEST, |out| {
                real_server_key(out, &server.key);
                real_server_config(out, server);
            });
        }
        Command::DeleteRealServer(key, server) => {
            service(out, key);
            out.nested(attr::DEST, |out| real_server_key(out, server));
        }
        Command::SetTimeouts(timeouts) => {
            uint(out, attr::TIMEOUT_TCP, timeouts.tcp);
            uint(out, attr::TIMEOUT_TCP_FIN, timeouts.tcp_fin);
            uint(out, attr::TIMEOUT_UDP, timeouts.udp);
        }
        Command::Flush | Command::Zero(None) => {}
        Command::StartSync(wanted) => {
            out.nested(attr::DAEMON, |out| {
                role(out, wanted.role);
                sync_daemon_config(out, wanted);
            });
        }
        Command::StopSync(wanted) => out.nested(attr::DAEMON, |out| role(out, *wanted)),
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
        Command::StartSync(_) => cmd::NEW_DAEMON,
        Command::StopSync(_) => cmd::DEL_DAEMON,
    }
}

/// The bytes of both attributes of an address family.
fn family(family: Family) -> [u8; 2] {
    u16::from(family.number()).to_ne_bytes()
}

/// The netmask attribute's bytes: a mask for IPv4, a number for IPv6.
fn netmask(family: Family, prefix_len: u8) -> [u8; 4] {
    match family {
        Family::Ipv4 => {
            let host_bits = 32 - u32::from(prefix_len.min(32));
            u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes()
        }
        Family::Ipv6 => u32::from(prefix_len).to_ne_bytes(),
    }
}

/// The address attribute's 16 bytes.
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `IP_VS_CONN_F_*`, tunnel type, tunnel port and tunnel flags.
const fn forwarding_numbers(forwarding: Forwarding) -> (u8, u8, u16, u16) {
    match forwarding {
        Forwarding::Masquerade => (fwd::MASQ, 0, 0, 0),
        Forwarding::LocalNode => (fwd::LOCALNODE, 0, 0, 0),
        Forwarding::Direct => (fwd::DROUTE, 0, 0, 0),
        Forwarding::Bypass => (fwd::BYPASS, 0, 0, 0),
        Forwarding::Tunnel(Tunnel::Ipip) => (fwd::TUNNEL, tunnel::IPIP, 0, 0),
        Forwarding::Tunnel(Tunnel::Gue { port, flags }) => (fwd::TUNNEL, tunnel::GUE, port, flags),
        Forwarding::Tunnel(Tunnel::Gre { flags }) => (fwd::TUNNEL, tunnel::GRE, 0, flags),
        Forwarding::Tunnel(Tunnel::Other { kind, port, flags }) => (fwd::TUNNEL, kind, port, flags),
        Forwarding::Other(number) => (number, 0, 0, 0),
    }
}

/// Appends what identifies a virtual server.
pub(crate) fn service(out: &mut Vec<u8>, key: &VirtualServerKey) {
    out.nested(attr::SERVICE, |out| virtual_server_key(out, key));
}

fn virtual_server_key(out: &mut Vec<u8>, key: &VirtualServerKey) {
    out.attribute(svc::AF, &family(key.family()));
    match *key {
        VirtualServerKey::Address { address, port, protocol } => {
            out.attribute(svc::PROTOCOL, &protocol.number().to_ne_bytes());
            out.attribute(svc::ADDR, &address_bytes(address));
            out.attribute(svc::PORT, &port.to_be_bytes());
        }
        VirtualServerKey::FirewallMark { mark, .. } => uint(out, svc::FWMARK, mark),
    }
}

fn virtual_server_config(out: &mut Vec<u8>, server: &VirtualServer) {
    let config = &server.config;
    out.text(svc::SCHED_NAME, config.scheduler.as_bytes());
    if let Some(engine) = &config.persistence_engine {
        out.text(svc::PE_NAME, engine.as_bytes());
    }
    let mut flags = [0xff; 8]; // the second half is the mask: all of them are ours to set
    flags[..4].copy_from_slice(&config.flags.bits().to_ne_bytes());
    out.attribute(svc::FLAGS, &flags);
    uint(out, svc::TIMEOUT, config.timeout);
    out.attribute(svc::NETMASK, &netmask(server.key.family(), config.prefix_len));
}

fn real_server_key(out: &mut Vec<u8>, key: &RealServerKey) {
    out.attribute(dest::ADDR_FAMILY, &family(Family::of(key.address)));
    out.attribute(dest::ADDR, &address_bytes(key.address));
    out.attribute(dest::PORT, &key.port.to_be_bytes());
}

fn real_server_config(out: &mut Vec<u8>, server: &RealServer) {
    let config = &server.config;
    let (method, tunnel, port, flags) = forwarding_numbers(config.forwarding);
    uint(out, dest::FWD_METHOD, method.into());
    uint(out, dest::WEIGHT, config.weight);
    out.attribute(dest::TUN_TYPE, &[tunnel]);
    out.attribute(dest::TUN_PORT, &port.to_be_bytes());
    out.attribute(dest::TUN_FLAGS, &flags.to_ne_bytes());
    uint(out, dest::U_THRESH, config.upper_threshold);
    uint(out, dest::L_THRESH, config.lower_threshold);
}

fn role(out: &mut Vec<u8>, role: SyncRole) {
    let state = match role {
        SyncRole::Master => daemon::MASTER,
        SyncRole::Backup => daemon::BACKUP,
    };
    uint(out, daemon::STATE, state);
}

/// What the kernel has to choose is left out.
fn sync_daemon_config(out: &mut Vec<u8>, wanted: &SyncDaemon) {
    out.text(daemon::MCAST_IFN, wanted.interface.as_bytes());
    uint(out, daemon::SYNC_ID, wanted.sync_id);
    if wanted.max_message != 0 {
        out.attribute(daemon::SYNC_MAXLEN, &wanted.max_message.to_ne_bytes());
    }
    if wanted.port != 0 {
        out.attribute(daemon::MCAST_PORT, &wanted.port.to_ne_bytes());
    }
    if wanted.ttl != 0 {
        out.attribute(daemon::MCAST_TTL, &[wanted.ttl]);
    }
    match wanted.group {
        None => {}
        Some(IpAddr::V4(group)) => out.attribute(daemon::MCAST_GROUP, &group.octets()),
        Some(IpAddr::V6(group)) => out.attribute(daemon::MCAST_GROUP6, &group.octets()),
    }
}

/// Appends one message with a generic netlink header; `attributes` appends the rest.
fn message(batch: &mut Batch, family_id: u16, number: u8, attributes: impl FnOnce(&mut Vec<u8>)) {
    batch.push(family_id, 0, |out| {
        out.extend_from_slice(&[number, wire::FAMILY_VERSION, 0, 0]);
        attributes(out);
    });
}

fn uint(out: &mut Vec<u8>, kind: u16, value: u32) {
    out.attribute(kind, &value.to_ne_bytes());
}
