//! The operations on one virtual server and its real servers.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use netlink_ipvs::{Flags, Protocol, RealServer, RealServerKey, Scheduler, VirtualServerKey};

use super::protection::Protection;
use super::{Needs, Phase, Planner, Planning};
use crate::dataplane::sets::{Member, SetRole};
use crate::dataplane::{Op, RealServers, Subject, Target, VirtualServerState};

/// How the real servers that are there differ from those that are wanted.
#[derive(Default)]
struct Difference {
    /// New, or with a new weight above 0.
    up: Vec<Op>,
    /// With the new weight 0.
    down: Vec<RealServer>,
    /// No longer wanted, with the weight that they have.
    gone: Vec<(RealServerKey, u32)>,
    /// One stays that takes new connections.
    usable_stays: bool,
    /// One that is removed; or the first that is added to none. Either way flows may lead elsewhere.
    stale: bool,
}

/// In which order new real servers are added.
#[derive(Clone, Copy)]
enum Order<'a> {
    /// Of every node its own, always the same: or the first connection of every node would go to the
    /// same pod.
    OfNode(&'a str),
    /// The same on every node: the table of hashes depends on it, and a client is to reach the same pod
    /// through any node.
    OfKeys,
}

impl Difference {
    /// Both lists are in ascending order.
    fn between(
        key: VirtualServerKey,
        wanted: &[RealServer],
        known: &[RealServer],
        order: Order<'_>,
    ) -> Self {
        let mut out = Self { stale: known.is_empty() && !wanted.is_empty(), ..Self::default() };
        let most = wanted.len().saturating_sub(known.len());
        let mut added: Vec<RealServer> = Vec::with_capacity(most);
        let (mut wanted, mut known) = (wanted.iter().peekable(), known.iter().peekable());
        while wanted.peek().is_some() || known.peek().is_some() {
            let want = wanted.next_if(|want| known.peek().is_none_or(|have| want.key <= have.key));
            let have = known.next_if(|have| want.is_none_or(|want| have.key == want.key));
            match (want, have) {
                (Some(want), Some(have)) => {
                    out.usable_stays |= want.config.weight > 0 && have.config.weight > 0;
                    if want.config != have.config {
                        match want.config.weight {
                            0 => out.down.push(*want),
                            _ => out.up.push(Op::SetRealServer(key, *want)),
                        }
                    }
                }
                (Some(want), None) => added.push(*want),
                (None, Some(have)) => {
                    out.stale = true;
                    out.gone.push((have.key, have.config.weight));
                }
                (None, None) => {}
            }
        }
        if let Order::OfNode(node) = order {
            let mut order = DefaultHasher::new();
            node.hash(&mut order);
            added.sort_by_cached_key(|server| {
                let mut order = order.clone();
                server.key.hash(&mut order);
                order.finish()
            });
        }
        out.up.extend(added.into_iter().map(|server| Op::AddRealServer(key, server)));
        out
    }
}

