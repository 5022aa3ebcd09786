//! Local routes: addresses that this machine takes in without having them on an interface.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_batch::{Failure, Malformed, Message, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::address::{host_prefix_len, Report};
use crate::error::failed;
use crate::route;

/// `RT_TABLE_LOCAL` of `linux/rtnetlink.h`.
pub(crate) const LOCAL_TABLE: u8 = 255;

/// The metric of every route that is made here. Those by which the kernel itself takes in an address
/// of an interface have none, so that both can be there: the kernel's is used as long as it is.
/// It is also what an IPv6 route has to which nobody gives one.
const METRIC: u32 = 1024;

/// A local route to one address (`ip route add local ADDRESS dev NAME table local`): the machine takes
/// packets to it, as if it had the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRoute {
    /// The address.
    pub address: IpAddr,
    /// The source address of what this machine itself sends there; the kernel chooses one if there is
    /// none. It has to be an address of this machine.
    pub source: Option<IpAddr>,
}

/// A route as the kernel lists it, with everything that identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedRoute {
    /// The network that it leads to.
    pub destination: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_len: u8,
    /// Its table (`RT_TABLE_*`).
    pub table: u32,
    /// Its type (`RTN_*`).
    pub kind: u8,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// Its scope (`RT_SCOPE_*`).
    pub scope: u8,
    /// Its type of service.
    pub tos: u8,
    /// Its metric.
    pub metric: u32,
    /// Index of its interface.
    pub interface: u32,
}

/// One change of the routes of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "RTM_NEWROUTE")]
#[doc(alias = "RTM_DELROUTE")]
pub enum RouteChange {
    /// Add the local route, or give the one that is there this source address, in one step.
    Set(LocalRoute),
    /// Remove the local route to this address.
    Remove(IpAddr),
    /// Remove exactly this route, as [`routes`](crate::DummyInterface::routes) lists it.
    RemoveListed(ListedRoute),
}

/// The routes of an interface that others than the kernel have made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Local routes as [`RouteChange::Set`] makes them: the source address of each address.
    pub local: BTreeMap<IpAddr, Option<IpAddr>>,
    /// All others that were asked for.
    pub others: BTreeSet<ListedRoute>,
}

impl ListedRoute {
    /// Its family, as the kernel counts them.
    fn family(&self) -> AddressFamily {
        family(self.destination)
    }
}

/// As `ip route` prints it, without the interface.
impl fmt::Display for ListedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RouteType::from(self.kind) {
            RouteType::Unicast => {}
            RouteType::Local => f.write_str("local ")?,
            RouteType::BlackHole => f.write_str("blackhole ")?,
            _ => write!(f, "type {} ", self.kind)?,
        }
        write!(f, "{}/{}", self.destination, self.prefix_len)?;
        match self.table {
            255 => f.write_str(" table local"),
            254 => Ok(()),
            table => write!(f, " table {table}"),
        }
    }
}

impl fmt::Display for RouteChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(LocalRoute { address, source: None }) => {
                write!(f, "set local route {address}")
            }
            Self::Set(LocalRoute { address, source: Some(source) }) => {
                write!(f, "set local route {address} with source {source}")
            }
            Self::Remove(address) => write!(f, "remove local route {address}"),
            Self::RemoveListed(route) => write!(f, "remove route {route}"),
        }
    }
}

impl RouteChange {
    fn request(self, interface: u32, protocol: u8) -> (RouteNetlinkMessage, u16) {
        let route = match self {
            Self::Set(LocalRoute { address, .. }) | Self::Remove(address) => {
                ListedRoute { protocol, interface, ..own(address) }
            }
            Self::RemoveListed(route) => route,
        };
        let mut message = message(&route);
        match self {
            Self::Set(LocalRoute { source, .. }) => {
                message.attributes.extend(source.map(|ip| RouteAttribute::PrefSource(ip.into())));
                (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            }
            Self::Remove(_) | Self::RemoveListed(_) => (RouteNetlinkMessage::DelRoute(message), 0),
        }
    }

    /// Whether the kernel refuses it only because nothing has to be done.
    fn is_done_already(self, failure: &Failure) -> bool {
        !matches!(self, Self::Set(_)) && failure.is_refusal(Errno::SRCH)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// The route that is made for an address, but for its interface and protocol.
fn own(address: IpAddr) -> ListedRoute {
    // IPv6 routes have no scope.
    let scope = if address.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    ListedRoute {
        destination: address,
        prefix_len: host_prefix_len(address),
        table: LOCAL_TABLE.into(),
        kind: RouteType::Local.into(),
        protocol: 0,
        scope: scope.into(),
        tos: 0,
        metric: METRIC,
        interface: 0,
    }
}

fn message(route: &ListedRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: route.family(),
        destination_prefix_length: route.prefix_len,
        tos: route.tos,
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: route.protocol.into(),
        scope: route.scope.into(),
        kind: route.kind.into(),
        ..RouteHeader::default()
    };
    if route.prefix_len > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.into()));
    }
    if message.header.table == RouteHeader::RT_TABLE_UNSPEC {
        message.attributes.push(RouteAttribute::Table(route.table));
    }
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message.attributes.push(RouteAttribute::Oif(route.interface));
    message
}

