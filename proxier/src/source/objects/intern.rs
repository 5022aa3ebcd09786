//! One copy of each name or location, however many objects carry it.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values in use. Those that nothing else holds any more are dropped from time to time.
#[derive(Debug)]
pub(crate) struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    limit: usize,
    /// New values until unused ones are looked for: as many as there were after the last search,
    /// so that searching costs each value a constant share.
    until_sweep: usize,
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    const FIRST_SWEEP: usize = 256;

    /// Never holds more than `limit` values; more are returned without being shared.
    pub(crate) fn new(limit: usize) -> Self {
        Self { values: HashSet::new(), limit, until_sweep: Self::FIRST_SWEEP }
    }

    /// The shared copy of a value.
    pub(crate) fn get(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.until_sweep == 0 {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.until_sweep = self.values.len().max(Self::FIRST_SWEEP);
        }
        self.until_sweep -= 1;
        let value: Arc<T> = value.into();
        if self.values.len() < self.limit {
            self.values.insert(Arc::clone(&value));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_allocation() {
        let mut names = Interner::<str>::new(10);
        let first = names.get("node-a");
        assert!(Arc::ptr_eq(&first, &names.get("node-a")));
    }

    #[test]
    fn stays_within_its_limit_and_forgets_unused_names() {
        let mut names = Interner::<str>::new(300);
        let kept: Vec<_> = (0..200).map(|n| names.get(&*format!("kept-{n}"))).collect();
        for n in 0..10_000 {
            names.get(&*format!("passing-{n}"));
        }
        assert!(names.values.len() <= 300);
        assert!(!names.values.contains("passing-0"));
        assert!(kept.iter().all(|name| Arc::ptr_eq(name, &names.get(&**name))));
    }

    #[test]
    fn a_full_table_still_answers() {
        let mut names = Interner::<str>::new(2);
        let held: Vec<_> = ["a", "b", "c"].map(|name| names.get(name)).into();
        assert_eq!(held.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(names.values.len(), 2);
    }
}
