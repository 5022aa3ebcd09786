//! The index: objects by key, slices by the service they belong to.

mod objects;
mod slices;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub use self::objects::Objects;
use self::slices::Slices;
use super::{Change, EndpointSlice, Node, NodeWeights, NotProxied, ObjectKey, Service};

/// Which services have to be computed again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// These ones.
    pub services: BTreeSet<ObjectKey>,
    /// Those with endpoints on these nodes, whose weights have changed.
    pub nodes: BTreeSet<Box<str>>,
    /// All of them: something that every service depends on has changed.
    pub all: bool,
}

impl Dirty {
    /// Nothing has to be computed.
    pub fn is_empty(&self) -> bool {
        !self.all && self.services.is_empty() && self.nodes.is_empty()
    }

    fn mark(&mut self, service: &ObjectKey) {
        if !self.services.contains(service) {
            self.services.insert(service.clone());
        }
    }
}

/// What Kubernetes says. Objects come in any order; nothing refers to what is not there.
#[derive(Debug, Default)]
pub struct Cluster {
    services: HashMap<ObjectKey, Arc<Service>>,
    ignored: HashMap<ObjectKey, NotProxied>,
    slices: HashMap<ObjectKey, Slices>,
    service_of_slice: HashMap<ObjectKey, ObjectKey>,
    node: Option<Node>,
    node_weights: Arc<NodeWeights>,
    listed: Listed,
}

#[derive(Debug, Default)]
struct Listed {
    services: bool,
    slices: bool,
    node: bool,
}

impl Cluster {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether every kind of object has been read completely once. Before that the index must not
    /// be acted on: what is missing in it may only not have arrived yet.
    pub fn is_complete(&self) -> bool {
        self.listed.services && self.listed.slices && self.listed.node
    }

    /// This node, once its object was read.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The weights that Nodes have.
    pub fn node_weights(&self) -> &Arc<NodeWeights> {
        &self.node_weights
    }

    /// The services that have endpoints on some of these nodes. It looks at every endpoint: weights change
    /// seldom, and an index would cost memory for each of them all the time.
    pub fn services_on(&self, nodes: &BTreeSet<Box<str>>) -> impl Iterator<Item = &ObjectKey> {
        let is_on = |slice: &EndpointSlice| {
            let mut of = slice.endpoints.iter().filter_map(|it| it.location.node.as_deref());
            of.any(|node| nodes.contains(node))
        };
        self.slices.iter().filter(move |(_, slices)| slices.iter().any(is_on)).map(|(key, _)| key)
    }

