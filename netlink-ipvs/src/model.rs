//! Virtual servers and real servers as plain, ordered data.
//!
//! Identity ([`VirtualServerKey`], [`RealServerKey`]), configuration ([`VirtualServerConfig`],
//! [`RealServerConfig`]) and counters are separate types, so that comparing what is wanted with
//! what the kernel holds never involves a counter.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::{PersistenceEngine, Scheduler};

/// Address family of a virtual or real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `AF_INET`
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// `AF_INET`, 2, or `AF_INET6`, 10; the numbers `NFPROTO_*` of netfilter are the same.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    /// The family with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::Ipv4),
            10 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// Transport protocol of a virtual server.
///
/// IPVS balances the three that have names here; it keeps a virtual server of any other number,
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `IPPROTO_TCP`, 6
    Tcp,
    /// `IPPROTO_UDP`, 17
    Udp,
    /// `IPPROTO_SCTP`, 132
    Sctp,
    /// Any other number; [`Protocol::from_number`] makes it of none of those above.
    Other(u16),
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
            Self::Other(number) => number,
        }
    }

    /// The protocol with this IP protocol number.
    pub const fn from_number(number: u16) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            number => Self::Other(number),
        }
    }
}

/// `tcp`, `udp`, `sctp`, or the number.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.pad("tcp"),
            Self::Udp => f.pad("udp"),
            Self::Sctp => f.pad("sctp"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

/// What identifies a virtual server: where its packets go to, or the firewall mark they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualServerKey {
    /// Packets to this address, port and protocol (`ipvsadm -t`, `-u`, `--sctp-service`).
    Address {
        /// Virtual address.
        address: IpAddr,
        /// Virtual port; 0 takes every port and needs persistence.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
    },
    /// Packets of this family with this firewall mark (`ipvsadm -f`); the kernel looks these up
    /// before address ones.
    FirewallMark {
        /// The mark; never 0.
        mark: u32,
        /// Family of the packets.
        family: Family,
    },
}

impl VirtualServerKey {
    /// A key by address.
    pub const fn new(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self::Address { address, port, protocol }
    }

    /// The family of the packets it takes.
    pub fn family(&self) -> Family {
        match *self {
            Self::Address { address, .. } => Family::of(address),
            Self::FirewallMark { family, .. } => family,
        }
    }
}

/// `10.96.0.1:443/tcp`, `[fd00::1]:53/udp`, `mark 7 (IPv6)`.
impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address { address, port, protocol } => {
                write!(f, "{}/{protocol}", SocketAddr::new(address, port))
            }
            Self::FirewallMark { mark, family } => write!(f, "mark {mark} ({family})"),
        }
    }
}

/// Flags of a virtual server (`IP_VS_SVC_F_*` of `uapi/linux/ip_vs.h`).
///
/// `IP_VS_SVC_F_HASHED` (0x2) is the kernel's own and not part of the configuration: decoding
/// removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Connections of one client stay with one real server (`-p`).
    pub const PERSISTENT: Self = Self(0x1);
    /// Every UDP packet is scheduled on its own (`-o`).
    pub const ONE_PACKET: Self = Self(0x4);
    /// Scheduler flag 1: `sh-fallback`, `mh-fallback`.
    pub const SCHED1: Self = Self(0x8);
    /// Scheduler flag 2: `sh-port`, `mh-port`.
    pub const SCHED2: Self = Self(0x10);
    /// Scheduler flag 3.
    pub const SCHED3: Self = Self(0x20);

    const HASHED: u32 = 0x2;

    /// From the kernel's bits, without its own flag 0x2. Unknown bits are kept.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !Self::HASHED)
    }

    /// The bits as the kernel takes them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// Configuration of a virtual server: made with [`new`](Self::new), then changed field by field.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServerConfig {
    /// How connections are distributed.
    pub scheduler: Scheduler,
    /// Persistence, one-packet and scheduler flags.
    pub flags: Flags,
    /// Persistence timeout in seconds; 0 without persistence.
    pub timeout: u32,
    /// Which clients persistence takes together, as a prefix length: 32 or 128 is one address
    /// (`-M`).
    pub prefix_len: u8,
    /// Persistence engine (`--pe`).
    pub persistence_engine: Option<PersistenceEngine>,
}

