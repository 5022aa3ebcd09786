//! What somebody may have meant who named what is not there.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, ObjectKey};
use crate::text;

/// Names that are suggested.
const MOST: usize = 3;

/// ` (did you mean shop/web?)`, or nothing where no Service has that name in another namespace, or almost that
/// name in this or almost this one.
pub(super) fn service(key: &ObjectKey, cluster: &Cluster) -> String {
    let far = |it: &ObjectKey| match text::edits(key.name(), it.name())? {
        0 => Some((0, 0)),
        name => Some((name, text::edits(key.namespace(), it.namespace())?)),
    };
    let all = cluster.services().map(|service| &service.key);
    let mut near: Vec<_> = all.filter_map(|it| Some((far(it)?, it))).collect();
    near.sort_unstable();
    question(near.into_iter().take(MOST).map(|(_, key)| key.to_string()))
}

/// The same of a namespace in which no Service is.
pub fn namespace(name: &str, cluster: &Cluster) -> String {
    let all: BTreeSet<&str> = cluster.services().map(|service| service.key.namespace()).collect();
    let mut near: Vec<_> =
        all.into_iter().filter_map(|it| Some((text::edits(name, it)?, it))).collect();
    near.sort_unstable();
    question(near.into_iter().take(MOST).map(|(_, name)| text::name(name).to_string()))
}

fn question(names: impl Iterator<Item = String>) -> String {
    match text::any_of(names) {
        none if none.is_empty() => none,
        names => format!(" (did you mean {names}?)"),
    }
}
