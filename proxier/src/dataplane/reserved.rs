//! Addresses that this node needs for itself, which no service may take from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// What the node needs an address for. The first is the most important.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// It connects to the API server there.
    ApiServer,
    /// An API server is there, as `default/kubernetes` says.
    ApiEndpoint,
    /// A default route goes through it.
    Gateway,
    /// It asks there for the address of the API server.
    NameServer,
    /// It is the broadcast address of one of the node's networks.
    Broadcast,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServer => "this node connects to the API server there",
            Self::ApiEndpoint => "an API server is there (an endpoint of default/kubernetes)",
            Self::Gateway => "a default route of this node goes through it",
            Self::NameServer => "this node asks there for the API server's address",
            Self::Broadcast => "it is the broadcast address of a network of this node",
        })
    }
}

/// Who knows of reserved addresses. Each replaces only what it said itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The host: its routes and networks.
    Host,
    /// The connection to the API server.
    Connection,
    /// The cluster: the endpoints of `default/kubernetes`.
    Cluster,
}

/// Why an address is reserved, and what listens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The most important need.
    pub need: Need,
    /// The ports that are needed. They matter where the address is the node's own: such an address is
    /// not bound, so that a service takes no more than its ports.
    pub ports: BTreeSet<u16>,
}

/// Reserved addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    addresses: BTreeMap<IpAddr, Reservation>,
}

impl Reserved {
    /// Adds one; a port of 0 is none in particular. Addresses that never leave the host are left out:
    /// no service can have them anyway.
    pub fn add(&mut self, address: IpAddr, need: Need, port: u16) {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return;
        }
        let new = Reservation { need, ports: BTreeSet::new() };
        let known = self.addresses.entry(address).or_insert(new);
        known.need = known.need.min(need);
        known.ports.extend((port != 0).then_some(port));
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (address, reservation) in &other.addresses {
            self.add(*address, reservation.need, 0);
            if let Some(known) = self.addresses.get_mut(address) {
                known.ports.extend(&reservation.ports);
            }
        }
    }

    /// Leaves out what the administrator lets services have.
    #[must_use]
    pub fn without(mut self, allowed: &[IpNet]) -> Self {
        self.addresses.retain(|address, _| !allowed.iter().any(|net| net.contains(address)));
        self
    }

    /// Why an address is reserved, if it is.
    pub fn get(&self, address: IpAddr) -> Option<&Reservation> {
        self.addresses.get(&address)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Reservation)> {
        self.addresses.iter().map(|(address, reservation)| (*address, reservation))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}
