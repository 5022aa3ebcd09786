//! What becomes of a packet on a node: followed through rules, sets and IPVS, step by step. Pure.
//!
//! [`Machine::follow`] takes the first packet of a connection as the kernel would, and the answer on its way
//! back. Rules are read from the text of `iptables-save`, or from the tables of nftables as the kernel lists
//! them: ours, and those of others as far as they can be judged. Where a rule cannot be judged it counts as
//! one that does not match, and is among the [doubts](Followed::doubts).
//!
//! | hook | packets from elsewhere | packets of the node itself |
//! | --- | --- | --- |
//! | prerouting | all of it | |
//! | input (local address) or forward | all of it, then IPVS | where IPVS does not take them |
//! | output | once IPVS has rewritten them, but nat | what stands before IPVS, IPVS, what stands after it |
//! | postrouting | unless the real server is the node itself | the same |

mod iptables;
mod nftables;
mod routes;
mod rules;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeBounds;
use std::rc::Rc;

use netlink_ipvs::{Family, Protocol, RealServerKey, VirtualServerKey};

use crate::dataplane::State;
use crate::dataplane::firewall::{Backend, Hook};
use crate::iptables::save_text;
use crate::nftables::{Content, content};

pub use self::routes::Routes;
use self::rules::Rules;
use self::story::Story;
pub use self::story::{Followed, Step};

/// The priority at which IPVS takes packets of the node itself (`ip_vs_ops4` of
/// `net/netfilter/ipvs/ip_vs_core.c`: `NF_IP_PRI_NAT_DST + 2`).
const IPVS_OUTPUT: i32 = -98;
/// The one at which it takes all others (`NF_IP_PRI_NAT_SRC - 1`).
const IPVS_INPUT: i32 = 99;

/// The port that clients have: the first of those that are nobody's (RFC 6335).
const CLIENT_PORT: u16 = 49_152;

/// The first packet of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub from: Sender,
    /// Where to.
    pub destination: IpAddr,
    /// Which port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Who sends a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A process of this node. To one of the node's addresses it speaks from that address.
    Node,
    /// Anybody else.
    Other {
        /// Whose address it has.
        address: IpAddr,
        /// By which interface of the node it comes.
        interface: String,
        /// That is a bridge whose frames pass the firewall.
        bridged: bool,
    },
}

/// What becomes of a packet.
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

impl Outcome {
    /// In one word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Forwarded(_) => "reached",
            Self::Rejected => "refused",
            Self::Dropped => "dropped",
            Self::NotOurs => "no service",
        }
    }
}

/// What decides about packets besides rules, sets and IPVS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The addresses of its interfaces but `kube-ipvs0`.
    pub addresses: BTreeSet<IpAddr>,
    /// Of which families it forwards nothing.
    pub forwards_not: BTreeSet<Family>,
    /// No further connection can be tracked: how many are, at most.
    pub conntrack_full: Option<u64>,
    /// Where it takes only packets from whom it would send to there (`rp_filter` 1).
    pub strict_interfaces: BTreeSet<String>,
    /// By which interface it reaches whom, as far as it is known.
    pub routes: Routes,
}

/// A node's kernel with a state in it.
pub struct Machine<'a> {
    state: &'a State,
    host: Host,
    local: BTreeSet<IpAddr>,
    rules: Rc<BTreeMap<Family, Rules>>,
}

/// A packet on its way.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Flow {
    /// Where it came in; empty if this node sends it, nothing if it is not known.
    input: Option<String>,
    /// Where it goes out; empty if it does not, nothing if it is not known.
    output: Option<String>,
    bridged: bool,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    port: u16,
    protocol: Protocol,
    mark: u32,
    /// It is an answer: of a known connection, and nobody asks nat about it.
    is_answer: bool,
    /// Nothing asks nat any more where it is to go.
    has_destination: bool,
    masqueraded: bool,
    /// The virtual server that has taken it.
    taken_by: Option<VirtualServerKey>,
}

