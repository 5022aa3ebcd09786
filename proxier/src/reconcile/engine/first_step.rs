//! The first step: everything is computed, and compared in parts.

use std::collections::BTreeMap;

use netlink_ipvs::Protocol;
use tokio::time::Instant;

use super::Engine;
use crate::cluster::ObjectKey;
use crate::dataplane::Target;

/// The order of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// What a new node needs to do anything at all.
    First,
    /// Together, since a part with one of these is a search for stale flows.
    Udp,
    Rest,
}

impl Engine {
    /// Computes everything, to be compared in parts: a plan for all of it would need more memory than
    /// all that is kept.
    ///
    /// Settings, sets and rules, the API server and the cluster DNS come before everything else, so
    /// that a new node can reach the one and resolve names while the rest is being programmed. What
    /// no service asks for comes last.
    pub(super) fn compute_first_step(&mut self, now: Instant) {
        /// Services in a part: a quarter of a megabyte of operations.
        const PART: usize = 128;
        let services = self.cluster.services().count();
        if let Some(settings) = &self.settings {
            self.marks.adopt(settings.marks, self.believed.state());
        }
        self.desired.reserve(services);
        self.report.services.reserve(services);
        let mut turns: BTreeMap<Turn, Vec<ObjectKey>> = BTreeMap::new();
        for key in self.take_dirty() {
            turns.entry(self.turn(&key)).or_default().push(key);
        }
        let mut others = std::mem::take(&mut self.touched);
        let mut drops_changed = false;
        for part in turns.values().flat_map(|keys| keys.chunks(PART)) {
            for key in part {
                drops_changed |= self.compute_service(key, now);
            }
            let touched = std::mem::take(&mut self.touched);
            let servers = touched.iter().filter_map(Target::virtual_server);
            self.believed.share(self.desired.state(), servers);
            // In one piece: what is small and soon gone leaves holes between what stays.
            self.later.push_back(touched.into_iter().collect());
        }
        self.marks.adopted();
        self.renew(now);
        self.desired.pack();
        self.computed(drops_changed);

        let (desired, believed) = (self.desired.state(), self.believed.state());
        let rules_come_last = |family| {
            let settings = self.settings.as_ref();
            settings.is_some_and(|settings| settings.rules_come_last(family, &believed.leftovers))
        };
        let is_foundation = |target: &Target| match target {
            Target::Set(_) | Target::Sysctl(_) | Target::Link | Target::ForeignAddress(_) => true,
            // Until everything is there, those of others do the work.
            Target::Firewall(family) => !rules_come_last(*family),
            _ => false,
        };
        let all = desired.targets().chain(believed.targets());
        self.later.push_front(all.filter(is_foundation).collect());
        others.append(&mut self.touched);
        others.extend(believed.targets());
        others.retain(|target| !is_foundation(target));
        self.later.push_back(others.into_iter().collect());
    }

    /// When a service has its turn.
    fn turn(&self, key: &ObjectKey) -> Turn {
        let Some(service) = self.cluster.service(key) else { return Turn::Rest };
        let dns = || service.ports.iter().any(|port| port.port == 53);
        if *key == self.api || key.namespace() == "kube-system" && dns() {
            Turn::First
        } else if service.ports.iter().any(|port| port.protocol == Protocol::Udp) {
            Turn::Udp
        } else {
            Turn::Rest
        }
    }
}
