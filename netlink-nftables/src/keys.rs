//! What expressions can load: of a packet's metadata, and of its connection.

/// Makes an enum of numbers, with those that have no name.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// One that has no name here; [`from_number`](Self::from_number) makes it of none of
            /// those above.
            Other(u32),
        }

        impl $name {
            /// The kernel's number.
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// The one with this number.
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    number => Self::Other(number),
                }
            }
        }
    };
}

numbers! {
    /// Metadata of a packet (`NFT_META_*`).
    MetaKey {
        /// Length in bytes; 4 bytes in the order of this machine, as all numbers of this list.
        Length = 0,
        /// Ethernet type; 2 bytes, network order.
        Protocol = 1,
        /// Priority for queueing; 4 bytes.
        Priority = 2,
        /// Firewall mark; 4 bytes.
        Mark = 3,
        /// Index of the interface that it came from; 4 bytes.
        InputInterface = 4,
        /// Index of the interface that it leaves by; 4 bytes.
        OutputInterface = 5,
        /// Name of the interface that it came from; 16 bytes.
        InputName = 6,
        /// Name of the interface that it leaves by; 16 bytes.
        OutputName = 7,
        /// User of the socket that sent it; 4 bytes.
        SocketUser = 10,
        /// 1: `nft monitor trace` shows it; 1 byte.
        Trace = 12,
        /// Its family, `NFPROTO_*`; 1 byte.
        NetworkProtocol = 15,
        /// Its transport protocol; 1 byte. In IPv6 that of the last extension header.
        TransportProtocol = 16,
        /// To whom the link layer sent it; 1 byte.
        PacketType = 19,
        /// Control group of the socket that sent it; 4 bytes.
        ControlGroup = 23,
        /// A random number; 4 bytes.
        Random = 24,
    }
}

numbers! {
    /// What conntrack knows of a packet's connection (`NFT_CT_*`).
    CtKey {
        /// State, see [`ct_state`]; 4 bytes in the order of this machine.
        State = 0,
        /// 0: a packet of the original direction, 1: a reply; 1 byte.
        Direction = 1,
        /// Status, `IPS_*`; 4 bytes in the order of this machine.
        Status = 2,
        /// Mark of the connection; 4 bytes in the order of this machine.
        Mark = 3,
        /// Its family, `NFPROTO_*`; 1 byte.
        NetworkProtocol = 7,
        /// Source address, its length by the family. Of a direction.
        Source = 8,
        /// Destination address, its length by the family. Of a direction.
        Destination = 9,
        /// Transport protocol; 1 byte.
        TransportProtocol = 10,
        /// Source port; 2 bytes, network order. Of a direction.
        SourcePort = 11,
        /// Destination port; 2 bytes, network order. Of a direction.
        DestinationPort = 12,
        /// Zone; 2 bytes in the order of this machine.
        Zone = 17,
        /// IPv4 source address; 4 bytes. Of a direction.
        SourceIpv4 = 19,
        /// IPv4 destination address; 4 bytes. Of a direction.
        DestinationIpv4 = 20,
        /// IPv6 source address; 16 bytes. Of a direction.
        SourceIpv6 = 21,
        /// IPv6 destination address; 16 bytes. Of a direction.
        DestinationIpv6 = 22,
    }
}

/// Directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtDirection {
    /// That of its first packet (`IP_CT_DIR_ORIGINAL`, 0).
    Original,
    /// That of the answers (`IP_CT_DIR_REPLY`, 1).
    Reply,
}

impl CtDirection {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }
}

/// Bits of [`CtKey::State`]: a packet has one of them.
pub mod ct_state {
    /// It belongs to no connection.
    pub const INVALID: u32 = 1;
    /// Its connection has packets in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// It begins a connection that another one caused, or is an error message about one.
    pub const RELATED: u32 = 4;
    /// It begins a connection.
    pub const NEW: u32 = 8;
    /// It is not tracked.
    pub const UNTRACKED: u32 = 64;
}
