//! What another configuration means for a program that runs.

use serde_json::Value;

use super::Config;

impl Config {
    /// Paths of the fields of the configuration object that differ: `ipvs.scheduler`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        // An object that cannot be written as JSON does not exist: it came from there.
        let tree = |config: &Self| serde_json::to_value(&config.object).unwrap_or_default();
        let mut paths = Vec::new();
        differing(&tree(self), &tree(other), "", &mut paths);
        paths
    }

    /// Whether the program has to start again to become what `new` says: its connection to the API
    /// server, its sockets, its name and the form of its log are settled when it starts.
    pub fn needs_restart(&self, new: &Self) -> bool {
        self.client != new.client
            || self.healthz_bind != new.healthz_bind
            || self.metrics_bind != new.metrics_bind
            || self.node_name != new.node_name
            || self.logging.format != new.logging.format
    }
}

fn differing(old: &Value, new: &Value, path: &str, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            // Every field is written, except in maps such as featureGates.
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let (old, new) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
                differing(&old, &new, &path, out);
            }
        }
        (old, new) if old != new => out.push(path.to_owned()),
        _ => {}
    }
}
