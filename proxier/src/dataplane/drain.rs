//! Graceful termination: a TCP or SCTP real server that is no longer wanted gets weight 0 and
//! stays as long as it has connections, up to a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_ipvs::{
    Flags, Protocol, RealServer, RealServerConfig, RealServerKey, Scheduler, VirtualServerKey,
};

use super::{Connections, VirtualServerState};

/// The real servers that are draining.
#[derive(Debug)]
pub struct Drains {
    limit: Duration,
    entries: BTreeMap<VirtualServerKey, BTreeMap<RealServerKey, Drain>>,
    /// Where something has begun to drain whose connections nobody has counted.
    fresh: BTreeSet<VirtualServerKey>,
}

#[derive(Debug, Clone, Copy)]
struct Drain {
    config: RealServerConfig,
    deadline: Instant,
    connections: u64,
    /// It has nothing left to wait for.
    over: bool,
}

/// A real server whose draining has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its virtual server.
    pub virtual_server: VirtualServerKey,
    /// The real server.
    pub real_server: RealServerKey,
    /// Connections that it still had when the limit was reached; 0 when it ended by itself.
    pub cut: u64,
}

impl Drains {
    /// None yet. A real server keeps its connections for at most `limit`.
    pub fn new(limit: Duration) -> Self {
        // A clock can be asked for a time only so far ahead.
        const LONGEST: Duration = Duration::from_hours(24 * 365);
        Self { limit: limit.min(LONGEST), entries: BTreeMap::new(), fresh: BTreeSet::new() }
    }

    /// The virtual servers that have a draining real server.
    pub fn virtual_servers(&self) -> Vec<VirtualServerKey> {
        self.entries.keys().copied().collect()
    }

    /// The virtual servers where something drains that nobody has counted since this was last asked.
    pub fn take_fresh(&mut self) -> Vec<VirtualServerKey> {
        std::mem::take(&mut self.fresh).into_iter().collect()
    }

    /// The connections of what drains there could not be counted, and may be now.
    pub fn count_again(&mut self, key: &VirtualServerKey) {
        if self.entries.contains_key(key) {
            self.fresh.insert(*key);
        }
    }

    /// Every draining real server: where, which, its connections when last counted, its limit.
    pub fn iter(
        &self,
    ) -> impl Iterator<Item = (VirtualServerKey, RealServerKey, u64, Instant)> + '_ {
        self.entries.iter().flat_map(|(key, drains)| {
            drains.iter().map(|(server, drain)| (*key, *server, drain.connections, drain.deadline))
        })
    }

    /// Compares what is wanted for one virtual server with what is there: starts to drain what is
    /// no longer wanted, forgets what is wanted again or gone. Only connections of TCP and SCTP have an end
    /// to wait for; a virtual server by firewall mark does not say its `protocol` itself.
    pub fn update(
        &mut self,
        key: &VirtualServerKey,
        protocol: Option<Protocol>,
        desired: Option<&Arc<VirtualServerState>>,
        believed: Option<&Arc<VirtualServerState>>,
        now: Instant,
    ) {
        let (Some(desired), Some(believed)) = (desired, believed) else {
            self.entries.remove(key);
            return;
        };
        if Arc::ptr_eq(&desired.real_servers, &believed.real_servers) {
            self.entries.remove(key);
            return;
        }
        if protocol.is_none_or(|protocol| protocol == Protocol::Udp) {
            return;
        }
        let holds = |state: &VirtualServerState, server: &RealServerKey| {
            state.real_servers.binary_search_by_key(server, |known| known.key).is_ok()
        };
        let mut drains = self.entries.remove(key).unwrap_or_default();
        drains.retain(|server, _| !holds(desired, server) && holds(believed, server));
        for server in believed.real_servers.iter() {
            if !holds(desired, &server.key) && !drains.contains_key(&server.key) {
                let mut config = server.config;
                config.weight = 0;
                let deadline = now + self.limit;
                let drain = Drain { config, deadline, connections: 0, over: false };
                drains.insert(server.key, drain);
                self.fresh.insert(*key);
            }
        }
        if !drains.is_empty() {
            self.entries.insert(*key, drains);
        }
    }

    /// What a virtual server should hold, with those that drain.
    pub fn overlay(
        &self,
        key: &VirtualServerKey,
        desired: &Arc<VirtualServerState>,
    ) -> Arc<VirtualServerState> {
        let draining = |drains: &BTreeMap<RealServerKey, Drain>| -> Vec<RealServer> {
            let drains = drains.iter().filter(|(_, drain)| !drain.over);
            drains.map(|(key, drain)| RealServer { key: *key, config: drain.config }).collect()
        };
        let draining = self.entries.get(key).map(draining).unwrap_or_default();
        if draining.is_empty() {
            return Arc::clone(desired);
        }
        let mut config = desired.config;
        // These two look a client up in a table that still holds the server of weight 0, and refuse
        // the connection unless they may take another (sh-fallback, mh-fallback).
        if matches!(config.scheduler, Scheduler::SH | Scheduler::MH) {
            config.flags = config.flags | Flags::SCHED1;
        }
        // This one does the same, and has no such flag.
        if config.scheduler == Scheduler::DH {
            config.scheduler = Scheduler::RR;
        }
        let mut real_servers: Vec<RealServer> =
            desired.real_servers.iter().copied().chain(draining).collect();
        real_servers.sort_unstable_by_key(|server| server.key);
        Arc::new(VirtualServerState { config, real_servers: real_servers.into() })
    }

    /// Takes in connection counts; what has none left, or is past its limit, is over and will not
    /// be in the overlay any more.
    pub fn count(
        &mut self,
        counts: &[(VirtualServerKey, RealServer, Connections)],
        now: Instant,
    ) -> Vec<Finished> {
        let mut finished = Vec::new();
        for (virtual_server, real_server, connections) in counts {
            let drains = self.entries.get_mut(virtual_server);
            let Some(drain) = drains.and_then(|drains| drains.get_mut(&real_server.key)) else {
                continue;
            };
            drain.connections = connections.total();
            if !drain.over && (drain.connections == 0 || drain.deadline <= now) {
                drain.over = true;
                finished.push(Finished {
                    virtual_server: *virtual_server,
                    real_server: real_server.key,
                    cut: drain.connections,
                });
            }
        }
        finished
    }
}

#[cfg(test)]
mod tests;
