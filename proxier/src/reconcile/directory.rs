//! What every service asks for, for those who show it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;

/// The contributions of all services by name. The loop changes one where it computes one; readers
/// take what they need at once, so that none of them holds up the loop.
#[derive(Debug, Default)]
pub struct Directory(Mutex<BTreeMap<ObjectKey, Arc<Contribution>>>);

impl Directory {
    /// The services for which this is true, in order, each with what it asks for.
    pub fn find(
        &self,
        wanted: impl Fn(&ObjectKey, &Contribution) -> bool,
    ) -> Vec<(ObjectKey, Arc<Contribution>)> {
        let entries = self.entries();
        let found = entries.iter().filter(|(key, contribution)| wanted(key, contribution));
        found.map(|(key, contribution)| (key.clone(), contribution.clone())).collect()
    }

    pub(super) fn put(&self, key: &ObjectKey, contribution: Option<&Arc<Contribution>>) {
        match contribution {
            Some(contribution) => self.entries().insert(key.clone(), contribution.clone()),
            None => self.entries().remove(key),
        };
    }

    /// One with this content.
    #[cfg(test)]
    pub(crate) fn of(content: impl IntoIterator<Item = (ObjectKey, Contribution)>) -> Self {
        let content = content.into_iter().map(|(key, value)| (key, Arc::new(value)));
        Self(Mutex::new(content.collect()))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Arc<Contribution>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
