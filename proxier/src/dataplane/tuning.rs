//! How connections to a Service are distributed: what is set for all Services, and what annotations
//! set for this one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{
    Family, Flags, PersistenceEngine, Protocol, RealServerConfig, Scheduler, VirtualServerConfig,
};

use super::{Settings, SlowStarts};
use crate::cluster::{
    Annotated, Annotation, Endpoint, EndpointSlice, NodeWeights, Rejected, SchedulerFlags, Service,
    ServiceSettings, Weights, weight,
};

/// A module of the kernel that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    /// Of a scheduler.
    Scheduler(Scheduler),
    /// Of a persistence engine.
    PersistenceEngine(PersistenceEngine),
}

/// Its name.
impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheduler(scheduler) => write!(f, "ip_vs_{scheduler}"),
            Self::PersistenceEngine(engine) => write!(f, "ip_vs_pe_{engine}"),
        }
    }
}

/// What became of the annotations of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// What is in force because of them.
    pub in_force: Vec<InForce>,
    /// What cannot be used: what holds for every Service holds instead.
    pub rejected: Vec<Rejected>,
    /// How long a new endpoint takes to reach its weight.
    pub slow_start: Option<Duration>,
}

/// A setting that an annotation has brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Its name: `scheduler`.
    pub setting: &'static str,
    /// Its value; the beginning of a long one.
    pub value: Box<str>,
    /// Where it is from.
    pub annotation: Annotation,
}

/// `scheduler wrr (proxier.io/weights)`
impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.setting, self.value, self.annotation)
    }
}

impl Applied {
    fn set(&mut self, annotation: Annotation, value: impl fmt::Display) {
        self.set_as(annotation.setting(), annotation, value);
    }

    /// Sets something else than the annotation names.
    fn set_as(&mut self, setting: &'static str, of: Annotation, value: impl fmt::Display) {
        let value = cut(value.to_string());
        self.in_force.push(InForce { setting, value, annotation: of });
    }

    fn reject(
        &mut self,
        annotation: Annotation,
        value: impl fmt::Display,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let value = format!("\"{}\"", cut(value.to_string())).into();
        self.rejected.push(Rejected { annotation, value, reason: reason.into() });
    }
}

/// Longest value that is shown: a hundred rules for weights would fill a page.
const SHOWN: usize = 200;

fn cut(mut value: String) -> Box<str> {
    if value.len() > SHOWN {
        value.truncate(value.floor_char_boundary(SHOWN));
        value.push_str("...");
    }
    value.into()
}

/// The configuration of the virtual and real servers of one Service.
pub(super) struct Tuning<'a> {
    scheduler: Scheduler,
    flags: Flags,
    affinity: Option<u32>,
    one_packet: bool,
    weights: Option<&'a Weights>,
    /// Those that Nodes give their endpoints.
    nodes: Option<Arc<NodeWeights>>,
    /// The least and the greatest weight that an endpoint may have.
    range: (u16, u16),
    /// By what every weight is multiplied, so that there are smaller ones.
    scale: u32,
    upper_threshold: u32,
}

