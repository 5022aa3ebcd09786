//! What rules are made of.

use crate::{CtDirection, CtKey, Family, MetaKey, Value, Verdict};

/// Where expressions hand values to each other: 64 bytes in words of four.
///
/// The kernel has two sets of numbers for them: four registers of 16 bytes (`NFT_REG_1`...) and
/// sixteen of four (`NFT_REG32_00`...) over the same bytes. It answers with the former where a
/// register of 16 bytes begins, whichever it was given, and so does this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register(u32);

impl Register {
    /// `NFT_REG_VERDICT`
    pub const VERDICT: Self = Self(0);
    /// The first word, `NFT_REG_1`: where `nft` puts what does not stand beside anything.
    pub const FIRST: Self = Self(1);

    /// The register of a word, from 0 to 15: the parts of a concatenation stand one after the
    /// other, each from the beginning of a word. Higher numbers are the kernel's to refuse.
    pub const fn word(word: u32) -> Self {
        if word % 4 == 0 && word < 16 {
            Self(1 + word / 4)
        } else {
            Self(8_u32.saturating_add(word))
        }
    }

    /// The kernel's number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The register with this number, in either of the kernel's ways.
    pub const fn from_number(number: u32) -> Self {
        match number {
            8..=23 => Self::word(number - 8),
            other => Self(other),
        }
    }
}

/// What a rule evaluates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Expr {
    /// Loads metadata of the packet.
    Meta {
        /// Which.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Sets metadata of the packet, such as its mark.
    SetMeta {
        /// Which.
        key: MetaKey,
        /// Where from.
        from: Register,
    },
    /// Loads bytes of the packet.
    Payload {
        /// What `offset` counts from.
        base: PayloadBase,
        /// Bytes before it.
        offset: u32,
        /// Bytes.
        length: u32,
        /// Where to.
        to: Register,
    },
    /// Matches if the comparison holds.
    Compare {
        /// How.
        how: Compare,
        /// The left side.
        from: Register,
        /// The right side; as many bytes are compared as it has.
        value: Value,
    },
    /// `to = (from & mask) ^ xor`, for values as long as both are.
    Bitwise {
        /// Where from.
        from: Register,
        /// Where to.
        to: Register,
        /// The bits that stay.
        mask: Value,
        /// The bits that change then.
        xor: Value,
    },
    /// Matches if a set has the key; of a map, loads what the key maps to.
    Lookup {
        /// The name of the set or map.
        set: String,
        /// The key.
        from: Register,
        /// Whether it matches if the set does not have it.
        inverted: bool,
        /// Where what it maps to goes; [`Register::VERDICT`] for a verdict. Of a map it is needed
        /// (Linux 6.1; not on 6.18).
        to: Option<Register>,
    },
    /// Loads what is known of the packet's connection.
    Ct {
        /// What.
        key: CtKey,
        /// Of which direction, for the keys that need it.
        direction: Option<CtDirection>,
        /// Where to.
        to: Register,
    },
    /// Sets something of the packet's connection, such as its mark.
    SetCt {
        /// What.
        key: CtKey,
        /// Where from.
        from: Register,
    },
    /// Asks the routing table about the packet.
    Fib {
        /// About which of its addresses and interfaces.
        flags: FibFlags,
        /// What.
        result: FibResult,
        /// Where to.
        to: Register,
    },
    /// Decides.
    Verdict(Verdict),
    /// Loads a value.
    Load {
        /// Where to.
        to: Register,
        /// The value.
        value: Value,
    },
    /// Gives the packet the address of the interface that it leaves by as its source.
    Masquerade {
        /// How the port is chosen.
        flags: NatFlags,
        /// Of which ports.
        ports: Option<Range>,
    },
    /// Sends the packet to this host.
    Redirect {
        /// How the port is chosen.
        flags: NatFlags,
        /// Which ports.
        ports: Option<Range>,
    },
    /// Changes an address, a port or both.
    Nat {
        /// Whether of the source or the destination.
        kind: NatKind,
        /// The family of the address.
        family: Family,
        /// The addresses to choose from.
        addresses: Option<Range>,
        /// The ports to choose from.
        ports: Option<Range>,
        /// How they are chosen.
        flags: NatFlags,
    },
    /// Drops the packet and tells its sender.
    Reject(Reject),
    /// Counts packets and bytes. The counts are the kernel's and not part of the rule.
    Counter,
    /// Any other, as it came: equal if its bytes are. It can be written again.
    Unknown {
        /// `NFTA_EXPR_NAME`
        name: String,
        /// The attributes in `NFTA_EXPR_DATA`.
        data: Box<[u8]>,
    },
}

impl From<Verdict> for Expr {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

/// From where bytes of a packet are counted (`NFT_PAYLOAD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PayloadBase {
    /// Link layer header.
    Link,
    /// IP header.
    Network,
    /// Header of the transport protocol.
    Transport,
    /// What follows that.
    Inner,
}

