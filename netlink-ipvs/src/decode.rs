//! Attributes → model.
//!
//! Attributes that this version does not know are skipped. What IPVS may hold but the model
//! cannot say (a protocol or forwarding method of a later kernel) is `None`, so that one foreign
//! entry does not hide all others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_batch::{Attribute, Attributes, Malformed};

use crate::wire::{self, attr, cmd, dest, fwd, info, stats, svc, tunnel};
use crate::{
    Command, Connections, Family, Flags, Forwarding, Info, Protocol, RealServer, RealServerConfig,
    RealServerEntry, RealServerKey, Scheduler, Stats, Timeouts, Tunnel, VirtualServer,
    VirtualServerConfig, VirtualServerEntry, VirtualServerKey,
};

/// Reads a `NEW_SERVICE` message.
pub(crate) fn virtual_server(
    attributes: Attributes<'_>,
) -> Result<Option<VirtualServerEntry>, Malformed> {
    let service = ServiceFields::of(attributes)?;
    let Some(server) = service.server()? else { return Ok(None) };
    Ok(Some(VirtualServerEntry { server, stats: service.stats }))
}

/// Reads a `NEW_DEST` message; `family` is the virtual server's, for kernels before 3.18.
pub(crate) fn real_server(
    attributes: Attributes<'_>,
    family: Family,
) -> Result<Option<RealServerEntry>, Malformed> {
    let dest = DestinationFields::of(attributes)?;
    let Some(server) = dest.server(family)? else { return Ok(None) };
    Ok(Some(RealServerEntry { server, connections: dest.connections, stats: dest.stats }))
}

/// Reads a `SET_CONFIG` message.
pub(crate) fn timeouts(attributes: Attributes<'_>) -> Result<Timeouts, Malformed> {
    let mut timeouts = Timeouts::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            attr::TIMEOUT_TCP => timeouts.tcp = attribute.u32()?,
            attr::TIMEOUT_TCP_FIN => timeouts.tcp_fin = attribute.u32()?,
            attr::TIMEOUT_UDP => timeouts.udp = attribute.u32()?,
            _ => {}
        }
    }
    Ok(timeouts)
}

/// Reads a `SET_INFO` message.
pub(crate) fn info(attributes: Attributes<'_>) -> Result<Info, Malformed> {
    let mut found = Info { version: (0, 0, 0), connection_table_size: 0 };
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            info::VERSION => {
                let [_, major, minor, patch] = attribute.u32()?.to_be_bytes();
                found.version = (major, minor, patch);
            }
            info::CONN_TAB_SIZE => found.connection_table_size = attribute.u32()?,
            _ => {}
        }
    }
    Ok(found)
}

/// Reads a request: what [`crate::encode::command`] wrote, or another program.
pub(crate) fn command(
    number: u8,
    attributes: Attributes<'_>,
) -> Result<Option<Command>, Malformed> {
    let server = || ServiceFields::of(attributes)?.server();
    let key = || ServiceFields::of(attributes)?.key();
    let real = || -> Result<Option<(VirtualServerKey, RealServer)>, Malformed> {
        let Some(key) = key()? else { return Ok(None) };
        let real = DestinationFields::of(attributes)?.server(key.family())?;
        Ok(real.map(|real| (key, real)))
    };
    Ok(match number {
        cmd::NEW_SERVICE => server()?.map(Command::AddVirtualServer),
        cmd::SET_SERVICE => server()?.map(Command::SetVirtualServer),
        cmd::DEL_SERVICE => key()?.map(Command::DeleteVirtualServer),
        cmd::NEW_DEST => real()?.map(|(key, real)| Command::AddRealServer(key, real)),
        cmd::SET_DEST => real()?.map(|(key, real)| Command::SetRealServer(key, real)),
        cmd::DEL_DEST => match key()? {
            Some(key) => DestinationFields::of(attributes)?
                .key(key.family())?
                .map(|real| Command::DeleteRealServer(key, real)),
            None => None,
        },
        cmd::SET_CONFIG => Some(Command::SetTimeouts(timeouts(attributes)?)),
        cmd::FLUSH => Some(Command::Flush),
        cmd::ZERO if attributes.find(attr::SERVICE)?.is_none() => Some(Command::Zero(None)),
        cmd::ZERO => key()?.map(|key| Command::Zero(Some(key))),
        _ => None,
    })
}

