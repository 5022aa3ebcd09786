//! Addresses that mean something else than a machine, and what of that matters for services.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// A virtual server has it, so it is bound to the node. The API server has allocated it from a
    /// range that an administrator has chosen.
    ClusterIp,
    /// The same, but whoever may write the object has chosen it.
    Frontend,
    /// Traffic is sent to it.
    Backend,
}

/// Why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Special {
    /// `0.0.0.0`, `::`
    Unspecified,
    /// 127.0.0.0/8, `::1`
    Loopback,
    /// `224.0.0.0/4`, `ff00::/8`
    Multicast,
    /// `255.255.255.255`
    Broadcast,
    /// `169.254.0.0/16`, `fe80::/10`
    LinkLocal,
    /// 0.0.0.0/8
    ThisNetwork,
    /// 240.0.0.0/4
    Future,
    /// Where clouds tell a machine its secrets.
    Metadata,
}

/// Metadata services of clouds that are not link-local: Alibaba, Oracle, Azure.
const METADATA4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
/// Amazon, Google.
const METADATA6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

impl Special {
    /// Whether an address is one that cannot be used so.
    ///
    /// The API server refuses most of them itself. Pods and cluster IPs may be in 240.0.0.0/4, since
    /// there are clusters that have run out of everything else, and IPv4 cluster IPs in 169.254.0.0/16.
    pub fn of(address: IpAddr, used: Use) -> Option<Self> {
        let chosen = used == Use::Frontend;
        let allocated = used == Use::ClusterIp;
        Some(match address {
            ip if ip.is_unspecified() => Self::Unspecified,
            ip if ip.is_loopback() => Self::Loopback,
            ip if ip.is_multicast() => Self::Multicast,
            IpAddr::V4(Ipv4Addr::BROADCAST) => Self::Broadcast,
            IpAddr::V4(ip) if ip.is_link_local() && !allocated => Self::LinkLocal,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Self::LinkLocal,
            IpAddr::V4(ip) if ip.octets()[0] == 0 => Self::ThisNetwork,
            IpAddr::V4(ip) if ip.octets()[0] >= 240 && chosen => Self::Future,
            IpAddr::V4(ip) if METADATA4.contains(&ip) && !allocated => Self::Metadata,
            IpAddr::V6(ip) if METADATA6.contains(&ip) && !allocated => Self::Metadata,
            _ => return None,
        })
    }
}

impl Special {
    /// The kind of address in a word or two: `loopback`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::LinkLocal => "link-local",
            Self::ThisNetwork => "0.0.0.0/8",
            Self::Future => "240.0.0.0/4",
            Self::Metadata => "cloud metadata",
        }
    }
}

/// `a loopback address`
impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address",
            Self::Multicast | Self::Broadcast => "a multicast or broadcast address",
            Self::LinkLocal => "a link-local address",
            Self::ThisNetwork => "an address of no network (0.0.0.0/8)",
            Self::Future => "an address that is reserved for the future (240.0.0.0/4)",
            Self::Metadata => "the address of a cloud's metadata service",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_and_for_what() {
        use Use::{Backend, ClusterIp, Frontend};
        let all = &[ClusterIp, Frontend, Backend][..];
        let foreign = &[Frontend, Backend][..];
        for (address, special, uses) in [
            ("0.0.0.0", Special::Unspecified, all),
            ("::", Special::Unspecified, all),
            ("127.1.2.3", Special::Loopback, all),
            ("::1", Special::Loopback, all),
            ("224.0.0.1", Special::Multicast, all),
            ("ff02::1", Special::Multicast, all),
            ("255.255.255.255", Special::Broadcast, all),
            ("169.254.169.254", Special::LinkLocal, foreign),
            ("fe80::1", Special::LinkLocal, all),
            ("0.1.2.3", Special::ThisNetwork, all),
            ("240.0.0.1", Special::Future, &[Frontend][..]),
            ("254.1.2.3", Special::Future, &[Frontend][..]),
            ("100.100.100.200", Special::Metadata, foreign),
            ("168.63.129.16", Special::Metadata, foreign),
            ("192.0.0.192", Special::Metadata, foreign),
            ("fd00:ec2::254", Special::Metadata, foreign),
            ("fd20:ce::254", Special::Metadata, foreign),
        ] {
            for used in all {
                let wanted = uses.contains(used).then_some(special);
                let address = address.parse().unwrap();
                assert_eq!(Special::of(address, *used), wanted, "{address} {used:?}");
            }
        }
        for plain in ["192.0.2.1", "100.64.0.1", "1.0.0.1", "2001:db8::1", "fd00:ec2::253"] {
            for used in all {
                assert_eq!(Special::of(plain.parse().unwrap(), *used), None, "{plain}");
            }
        }
    }
}
