//! One Service with its slices, shared with others; and an index of no more than that.

use std::sync::Arc;

use super::{ByKey, Cluster, Dirty};
use crate::cluster::{EndpointSlice, ObjectKey, Service};

/// A Service with its EndpointSlices as they are at one moment. Copies share the objects, which never change.
#[derive(Debug, Clone)]
pub struct Objects {
    /// The Service.
    pub service: Arc<Service>,
    /// Its slices in the order of their names; `None` if they are too many to be kept twice.
    pub slices: Option<Arc<[Arc<EndpointSlice>]>>,
}

/// Whether both are the same objects; equal ones may not be.
impl PartialEq for Objects {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&[Arc<EndpointSlice>], &[Arc<EndpointSlice>])| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        Arc::ptr_eq(&self.service, &other.service)
            && match (&self.slices, &other.slices) {
                (Some(a), Some(b)) => same((a, b)),
                (None, None) => true,
                _ => false,
            }
    }
}

impl Cluster {
    /// An index of one Service alone.
    pub fn of(objects: &Objects) -> Self {
        let slices = objects.slices.iter().flat_map(|slices| slices.iter());
        let mut index = Self::default();
        index.services.insert(ByKey(Arc::clone(&objects.service)));
        for slice in slices {
            index.put_slice(Arc::clone(slice), &mut Dirty::default());
        }
        index
    }

    /// A Service that is proxied, with its slices, to be kept by others.
    pub fn objects(&self, key: &ObjectKey) -> Option<Objects> {
        let ByKey(service) = self.services.get(key)?;
        let slices = match self.slices_of.get(key) {
            Some(slices) => slices.few().cloned(),
            None => Some(Arc::default()),
        };
        Some(Objects { service: Arc::clone(service), slices })
    }
}
