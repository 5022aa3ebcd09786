//! The next hops of this machine's default routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_batch::{Error, Malformed, Message};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::failed;
use crate::route;

/// The next hops of all default routes of this network namespace, of both families, in whatever
/// table they are.
///
/// # Errors
/// Any failure to read the whole list is an error, never a shorter list.
pub fn gateways() -> Result<BTreeSet<IpAddr>, Error> {
    let fail = |failure| failed("list the default routes", failure);
    let mut socket = route::open().map_err(|error| fail(error.into()))?;
    let mut gateways = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let request = RouteNetlinkMessage::GetRoute(request);
        let part = socket.dump(
            |batch| route::push(batch, &request, 0),
            |list: &mut BTreeSet<IpAddr>, message| {
                list.extend(decode(message, family)?);
                Ok(())
            },
        );
        gateways.extend(part.map_err(fail)?);
    }
    Ok(gateways)
}

fn decode(message: &Message<'_>, family: AddressFamily) -> Result<Vec<IpAddr>, Malformed> {
    // The header begins with the family and the length of the destination's prefix. There may be a
    // million routes, of which none but the default ones are to be taken apart; a kernel without this
    // family answers with all that it has.
    if !message.payload.starts_with(&[u8::from(family), 0]) {
        return Ok(Vec::new());
    }
    Ok(match route::read(message)? {
        Some(RouteNetlinkMessage::NewRoute(route)) => next_hops(&route.attributes),
        _ => Vec::new(),
    })
}

fn next_hops(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address))
            | RouteAttribute::Via(RouteVia::Inet(address)) => found.push((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address))
            | RouteAttribute::Via(RouteVia::Inet6(address)) => found.push((*address).into()),
            RouteAttribute::MultiPath(hops) => {
                found.extend(hops.iter().flat_map(|hop| next_hops(&hop.attributes)));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    #[test]
    fn every_kind_of_next_hop_is_found() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let gateway = |text: &str| match ip(text) {
            IpAddr::V4(v4) => RouteAttribute::Gateway(RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => RouteAttribute::Gateway(RouteAddress::Inet6(v6)),
        };
        assert_eq!(next_hops(&[gateway("192.0.2.1")]), [ip("192.0.2.1")]);
        assert_eq!(next_hops(&[gateway("2001:db8::1")]), [ip("2001:db8::1")]);
        // An IPv4 route over an IPv6 next hop.
        let via = RouteAttribute::Via(RouteVia::from(ip("2001:db8::1")));
        assert_eq!(next_hops(&[via]), [ip("2001:db8::1")]);
        let hop = |text: &str| {
            let mut hop = RouteNextHop::default();
            hop.attributes = vec![gateway(text)];
            hop
        };
        let several = RouteAttribute::MultiPath(vec![hop("192.0.2.1"), hop("192.0.2.2")]);
        assert_eq!(next_hops(&[several]), [ip("192.0.2.1"), ip("192.0.2.2")]);
        assert!(next_hops(&[RouteAttribute::Oif(3)]).is_empty());
    }
}
