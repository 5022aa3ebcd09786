//! The static firewall rules as data. In which words they are installed is a matter of the program
//! that installs them (`iptables`).
//!
//! Chains, rules and jumps are those of kube-proxy's IPVS mode. Services only change the members
//! of the [sets](super::sets), so a rule is there whether or not its set has members. The one
//! exception are the drops in [`Chain::IpvsOutFilter`], which name a virtual server each.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::sets::SetRole;

mod chains;
mod for_nftables;
mod rules;

pub use chains::{Chain, Hook, JUMPS, Jump, Table};
pub(crate) use rules::drop_rule;

/// By what the rules and sets are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// iptables and ipset, with the chains and sets of kube-proxy.
    #[default]
    Iptables,
    /// One table of nftables for each family.
    Nftables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

/// What the rules of one family depend on; all of it is configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct FirewallOptions {
    /// Masquerade every packet to a cluster IP (`iptables.masqueradeAll`).
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading, 0 to 31 (`iptables.masqueradeBit`).
    pub masquerade_bit: u8,
    /// Let the kernel choose source ports of masqueraded packets at random (`--random-fully`,
    /// which iptables knows since 1.6.2).
    pub random_fully: bool,
    /// Tell bridged from routed packets in the rules on external IPs (`-m physdev`). Where such a
    /// rule is first installed the kernel loads `br_netfilter`, which sends the frames of every
    /// bridge of the node through the firewall. Without that module no packet counts as bridged,
    /// so leaving the match out changes nothing.
    pub physdev: bool,
    /// Let the addresses on `kube-ipvs0` answer pings.
    pub answer_ping: bool,
    /// Accept packets to services in `INPUT`. IPVS takes them only after that chain, so where it
    /// drops what no rule accepts they would be lost.
    pub accept_input: bool,
    /// How traffic of this node's pods is recognised.
    pub detector: LocalDetector,
    /// Tell clients inside the cluster from others where externalTrafficPolicy is Local; the bits that
    /// all marks have by which they are led.
    pub split: Option<u32>,
}

impl Default for FirewallOptions {
    fn default() -> Self {
        Self {
            masquerade_all: false,
            masquerade_bit: 14,
            random_fully: true,
            physdev: true,
            answer_ping: false,
            accept_input: false,
            detector: LocalDetector::None,
            split: None,
        }
    }
}

/// How packets of this node's pods are told from others (`detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LocalDetector {
    /// Not at all: only traffic from a cluster IP itself is masqueraded.
    #[default]
    None,
    /// By source address: `clusterCIDR` or the node's pod CIDR.
    Cidr(IpNet),
    /// By the bridge they come from.
    Bridge(String),
    /// By the beginning of the name of the interface they come from.
    InterfacePrefix(String),
}

/// One rule: what it matches, all of it, and what becomes of the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What people read of it.
    pub comment: Option<Cow<'static, str>>,
    /// What a packet has to be, in this order.
    pub matches: Vec<Match>,
    /// What becomes of it then.
    pub verdict: Verdict,
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The source address is of this network.
    Source(IpNet),
    /// The source address is of no such network.
    NotSource(IpNet),
    /// It came in through an interface of this name; one that ends with `+` is a prefix.
    Interface(String),
    /// It did not.
    NotInterface(String),
    /// TCP, UDP or SCTP.
    Protocol(Protocol),
    /// An ICMP echo request of the rule's family.
    EchoRequest,
    /// These of its addresses and ports are a member of the set of the rule's family.
    Set(SetRole, Fields),
    /// It did not come in through a port of a bridge.
    NotBridged,
    /// The source is an address of this node, or is not.
    SourceLocal(bool),
    /// The destination is an address of this node.
    DestinationLocal,
    /// All these bits of its mark are set, or are not.
    Mark(u32, bool),
    /// It opens a connection.
    New,
    /// It belongs to a known connection, or is related to one.
    Known,
    /// IPVS takes it to this virtual server.
    VirtualServer(VirtualServerKey),
}

/// Which addresses and ports of a packet are looked up in a set, in the order of its members' parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fields {
    /// The destination address, or port.
    Dst,
    /// The source address.
    Src,
    /// The destination address and port.
    DstDst,
    /// The source address, with the destination port.
    SrcDst,
    /// The destination address and port, and the source address.
    DstDstSrc,
}

impl Fields {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Dst, Self::Src, Self::DstDst, Self::SrcDst, Self::DstDstSrc];
}

/// What becomes of a packet that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this table.
    Accept,
    /// It is lost.
    Drop,
    /// It is answered with "port unreachable".
    Reject,
    /// It goes back to the chain that led here.
    Return,
    /// It goes to this chain.
    Jump(Chain),
    /// These bits of its mark are set; the next rule follows.
    SetMark(u32),
    /// These bits of its mark are turned around; the next rule follows.
    ToggleMark(u32),
    /// Its mark becomes that of the member of this set that is its destination address and port, if
    /// there is one; the next rule follows.
    MarkOf(SetRole),
    /// Its source becomes an address of this node.
    Masquerade {
        /// From a port that the kernel chooses at random.
        random_fully: bool,
    },
}

/// A rule of one of our chains, as it is wanted or was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// One such as we make.
    Ours(Rule),
    /// One that says something else, in the words of the program that read it.
    Foreign(Box<str>),
}

/// The rules of one family, shared. Two are equal when there is nothing to install.
#[derive(Debug, Clone)]
pub struct Ruleset(Arc<Content>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    family: Family,
    base: Base,
    /// The virtual servers that the node may not use, each with a rule in [`Chain::IpvsOutFilter`]. In
    /// which order these stand does not matter.
    drops: BTreeSet<VirtualServerKey>,
}

