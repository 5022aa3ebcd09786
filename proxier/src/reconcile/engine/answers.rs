//! What became of effects: answers to questions, outcomes of plans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{Family, RealServer, VirtualServerConfig, VirtualServerKey};
use tokio::time::Instant;

use super::{Cut, Engine};
use crate::dataplane::sets::SetId;
use crate::dataplane::{
    Answer, Counted, Fate, FoundServer, InterfaceState, Op, OpError, Outcome, Part, Plan, Query,
    RealServers, RulesState, SetState, State, Subject, Target, VirtualServerState, protects,
    set_differences,
};

type Sysctls = BTreeMap<&'static str, Arc<str>>;

impl Engine {
    /// Takes in the answer to a question.
    pub(in crate::reconcile) fn answered(
        &mut self,
        query: &Query,
        answer: Result<Answer, OpError>,
        took: Duration,
        now: Instant,
    ) {
        self.report.took("observe", took);
        match answer {
            Ok(Answer::Sysctls(found)) => self.sysctls_read(found),
            Ok(Answer::Interface(found)) => self.interface_read(found),
            Ok(Answer::Set(set, found)) => self.set_read(set, found),
            Ok(Answer::Unchanged(set)) => _ = self.was_read(Part::Set(set)),
            Ok(Answer::List(found)) => self.listed(found),
            Ok(Answer::VirtualServers(found)) => self.virtual_servers_read(found, now),
            Ok(Answer::RealServers(found)) => self.real_servers_read(found, now),
            Err(error) => match (query.part(), query) {
                (Some(part), _) => {
                    self.audit.skip(part);
                    self.not_read(part, error, now);
                }
                (None, Query::VirtualServers(keys) | Query::RealServers(keys)) => {
                    for key in keys {
                        self.not_read(Part::VirtualServer(*key), error.clone(), now);
                    }
                }
                (None, _) => {}
            },
        }
    }

    /// A piece of reading took so long.
    pub(in crate::reconcile) fn piece_read(&mut self, now: Instant, took: Duration) {
        let (virtual_servers, _) = self.believed.counts();
        self.audit.pause(now, took, virtual_servers);
    }

    /// A part cannot be read. What was believed of it stays, if something was.
    fn not_read(&mut self, part: Part, error: OpError, now: Instant) {
        self.report.not_read.push(format!("read {part}: {}", error.text));
        self.retries.fail(Subject::Part(part), error.text, now, false);
    }

    /// A part was read: what waited for it goes on. Whether nobody knew before what it holds.
    fn was_read(&mut self, part: Part) -> bool {
        if !self.is_synced() {
            self.settled(Subject::Part(part));
        }
        self.believed.learnt(part)
    }

    /// What differs is compared with what is wanted. Where something was known, somebody else has
    /// changed it.
    fn differs(&mut self, was_unknown: bool, targets: BTreeSet<Target>) {
        self.touched.extend(&targets);
        if !was_unknown {
            let ours = targets.into_iter().filter(|target| self.is_ours(target));
            let ours: Vec<Target> = ours.collect();
            self.report.drift.extend(ours);
        }
    }

    fn is_ours(&self, target: &Target) -> bool {
        match target {
            Target::VirtualServer(key) => {
                self.removes(key) || self.desired.state().virtual_servers.contains_key(key)
            }
            Target::Leftover(leftover) => {
                let there = &self.believed.state().leftovers;
                self.settings.as_ref().is_none_or(|settings| settings.removes(*leftover, there))
            }
            _ => true,
        }
    }

    /// What a part is compared with when it was read: what was believed, or what is wanted if
    /// nobody knew.
    fn known(&self, was_unknown: bool) -> &State {
        if was_unknown { self.desired.state() } else { self.believed.state() }
    }

    fn sysctls_read(&mut self, found: Sysctls) {
        let unknown = self.was_read(Part::Sysctls);
        let only = |sysctls: &Sysctls| State { sysctls: sysctls.clone(), ..State::default() };
        let targets = only(&self.known(unknown).sysctls).differences(&only(&found));
        self.believed.edit(|state| state.sysctls = found);
        self.differs(unknown, targets);
    }

    fn interface_read(&mut self, found: InterfaceState) {
        let unknown = self.was_read(Part::Interface);
        let targets = self.known(unknown).interface.differences(&found);
        self.believed.edit(|state| state.interface = found);
        self.differs(unknown, targets);
    }

