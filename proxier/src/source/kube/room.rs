//! What a watch has told the loop, and how much of it there may be of one namespace.
//!
//! What is programmed of a service has a budget of its own (`dataplane/budget.rs`). This one is for
//! what is only known, so for any number of small objects, or of slices that no service uses. What
//! does not fit is taken for what does not exist, so that it costs nothing at all. Whether there is
//! room for it again, only a new list can tell.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::cluster::{Change, EndpointSlice, Location, ObjectKey, Service, Weights};

/// Bytes that an object costs whatever it has: in the indexes, and in the lists of keys.
const OBJECT: u64 = 600;
/// A name that an object refers to, besides its letters; an address, a port.
const ENTRY: u64 = 32;
/// An endpoint with its location, without the names that it has.
const ENDPOINT: u64 = 160;
/// Something that a service sets by an annotation.
const SETTING: u64 = 64;

/// What came of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is as it was known.
    Same,
    /// It is new, or has changed.
    Changed,
    /// There is no room for it in its namespace; it may have been known until now.
    LeftOut { known: bool },
}

#[derive(Debug)]
pub(super) struct Room {
    /// Bytes that the objects of one namespace may cost.
    most: u64,
    /// What is known, by a hash of its key: the keys themselves are in the index.
    objects: HashMap<u64, Known>,
    namespaces: HashMap<Arc<str>, Namespace>,
    hasher: RandomState,
}

/// What is kept of an object.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Of all that was told.
    hash: u64,
    /// What it costs; no object comes near the most.
    bytes: u32,
}

#[derive(Debug, Default)]
struct Namespace {
    bytes: u64,
    /// Objects that were left out since the last list began.
    left_out: usize,
}

impl Room {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            objects: HashMap::new(),
            namespaces: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Everything is about to be read anew.
    pub(super) fn begin_list(&mut self) {
        self.namespaces.values_mut().for_each(|namespace| namespace.left_out = 0);
    }

    /// Whether an object is known.
    pub(super) fn knows(&self, key: &ObjectKey) -> bool {
        self.objects.contains_key(&self.hasher.hash_one(key))
    }

    /// Takes in an object as this change describes it.
    pub(super) fn put(&mut self, key: &ObjectKey, change: &Change) -> Fit {
        let (name, hash) = (self.hasher.hash_one(key), self.hasher.hash_one(change));
        let before = self.objects.get(&name).copied();
        if before.is_some_and(|before| before.hash == hash) {
            return Fit::Same;
        }
        let bytes = bytes(key, change);
        let freed = before.map_or(0, |before| before.bytes.into());
        let namespace = self.namespaces.entry(key.namespace().into()).or_default();
        if namespace.bytes - freed + bytes > self.most {
            namespace.left_out += 1;
            self.remove(key);
            return Fit::LeftOut { known: before.is_some() };
        }
        namespace.bytes = namespace.bytes - freed + bytes;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.objects.insert(name, Known { hash, bytes });
        Fit::Changed
    }

    /// An object is gone. Whether there is room now for some that were left out is the result.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        let name = self.hasher.hash_one(key);
        let Some(known) = self.objects.remove(&name) else { return false };
        let Some(namespace) = self.namespaces.get_mut(key.namespace()) else { return false };
        namespace.bytes -= u64::from(known.bytes);
        if namespace.bytes == 0 && namespace.left_out == 0 {
            self.namespaces.remove(key.namespace());
            return false;
        }
        // Not for each that comes and goes.
        namespace.left_out > 0 && namespace.bytes <= self.most / 8 * 7
    }

    /// A list is complete, and these objects are all.
    pub(super) fn listed(&mut self, keys: &HashSet<ObjectKey>) {
        let Self { objects, namespaces, hasher, .. } = self;
        for namespace in namespaces.values_mut() {
            namespace.bytes = 0;
        }
        let keys: HashMap<_, _> = keys.iter().map(|key| (hasher.hash_one(key), key)).collect();
        objects.retain(|name, known| {
            let Some(key) = keys.get(name) else { return false };
            let namespace = namespaces.entry(key.namespace().into()).or_default();
            namespace.bytes += u64::from(known.bytes);
            true
        });
        namespaces.retain(|_, namespace| namespace.bytes > 0 || namespace.left_out > 0);
    }

    /// Namespaces of which something was left out, each with how many objects.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let namespaces = self.namespaces.iter().map(|(name, namespace)| (name, namespace.left_out));
        namespaces.filter(|(_, left_out)| *left_out > 0)
    }
}