impl PayloadBase {
    /// The kernel's number.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Link => 0,
            Self::Network => 1,
            Self::Transport => 2,
            Self::Inner => 3,
        }
    }

    /// The one with this number.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Link,
            1 => Self::Network,
            2 => Self::Transport,
            3 => Self::Inner,
            _ => return None,
        })
    }
}

/// Comparisons (`NFT_CMP_*`). Less and greater compare byte by byte: numbers must be in network
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

impl Compare {
    /// The kernel's number.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Eq => 0,
            Self::Neq => 1,
            Self::Lt => 2,
            Self::Lte => 3,
            Self::Gt => 4,
            Self::Gte => 5,
        }
    }

    /// The one with this number.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Eq,
            1 => Self::Neq,
            2 => Self::Lt,
            3 => Self::Lte,
            4 => Self::Gt,
            5 => Self::Gte,
            _ => return None,
        })
    }
}

/// What a question to the routing table is about (`NFTA_FIB_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibFlags(pub u32);

impl FibFlags {
    /// The packet's source address.
    pub const SOURCE: Self = Self(1);
    /// The packet's destination address.
    pub const DESTINATION: Self = Self(2);
    /// Routes for its mark.
    pub const MARK: Self = Self(4);
    /// Only by the interface that it came from.
    pub const INPUT: Self = Self(8);
    /// Only by the interface that it leaves by.
    pub const OUTPUT: Self = Self(16);
    /// Whether there is a route: 1 or 0 instead of the result.
    pub const PRESENT: Self = Self(32);
}

impl std::ops::BitOr for FibFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What to ask the routing table (`NFT_FIB_RESULT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibResult {
    /// Index of the interface, 4 bytes.
    OutputInterface,
    /// Name of the interface, 16 bytes.
    OutputName,
    /// Kind of the address, 4 bytes in the order of this machine: [`FibResult::LOCAL`] and other
    /// `RTN_*`.
    AddressType,
}

impl FibResult {
    /// `RTN_LOCAL`: an address of this host.
    pub const LOCAL: u32 = 2;
}

impl FibResult {
    /// The kernel's number.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::OutputInterface => 1,
            Self::OutputName => 2,
            Self::AddressType => 3,
        }
    }

    /// The one with this number.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::OutputInterface,
            2 => Self::OutputName,
            3 => Self::AddressType,
            _ => return None,
        })
    }
}

/// Registers with the first and the last of several addresses or ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first.
    pub first: Register,
    /// The last; the same register if there is only one.
    pub last: Register,
}

impl Range {
    /// One address or port.
    pub const fn one(register: Register) -> Self {
        Self { first: register, last: register }
    }
}

/// What address translation changes (`NFT_NAT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

impl NatKind {
    /// The kernel's number.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Source => 0,
            Self::Destination => 1,
        }
    }

    /// The one with this number.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Source,
            1 => Self::Destination,
            _ => return None,
        })
    }
}

/// How address translation chooses (`NF_NAT_RANGE_*`). The bits that say that there are addresses
/// or ports follow from these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NatFlags(u32);

impl NatFlags {
    /// The kernel's way: the same port where it is free.
    pub const NONE: Self = Self(0);
    /// Random ports (`random`).
    pub const RANDOM: Self = Self(0x4);
    /// The same address for all connections of a client (`persistent`).
    pub const PERSISTENT: Self = Self(0x8);
    /// Random ports without a look at the connection (`fully-random`).
    pub const FULLY_RANDOM: Self = Self(0x10);

    /// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`.
    const DERIVED: u32 = 0x1 | 0x2;

    /// From the kernel's bits, without those that follow from addresses and ports.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !Self::DERIVED)
    }

    /// The bits as the kernel takes them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl std::ops::BitOr for NatFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the sender of a rejected packet is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// ICMP destination unreachable with this code, of the table's family
    /// (`NFT_REJECT_ICMP_UNREACH`).
    Icmp(u8),
    /// TCP reset; only of TCP packets (`NFT_REJECT_TCP_RST`).
    TcpReset,
    /// ICMP destination unreachable for the packet's own family, with a code for both:
    /// `NFT_REJECT_ICMPX_*` (`NFT_REJECT_ICMPX_UNREACH`).
    Icmpx(u8),
}

impl Reject {
    /// `nft` rejects with this in `ip` tables (port unreachable).
    pub const ICMP_PORT: Self = Self::Icmp(3);
    /// `nft` rejects with this in `ip6` tables (port unreachable).
    pub const ICMPV6_PORT: Self = Self::Icmp(4);
    /// `nft` rejects with this in `inet` tables (port unreachable).
    pub const ICMPX_PORT: Self = Self::Icmpx(1);

    /// `NFT_REJECT_*`
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Icmp(_) => 0,
            Self::TcpReset => 1,
            Self::Icmpx(_) => 2,
        }
    }
}
