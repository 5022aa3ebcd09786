//! The index: objects by key, slices by the service they belong to.

mod by_key;
mod objects;
mod slices;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use self::by_key::{ByKey, Keyed};
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
    services: HashSet<ByKey<Service>>,
    ignored: HashMap<ObjectKey, NotProxied>,
    slices: HashSet<ByKey<EndpointSlice>>,
    slices_of: HashMap<ObjectKey, Slices>,
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
        let found = self.slices_of.iter().filter(move |(_, slices)| slices.iter().any(is_on));
        found.map(|(key, _)| key)
    }

    /// A service that is proxied.
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key).map(|service| &*service.0)
    }

    /// Why a Service is not proxied, if there is one of that name.
    pub fn ignored(&self, key: &ObjectKey) -> Option<&NotProxied> {
        self.ignored.get(key)
    }

    /// All services that are proxied, in no order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.iter().map(|service| &*service.0)
    }

    /// The slices of a service, in the order of their names.
    pub fn slices(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> + Clone {
        self.slices_of.get(service).into_iter().flat_map(Slices::iter)
    }

    /// The service that an EndpointSlice belongs to.
    pub fn service_of_slice(&self, slice: &ObjectKey) -> Option<&ObjectKey> {
        self.slices.get(slice).map(|slice| &slice.0.service)
    }

    /// Number of EndpointSlices.
    pub fn slice_count(&self) -> usize {
        self.slices.len()
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
                let keys = keys.into_iter().collect();
                for key in gone(&self.services, &keys) {
                    self.drop_service(&key, dirty);
                }
                self.ignored.retain(|key, _| keys.contains(key));
                self.listed.services = true;
            }
            Change::SlicesListed(keys) => {
                for key in gone(&self.slices, &keys.into_iter().collect()) {
                    self.drop_slice(&key, dirty);
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
        if self.service(&service.key) != Some(&service) {
            dirty.mark(&service.key);
            self.services.replace(ByKey(Arc::new(service)));
        }
    }

    fn drop_service(&mut self, key: &ObjectKey, dirty: &mut Dirty) {
        if self.services.remove(key) {
            dirty.mark(key);
        }
    }

    fn put_slice(&mut self, slice: Arc<EndpointSlice>, dirty: &mut Dirty) {
        match self.slices.get(&slice.key) {
            // The trigger time alone says nothing about forwarding.
            Some(ByKey(known)) if known.same_endpoints(&slice) => return,
            Some(ByKey(known)) if known.service != slice.service => {
                self.drop_slice(&slice.key, dirty);
            }
            _ => {}
        }
        dirty.mark(&slice.service);
        match self.slices_of.entry(slice.service.clone()) {
            Entry::Occupied(mut slices) => slices.get_mut().put(Arc::clone(&slice)),
            Entry::Vacant(place) => _ = place.insert(Slices::of(Arc::clone(&slice))),
        }
        self.slices.replace(ByKey(slice));
    }

    fn drop_slice(&mut self, key: &ObjectKey, dirty: &mut Dirty) {
        let Some(ByKey(slice)) = self.slices.take(key) else { return };
        if let Some(slices) = self.slices_of.get_mut(&slice.service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        dirty.mark(&slice.service);
    }
}

/// The keys of those that are not listed.
fn gone<T: Keyed>(known: &HashSet<ByKey<T>>, listed: &HashSet<ObjectKey>) -> Vec<ObjectKey> {
    let known = known.iter().map(|ByKey(object)| object.key());
    known.filter(|key| !listed.contains(*key)).cloned().collect()
}

#[cfg(test)]
mod tests;
