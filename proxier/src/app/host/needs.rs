//! Which addresses this node needs for itself: the routes of the host, and the way to the API server.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dummy_iface::InterfaceAddress;
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use crate::dataplane::{INTERFACE, Need, Origin, Reserved};
use crate::reconcile::Event;
use crate::source::kube::Contact;

/// What the host needs: the next hops of its default routes, and the broadcast addresses of its networks.
pub(in crate::app) fn of_host() -> Result<Event, dummy_iface::Error> {
    let reserved = reserved_by_host(dummy_iface::gateways()?, &dummy_iface::host_addresses()?);
    Ok(Event::Reserved(Origin::Host, reserved))
}

fn reserved_by_host(gateways: BTreeSet<IpAddr>, host: &[InterfaceAddress]) -> Reserved {
    let mut reserved = Reserved::default();
    for gateway in gateways {
        reserved.add(gateway, Need::Gateway, 0);
    }
    for entry in host.iter().filter(|entry| entry.name != INTERFACE) {
        // Networks of two addresses have no broadcast address (RFC 3021).
        let net = IpNet::new(entry.address, entry.prefix_len).ok();
        if let Some(IpNet::V4(net)) = net.filter(|net| net.prefix_len() < 31) {
            reserved.add(net.broadcast().into(), Need::Broadcast, 0);
        }
    }
    reserved
}

/// Sends where a connection leads to, as it is found out.
pub(in crate::app) async fn follow(
    mut contacts: watch::Receiver<BTreeSet<Contact>>,
    events: mpsc::Sender<Event>,
) {
    while contacts.changed().await.is_ok() {
        let event = of_connection(&contacts.borrow_and_update());
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// What a connection needs.
pub(in crate::app) fn of_connection(contacts: &BTreeSet<Contact>) -> Event {
    /// Where name servers listen.
    const DNS: u16 = 53;
    let mut reserved = Reserved::default();
    for contact in contacts {
        match contact {
            Contact::Server(address) => {
                reserved.add(address.ip(), Need::ApiServer, address.port());
            }
            Contact::NameServer(address) => reserved.add(*address, Need::NameServer, DNS),
        }
    }
    Event::Reserved(Origin::Connection, reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_needs_its_gateways_and_the_broadcast_addresses_of_its_networks() {
        let entry = |name: &str, address: &str, prefix_len| InterfaceAddress {
            interface: 1,
            name: name.to_owned(),
            address: ip(address),
            prefix_len,
        };
        let host = [
            entry("eth0", "192.0.2.10", 24),
            entry("eth1", "198.51.100.0", 31),
            entry("eth2", "2001:db8::1", 64),
            entry(INTERFACE, "10.96.0.1", 8),
        ];
        let reserved = reserved_by_host([ip("192.0.2.1"), ip("fe80::1")].into(), &host);
        let found: Vec<_> = reserved.iter().map(|(ip, why)| (ip, why.need)).collect();
        assert_eq!(
            found,
            [
                (ip("192.0.2.1"), Need::Gateway),
                (ip("192.0.2.255"), Need::Broadcast),
                (ip("fe80::1"), Need::Gateway),
            ]
        );
    }

    #[test]
    fn a_server_on_this_host_by_its_loopback_address_takes_nothing() {
        let contacts = ["127.0.0.1:6444", "[::1]:6444", "192.168.1.11:6443"]
            .map(|text| Contact::Server(text.parse().unwrap()));
        let event = of_connection(&contacts.into());
        let Event::Reserved(Origin::Connection, reserved) = event else { unreachable!() };
        let found: Vec<_> = reserved.iter().map(|(ip, why)| (ip, why.ports.clone())).collect();
        assert_eq!(found, [(ip("192.168.1.11"), [6443].into())]);
    }
}
