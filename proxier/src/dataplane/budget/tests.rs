use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { service: 40, namespace: 100, node: 250 };

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

/// `NAMESPACE/NAME CREATED COST`, one a line.
fn budget(lines: &[&str]) -> Budget {
    let mut budget = Budget::default();
    budget.limit(LIMITS);
    put(&mut budget, lines);
    budget
}

fn put(budget: &mut Budget, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let (namespace, name) = words[0].split_once('/').unwrap();
        let service =
            (words[1] != "gone").then(|| (words[1].parse().unwrap(), words[2].parse().unwrap()));
        budget.put(&key(namespace, name), service);
    }
}

/// Who is left out, and why.
fn left_out(budget: &Budget) -> Vec<String> {
    let mut out: Vec<String> = budget
        .known
        .keys()
        .filter_map(|key| Some(format!("{key} {:?}", budget.over(key)?)))
        .collect();
    out.sort();
    out
}

#[test]
fn who_has_room_is_let_in() {
    let mut budget = budget(&["a/one 1 40", "a/two 2 40", "b/one 3 40"]);
    assert!(budget.settle().is_empty());
    assert_eq!(left_out(&budget), [""; 0]);
}

#[test]
fn a_service_that_is_too_large_takes_no_room() {
    let mut budget = budget(&["a/huge 1 41", "a/one 2 40", "a/two 2 40"]);
    budget.settle();
    assert_eq!(left_out(&budget), ["a/huge Service"]);
}

#[test]
fn of_a_namespace_the_newest_and_largest_are_left_out() {
    let mut budget =
        budget(&["a/new 3 30", "a/old 1 40", "a/large 2 40", "a/small 2 10", "b/b 9 40"]);
    assert_eq!(budget.settle(), [key("a", "new")].into());
    assert_eq!(left_out(&budget), ["a/new Namespace"]);
    // One that is small enough finds room behind it.
    put(&mut budget, &["a/tiny 4 10"]);
    assert!(budget.settle().is_empty());
    // Room that becomes free is given to the oldest that fits.
    put(&mut budget, &["a/large gone"]);
    assert_eq!(budget.settle(), [key("a", "new")].into());
    assert_eq!(left_out(&budget), [""; 0]);
}

#[test]
fn other_namespaces_are_not_touched() {
    let many = ["a/1 1 40", "a/2 1 40", "b/1 1 40", "b/2 1 40", "c/1 1 40", "d/1 1 40"];
    let mut budget = budget(&many);
    budget.settle();
    assert_eq!(left_out(&budget), [""; 0]);
    // 240 of 250 are asked for: now the largest namespaces get less, the others what they asked for.
    put(&mut budget, &["a/3 9 20"]);
    assert_eq!(budget.settle(), [key("a", "3")].into());
    assert_eq!(left_out(&budget), ["a/3 Node"]);
    put(&mut budget, &["d/1 gone"]);
    assert_eq!(budget.settle(), [key("a", "3")].into());
}

#[test]
fn other_limits_decide_anew() {
    let mut budget = budget(&["a/1 1 40", "a/2 2 40", "a/3 3 40"]);
    budget.settle();
    assert_eq!(left_out(&budget), ["a/3 Namespace"]);
    budget.limit(Limits { service: 40, namespace: 120, node: 250 });
    assert_eq!(budget.settle(), [key("a", "3")].into());
    assert_eq!(left_out(&budget), [""; 0]);
    budget.limit(Limits { service: 39, namespace: 120, node: 250 });
    budget.settle();
    assert_eq!(left_out(&budget).len(), 3);
}

#[test]
fn a_limit_of_memory_leaves_room_for_the_rest() {
    for bytes in [64 << 20, 128 << 20, 512 << 20, 8 << 30] {
        let limits = Limits::of_memory(bytes);
        assert!(limits.service < limits.namespace && limits.namespace < limits.node);
        assert!(limits.node < bytes && limits.service > 0, "{limits:?}");
    }
}

proptest! {
    /// Whoever comes in whatever order: what is let in is the same, fits, and everybody for whom it
    /// changed is told.
    #[test]
    fn what_is_let_in_depends_on_the_services_alone(
        steps in vec((0..4_u8, 0..8_u8, 0..4_i64, prop::option::weighted(0.8, 1..60_u64)), 0..60),
    ) {
        let mut budget = Budget::default();
        budget.limit(LIMITS);
        let mut let_in: BTreeSet<ObjectKey> = BTreeSet::new();
        for (namespace, name, created, cost) in steps {
            let key = key(&format!("n{namespace}"), &format!("s{name}"));
            budget.put(&key, cost.map(|cost| (created, cost)));
            let mut told = budget.settle();
            told.insert(key);
            for key in told {
                if budget.known.contains_key(&key) && budget.over(&key).is_none() {
                    let_in.insert(key);
                } else {
                    let_in.remove(&key);
                }
            }
        }
        let mut rebuilt = Budget::default();
        rebuilt.limit(LIMITS);
        for (key, service) in budget.known.iter().collect::<BTreeMap<_, _>>().into_iter().rev() {
            rebuilt.put(key, Some(*service));
        }
        rebuilt.settle();
        prop_assert_eq!(left_out(&budget), left_out(&rebuilt));
        let fits: BTreeSet<ObjectKey> =
            budget.known.keys().filter(|key| budget.over(key).is_none()).cloned().collect();
        prop_assert_eq!(&let_in, &fits);
        let of = |namespace: Option<&str>| -> u64 {
            let of = fits.iter().filter(|key| namespace.is_none_or(|it| key.namespace() == it));
            of.map(|key| budget.known[key].1).sum()
        };
        prop_assert!(of(None) <= LIMITS.node);
        for namespace in ["n0", "n1", "n2", "n3"] {
            prop_assert!(of(Some(namespace)) <= LIMITS.namespace);
        }
    }
}
