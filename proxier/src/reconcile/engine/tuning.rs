//! What changes with time about how a Service's connections are distributed, and what the kernel lacks
//! for it.

use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use crate::cluster::ObjectKey;
use crate::dataplane::{Contribution, Module, Op};

impl Engine {
    /// Gives endpoints of a Service that have come lately a part of their weight.
    pub(super) fn start_slowly(
        &mut self,
        key: &ObjectKey,
        asked: Option<&mut Contribution>,
        now: Instant,
    ) {
        let now = now.into_std();
        let duration = asked.as_ref().and_then(|asked| asked.applied.as_ref()?.slow_start);
        let endpoints = self.cluster.slices(key).flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|endpoint| endpoint.conditions.ready);
        self.slow_starts.update(key, duration, ready.map(|endpoint| endpoint.address), now);
        if let Some(asked) = asked {
            self.slow_starts.apply(key, asked, now);
        }
    }

    /// Takes in the weights of Nodes that have changed: what depends on them is computed anew.
    pub(super) fn weigh_nodes(&mut self) {
        let nodes = std::mem::take(&mut self.dirty.nodes);
        if nodes.is_empty() {
            return;
        }
        // Before that everything is.
        let Some(settings) = &mut self.settings else { return };
        Arc::make_mut(settings).node_weights = Arc::clone(self.cluster.node_weights());
        self.dirty.services.extend(self.cluster.services_on(&nodes).cloned());
    }

    /// When some endpoint gets more of its weight.
    pub(super) fn next_slow_start(&self) -> Option<Instant> {
        self.slow_starts.next().map(Instant::from_std)
    }

    /// The kernel has not what an operation asks for: what is wanted is computed anew without it.
    pub(super) fn unsupported(&mut self, op: &Op) {
        let (Op::AddVirtualServer(_, config) | Op::SetVirtualServer(_, config)) = op else {
            return;
        };
        let Some(settings) = &self.settings else { return };
        let servers = self.believed.state().virtual_servers.values();
        let mut schedulers = servers.map(|server| server.config.scheduler);
        let scheduler = config.scheduler;
        // The kernel does not say which of the two it is.
        let is_there = scheduler == settings.scheduler || schedulers.any(|it| it == scheduler);
        let module = match config.persistence_engine {
            Some(engine) if is_there => Module::PersistenceEngine(engine),
            _ if scheduler != settings.scheduler => Module::Scheduler(scheduler),
            _ => return,
        };
        self.missing_modules.insert(module);
        self.settings_changed();
    }
}
