//! Sets and maps, and what is in them.

use std::time::Duration;

use crate::{Value, Verdict};

/// The type of a set's key, of a part of it, or of a map's value.
///
/// The kernel knows lengths only; it keeps the number for `nft`, which prints a set by it. Numbers
/// as in nft's manual pages and as captured from `nft` 1.0.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `ipv4_addr`, 4 bytes, network order.
    Ipv4Addr,
    /// `ipv6_addr`, 16 bytes.
    Ipv6Addr,
    /// `ether_addr`, 6 bytes.
    EtherAddr,
    /// `inet_proto`, 1 byte: an IP protocol number.
    InetProto,
    /// `inet_service`, 2 bytes, network order: a port.
    InetService,
    /// `mark`, 4 bytes, order of this machine.
    Mark,
    /// `iface_index`, 4 bytes, order of this machine.
    InterfaceIndex,
    /// `ifname`, 16 bytes: see [`Value::interface`].
    InterfaceName,
    /// Anything else: nft's number of the whole key or value, and its length in bytes.
    Other {
        /// The number. Of a concatenation: six bits a part.
        number: u32,
        /// Bytes, the filling of the parts of a concatenation included.
        length: u32,
    },
}

impl DataType {
    /// nft's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::InterfaceIndex => 20,
            Self::InterfaceName => 41,
            Self::Other { number, .. } => number,
        }
    }

    /// Its length in bytes, without filling.
    pub const fn length(self) -> u32 {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark | Self::InterfaceIndex => 4,
            Self::EtherAddr => 6,
            Self::Ipv6Addr | Self::InterfaceName => 16,
            Self::Other { length, .. } => length,
        }
    }

    /// The type with this number, if it has a name here.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            7 => Self::Ipv4Addr,
            8 => Self::Ipv6Addr,
            9 => Self::EtherAddr,
            12 => Self::InetProto,
            13 => Self::InetService,
            19 => Self::Mark,
            20 => Self::InterfaceIndex,
            41 => Self::InterfaceName,
            _ => return None,
        })
    }
}

/// Flags of a set that are the user's to choose (`NFT_SET_*`); those for maps and for
/// concatenations follow from its types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SetFlags(u32);

impl SetFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Of one rule, and deleted with it.
    pub const ANONYMOUS: Self = Self(0x1);
    /// Not changed while rules use it.
    pub const CONSTANT: Self = Self(0x2);
    /// Holds ranges: see [`Element`].
    pub const INTERVAL: Self = Self(0x4);
    /// Elements may expire.
    pub const TIMEOUT: Self = Self(0x10);
    /// Rules may change it (`flags dynamic`).
    pub const DYNAMIC: Self = Self(0x20);

    /// `NFT_SET_MAP`, `NFT_SET_OBJECT` and `NFT_SET_CONCAT`.
    const DERIVED: u32 = 0x8 | 0x40 | 0x80;

    /// From the kernel's bits, without those that follow from types. Unknown ones are kept.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & !Self::DERIVED)
    }

    /// The bits as the kernel takes them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for SetFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A named set, or a map if its elements have data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// Its name, at most 255 bytes, unique within its table.
    pub name: String,
    /// The type of its key: several make a concatenation.
    pub key: Vec<DataType>,
    /// What its elements map to; `None` for a set.
    pub data: Option<MapData>,
    /// Flags.
    pub flags: SetFlags,
    /// How long elements stay that have no timeout of their own. Needs [`SetFlags::TIMEOUT`]. The
    /// kernel counts in whole milliseconds, rounded to its clock tick.
    pub timeout: Option<Duration>,
    /// The most elements that it takes. A set that has a size, and no timeout, is a hash table that
    /// does not grow: elements are added faster, and lists are never read twice
    /// ([`Client::elements`](crate::Client::elements)). An interval that is not of a concatenation may count as two
    /// ([`Element`]).
    pub size: Option<u32>,
    /// A comment for people, at most 127 bytes for `nft` to show it.
    pub comment: Option<String>,
}

