//! Packets that properties send through a world.

use netlink_ipvs::{Family, Protocol};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::random::{self, CLIENTS, Detector, World};
use crate::trace::{Interfaces, Packet, Source};
use proxier::builders::ip;

/// The interfaces that go with the way in which pods are recognised.
pub fn interfaces(world: &World) -> Interfaces {
    match world.options.detector {
        Detector::Bridge => Interfaces::BRIDGED,
        Detector::None | Detector::Cidr | Detector::Prefix => Interfaces::ROUTED,
    }
}

/// One packet of each kind of sender.
pub fn sources(family: Family) -> Vec<Source> {
    let clients = CLIENTS.map(ip).into_iter().filter(|ip| Family::of(*ip) == family);
    let pods = random::pods_here(family).into_iter();
    let mut sources: Vec<Source> = clients.map(Source::Outside).collect();
    sources.extend(random::pods_elsewhere(family).into_iter().map(Source::PodElsewhere));
    sources.extend(pods.map(Source::PodHere));
    sources.push(Source::Node);
    sources
}

/// A packet, once it is known between which addresses.
#[derive(Debug, Clone)]
pub struct Sketch {
    source: Index,
    destination: Index,
    port: u16,
    protocol: Protocol,
}

/// A packet from anywhere to anywhere.
pub fn packet() -> impl Strategy<Value = Sketch> {
    let ports = select(vec![80, 443, 30_080, 30_081, 22, 30_200, 8080]);
    let protocols = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    (any::<Index>(), any::<Index>(), ports, protocols).prop_map(
        |(source, destination, port, protocol)| Sketch { source, destination, port, protocol },
    )
}

impl Sketch {
    /// To an address that services of this world may have, or any other.
    pub fn of(&self, world: &World) -> Packet {
        let mut destinations = random::addresses();
        for service in world.services.values() {
            // As often as all the others together.
            for _ in 0..10 {
                destinations.extend(service.cluster_ips());
                destinations.extend(&service.external_ips);
                destinations.extend(service.ingress.iter().map(|(address, _)| *address));
            }
        }
        let destination = *self.destination.get(&destinations);
        let sources = sources(Family::of(destination));
        let source = *self.source.get(&sources);
        Packet { source, destination, port: self.port, protocol: self.protocol }
    }
}
