//! From the text of a configuration file to the object.
//!
//! The text is read into a generic tree first, as Kubernetes does (YAML to JSON to object). So
//! nulls stand for missing fields, every duplicate key is seen, and what the object does not give
//! back when it is written again is an unknown field.

use serde_json::{Map, Value};

use super::file::{API_VERSION, KIND, KubeProxyConfiguration};
use crate::text;
use crate::value::tree::{self, Tree};

/// A decoded object and what a strict reader would have refused in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    pub(super) object: KubeProxyConfiguration,
    /// Unknown and duplicate fields, as sentences.
    pub(super) warnings: Vec<String>,
    /// Other documents follow, which are not read.
    pub(super) followed: bool,
}

/// Decodes the first YAML or JSON document; on failure, everything that is wrong with it.
pub(super) fn decode(text: &str) -> Result<Decoded, Vec<String>> {
    let Tree { value: mut tree, duplicates, followed } =
        tree::first(text).map_err(|error| vec![error.to_string()])?;
    check_type(&tree).map_err(|error| vec![error])?;
    let given = tree.clone();
    remove_nulls(&mut tree);
    let object: KubeProxyConfiguration = serde_json::from_value(tree.clone()).map_err(|error| {
        let mut problems = Vec::new();
        locate(&tree, &mut Vec::new(), &mut problems);
        if problems.is_empty() { vec![error.to_string()] } else { problems }
    })?;
    let known = serde_json::to_value(&object).map_err(|error| vec![error.to_string()])?;
    let mut unknown = Vec::new();
    unknown_fields(&given, &known, "", &mut unknown);

    let duplicates = duplicates.into_iter().map(|path| format!("field {path:?} is there twice"));
    let warnings: Vec<_> = duplicates.chain(unknown).collect();
    Ok(Decoded { object, warnings, followed })
}

fn check_type(tree: &Value) -> Result<(), String> {
    let Value::Object(fields) = tree else {
        return Err(format!("it is not an object of kind {KIND} ({API_VERSION})"));
    };
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match fields.get(field) {
            Some(Value::String(given)) if given == wanted => {}
            Some(given) => return Err(format!("{field} is {given}, it must be {wanted:?}")),
            None => return Err(format!("{field} is missing, it must be {wanted:?}")),
        }
    }
    Ok(())
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Finds the fields that do not decode, by decoding objects that hold nothing else. Possible
/// because every field may be missing.
fn locate(value: &Value, path: &mut Vec<String>, problems: &mut Vec<String>) {
    let try_alone = |leaf: Value| {
        let object = path
            .iter()
            .rev()
            .fold(leaf, |inner, key| Value::Object(Map::from_iter([(key.clone(), inner)])));
        serde_json::from_value::<KubeProxyConfiguration>(object)
    };
    match value {
        Value::Object(fields) if try_alone(Value::Object(Map::new())).is_ok() => {
            for (key, field) in fields {
                path.push(key.clone());
                locate(field, path, problems);
                path.pop();
            }
        }
        _ => {
            if let Err(error) = try_alone(value.clone()) {
                problems.push(format!("{}: {error}", path.join(".")));
            }
        }
    }
}

fn unknown_fields(given: &Value, known: &Value, path: &str, out: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => unknown_fields(value, known, &path, out),
                    None => out.push(match nearest(key, known.keys()) {
                        Some(meant) => format!("unknown field {path:?} (did you mean {meant:?}?)"),
                        None => format!("unknown field {path:?}"),
                    }),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (i, (given, known)) in given.iter().zip(known).enumerate() {
                unknown_fields(given, known, &format!("{path}[{i}]"), out);
            }
        }
        _ => {}
    }
}

/// The known name that `name` is most likely a slip for.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let near = known.filter_map(|candidate| Some((text::edits(name, candidate)?, candidate)));
    near.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}