    fn set_read(&mut self, set: SetId, found: Option<SetState>) {
        let unknown = self.was_read(Part::Set(set));
        let known = self.known(unknown).sets.get(&set);
        let targets = set_differences(set, known, found.as_ref());
        self.believed.edit(|state| match found {
            Some(found) => state.sets.insert(set, found),
            None => state.sets.remove(&set),
        });
        self.differs(unknown, targets);
    }

    /// Takes in what a look has found. Rules that were changed meanwhile are looked at again.
    pub(in crate::reconcile) fn rules_read(
        &mut self,
        found: Vec<(Family, Result<RulesState, OpError>)>,
        now: Instant,
    ) {
        let began_with = self.audit.end_look();
        for (family, found) in found {
            let Some(known) = began_with.get(&family) else { continue };
            match found {
                Err(error) => self.not_read(Part::Rules(family), error, now),
                Ok(_) if *known != self.believed.rules(family) => self.audit.look_again(family),
                Ok(found) => {
                    let unknown = self.was_read(Part::Rules(family));
                    let left = found.leftovers.symmetric_difference(&known.leftovers);
                    let rules = unknown || found.rules != known.rules;
                    let rules = rules.then_some(Target::Firewall(family));
                    let targets = left.copied().map(Target::Leftover).chain(rules).collect();
                    self.believed.put_rules(family, found);
                    self.differs(unknown, targets);
                }
            }
        }
    }

    fn listed(&mut self, found: Vec<(VirtualServerKey, VirtualServerConfig)>) {
        let adopts = self.believed.is_unknown(Part::VirtualServers);
        if found.is_empty() {
            let known = self.believed.state().virtual_servers.keys().copied().collect();
            let missing = self.audit.list_ended(known);
            self.audit.suspect(missing);
            if self.was_read(Part::VirtualServers) && !self.adopting {
                let wanted = self.desired.state().virtual_servers.keys();
                self.touched.extend(wanted.map(|key| Target::VirtualServer(*key)));
            }
            return;
        }
        self.audit.listed(found.iter().map(|(key, _)| *key));
        for (key, config) in found {
            if adopts {
                let real_servers = RealServers::from([]);
                let server = VirtualServerState { config, real_servers };
                self.believed.put(key, Some(server.into()));
                self.believed.lose(Part::VirtualServer(key));
            } else {
                let known = self.believed.state().virtual_servers.get(&key);
                let differs = known.is_none_or(|known| known.config != config);
                self.audit.suspect(differs.then_some(key));
            }
        }
    }

