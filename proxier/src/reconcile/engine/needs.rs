//! What this node needs for itself, and what is done about it before the cluster is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use netlink_ipvs::VirtualServerKey;
use tokio::time::Instant;

use super::{Effect, Engine};
use crate::cluster::{ObjectKey, Service};
use crate::dataplane::{
    Answer, Need, OpError, Origin, Outcome, Plan, Reserved, Settings, cost, is_marked, unmarked,
};

impl Engine {
    /// The settings as they are to be now.
    pub(super) fn present_settings(&self) -> Settings {
        let addresses = self.host_addresses.as_deref().unwrap_or_default();
        let mut settings = self.resolver.resolve(self.cluster.node(), addresses);
        let mut reserved = self.api_endpoints();
        self.reserved.values().for_each(|known| reserved.merge(known));
        settings.reserved = reserved.without(&settings.allow_reserved);
        settings.missing_modules.clone_from(&self.missing_modules);
        settings.node_weights = Arc::clone(self.cluster.node_weights());
        settings
    }

    /// Where the API servers are, as the cluster says.
    fn api_endpoints(&self) -> Reserved {
        let mut reserved = Reserved::default();
        for slice in self.cluster.slices(&self.api) {
            for endpoint in &slice.endpoints {
                reserved.add(endpoint.address, Need::ApiEndpoint, 0);
                for port in &slice.ports {
                    reserved.add(endpoint.address, Need::ApiEndpoint, port.port);
                }
            }
        }
        reserved
    }

    /// The Service by which the API servers are known.
    pub(super) fn api_service() -> ObjectKey {
        ObjectKey::new("default", "kubernetes")
    }

    /// Takes in what somebody knows to be reserved.
    pub(super) fn reserve(&mut self, origin: Origin, reserved: Reserved, now: Instant) {
        self.reserved.insert(origin, reserved);
        self.needs_changed(now);
    }

    pub(super) fn needs_changed(&mut self, now: Instant) {
        self.settings_changed();
        if !self.is_ready() {
            let reserved = self.present_settings().reserved;
            self.rescue.reserve(reserved, now);
        }
    }

    /// The services that are to be computed: those that have changed, and those for which there is or
    /// is no longer the memory then.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<ObjectKey> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut keys = dirty.services;
        if dirty.all {
            keys.extend(self.desired.contributions().map(|(key, _)| key.clone()));
            keys.extend(self.cluster.services().map(|service| service.key.clone()));
        }
        if let Some(settings) = &self.settings {
            self.budget.limit(settings.limits);
            for key in &keys {
                let service = self.cluster.service(key);
                let cost = |service: &Service| cost(service, &self.cluster.slices(key), settings);
                self.budget.put(key, service.map(|service| (service.created, cost(service))));
            }
            keys.extend(self.budget.settle());
        }
        keys
    }

    /// Finds out which virtual servers others have made, now that everything has been read.
    pub(super) fn find_foreign(&mut self) -> Option<Effect> {
        let settings = self.settings.as_ref()?;
        let found = unmarked(self.believed.state(), self.desired.state(), settings);
        if found.is_empty() {
            return None;
        }
        if settings.keep_foreign {
            self.foreign.clone_from(&found);
        }
        Some(Effect::Tell(found, settings.keep_foreign))
    }

    /// A virtual server of which nobody knew is there: it may be somebody else's.
    pub(super) fn found(&mut self, key: VirtualServerKey) {
        let wanted = self.desired.state().virtual_servers.contains_key(&key);
        if let Some(settings) = self.settings.as_ref().filter(|settings| settings.keep_foreign)
            && !self.adopting
            && !wanted
            && !is_marked(&key, self.believed.state(), settings)
        {
            self.foreign.insert(key);
        }
    }

    /// Whether a virtual server is removed when nobody asks for it.
    pub(super) fn removes(&self, key: &VirtualServerKey) -> bool {
        self.settings.as_ref().is_some_and(|settings| settings.owns(key))
            && !self.foreign.contains(key)
    }

    // Before everything was read.

    /// When there is something to release.
    pub(in crate::reconcile) fn rescue_due(&self) -> Option<Instant> {
        self.rescue.due()
    }

    /// The next thing to do while not everything was read; nothing is the end of it.
    pub(in crate::reconcile) fn next_rescue(&mut self, now: Instant) -> Option<Effect> {
        if self.is_ready() || self.rescue.due().is_none() {
            return None;
        }
        let settings = self.present_settings();
        self.rescue.next(&settings, now)
    }

    /// As [`Engine::answered`].
    pub(in crate::reconcile) fn rescue_answered(
        &mut self,
        answer: Result<Answer, OpError>,
        now: Instant,
    ) -> Result<(), OpError> {
        self.rescue.answered(answer, now)
    }

    /// As [`Engine::written`]. What has been released is the result.
    pub(in crate::reconcile) fn rescue_written(
        &mut self,
        plan: &Plan,
        outcome: &Outcome,
        now: Instant,
    ) -> Vec<(std::net::IpAddr, Need)> {
        self.rescue.written(plan, outcome, now);
        self.rescue.take_released()
    }
}
