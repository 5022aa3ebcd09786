//! Tables, chains and rules as plain data.
//!
//! What someone configures ([`Table`], [`Chain`], [`Rule`]) is separate from what the kernel adds
//! (the handles in [`Entry`], counters, counts of users), so that what is read back compares equal
//! to what was written. Source of the numbers: `include/uapi/linux/netfilter/nf_tables.h` and
//! `netfilter.h`.

use crate::Expr;

/// Which packets the chains of a table see (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Family {
    /// `inet`: IPv4 and IPv6 (`NFPROTO_INET`, 1).
    Inet,
    /// `ip`: IPv4 (`NFPROTO_IPV4`, 2).
    Ipv4,
    /// `arp` (`NFPROTO_ARP`, 3).
    Arp,
    /// `netdev`: all packets of an interface (`NFPROTO_NETDEV`, 5).
    Netdev,
    /// `bridge` (`NFPROTO_BRIDGE`, 7).
    Bridge,
    /// `ip6`: IPv6 (`NFPROTO_IPV6`, 10).
    Ipv6,
}

impl Family {
    /// Its number, `NFPROTO_*`.
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
        }
    }

    /// The family with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Inet,
            2 => Self::Ipv4,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ipv6,
            _ => return None,
        })
    }

    /// Its name in `nft`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
        }
    }
}

/// What identifies a table. Tables of different families may have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// Its family.
    pub family: Family,
    /// Its name, at most 255 bytes.
    pub name: String,
}

impl TableKey {
    /// A key of these.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

/// `ip proxy`, as `nft` names a table.
impl std::fmt::Display for TableKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// Flags of a table (`NFT_TABLE_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TableFlags(pub u32);

impl TableFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Its chains see no packets.
    pub const DORMANT: Self = Self(0x1);
    /// Only the socket that made it may change it, and it goes when that is closed (since Linux
    /// 5.12).
    pub const OWNER: Self = Self(0x2);
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Identity.
    pub key: TableKey,
    /// Flags.
    pub flags: TableFlags,
    /// A comment for people, at most 127 bytes for `nft` to show it (since Linux 5.10).
    pub comment: Option<String>,
}

impl Table {
    /// Without flags or a comment.
    pub fn new(key: TableKey) -> Self {
        Self { key, flags: TableFlags::NONE, comment: None }
    }
}

/// A table in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// The table.
    pub table: Table,
    /// The kernel's number for it.
    pub handle: u64,
    /// The netlink port of the socket that owns it ([`TableFlags::OWNER`]).
    pub owner: Option<u32>,
}

/// An object of a table in the kernel, with the number that the kernel gave it. Numbers are unique
/// within a table and are not used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry<T> {
    /// The object.
    pub object: T,
    /// The kernel's number for it.
    pub handle: u64,
}

/// A list of rules: one that the kernel calls with packets, or one that rules jump to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// Its name, at most 255 bytes, unique within its table.
    pub name: String,
    /// Where packets come from; `None`: only from rules that jump to it.
    pub base: Option<BaseChain>,
    /// A comment for people, at most 127 bytes for `nft` to show it (since Linux 5.10).
    pub comment: Option<String>,
}

impl Chain {
    /// A chain that rules jump to.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: None, comment: None }
    }
}

/// When the kernel calls a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseChain {
    /// What its rules may do.
    pub kind: ChainKind,
    /// Where on a packet's way.
    pub hook: Hook,
    /// When among the chains of this hook: lower numbers first. See [`priority`].
    pub priority: i32,
    /// What happens to a packet that no rule decides about.
    pub policy: Policy,
}

/// What the rules of a base chain may do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// `filter`: everything but address translation.
    Filter,
    /// `nat`: address translation; sees only the first packet of a connection.
    Nat,
    /// `route`: in [`Hook::Output`] only; a packet whose mark or addresses change is routed again.
    Route,
    /// One that has no name here.
    Other(String),
}