impl Set {
    /// A set without flags.
    pub fn new(name: impl Into<String>, key: impl Into<Vec<DataType>>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            data: None,
            flags: SetFlags::NONE,
            timeout: None,
            size: None,
            comment: None,
        }
    }

    /// The bytes of a key.
    pub fn key_length(&self) -> u32 {
        length(&self.key)
    }
}

/// The bytes of a key or value: each part of a concatenation begins at a multiple of four.
pub(crate) fn length(types: &[DataType]) -> u32 {
    match types {
        [only] => only.length(),
        parts => {
            let lengths = parts.iter().map(|part| part.length().saturating_add(3) & !3);
            lengths.fold(0, u32::saturating_add)
        }
    }
}

/// What the elements of a map map to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapData {
    /// Verdicts (`vmap`).
    Verdict,
    /// A value: several types make a concatenation.
    Value(Vec<DataType>),
    /// Stateful objects, such as counters, of this type (`NFT_OBJECT_*`). They are read, not
    /// written.
    Object(u32),
}

/// An element of a set or map.
///
/// Intervals ([`SetFlags::INTERVAL`]) are given in two ways. With a key of one part, an interval is
/// two elements: one with its first key, and one with the key after its last
/// ([`Element::interval_end`]), which is left out if there is none. With a concatenated key it is
/// one element whose [`key_end`](Self::key_end) has the last value of each part.
///
/// Intervals of concatenated keys may lie in each other if the narrower one is added first, also in
/// the same transaction. The kernel refuses (`EEXIST`) an interval whose first or last key is in one
/// that is there, unless it is the same one; so a wider one must go before a narrower one can be
/// added. (Linux 6.1 and 6.18, as tried by a test.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The key; empty for one that stands for every key that no other element has
    /// ([`Element::catch_all`]).
    pub key: Value,
    /// The last key of an interval in a set with concatenated keys.
    pub key_end: Option<Value>,
    /// Whether an interval ends before this key, in a set with keys of one part.
    pub interval_end: bool,
    /// Whether it stands for every key that no other element has (`*`, since Linux 5.13).
    pub catch_all: bool,
    /// What it maps to, in a map.
    pub data: Option<Data>,
    /// How long it stays, if not as long as its set says. The kernel counts in whole milliseconds,
    /// rounded to its clock tick, and does not tell a timeout that is the set's. Zero: for ever,
    /// although the set has a timeout (since Linux 6.12).
    pub timeout: Option<Duration>,
    /// A comment for people, at most 127 bytes for `nft` to show it.
    pub comment: Option<String>,
}

impl Element {
    /// One key.
    pub fn new(key: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            key_end: None,
            interval_end: false,
            catch_all: false,
            data: None,
            timeout: None,
            comment: None,
        }
    }

    /// A concatenated key of these parts.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Value>) -> Self {
        Self::new(Value::concatenation(parts))
    }

    /// From `first` to `last` in each part of a concatenated key.
    pub fn range(first: Value, last: Value) -> Self {
        Self { key_end: Some(last), ..Self::new(first) }
    }

    /// What stands before `key` is of an interval and this is not.
    pub fn end_of_interval(key: impl Into<Value>) -> Self {
        Self { interval_end: true, ..Self::new(key) }
    }

    /// Every key that no other element has.
    pub fn every_other() -> Self {
        Self { catch_all: true, ..Self::new(Value::default()) }
    }

    /// The same, mapped to a verdict or value.
    #[must_use]
    pub fn with_data(self, data: impl Into<Data>) -> Self {
        Self { data: Some(data.into()), ..self }
    }

    /// The same with a timeout of its own.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// The same with a comment.
    #[must_use]
    pub fn with_comment(self, comment: impl Into<String>) -> Self {
        Self { comment: Some(comment.into()), ..self }
    }
}

/// An element in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementEntry {
    /// The element.
    pub element: Element,
    /// How long it still stays; `None` if it does not expire.
    pub expires_in: Option<Duration>,
}

/// What a key maps to, or what is put into a register.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// A verdict.
    Verdict(Verdict),
    /// A value.
    Value(Value),
}

impl From<Verdict> for Data {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Value> for Data {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}
