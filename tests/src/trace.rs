//! What becomes of a packet, said twice.
//!
//! [`Machine::walk`] takes it through a [`State`]: the rules as the kernel evaluates them, the sets,
//! the addresses, IPVS. Rules are read from the text of `iptables-save` or, with the elements of the
//! sets, of `nft list table`. [`expected`] says it from the Kubernetes objects alone. The two share
//! nothing, with each other or with the code that computes the state.
//!
//! | hook | packets from elsewhere | packets of the node itself |
//! | --- | --- | --- |
//! | prerouting | all of it | |
//! | input (local address) or forward | all of it, then IPVS | where IPVS does not take them |
//! | output | once IPVS has rewritten them, but nat | what stands before IPVS, IPVS, what stands after it |
//! | postrouting | unless the real server is the node itself | the same |

mod iptables;
mod nftables;
mod rules;
mod statement;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::rc::Rc;

use netlink_ipvs::{Family, Protocol, RealServerKey, VirtualServerKey};
use proxier::dataplane::State;
use proxier::dataplane::firewall::Backend;
use proxier::iptables::save_text;
use proxier::nftables::table_text;

use rules::{Hook, Rules};
pub use statement::expected;

/// The priority at which IPVS takes packets of the node itself (`ip_vs_ops4` of
/// `net/netfilter/ipvs/ip_vs_core.c`: `NF_IP_PRI_NAT_DST + 2`).
const IPVS_OUTPUT: i32 = -98;
/// The one at which it takes all others (`NF_IP_PRI_NAT_SRC - 1`).
const IPVS_INPUT: i32 = 99;

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
    /// Nothing asks nat any more where it is to go.
    has_destination: bool,
    masqueraded: bool,
    /// The virtual server that has taken it.
    taken_by: Option<VirtualServerKey>,
}

/// A node's kernel with a state in it.
pub struct Machine<'a> {
    state: &'a State,
    backend: Backend,
    local: BTreeSet<IpAddr>,
    interfaces: Interfaces,
    rules: Rc<BTreeMap<Family, Rules>>,
}

impl<'a> Machine<'a> {
    /// The kernel of a node that has these addresses on its other interfaces.
    pub fn new(
        backend: Backend,
        state: &'a State,
        host: &[IpAddr],
        interfaces: Interfaces,
    ) -> Self {
        let text = |family| match backend {
            Backend::Iptables => save_text(&state.firewall[&family]),
            Backend::Nftables => table_text(state, family),
        };
        let texts = state.firewall.keys().map(|family| (*family, text(*family)));
        Self::reading(backend, &texts.collect(), state, host, interfaces)
    }

    /// The same, with these texts of rules.
    pub fn reading(
        backend: Backend,
        texts: &BTreeMap<Family, String>,
        state: &'a State,
        host: &[IpAddr],
        interfaces: Interfaces,
    ) -> Self {
        let local = host.iter().chain(&state.interface.addresses).copied().collect();
        let parse = match backend {
            Backend::Iptables => iptables::parse,
            Backend::Nftables => nftables::parse,
        };
        let rules = texts.iter().map(|(family, text)| (*family, parse(text)));
        Self { state, backend, local, interfaces, rules: Rc::new(rules.collect()) }
    }