impl<'a> Tuning<'a> {
    /// For a Service, and what became of its annotations, and of those of its endpoints' Nodes, if there are
    /// any.
    pub(super) fn new<'b>(
        service: &'a Service,
        slices: impl IntoIterator<Item = &'b EndpointSlice>,
        settings: &Settings,
    ) -> (Self, Option<Box<Applied>>) {
        let mut tuning = Self {
            scheduler: settings.scheduler,
            flags: Flags::NONE,
            affinity: service.affinity,
            one_packet: false,
            weights: None,
            nodes: None,
            range: (Weights::PLAIN, Weights::PLAIN),
            scale: 1,
            upper_threshold: 0,
        };
        let asked = service.settings.as_deref();
        let nodes = of_nodes(slices, &settings.node_weights);
        let mut out = Applied::default();
        if let Some(asked) = asked {
            out.rejected.clone_from(&asked.rejected);
        }
        if asked.is_some() || nodes.is_some() {
            tuning.distribute(asked, nodes.as_ref(), settings, &mut out);
        }
        if let Some(asked) = asked {
            if asked.one_packet {
                tuning.one_packet = may_be_one_packet(service, settings, &mut out);
            }
            if let Some(most) = asked.max_connections {
                tuning.upper_threshold = most;
                out.set(Annotation::MaxConnections, most);
            }
        }
        let flags = asked.and_then(|asked| asked.scheduler_flags);
        tuning.flags = tuning.scheduler_flags(flags);
        (tuning, (asked.is_some() || nodes.is_some()).then(|| Box::new(out)))
    }

    /// The scheduler and its flags, weights and slow start, which depend on one another.
    fn distribute(
        &mut self,
        asked: Option<&'a ServiceSettings>,
        nodes: Option<&Weights>,
        settings: &Settings,
        out: &mut Applied,
    ) {
        if let Some(Annotated { value, annotation }) = asked.and_then(|asked| asked.scheduler) {
            if settings.missing_modules.contains(&Module::Scheduler(value)) {
                out.reject(annotation, value, lacking(Module::Scheduler(value)));
            } else {
                self.scheduler = value;
                out.set(annotation, value);
            }
        }
        if let Some(weights) = asked.and_then(|asked| asked.weights.as_ref())
            && self.heed_weights(Annotation::Weights, weights, settings, out)
        {
            self.weights = Some(weights);
            self.widen(weights);
            out.set(Annotation::Weights, weights);
        }
        if let Some(weights) = nodes
            && self.heed_weights(Annotation::NodeWeight, weights, settings, out)
        {
            self.nodes = Some(Arc::clone(&settings.node_weights));
            self.widen(weights);
            out.set(Annotation::NodeWeight, weights);
        }
        let Some(asked) = asked else { return };
        if let Some(duration) = asked.slow_start {
            self.slow_start(duration, settings, out);
        }
        if let Some(Annotated { value, annotation }) = asked.scheduler_flags {
            let names = flag_names(self.scheduler, value.flags);
            match value.of.filter(|of| *of != self.scheduler) {
                Some(of) => {
                    let names = flag_names(of, value.flags);
                    let scheduler = self.scheduler;
                    let reason =
                        format!("these are flags of {of}, and the scheduler is {scheduler}");
                    out.reject(annotation, names.join(","), reason);
                }
                None if names.is_empty() => out.set(annotation, "none"),
                None => out.set(annotation, names.join(",")),
            }
        }
    }

    fn widen(&mut self, weights: &Weights) {
        let (least, greatest) = &mut self.range;
        (*least, *greatest) = ((*least).min(weights.least()), (*greatest).max(weights.greatest()));
    }

    /// Chooses a scheduler that heeds weights. Whether there is one.
    fn heed_weights(
        &mut self,
        because_of: Annotation,
        value: impl fmt::Display,
        settings: &Settings,
        out: &mut Applied,
    ) -> bool {
        let weighted = match self.scheduler {
            Scheduler::RR => Scheduler::WRR,
            Scheduler::LC => Scheduler::WLC,
            Scheduler::DH => {
                out.reject(because_of, value, "the scheduler dh heeds no weights");
                return false;
            }
            _ => return true,
        };
        let module = Module::Scheduler(weighted);
        if settings.missing_modules.contains(&module) {
            out.reject(because_of, value, lacking(module));
            return false;
        }
        self.scheduler = weighted;
        out.set_as("scheduler", because_of, weighted);
        true
    }

    fn slow_start(&mut self, duration: Duration, settings: &Settings, out: &mut Applied) {
        let annotation = Annotation::SlowStart;
        let value = format!("{}s", duration.as_secs_f64());
        if matches!(self.scheduler, Scheduler::SH | Scheduler::FO | Scheduler::OVF) {
            let reason = format!("with the scheduler {} a weight is no share", self.scheduler);
            out.reject(annotation, value, reason);
        } else if u32::from(self.range.1) > u32::from(u16::MAX) / SlowStarts::STEPS {
            out.reject(annotation, value, "it takes weights of at most 6553");
        } else if self.heed_weights(annotation, &value, settings, out) {
            self.scale = SlowStarts::STEPS;
            out.slow_start = Some(duration);
            out.set(annotation, value);
        }
    }

    /// Those that were asked for if they are the scheduler's, else its own.
    fn scheduler_flags(&self, asked: Option<Annotated<SchedulerFlags>>) -> Flags {
        let fitting = asked.filter(|it| it.value.of.is_none_or(|of| of == self.scheduler));
        let flags = match fitting {
            Some(asked) => asked.value.flags,
            // As kube-proxy has it.
            None if self.scheduler == Scheduler::MH => Flags::SCHED2,
            None => Flags::NONE,
        };
        let hashes = matches!(self.scheduler, Scheduler::SH | Scheduler::MH);
        if hashes && self.range.0 == 0 {
            // The table of hashes holds those of weight 0, too: without the fallback their clients
            // are refused.
            return flags | Flags::SCHED1;
        }
        flags
    }

    /// The configuration of a virtual server.
    pub(super) fn virtual_server(&self, protocol: Protocol, family: Family) -> VirtualServerConfig {
        let mut config = VirtualServerConfig::new(self.scheduler, family);
        config.flags = self.flags;
        if let Some(timeout) = self.affinity {
            config.flags = config.flags | Flags::PERSISTENT;
            config.timeout = timeout;
        }
        if self.one_packet && protocol == Protocol::Udp {
            config.flags = config.flags | Flags::ONE_PACKET;
            config.persistence_engine = Some(REPLIES);
        }
        config
    }

    /// The configuration of the real server that an endpoint is, once it has its full weight.
    pub(super) fn real_server(&self, endpoint: &Endpoint) -> RealServerConfig {
        let (weight, _) = weight(self.weights, self.nodes.as_deref(), &endpoint.location);
        let mut config = RealServerConfig::masquerade(u32::from(weight) * self.scale);
        config.upper_threshold = self.upper_threshold;
        config
    }
}

