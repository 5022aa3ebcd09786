//! What the kernel holds: configuration and, apart from it, counters.

use crate::{RealServer, VirtualServer};

/// A virtual server as the kernel holds it, without its real servers.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VirtualServerEntry {
    /// Identity and configuration.
    pub server: VirtualServer,
    /// Counters of all its real servers together.
    pub stats: Stats,
}

/// A real server as the kernel holds it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RealServerEntry {
    /// Identity and configuration.
    pub server: RealServer,
    /// Connections it has now.
    pub connections: Connections,
    /// Its counters.
    pub stats: Stats,
}

/// As one that was just added.
impl From<VirtualServer> for VirtualServerEntry {
    fn from(server: VirtualServer) -> Self {
        Self { server, stats: Stats::default() }
    }
}

/// As one that was just added.
impl From<RealServer> for RealServerEntry {
    fn from(server: RealServer) -> Self {
        Self { server, connections: Connections::default(), stats: Stats::default() }
    }
}

/// Connections that a real server has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Connections {
    /// Established ones.
    pub active: u32,
    /// All others that still have an entry (closing, or UDP).
    pub inactive: u32,
    /// Persistence templates: clients that are bound to it.
    pub persistent: u32,
}

impl Connections {
    /// Active and inactive ones: 0 when nothing is lost by removing the real server.
    pub const fn total(self) -> u64 {
        self.active as u64 + self.inactive as u64
    }
}

/// Counts since the last zeroing, and rates as the kernel estimates them every two seconds.
///
/// From the 64-bit attributes of Linux 4.1 and later; from older kernels the counts of
/// connections and packets, and all rates, wrap at 32 bits.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients, as far as they pass this host.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections per second.
    pub connection_rate: u64,
    /// Packets from clients per second.
    pub packet_rate_in: u64,
    /// Packets to clients per second.
    pub packet_rate_out: u64,
    /// Bytes from clients per second.
    pub byte_rate_in: u64,
    /// Bytes to clients per second.
    pub byte_rate_out: u64,
}
