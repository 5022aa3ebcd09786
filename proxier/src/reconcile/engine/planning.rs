//! From what is touched to a plan, and what is noted of what the plan leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_ipvs::{RealServerKey, VirtualServerKey};
use tokio::time::Instant;

use super::Engine;
use crate::dataplane::{Op, Plan, Planning, Subject, Target, plan};

impl Engine {
    /// A step ends after so many plans, whatever is left: something changes back and forth.
    const MOST_PLANS: u32 = 1000;

    /// The way to what is wanted for what is touched, if there is something to do.
    pub(super) fn plan(&mut self, touched: &BTreeSet<Target>, now: Instant) -> Option<Plan> {
        self.settings.as_ref()?;
        self.plans += 1;
        if self.plans > Self::MOST_PLANS {
            for target in touched {
                let text = "it changes back and forth".to_owned();
                self.retries.fail(Subject::Target(*target), text, now, false);
            }
            return None;
        }
        for key in touched.iter().filter_map(Target::virtual_server) {
            self.update_drains(&key, now);
        }
        let settings = self.settings.as_ref()?;
        let waits = |target: &Target| self.waits(target, now);
        let plan = plan(
            Planning {
                desired: self.desired.state(),
                believed: self.believed.state(),
                drains: &self.drains,
                settings,
                foreign: &self.foreign,
                waits: &waits,
            },
            touched,
        );
        if !self.is_synced() || !plan.held.is_empty() {
            self.account(touched, &plan, now);
        }
        (!plan.is_empty()).then_some(plan)
    }

    pub(super) fn update_drains(&mut self, key: &VirtualServerKey, now: Instant) {
        let believed = self.believed.state().virtual_servers.get(key);
        // Where nothing is there, nothing drains.
        let desired = believed.and_then(|_| self.desired.state().virtual_servers.get(key));
        let protocol = self.desired.protocol(key);
        self.drains.update(key, protocol, desired, believed, now.into_std());
    }

    /// What a target has to wait for now.
    pub(super) fn waits(&self, target: &Target, now: Instant) -> Option<Subject> {
        if let Some(part) = self.believed.unknown_part(target) {
            return Some(Subject::Part(part));
        }
        if self.retries.is_idle() {
            return None;
        }
        let subject = Subject::Target(*target);
        self.retries.waits(&subject, now).then_some(subject)
    }

    /// Notes what a plan leaves out, and that there is nothing to do about what it does not mention.
    fn account(&mut self, touched: &BTreeSet<Target>, plan: &Plan, now: Instant) {
        let mut planned: Vec<Target> = plan.ops.iter().map(Op::target).collect();
        planned.sort_unstable();
        let is_planned = |target: &Target| planned.binary_search(target).is_ok();
        let held: BTreeMap<Target, Subject> = plan.held.iter().copied().collect();
        for (target, subject) in &held {
            if *subject == Subject::Target(*target) {
                // Its own next try wakes it.
                self.retries.resume(subject);
                self.held.let_go(target);
            } else {
                self.held.hold(*target, *subject);
            }
        }
        let mut seen = touched.clone();
        // Flows are planned by themselves, and say nothing of their virtual server.
        let servers = touched.iter().filter(|target| !matches!(target, Target::Flows(_)));
        for key in servers.filter_map(Target::virtual_server) {
            let lowest = RealServerKey::new(IpAddr::from([0, 0, 0, 0]), 0);
            let lowest = Target::RealServer(key, lowest);
            let own = |target: &Target| matches!(target, Target::RealServer(of, _) if *of == key);
            seen.extend(self.retries.targets_from(lowest).take_while(own));
            seen.extend(self.held.targets_from(lowest).take_while(own));
            seen.insert(Target::VirtualServer(key));
        }
        // Of a virtual server that waits for its protection, a part may be planned.
        for target in seen.into_iter().filter(|target| !held.contains_key(target)) {
            self.held.let_go(&target);
            if !is_planned(&target) {
                let subject = Subject::Target(target);
                self.retries.rest(subject, now);
                self.touched.extend(self.held.release(&subject));
            }
        }
        for subject in held.into_values().collect::<BTreeSet<_>>() {
            // What others wait for has to be tried by somebody.
            if let Subject::Target(target) = subject
                && !self.retries.contains(&subject)
                && !is_planned(&target)
            {
                self.touched.insert(target);
            }
        }
    }

    /// A subject is as it should be: what waited for it goes on.
    pub(super) fn settled(&mut self, subject: Subject) {
        self.retries.settle(&subject);
        self.touched.extend(self.held.release(&subject));
    }
}