    /// The same node with another state in it. Rules are read again only where they differ.
    #[must_use]
    pub fn holding<'b>(&self, state: &'b State, host: &[IpAddr]) -> Machine<'b> {
        let Self { backend, interfaces, .. } = *self;
        let same_sets = backend == Backend::Iptables || state.sets == self.state.sets;
        if state.firewall != self.state.firewall || !same_sets {
            return Machine::new(backend, state, host, interfaces);
        }
        let local = host.iter().chain(&state.interface.addresses).copied().collect();
        Machine { state, backend, local, interfaces, rules: Rc::clone(&self.rules) }
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
        let (source, interface) = match packet.source {
            Source::Outside(address) | Source::PodElsewhere(address) => {
                (address, self.interfaces.outside)
            }
            Source::PodHere(address) => (address, self.interfaces.pods),
            // What it has as its source towards others does not matter: those are not ours.
            Source::Node => (packet.destination, ""),
        };
        let flow = Flow {
            interface,
            bridged: self.interfaces.bridged && matches!(packet.source, Source::PodHere(_)),
            source,
            destination: packet.destination,
            port: packet.port,
            protocol: packet.protocol,
            mark: 0,
            has_destination: false,
            masqueraded: false,
            taken_by: None,
        };
        self.way(packet, flow).unwrap_or_else(|outcome| outcome)
    }

    /// `Err` is what ends it early.
    fn way(&self, packet: &Packet, mut flow: Flow) -> Result<Outcome, Outcome> {
        let from_node = packet.source == Source::Node;
        if from_node {
            self.call(Hook::Output, &(..IPVS_OUTPUT), &mut flow)?;
            if let Some(key) = self.served(packet, &flow) {
                return self.balance(&key, flow, true);
            }
            self.call(Hook::Output, &(IPVS_OUTPUT..), &mut flow)?;
        } else {
            self.call(Hook::Prerouting, &(..), &mut flow)?;
        }
        if self.is_local(packet.destination) {
            self.call(Hook::Input, &(..IPVS_INPUT), &mut flow)?;
            if let Some(key) = self.served(packet, &flow) {
                return self.balance(&key, flow, false);
            }
            self.call(Hook::Input, &(IPVS_INPUT..), &mut flow)?;
        } else if !from_node {
            self.call(Hook::Forward, &(..), &mut flow)?;
        }
        Ok(Outcome::NotOurs)
    }

    /// The virtual server that takes a packet: one by its whole mark goes before one by its address
    /// (`ip_vs_service_find` of `net/netfilter/ipvs/ip_vs_ctl.c`).
    fn served(&self, packet: &Packet, flow: &Flow) -> Option<VirtualServerKey> {
        let family = Family::of(packet.destination);
        let by_mark = VirtualServerKey::FirewallMark { mark: flow.mark, family };
        let by_address = VirtualServerKey::new(packet.destination, packet.port, packet.protocol);
        let there = |key: &VirtualServerKey| self.state.virtual_servers.contains_key(key);
        [by_mark, by_address].into_iter().find(there)
    }

    /// IPVS and what comes after it.
    fn balance(
        &self,
        key: &VirtualServerKey,
        flow: Flow,
        from_node: bool,
    ) -> Result<Outcome, Outcome> {
        let servers = &self.state.virtual_servers[key].real_servers;
        let mut candidates = BTreeMap::new();
        for server in servers.iter().filter(|server| server.config.weight > 0) {
            let (destination, port) = (server.key.address, server.key.port);
            let vip = VirtualServerKey::new(flow.destination, flow.port, flow.protocol);
            let mut flow = Flow { destination, port, taken_by: Some(vip), ..flow };
            let here = self.is_local(destination);
            if from_node {
                self.call(Hook::Output, &(IPVS_OUTPUT..), &mut flow)?;
            } else if !here {
                self.call(Hook::Output, &(..), &mut flow)?;
            }
            if !here {
                self.call(Hook::Postrouting, &(..), &mut flow)?;
            }
            candidates.insert(server.key, flow.masqueraded);
        }
        let reached = !candidates.is_empty();
        Ok(if reached { Outcome::Forwarded(candidates) } else { Outcome::Rejected })
    }

    fn call(
        &self,
        hook: Hook,
        priorities: &impl RangeBounds<i32>,
        flow: &mut Flow,
    ) -> Result<(), Outcome> {
        let rules = self.rules.get(&Family::of(flow.source));
        rules.map_or(Ok(()), |rules| rules.call(hook, priorities, flow, self))
    }
}
