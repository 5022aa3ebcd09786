//! Attributes → model.
//!
//! Attributes that this version does not know are skipped, and every number and name that the
//! kernel can hold has its place in the model: no foreign entry hides the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_batch::{Attribute, Attributes, Malformed};

use crate::wire::{attr, cmd, daemon, dest, fwd, info, stats, svc, tunnel};
use crate::{
    Command, Connections, Family, Flags, Forwarding, Info, InterfaceName, PersistenceEngine,
    Protocol, RealServer, RealServerConfig, RealServerEntry, RealServerKey, Scheduler, Stats,
    SyncDaemon, SyncRole, Timeouts, Tunnel, VirtualServer, VirtualServerConfig, VirtualServerEntry,
    VirtualServerKey,
};

/// Reads a `NEW_SERVICE` message.
pub(crate) fn virtual_server(attributes: Attributes<'_>) -> Result<VirtualServerEntry, Malformed> {
    let service = ServiceFields::of(attributes)?;
    Ok(VirtualServerEntry { server: service.server()?, stats: service.stats })
}

/// Reads a `NEW_DEST` message; `family` is the virtual server's, for kernels before 3.18.
pub(crate) fn real_server(
    attributes: Attributes<'_>,
    family: Family,
) -> Result<RealServerEntry, Malformed> {
    let dest = DestinationFields::of(attributes)?;
    let server = dest.server(family)?;
    Ok(RealServerEntry { server, connections: dest.connections, stats: dest.stats })
}

/// Reads a `NEW_DAEMON` message.
pub(crate) fn sync_daemon(attributes: Attributes<'_>) -> Result<SyncDaemon, Malformed> {
    let interface = InterfaceName::of_kernel(&[])?;
    let mut found = SyncDaemon::new(role(attributes)?, interface, 0);
    for attribute in nested(attributes, attr::DAEMON)? {
        let attribute = attribute?;
        match attribute.kind {
            daemon::MCAST_IFN => found.interface = InterfaceName::of_kernel(attribute.value)?,
            daemon::SYNC_ID => found.sync_id = attribute.u32()?,
            daemon::SYNC_MAXLEN => found.max_message = attribute.u16()?,
            daemon::MCAST_GROUP => found.group = Some(attribute.bytes::<4>()?.into()),
            daemon::MCAST_GROUP6 => found.group = Some(attribute.bytes::<16>()?.into()),
            daemon::MCAST_PORT => found.port = attribute.u16()?,
            daemon::MCAST_TTL => found.ttl = attribute.u8()?,
            _ => {}
        }
    }
    Ok(found)
}