/// What Nodes say of the weights of these endpoints, as rules.
fn of_nodes<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    known: &NodeWeights,
) -> Option<Weights> {
    if known.is_empty() {
        return None;
    }
    let endpoints = slices.into_iter().flat_map(|slice| &slice.endpoints);
    let nodes = endpoints.filter_map(|endpoint| endpoint.location.node.as_deref());
    let weights: BTreeMap<&str, u16> =
        nodes.filter_map(|node| Some((node, *known.get(node)?))).collect();
    if weights.is_empty() {
        return None;
    }
    let rules = weights.into_iter().map(|(node, weight)| (node.into(), weight));
    Weights::new(rules.collect(), Vec::new(), None)
}

/// Without it the kernel keeps no connection for a packet that is scheduled by itself, and the reply
/// comes from the address of the pod. With it, the kernel makes one from the reply. It looks into SIP
/// messages only where clients stick.
const REPLIES: PersistenceEngine = PersistenceEngine::SIP;

fn may_be_one_packet(service: &Service, settings: &Settings, out: &mut Applied) -> bool {
    let module = Module::PersistenceEngine(REPLIES);
    let reason: Cow<'static, str> = if service.affinity.is_some() {
        "with sessionAffinity ClientIP all packets of a client go to one endpoint".into()
    } else if !service.ports.iter().any(|port| port.protocol == Protocol::Udp) {
        "the Service has no UDP port".into()
    } else if settings.missing_modules.contains(&module) {
        lacking(module).into()
    } else {
        out.set(Annotation::OnePacket, true);
        return true;
    };
    out.reject(Annotation::OnePacket, true, reason);
    false
}

fn lacking(module: Module) -> String {
    format!("the kernel of this node has no module {module}; load it and restart proxier")
}

/// Scheduler flags by the names that `ipvsadm -b` has for them.
pub fn flag_names(scheduler: Scheduler, flags: Flags) -> Vec<&'static str> {
    let named = |flag: Flags, of: Option<Scheduler>| {
        let mut names = SchedulerFlags::NAMES.into_iter();
        names.find(|known| known.1 == flag && known.2 == of).map(|(name, ..)| name)
    };
    let all = [Flags::SCHED1, Flags::SCHED2, Flags::SCHED3].into_iter();
    let set = all.filter(|flag| flags.contains(*flag));
    set.filter_map(|flag| named(flag, Some(scheduler)).or_else(|| named(flag, None))).collect()
}

#[cfg(test)]
mod tests;
