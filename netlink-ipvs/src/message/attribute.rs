//! Attributes as a tree of values, each set of them in one table.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, NlasIterator, Parseable,
    NLA_F_NESTED,
};

use crate::wire::{attr, daemon, dest, info, stats, svc};

/// A port as it is on the wire: two bytes in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NetworkPort(pub u16);

/// An address as it is on the wire: 16 bytes, an IPv4 address in the first four. Four bytes are
/// read as well; the family is in an attribute beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddressBytes(pub [u8; 16]);

/// `struct ip_vs_flags`: in a request, the flags of the mask are set to the ones given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FlagsAndMask {
    /// `IP_VS_SVC_F_*`
    pub flags: u32,
    /// Which of them count.
    pub mask: u32,
}

/// A value of an attribute: side by side how it is written and read.
trait Value: Sized {
    const NESTED: bool = false;

    fn len(&self) -> usize;
    fn emit(&self, out: &mut [u8]);
    fn parse(bytes: &[u8]) -> Result<Self, DecodeError>;
}

macro_rules! attributes {
    (
        $(#[$doc:meta])* $name:ident in $module:ident:
        $( $(#[$variant_doc:meta])* $number:ident => $variant:ident($type:ty), )*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                #[doc = ""]
                #[doc = concat!("`", stringify!($number), "`")]
                $variant($type),
            )*
            /// One that this version does not know.
            Other(DefaultNla),
        }

        impl Nla for $name {
            fn value_len(&self) -> usize {
                match self {
                    $( Self::$variant(value) => Value::len(value), )*
                    Self::Other(other) => other.value_len(),
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    $( Self::$variant(_) if <$type as Value>::NESTED => {
                        $module::$number | NLA_F_NESTED
                    }
                    Self::$variant(_) => $module::$number, )*
                    Self::Other(other) => other.kind(),
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                match self {
                    $( Self::$variant(value) => value.emit(buffer), )*
                    Self::Other(other) => other.emit_value(buffer),
                }
            }
        }

        impl<'a, T: AsRef<[u8]> + ?Sized> Parseable<NlaBuffer<&'a T>> for $name {
            fn parse(buffer: &NlaBuffer<&'a T>) -> Result<Self, DecodeError> {
                Ok(match buffer.kind() {
                    $( $module::$number => Self::$variant(
                        Value::parse(buffer.value()).context(stringify!($number))?,
                    ), )*
                    _ => Self::Other(DefaultNla::parse(buffer)?),
                })
            }
        }

        impl Value for Vec<$name> {
            const NESTED: bool = true;

            fn len(&self) -> usize {
                self.as_slice().buffer_len()
            }

            fn emit(&self, out: &mut [u8]) {
                self.as_slice().emit(out);
            }

            fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
                parse_list(bytes)
            }
        }
    };
}

attributes! {
    /// Outermost attributes of all messages but the reply to `GET_INFO`.
    IpvsAttribute in attr:
    /// A virtual server.
    SERVICE => Service(Vec<ServiceAttribute>),
    /// A real server.
    DEST => Destination(Vec<DestinationAttribute>),
    /// A synchronisation daemon.
    DAEMON => Daemon(Vec<DaemonAttribute>),
    /// Seconds.
    TIMEOUT_TCP => TimeoutTcp(u32),
    /// Seconds.
    TIMEOUT_TCP_FIN => TimeoutTcpFin(u32),
    /// Seconds.
    TIMEOUT_UDP => TimeoutUdp(u32),
}

attributes! {
    /// Attributes of the reply to `GET_INFO`.
    InfoAttribute in info:
    /// `0xMMmmpp`
    VERSION => Version(u32),
    /// Buckets.
    CONN_TAB_SIZE => ConnectionTableSize(u32),
}

attributes! {
    /// Attributes of a virtual server.
    ServiceAttribute in svc:
    /// `AF_INET` or `AF_INET6`.
    AF => Family(u16),
    /// IP protocol number.
    PROTOCOL => Protocol(u16),
    /// Virtual address.
    ADDR => Address(AddressBytes),
    /// Virtual port.
    PORT => Port(NetworkPort),
    /// Instead of protocol, address and port.
    FWMARK => FirewallMark(u32),
    /// Name of the scheduler.
    SCHED_NAME => Scheduler(String),
    /// `IP_VS_SVC_F_*`
    FLAGS => Flags(FlagsAndMask),
    /// Persistence timeout in seconds.
    TIMEOUT => Timeout(u32),
    /// Which clients persistence takes together: for IPv4 a mask in network order, for IPv6 the
    /// prefix length in host order.
    NETMASK => Netmask([u8; 4]),
    /// Counters of 32 bits, only in replies.
    STATS => Stats(Vec<StatsAttribute>),
    /// Name of the persistence engine.
    PE_NAME => PersistenceEngine(String),
    /// Counters of 64 bits, only in replies.
    STATS64 => Stats64(Vec<Stats64Attribute>),
}

attributes! {
    /// Attributes of a real server.
    DestinationAttribute in dest:
    /// Its address.
    ADDR => Address(AddressBytes),
    /// Its port.
    PORT => Port(NetworkPort),
    /// `IP_VS_CONN_F_*`
    FWD_METHOD => ForwardingMethod(u32),
    /// Share of new connections.
    WEIGHT => Weight(u32),
    /// Upper threshold of connections.
    U_THRESH => UpperThreshold(u32),
    /// Lower threshold of connections.
    L_THRESH => LowerThreshold(u32),
    /// Established connections, only in replies.
    ACTIVE_CONNS => ActiveConnections(u32),
    /// Other connections, only in replies.
    INACT_CONNS => InactiveConnections(u32),
    /// Persistence templates, only in replies.
    PERSIST_CONNS => PersistentConnections(u32),
    /// Counters of 32 bits, only in replies.
    STATS => Stats(Vec<StatsAttribute>),
    /// `AF_INET` or `AF_INET6`.
    ADDR_FAMILY => Family(u16),
    /// Counters of 64 bits, only in replies.
    STATS64 => Stats64(Vec<Stats64Attribute>),
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`
    TUN_TYPE => TunnelType(u8),
    /// UDP port of the tunnel.
    TUN_PORT => TunnelPort(NetworkPort),
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`
    TUN_FLAGS => TunnelFlags(u16),
}

attributes! {
    /// Attributes of a synchronisation daemon.
    DaemonAttribute in daemon:
    /// `IP_VS_STATE_MASTER` or `IP_VS_STATE_BACKUP`.
    STATE => State(u32),
    /// Name of the interface over which it multicasts.
    MCAST_IFN => Interface(String),
    /// Which masters and backups belong together.
    SYNC_ID => SyncId(u32),
    /// The longest message in bytes.
    SYNC_MAXLEN => MaxMessage(u16),
    /// IPv4 multicast group.
    MCAST_GROUP => Group([u8; 4]),
    /// IPv6 multicast group.
    MCAST_GROUP6 => Group6([u8; 16]),
    /// UDP port, host order.
    MCAST_PORT => Port(u16),
    /// Time to live.
    MCAST_TTL => Ttl(u8),
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident, $number:ty) => {
        attributes! {
            $(#[$doc])*
            $name in stats:
            /// Connections scheduled.
            CONNS => Connections($number),
            /// Packets from clients.
            INPKTS => PacketsIn($number),
            /// Packets to clients.
            OUTPKTS => PacketsOut($number),
            /// Bytes from clients.
            INBYTES => BytesIn(u64),
            /// Bytes to clients.
            OUTBYTES => BytesOut(u64),
            /// Connections per second.
            CPS => ConnectionRate($number),
            /// Packets from clients per second.
            INPPS => PacketRateIn($number),
            /// Packets to clients per second.
            OUTPPS => PacketRateOut($number),
            /// Bytes from clients per second.
            INBPS => ByteRateIn($number),
            /// Bytes to clients per second.
            OUTBPS => ByteRateOut($number),
        }
    };
}

counters! {
    /// Counters of 32 bits; the bytes have 64 here too.
    StatsAttribute, u32
}

counters! {
    /// Counters of 64 bits.
    Stats64Attribute, u64
}

/// Reads attributes one after the other.
pub(super) fn parse_list<A>(bytes: &[u8]) -> Result<Vec<A>, DecodeError>
where
    A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    NlasIterator::new(bytes).map(|nla| A::parse(&nla?)).collect()
}

