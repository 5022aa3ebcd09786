//! Between whom a packet goes that is followed.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use netlink_ipvs::Protocol;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceClient {
    /// A process of this node.
    Node,
    /// Who has this address.
    Address(IpAddr),
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracePlace {
    /// Address and port.
    pub address: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

impl FromStr for TraceClient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "node" {
            return Ok(Self::Node);
        }
        let address = text.parse().map(Self::Address);
        address.map_err(|_| "neither an address (192.168.1.100, fd00::7) nor `node`".to_owned())
    }
}

/// Of TCP unless it says another protocol.
impl FromStr for TracePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "not ADDRESS:PORT (10.96.0.10:53/udp, [fd00:10:96::a]:443); `proxier get services` has the \
             addresses and ports of Services"
                .to_owned()
        };
        let (place, protocol) = match text.rsplit_once('/') {
            Some((place, "tcp")) => (place, Protocol::Tcp),
            Some((place, "udp")) => (place, Protocol::Udp),
            Some((place, "sctp")) => (place, Protocol::Sctp),
            Some(_) => return Err(wrong()),
            None => (text, Protocol::Tcp),
        };
        Ok(Self { address: place.parse().map_err(|_| wrong())?, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_places_are_read_as_people_type_them() {
        assert_eq!("node".parse(), Ok(TraceClient::Node));
        assert_eq!(
            "fd00::7".parse(),
            Ok(TraceClient::Address([0xfd00, 0, 0, 0, 0, 0, 0, 7].into()))
        );
        assert!("web".parse::<TraceClient>().is_err_and(|text| text.contains("`node`")));
        for (text, address, protocol) in [
            ("10.96.0.10:53", "10.96.0.10:53", Protocol::Tcp),
            ("10.96.0.10:53/udp", "10.96.0.10:53", Protocol::Udp),
            ("[fd00::1]:80/sctp", "[fd00::1]:80", Protocol::Sctp),
        ] {
            let place: Result<TracePlace, _> = text.parse();
            let found = place.map(|it| (it.address.to_string(), it.protocol));
            assert_eq!(found, Ok((address.to_owned(), protocol)));
        }
        for text in ["10.96.0.10", "fd00::1:80", "10.96.0.10:53/icmp", "web:80"] {
            assert!(
                text.parse::<TracePlace>().is_err_and(|it| it.contains("ADDRESS:PORT")),
                "{text}"
            );
        }
    }
}