fn role(attributes: Attributes<'_>) -> Result<SyncRole, Malformed> {
    let state = nested(attributes, attr::DAEMON)?.find(daemon::STATE)?;
    match state.ok_or(Malformed("synchronisation daemon without state"))?.u32()? {
        daemon::MASTER => Ok(SyncRole::Master),
        daemon::BACKUP => Ok(SyncRole::Backup),
        _ => Err(Malformed("state of a synchronisation daemon")),
    }
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
pub(crate) fn command(number: u8, attributes: Attributes<'_>) -> Result<Command, Malformed> {
    let server = || ServiceFields::of(attributes)?.server();
    let key = || ServiceFields::of(attributes)?.key();
    let real = || DestinationFields::of(attributes);
    Ok(match number {
        cmd::NEW_SERVICE => Command::AddVirtualServer(server()?),
        cmd::SET_SERVICE => Command::SetVirtualServer(server()?),
        cmd::DEL_SERVICE => Command::DeleteVirtualServer(key()?),
        cmd::NEW_DEST => Command::AddRealServer(key()?, real()?.server(key()?.family())?),
        cmd::SET_DEST => Command::SetRealServer(key()?, real()?.server(key()?.family())?),
        cmd::DEL_DEST => Command::DeleteRealServer(key()?, real()?.key(key()?.family())?),
        cmd::SET_CONFIG => Command::SetTimeouts(timeouts(attributes)?),
        cmd::FLUSH => Command::Flush,
        cmd::ZERO if attributes.find(attr::SERVICE)?.is_none() => Command::Zero(None),
        cmd::ZERO => Command::Zero(Some(key()?)),
        cmd::NEW_DAEMON => Command::StartSync(sync_daemon(attributes)?),
        cmd::DEL_DAEMON => Command::StopSync(role(attributes)?),
        _ => return Err(Malformed("request: its number changes nothing")),
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
        let mut fields = Self::default();
        let mut has_stats64 = false;
        for attribute in nested(attributes, attr::SERVICE)? {
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

    fn key(&self) -> Result<VirtualServerKey, Malformed> {
        let family = family(self.family.ok_or(Malformed("virtual server without family"))?)?;
        if let Some(mark) = self.mark {
            return Ok(VirtualServerKey::FirewallMark { mark, family });
        }
        let (Some(number), Some(bytes), Some(port)) = (self.protocol, self.address, self.port)
        else {
            return Err(Malformed("virtual server without address"));
        };
        Ok(VirtualServerKey::new(address(family, bytes)?, port, Protocol::from_number(number)))
    }

    fn server(&self) -> Result<VirtualServer, Malformed> {
        let key = self.key()?;
        let scheduler = self.scheduler.ok_or(Malformed("virtual server without scheduler"))?;
        let family = key.family();
        let mut config = VirtualServerConfig::new(Scheduler::of_kernel(scheduler)?, family);
        config.flags = Flags::from_bits(self.flags);
        config.timeout = self.timeout;
        if let Some(netmask) = self.netmask {
            config.prefix_len = prefix_len(family, netmask);
        }
        let engine = self.persistence_engine.map(PersistenceEngine::of_kernel);
        config.persistence_engine = engine.transpose()?;
        Ok(VirtualServer { key, config })
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
        let mut fields = Self::default();
        let mut has_stats64 = false;
        for attribute in nested(attributes, attr::DEST)? {
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

    fn key(&self, fallback: Family) -> Result<RealServerKey, Malformed> {
        let (Some(bytes), Some(port)) = (self.address, self.port) else {
            return Err(Malformed("real server without address"));
        };
        let family = self.family.map_or(Ok(fallback), family)?;
        Ok(RealServerKey::new(address(family, bytes)?, port))
    }

    fn server(&self, fallback: Family) -> Result<RealServer, Malformed> {
        let mut config = RealServerConfig::new(self.forwarding(), self.weight);
        config.upper_threshold = self.upper_threshold;
        config.lower_threshold = self.lower_threshold;
        Ok(RealServer { key: self.key(fallback)?, config })
    }

    fn forwarding(&self) -> Forwarding {
        let (port, flags) = (self.tunnel_port, self.tunnel_flags);
        match self.method as u8 & Forwarding::MAX {
            fwd::MASQ => Forwarding::Masquerade,
            fwd::LOCALNODE => Forwarding::LocalNode,
            fwd::DROUTE => Forwarding::Direct,
            fwd::BYPASS => Forwarding::Bypass,
            fwd::TUNNEL => Forwarding::Tunnel(match self.tunnel {
                tunnel::IPIP => Tunnel::Ipip,
                tunnel::GUE => Tunnel::Gue { port, flags },
                tunnel::GRE => Tunnel::Gre { flags },
                kind => Tunnel::Other { kind, port, flags },
            }),
            number => Forwarding::Other(number),
        }
    }
}

/// The attributes of what a message is about.
fn nested(attributes: Attributes<'_>, kind: u16) -> Result<Attributes<'_>, Malformed> {
    let outer = attributes.find(kind)?;
    Ok(outer.ok_or(Malformed("message: it is about something else"))?.nested())
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

/// The kernel takes no others.
fn family(number: u16) -> Result<Family, Malformed> {
    let family = u8::try_from(number).ok().and_then(Family::from_number);
    family.ok_or(Malformed("address family"))
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
