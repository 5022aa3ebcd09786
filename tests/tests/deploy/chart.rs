//! The Helm chart's values: their document and their schema. That the chart renders, what it renders and which
//! values it refuses is in `deploy/check`, which has Helm.
//!
//! `UPDATE=1 cargo test -p proxier-tests --test deploy chart` writes anew what is generated.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use proxier::args::Args;
use serde_json::{Map, Value, json};

use super::{load, read, root};

const CHART: &str = "deploy/helm/proxier";
const TABLE: (&str, &str) = ("<!-- values -->\n", "<!-- end of values -->\n");

#[test]
fn the_readme_lists_the_values_with_their_comments() {
    let path = format!("{CHART}/README.md");
    let mut table = String::from("\n| value | default | meaning |\n| --- | --- | --- |\n");
    for (name, default, meaning) in described() {
        let _ = writeln!(table, "| `{name}` | `{default}` | {meaning} |");
    }
    let document = read(&path);
    let (before, rest) = document.split_once(TABLE.0).unwrap();
    let (_, after) = rest.split_once(TABLE.1).unwrap();
    let wanted = format!("{before}{}{table}\n{}{after}", TABLE.0, TABLE.1);
    settle(&path, &document, &wanted);
}

/// Unknown keys are refused at every level that is the chart's, and every key is known.
#[test]
fn the_schema_knows_every_value_and_no_other() {
    let values: Value = serde_saphyr::from_str(&read(&format!("{CHART}/values.yaml"))).unwrap();
    let schema = schema();
    let mut known = names(&schema["properties"]);
    assert!(known.remove("global"), "Helm gives it to every chart");
    assert_eq!(names(&values), known);
    assert_eq!(schema["additionalProperties"], false);
    for (name, value) in values.as_object().unwrap() {
        let part = &schema["properties"][name];
        if part["additionalProperties"] == false && value != &json!({}) {
            let known = names(&part["properties"]);
            assert!(names(value).is_subset(&known), "{name}: {known:?}");
        }
    }
}

/// `config` has the fields of the program's configuration.
#[test]
fn the_schema_of_the_configuration_is_the_programs() {
    let path = format!("{CHART}/values.schema.json");
    let object =
        load("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n".into())
            .object;
    let mut schema = schema();
    schema["properties"]["config"] = schema_of(&serde_json::to_value(object).unwrap());
    let wanted = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    settle(&path, &read(&path), &wanted);
}

/// What `helm test` runs is a command that the program takes.
#[test]
fn the_test_of_the_chart_is_a_command() {
    let text = read(&format!("{CHART}/templates/tests/status.yaml"));
    let (_, rest) = text.split_once("args:\n").unwrap();
    let words = rest.lines().map_while(|line| line.trim().strip_prefix("- "));
    let words: Vec<_> = ["proxier"].into_iter().chain(words).collect();
    assert_eq!(words[..3], ["proxier", "status", "--wait=in-sync"]);
    drop(Args::parse_from(words).unwrap());
}

fn schema_of(default: &Value) -> Value {
    match default {
        Value::Bool(_) => json!({"type": ["boolean", "null"]}),
        Value::Number(_) => json!({"type": ["number", "null"]}),
        Value::String(_) => json!({"type": ["string", "null"]}),
        Value::Array(_) => json!({"type": ["array", "null"]}),
        // A number, a text or a list; the program says which.
        Value::Null => json!({}),
        Value::Object(fields) if fields.is_empty() => json!({"type": ["object", "null"]}),
        Value::Object(fields) => {
            let properties: Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), schema_of(value))).collect();
            json!({"type": "object", "additionalProperties": false, "properties": properties})
        }
    }
}

/// Name, default and comment of each value, in the order of the file. A map that has comments inside is
/// described by them.
fn described() -> Vec<(String, String, String)> {
    let text = read(&format!("{CHART}/values.yaml"));
    let mut rows: Vec<(String, String, String)> = Vec::new();
    let (mut comment, mut above) = (String::new(), String::new());
    let mut lines = text.split("\n\n").flat_map(str::lines).peekable();
    // The first paragraph is about the file.
    lines.next();
    while let Some(line) = lines.next() {
        let inside = line.starts_with("  ");
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("# ") {
            text.clone_into(&mut comment);
            continue;
        }
        let Some((key, default)) = line.split_once(':') else { continue };
        if !inside && default.is_empty() {
            key.clone_into(&mut above);
            let next = lines.peek().copied().unwrap_or_default();
            // Its values are the default, not values of the chart's own.
            if !comment.is_empty() || key == "resources" || key == "tolerations" {
                let mut whole = String::new();
                while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
                    let _ = writeln!(whole, "{line}");
                }
                let value: Value = serde_saphyr::from_str(&whole).unwrap();
                rows.push((above.clone(), value.to_string(), std::mem::take(&mut comment)));
            } else {
                assert!(next.starts_with("  "), "{key} has no value");
            }
            continue;
        }
        let name = if inside { format!("{above}.{key}") } else { key.to_owned() };
        let mut default = default.trim().to_owned();
        if inside && default.is_empty() {
            let mut whole = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
                let _ = writeln!(whole, "{line}");
            }
            let value: Value = serde_saphyr::from_str(&whole).unwrap();
            default = value.to_string();
        }
        rows.push((name, default, std::mem::take(&mut comment)));
    }
    rows
}

fn schema() -> Value {
    serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap()
}

fn names(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn settle(path: &str, present: &str, wanted: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(path), wanted).unwrap();
    } else {
        assert!(present == wanted, "{path} is out of date: UPDATE=1 writes it anew");
    }
}
