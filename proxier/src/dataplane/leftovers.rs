//! What kube-proxy's other modes leave behind, and our own other backend.

use std::fmt;

use netlink_ipvs::Family;

/// The table of nftables mode; one in each of the families `ip` and `ip6`.
pub const NFTABLES_TABLE: &str = "kube-proxy";

/// What another mode of kube-proxy, or another backend, has left, by which packets to services go on as they went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leftover {
    /// Chains and jumps of iptables mode.
    Iptables(Family),
    /// The table of nftables mode.
    Nftables(Family),
    /// Chains, jumps and sets of IPVS mode, which are our own of the backend iptables too, where
    /// nftables is the backend.
    Ipvs(Family),
    /// Our own table of nftables, where iptables is the backend.
    OwnTable(Family),
}

impl Leftover {
    /// Whose packets it takes.
    pub fn family(self) -> Family {
        let (Self::Iptables(family)
        | Self::Nftables(family)
        | Self::Ipvs(family)
        | Self::OwnTable(family)) = self;
        family
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iptables(family) => write!(f, "{family} rules of kube-proxy's iptables mode"),
            Self::Nftables(family) => write!(f, "{family} table of kube-proxy's nftables mode"),
            Self::Ipvs(family) => write!(f, "{family} rules and sets of IPVS mode in iptables"),
            Self::OwnTable(family) => write!(f, "{family} table proxier of nftables"),
        }
    }
}
