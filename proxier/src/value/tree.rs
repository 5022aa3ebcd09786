//! YAML and JSON text as trees, read as kube-proxy and kubectl read it (`sigs.k8s.io/yaml`).
//!
//! That is YAML 1.1 where it matters: `yes` and `on` are booleans, `0755` is octal, `1_000` is a
//! number, merge keys work. Numbers without a fraction are whole, however they are written:
//! `1.048576e+06` is 1048576 and `80.0` is 80. Of a key that is there twice the last one counts.
//!
//! Reading takes time in proportion to the text, and memory up to [`MOST_VALUES`]. What is taken from
//! a list as soon as it is read ([`Items`]) needs memory for itself alone.

mod json;
mod scalar;
mod yaml;

use serde_json::Value;

/// Most values and keys of one document that are in memory together: some 300 MiB.
pub(crate) const MOST_VALUES: usize = if cfg!(test) { 100_000 } else { 4_000_000 };
/// Lists and objects inside each other.
const DEPTH: usize = 64;
/// Most duplicate keys of a document that are named.
const NAMED: usize = 16;

/// A document.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Tree {
    /// Its content.
    pub(crate) value: Value,
    /// Paths of keys that are there twice: `spec.ports[0].port`.
    pub(crate) duplicates: Vec<String>,
    /// Another document follows in the text.
    pub(crate) followed: bool,
}

/// The field by which a document is a list of objects.
const ITEMS: &str = "items";

/// Takes the items of a list of objects as they are read, so that only one is in memory as a tree.
pub(crate) trait Items {
    /// The field begins. If it is there twice, the last one counts.
    fn begin(&mut self);

    /// Takes an item, or gives it back: then it becomes part of the tree.
    fn take(&mut self, item: Value) -> Option<Value>;
}

/// Leaves them in the tree.
impl Items for () {
    fn begin(&mut self) {}

    fn take(&mut self, item: Value) -> Option<Value> {
        Some(item)
    }
}

/// Why a text is not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub(crate) struct Error {
    /// The line it is about, from 1.
    pub(crate) line: Option<usize>,
    /// What is wrong, in one line.
    pub(crate) text: String,
}

/// The first document of a text that is JSON if it begins with a brace and can be read as such, and
/// YAML otherwise.
pub(crate) fn first(text: &str) -> Result<Tree, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{')
        && let (Ok(tree), length) = json(text, &mut ())
    {
        let followed = !text[length..].trim().is_empty();
        return Ok(Tree { followed, ..tree });
    }
    yaml(text, &mut ())
}

pub(crate) use self::json::read as json;
pub(crate) use self::yaml::read as yaml;

/// Where a reader is in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

/// `spec.ports[0].port`
fn path<'a>(steps: impl IntoIterator<Item = &'a Step>) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.extend([".", key]),
            Step::Item(n) => path.extend(["[", &n.to_string(), "]"]),
        }
    }
    path
}

fn too_many() -> String {
    format!(
        "it has more than {MOST_VALUES} values; split it into several documents, separated by lines \
         of ---"
    )
}

fn too_deep() -> String {
    format!("more than {DEPTH} lists and objects are inside each other")
}

/// A number as Go writes it into JSON: one without a fraction is a whole number.
fn whole(number: f64) -> Option<Value> {
    /// From here on Go writes an exponent.
    const EXPONENT: f64 = 1e21;
    if !number.is_finite() {
        return None;
    }
    if number.fract() == 0.0 && number.abs() < EXPONENT {
        let digits = format!("{number:.0}");
        if let Ok(whole) = digits.parse::<i64>() {
            return Some(whole.into());
        }
        if let Ok(whole) = digits.parse::<u64>() {
            return Some(whole.into());
        }
    }
    Some(number.into())
}

#[cfg(test)]
mod tests;
