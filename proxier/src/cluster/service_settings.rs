//! What annotations set for one Service alone, and what they set for the endpoints of one node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use netlink_ipvs::{Flags, Scheduler};

use super::Location;

/// An annotation of a Service, or of a Node, that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Annotation {
    /// `proxier.io/scheduler`
    Scheduler,
    /// kube-router's name for the scheduler.
    KubeRouterScheduler,
    /// Cilium's name for the scheduler.
    CiliumAlgorithm,
    /// `proxier.io/scheduler-flags`
    SchedulerFlags,
    /// kube-router's name for the flags.
    KubeRouterFlags,
    /// `proxier.io/one-packet`
    OnePacket,
    /// `proxier.io/weights`
    Weights,
    /// `proxier.io/weight` of a Node
    NodeWeight,
    /// `proxier.io/slow-start`
    SlowStart,
    /// `proxier.io/max-connections`
    MaxConnections,
}

impl Annotation {
    /// The names of everything that annotations set.
    pub const SETTINGS: [&str; 6] =
        ["scheduler", "scheduler-flags", "one-packet", "weights", "slow-start", "max-connections"];

    /// Its key.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "proxier.io/scheduler",
            Self::KubeRouterScheduler => "kube-router.io/service.scheduler",
            Self::CiliumAlgorithm => "service.cilium.io/lb-algorithm",
            Self::SchedulerFlags => "proxier.io/scheduler-flags",
            Self::KubeRouterFlags => "kube-router.io/service.schedflags",
            Self::OnePacket => "proxier.io/one-packet",
            Self::Weights => "proxier.io/weights",
            Self::NodeWeight => "proxier.io/weight",
            Self::SlowStart => "proxier.io/slow-start",
            Self::MaxConnections => "proxier.io/max-connections",
        }
    }

    /// What it sets, whoever's annotation it is.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Scheduler | Self::KubeRouterScheduler | Self::CiliumAlgorithm => "scheduler",
            Self::SchedulerFlags | Self::KubeRouterFlags => "scheduler-flags",
            Self::OnePacket => "one-packet",
            Self::Weights | Self::NodeWeight => "weights",
            Self::SlowStart => "slow-start",
            Self::MaxConnections => "max-connections",
        }
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value and the annotation that it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Annotated<T> {
    /// The value.
    pub value: T,
    /// Where it is from.
    pub annotation: Annotation,
}

/// What annotations set for one Service alone. What it does not set is as for every Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ServiceSettings {
    /// The scheduler, one of [`ServiceSettings::SCHEDULERS`].
    pub scheduler: Option<Annotated<Scheduler>>,
    /// Flags of the scheduler.
    pub scheduler_flags: Option<Annotated<SchedulerFlags>>,
    /// Every UDP packet is scheduled by itself.
    pub one_packet: bool,
    /// Weights of the endpoints.
    pub weights: Option<Weights>,
    /// How long a new endpoint takes to reach its weight.
    pub slow_start: Option<Duration>,
    /// Connections that an endpoint may have before it gets no new ones.
    pub max_connections: Option<u32>,
    /// Annotations that cannot be used.
    pub rejected: Vec<Rejected>,
}

impl ServiceSettings {
    /// The schedulers of Linux that distribute connections. An annotation chooses among these only:
    /// the kernel loads a module of whatever name it is given.
    pub const SCHEDULERS: [Scheduler; 14] = [
        Scheduler::RR,
        Scheduler::WRR,
        Scheduler::LC,
        Scheduler::WLC,
        Scheduler::LBLC,
        Scheduler::LBLCR,
        Scheduler::DH,
        Scheduler::SH,
        Scheduler::SED,
        Scheduler::NQ,
        Scheduler::FO,
        Scheduler::OVF,
        Scheduler::MH,
        Scheduler::TWOS,
    ];
}

/// Flags of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SchedulerFlags {
    /// The bits.
    pub flags: Flags,
    /// The scheduler whose names were used for them.
    pub of: Option<Scheduler>,
}

impl SchedulerFlags {
    /// Each flag by the names that `ipvsadm -b` has for it, and the scheduler whose name it is.
    pub const NAMES: [(&str, Flags, Option<Scheduler>); 7] = [
        ("sh-fallback", Flags::SCHED1, Some(Scheduler::SH)),
        ("sh-port", Flags::SCHED2, Some(Scheduler::SH)),
        ("mh-fallback", Flags::SCHED1, Some(Scheduler::MH)),
        ("mh-port", Flags::SCHED2, Some(Scheduler::MH)),
        ("flag-1", Flags::SCHED1, None),
        ("flag-2", Flags::SCHED2, None),
        ("flag-3", Flags::SCHED3, None),
    ];
}

