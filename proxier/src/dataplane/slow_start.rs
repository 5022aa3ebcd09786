//! Slow start: a new endpoint of a Service that has others begins with a small part of its weight and
//! gets all of it in steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_ipvs::RealServer;

use super::{Contribution, VirtualServerState};
use crate::cluster::ObjectKey;

/// The Services whose endpoints start slowly.
#[derive(Debug, Default)]
pub struct SlowStarts {
    services: BTreeMap<ObjectKey, Known>,
    /// When the next step of a Service is due.
    due: BTreeSet<(Instant, ObjectKey)>,
    /// How many endpoints do not have their full weight yet.
    starting: usize,
}

#[derive(Debug)]
struct Known {
    duration: Duration,
    /// Ready endpoints, with the time at which each began if it does not have its full weight yet.
    endpoints: BTreeMap<IpAddr, Option<Instant>>,
    due: Option<Instant>,
}

impl Known {
    fn starting(&self) -> usize {
        self.endpoints.values().flatten().count()
    }
}

impl SlowStarts {
    /// Parts of a weight. A full weight is a multiple of it.
    pub const STEPS: u32 = 10;

    /// How many parts of its weight an endpoint of this age has. It has all when `duration` is over.
    pub fn step(age: Duration, duration: Duration) -> u32 {
        let last = Self::STEPS - 1;
        if age >= duration {
            return Self::STEPS;
        }
        let passed = age.as_nanos() * u128::from(last) / duration.as_nanos().max(1);
        1 + u32::try_from(passed).unwrap_or(last).min(last)
    }

    /// The age at which the step after this one begins.
    fn begins(step: u32, duration: Duration) -> Duration {
        // A nanosecond more, so that rounding does not leave it in the step before.
        duration * step / (Self::STEPS - 1) + Duration::from_nanos(1)
    }

    /// Takes in which endpoints of a Service are ready. Those that have come while it had others
    /// begin now. Without a duration nothing is known of it.
    pub fn update(
        &mut self,
        service: &ObjectKey,
        duration: Option<Duration>,
        ready: impl Iterator<Item = IpAddr>,
        now: Instant,
    ) {
        let known = self.services.remove(service);
        self.starting -= known.as_ref().map_or(0, Known::starting);
        if let Some(due) = known.as_ref().and_then(|known| known.due) {
            self.due.remove(&(due, service.clone()));
        }
        let Some(duration) = duration else { return };
        let before = known.map(|known| known.endpoints).unwrap_or_default();
        let ready: BTreeSet<IpAddr> = ready.collect();
        let others = ready.iter().any(|address| before.contains_key(address));
        let began = |address: &IpAddr| match before.get(address) {
            Some(began) => {
                began.filter(|began| Self::step(age(*began, now), duration) < Self::STEPS)
            }
            None => others.then_some(now),
        };
        let endpoints: BTreeMap<_, _> = ready.iter().map(|it| (*it, began(it))).collect();
        let next = |began: &Instant| {
            *began + Self::begins(Self::step(age(*began, now), duration), duration)
        };
        let due = endpoints.values().flatten().map(next).min();
        self.due.extend(due.map(|due| (due, service.clone())));
        let known = Known { duration, endpoints, due };
        self.starting += known.starting();
        self.services.insert(service.clone(), known);
    }

    /// Gives the real servers of a Service the weights that they have now instead of their full ones.
    pub fn apply(&self, service: &ObjectKey, asked: &mut Contribution, now: Instant) {
        let Some(known) = self.services.get(service).filter(|known| known.due.is_some()) else {
            return;
        };
        let step = |address: &IpAddr| {
            let began = known.endpoints.get(address).copied().flatten();
            began.map_or(Self::STEPS, |began| Self::step(age(began, now), known.duration))
        };
        let slowed = |full: &VirtualServerState| {
            let servers = full.real_servers.iter();
            let servers = servers.map(|server| slowed(*server, step(&server.key.address)));
            Arc::new(VirtualServerState { config: full.config, real_servers: servers.collect() })
        };
        // Most frontends share one.
        let mut made: Vec<(Arc<VirtualServerState>, Arc<VirtualServerState>)> = Vec::new();
        for frontend in &mut asked.frontends {
            let full = &mut frontend.server;
            let known = made.iter().find(|(before, _)| Arc::ptr_eq(before, full));
            let slow = known.map_or_else(|| slowed(full), |(_, made)| Arc::clone(made));
            let full = std::mem::replace(full, Arc::clone(&slow));
            made.push((full, slow));
        }
    }

    /// When the next step is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The Services with a step that is due. Each is to be taken in anew.
    pub fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut services = Vec::new();
        while let Some((due, service)) = self.due.pop_first() {
            if due > now {
                self.due.insert((due, service));
                break;
            }
            services.push(service);
        }
        services
    }

    /// How many endpoints do not have their full weight yet.
    pub fn count(&self) -> usize {
        self.starting
    }
}

fn age(began: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(began)
}

fn slowed(mut server: RealServer, step: u32) -> RealServer {
    server.config.weight = server.config.weight / SlowStarts::STEPS * step;
    server
}

#[cfg(test)]
mod tests;
