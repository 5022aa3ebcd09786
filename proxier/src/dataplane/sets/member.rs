//! Members of sets.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol};

use super::{SetId, SetType};

/// One member of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Member {
    /// Of `hash:ip`.
    Ip(IpAddr),
    /// Of `hash:ip,port`.
    IpPort(IpAddr, Protocol, u16),
    /// Of `hash:ip,port,ip`.
    IpPortIp(IpAddr, Protocol, u16, IpAddr),
    /// Of `hash:ip,port,net`; the network is in its truncated form.
    IpPortNet(IpAddr, Protocol, u16, IpNet),
    /// Of `bitmap:port`.
    Port(u16),
    /// Of [`SetType::Expiring`], with its mark; 0 is none.
    Marked(IpAddr, Protocol, u16, u32),
}

impl Member {
    /// Its address, the first if it has two.
    pub fn address(&self) -> Option<IpAddr> {
        match *self {
            Self::Ip(address)
            | Self::IpPort(address, ..)
            | Self::IpPortIp(address, ..)
            | Self::IpPortNet(address, ..)
            | Self::Marked(address, ..) => Some(address),
            Self::Port(_) => None,
        }
    }

    /// Whether it is of the type and family of a set.
    pub fn fits(&self, set: SetId) -> bool {
        let (kind, address) = match *self {
            Self::Ip(address) => (SetType::HashIp, Some(address)),
            Self::IpPort(address, ..) => (SetType::HashIpPort, Some(address)),
            Self::IpPortIp(address, ..) => (SetType::HashIpPortIp, Some(address)),
            Self::IpPortNet(address, ..) => (SetType::HashIpPortNet, Some(address)),
            Self::Port(_) => (SetType::BitmapPort, None),
            Self::Marked(address, ..) => (SetType::Expiring, Some(address)),
        };
        let second = match *self {
            Self::IpPortIp(.., address) => Some(address),
            Self::IpPortNet(.., net) => Some(net.addr()),
            Self::Ip(_) | Self::IpPort(..) | Self::Port(_) | Self::Marked(..) => None,
        };
        let of_family = |address: IpAddr| Family::of(address) == set.family;
        kind == set.set_type() && address.is_none_or(of_family) && second.is_none_or(of_family)
    }

    /// Where its kind stands in the order.
    fn rank(&self) -> u8 {
        match self {
            Self::Ip(_) => 0,
            Self::IpPort(..) => 1,
            Self::IpPortIp(..) => 2,
            Self::IpPortNet(..) => 3,
            Self::Port(_) => 4,
            Self::Marked(..) => 5,
        }
    }
}

/// The order that derive gives, with a fifth fewer instructions: in a first step members are compared more
/// often than anything else.
impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Ip(ip), Self::Ip(ip2)) => cmp_addresses(*ip, *ip2),
            (Self::IpPort(ip, protocol, port), Self::IpPort(ip2, protocol2, port2)) => {
                cmp_addresses(*ip, *ip2).then_with(|| (protocol, port).cmp(&(protocol2, port2)))
            }
            (
                Self::IpPortIp(ip, protocol, port, source),
                Self::IpPortIp(ip2, protocol2, port2, source2),
            ) => cmp_addresses(*ip, *ip2)
                .then_with(|| (protocol, port, source).cmp(&(protocol2, port2, source2))),
            (
                Self::IpPortNet(ip, protocol, port, net),
                Self::IpPortNet(ip2, protocol2, port2, net2),
            ) => cmp_addresses(*ip, *ip2)
                .then_with(|| (protocol, port, net).cmp(&(protocol2, port2, net2))),
            (Self::Port(port), Self::Port(port2)) => port.cmp(port2),
            (
                Self::Marked(ip, protocol, port, mark),
                Self::Marked(ip2, protocol2, port2, mark2),
            ) => cmp_addresses(*ip, *ip2)
                .then_with(|| (protocol, port, mark).cmp(&(protocol2, port2, mark2))),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of `IpAddr`, by numbers instead of bytes.
