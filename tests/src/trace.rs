//! What becomes of a packet, said twice.
//!
//! [`Machine`] is the product's own walk (`proxier::trace`) through a [`State`]: through the text of
//! `iptables-save`, or the objects that nftables is sent, and through sets, addresses and IPVS. It knows what a
//! kernel does with rules, and nothing of Services. [`expected`] says it from the Kubernetes objects alone: it
//! shares nothing with the walk, and nothing with the code that computes the state. That the walk is what a
//! kernel does is shown with traffic (`tests/local_policy.rs`, `tests/trace.rs`).

mod statement;

use std::net::IpAddr;

use netlink_ipvs::{Family, Protocol};
use proxier::dataplane::State;
use proxier::dataplane::firewall::Backend;
use proxier::trace::{self, Host, Sender};

pub use proxier::trace::Outcome;
pub use statement::expected;

/// Who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A client that is neither a pod nor a node.
    Outside(IpAddr),
    /// A pod of this node, through its interface.
    PodHere(IpAddr),
    /// A pod of another node.
    PodElsewhere(IpAddr),
    /// A process of this node. To one of the node's addresses it speaks from that address.
    Node,
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Who sends it.
    pub source: Source,
    /// Where to.
    pub destination: IpAddr,
    /// Which port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// The interfaces by which packets arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interfaces {
    /// From outside and from other nodes.
    pub outside: &'static str,
    /// From pods of this node.
    pub pods: &'static str,
    /// Pods are behind a bridge, whose frames pass the firewall.
    pub bridged: bool,
}

impl Interfaces {
    /// Every pod has an interface of its own.
    pub const ROUTED: Self = Self { outside: "eth0", pods: "veth0a1b", bridged: false };
    /// Pods are on a bridge.
    pub const BRIDGED: Self = Self { outside: "eth0", pods: "cbr0", bridged: true };
}

/// A node's kernel with a state in it.
pub struct Machine<'a> {
    state: &'a State,
    backend: Backend,
    interfaces: Interfaces,
    walker: trace::Machine<'a>,
}

fn host(addresses: &[IpAddr]) -> Host {
    Host { addresses: addresses.iter().copied().collect(), ..Host::default() }
}

impl<'a> Machine<'a> {
    /// The kernel of a node that has these addresses on its other interfaces.
    pub fn new(
        backend: Backend,
        state: &'a State,
        addresses: &[IpAddr],
        interfaces: Interfaces,
    ) -> Self {
        let walker = trace::Machine::of_state(backend, state, host(addresses));
        Self { state, backend, interfaces, walker }
    }

    /// The same, with this in place of the rules and sets of a family in nftables.
    pub fn with_table(
        content: proxier::nftables::Content,
        family: Family,
        state: &'a State,
        addresses: &[IpAddr],
        interfaces: Interfaces,
    ) -> Self {
        let rules = [(family, (None, vec![content]))].into();
        let walker = trace::Machine::of_rules(&rules, state, host(addresses));
        Self { state, backend: Backend::Nftables, interfaces, walker }
    }

    /// The same node with another state in it. Rules are read again only where they differ.
    #[must_use]
    pub fn holding<'b>(&self, state: &'b State, addresses: &[IpAddr]) -> Machine<'b> {
        let Self { backend, interfaces, .. } = *self;
        let same_sets = backend == Backend::Iptables || state.sets == self.state.sets;
        if state.firewall != self.state.firewall || !same_sets {
            return Machine::new(backend, state, addresses, interfaces);
        }
        let walker = self.walker.holding(state, host(addresses));
        Machine { state, backend, interfaces, walker }
    }

    /// Whether a packet comes from elsewhere with an address of this node: the kernel drops it
    /// before any rule sees it (`ip_route_input_slow` in net/ipv4/route.c, "martian source").
    pub fn is_martian(&self, packet: &Packet) -> bool {
        match packet.source {
            Source::Outside(ip) | Source::PodHere(ip) | Source::PodElsewhere(ip) => {
                self.walker.is_local(ip)
            }
            Source::Node => false,
        }
    }

    /// What becomes of a packet.
    pub fn walk(&self, packet: &Packet) -> Outcome {
        self.walker.walk(&self.packet(packet))
    }

    /// The same, and that every rule on its way could be judged.
    pub fn follow(&self, packet: &Packet) -> trace::Followed {
        self.walker.follow(&self.packet(packet))
    }

    fn packet(&self, packet: &Packet) -> trace::Packet {
        let Packet { destination, port, protocol, .. } = *packet;
        let other = |address, interface: &str, bridged| Sender::Other {
            address,
            interface: interface.to_owned(),
            bridged,
        };
        let Interfaces { outside, pods, bridged } = self.interfaces;
        let from = match packet.source {
            Source::Outside(ip) | Source::PodElsewhere(ip) => other(ip, outside, false),
            Source::PodHere(ip) => other(ip, pods, bridged),
            Source::Node => Sender::Node,
        };
        trace::Packet { from, destination, port, protocol }
    }
}