impl Planner<'_> {
    pub(super) fn virtual_server(&mut self, key: VirtualServerKey) {
        let Planning { desired, believed, drains, settings, .. } = self.from;
        self.seen = Some(key);
        let known = believed.virtual_servers.get(&key);
        let mut wanted = desired.virtual_servers.get(&key).map(|s| drains.overlay(&key, s));
        let own = Target::VirtualServer(key);
        if let Some(part @ Subject::Part(_)) = (self.from.waits)(&own) {
            self.out.held.push((own, part));
            return;
        }
        let (planned, held) = (self.count(), self.out.held.len());
        let protection = match wanted {
            Some(_) => self.protection(&key),
            None => Protection::InPlace,
        };
        if let (Protection::Missing(subject), Some(wanted)) = (&protection, &mut wanted) {
            Arc::make_mut(wanted).real_servers = Arc::from([]);
            self.out.held.push((own, *subject));
            self.unmark(&key, *subject);
        }
        match (&wanted, known) {
            (None, None) => {}
            (None, Some(known)) => {
                if !settings.owns(&key) || self.from.foreign.contains(&key) {
                    return;
                }
                self.push(Phase::RemoveVirtualServers, Op::RemoveVirtualServer(key));
                if !known.real_servers.is_empty() {
                    self.stale_flows(key, Arc::from([]));
                }
            }
            (Some(wanted), None) => {
                if self.push(Phase::VirtualServers, Op::AddVirtualServer(key, wanted.config)) {
                    // At once: where its address is bound, clients are refused until it has one.
                    self.real_servers(key, wanted, &[], (Phase::VirtualServers, &protection));
                }
            }
            (Some(wanted), Some(known)) => {
                if wanted.config != known.config {
                    // What refuses connections to a server of weight 0 comes when that is gone.
                    let settles = known.config.flags.contains(Flags::SCHED1)
                        && !wanted.config.flags.contains(Flags::SCHED1)
                        || known.config.scheduler == Scheduler::RR
                            && wanted.config.scheduler == Scheduler::DH;
                    let phase =
                        if settles { Phase::SettleVirtualServers } else { Phase::VirtualServers };
                    self.push(phase, Op::SetVirtualServer(key, wanted.config));
                }
                if !Arc::ptr_eq(&wanted.real_servers, &known.real_servers) {
                    let protection = (Phase::AddRealServers, &protection);
                    self.real_servers(key, wanted, &known.real_servers, protection);
                }
            }
        }
        if self.count() > planned && self.out.held.len() == held {
            self.out.intended.insert(key, wanted);
        }
    }

    fn real_servers(
        &mut self,
        key: VirtualServerKey,
        wanted: &VirtualServerState,
        known: &[RealServer],
        (phase, protection): (Phase, &Protection),
    ) {
        let order = match wanted.config.scheduler {
            Scheduler::MH | Scheduler::SH => Order::OfKeys,
            _ => Order::OfNode(&self.from.settings.place.node),
        };
        let Difference { up, down, gone, usable_stays, stale } =
            Difference::between(key, &wanted.real_servers, known, order);
        let mut needs = Vec::new();
        if self.planned.contains(&Target::VirtualServer(key)) && known.is_empty() {
            needs.push(Target::VirtualServer(key));
        }
        if let Protection::Planned(targets) = protection {
            needs.extend(targets);
        }
        let needs = Needs::all(needs);
        let (mut coming, mut waiting) = (Vec::new(), None);
        let usable_wanted = !usable_stays && !up.is_empty();
        let some_go = !down.is_empty() || !gone.is_empty();
        for op in up {
            let target = op.target();
            if let Protection::Unknown(part) = protection {
                self.out.held.push((target, *part));
                waiting = Some(*part);
            } else if self.push_needing(phase, op, needs.clone()) {
                // Others need to know only where nothing else is there.
                coming.extend((usable_wanted && some_go).then_some(target));
            } else {
                waiting = (self.from.waits)(&target);
            }
        }
        // What takes connections now goes only if something else takes them.
        let any: Arc<[Target]> = if some_go { coming.into() } else { Arc::default() };
        let instead = |had: bool| match waiting {
            Some(subject) if had && usable_wanted && any.is_empty() => Err(subject),
            _ if had => Ok(Needs { any: any.clone(), ..Needs::default() }),
            _ => Ok(Needs::default()),
        };
        for server in down {
            let op = Op::SetRealServer(key, server);
            self.push_unless(Phase::Quiesce, op, instead(true));
        }
        for (server, weight) in gone {
            let op = Op::RemoveRealServer(key, server);
            self.push_unless(Phase::RemoveRealServers, op, instead(weight > 0));
        }
        if stale {
            self.stale_flows(key, wanted.real_servers.clone());
        }
    }

    /// Nobody is led around a frontend whose protection is missing.
    fn unmark(&mut self, key: &VirtualServerKey, until: Subject) {
        if let Some(member) = Self::mark_in(self.from.believed, key) {
            let set = SetRole::LocalMark.of(key.family());
            self.push(Phase::Unmark, Op::RemoveMember(set, member));
            self.out.held.push((Target::Member(set, member), until));
        }
    }

    fn stale_flows(&mut self, key: VirtualServerKey, keep: RealServers) {
        match key {
            VirtualServerKey::Address { protocol: Protocol::Udp, .. } => {
                self.forget_flows(key, keep);
            }
            VirtualServerKey::Address { .. } => {}
            // Flows are known by the address to which their client sends.
            VirtualServerKey::FirewallMark { mark, family } => {
                let set = self.from.desired.sets.get(&SetRole::LocalMark.of(family));
                let members = set.into_iter().flat_map(|set| &set.members);
                let frontends = members.filter_map(|member| match *member {
                    Member::Marked(address, Protocol::Udp, port, of) if of == mark => {
                        Some(VirtualServerKey::new(address, port, Protocol::Udp))
                    }
                    _ => None,
                });
                for frontend in frontends.collect::<Vec<_>>() {
                    let servers = self.from.desired.virtual_servers.get(&frontend);
                    let keep = servers.map(|known| known.real_servers.clone()).unwrap_or_default();
                    self.forget_flows(frontend, keep);
                }
            }
        }
    }

    /// Once in a plan. Flows of clients inside the cluster may lead to what the mark of a frontend leads to.
    pub(super) fn forget_flows(&mut self, key: VirtualServerKey, keep: RealServers) {
        if !self.flows.insert(key) {
            return;
        }
        let mark = match Self::mark_in(self.from.desired, &key) {
            Some(Member::Marked(.., mark)) => Some(mark),
            _ => None,
        };
        let by_mark = |mark| VirtualServerKey::FirewallMark { mark, family: key.family() };
        let inside = mark.and_then(|mark| self.from.desired.virtual_servers.get(&by_mark(mark)));
        let keep = match inside {
            Some(inside) => {
                let mut all: Vec<RealServer> =
                    keep.iter().chain(inside.real_servers.iter()).copied().collect();
                all.sort_unstable_by_key(|server| server.key);
                all.dedup_by_key(|server| server.key);
                all.into()
            }
            None => keep,
        };
        self.push(Phase::Flows, Op::ForgetFlows(key, keep));
    }

    fn count(&self) -> usize {
        self.phases.iter().map(Vec::len).sum()
    }
}