impl<'a> Machine<'a> {
    /// The kernel of a node that holds this state and nothing else.
    pub fn of_state(backend: Backend, state: &'a State, host: Host) -> Self {
        let rules = state.firewall.iter().map(|(family, rules)| {
            let read = match backend {
                Backend::Iptables => rules_of(*family, Some(&save_text(rules)), &[]),
                Backend::Nftables => rules_of(*family, None, &[content(state, *family)]),
            };
            (*family, read)
        });
        Self::with(state, host, Rc::new(rules.collect()))
    }

    /// The kernel of a node with these rules: what `iptables-save` prints, if it is there, and tables of
    /// nftables.
    pub fn of_rules(
        rules: &BTreeMap<Family, (Option<String>, Vec<Content>)>,
        state: &'a State,
        host: Host,
    ) -> Self {
        let read = rules
            .iter()
            .map(|(family, (text, tables))| (*family, rules_of(*family, text.as_deref(), tables)));
        Self::with(state, host, Rc::new(read.collect()))
    }

    fn with(state: &'a State, host: Host, rules: Rc<BTreeMap<Family, Rules>>) -> Self {
        let local = host.addresses.iter().chain(&state.interface.addresses).copied().collect();
        Self { state, host, local, rules }
    }

    /// The same rules over another state.
    #[must_use]
    pub fn holding<'b>(&self, state: &'b State, host: Host) -> Machine<'b> {
        Machine::with(state, host, Rc::clone(&self.rules))
    }

    /// Whether an address is of this node.
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }

    /// What becomes of a packet.
    pub fn walk(&self, packet: &Packet) -> Outcome {
        self.tell(packet, &mut Story::silent())
    }

    /// What becomes of a packet, and by which steps.
    pub fn follow(&self, packet: &Packet) -> Followed {
        let mut story = Story::told();
        let outcome = self.tell(packet, &mut story);
        story.end(outcome)
    }

    fn tell(&self, packet: &Packet, story: &mut Story) -> Outcome {
        let (source, input, bridged) = match &packet.from {
            Sender::Other { address, interface, bridged } => {
                (*address, interface.clone(), *bridged)
            }
            // What it has as its source towards others does not matter: those are not ours.
            Sender::Node => (packet.destination, String::new(), false),
        };
        let to = (packet.destination, packet.port, packet.protocol);
        story.arrival(&packet.from, to, bridged);
        let flow = Flow {
            input: Some(input),
            output: if self.is_local(packet.destination) {
                Some(String::new())
            } else {
                self.host.routes.to(packet.destination)
            },
            bridged,
            source,
            destination: packet.destination,
            source_port: CLIENT_PORT,
            port: packet.port,
            protocol: packet.protocol,
            mark: 0,
            is_answer: false,
            has_destination: false,
            masqueraded: false,
            taken_by: None,
        };
        self.way(packet, flow, story).unwrap_or_else(|outcome| outcome)
    }

    /// `Err` is what ends it early.
    fn way(&self, packet: &Packet, mut flow: Flow, story: &mut Story) -> Result<Outcome, Outcome> {
        if let Some(most) = self.host.conntrack_full {
            story.say("conntrack", || {
                format!(
                    "all {most} entries are in use: packets of new connections are dropped; \
                     `sysctl -w net.netfilter.nf_conntrack_max={}`",
                    most * 2
                )
            });
            return Err(Outcome::Dropped);
        }
        self.expects(&packet.from, story)?;
        let from_node = packet.from == Sender::Node;
        if from_node {
            self.call(Hook::Output, &(..IPVS_OUTPUT), &mut flow, story)?;
            if let Some(key) = self.served(packet, &flow) {
                return Ok(self.balance(&key, packet, &flow, story));
            }
            self.call(Hook::Output, &(IPVS_OUTPUT..), &mut flow, story)?;
        } else {
            self.call(Hook::Prerouting, &(..), &mut flow, story)?;
        }
        let there = packet.destination;
        if self.is_local(there) {
            story.say("routing", || {
                let bound = self.state.interface.addresses.contains(&there);
                let place = if bound { "on kube-ipvs0" } else { "of this node" };
                let lacks = match self.served(packet, &flow) {
                    Some(_) => String::new(),
                    None => format!(", and {}", self.no_virtual_server(packet)),
                };
                format!("{there} is an address {place}{lacks}")
            });
            self.call(Hook::Input, &(..IPVS_INPUT), &mut flow, story)?;
            if let Some(key) = self.served(packet, &flow) {
                return Ok(self.balance(&key, packet, &flow, story));
            }
            self.call(Hook::Input, &(IPVS_INPUT..), &mut flow, story)?;
        } else {
            story.say("routing", || {
                let key = VirtualServerKey::new(there, packet.port, packet.protocol);
                let has = self.state.virtual_servers.contains_key(&key);
                let why = if has {
                    format!(", although there is a virtual server {key}: the address is not bound")
                } else {
                    String::new()
                };
                format!("{there} is no address of this node{why}; the packet leaves it again")
            });
            if !from_node {
                self.forwards(there, story)?;
                self.call(Hook::Forward, &(..), &mut flow, story)?;
            }
        }
        Ok(Outcome::NotOurs)
    }

    /// Whether a client's packets may come in where they do (`rp_filter`, which looks at IPv4 only).
    fn expects(&self, from: &Sender, story: &mut Story) -> Result<(), Outcome> {
        let Sender::Other { address: address @ IpAddr::V4(_), interface, .. } = from else {
            return Ok(());
        };
        let back = self.host.routes.to(*address);
        if !self.host.strict_interfaces.contains(interface) || back.as_ref() == Some(interface) {
            return Ok(());
        }
        story.say("routing", || {
            let back = back.map_or_else(|| "nowhere".to_owned(), |name| format!("by {name}"));
            format!(
                "rp_filter drops it: {address} comes in by {interface} and is reached {back}; \
                 `sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{interface}.rp_filter=2`"
            )
        });
        Err(Outcome::Dropped)
    }

    fn no_virtual_server(&self, packet: &Packet) -> String {
        let there = packet.destination;
        let others = self.state.virtual_servers.keys().filter_map(|key| match key {
            VirtualServerKey::Address { address, port, protocol } if *address == there => {
                Some(format!("{port}/{protocol}"))
            }
            _ => None,
        });
        let others = crate::text::few(others, 5);
        let has = if others.is_empty() { String::new() } else { format!("; it has {others}") };
        let key = VirtualServerKey::new(there, packet.port, packet.protocol);
        format!("there is no virtual server {key}{has}")
    }

    /// Whether it goes from one interface to another.
    fn forwards(&self, to: IpAddr, story: &mut Story) -> Result<(), Outcome> {
        let family = Family::of(to);
        if !self.host.forwards_not.contains(&family) {
            return Ok(());
        }
        story.say("routing", || {
            let setting = match family {
                Family::Ipv4 => "net.ipv4.ip_forward",
                Family::Ipv6 => "net.ipv6.conf.all.forwarding",
            };
            format!("this node forwards no {family}: {setting} is 0; `sysctl -w {setting}=1`")
        });
        Err(Outcome::Dropped)
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
        packet: &Packet,
        flow: &Flow,
        story: &mut Story,
    ) -> Outcome {
        let Some(server) = self.state.virtual_servers.get(key) else {
            return Outcome::NotOurs;
        };
        story.virtual_server(key, server);
        let (mut candidates, mut ways) = (BTreeMap::new(), Vec::new());
        let mut end = Outcome::Rejected;
        for server in server.real_servers.iter().filter(|server| server.config.weight > 0) {
            let mut way = story.branch();
            match self.to_real_server(server.key, packet, flow, &mut way) {
                Ok(masqueraded) => _ = candidates.insert(server.key, masqueraded),
                Err(lost) => end = lost,
            }
            ways.push((server.key, way));
        }
        story.join(ways);
        if candidates.is_empty() { end } else { Outcome::Forwarded(candidates) }
    }

    /// The way to a real server, and that of its answer. Whether the source was replaced.
    fn to_real_server(
        &self,
        server: RealServerKey,
        packet: &Packet,
        flow: &Flow,
        story: &mut Story,
    ) -> Result<bool, Outcome> {
        let from_node = packet.from == Sender::Node;
        let vip = VirtualServerKey::new(flow.destination, packet.port, flow.protocol);
        let here = self.is_local(server.address);
        let mut to = Flow {
            destination: server.address,
            port: server.port,
            output: if here { Some(String::new()) } else { self.host.routes.to(server.address) },
            taken_by: Some(vip),
            ..flow.clone()
        };
        if from_node {
            self.call(Hook::Output, &(IPVS_OUTPUT..), &mut to, story)?;
        } else if !here {
            self.call(Hook::Output, &(..), &mut to, story)?;
        }
        if !here {
            self.call(Hook::Postrouting, &(..), &mut to, story)?;
        }
        story.sees(&packet.from, to.masqueraded);
        self.answer(server, packet, &to, story)?;
        Ok(to.masqueraded)
    }

    /// The way back: by then what masqueraded the packet has given its answer the client's address again.
    fn answer(
        &self,
        server: RealServerKey,
        packet: &Packet,
        flow: &Flow,
        story: &mut Story,
    ) -> Result<(), Outcome> {
        story.say("answer", || "it answers, if something listens there".to_owned());
        let here = self.is_local(server.address);
        self.comes_back(server, packet, flow, story)?;
        let mut back = Flow {
            input: if here { Some(String::new()) } else { self.host.routes.to(server.address) },
            output: match &packet.from {
                Sender::Node => Some(String::new()),
                Sender::Other { .. } => flow.input.clone(),
            },
            source: server.address,
            source_port: server.port,
            destination: flow.source,
            port: CLIENT_PORT,
            mark: 0,
            is_answer: true,
            has_destination: true,
            taken_by: None,
            ..flow.clone()
        };
        if here {
            return self.call(Hook::Output, &(..), &mut back, story);
        }
        self.call(Hook::Prerouting, &(..), &mut back, story)?;
        if packet.from == Sender::Node {
            return self.call(Hook::Input, &(..), &mut back, story);
        }
        self.forwards(flow.source, story)?;
        self.call(Hook::Forward, &(..), &mut back, story)?;
        self.call(Hook::Postrouting, &(..), &mut back, story)
    }

    /// An answer that the client gets from an address which it did not ask is none.
    fn comes_back(
        &self,
        server: RealServerKey,
        packet: &Packet,
        flow: &Flow,
        story: &mut Story,
    ) -> Result<(), Outcome> {
        let Sender::Other { interface, bridged: false, .. } = &packet.from else { return Ok(()) };
        let same = self.host.routes.to(server.address).as_ref() == Some(interface);
        if flow.masqueraded || !same || self.is_local(server.address) {
            return Ok(());
        }
        story.say("answer", || {
            format!(
                "it goes past this node, which alone could give it the address that was asked: client and \
                 endpoint are both reached by {interface}, and the source is kept"
            )
        });
        Err(Outcome::Dropped)
    }

    fn call(
        &self,
        hook: Hook,
        priorities: &impl RangeBounds<i32>,
        flow: &mut Flow,
        story: &mut Story,
    ) -> Result<(), Outcome> {
        let rules = self.rules.get(&Family::of(flow.source));
        rules.map_or(Ok(()), |rules| rules.call(hook, priorities, flow, self, story))
    }
}

/// Where the programs of iptables write to nftables, their tables are read by their text.
fn rules_of(family: Family, text: Option<&str>, tables: &[Content]) -> Rules {
    let mut rules = Rules::default();
    if let Some(text) = text {
        iptables::read(text, &mut rules);
    }
    let by_text = text.is_some_and(|text| text.contains("(nf_tables)"));
    for table in tables {
        if !(by_text && table.is_of_iptables()) {
            nftables::read(family, table, &mut rules);
        }
    }
    rules.sort();
    rules
}

#[cfg(test)]
mod tests;