fn cmp_addresses(one: IpAddr, other: IpAddr) -> Ordering {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.to_bits().cmp(&other.to_bits()),
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits().cmp(&other.to_bits()),
        _ => one.is_ipv6().cmp(&other.is_ipv6()),
    }
}

/// As `ipset save` prints it; a network of one address has no prefix length there.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::IpPort(ip, protocol, port) | Self::Marked(ip, protocol, port, 0) => {
                write!(f, "{ip},{protocol}:{port}")
            }
            Self::IpPortIp(ip, protocol, port, ip2) => write!(f, "{ip},{protocol}:{port},{ip2}"),
            Self::IpPortNet(ip, protocol, port, net)
                if net.prefix_len() == net.max_prefix_len() =>
            {
                write!(f, "{ip},{protocol}:{port},{}", net.addr())
            }
            Self::IpPortNet(ip, protocol, port, net) => write!(f, "{ip},{protocol}:{port},{net}"),
            Self::Port(port) => port.fmt(f),
            Self::Marked(ip, protocol, port, mark) => {
                write!(f, "{ip},{protocol}:{port} skbmark {mark:#x}")
            }
        }
    }
}

/// A member that this program would never add: of another kind, or with options of its own. It is
/// known by the bytes with which the kernel lists it, and by which it can be removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignMember {
    /// The netlink attributes of the element.
    pub attributes: Arc<[u8]>,
    /// What `ipset save` would print, as far as it is understood.
    pub text: Arc<str>,
}

impl fmt::Display for ForeignMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_print_as_ipset_saves_them() {
        let ip: IpAddr = "1.2.3.4".parse().unwrap();
        let net = |text: &str| Member::IpPortNet(ip, Protocol::Tcp, 80, text.parse().unwrap());
        assert_eq!(net("10.0.0.0/8").to_string(), "1.2.3.4,tcp:80,10.0.0.0/8");
        assert_eq!(net("10.0.0.7/32").to_string(), "1.2.3.4,tcp:80,10.0.0.7");
        let v6 = Member::IpPortIp(
            "fd00::1".parse().unwrap(),
            Protocol::Sctp,
            9,
            "fd00::2".parse().unwrap(),
        );
        assert_eq!(v6.to_string(), "fd00::1,sctp:9,fd00::2");
        assert_eq!(Member::Port(30080).to_string(), "30080");
        let marked = |mark| Member::Marked(ip, Protocol::Udp, 53, mark).to_string();
        assert_eq!(marked(0x1001), "1.2.3.4,udp:53 skbmark 0x1001");
        assert_eq!(marked(0), "1.2.3.4,udp:53");
    }

    #[test]
    fn members_are_in_the_order_of_their_fields() {
        let ips: Vec<IpAddr> = ["1.2.3.4", "1.2.4.3", "200.0.0.1", "::1", "::102:304", "fd00::1"]
            .map(|ip| ip.parse().unwrap())
            .into();
        let nets: [IpNet; 3] =
            ["1.0.0.0/8", "1.0.0.0/9", "fd00::/8"].map(|net| net.parse().unwrap());
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Other(9)];
        let mut all: Vec<Member> = ips.iter().copied().map(Member::Ip).collect();
        let places = || {
            let of = |ip| protocols.map(|protocol| [(ip, protocol, 80), (ip, protocol, 8080)]);
            ips.iter().copied().flat_map(of).flatten()
        };
        all.extend(places().map(|(ip, protocol, port)| Member::IpPort(ip, protocol, port)));
        all.extend(places().flat_map(|(ip, protocol, port)| {
            ips.iter().map(move |second| Member::IpPortIp(ip, protocol, port, *second))
        }));
        all.extend(places().flat_map(|(ip, protocol, port)| {
            nets.map(|net| Member::IpPortNet(ip, protocol, port, net))
        }));
        all.extend([1, 80, 65535].map(Member::Port));
        all.extend(places().flat_map(|(ip, protocol, port)| {
            [0, 7, u32::MAX].map(|mark| Member::Marked(ip, protocol, port, mark))
        }));
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one.cmp(other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }
}