/// `IPVS_SVC_ATTR_*` as they came.
#[derive(Default)]
struct ServiceFields<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    mark: Option<u32>,
    scheduler: Option<&'a [u8]>,
    persistence_engine: Option<&'a [u8]>,
    flags: u32,
    timeout: u32,
    netmask: Option<[u8; 4]>,
    stats: Stats,
}

impl<'a> ServiceFields<'a> {
    fn of(attributes: Attributes<'a>) -> Result<Self, Malformed> {
        let service =
            attributes.find(attr::SERVICE)?.ok_or(Malformed("message without virtual server"))?;
        let mut fields = Self::default();
        let mut has_stats64 = false;
        for attribute in service.nested() {
            let attribute = attribute?;
            match attribute.kind {
                svc::AF => fields.family = Some(attribute.u16()?),
                svc::PROTOCOL => fields.protocol = Some(attribute.u16()?),
                svc::ADDR => fields.address = Some(attribute.value),
                svc::PORT => fields.port = Some(attribute.be16()?),
                svc::FWMARK => fields.mark = Some(attribute.u32()?),
                svc::SCHED_NAME => fields.scheduler = Some(attribute.value),
                svc::PE_NAME => fields.persistence_engine = Some(attribute.value),
                svc::FLAGS => {
                    let bits = attribute.value.first_chunk().ok_or(Malformed("flags"))?;
                    fields.flags = u32::from_ne_bytes(*bits);
                }
                svc::TIMEOUT => fields.timeout = attribute.u32()?,
                svc::NETMASK => fields.netmask = Some(attribute.bytes()?),
                svc::STATS if !has_stats64 => fields.stats = counters(&attribute)?,
                svc::STATS64 => {
                    fields.stats = counters(&attribute)?;
                    has_stats64 = true;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn key(&self) -> Result<Option<VirtualServerKey>, Malformed> {
        let number = self.family.ok_or(Malformed("virtual server without family"))?;
        let Some(family) = family(number) else { return Ok(None) };
        if let Some(mark) = self.mark {
            return Ok(Some(VirtualServerKey::FirewallMark { mark, family }));
        }
        let (Some(number), Some(bytes), Some(port)) = (self.protocol, self.address, self.port)
        else {
            return Err(Malformed("virtual server without address"));
        };
        let Some(protocol) = Protocol::from_number(number) else { return Ok(None) };
        Ok(Some(VirtualServerKey::Address { address: address(family, bytes)?, port, protocol }))
    }

    fn server(&self) -> Result<Option<VirtualServer>, Malformed> {
        let Some(key) = self.key()? else { return Ok(None) };
        let scheduler = self.scheduler.ok_or(Malformed("virtual server without scheduler"))?;
        let family = key.family();
        let mut config = VirtualServerConfig::new(name(scheduler)?, family);
        config.flags = Flags::from_bits(self.flags);
        config.timeout = self.timeout;
        if let Some(netmask) = self.netmask {
            config.prefix_len = prefix_len(family, netmask);
        }
        config.persistence_engine = self.persistence_engine.map(name).transpose()?;
        Ok(Some(VirtualServer { key, config }))
    }
}

/// `IPVS_DEST_ATTR_*` as they came.
#[derive(Default)]
struct DestinationFields<'a> {
    family: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    method: u32,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    tunnel: u8,
    tunnel_port: u16,
    tunnel_flags: u16,
    connections: Connections,
    stats: Stats,
}

impl<'a> DestinationFields<'a> {
    fn of(attributes: Attributes<'a>) -> Result<Self, Malformed> {
        let destination =
            attributes.find(attr::DEST)?.ok_or(Malformed("message without real server"))?;
        let mut fields = Self::default();
        let mut has_stats64 = false;
        for attribute in destination.nested() {
            let attribute = attribute?;
            match attribute.kind {
                dest::ADDR_FAMILY => fields.family = Some(attribute.u16()?),
                dest::ADDR => fields.address = Some(attribute.value),
                dest::PORT => fields.port = Some(attribute.be16()?),
                dest::FWD_METHOD => fields.method = attribute.u32()?,
                dest::WEIGHT => fields.weight = attribute.u32()?,
                dest::U_THRESH => fields.upper_threshold = attribute.u32()?,
                dest::L_THRESH => fields.lower_threshold = attribute.u32()?,
                dest::TUN_TYPE => fields.tunnel = attribute.u8()?,
                dest::TUN_PORT => fields.tunnel_port = attribute.be16()?,
                dest::TUN_FLAGS => fields.tunnel_flags = attribute.u16()?,
                dest::ACTIVE_CONNS => fields.connections.active = attribute.u32()?,
                dest::INACT_CONNS => fields.connections.inactive = attribute.u32()?,
                dest::PERSIST_CONNS => fields.connections.persistent = attribute.u32()?,
                dest::STATS if !has_stats64 => fields.stats = counters(&attribute)?,
                dest::STATS64 => {
                    fields.stats = counters(&attribute)?;
                    has_stats64 = true;
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn key(&self, fallback: Family) -> Result<Option<RealServerKey>, Malformed> {
        let (Some(bytes), Some(port)) = (self.address, self.port) else {
            return Err(Malformed("real server without address"));
        };
        let family = match self.family {
            None => Some(fallback),
            Some(number) => family(number),
        };
        let Some(family) = family else { return Ok(None) };
        Ok(Some(RealServerKey::new(address(family, bytes)?, port)))
    }

    fn server(&self, fallback: Family) -> Result<Option<RealServer>, Malformed> {
        let (Some(key), Some(forwarding)) = (self.key(fallback)?, self.forwarding()) else {
            return Ok(None);
        };
        let config = RealServerConfig {
            forwarding,
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        };
        Ok(Some(RealServer { key, config }))
    }

    fn forwarding(&self) -> Option<Forwarding> {
        Some(match (self.method & fwd::MASK, self.tunnel) {
            (fwd::MASQ, _) => Forwarding::Masquerade,
            (fwd::LOCALNODE, _) => Forwarding::LocalNode,
            (fwd::DROUTE, _) => Forwarding::Direct,
            (fwd::BYPASS, _) => Forwarding::Bypass,
            (fwd::TUNNEL, tunnel::IPIP) => Forwarding::Tunnel(Tunnel::Ipip),
            (fwd::TUNNEL, tunnel::GUE) => {
                Forwarding::Tunnel(Tunnel::Gue { port: self.tunnel_port, flags: self.tunnel_flags })
            }
            (fwd::TUNNEL, tunnel::GRE) => {
                Forwarding::Tunnel(Tunnel::Gre { flags: self.tunnel_flags })
            }
            _ => return None,
        })
    }
}

/// `STATS` and `STATS64` have the same numbers and differ in the values' width.
fn counters(stats: &Attribute<'_>) -> Result<Stats, Malformed> {
    let mut found = Stats::default();
    for attribute in stats.nested() {
        let attribute = attribute?;
        let field = match attribute.kind {
            stats::CONNS => &mut found.connections,
            stats::INPKTS => &mut found.packets_in,
            stats::OUTPKTS => &mut found.packets_out,
            stats::INBYTES => &mut found.bytes_in,
            stats::OUTBYTES => &mut found.bytes_out,
            stats::CPS => &mut found.connection_rate,
            stats::INPPS => &mut found.packet_rate_in,
            stats::OUTPPS => &mut found.packet_rate_out,
            stats::INBPS => &mut found.byte_rate_in,
            stats::OUTBPS => &mut found.byte_rate_out,
            _ => continue,
        };
        *field = match attribute.value.len() {
            8 => u64::from_ne_bytes(attribute.bytes()?),
            _ => u64::from(attribute.u32()?),
        };
    }
    Ok(found)
}

fn family(number: u16) -> Option<Family> {
    match number {
        wire::AF_INET => Some(Family::Ipv4),
        wire::AF_INET6 => Some(Family::Ipv6),
        _ => None,
    }
}

/// Requests may carry 4 bytes, dumps carry 16 for both families.
fn address(family: Family, bytes: &[u8]) -> Result<IpAddr, Malformed> {
    let malformed = Malformed("address");
    Ok(match family {
        Family::Ipv4 => Ipv4Addr::from(*bytes.first_chunk::<4>().ok_or(malformed)?).into(),
        Family::Ipv6 => Ipv6Addr::from(*bytes.first_chunk::<16>().ok_or(malformed)?).into(),
    })
}

fn prefix_len(family: Family, netmask: [u8; 4]) -> u8 {
    match family {
        // A mask with holes, which only hand-made entries have, is read up to its first hole.
        Family::Ipv4 => u32::from_be_bytes(netmask).leading_ones() as u8,
        Family::Ipv6 => u8::try_from(u32::from_ne_bytes(netmask)).unwrap_or(u8::MAX),
    }
}

fn name(bytes: &[u8]) -> Result<Scheduler, Malformed> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end])
        .ok()
        .and_then(|name| name.parse().ok())
        .ok_or(Malformed("scheduler or persistence engine"))
}
