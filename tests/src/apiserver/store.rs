//! Objects, their history and selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Clone)]
pub(super) struct Store {
    version: u64,
    /// Changes up to here are forgotten.
    compacted: u64,
    tables: BTreeMap<&'static str, BTreeMap<Key, Stored>>,
    history: Vec<Entry>,
}

impl Default for Store {
    fn default() -> Self {
        Self { version: 100, compacted: 0, tables: BTreeMap::new(), history: Vec::new() }
    }
}

/// An object that is ready to be stored and sent.
#[derive(Debug, Clone)]
pub struct Prepared(Arc<Text>);

/// The text of an object, and what selectors ask about.
#[derive(Debug)]
struct Text {
    resource: &'static str,
    key: Key,
    /// Up to the resource version, and from there on.
    parts: [String; 2],
    labels: Value,
    /// By path.
    fields: BTreeMap<&'static str, String>,
}

/// An object with its resource version.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    text: Arc<Text>,
    version: u64,
}

/// One change.
#[derive(Debug, Clone)]
struct Entry {
    version: u64,
    resource: &'static str,
    before: Option<Stored>,
    after: Option<Stored>,
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

impl From<Value> for Prepared {
    fn from(mut object: Value) -> Self {
        const VERSION: &str = "\u{1a}";
        object["metadata"]["resourceVersion"] = json!(VERSION);
        let whole = object.to_string();
        let marker = json!(VERSION).to_string();
        let (before, after) = whole.split_once(&marker).unwrap_or((&whole, ""));
        let field = |[outer, inner]: [&str; 2]| object[outer][inner].as_str().unwrap_or_default();
        let fields = [
            ("metadata.name", ["metadata", "name"]),
            ("metadata.namespace", ["metadata", "namespace"]),
            ("spec.clusterIP", ["spec", "clusterIP"]),
        ];
        Self(Arc::new(Text {
            resource: match object["kind"].as_str() {
                Some("EndpointSlice") => "endpointslices",
                Some("Node") => "nodes",
                _ => "services",
            },
            key: (
                field(["metadata", "namespace"]).to_owned(),
                field(["metadata", "name"]).to_owned(),
            ),
            parts: [before.to_owned(), after.to_owned()],
            labels: object["metadata"]["labels"].clone(),
            fields: fields.map(|(path, words)| (path, field(words).to_owned())).into(),
        }))
    }
}

impl Prepared {
    /// Bytes of its text.
    pub fn len(&self) -> usize {
        self.0.parts.iter().map(String::len).sum()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.text.parts;
        write!(f, "{before}\"{}\"{after}", self.version)
    }
}

impl Store {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn is_compacted(&self, version: u64) -> bool {
        version < self.compacted
    }

    pub(super) fn put(&mut self, Prepared(text): Prepared) {
        self.version += 1;
        let (resource, version) = (text.resource, self.version);
        let object = Stored { text, version };
        let key = object.text.key.clone();
        let before = self.tables.entry(resource).or_default().insert(key, object.clone());
        self.history.push(Entry { version, resource, before, after: Some(object) });
    }

    pub(super) fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let table = self.tables.iter_mut().find(|(kind, _)| **kind == resource);
        let Some((&resource, table)) = table else { return };
        if let Some(before) = table.remove(&key) {
            self.version += 1;
            let (version, before) = (self.version, Some(before));
            self.history.push(Entry { version, resource, before, after: None });
        }
    }

    pub(super) fn remove(&mut self, Prepared(text): &Prepared) {
        let (namespace, name) = &text.key;
        self.delete(text.resource, namespace, name);
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

    pub(super) fn objects(&self, resource: &str) -> Vec<Stored> {
        self.tables.get(resource).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn selected(&self, resource: &str, selector: &Selector) -> Vec<Stored> {
        self.objects(resource).into_iter().filter(|object| selector.matches(object)).collect()
    }

    /// Lines of a watch with this selector for what came after a version.
    pub(super) fn events(
        &self,
        resource: &str,
        selector: &Selector,
        after: u64,
        show: fn(&Stored) -> String,
    ) -> Vec<String> {
        // In the order of their versions: a long history must not cost each event a look at all of it.
        let new = self.history.partition_point(|entry| entry.version <= after);
        let changes = self.history[new..].iter().filter(|entry| entry.resource == resource);
        changes.filter_map(|entry| selector.event(entry, show)).collect()
    }
}

impl Selector {
    fn event(&self, entry: &Entry, show: fn(&Stored) -> String) -> Option<String> {
        let matching = |object: &Option<Stored>| object.as_ref().is_some_and(|o| self.matches(o));
        let kind = match (matching(&entry.before), matching(&entry.after)) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => {
                let gone = Stored { version: entry.version, ..entry.before.clone()? };
                return Some(line("DELETED", &show(&gone)));
            }
        };
        Some(line(kind, &show(entry.after.as_ref()?)))
    }

    fn matches(&self, object: &Stored) -> bool {
        let label = |key: &str| object.text.labels.get(key).and_then(Value::as_str);
        let field = |path: &str| Some(object.text.fields.get(path).map_or("", String::as_str));
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

/// An object as it is sent to whoever asks for its metadata alone.
pub(super) fn metadata_of(object: &Stored) -> String {
    let whole: Value = serde_json::from_str(&object.to_string()).unwrap_or_default();
    let (kind, version) = ("PartialObjectMetadata", "meta.k8s.io/v1");
    json!({ "kind": kind, "apiVersion": version, "metadata": whole["metadata"] }).to_string()
}

/// One line of a watch.
pub(super) fn line(kind: &str, object: &impl fmt::Display) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let object = json!({
            "metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "None"},
        });
        let stored = Stored { text: Prepared::from(object).0, version: 1 };
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
            assert_eq!(selector.matches(&stored), expected, "{labels:?} {fields:?}");
        }
    }

    #[test]
    fn an_object_that_leaves_the_selection_is_deleted_for_the_watch() {
        let mut store = Store::default();
        let mut object = json!({"kind": "Service", "metadata": {"name": "a", "namespace": "n"}});
        store.put(object.clone().into());
        object["metadata"]["labels"] = json!({"hidden": ""});
        store.put(object.clone().into());
        object["metadata"]["labels"] = json!({});
        store.put(object.into());
        store.delete("services", "n", "a");
        let selector = Selector { labels: "!hidden".into(), fields: String::new() };
        let events = store.events("services", &selector, 0, Stored::to_string);
        let kind = |line: &str| serde_json::from_str::<Value>(line).unwrap()["type"].clone();
        let kinds: Vec<_> = events.iter().map(|line| kind(line)).collect();
        assert_eq!(kinds, ["ADDED", "DELETED", "ADDED", "DELETED"]);
    }
}
