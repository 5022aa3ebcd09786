//! A [`State`] as the text of the tool that shows the same thing in the kernel.

mod columns;
pub mod json;
mod table;
mod wrap;

use std::fmt::Write as _;
use std::net::IpAddr;

use netlink_ipvs::{
    Family, Flags, Forwarding, Protocol, RealServer, Tunnel, VirtualServerConfig, VirtualServerKey,
};

use crate::dataplane::sets::{SetId, SetType};
use crate::dataplane::split::EXPIRY;
use crate::dataplane::{State, flag_names};
use crate::{iptables, nftables};

pub use columns::Columns;
pub use table::{Style, table};
pub use wrap::wrapped;

/// `IP_VS_TUNNEL_ENCAP_FLAG_CSUM` of `uapi/linux/ip_vs.h`.
const TUNNEL_CHECKSUM: u16 = 1;
/// `IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM`
const TUNNEL_REMOTE_CHECKSUM: u16 = 2;

/// What `ipvsadm-save -n` prints, sorted by line, real servers below their virtual server.
pub fn ipvsadm(state: &State) -> String {
    let mut blocks: Vec<(String, Vec<String>)> = state
        .virtual_servers
        .iter()
        .map(|(key, server)| {
            let service = service_argument(key);
            let mut lines: Vec<String> = server
                .real_servers
                .iter()
                .map(|real| format!("-a {service} -r {} {}", real.key, real_server_arguments(real)))
                .collect();
            lines.sort_unstable();
            (format!("-A {service} {}", virtual_server_arguments(key, &server.config)), lines)
        })
        .collect();
    blocks.sort_unstable();
    blocks.into_iter().fold(String::new(), |mut out, (head, lines)| {
        out.push_str(&head);
        out.push('\n');
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
        out
    })
}

/// `-t 10.96.0.1:443`, as `ipvsadm` takes it.
fn service_argument(key: &VirtualServerKey) -> String {
    match *key {
        VirtualServerKey::Address { address, port, protocol } => {
            let flag = match protocol {
                Protocol::Tcp => "-t".to_owned(),
                Protocol::Udp => "-u".to_owned(),
                Protocol::Sctp => "--sctp-service".to_owned(),
                // Which ipvsadm cannot be told.
                Protocol::Other(number) => format!("protocol {number}"),
            };
            format!("{flag} {}", std::net::SocketAddr::new(address, port))
        }
        VirtualServerKey::FirewallMark { mark, family: Family::Ipv4 } => format!("-f {mark}"),
        VirtualServerKey::FirewallMark { mark, family: Family::Ipv6 } => format!("-f {mark} -6"),
    }
}

fn virtual_server_arguments(key: &VirtualServerKey, config: &VirtualServerConfig) -> String {
    let mut out = format!("-s {}", config.scheduler);
    if config.flags.contains(Flags::PERSISTENT) {
        let _ = write!(out, " -p {}", config.timeout);
        let whole = VirtualServerConfig::new(config.scheduler, key.family()).prefix_len;
        if config.prefix_len != whole {
            match key.family() {
                Family::Ipv4 => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(config.prefix_len));
                    let _ = write!(out, " -M {}", std::net::Ipv4Addr::from(mask.unwrap_or(0)));
                }
                Family::Ipv6 => {
                    let _ = write!(out, " -M {}", config.prefix_len);
                }
            }
        }
    }
    if let Some(engine) = config.persistence_engine {
        let _ = write!(out, " --pe {engine}");
    }
    if config.flags.contains(Flags::ONE_PACKET) {
        out.push_str(" -o");
    }
    let flags = scheduler_flags(config);
    if !flags.is_empty() {
        let _ = write!(out, " -b {}", flags.join(","));
    }
    out
}

/// Scheduler flags by the names that `ipvsadm -b` has for them.
pub fn scheduler_flags(config: &VirtualServerConfig) -> Vec<&'static str> {
    flag_names(config.scheduler, config.flags)
}

/// Without thresholds, which `ipvsadm-save` leaves out.
fn real_server_arguments(real: &RealServer) -> String {
    let checksum = |flags: u16| match flags {
        TUNNEL_REMOTE_CHECKSUM => "--tun-remcsum",
        TUNNEL_CHECKSUM => "--tun-csum",
        _ => "--tun-nocsum",
    };
    let forwarding = match real.config.forwarding {
        Forwarding::Masquerade => "-m",
        Forwarding::Tunnel(_) => "-i",
        _ => "-g",
    };
    let tunnel = match real.config.forwarding {
        Forwarding::Tunnel(Tunnel::Ipip) => " --tun-type ipip".to_owned(),
        Forwarding::Tunnel(Tunnel::Gue { port, flags }) => {
            format!(" --tun-type gue --tun-port {port} {}", checksum(flags))
        }
        Forwarding::Tunnel(Tunnel::Gre { flags }) => {
            format!(" --tun-type gre {}", checksum(flags))
        }
        _ => String::new(),
    };
    format!("{forwarding} -w {}{tunnel}", real.config.weight)
}

/// The addresses on `kube-ipvs0`, one a line: `inet 10.96.0.1/32 scope global`.
pub fn addresses(state: &State) -> String {
    state.interface.addresses.iter().fold(String::new(), |mut out, address| {
        let _ = match address {
            IpAddr::V4(ip) => writeln!(out, "inet {ip}/32 scope global"),
            IpAddr::V6(ip) => writeln!(out, "inet6 {ip}/128 scope global"),
        };
        out
    })
}

/// What `ipset save` prints, sets and members in order, without the random hash parameters.
pub fn ipset(state: &State) -> String {
    let mut sets: Vec<(&SetId, _)> = state.sets.iter().collect();
    sets.sort_unstable_by_key(|(set, _)| set.name());
    sets.into_iter().fold(String::new(), |mut out, (set, content)| {
        let kind = set.set_type();
        let _ = write!(out, "create {set} {} ", kind.name());
        let _ = if kind == SetType::BitmapPort {
            writeln!(out, "range 0-65535")
        } else {
            let family = match set.family {
                Family::Ipv4 => "inet",
                Family::Ipv6 => "inet6",
            };
            let options = match kind {
                SetType::Expiring => format!(" timeout {} skbinfo", EXPIRY.as_secs()),
                _ => String::new(),
            };
            let capacity = content.capacity;
            writeln!(out, "family {family} hashsize 1024 maxelem {capacity}{options}")
        };
        for member in &content.members {
            let _ = writeln!(out, "add {set} {member}");
        }
        out
    })
}

/// The firewall rules of a family, as `iptables-save` prints our part of them.
pub fn firewall(state: &State, family: Family) -> String {
    state.firewall.get(&family).map(iptables::save_text).unwrap_or_default()
}

/// Our tables of nftables, as `nft list table` prints them.
pub fn nftables(state: &State) -> String {
    let families = [Family::Ipv4, Family::Ipv6];
    families.map(|family| nftables::table_text(state, family)).concat()
}

#[cfg(test)]
mod tests;
