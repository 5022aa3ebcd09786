//! The numbers of IPVS over generic netlink, in one table.
//!
//! Source of all of them: `include/uapi/linux/ip_vs.h`
//! (<https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/ip_vs.h>),
//! names without the prefix `IPVS_` or `IP_VS_`. Integers are in host byte order except ports,
//! addresses and the IPv4 netmask.

/// `IPVS_GENL_NAME`: the family's name, from which the kernel gives its id.
pub(crate) const FAMILY_NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`
pub(crate) const FAMILY_VERSION: u8 = 1;

/// `IPVS_CMD_*`
pub(crate) mod cmd {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
    /// The reply is number 14, `SET_INFO`, with the attributes of [`super::info`].
    pub(crate) const GET_INFO: u8 = 15;
    pub(crate) const ZERO: u8 = 16;
    pub(crate) const FLUSH: u8 = 17;
}

/// `IPVS_CMD_ATTR_*`: the outermost attributes.
pub(crate) mod attr {
    /// Nested, [`super::svc`].
    pub(crate) const SERVICE: u16 = 1;
    /// Nested, [`super::dest`].
    pub(crate) const DEST: u16 = 2;
    /// Nested, [`super::daemon`].
    pub(crate) const DAEMON: u16 = 3;
    /// u32, seconds; as the two below.
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*`: a virtual server.
pub(crate) mod svc {
    /// u16
    pub(crate) const AF: u16 = 1;
    /// u16
    pub(crate) const PROTOCOL: u16 = 2;
    /// 4 or 16 bytes in, always 16 out; an IPv4 address is in the first four.
    pub(crate) const ADDR: u16 = 3;
    /// u16, network order
    pub(crate) const PORT: u16 = 4;
    /// u32, instead of the three above
    pub(crate) const FWMARK: u16 = 5;
    /// Zero-terminated
    pub(crate) const SCHED_NAME: u16 = 6;
    /// `struct ip_vs_flags { u32 flags; u32 mask; }`
    pub(crate) const FLAGS: u16 = 7;
    /// u32, seconds
    pub(crate) const TIMEOUT: u16 = 8;
    /// IPv4: the mask in network order; IPv6: u32 with the prefix length, host order
    pub(crate) const NETMASK: u16 = 9;
    /// Nested, [`super::stats`], 32-bit counts of connections and packets
    pub(crate) const STATS: u16 = 10;
    /// Zero-terminated
    pub(crate) const PE_NAME: u16 = 11;
    /// Nested, [`super::stats`], all 64 bit; since Linux 4.1
    pub(crate) const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*`: a real server.
pub(crate) mod dest {
    /// As [`super::svc::ADDR`].
    pub(crate) const ADDR: u16 = 1;
    /// u16, network order
    pub(crate) const PORT: u16 = 2;
    /// u32; the method is in its lowest three bits, [`super::fwd`]
    pub(crate) const FWD_METHOD: u16 = 3;
    /// u32
    pub(crate) const WEIGHT: u16 = 4;
    /// u32
    pub(crate) const U_THRESH: u16 = 5;
    /// u32
    pub(crate) const L_THRESH: u16 = 6;
    /// u32; as the two below
    pub(crate) const ACTIVE_CONNS: u16 = 7;
    pub(crate) const INACT_CONNS: u16 = 8;
    pub(crate) const PERSIST_CONNS: u16 = 9;
    /// As [`super::svc::STATS`].
    pub(crate) const STATS: u16 = 10;
    /// u16; since Linux 3.18
    pub(crate) const ADDR_FAMILY: u16 = 11;
    /// As [`super::svc::STATS64`].
    pub(crate) const STATS64: u16 = 12;
    /// u8; since Linux 5.3
    pub(crate) const TUN_TYPE: u16 = 13;
    /// u16, network order; since Linux 5.3
    pub(crate) const TUN_PORT: u16 = 14;
    /// u16; since Linux 5.3
    pub(crate) const TUN_FLAGS: u16 = 15;
}

/// `IPVS_STATS_ATTR_*`: counts since the last zeroing, then rates per second.
pub(crate) mod stats {
    pub(crate) const CONNS: u16 = 1;
    pub(crate) const INPKTS: u16 = 2;
    pub(crate) const OUTPKTS: u16 = 3;
    pub(crate) const INBYTES: u16 = 4;
    pub(crate) const OUTBYTES: u16 = 5;
    pub(crate) const CPS: u16 = 6;
    pub(crate) const INPPS: u16 = 7;
    pub(crate) const OUTPPS: u16 = 8;
    pub(crate) const INBPS: u16 = 9;
    pub(crate) const OUTBPS: u16 = 10;
}

/// `IPVS_DAEMON_ATTR_*`: a synchronisation daemon.
pub(crate) mod daemon {
    /// u32, `IP_VS_STATE_*`
    pub(crate) const STATE: u16 = 1;
    /// Zero-terminated
    pub(crate) const MCAST_IFN: u16 = 2;
    /// u32
    pub(crate) const SYNC_ID: u16 = 3;
    /// u16; as all below since Linux 4.3
    pub(crate) const SYNC_MAXLEN: u16 = 4;
    /// 4 bytes
    pub(crate) const MCAST_GROUP: u16 = 5;
    /// 16 bytes
    pub(crate) const MCAST_GROUP6: u16 = 6;
    /// u16, host order
    pub(crate) const MCAST_PORT: u16 = 7;
    /// u8
    pub(crate) const MCAST_TTL: u16 = 8;

    /// `IP_VS_STATE_MASTER`
    pub(crate) const MASTER: u32 = 1;
    /// `IP_VS_STATE_BACKUP`
    pub(crate) const BACKUP: u32 = 2;
}

/// `IPVS_INFO_ATTR_*`
pub(crate) mod info {
    /// u32, `0xMMmmpp`
    pub(crate) const VERSION: u16 = 1;
    /// u32, buckets
    pub(crate) const CONN_TAB_SIZE: u16 = 2;
}

/// `IP_VS_CONN_F_*`, the forwarding methods: what [`crate::Forwarding::MAX`] masks.
pub(crate) mod fwd {
    pub(crate) const MASQ: u8 = 0;
    pub(crate) const LOCALNODE: u8 = 1;
    pub(crate) const TUNNEL: u8 = 2;
    pub(crate) const DROUTE: u8 = 3;
    pub(crate) const BYPASS: u8 = 4;
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*`
pub(crate) mod tunnel {
    pub(crate) const IPIP: u8 = 0;
    pub(crate) const GUE: u8 = 1;
    pub(crate) const GRE: u8 = 2;
}