    /// Virtual servers that were not as believed, or of which nobody knew, each read by itself.
    fn virtual_servers_read(&mut self, found: Vec<(VirtualServerKey, FoundServer)>, now: Instant) {
        let mut drift = std::mem::take(&mut self.audit.drift);
        for (key, found) in found {
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    self.not_read(Part::VirtualServer(key), error, now);
                    continue;
                }
            };
            let unknown = self.was_read(Part::VirtualServer(key));
            let known = self.believed.state().virtual_servers.get(&key);
            if unknown || known != found.as_ref() {
                self.touched.insert(Target::VirtualServer(key));
                drift.extend((!unknown).then_some(Target::VirtualServer(key)));
                if known.is_none() && found.is_some() {
                    self.found(key);
                } else if found.is_none() {
                    self.foreign.remove(&key);
                }
                self.believed.put(key, found);
            }
        }
        if self.audit.no_suspects() {
            self.differs(false, drift);
        } else {
            self.audit.drift = drift;
        }
    }

    /// Real servers with their connections, to be adopted, compared or counted.
    fn real_servers_read(
        &mut self,
        found: Vec<(VirtualServerKey, Result<Counted, OpError>)>,
        now: Instant,
    ) {
        let mut counts = Vec::new();
        for (key, found) in found {
            let part = Part::VirtualServer(key);
            let counted = match found {
                Ok(counted) => counted,
                Err(error) => {
                    self.not_read(part, error, now);
                    continue;
                }
            };
            let mut servers: Vec<RealServer> = counted.iter().map(|(server, _)| *server).collect();
            servers.sort_unstable_by_key(|server| server.key);
            let known = self.believed.state().virtual_servers.get(&key);
            if self.believed.is_unknown(part) {
                let config = known.map(|known| known.config);
                let real_servers = servers.into();
                let server = config.map(|config| VirtualServerState { config, real_servers });
                self.believed.put(key, server.map(Arc::new));
                self.was_read(part);
                self.touched.insert(Target::VirtualServer(key));
            } else if known.is_some_and(|known| *known.real_servers != *servers) {
                self.audit.suspect([key]);
            } else if self.retries.contains(&Subject::Part(part)) {
                self.was_read(part);
            }
            counts.extend(counted.into_iter().map(|(server, count)| (key, server, count)));
        }
        for finished in self.drains.count(&counts, now.into_std()) {
            self.touched.insert(Target::VirtualServer(finished.virtual_server));
            if finished.cut > 0 {
                let owner = self.desired.owner(&finished.virtual_server);
                let service = owner.map(|(service, _)| service.clone());
                self.report.cut.push(Cut { service, finished });
            }
        }
    }

    /// Takes in what became of a plan.
    pub(in crate::reconcile) fn written(&mut self, plan: &Plan, outcome: &Outcome, now: Instant) {
        self.report.outcome(plan, outcome);
        let accounting = !self.is_synced();
        for (index, op) in plan.ops.iter().enumerate() {
            match outcome.missed.get(&index) {
                None => {
                    self.believed.edit(|state| state.absorb(op));
                    if accounting {
                        self.settled(Subject::Target(op.target()));
                    }
                    if let Op::CreateSet(set, _) = op {
                        // Rules that refer to it may have been refused.
                        let rules = Subject::Target(Target::Firewall(set.family));
                        self.retries.try_now(&rules, now);
                    }
                    if *op == Op::TakeLinkDown {
                        // IPv6 addresses may have gone with it.
                        self.believed.forget(Part::Interface);
                    }
                }
                Some(fate) => {
                    self.missed(op.target(), fate, now);
                    if let Fate::Unsupported(_) = fate {
                        self.unsupported(op);
                    }
                }
            }
        }
        self.virtual_servers_written(plan, outcome, now);
        if !self.fading.is_empty() && self.fade() {
            self.render_firewall();
        }
    }

    /// An operation on a target did not take place, or nobody knows.
    fn missed(&mut self, target: Target, fate: &Fate, now: Instant) {
        let subject = Subject::Target(target);
        match fate {
            Fate::HeldBack(needed) => self.held.hold(target, Subject::Target(*needed)),
            Fate::Failed(text) => self.retries.fail(subject, text.clone(), now, false),
            // It may be wanted without that in the same step.
            Fate::Unsupported(text) => self.retries.fail(subject, text.clone(), now, true),
            Fate::Unknown(text) => {
                self.retries.fail(subject, text.clone(), now, true);
                match target.part() {
                    // Deleting flows reads them.
                    _ if matches!(target, Target::Flows(_)) => {}
                    Part::Rules(family) => {
                        self.believed.lose(Part::Rules(family));
                        self.audit.look_again(family);
                    }
                    part => self.believed.forget(part),
                }
            }
        }
        // What it protects must not stay open, whyever it is missing.
        if let Target::Firewall(family) = target {
            let drops = self.desired.drops().iter().filter(|key| key.family() == family);
            self.touched.extend(drops.map(|key| Target::VirtualServer(*key)));
        }
        self.touched.extend(protects(&target).map(Target::VirtualServer));
    }

    fn virtual_servers_written(&mut self, plan: &Plan, outcome: &Outcome, now: Instant) {
        // Those with a part of their operations are added up, all others are as intended.
        let mut partly: BTreeMap<VirtualServerKey, Vec<&Op>> = BTreeMap::new();
        let of = |op: &Op| op.target().virtual_server();
        for index in outcome.missed.keys() {
            partly.extend(plan.ops.get(*index).and_then(of).map(|key| (key, Vec::new())));
        }
        let mut whole = None;
        for (index, op) in plan.ops.iter().enumerate() {
            // Many in a row are of one virtual server.
            let Some(key) = of(op).filter(|key| whole != Some(*key)) else { continue };
            if !plan.intended.contains_key(&key) || partly.contains_key(&key) {
                let ops = partly.entry(key).or_default();
                ops.extend((!outcome.missed.contains_key(&index)).then_some(op));
            } else {
                whole = Some(key);
            }
        }
        for (key, server) in &plan.intended {
            if !partly.contains_key(key) {
                let desired = self.desired.state().virtual_servers.get(key);
                let protocol = self.desired.protocol(key);
                self.drains.update(key, protocol, desired, server.as_ref(), now.into_std());
                self.believed.put(*key, server.clone());
            }
        }
        for (key, ops) in partly {
            let known = self.believed.state().virtual_servers.get(&key);
            let after = VirtualServerState::after(known.map(Arc::as_ref), ops);
            self.believed.put(key, after.map(Arc::new));
            self.update_drains(&key, now);
        }
    }
}
