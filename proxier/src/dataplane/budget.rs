//! How much memory services may cost: each by itself, those of one namespace together, and all of them.
//!
//! What a service costs is estimated before anything is built. While everything has room, nothing but
//! sums is kept up to date. Where a namespace asks for more than it may, its services are taken in the
//! order of their age, small ones before large ones of the same age, and those that do not fit are left
//! out. Where all namespaces together ask for too much, those that ask
//! for most get less, down to one level for all of them; who asks for less than that is not touched.
//! What is left out depends on the services alone, not on the order in which they came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{FrontendKind, Settings};
use crate::cluster::topology::Targets;
use crate::cluster::{EndpointSlice, ObjectKey, Service};
use netlink_ipvs::Family;

/// Bytes that a virtual server costs, whatever it has: what it is wanted for, wanted to be and believed
/// to be, and the operation that makes it. These are measured (`tests/README.md`), and rounded up.
const VIRTUAL_SERVER: u64 = 1400;
/// A real server of a virtual server.
const REAL_SERVER: u64 = 350;
/// A member of a set.
const MEMBER: u64 = 500;
/// An endpoint of a port, while it is being looked at.
const ENDPOINT: u64 = 150;

/// Bytes that services may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One service.
    pub service: u64,
    /// Those of one namespace.
    pub namespace: u64,
    /// All of them.
    pub node: u64,
}

impl Limits {
    /// What a process of ours has besides: the program, the objects, pages that are being sent.
    const BESIDES: u64 = 96 << 20;
    /// Memory that is taken to be there where nobody limits it.
    pub const UNLIMITED: u64 = 2 << 30;

    /// For a process that may have so many bytes.
    pub fn of_memory(bytes: u64) -> Self {
        let node = bytes.saturating_sub(Self::BESIDES).max(bytes / 4) / 4 * 3;
        Self { service: node / 4, namespace: node / 2, node }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of_memory(Self::UNLIMITED)
    }
}

/// Who asks for more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Over {
    /// The service by itself.
    Service,
    /// The services of its namespace.
    Namespace,
    /// All services.
    Node,
}

/// What the services of one namespace ask for.
#[derive(Debug, Default)]
struct Namespace {
    /// How many are not too large by themselves, and what these ask for.
    services: usize,
    asked: u64,
    /// Those of them for which there is no room.
    left_out: BTreeMap<ObjectKey, Over>,
}

/// Who is let in.
#[derive(Debug, Default)]
pub struct Budget {
    limits: Limits,
    /// When each service was created, and what it costs.
    known: BTreeMap<ObjectKey, (i64, u64)>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    asked: u64,
    /// What each namespace may have.
    level: u64,
    /// Namespaces that have changed.
    changed: BTreeSet<Arc<str>>,
}

impl Budget {
    /// Sets the limits.
    pub fn limit(&mut self, limits: Limits) {
        if self.limits == limits {
            return;
        }
        let known = std::mem::take(&mut self.known);
        let before = std::mem::take(&mut self.namespaces);
        (self.limits, self.asked) = (limits, 0);
        for (key, service) in known {
            self.put(&key, Some(service));
        }
        for (name, namespace) in before {
            self.namespaces.entry(name).or_default().left_out = namespace.left_out;
        }
    }

    /// A service costs so much, and is so old; `None` is one that is gone. Who is let in is what it
    /// was until [`Self::settle`].
    pub fn put(&mut self, key: &ObjectKey, service: Option<(i64, u64)>) {
        let before = match service {
            Some(new) => self.known.insert(key.clone(), new),
            None => self.known.remove(key),
        };
        if before == service {
            return;
        }
        let most = self.limits.service;
        let name: Arc<str> = key.namespace().into();
        let namespace = self.namespaces.entry(Arc::clone(&name)).or_default();
        if let Some((_, cost)) = before.filter(|(_, cost)| *cost <= most) {
            namespace.services -= 1;
            namespace.asked -= cost;
            self.asked -= cost;
        }
        if let Some((_, cost)) = service.filter(|(_, cost)| *cost <= most) {
            namespace.services += 1;
            namespace.asked += cost;
            self.asked += cost;
        }
        self.changed.insert(name);
    }