/// An annotation that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rejected {
    /// Which.
    pub annotation: Annotation,
    /// Its value as it may be shown: quoted, escaped, cut.
    pub value: Box<str>,
    /// Why not, and what it takes.
    pub reason: Cow<'static, str>,
}

/// `proxier.io/scheduler: "fast" is not used: it takes one of rr, wrr`
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} is not used: {}", self.annotation, self.value, self.reason)
    }
}

/// Weights of endpoints by where they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Weights {
    /// By the name of the node, in order.
    nodes: Vec<(Box<str>, u16)>,
    /// By the zone, in order.
    zones: Vec<(Box<str>, u16)>,
    default: Option<u16>,
}

/// Which rule gives an endpoint its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightRule {
    /// `node=NAME:N`
    Node,
    /// The annotation of its Node.
    NodeObject,
    /// `zone=NAME:N`
    Zone,
    /// `default:N`
    Default,
    /// There is none.
    None,
}

/// Weights of endpoints by the names of their nodes, as annotations of these Nodes say.
pub type NodeWeights = BTreeMap<Box<str>, u16>;

/// The weight of an endpoint, and by which rule: that of its Service for the node, else the node's own, else
/// those of the Service for a zone and for all others.
pub fn weight(
    own: Option<&Weights>,
    nodes: Option<&NodeWeights>,
    location: &Location,
) -> (u16, WeightRule) {
    let (node, zone) = (location.node.as_deref(), location.zone.as_deref());
    let own = own.map_or((Weights::PLAIN, WeightRule::None), |own| own.of(node, zone));
    if own.1 == WeightRule::Node {
        return own;
    }
    let of_node = nodes.zip(node).and_then(|(nodes, node)| nodes.get(node));
    of_node.map_or(own, |weight| (*weight, WeightRule::NodeObject))
}

impl Weights {
    /// The weight where nothing says otherwise.
    pub const PLAIN: u16 = 1;

    /// From the rules for nodes, for zones and for all others. `None` if a name is there twice.
    pub fn new(
        mut nodes: Vec<(Box<str>, u16)>,
        mut zones: Vec<(Box<str>, u16)>,
        default: Option<u16>,
    ) -> Option<Self> {
        for rules in [&mut nodes, &mut zones] {
            rules.sort_unstable();
            rules.shrink_to_fit();
            if rules.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
        }
        Some(Self { nodes, zones, default })
    }

    /// The weight of an endpoint, and by which rule: the one for its node, else the one for its zone,
    /// else the one for all others.
    pub fn of(&self, node: Option<&str>, zone: Option<&str>) -> (u16, WeightRule) {
        let find = |rules: &[(Box<str>, u16)], name: Option<&str>| {
            let name = name?;
            let at = rules.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
            Some(rules[at].1)
        };
        if let Some(weight) = find(&self.nodes, node) {
            return (weight, WeightRule::Node);
        }
        if let Some(weight) = find(&self.zones, zone) {
            return (weight, WeightRule::Zone);
        }
        match self.default {
            Some(weight) => (weight, WeightRule::Default),
            None => (Self::PLAIN, WeightRule::None),
        }
    }

    /// Bytes of memory that the rules take.
    pub fn bytes(&self) -> usize {
        let rules = self.nodes.iter().chain(&self.zones);
        rules.map(|(name, _)| 32 + name.len()).sum()
    }

    /// The greatest weight of any rule.
    pub fn greatest(&self) -> u16 {
        let rules = self.nodes.iter().chain(&self.zones).map(|(_, weight)| *weight);
        rules.chain(self.default).max().unwrap_or(Self::PLAIN)
    }

    /// The least weight of any rule.
    pub fn least(&self) -> u16 {
        let rules = self.nodes.iter().chain(&self.zones).map(|(_, weight)| *weight);
        rules.chain(self.default).min().unwrap_or(Self::PLAIN)
    }
}

/// As the annotation has them, in order.
impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |kind: &'static str, rules: &[(Box<str>, u16)]| -> Vec<String> {
            rules.iter().map(|(name, weight)| format!("{kind}={name}:{weight}")).collect()
        };
        let mut rules = named("node", &self.nodes);
        rules.extend(named("zone", &self.zones));
        rules.extend(self.default.map(|weight| format!("default:{weight}")));
        f.write_str(&rules.join(","))
    }
}
