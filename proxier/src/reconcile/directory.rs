//! Maps that are published whole after every step: a copy shares all that has not changed, so it
//! costs the same however much there is, and nobody who reads one holds up the loop.

use std::fmt;
use std::sync::Arc;

use immutable_chunkmap::map::Map;

use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;

/// Entries that a change copies.
const CHUNK: usize = 16;

/// An ordered map that is cheap to copy.
pub struct Published<K: Ord + Clone, V: Clone> {
    map: Map<K, V, CHUNK>,
    /// Of the map, whose own count takes a walk through it.
    len: usize,
    version: u64,
}

/// What every service asks for.
pub type Directory = Published<ObjectKey, Arc<Contribution>>;

impl<K: Ord + Clone, V: Clone> Published<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        Entries { entries: self.map.into_iter(), left: self.len }
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Sets the value of a key, or removes it. Whether there was something to do.
    pub(crate) fn put(&mut self, key: &K, value: Option<V>) -> bool
    where
        V: PartialEq,
    {
        let known = self.map.get(key);
        if known == value.as_ref() {
            return false;
        }
        match (known.is_some(), value.is_some()) {
            (false, true) => self.len += 1,
            (true, false) => self.len -= 1,
            _ => {}
        }
        self.version += 1;
        match value {
            Some(value) => _ = self.map.insert_cow(key.clone(), value),
            None => _ = self.map.remove_cow(key),
        }
        true
    }

    /// How often it has changed. Copies with the same number are equal.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl Directory {
    /// The services for which this is true, in order, each with what it asks for.
    pub fn find(
        &self,
        wanted: impl Fn(&ObjectKey, &Contribution) -> bool,
    ) -> Vec<(ObjectKey, Arc<Contribution>)> {
        let found = self.iter().filter(|(key, contribution)| wanted(key, contribution));
        found.map(|(key, contribution)| (key.clone(), contribution.clone())).collect()
    }
}

/// Entries of a map whose number is known.
struct Entries<I> {
    entries: I,
    left: usize,
}

impl<I: Iterator> Iterator for Entries<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.entries.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator> ExactSizeIterator for Entries<I> {}

impl<K: Ord + Clone, V: Clone> Clone for Published<K, V> {
    fn clone(&self) -> Self {
        Self { map: self.map.clone(), ..*self }
    }
}

impl<K: Ord + Clone, V: Clone> Default for Published<K, V> {
    fn default() -> Self {
        Self { map: Map::new(), len: 0, version: 0 }
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Published<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> FromIterator<(K, V)> for Published<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut out = Self::default();
        for (key, value) in entries {
            out.put(&key, Some(value));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A key that counts how often it is copied.
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Key(u32, Rc<Cell<u32>>);

    impl Clone for Key {
        fn clone(&self) -> Self {
            self.1.set(self.1.get() + 1);
            Self(self.0, Rc::clone(&self.1))
        }
    }

    #[test]
    fn a_change_copies_a_few_entries_however_many_there_are() {
        for entries in [10, 100, 10_000] {
            let copies = Rc::new(Cell::new(0));
            let mut map = Published::default();
            for n in 0..entries {
                map.put(&Key(n, Rc::clone(&copies)), Some(n));
            }
            // Somebody holds each copy that was published.
            let mut held = Vec::new();
            for n in [0, entries / 2, entries - 1, entries] {
                held.push(map.clone());
                copies.set(0);
                map.put(&Key(n, Rc::clone(&copies)), Some(n + 1));
                assert!(copies.get() <= 4 * CHUNK as u32, "{} among {entries}", copies.get());
            }
            assert_eq!(map.len(), entries as usize + 1);
        }
    }

    #[test]
    fn who_reads_a_copy_holds_nothing() {
        let mut directory: Published<u32, u32> = (0..100).map(|n| (n, n)).collect();
        let copy = directory.clone();
        for (key, _) in copy.iter() {
            directory.put(key, None);
        }
        assert_eq!((copy.len(), copy.iter().count()), (100, 100));
        assert!(directory.is_empty() && directory.iter().next().is_none());
        assert!(copy.version() < directory.version());
        assert!(!directory.put(&7, None), "nothing to do");
    }
}
