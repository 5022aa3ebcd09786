//! Objects in sets, each found by the key that it has in itself.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::cluster::{EndpointSlice, ObjectKey, Service};

/// An object that is equal to every other of its key: a set of these takes a third of a map by key.
#[derive(Debug)]
pub(super) struct ByKey<T>(pub(super) Arc<T>);

/// What has a key of its own.
pub(super) trait Keyed {
    fn key(&self) -> &ObjectKey;
}

impl Keyed for Service {
    fn key(&self) -> &ObjectKey {
        &self.key
    }
}

impl Keyed for EndpointSlice {
    fn key(&self) -> &ObjectKey {
        &self.key
    }
}

impl<T: Keyed> Borrow<ObjectKey> for ByKey<T> {
    fn borrow(&self) -> &ObjectKey {
        self.0.key()
    }
}

impl<T: Keyed> PartialEq for ByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: Keyed> Eq for ByKey<T> {}

impl<T: Keyed> Hash for ByKey<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}