/// Applies `changes` to the interface with this index and name.
pub(crate) fn apply(
    socket: &mut Socket,
    (index, name): (u32, &str),
    protocol: u8,
    changes: impl IntoIterator<Item = RouteChange>,
) -> Report {
    socket.execute(
        changes,
        |batch, change| {
            let (message, flags) = change.request(index, protocol);
            route::push(batch, &message, flags);
        },
        |change, failure| {
            let done = change.is_done_already(&failure);
            (!done).then(|| failed(format!("{change} on {name}"), failure))
        },
    )
}

/// The routes of `protocol`, on whatever interface they are, and those on interface `index` that people
/// and scripts add (`boot`, `static`).
pub(crate) fn list(socket: &mut Socket, index: u32, protocol: u8) -> Result<Routes, Failure> {
    let mut routes = Routes::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for of in [protocol, RouteProtocol::Boot.into(), RouteProtocol::Static.into()] {
            // The kernel looks at all routes and answers with these only (since 4.20).
            let interface = (of != protocol).then_some(index);
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.protocol = of.into();
            request.attributes.extend(interface.map(RouteAttribute::Oif));
            let request = RouteNetlinkMessage::GetRoute(request);
            let part = socket.dump(
                |batch| route::push(batch, &request, 0),
                |list: &mut Vec<(ListedRoute, Option<IpAddr>)>, message| {
                    list.extend(decode(message, family, of)?);
                    Ok(())
                },
            )?;
            for (route, source) in part {
                if route == (ListedRoute { protocol, interface: index, ..own(route.destination) }) {
                    routes.local.insert(route.destination, source);
                } else if interface.map_or(true, |interface| interface == route.interface) {
                    routes.others.insert(route);
                }
            }
        }
    }
    Ok(routes)
}

/// A route of this protocol and its preferred source.
fn decode(
    message: &Message<'_>,
    family: AddressFamily,
    protocol: u8,
) -> Result<Option<(ListedRoute, Option<IpAddr>)>, Malformed> {
    // `struct rtmsg` begins with the family and has the protocol in its sixth byte. A kernel that does not
    // filter lists all routes, one without this family those of another.
    if message.payload.first() != Some(&u8::from(family))
        || message.payload.get(5) != Some(&protocol)
    {
        return Ok(None);
    }
    Ok(match route::read(message)? {
        // What a route was learnt to be for single destinations is no route of its own.
        Some(RouteNetlinkMessage::NewRoute(route))
            if !route.header.flags.contains(RouteFlags::Cloned) =>
        {
            of(&route)
        }
        _ => None,
    })
}