impl ChainKind {
    /// The kernel's name for it.
    pub fn name(&self) -> &str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
            Self::Other(name) => name,
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "filter" => Self::Filter,
            "nat" => Self::Nat,
            "route" => Self::Route,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Where on a packet's way (`NF_INET_*`). The numbers of the families `arp` and `netdev` mean
/// other places: use [`Hook::from_number`] there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Every packet that arrives, before routing.
    Prerouting,
    /// Packets to this host.
    Input,
    /// Packets that this host forwards.
    Forward,
    /// Packets that this host sends.
    Output,
    /// Every packet that leaves, after routing.
    Postrouting,
    /// One that has no name here.
    Other(u32),
}

impl Hook {
    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    /// The hook with this number.
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            other => Self::Other(other),
        }
    }
}

/// Priorities to which `nft` gives names, and others of the kernel (`NF_IP_PRI_*`).
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Where connections are tracked: afterwards rules know the state of a connection.
    pub const CONNTRACK: i32 = -200;
    /// Where packets are usually marked.
    pub const MANGLE: i32 = -150;
    /// Where destinations are translated.
    pub const DSTNAT: i32 = -100;
    /// Where packets are usually filtered.
    pub const FILTER: i32 = 0;
    /// After filters.
    pub const SECURITY: i32 = 50;
    /// Where sources are translated.
    pub const SRCNAT: i32 = 100;
}

/// What happens to a packet that no rule of a base chain decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Policy {
    /// It goes on (`NF_ACCEPT`).
    #[default]
    Accept,
    /// It is dropped (`NF_DROP`).
    Drop,
}

/// A rule: expressions that are evaluated from left to right until one does not match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// The name of its chain.
    pub chain: String,
    /// What it does.
    pub expressions: Vec<Expr>,
    /// A comment for people, at most 127 bytes for `nft` to take it.
    pub comment: Option<String>,
}

impl Rule {
    /// Without a comment.
    pub fn new(chain: impl Into<String>, expressions: impl Into<Vec<Expr>>) -> Self {
        Self { chain: chain.into(), expressions: expressions.into(), comment: None }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// No other rule of this base chain sees it; chains of later priorities do.
    Accept,
    /// It is dropped at once.
    Drop,
    /// The next rule.
    Continue,
    /// Back to the rule after the jump; in a base chain the policy decides.
    Return,
    /// The rules of this chain, then the next rule.
    Jump(String),
    /// The rules of this chain, then what comes after this one.
    Goto(String),
    /// Any other number, without its chain: `NF_QUEUE` and others.
    Other(i32),
}

impl Verdict {
    // `NF_DROP` and `NF_ACCEPT` of `netfilter.h`, then `NFT_*`.
    const DROP: i32 = 0;
    const ACCEPT: i32 = 1;
    const CONTINUE: i32 = -1;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    const RETURN: i32 = -5;

    /// The kernel's number.
    pub(crate) const fn number(&self) -> i32 {
        match self {
            Self::Accept => Self::ACCEPT,
            Self::Drop => Self::DROP,
            Self::Continue => Self::CONTINUE,
            Self::Return => Self::RETURN,
            Self::Jump(_) => Self::JUMP,
            Self::Goto(_) => Self::GOTO,
            Self::Other(number) => *number,
        }
    }

    /// The verdict with this number and chain.
    pub(crate) fn from_number(number: i32, chain: Option<String>) -> Self {
        match (number, chain) {
            (Self::ACCEPT, _) => Self::Accept,
            (Self::DROP, _) => Self::Drop,
            (Self::CONTINUE, _) => Self::Continue,
            (Self::RETURN, _) => Self::Return,
            (Self::JUMP, Some(chain)) => Self::Jump(chain),
            (Self::GOTO, Some(chain)) => Self::Goto(chain),
            (number, _) => Self::Other(number),
        }
    }
}