/// What an object costs at most: as if it shared no name with another.
fn bytes(key: &ObjectKey, change: &Change) -> u64 {
    let name = key.name().len() as u64;
    OBJECT
        + name
        + match change {
            Change::Service(service) => of_service(service),
            Change::Slice(slice) => of_slice(slice),
            _ => 0,
        }
}

fn of_service(service: &Service) -> u64 {
    let addresses = service.external_ips.len() + service.load_balancer_ips.len();
    let ranges = service.source_ranges.len();
    let ports = service.ports.iter().map(|port| text(&port.name));
    let settings = service.settings.as_ref().map_or(0, |settings| {
        // Some values are kept twice: as what was asked for, and as what became of it.
        let weights = settings.weights.as_ref().map_or(0, Weights::bytes);
        SETTING * (8 + settings.rejected.len() as u64) + 3 * weights as u64
    });
    ports.sum::<u64>() + (addresses + ranges) as u64 * ENTRY + settings
}

fn of_slice(slice: &EndpointSlice) -> u64 {
    let ports = slice.ports.iter().map(|port| text(&port.name));
    let endpoints = slice.endpoints.iter().map(|endpoint| {
        let Location { node, zone, hints } = &*endpoint.location;
        let names = node.iter().chain(zone).chain(&hints.zones).chain(&hints.nodes);
        ENDPOINT + names.map(|name| text(name)).sum::<u64>()
    });
    ports.sum::<u64>() + endpoints.sum::<u64>() + slice.pods.size() as u64
}

fn text(name: &str) -> u64 {
    ENTRY + name.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NotProxied;

    fn key(namespace: &str, name: usize) -> ObjectKey {
        ObjectKey::new(namespace, name.to_string())
    }

    /// Most costly where `why` is long.
    fn put(room: &mut Room, key: &ObjectKey, why: &str) -> Fit {
        let why = NotProxied::OtherProxy(why.into());
        room.put(key, &Change::ServiceIgnored(key.clone(), why))
    }

    #[test]
    fn a_namespace_has_room_for_so_much_and_others_do_not_notice() {
        let mut room = Room::new(10 * (OBJECT + 1));
        for n in 0..10 {
            assert_eq!(put(&mut room, &key("a", n), ""), Fit::Changed);
            assert_eq!(put(&mut room, &key("a", n), ""), Fit::Same);
            assert_eq!(put(&mut room, &key("a", n), "x"), Fit::Changed);
        }
        for _ in 0..3 {
            assert_eq!(put(&mut room, &key("a", 10), ""), Fit::LeftOut { known: false });
        }
        assert_eq!(room.left_out().collect::<Vec<_>>(), [(&"a".into(), 3)]);
        assert_eq!(put(&mut room, &key("b", 10), ""), Fit::Changed);
        assert_eq!(room.objects.len(), 11);
        // Not for one that goes, but for several.
        assert!(!room.remove(&key("a", 3)));
        assert!(room.remove(&key("a", 4)));
        assert!(!room.remove(&key("a", 4)), "it was not there any more");
        assert!(!room.remove(&key("b", 10)), "nothing of it was left out");
        room.begin_list();
        assert_eq!(put(&mut room, &key("a", 10), ""), Fit::Changed);
        assert_eq!(room.left_out().count(), 0);
        room.listed(&[key("a", 1), key("a", 2), key("b", 1)].into());
        assert_eq!((room.objects.len(), room.namespaces.len()), (2, 1));
        room.remove(&key("a", 1));
        room.remove(&key("a", 2));
        assert_eq!((room.objects.len(), room.namespaces.len()), (0, 0), "nothing stays behind");
    }

    #[test]
    fn an_object_that_grows_too_large_is_one_that_is_gone() {
        let slice = |endpoints: usize| {
            let endpoint = crate::cluster::Endpoint {
                address: [10, 0, 0, 1].into(),
                conditions: crate::cluster::Conditions::default(),
                location: Arc::default(),
            };
            EndpointSlice {
                key: key("a", 1),
                service: key("a", 0),
                family: netlink_ipvs::Family::Ipv4,
                ports: Box::default(),
                endpoints: vec![endpoint; endpoints].into(),
                pods: crate::cluster::Pods::default(),
                triggered: None,
            }
        };
        let mut room = Room::new(2 * OBJECT);
        assert_eq!(room.put(&key("a", 1), &Change::Slice(slice(1))), Fit::Changed);
        let large = Change::Slice(slice(OBJECT as usize / ENDPOINT as usize + 1));
        assert_eq!(room.put(&key("a", 1), &large), Fit::LeftOut { known: true });
        assert_eq!(room.put(&key("a", 1), &large), Fit::LeftOut { known: false });
        assert_eq!(room.put(&key("a", 1), &Change::Slice(slice(1))), Fit::Changed);
    }
}