impl VirtualServerConfig {
    /// No flags, one client per address.
    pub const fn new(scheduler: Scheduler, family: Family) -> Self {
        let prefix_len = match family {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        };
        Self { scheduler, flags: Flags::NONE, timeout: 0, prefix_len, persistence_engine: None }
    }
}

/// A virtual server without its real servers.
#[doc(alias = "IPVS_CMD_NEW_SERVICE")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServer {
    /// Identity.
    pub key: VirtualServerKey,
    /// Configuration.
    pub config: VirtualServerConfig,
}

/// What identifies a real server within its virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerKey {
    /// Address of the real server. With tunnels its family may differ from the virtual server's.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl RealServerKey {
    /// A key by address and port.
    pub const fn new(address: IpAddr, port: u16) -> Self {
        Self { address, port }
    }
}

/// `10.244.1.7:8080`, `[fd00::7]:8080`.
impl fmt::Display for RealServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// How packets reach the real server (`IP_VS_CONN_F_*`, `IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Forwarding {
    /// Network address translation (`-m`).
    #[default]
    Masquerade,
    /// Delivered to this host itself (`IP_VS_CONN_F_LOCALNODE`). The kernel does not choose it
    /// by itself (6.1): an address of this host keeps the method that it was added with.
    LocalNode,
    /// Encapsulated (`-i`).
    Tunnel(Tunnel),
    /// Direct routing, same packet to another link address (`-g`).
    Direct,
    /// Not forwarded but answered by a cache cluster (`IP_VS_CONN_F_BYPASS`).
    Bypass,
    /// A number that has no name yet, at most [`Forwarding::MAX`].
    Other(u8),
}

impl Forwarding {
    /// `IP_VS_CONN_F_FWD_MASK`: the kernel keeps three bits of the number.
    pub const MAX: u8 = 7;
}

/// Encapsulation of tunnelled packets (`IPVS_DEST_ATTR_TUN_*`, since Linux 5.3).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation to this port; flags as in `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    Gue {
        /// UDP port, host order.
        port: u16,
        /// Checksum flags.
        flags: u16,
    },
    /// Generic routing encapsulation (since Linux 5.4); flags as in `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    Gre {
        /// Checksum flags.
        flags: u16,
    },
    /// One that has no name yet.
    Other {
        /// `IPVS_DEST_ATTR_TUN_TYPE`
        kind: u8,
        /// UDP port, host order.
        port: u16,
        /// `IP_VS_TUNNEL_ENCAP_FLAG_*`
        flags: u16,
    },
}

/// Configuration of a real server: made with [`new`](Self::new), then changed field by field.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServerConfig {
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// Share of new connections; 0 takes none (quiescent).
    pub weight: u32,
    /// No new connections above this many; 0 is no limit.
    pub upper_threshold: u32,
    /// New connections again below this many; 0 is three quarters of the upper one.
    pub lower_threshold: u32,
}

impl RealServerConfig {
    /// With no thresholds.
    pub const fn new(forwarding: Forwarding, weight: u32) -> Self {
        Self { forwarding, weight, upper_threshold: 0, lower_threshold: 0 }
    }

    /// Masquerade with this weight and no thresholds.
    pub const fn masquerade(weight: u32) -> Self {
        Self::new(Forwarding::Masquerade, weight)
    }
}

/// A real server.
#[doc(alias = "IPVS_CMD_NEW_DEST")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealServer {
    /// Identity.
    pub key: RealServerKey,
    /// Configuration.
    pub config: RealServerConfig,
}
