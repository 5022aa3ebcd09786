//! The loop without its inputs and outputs: events, answers and outcomes go in, effects come out.
//! It owns the index, what is wanted and what is believed of the kernel, and nothing else does.
//!
//! It promises that
//! 1. no part of the kernel is written to before it was read, and nothing at all before every kind
//!    of object was read completely;
//! 2. work is in proportion to what changed: only dirty services are computed, only touched targets
//!    are compared;
//! 3. what fails is tried again by itself, with back-off, and holds back only what needs it;
//! 4. what cannot be read blocks only itself;
//! 5. once in a sync period everything is read, and what differs is repaired by the same steps.

mod answers;
mod first_step;
mod needs;
mod planning;
mod renewal;
mod tuning;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, VirtualServerKey};
use tokio::time::Instant;

use super::audit::Audit;
use super::believed::Believed;
use super::effect::Effect;
use super::report::{Cut, Report};
use super::rescue::Rescue;
use super::retry::{Held, Retries};
use super::{Event, Resolver, Timing};
use crate::cluster::{Cluster, Dirty, ObjectKey};
use crate::dataplane::firewall::{Backend, ruleset};
use crate::dataplane::split::{LocalPolicy, Marks};
use crate::dataplane::{
    Budget, Desired, Drains, Module, Origin, Part, Query, Reserved, Settings, SlowStarts, Subject,
    Target, contribution, left_out,
};

/// The loop's state.
pub(super) struct Engine {
    resolver: Resolver,
    timing: Timing,
    cluster: Cluster,
    dirty: Dirty,
    host_addresses: Option<Vec<IpAddr>>,
    /// What this node needs for itself, by who knows of it.
    reserved: BTreeMap<Origin, Reserved>,
    /// Its Service's endpoints are reserved.
    api: ObjectKey,
    rescue: Rescue,
    budget: Budget,
    /// Virtual servers that others have made and that stay.
    foreign: BTreeSet<VirtualServerKey>,
    /// Some service has an external IP.
    external_ips: bool,
    settings: Option<Arc<Settings>>,
    desired: Desired,
    believed: Believed,
    /// Everything is being read for the first time.
    adopting: bool,
    /// What is to be compared.
    touched: BTreeSet<Target>,
    /// What is to be compared after that, in the first step.
    later: VecDeque<Vec<Target>>,
    /// Drops that are no longer wanted, of virtual servers that are still there.
    fading: BTreeSet<VirtualServerKey>,
    retries: Retries,
    held: Held,
    audit: Audit,
    drains: Drains,
    drain_check: Option<Instant>,
    slow_starts: SlowStarts,
    /// By which mark clients inside the cluster reach a Service with a Local policy.
    marks: Marks,
    /// When the members that would go are renewed.
    renewal: Option<Instant>,
    /// What the kernel was found not to have since the configuration was read.
    missing_modules: BTreeSet<Module>,
    /// Plans made in this step.
    plans: u32,
    report: Report,
}

impl Engine {
    pub(super) fn new(resolver: Resolver, timing: Timing, now: Instant) -> Self {
        Self {
            resolver,
            timing,
            cluster: Cluster::new(),
            dirty: Dirty::default(),
            host_addresses: None,
            reserved: BTreeMap::new(),
            api: Self::api_service(),
            rescue: Rescue::default(),
            budget: Budget::default(),
            foreign: BTreeSet::new(),
            external_ips: false,
            settings: None,
            desired: Desired::default(),
            believed: Believed::default(),
            adopting: true,
            touched: BTreeSet::new(),
            later: VecDeque::new(),
            fading: BTreeSet::new(),
            retries: Retries::default(),
            held: Held::default(),
            audit: Audit::new(now),
            drains: Drains::new(timing.drain_timeout),
            drain_check: None,
            slow_starts: SlowStarts::default(),
            marks: Marks::default(),
            renewal: None,
            missing_modules: BTreeSet::new(),
            plans: 0,
            report: Report::default(),
        }
    }

    // What is in it, for those who report.

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(super) fn desired(&self) -> &Desired {
        &self.desired
    }

    pub(super) fn believed(&self) -> &Believed {
        &self.believed
    }

    pub(super) fn settings(&self) -> Option<&Settings> {
        self.settings.as_deref()
    }

    /// The same, to be kept by others.
    pub(super) fn shared_settings(&self) -> Option<&Arc<Settings>> {
        self.settings.as_ref()
    }

