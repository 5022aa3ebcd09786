//! What becomes of a packet, said twice.
//!
//! [`Machine::walk`] takes it through a [`State`]: the rules as iptables evaluates them, the sets,
//! the addresses, IPVS. [`expected`] says it from the Kubernetes objects alone. The two share
//! nothing, with each other or with the code that computes the state.
//!
//! | hook | packets from elsewhere | packets of the node itself |
//! | --- | --- | --- |
//! | marks | nat PREROUTING | nat OUTPUT |
//! | filter | INPUT (local address) or FORWARD | OUTPUT, after IPVS has rewritten them |
//! | IPVS | after INPUT | after nat OUTPUT |
//! | source | nat POSTROUTING, unless the real server is the node itself | the same |

mod rules;
mod statement;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use netlink_ipvs::{Family, Protocol, RealServerKey, VirtualServerKey};
use proxier::dataplane::State;
use proxier::iptables::save_text;

use rules::{Rules, Verdict};
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

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// One of these answers; whether it then sees an address of the node as the source.
    Forwarded(BTreeMap<RealServerKey, bool>),
    /// It is lost.
    Dropped,
    /// The sender is told that nobody is there.
    Rejected,
    /// It takes its way as if there were no services.
    NotOurs,
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

/// A packet on its way.
#[derive(Debug, Clone, Copy)]
struct Flow {
    interface: &'static str,
    bridged: bool,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    protocol: Protocol,
    mark: u32,
    /// The virtual server that has taken it.
    taken_by: Option<VirtualServerKey>,
}

/// A node's kernel with a state in it.
pub struct Machine<'a> {
    state: &'a State,
    local: BTreeSet<IpAddr>,
    interfaces: Interfaces,
    rules: Rc<BTreeMap<Family, Rules>>,
}

impl<'a> Machine<'a> {
    /// The kernel of a node that has these addresses on its other interfaces.
    pub fn new(state: &'a State, host: &[IpAddr], interfaces: Interfaces) -> Self {
        let local = host.iter().chain(&state.interface.addresses).copied().collect();
        let rules =
            state.firewall.iter().map(|(family, rules)| (*family, Rules::parse(&save_text(rules))));
        Self { state, local, interfaces, rules: Rc::new(rules.collect()) }
    }

    /// The same node with another state in it. Rules are read again only where they differ.
    #[must_use]
    pub fn holding<'b>(&self, state: &'b State, host: &[IpAddr]) -> Machine<'b> {
        if state.firewall != self.state.firewall {
            return Machine::new(state, host, self.interfaces);
        }
        let local = host.iter().chain(&state.interface.addresses).copied().collect();
        Machine { state, local, interfaces: self.interfaces, rules: Rc::clone(&self.rules) }
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }

    /// Whether a packet comes from elsewhere with an address of this node: the kernel drops it
    /// before any rule sees it (`ip_route_input_slow` in net/ipv4/route.c, "martian source").
    pub fn is_martian(&self, packet: &Packet) -> bool {
        match packet.source {
            Source::Outside(ip) | Source::PodHere(ip) | Source::PodElsewhere(ip) => {
                self.is_local(ip)
            }
            Source::Node => false,
        }
    }

    /// What becomes of a packet.
    pub fn walk(&self, packet: &Packet) -> Outcome {
        let from_node = packet.source == Source::Node;
        let (source, interface) = match packet.source {
            Source::Outside(address) | Source::PodElsewhere(address) => {
                (address, self.interfaces.outside)
            }
            Source::PodHere(address) => (address, self.interfaces.pods),
            // What it has as its source towards others does not matter: those are not ours.
            Source::Node => (packet.destination, ""),
        };
        let mut flow = Flow {
            interface,
            bridged: self.interfaces.bridged && matches!(packet.source, Source::PodHere(_)),
            source,
            destination: packet.destination,
            port: packet.port,
            protocol: packet.protocol,
            mark: 0,
            taken_by: None,
        };
        let marks = if from_node { "OUTPUT" } else { "PREROUTING" };
        if let Err(outcome) = self.hook("nat", marks, &mut flow) {
            return outcome;
        }
        let key = VirtualServerKey::new(packet.destination, packet.port, packet.protocol);
        let served = self.state.virtual_servers.contains_key(&key);
        if from_node && served {
            return self.balance(&key, flow, true);
        }
        if from_node && let Err(outcome) = self.hook("filter", "OUTPUT", &mut flow) {
            return outcome;
        }
        if !self.is_local(packet.destination) {
            let passed = from_node || self.hook("filter", "FORWARD", &mut flow).is_ok();
            return if passed { Outcome::NotOurs } else { Outcome::Dropped };
        }
        if let Err(outcome) = self.hook("filter", "INPUT", &mut flow) {
            return outcome;
        }
        if served { self.balance(&key, flow, false) } else { Outcome::NotOurs }
    }

    /// IPVS and what comes after it.
    fn balance(&self, key: &VirtualServerKey, flow: Flow, from_node: bool) -> Outcome {
        let servers = &self.state.virtual_servers[key].real_servers;
        let mut candidates = BTreeMap::new();
        for server in servers.iter().filter(|server| server.config.weight > 0) {
            let (destination, port) = (server.key.address, server.key.port);
            let mut flow = Flow { destination, port, taken_by: Some(*key), ..flow };
            let here = self.is_local(destination);
            if (from_node || !here)
                && let Err(outcome) = self.hook("filter", "OUTPUT", &mut flow)
            {
                return outcome;
            }
            let masqueraded =
                !here && self.run("nat", "POSTROUTING", &mut flow) == Some(Verdict::Masquerade);
            candidates.insert(server.key, masqueraded);
        }
        if candidates.is_empty() { Outcome::Rejected } else { Outcome::Forwarded(candidates) }
    }

    fn hook(&self, table: &'static str, chain: &str, flow: &mut Flow) -> Result<(), Outcome> {
        match self.run(table, chain, flow) {
            Some(Verdict::Drop) => Err(Outcome::Dropped),
            Some(Verdict::Reject) => Err(Outcome::Rejected),
            Some(Verdict::Accept | Verdict::Masquerade) | None => Ok(()),
        }
    }

    fn run(&self, table: &'static str, chain: &str, flow: &mut Flow) -> Option<Verdict> {
        let rules = self.rules.get(&Family::of(flow.source))?;
        rules.run(table, chain, flow, self)
    }
}
