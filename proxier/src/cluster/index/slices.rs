//! The slices of one service, in the order of their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{EndpointSlice, ObjectKey};

/// Most services have one slice, and a list takes a tenth of a tree; but whoever may write slices can
/// give one service a hundred thousand, and each one that comes or goes copies a list.
#[derive(Debug)]
#[allow(
    clippy::box_collection,
    reason = "hardly any has so many, and all take as much as the largest"
)]
pub(super) enum Slices {
    /// Made anew by a change, since others keep the list too ([`Objects`](super::Objects)).
    Few(Arc<[Arc<EndpointSlice>]>),
    /// Once there are more than [`Self::FEW`], and from then on.
    Many(Box<BTreeMap<ObjectKey, Arc<EndpointSlice>>>),
}

impl Slices {
    const FEW: usize = 64;

    /// A slice of a service that had none.
    pub(super) fn of(slice: Arc<EndpointSlice>) -> Self {
        Self::Few(Arc::new([slice]))
    }

    /// All of them, unless they are many.
    pub(super) fn few(&self) -> Option<&Arc<[Arc<EndpointSlice>]>> {
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

    /// Adds one, or puts it in the place of the one of its name.
    pub(super) fn put(&mut self, slice: Arc<EndpointSlice>) {
        match self {
            Self::Few(list) => match position(list, &slice.key) {
                Ok(at) => Arc::make_mut(list)[at] = slice,
                Err(at) if list.len() < Self::FEW => {
                    let (before, after) = list.split_at(at);
                    *list = before.iter().chain([&slice]).chain(after).cloned().collect();
                }
                Err(_) => {
                    let all = list.iter().chain([&slice]).cloned();
                    let all = all.map(|slice| (slice.key.clone(), slice));
                    *self = Self::Many(Box::new(all.collect()));
                }
            },
            Self::Many(tree) => _ = tree.insert(slice.key.clone(), slice),
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        match self {
            Self::Few(list) => {
                *list = list.iter().filter(|slice| slice.key != *key).cloned().collect();
            }
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

fn position(list: &[Arc<EndpointSlice>], key: &ObjectKey) -> Result<usize, usize> {
    list.binary_search_by(|known| known.key.cmp(key))
}