    /// A service that is proxied.
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key).map(|service| &**service)
    }

    /// Why a Service is not proxied, if there is one of that name.
    pub fn ignored(&self, key: &ObjectKey) -> Option<&NotProxied> {
        self.ignored.get(key)
    }

    /// All services that are proxied, in no order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }

    /// The slices of a service, in the order of their names.
    pub fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.slices.get(service).into_iter().flat_map(Slices::iter)
    }

    /// The service that an EndpointSlice belongs to.
    pub fn service_of_slice(&self, slice: &ObjectKey) -> Option<&ObjectKey> {
        self.service_of_slice.get(slice)
    }

    /// Number of EndpointSlices.
    pub fn slice_count(&self) -> usize {
        self.service_of_slice.len()
    }

    /// Takes in one fact and adds to `dirty` what depends on it. A fact that changes nothing makes
    /// nothing dirty.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Service(service) => self.put_service(service, dirty),
            Change::ServiceGone(key) => {
                self.ignored.remove(&key);
                self.drop_service(&key, dirty);
            }
            Change::ServiceIgnored(key, reason) => {
                self.drop_service(&key, dirty);
                self.ignored.insert(key, reason);
            }
            Change::Slice(slice) => self.put_slice(Arc::new(slice), dirty),
            Change::SliceGone(key) => self.drop_slice(&key, dirty),
            Change::Node(node) => {
                let place = |node: &Node| {
                    (node.zone.clone(), node.addresses.clone(), node.pod_cidrs.clone())
                };
                if self.node.as_ref().map(place) != Some(place(&node)) {
                    dirty.all = true;
                }
                self.node = Some(node);
            }
            Change::NodeWeight(node, weight) => self.weigh(node.name(), weight, dirty),
            Change::NodeWeightsListed(nodes) => {
                let nodes: HashSet<&str> = nodes.iter().map(ObjectKey::name).collect();
                let known = Arc::clone(&self.node_weights);
                for node in known.keys().filter(|node| !nodes.contains(&***node)) {
                    self.weigh(node, None, dirty);
                }
            }
            Change::ServicesListed(keys) => {
                let keys: HashSet<ObjectKey> = keys.into_iter().collect();
                let gone: Vec<ObjectKey> =
                    self.services.keys().filter(|key| !keys.contains(key)).cloned().collect();
                for key in &gone {
                    self.drop_service(key, dirty);
                }
                self.ignored.retain(|key, _| keys.contains(key));
                self.listed.services = true;
            }
            Change::SlicesListed(keys) => {
                let keys: HashSet<ObjectKey> = keys.into_iter().collect();
                let gone: Vec<ObjectKey> = self
                    .service_of_slice
                    .keys()
                    .filter(|key| !keys.contains(key))
                    .cloned()
                    .collect();
                for key in &gone {
                    self.drop_slice(key, dirty);
                }
                self.listed.slices = true;
            }
            Change::NodeListed => self.listed.node = true,
        }
    }

    fn weigh(&mut self, node: &str, weight: Option<u16>, dirty: &mut Dirty) {
        if self.node_weights.get(node).copied() == weight {
            return;
        }
        let weights = Arc::make_mut(&mut self.node_weights);
        match weight {
            Some(weight) => _ = weights.insert(node.into(), weight),
            None => _ = weights.remove(node),
        }
        dirty.nodes.insert(node.into());
    }

    fn put_service(&mut self, service: Service, dirty: &mut Dirty) {
        self.ignored.remove(&service.key);
        match self.services.get_mut(&service.key) {
            Some(known) if **known == service => {}
            Some(known) => {
                dirty.mark(&service.key);
                *known = Arc::new(service);
            }
            None => {
                dirty.mark(&service.key);
                self.services.insert(service.key.clone(), Arc::new(service));
            }
        }
    }

    fn drop_service(&mut self, key: &ObjectKey, dirty: &mut Dirty) {
        if self.services.remove(key).is_some() {
            dirty.mark(key);
        }
    }

    fn put_slice(&mut self, slice: Arc<EndpointSlice>, dirty: &mut Dirty) {
        let moved =
            self.service_of_slice.get(&slice.key).is_some_and(|name| *name != slice.service);
        if moved {
            self.drop_slice(&slice.key, dirty);
        }
        let owner = slice.service.clone();
        let slices = match self.slices.entry(owner.clone()) {
            Entry::Occupied(slices) => slices.into_mut(),
            Entry::Vacant(place) => {
                dirty.mark(&owner);
                self.service_of_slice.insert(slice.key.clone(), slice.service.clone());
                place.insert(Slices::of(slice));
                return;
            }
        };
        match slices.get_mut(&slice.key) {
            // The trigger time alone says nothing about forwarding.
            Some(known) if known.same_endpoints(&slice) => {}
            Some(known) => {
                dirty.mark(&owner);
                *known = slice;
            }
            None => {
                dirty.mark(&owner);
                self.service_of_slice.insert(slice.key.clone(), slice.service.clone());
                slices.insert(slice);
            }
        }
    }

    fn drop_slice(&mut self, key: &ObjectKey, dirty: &mut Dirty) {
        let Some(owner) = self.service_of_slice.remove(key) else { return };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        dirty.mark(&owner);
    }
}

#[cfg(test)]
mod tests;