macro_rules! number_values {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn len(&self) -> usize {
                std::mem::size_of::<Self>()
            }

            fn emit(&self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_ne_bytes());
            }

            fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
                exactly(bytes).map(Self::from_ne_bytes)
            }
        }
    )* };
}

number_values!(u8, u16, u32, u64);

impl<const N: usize> Value for [u8; N] {
    fn len(&self) -> usize {
        N
    }

    fn emit(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes)
    }
}

impl Value for NetworkPort {
    fn len(&self) -> usize {
        2
    }

    fn emit(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0.to_be_bytes());
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes).map(|bytes| Self(u16::from_be_bytes(bytes)))
    }
}

impl Value for AddressBytes {
    fn len(&self) -> usize {
        16
    }

    fn emit(&self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() == 4 {
            let mut all = [0; 16];
            all[..4].copy_from_slice(bytes);
            return Ok(Self(all));
        }
        exactly(bytes).map(Self)
    }
}

impl Value for FlagsAndMask {
    fn len(&self) -> usize {
        8
    }

    fn emit(&self, out: &mut [u8]) {
        let (flags, mask) = out.split_at_mut(4);
        self.flags.emit(flags);
        self.mask.emit(mask);
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let [flags @ .., m0, m1, m2, m3] = exactly::<8>(bytes)?;
        Ok(Self { flags: u32::from_ne_bytes(flags), mask: u32::from_ne_bytes([m0, m1, m2, m3]) })
    }
}

/// Zero-terminated.
impl Value for String {
    fn len(&self) -> usize {
        Self::len(self) + 1
    }

    fn emit(&self, out: &mut [u8]) {
        let end = Self::len(self);
        out[..end].copy_from_slice(self.as_bytes());
        out[end] = 0;
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        netlink_packet_core::parse_string(bytes)
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
    bytes.try_into().map_err(|_| DecodeError::invalid_number(N, bytes.len()))
}
