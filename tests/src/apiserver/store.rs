//! Objects, their history and selectors.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Clone)]
pub(super) struct Store {
    version: u64,
    /// Changes up to here are forgotten.
    compacted: u64,
    tables: BTreeMap<String, BTreeMap<Key, Value>>,
    history: Vec<Entry>,
}

impl Default for Store {
    fn default() -> Self {
        Self { version: 100, compacted: 0, tables: BTreeMap::new(), history: Vec::new() }
    }
}

/// One change.
#[derive(Debug, Clone)]
struct Entry {
    version: u64,
    resource: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// What was stored at some time.
#[derive(Debug, Clone)]
pub struct Snapshot(Store);

/// `labelSelector` and `fieldSelector`.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    pub(super) labels: String,
    pub(super) fields: String,
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_compacted(&self, version: u64) -> bool {
        version < self.compacted
    }

    pub(super) fn put(&mut self, mut object: Value) {
        let resource = resource_of(&object);
        let key = key_of(&object);
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.tables.entry(resource.clone()).or_default().insert(key, object.clone());
        self.history.push(Entry { version: self.version, resource, before, after: Some(object) });
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let before = self.tables.get_mut(resource).and_then(|table| table.remove(&key));
        if before.is_some() {
            self.version += 1;
            let resource = resource.to_owned();
            self.history.push(Entry { version: self.version, resource, before, after: None });
        }
    }

    pub(super) fn clear(&mut self, resource: &str) {
        let keys: Vec<Key> =
            self.tables.get(resource).into_iter().flatten().map(|(k, _)| k.clone()).collect();
        for (namespace, name) in keys {
            self.delete(resource, &namespace, &name);
        }
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    pub(super) fn compact_but(&mut self, kept: usize) {
        let old = self.history.len().saturating_sub(kept);
        if let Some(last) = self.history.drain(..old).next_back() {
            self.compacted = last.version;
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.clone())
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        *self = snapshot.0;
    }

    pub(super) fn objects(&self, resource: &str) -> Vec<Value> {
        self.tables.get(resource).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn selected(&self, resource: &str, selector: &Selector) -> Vec<Value> {
        self.objects(resource).into_iter().filter(|object| selector.matches(object)).collect()
    }

    /// Events after a version, as a watch with this selector sees them, with their versions.
    pub(super) fn events(
        &self,
        resource: &str,
        selector: &Selector,
        after: u64,
    ) -> Vec<(u64, Value)> {
        // In the order of their versions: a long history must not cost each event a look at all of it.
        let new = self.history.partition_point(|entry| entry.version <= after);
        let changes = self.history[new..].iter().filter(|entry| entry.resource == resource);
        changes.filter_map(|entry| Some((entry.version, selector.event(entry)?))).collect()
    }
}

impl Selector {
    fn event(&self, entry: &Entry) -> Option<Value> {
        let matching =
            |object: &Option<Value>| object.as_ref().filter(|o| self.matches(o)).cloned();
        match (matching(&entry.before), matching(&entry.after)) {
            (None, Some(object)) => Some(json!({"type": "ADDED", "object": object})),
            (Some(_), Some(object)) => Some(json!({"type": "MODIFIED", "object": object})),
            (Some(mut object), None) => {
                object["metadata"]["resourceVersion"] = json!(entry.version.to_string());
                Some(json!({"type": "DELETED", "object": object}))
            }
            (None, None) => None,
        }
    }

    fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let field = |path: &str| {
            Some(path.split('.').fold(object, |value, part| &value[part]).as_str().unwrap_or(""))
        };
        all(&self.labels, label) && all(&self.fields, field)
    }
}

/// Whether all requirements of a selector hold: `key`, `!key`, `key=value`, `key!=value`.
fn all<'a>(selector: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        if let Some((key, wanted)) = term.split_once("!=") {
            value(key) != Some(wanted)
        } else if let Some((key, wanted)) = term.split_once('=') {
            value(key) == Some(wanted.trim_start_matches('='))
        } else if let Some(key) = term.strip_prefix('!') {
            value(key).is_none()
        } else {
            value(term).is_some()
        }
    })
}

fn resource_of(object: &Value) -> String {
    match object["kind"].as_str() {
        Some("EndpointSlice") => "endpointslices".into(),
        Some("Node") => "nodes".into(),
        _ => "services".into(),
    }
}

fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let object = json!({
            "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "None"},
        });
        let cases = [
            ("", "", true),
            ("!y", "", true),
            ("!x", "", false),
            ("x", "", true),
            ("x=1,!y", "", true),
            ("x!=1", "", false),
            ("y!=1", "", true),
            ("", "spec.clusterIP!=None", false),
            ("", "metadata.name=a", true),
            ("", "metadata.name==b", false),
        ];
        for (labels, fields, expected) in cases {
            let selector = Selector { labels: labels.into(), fields: fields.into() };
            assert_eq!(selector.matches(&object), expected, "{labels:?} {fields:?}");
        }
    }

    #[test]
    fn an_object_that_leaves_the_selection_is_deleted_for_the_watch() {
        let mut store = Store::default();
        let mut object = json!({"kind": "Service", "metadata": {"name": "a", "namespace": "n"}});
        store.put(object.clone());
        object["metadata"]["labels"] = json!({"hidden": ""});
        store.put(object.clone());
        object["metadata"]["labels"] = json!({});
        store.put(object);
        store.delete("services", "n", "a");
        let selector = Selector { labels: "!hidden".into(), fields: String::new() };
        let events = store.events("services", &selector, 0);
        let kinds: Vec<_> = events.iter().map(|(_, event)| event["type"].as_str()).collect();
        assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "DELETED"].map(Some));
    }
}
