//! What every service asks for, for those who show it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;

/// The contributions of all services by name. The loop changes one where it computes one.
#[derive(Debug, Default)]
pub struct Directory(Mutex<BTreeMap<ObjectKey, Arc<Contribution>>>);

/// The directory at one moment. Nobody waits for who reads it.
#[derive(Debug, Clone)]
pub struct Snapshot(Vec<(ObjectKey, Arc<Contribution>)>);

impl Directory {
    /// As it is now. Taking it only copies references: what looks at the services, or writes about
    /// them, does so afterwards.
    pub fn snapshot(&self) -> Snapshot {
        let entries = self.entries();
        Snapshot(entries.iter().map(|(key, asks)| (key.clone(), asks.clone())).collect())
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

impl Snapshot {
    /// Every service with what it asks for, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Contribution>)> {
        self.0.iter().map(|(key, contribution)| (key, contribution))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loop goes on while somebody looks at a snapshot, which stays what it was.
    #[test]
    fn who_reads_a_snapshot_holds_nothing() {
        let key = |n: u8| ObjectKey::new("ns", format!("s{n}"));
        let directory = Directory::of((0..3).map(|n| (key(n), Contribution::default())));
        let snapshot = directory.snapshot();
        for (known, _) in snapshot.iter() {
            directory.put(known, None);
        }
        assert_eq!(snapshot.iter().count(), 3);
        assert_eq!(directory.snapshot().iter().count(), 0);
    }
}
