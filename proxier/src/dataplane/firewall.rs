//! The static firewall rules as data: what `iptables-save` prints when they are installed, what
//! `iptables-restore` takes to install them, and how an installed table differs from them.
//!
//! Chains, rules and jumps are those of kube-proxy's IPVS mode. Services only change the members
//! of the [sets](super::sets), so a rule is there whether or not its set has members. The one
//! exception are the drops in `KUBE-IPVS-OUT-FILTER`, which name a virtual server each.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, VirtualServerKey};

pub use self::input::closed_input;
pub use self::installed::Installed;

mod input;
mod installed;
mod rules;
pub(crate) mod save;
mod spelling;

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

/// A table that has rules of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Which packets are masqueraded.
    Nat,
    /// Which packets may pass.
    Filter,
}

impl Table {
    /// Both, in the order in which they are written.
    pub const ALL: [Self; 2] = [Self::Nat, Self::Filter];

    /// iptables' name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// Our chains, in the order in which kube-proxy creates them. The names are the same for both
    /// families.
    pub const fn chains(self) -> &'static [&'static str] {
        match self {
            Self::Nat => &[
                "KUBE-SERVICES",
                "KUBE-POSTROUTING",
                "KUBE-NODE-PORT",
                "KUBE-LOAD-BALANCER",
                "KUBE-MARK-MASQ",
            ],
            Self::Filter => &[
                "KUBE-FORWARD",
                "KUBE-NODE-PORT",
                "KUBE-PROXY-FIREWALL",
                "KUBE-SOURCE-RANGES-FIREWALL",
                "KUBE-IPVS-FILTER",
                OUT_FILTER,
            ],
        }
    }

    /// The built-in chains that jump to ours, in the order of the hooks.
    const fn built_in(self) -> &'static [&'static str] {
        match self {
            Self::Nat => &["PREROUTING", "OUTPUT", "POSTROUTING"],
            Self::Filter => &["INPUT", "FORWARD", "OUTPUT"],
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether a rule of a built-in chain is one of our jumps.
pub(super) fn is_jump(table: &str, chain: &str, spec: &str) -> bool {
    let table = Table::ALL.into_iter().find(|own| own.name() == table);
    table.is_some_and(|table| Jump::position(table, chain, spec).is_some())
}

/// The chain whose rules are a set: each drops for one virtual server.
const OUT_FILTER: &str = "KUBE-IPVS-OUT-FILTER";

/// A rule in a built-in chain that leads to one of ours.
struct Jump {
    table: Table,
    from: &'static str,
    comment: &'static str,
    to: &'static str,
}

impl Jump {
    const fn new(
        table: Table,
        from: &'static str,
        comment: &'static str,
        to: &'static str,
    ) -> Self {
        Self { table, from, comment, to }
    }

    fn spec(&self) -> String {
        format!("-m comment --comment {} -j {}", save::quoted(self.comment), self.to)
    }

    /// The position in [`JUMPS`] of the jump that this rule of a built-in chain is.
    fn position(table: Table, chain: &str, spec: &str) -> Option<usize> {
        JUMPS.iter().position(|jump| {
            jump.table == table && jump.from == chain && save::same(&jump.spec(), spec)
        })
    }
}

/// In kube-proxy's order: each is inserted first, so that the last one of a chain ends up first.
const JUMPS: [Jump; 9] = [
    Jump::new(Table::Nat, "OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
    Jump::new(Table::Nat, "PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),
    Jump::new(Table::Nat, "POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
    Jump::new(Table::Filter, "FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
    Jump::new(Table::Filter, "INPUT", "kubernetes health check rules", "KUBE-NODE-PORT"),
    Jump::new(Table::Filter, "INPUT", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    Jump::new(Table::Filter, "FORWARD", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    Jump::new(Table::Filter, "INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
    Jump::new(Table::Filter, "OUTPUT", "kubernetes ipvs access filter", OUT_FILTER),
];

/// One rule of one of our chains, without the `-A CHAIN`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    table: Table,
    chain: &'static str,
    spec: String,
}

/// The rules of one family as `iptables-save` prints our part of them, shared. Two are equal when
/// there is nothing to install.
#[derive(Clone)]
pub struct Rules(Arc<Text>);

struct Text {
    all: Arc<str>,
    /// Without the drops of single virtual servers.
    base: Box<str>,
    /// The drops, without the `-A CHAIN`.
    drops: BTreeSet<Box<str>>,
}

impl Rules {
    /// The text.
    pub fn text(&self) -> &str {
        &self.0.all
    }

    /// Whether there is the same but for the drops of single virtual servers.
    pub(crate) fn has_base_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.base == other.0.base
    }

    /// Whether the node may not use this virtual server.
    pub(crate) fn drops(&self, key: &VirtualServerKey) -> bool {
        !self.0.drops.is_empty()
            && rules::drop_spec(key).is_some_and(|spec| self.0.drops.contains(&*spec))
    }
}

impl From<&str> for Rules {
    fn from(text: &str) -> Self {
        let chain = format!("-A {OUT_FILTER} ");
        let (mut base, mut drops) = (String::with_capacity(text.len()), BTreeSet::new());
        for line in text.split_inclusive('\n') {
            match line.strip_prefix(&*chain) {
                Some(spec) => _ = drops.insert(spec.trim_end().into()),
                None => base.push_str(line),
            }
        }
        Self(Arc::new(Text { all: text.into(), base: base.into(), drops }))
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.all == other.0.all
    }
}

impl Eq for Rules {}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// All rules of one family, in the exact words of `iptables-save`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    family: Family,
    /// The order of the rules of one chain counts; that of the chains does not.
    rules: Vec<Rule>,
}

/// The rules of one family. `drops` are the load balancer addresses whose source ranges leave out
/// this node: processes of the node must not reach them. Those of the other family and firewall
/// marks are passed over.
pub fn ruleset(
    family: Family,
    options: &FirewallOptions,
    drops: &BTreeSet<VirtualServerKey>,
) -> Ruleset {
    Ruleset { family, rules: rules::all(family, options, drops) }
}

impl Ruleset {
    /// The family of the packets.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The rules that are in this text, which [`Self::save_text`] printed.
    pub fn parse(family: Family, save_text: &str) -> Self {
        let installed = Installed::parse(save_text);
        let mut rules = Vec::new();
        for table in Table::ALL {
            for chain in table.chains().iter().copied() {
                for spec in installed.chain(table, chain).unwrap_or_default() {
                    rules.push(Rule { table, chain, spec: spec.clone() });
                }
            }
        }
        Self { family, rules }
    }

    /// The same rules for a kernel without the match `physdev`, if they have it. Without it no
    /// packet counts as bridged ([`FirewallOptions::physdev`]).
    pub fn without_physdev(&self) -> Option<Self> {
        if !self.rules.iter().any(|rule| rule.spec.contains(rules::NOT_BRIDGED)) {
            return None;
        }
        let mut out = self.clone();
        for rule in &mut out.rules {
            rule.spec = rule.spec.replace(rules::NOT_BRIDGED, "");
        }
        Some(out)
    }

    /// What `iptables-save` prints of these rules on a host that has no others: the built-in
    /// chains that jump to ours, our chains by name, the jumps, the rules.
    pub fn save_text(&self) -> String {
        save_text(|_| true, |table, chain| Some(self.specs(table, chain).collect()))
    }

    /// The input of `iptables-restore --noflush` that installs the rules whatever is there: our
    /// chains are created or emptied and filled again, and the jumps that are missing are put
    /// first in their chains. Everything else stays as it is. Each table changes at once.
    pub fn restore_input(&self, installed: &Installed) -> String {
        let mut out = String::new();
        for table in Table::ALL {
            let _ = writeln!(out, "*{table}");
            for chain in table.chains() {
                let _ = writeln!(out, ":{chain} - [0:0]");
            }
            for rule in self.rules.iter().filter(|rule| rule.table == table) {
                let _ = writeln!(out, "-A {} {}", rule.chain, rule.spec);
            }
            for (index, jump) in JUMPS.iter().enumerate() {
                if jump.table == table && !installed.has_jump(index) {
                    let _ = writeln!(out, "-I {} 1 {}", jump.from, jump.spec());
                }
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    /// What of these rules is not installed, one line each; empty when there is nothing to do.
    /// Where a jump stands in its chain is not compared: an administrator may have put rules
    /// before it.
    pub fn differences(&self, installed: &Installed) -> Vec<String> {
        let mut out = Vec::new();
        for table in Table::ALL {
            for chain in table.chains() {
                let wanted: Vec<&str> = self.specs(table, chain).collect();
                match installed.chain(table, chain) {
                    None => out.push(format!("{table}: chain {chain} is missing")),
                    Some(present) => {
                        if let Some(text) = chain_difference(&wanted, present) {
                            out.push(format!("{table}: chain {chain}: {text}"));
                        }
                    }
                }
            }
            for (index, jump) in JUMPS.iter().enumerate() {
                if jump.table == table && !installed.has_jump(index) {
                    out.push(format!("{table}: {} has no jump to {}", jump.from, jump.to));
                }
            }
        }
        out
    }

    fn specs(&self, table: Table, chain: &str) -> impl Iterator<Item = &str> {
        self.rules
            .iter()
            .filter(move |rule| rule.table == table && rule.chain == chain)
            .map(|rule| rule.spec.as_str())
    }
}

/// The text that [`Ruleset::save_text`] and [`Installed::save_text`] share, so that they are equal
/// when the same things are there: `jump` says which of [`JUMPS`] are, `rules` which rules a chain
/// has if it exists.
fn save_text<'a>(
    jump: impl Fn(usize) -> bool,
    rules: impl Fn(Table, &'static str) -> Option<Vec<&'a str>>,
) -> String {
    let mut out = String::new();
    for table in Table::ALL {
        let _ = writeln!(out, "*{table}");
        for chain in table.built_in() {
            let _ = writeln!(out, ":{chain} ACCEPT [0:0]");
        }
        let mut chains: Vec<_> = table
            .chains()
            .iter()
            .filter_map(|chain| rules(table, chain).map(|rules| (*chain, rules)))
            .collect();
        chains.sort_unstable_by_key(|(chain, _)| *chain);
        for (chain, _) in &chains {
            let _ = writeln!(out, ":{chain} - [0:0]");
        }
        for chain in table.built_in() {
            for (index, present) in JUMPS.iter().enumerate().rev() {
                if present.table == table && present.from == *chain && jump(index) {
                    let _ = writeln!(out, "-A {chain} {}", present.spec());
                }
            }
        }
        for (chain, rules) in &chains {
            for spec in rules {
                let _ = writeln!(out, "-A {chain} {spec}");
            }
        }
        out.push_str("COMMIT\n");
    }
    out
}

/// The first difference between two chains, if there is one.
fn chain_difference(wanted: &[&str], present: &[String]) -> Option<String> {
    for (index, wanted) in wanted.iter().enumerate() {
        let number = index + 1;
        match present.get(index) {
            None => return Some(format!("rule {number} is missing: {wanted}")),
            Some(present) if present != wanted => {
                return Some(format!("rule {number} is `{present}`, not `{wanted}`"));
            }
            Some(_) => {}
        }
    }
    present.get(wanted.len()).map(|rule| format!("rule {} is foreign: {rule}", wanted.len() + 1))
}

#[cfg(test)]
mod tests;