/// The route of a message and its preferred source; `None` if it is on no interface.
pub(crate) fn of(message: &RouteMessage) -> Option<(ListedRoute, Option<IpAddr>)> {
    let RouteHeader { address_family, destination_prefix_length: prefix_len, tos, .. } =
        message.header;
    let any: IpAddr = match address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = ListedRoute {
        destination: any,
        prefix_len,
        table: message.header.table.into(),
        kind: message.header.kind.into(),
        protocol: message.header.protocol.into(),
        scope: message.header.scope.into(),
        tos,
        metric: 0,
        interface: 0,
    };
    let mut source = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = ip(address)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Oif(interface) => route.interface = *interface,
            _ => {}
        }
    }
    (route.interface != 0).then_some((route, source))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_batch::{Batch, Refusal};

    use super::*;

    const PROTOCOL: u8 = 96;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn request(change: RouteChange) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.number(1);
        let (message, flags) = change.request(5, PROTOCOL);
        route::push(&mut batch, &message, flags);
        batch.bytes().to_vec()
    }

    /// What `ip route replace local 10.96.0.1 dev <index 5> proto 96 table local src 192.0.2.1 metric 1024`
    /// sends, but for the order of its attributes.
    #[test]
    #[cfg(target_endian = "little")]
    fn requests_are_those_of_ip_route() {
        let v4 = LocalRoute { address: address("10.96.0.1"), source: Some(address("192.0.2.1")) };
        assert_eq!(
            request(RouteChange::Set(v4)),
            [
                60, 0, 0, 0, 24, 0, 0x01, 0x05, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
                2, 32, 0, 0, 255, 96, 254, 2, 0, 0, 0, 0, // rtmsg
                8, 0, 1, 0, 10, 96, 0, 1, // RTA_DST
                8, 0, 6, 0, 0, 4, 0, 0, // RTA_PRIORITY
                8, 0, 4, 0, 5, 0, 0, 0, // RTA_OIF
                8, 0, 7, 0, 192, 0, 2, 1, // RTA_PREFSRC
            ]
        );
        let bytes = request(RouteChange::Remove(address("fd00::1")));
        assert_eq!(bytes.len(), 64);
        assert_eq!(bytes[4..8], [25, 0, 0x01, 0]);
        assert_eq!(bytes[16..28], [10, 128, 0, 0, 255, 96, 0, 2, 0, 0, 0, 0]);
        let foreign = ListedRoute {
            prefix_len: 16,
            table: 1000,
            kind: RouteType::Unicast.into(),
            protocol: RouteProtocol::Boot.into(),
            scope: RouteScope::Link.into(),
            metric: 0,
            interface: 7,
            ..own(address("10.9.0.0"))
        };
        assert_eq!(
            request(RouteChange::RemoveListed(foreign))[16..],
            [
                2, 16, 0, 0, 0, 3, 253, 1, 0, 0, 0, 0, // rtmsg
                8, 0, 1, 0, 10, 9, 0, 0, // RTA_DST
                8, 0, 15, 0, 232, 3, 0, 0, // RTA_TABLE
                8, 0, 4, 0, 7, 0, 0, 0, // RTA_OIF
            ]
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for (text, source) in
            [("10.96.0.1", Some("192.0.2.1")), ("10.96.0.1", None), ("fd00::1", Some("fd01::2"))]
        {
            let route = LocalRoute { address: address(text), source: source.map(address) };
            let bytes = request(RouteChange::Set(route));
            let message = netlink_batch::messages(&bytes).next().unwrap().unwrap();
            let of_family = family(route.address);
            let listed = ListedRoute { protocol: PROTOCOL, interface: 5, ..own(route.address) };
            let found = decode(&message, of_family, PROTOCOL).unwrap();
            assert_eq!(found, Some((listed, route.source)));
            assert_eq!(decode(&message, of_family, 3).unwrap(), None, "of another protocol");
            assert_eq!(decode(&message, AddressFamily::Bridge, PROTOCOL).unwrap(), None);
        }
    }

    #[test]
    fn changes_print_what_they_do() {
        let route = LocalRoute { address: address("10.96.0.1"), source: None };
        assert_eq!(RouteChange::Set(route).to_string(), "set local route 10.96.0.1");
        let route = LocalRoute { source: Some(address("192.0.2.1")), ..route };
        let text = "set local route 10.96.0.1 with source 192.0.2.1";
        assert_eq!(RouteChange::Set(route).to_string(), text);
        let text = "remove local route 10.96.0.1";
        assert_eq!(RouteChange::Remove(route.address).to_string(), text);
        let listed = ListedRoute { prefix_len: 16, ..own(address("10.9.0.0")) };
        assert_eq!(
            RouteChange::RemoveListed(listed).to_string(),
            "remove route local 10.9.0.0/16 table local"
        );
        let listed = ListedRoute { table: 254, kind: 1, ..listed };
        assert_eq!(listed.to_string(), "10.9.0.0/16");
        let listed = ListedRoute { table: 1000, kind: 6, ..listed };
        assert_eq!(listed.to_string(), "blackhole 10.9.0.0/16 table 1000");
    }

    #[test]
    fn a_removed_route_that_is_gone_is_no_failure() {
        let refused =
            |errno: Errno| Failure::Refused(Refusal { code: errno.raw_os_error(), text: None });
        let route = LocalRoute { address: address("10.96.0.1"), source: None };
        assert!(RouteChange::Remove(route.address).is_done_already(&refused(Errno::SRCH)));
        assert!(!RouteChange::Remove(route.address).is_done_already(&refused(Errno::PERM)));
        assert!(!RouteChange::Set(route).is_done_already(&refused(Errno::SRCH)));
    }
}
