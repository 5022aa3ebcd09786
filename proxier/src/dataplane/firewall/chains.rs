//! The chains that are ours, and how packets come to them.

use std::fmt;

/// A table that has rules of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Which packets are marked on their way in.
    Mangle,
    /// Which packets are masqueraded.
    Nat,
    /// Which packets may pass.
    Filter,
}

impl Table {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Mangle, Self::Nat, Self::Filter];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// Our chains, in the order in which kube-proxy creates them.
    pub fn chains(self) -> impl Iterator<Item = Chain> {
        Chain::ALL.into_iter().filter(move |chain| chain.table() == self)
    }

    /// Where packets come to ours, in the order of their way.
    pub const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Mangle => &[Hook::Prerouting, Hook::Output],
            Self::Nat => &[Hook::Prerouting, Hook::Output, Hook::Postrouting],
            Self::Filter => &[Hook::Input, Hook::Forward, Hook::Output],
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A place on a packet's way through the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// It came in.
    Prerouting,
    /// It is for this node.
    Input,
    /// It passes through.
    Forward,
    /// This node sends it.
    Output,
    /// It goes out.
    Postrouting,
}

impl Hook {
    /// The name of the built-in chain there.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}

/// One of our chains. The names are the same for both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// Packets to services, from outside and from this node.
    Services,
    /// Masquerades what was marked, and pods that reach themselves through a service.
    Postrouting,
    /// Node ports.
    NodePort,
    /// Load balancer addresses.
    LoadBalancer,
    /// Marks packets to be masqueraded.
    MarkMasq,
    /// Service traffic that this node forwards.
    Forward,
    /// What comes to health check node ports is accepted, and with `--accept-input` to services.
    NodePortFilter,
    /// Load balancer addresses with source ranges; and, where Local policies are split, frontends that
    /// have no endpoint for clients outside the cluster.
    ProxyFirewall,
    /// Closes those to everyone else.
    SourceRanges,
    /// Keeps ports of the node's own processes from being reached through `kube-ipvs0`.
    IpvsFilter,
    /// Keeps processes of this node from virtual servers whose source ranges leave it out.
    IpvsOutFilter,
    /// Gives packets of clients inside the cluster the mark of the virtual server that has all
    /// endpoints, where a Local policy leaves only some of them to others.
    LocalMark,
}

impl Chain {
    /// All, in the order in which kube-proxy creates them; then those that it does not have.
    pub const ALL: [Self; 12] = [
        Self::Services,
        Self::Postrouting,
        Self::NodePort,
        Self::LoadBalancer,
        Self::MarkMasq,
        Self::Forward,
        Self::NodePortFilter,
        Self::ProxyFirewall,
        Self::SourceRanges,
        Self::IpvsFilter,
        Self::IpvsOutFilter,
        Self::LocalMark,
    ];

    /// kube-proxy's name, if it has such a chain. Two tables have a `KUBE-NODE-PORT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "KUBE-SERVICES",
            Self::Postrouting => "KUBE-POSTROUTING",
            Self::NodePort | Self::NodePortFilter => "KUBE-NODE-PORT",
            Self::LoadBalancer => "KUBE-LOAD-BALANCER",
            Self::MarkMasq => "KUBE-MARK-MASQ",
            Self::Forward => "KUBE-FORWARD",
            Self::ProxyFirewall => "KUBE-PROXY-FIREWALL",
            Self::SourceRanges => "KUBE-SOURCE-RANGES-FIREWALL",
            Self::IpvsFilter => "KUBE-IPVS-FILTER",
            Self::IpvsOutFilter => "KUBE-IPVS-OUT-FILTER",
            Self::LocalMark => "KUBE-LOCAL-MARK",
        }
    }

    /// The table that it is in.
    pub const fn table(self) -> Table {
        match self {
            Self::LocalMark => Table::Mangle,
            Self::Services
            | Self::Postrouting
            | Self::NodePort
            | Self::LoadBalancer
            | Self::MarkMasq => Table::Nat,
            Self::Forward
            | Self::NodePortFilter
            | Self::ProxyFirewall
            | Self::SourceRanges
            | Self::IpvsFilter
            | Self::IpvsOutFilter => Table::Filter,
        }
    }

    /// Whether nftables has it, where a chain that only accepts does nothing.
    pub const fn is_of_nftables(self) -> bool {
        !matches!(self, Self::Forward | Self::NodePortFilter)
    }

    /// Whether it is there only where Local policies are split.
    pub const fn is_of_split(self) -> bool {
        matches!(self, Self::LocalMark)
    }

    /// The chain of this name in a table.
    pub fn by_name(table: Table, name: &str) -> Option<Self> {
        table.chains().find(|chain| chain.name() == name)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A rule in a built-in chain that leads to one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// The built-in chain.
    pub from: Hook,
    /// What people read of it.
    pub comment: &'static str,
    /// Ours.
    pub to: Chain,
}

impl Jump {
    const fn new(from: Hook, comment: &'static str, to: Chain) -> Self {
        Self { from, comment, to }
    }
}

/// In kube-proxy's order, then ours: each is inserted first, so that the last one of a chain ends up first.
/// One is there if its chain is.
pub const JUMPS: [Jump; 11] = [
    Jump::new(Hook::Output, "kubernetes service portals", Chain::Services),
    Jump::new(Hook::Prerouting, "kubernetes service portals", Chain::Services),
    Jump::new(Hook::Postrouting, "kubernetes postrouting rules", Chain::Postrouting),
    Jump::new(Hook::Forward, "kubernetes forwarding rules", Chain::Forward),
    Jump::new(Hook::Input, "kubernetes health check rules", Chain::NodePortFilter),
    Jump::new(Hook::Input, "kube-proxy firewall rules", Chain::ProxyFirewall),
    Jump::new(Hook::Forward, "kube-proxy firewall rules", Chain::ProxyFirewall),
    Jump::new(Hook::Input, "kubernetes ipvs access filter", Chain::IpvsFilter),
    Jump::new(Hook::Output, "kubernetes ipvs access filter", Chain::IpvsOutFilter),
    Jump::new(Hook::Prerouting, "kubernetes local traffic policy", Chain::LocalMark),
    Jump::new(Hook::Output, "kubernetes local traffic policy", Chain::LocalMark),
];
