//! What the kernel can be asked to change.

use std::fmt;
use std::net::IpAddr;

use crate::{InterfaceName, RealServer, RealServerKey, VirtualServer, VirtualServerKey};

/// One change of the kernel's table.
///
/// `Display` names the operation and the object, as error texts use it:
/// `add real server 10.244.1.7:8080 to 10.96.0.10:80/tcp`.
#[non_exhaustive]
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
    /// Starts a synchronisation daemon; there is at most one for each role.
    #[doc(alias = "IPVS_CMD_NEW_DAEMON")]
    StartSync(SyncDaemon),
    /// Stops the synchronisation daemon of a role.
    #[doc(alias = "IPVS_CMD_DEL_DAEMON")]
    StopSync(SyncRole),
}

/// What a synchronisation daemon does (`IP_VS_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncRole {
    /// Tells the others of this host's connections (`IP_VS_STATE_MASTER`).
    Master,
    /// Takes over what a master tells (`IP_VS_STATE_BACKUP`).
    Backup,
}

/// A kernel thread that copies the table of connections to other hosts by multicast, so that one
/// of them can go on with them (`ipvsadm --start-daemon`). Made with [`new`](Self::new), then
/// changed field by field.
///
/// One that runs is read with what the kernel chose.
///
/// The kernel starts none while a virtual server has a real server of another family.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncDaemon {
    /// What it does.
    pub role: SyncRole,
    /// The interface over which it multicasts; it needs an address of the group's family.
    pub interface: InterfaceName,
    /// Masters and backups of one number belong together, 0 to 255; a backup with 0 takes all.
    pub sync_id: u32,
    /// The multicast group; `None` is the kernel's, 224.0.0.81. This and what follows: since
    /// Linux 4.3.
    pub group: Option<IpAddr>,
    /// UDP port, host order; 0 is the kernel's, 8848.
    pub port: u16,
    /// Time to live of its packets; 0 is the kernel's, 1.
    pub ttl: u8,
    /// The longest message in bytes, which the kernel takes to be at least 1024; 0 is what fits
    /// the interface's MTU.
    pub max_message: u16,
}

impl SyncDaemon {
    /// With the kernel's group, port, time to live and message length.
    pub const fn new(role: SyncRole, interface: InterfaceName, sync_id: u32) -> Self {
        Self { role, interface, sync_id, group: None, port: 0, ttl: 0, max_message: 0 }
    }
}

/// `master`, `backup`, as `ipvsadm` calls them.
impl fmt::Display for SyncRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
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
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Info {
    /// Major, minor and patch level, such as `(1, 2, 1)`.
    pub version: (u8, u8, u8),
    /// Buckets of the connection table (`ip_vs.conn_tab_bits`; since Linux 7.1 it grows and shrinks).
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
            Self::StartSync(SyncDaemon { role, interface, .. }) => {
                write!(f, "start the {role} synchronisation daemon on {interface}")
            }
            Self::StopSync(role) => write!(f, "stop the {role} synchronisation daemon"),
        }
    }
}

/// `tcp 900 s, tcp-fin 120 s, udp 300 s`
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp {} s, tcp-fin {} s, udp {} s", self.tcp, self.tcp_fin, self.udp)
    }
}