/// Everything but the drops of single virtual servers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Base {
    /// The chains that exist, with their rules. The order of the rules of one chain counts; that of
    /// the chains does not.
    chains: BTreeMap<Chain, Vec<Entry>>,
    /// Which of [`JUMPS`] are there.
    jumps: [bool; JUMPS.len()],
    /// Packets of services that IPVS does not take are dropped.
    holds: bool,
}

/// The rules of one family. `drops` are the load balancer addresses whose source ranges leave out
/// this node: processes of the node must not reach them. Those of the other family and firewall
/// marks are passed over.
pub fn ruleset(
    family: Family,
    options: &FirewallOptions,
    drops: &BTreeSet<VirtualServerKey>,
) -> Ruleset {
    let wanted = |chain: &Chain| options.split.is_some() || !chain.is_of_split();
    let mut chains: BTreeMap<Chain, Vec<Entry>> =
        Chain::ALL.into_iter().filter(wanted).map(|chain| (chain, Vec::new())).collect();
    for (chain, rule) in rules::all(family, options) {
        chains.entry(chain).or_default().push(Entry::Ours(rule));
    }
    let own = drops.iter().filter(|key| key.family() == family && drop_rule(key).is_some());
    let drops = own.copied().collect();
    let jumps = JUMPS.map(|jump| chains.contains_key(&jump.to));
    let base = Base { chains, jumps, holds: false };
    Ruleset(Arc::new(Content { family, base, drops }))
}

impl Ruleset {
    /// What was found of ours: the chains that exist with their rules, and which of [`JUMPS`] there
    /// are.
    pub fn found(
        family: Family,
        mut chains: BTreeMap<Chain, Vec<Entry>>,
        jumps: [bool; JUMPS.len()],
    ) -> Self {
        let mut drops = BTreeSet::new();
        if let Some(entries) = chains.get_mut(&Chain::IpvsOutFilter) {
            entries.retain(|entry| match dropped(entry) {
                Some(key) => !drops.insert(key),
                None => true,
            });
        }
        Self::with_drops(family, chains, jumps, drops)
    }

    /// The same, where the virtual servers that the node may not use are known by themselves.
    pub(crate) fn with_drops(
        family: Family,
        chains: BTreeMap<Chain, Vec<Entry>>,
        jumps: [bool; JUMPS.len()],
        drops: BTreeSet<VirtualServerKey>,
    ) -> Self {
        let base = Base { chains, jumps, holds: false };
        Self(Arc::new(Content { family, base, drops }))
    }

    /// The same, and packets of services that IPVS does not take are dropped, instead of being answered
    /// by the node or sent on: for while somebody else may remove all virtual servers. Only the backend
    /// nftables knows it.
    #[must_use]
    pub fn holding(&self) -> Self {
        let mut content = Content::clone(&self.0);
        content.base.holds = true;
        Self(Arc::new(content))
    }

    /// Whether packets of services that IPVS does not take are dropped.
    pub fn holds(&self) -> bool {
        self.0.base.holds
    }

    /// The family of the packets.
    pub fn family(&self) -> Family {
        self.0.family
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.0.base == Base::default()
    }

    /// The rules of a chain that exists, without the drops of single virtual servers.
    pub fn chain(&self, chain: Chain) -> Option<&[Entry]> {
        self.0.base.chains.get(&chain).map(Vec::as_slice)
    }

    /// Which of [`JUMPS`] are there.
    pub fn has_jump(&self, index: usize) -> bool {
        self.0.base.jumps.get(index).copied().unwrap_or_default()
    }

    /// The virtual servers that the node may not use.
    pub fn dropped(&self) -> &BTreeSet<VirtualServerKey> {
        &self.0.drops
    }

    /// Whether the node may not use this virtual server.
    pub(crate) fn drops(&self, key: &VirtualServerKey) -> bool {
        self.0.drops.contains(key)
    }

    /// Whether there is the same but for the drops of single virtual servers.
    pub(crate) fn has_base_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.base == other.0.base
    }

    /// How many rules refer to a set of this family.
    pub fn references(&self, role: SetRole) -> usize {
        let rules = self.0.base.chains.values().flatten().filter_map(|entry| match entry {
            Entry::Ours(ours) => Some(ours),
            Entry::Foreign(_) => None,
        });
        let refers = |it: &&Match| matches!(it, Match::Set(of, _) if *of == role);
        let of_rule = |it: &Rule| {
            let mark = usize::from(it.verdict == Verdict::MarkOf(role));
            it.matches.iter().filter(refers).count() + mark
        };
        rules.map(of_rule).sum()
    }

    /// The same rules for a kernel without the match `physdev`, if they have it. Without it no
    /// packet counts as bridged ([`FirewallOptions::physdev`]).
    pub fn without_physdev(&self) -> Option<Self> {
        let mut content = Content::clone(&self.0);
        for entry in content.base.chains.values_mut().flatten() {
            if let Entry::Ours(rule) = entry {
                rule.matches.retain(|it| *it != Match::NotBridged);
            }
        }
        (content != *self.0).then(|| Self(Arc::new(content)))
    }
}

/// The virtual server that this rule keeps the node from.
fn dropped(entry: &Entry) -> Option<VirtualServerKey> {
    let Entry::Ours(rule) = entry else { return None };
    let key = rule.matches.iter().find_map(|it| match it {
        Match::VirtualServer(key) => Some(*key),
        _ => None,
    })?;
    (drop_rule(&key).as_ref() == Some(rule)).then_some(key)
}

impl PartialEq for Ruleset {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Ruleset {}
