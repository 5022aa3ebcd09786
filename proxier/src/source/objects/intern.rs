//! One copy of each name, however many objects carry it.

use std::collections::HashSet;
use std::sync::Arc;

/// Strings in use. Those that nothing else holds any more are dropped from time to time.
#[derive(Debug)]
pub(crate) struct Interner {
    names: HashSet<Arc<str>>,
    limit: usize,
    /// New names until unused ones are looked for: as many as there were after the last search,
    /// so that searching costs each name a constant share.
    until_sweep: usize,
}

impl Interner {
    const FIRST_SWEEP: usize = 256;

    /// Never holds more than `limit` strings; more are returned without being shared.
    pub(crate) fn new(limit: usize) -> Self {
        Self { names: HashSet::new(), limit, until_sweep: Self::FIRST_SWEEP }
    }

    /// The shared copy of a string.
    pub(crate) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.until_sweep == 0 {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.until_sweep = self.names.len().max(Self::FIRST_SWEEP);
        }
        self.until_sweep -= 1;
        let name: Arc<str> = name.into();
        if self.names.len() < self.limit {
            self.names.insert(Arc::clone(&name));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_allocation() {
        let mut names = Interner::new(10);
        let first = names.get("node-a");
        assert!(Arc::ptr_eq(&first, &names.get("node-a")));
    }

    #[test]
    fn stays_within_its_limit_and_forgets_unused_names() {
        let mut names = Interner::new(300);
        let kept: Vec<_> = (0..200).map(|n| names.get(&format!("kept-{n}"))).collect();
        for n in 0..10_000 {
            names.get(&format!("passing-{n}"));
        }
        assert!(names.names.len() <= 300);
        assert!(!names.names.contains("passing-0"));
        assert!(kept.iter().all(|name| Arc::ptr_eq(name, &names.get(name))));
    }

    #[test]
    fn a_full_table_still_answers() {
        let mut names = Interner::new(2);
        let held: Vec<_> = ["a", "b", "c"].map(|name| names.get(name)).into();
        assert_eq!(held.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(names.names.len(), 2);
    }
}