    /// Decides anew where something has changed. The services that are let in now and were not, or
    /// were and are not, are the result.
    pub fn settle(&mut self) -> BTreeSet<ObjectKey> {
        let level = self.new_level();
        let mut names = std::mem::take(&mut self.changed);
        if level != self.level {
            let either = level.min(self.level);
            let large = self.namespaces.iter().filter(|(_, namespace)| namespace.asked > either);
            names.extend(large.map(|(name, _)| Arc::clone(name)));
            self.level = level;
        }
        let why = if level < self.limits.namespace { Over::Node } else { Over::Namespace };
        let mut flipped = BTreeSet::new();
        for name in names {
            let Some(namespace) = self.namespaces.get_mut(&name) else { continue };
            let first = ObjectKey::new(&name, "");
            let own = self.known.range(first..).take_while(|(key, _)| key.namespace() == &*name);
            let own = own.filter(|(_, (_, cost))| *cost <= self.limits.service);
            flipped.append(&mut namespace.settle(own, level, why));
            if namespace.services == 0 {
                self.namespaces.remove(&name);
            }
        }
        flipped
    }

    /// Why a service is left out, if it is.
    pub fn over(&self, key: &ObjectKey) -> Option<Over> {
        if self.known.get(key).is_some_and(|(_, cost)| *cost > self.limits.service) {
            return Some(Over::Service);
        }
        self.namespaces.get(key.namespace())?.left_out.get(key).copied()
    }

    /// The highest level at which all namespaces fit, in steps, so that not every change of one
    /// namespace moves it for the others.
    fn new_level(&self) -> u64 {
        const STEPS: u64 = 64;
        let limits = self.limits;
        if self.asked <= limits.node {
            return limits.namespace;
        }
        let asked = self.namespaces.values().map(|it| it.asked.min(limits.namespace));
        let mut asked: Vec<u64> = asked.collect();
        asked.sort_unstable();
        let mut left = limits.node;
        for (at, bytes) in asked.iter().enumerate() {
            let share = left / (asked.len() - at) as u64;
            if *bytes > share {
                let step = (limits.node / STEPS).max(1);
                return if share < step { share } else { share / step * step };
            }
            left -= bytes;
        }
        limits.namespace
    }
}

impl Namespace {
    /// Decides who is let in of its `services`: the oldest first, then the smallest, then by name.
    /// For whom that changes something is the result.
    fn settle<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a ObjectKey, &'a (i64, u64))>,
        level: u64,
        why: Over,
    ) -> BTreeSet<ObjectKey> {
        let mut left_out = BTreeMap::new();
        if self.asked > level {
            let mut ranks: Vec<_> =
                services.map(|(key, (created, cost))| (created, cost, key)).collect();
            ranks.sort_unstable();
            let mut left = level;
            for (_, cost, key) in ranks {
                match left.checked_sub(*cost) {
                    Some(rest) => left = rest,
                    None => _ = left_out.insert(key.clone(), why),
                }
            }
        }
        let before = std::mem::replace(&mut self.left_out, left_out);
        let now = &self.left_out;
        let differs = |key: &&ObjectKey| before.get(*key) != now.get(*key);
        before.keys().chain(now.keys()).filter(differs).cloned().collect()
    }
}

/// What a service costs at most, without building anything.
pub fn cost<'a, S>(service: &Service, slices: &S, settings: &Settings) -> u64
where
    S: IntoIterator<Item = &'a EndpointSlice> + Clone,
{
    let mut bytes: u64 = 0;
    for family in settings.families.iter().copied().filter(|family| service.has_family(*family)) {
        let targets = Targets::new(slices.clone(), family);
        let count = |always: bool| {
            let kinds = FrontendKind::ALL.into_iter();
            let kinds = kinds.filter(|kind| kind.is_always_restricted() == always);
            let addresses = kinds.flat_map(|kind| kind.addresses(service));
            addresses.filter(|ip| Family::of(**ip) == family).count() as u64
        };
        let host = settings.node_port_addresses.iter();
        let host = host.filter(|ip| Family::of(**ip) == family).count() as u64;
        let (balanced, plain) = (count(true), count(false));
        let ranges = match service.source_ranges.of(family).count() as u64 {
            0 => 0,
            ranges => ranges + 2,
        };
        for port in &service.ports {
            let node_ports = if port.node_port == 0 { 0 } else { host };
            let servers = balanced + plain + node_ports;
            let closed = if settings.source_ranges_everywhere { servers } else { balanced };
            let endpoints = targets.count(port) as u64;
            let each = VIRTUAL_SERVER + 2 * MEMBER + endpoints.saturating_mul(REAL_SERVER);
            let members = closed.saturating_mul(ranges).saturating_mul(MEMBER);
            bytes = bytes
                .saturating_add(servers.saturating_mul(each))
                .saturating_add(members)
                .saturating_add(endpoints.saturating_mul(MEMBER + ENDPOINT));
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