    pub(super) fn drains(&self) -> &Drains {
        &self.drains
    }

    pub(super) fn slow_starts(&self) -> &SlowStarts {
        &self.slow_starts
    }

    pub(super) fn retries(&self) -> &Retries {
        &self.retries
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Whether the kernel is as wanted, as far as is known.
    pub(super) fn is_synced(&self) -> bool {
        self.retries.is_empty() && self.held.is_empty()
    }

    /// Whether the kernel was read once.
    pub(super) fn has_adopted(&self) -> bool {
        !self.adopting
    }

    /// Whether an audit has something to read or to report.
    pub(super) fn is_auditing(&self) -> bool {
        self.audit.is_reading() || self.audit.is_counting() || self.audit.ended
    }

    /// The end of a step: what happened in it.
    pub(super) fn take_report(&mut self) -> Report {
        (self.audit.ended, self.plans) = (false, 0);
        std::mem::take(&mut self.report)
    }

    // What comes in.

    /// Takes in an event; the next effects act on it.
    pub(super) fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Changes(changes) => {
                for change in changes {
                    self.cluster.apply(change, &mut self.dirty);
                }
                if self.dirty.services.contains(&self.api) {
                    self.needs_changed(now);
                }
            }
            Event::HostAddresses(addresses) => {
                if self.host_addresses.as_ref() != Some(&addresses) {
                    self.host_addresses = Some(addresses);
                    self.settings_changed();
                }
            }
            Event::Bound(address, present) => self.bound(address, present),
            Event::Disturbed => {
                self.audit.hasten(now);
                self.retries.hasten(now);
            }
            Event::Configured(resolver, timing) => {
                self.resolver = resolver;
                self.timing = timing;
                self.audit.within(now, timing.sync_period);
                self.missing_modules.clear();
                self.needs_changed(now);
            }
            Event::Reserved(origin, reserved) => self.reserve(origin, reserved, now),
        }
    }

    /// The kernel says that somebody else has changed an address of `kube-ipvs0`.
    fn bound(&mut self, address: IpAddr, present: bool) {
        let known = self.believed.state().interface.addresses.contains(&address);
        if self.adopting || known == present {
            return;
        }
        if present {
            // The event does not say with which prefix.
            self.believed.read(Part::Interface);
        } else {
            self.believed.edit(|state| state.interface.addresses.remove(&address));
            self.touched.insert(Target::Address(address));
            self.report.drift.insert(Target::Address(address));
        }
    }

    fn settings_changed(&mut self) {
        if self.settings.as_ref().is_some_and(|settings| **settings != self.present_settings()) {
            self.dirty.all = true;
        }
    }

    // What is to be done.

    /// Every kind of object was read, and the addresses of the host.
    pub(super) fn is_ready(&self) -> bool {
        self.cluster.is_complete() && self.host_addresses.is_some()
    }

    /// Whether there is something to do that should not wait.
    pub(super) fn has_work(&self, now: Instant) -> bool {
        self.is_ready()
            && (self.adopting
                || !self.dirty.is_empty()
                || !self.touched.is_empty()
                || !self.later.is_empty()
                || self.believed.has_unread()
                || self.audit.ended
                || self.retries.next().is_some_and(|due| due <= now)
                || self.next_slow_start().is_some_and(|due| due <= now)
                || self.next_renewal().is_some_and(|due| due <= now)
                || self.drain_check.is_some_and(|due| due <= now))
    }

    /// When there is something to do even if nothing happens; a step not before this time. The one
    /// place that decides.
    pub(super) fn next_wake(&self, now: Instant, not_before: Instant) -> Instant {
        let work = self.has_work(now).then_some(now);
        let others = [self.next_slow_start(), self.drain_check, self.next_renewal()];
        let due = [work, self.retries.next()].into_iter().chain(others);
        let step = due.flatten().min();
        let piece = self.audit.next_wake();
        step.map_or(piece, |step| step.max(not_before).min(piece))
    }

    /// The next thing to do in a step; nothing is the end of the step.
    pub(super) fn next(&mut self, now: Instant) -> Option<Effect> {
        if !self.is_ready() {
            return None;
        }
        self.resolve();
        self.begin_due_audit(now);
        self.wake(now);
        if self.adopting {
            if let Some(effect) = self.read_on(now) {
                return Some(effect);
            }
            if self.audit.is_looking() {
                return Some(Effect::AwaitLook);
            }
        }
        while let Some(query) = self.settings.as_ref().and_then(|s| self.believed.next_unread(s)) {
            if let Some(query) = self.may_ask(query, now) {
                return Some(Effect::Read(query));
            }
        }
        if self.adopting {
            self.compute_first_step(now);
            self.adopting = false;
            if let Some(effect) = self.find_foreign() {
                return Some(effect);
            }
        } else {
            self.compute(now);
        }
        while let Some(touched) = self.next_touched() {
            if let Some(plan) = self.plan(&touched, now) {
                return Some(Effect::Write(plan));
            }
        }
        let fresh = self.drains.take_fresh();
        if !fresh.is_empty() {
            self.drain_check.get_or_insert(now + self.timing.drain_check);
            return self.may_ask(Query::RealServers(fresh), now).map(Effect::Read);
        }
        None
    }

    /// The next piece of what can wait for others.
    pub(super) fn next_piece(&mut self, now: Instant) -> Option<Effect> {
        if self.adopting || !self.is_ready() {
            return None;
        }
        self.begin_due_audit(now);
        self.look_after_drains(now);
        if self.audit.may_read(now) { self.read_on(now) } else { None }
    }

    fn begin_due_audit(&mut self, now: Instant) {
        if let Some(settings) = &self.settings {
            self.audit.begin_if_due(now, self.timing.sync_period, settings);
        }
    }

    /// The next thing that the audit reads, without what has to wait for its next try.
    fn read_on(&mut self, now: Instant) -> Option<Effect> {
        let Self { retries, believed, audit, .. } = self;
        let looks = |family: &Family| !retries.waits(&Subject::Part(Part::Rules(*family)), now);
        if let Some(families) = audit.begin_look(looks, |family| believed.rules(family)) {
            return Some(Effect::Look(families));
        }
        loop {
            let query = self.audit.next(self.settings.as_ref()?)?;
            let part = query.part();
            match (self.may_ask(query, now), part) {
                (Some(query), _) => return Some(Effect::Read(query)),
                (None, Some(part)) => self.audit.skip(part),
                (None, None) => {}
            }
        }
    }

    /// What of a question does not have to wait for its next try.
    fn may_ask(&self, query: Query, now: Instant) -> Option<Query> {
        let may = |part| !self.retries.waits(&Subject::Part(part), now);
        let those = |mut keys: Vec<VirtualServerKey>| {
            keys.retain(|key| may(Part::VirtualServer(*key)));
            Some(keys).filter(|keys| !keys.is_empty())
        };
        match query {
            Query::VirtualServers(keys) => those(keys).map(Query::VirtualServers),
            Query::RealServers(keys) => those(keys).map(Query::RealServers),
            query => query.part().is_none_or(may).then_some(query),
        }
    }

    /// Everything that is due begins.
    fn wake(&mut self, now: Instant) {
        for subject in self.retries.take_due(now) {
            match subject {
                Subject::Target(target) => _ = self.touched.insert(target),
                Subject::Part(Part::Rules(family)) => self.audit.look_again(family),
                Subject::Part(Part::VirtualServers) => self.audit.list_again(),
                Subject::Part(part) => {
                    self.believed.read(part);
                    if let Part::VirtualServer(key) = part {
                        self.drains.count_again(&key);
                    }
                }
            }
        }
        self.dirty.services.extend(self.slow_starts.take_due(now.into_std()));
        self.renew_if_due(now);
        self.look_after_drains(now);
    }

    /// Notes which connections are to be counted, if it is time.
    fn look_after_drains(&mut self, now: Instant) {
        if self.drain_check.is_some_and(|due| due <= now) {
            let keys = self.drains.virtual_servers();
            self.drain_check = (!keys.is_empty()).then(|| now + self.timing.drain_check);
            self.audit.count(now, keys, self.timing.drain_check);
        }
    }

    fn next_touched(&mut self) -> Option<BTreeSet<Target>> {
        if self.touched.is_empty() {
            self.touched = self.later.pop_front()?.into_iter().collect();
        }
        Some(std::mem::take(&mut self.touched))
    }

    /// Settles what every service depends on.
    fn resolve(&mut self) {
        self.weigh_nodes();
        if self.settings.is_some() && !self.dirty.all {
            return;
        }
        let settings = self.present_settings();
        if self.settings.as_deref() == Some(&settings) {
            return;
        }
        if self.settings.as_ref().is_some_and(|known| known.sysctls != settings.sysctls) {
            self.believed.forget(Part::Sysctls);
        }
        match &self.settings {
            None => {
                self.desired = Desired::new(&settings);
                self.believed = Believed::unread(&settings);
            }
            // What was left alone because it was excluded may be ours to remove now.
            Some(known) if known.exclude_cidrs != settings.exclude_cidrs => {
                let servers = self.believed.state().virtual_servers.keys();
                self.touched.extend(servers.map(|key| Target::VirtualServer(*key)));
            }
            Some(_) => {}
        }
        self.desired.want_sets(&settings, &mut self.touched);
        self.desired.set_sysctls(&settings.sysctls, &mut self.touched);
        self.settings = Some(Arc::new(settings));
        self.dirty.all = true;
        self.render_firewall();
    }

    fn render_firewall(&mut self) {
        let Some(settings) = &self.settings else { return };
        let drops: BTreeSet<_> = self.desired.drops().union(&self.fading).copied().collect();
        for family in &settings.families {
            let Some(options) = settings.firewall.get(family) else { continue };
            let mut options = options.clone();
            options.physdev &= self.external_ips;
            let rules = ruleset(*family, &options, &drops);
            let rules = match (settings.backend, settings.successor) {
                (Backend::Iptables, _) => rules,
                (Backend::Nftables, None) => rules.for_nftables(),
                (Backend::Nftables, Some(_)) => rules.for_nftables().holding(),
            };
            self.desired.set_firewall(*family, rules, &mut self.touched);
        }
    }

    fn compute(&mut self, now: Instant) {
        if self.dirty.is_empty() {
            return;
        }
        let mut drops_changed = false;
        for key in self.take_dirty() {
            drops_changed |= self.compute_service(&key, now);
        }
        self.computed(drops_changed);
    }

    /// Settles what depends on all services.
    fn computed(&mut self, drops_changed: bool) {
        self.fade();
        // The match physdev makes the kernel load br_netfilter, which changes what bridges do: not
        // before a rule with it has something to match.
        let external_ips = self.desired.has_external_ips();
        if drops_changed || external_ips != self.external_ips {
            self.external_ips = external_ips;
            self.render_firewall();
        }
    }

    /// Leaves only the drops of virtual servers that nobody wants and that are there. Whether some
    /// have gone.
    fn fade(&mut self) -> bool {
        let before = std::mem::take(&mut self.fading);
        let wanted = &self.desired.state().virtual_servers;
        let there = &self.believed.state().virtual_servers;
        let stays = |key: &VirtualServerKey| {
            !wanted.contains_key(key) && there.contains_key(key) && self.removes(key)
        };
        let fading: BTreeSet<_> = before.iter().filter(|key| stays(key)).copied().collect();
        self.fading = fading;
        self.fading.len() < before.len()
    }

    /// Whether the virtual servers that the node may not use have changed.
    fn compute_service(&mut self, key: &ObjectKey, now: Instant) -> bool {
        let Some(settings) = &self.settings else { return false };
        let mut wanted = self.cluster.service(key).map(|service| {
            let asked = match self.budget.over(key) {
                Some(over) => left_out(service, settings, over),
                None => contribution(service, &self.cluster.slices(key), settings),
            };
            (service.created, asked)
        });
        if settings.local_policy == LocalPolicy::Split {
            self.marks.assign(settings.marks, key, wanted.as_mut().map(|(_, asked)| asked));
        }
        self.start_slowly(key, wanted.as_mut().map(|(_, asked)| asked), now);
        self.report.contributions += 1;
        let before = self.desired.contribution(key).cloned();
        let drops_changed = self.desired.set(key, wanted, &mut self.touched);
        let after = self.desired.contribution(key);
        for asked in before.iter().chain(after) {
            self.report.frontends.extend(asked.frontends.iter().map(|frontend| frontend.key));
            // Whoever made it: what a service asks for is ours.
            if !self.foreign.is_empty() {
                asked.frontends.iter().for_each(|frontend| _ = self.foreign.remove(&frontend.key));
            }
        }
        if drops_changed {
            // What keeps the node from a virtual server goes after the virtual server.
            let dropped = before.iter().flat_map(|asked| &asked.frontends);
            let dropped = dropped.filter(|frontend| frontend.drop_from_node);
            self.fading.extend(dropped.map(|frontend| frontend.key));
        }
        self.report.services.push(key.clone());
        drops_changed
    }
}
