//! What the kernel can be asked to change.

use std::fmt;

use crate::{RealServer, RealServerKey, VirtualServer, VirtualServerKey};

/// One change of the kernel's table.
///
/// `Display` names the operation and the object, as error texts use it:
/// `add real server 10.244.1.7:8080 to 10.96.0.10:80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Adds a virtual server without real servers. The kernel refuses one that exists
    /// ([`Exists`](crate::ErrorKind::Exists)) and loads the scheduler's module if needed.
    #[doc(alias = "IPVS_CMD_NEW_SERVICE")]
    AddVirtualServer(VirtualServer),
    /// Replaces the configuration of a virtual server; its real servers and connections stay.
    #[doc(alias = "IPVS_CMD_SET_SERVICE")]
    SetVirtualServer(VirtualServer),
    /// Deletes a virtual server with its real servers.
    #[doc(alias = "IPVS_CMD_DEL_SERVICE")]
    DeleteVirtualServer(VirtualServerKey),
    /// Adds a real server to a virtual server.
    #[doc(alias = "IPVS_CMD_NEW_DEST")]
    AddRealServer(VirtualServerKey, RealServer),
    /// Replaces the configuration of a real server; its connections stay.
    #[doc(alias = "IPVS_CMD_SET_DEST")]
    SetRealServer(VirtualServerKey, RealServer),
    /// Deletes a real server. What becomes of its connections is decided by
    /// `net.ipv4.vs.expire_nodest_conn`.
    #[doc(alias = "IPVS_CMD_DEL_DEST")]
    DeleteRealServer(VirtualServerKey, RealServerKey),
    /// Changes the timeouts of connections in this network namespace.
    #[doc(alias = "IPVS_CMD_SET_CONFIG")]
    SetTimeouts(Timeouts),
    /// Deletes every virtual server of this network namespace.
    #[doc(alias = "IPVS_CMD_FLUSH")]
    Flush,
    /// Sets the counters of one virtual server and its real servers to zero, or all counters.
    #[doc(alias = "IPVS_CMD_ZERO")]
    Zero(Option<VirtualServerKey>),
}

/// How long an idle connection is kept, in seconds, by protocol and state.
///
/// SCTP has fixed ones in the kernel. In [`Command::SetTimeouts`] 0 keeps the present value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timeouts {
    /// TCP, established. The kernel starts with 900.
    pub tcp: u32,
    /// TCP after a FIN. The kernel starts with 120.
    pub tcp_fin: u32,
    /// UDP. The kernel starts with 300.
    pub udp: u32,
}

/// What the kernel says of its IPVS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Info {
    /// Major, minor and patch level, such as `(1, 2, 1)`.
    pub version: (u8, u8, u8),
    /// Buckets of the connection table (`ip_vs.conn_tab_bits`).
    pub connection_table_size: u32,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVirtualServer(server) => write!(f, "add virtual server {}", server.key),
            Self::SetVirtualServer(server) => write!(f, "change virtual server {}", server.key),
            Self::DeleteVirtualServer(key) => write!(f, "delete virtual server {key}"),
            Self::AddRealServer(to, server) => {
                write!(f, "add real server {} to {to}", server.key)
            }
            Self::SetRealServer(of, server) => {
                write!(f, "change real server {} of {of}", server.key)
            }
            Self::DeleteRealServer(of, key) => write!(f, "delete real server {key} of {of}"),
            Self::SetTimeouts(timeouts) => write!(f, "set the connection timeouts to {timeouts}"),
            Self::Flush => f.write_str("delete all virtual servers"),
            Self::Zero(Some(key)) => write!(f, "zero the counters of virtual server {key}"),
            Self::Zero(None) => f.write_str("zero all counters"),
        }
    }
}

/// `tcp 900 s, tcp-fin 120 s, udp 300 s`
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp {} s, tcp-fin {} s, udp {} s", self.tcp, self.tcp_fin, self.udp)
    }
}
