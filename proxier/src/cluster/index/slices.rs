//! The slices of one service, in the order of their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{EndpointSlice, ObjectKey};

/// Most services have one slice, and a list takes a tenth of a tree; but whoever may write slices can
/// give one service a hundred thousand, and each one that comes or goes would move half of a list.
#[derive(Debug)]
pub(super) enum Slices {
    Few(Vec<Arc<EndpointSlice>>),
    /// Once there are more than [`Self::FEW`], and from then on.
    Many(BTreeMap<ObjectKey, Arc<EndpointSlice>>),
}

impl Slices {
    const FEW: usize = 64;

    /// A slice of a service that had none.
    pub(super) fn of(slice: Arc<EndpointSlice>) -> Self {
        Self::Few(vec![slice])
    }

    /// All of them, unless they are many.
    pub(super) fn few(&self) -> Option<&[Arc<EndpointSlice>]> {
        match self {
            Self::Few(list) => Some(list),
            Self::Many(_) => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(tree) => tree.is_empty(),
        }
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Arc<EndpointSlice>> {
        match self {
            Self::Few(list) => {
                let at = list.binary_search_by(|known| known.key.cmp(key)).ok()?;
                Some(&mut list[at])
            }
            Self::Many(tree) => tree.get_mut(key),
        }
    }

    /// Adds one that is not there.
    pub(super) fn insert(&mut self, slice: Arc<EndpointSlice>) {
        if let Self::Few(list) = self {
            if list.len() < Self::FEW {
                let at = list.partition_point(|known| known.key < slice.key);
                list.insert(at, slice);
                return;
            }
            let named = std::mem::take(list).into_iter().map(|it| (it.key.clone(), it));
            *self = Self::Many(named.collect());
        }
        if let Self::Many(tree) = self {
            tree.insert(slice.key.clone(), slice);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        match self {
            Self::Few(list) => list.retain(|slice| slice.key != *key),
            Self::Many(tree) => _ = tree.remove(key),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &EndpointSlice> + Clone {
        let (few, many) = match self {
            Self::Few(list) => (&**list, None),
            Self::Many(tree) => (&[][..], Some(tree)),
        };
        few.iter().chain(many.into_iter().flat_map(|tree| tree.values())).map(|slice| &**slice)
    }
}
