//! Documents as objects of the cluster.

use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::{Document, Documents};
use super::lint;
use crate::cluster::{Change, ObjectKey};
use crate::source::Warning;
use crate::source::objects::{Converted, Converter, quote};
use crate::value::tree::{Items, Tree};

/// Lists inside lists deeper than this are refused.
const DEPTH: usize = 4;
/// Most objects in one file; a cluster of 5,000 nodes stays well below.
const OBJECTS: usize = if cfg!(test) { 1000 } else { 250_000 };
/// Most warnings about one file; the rest is counted.
const WARNINGS: usize = 100;

/// What a file contains.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Objects with the line of the document that they are in.
    pub(super) objects: Vec<(usize, Object)>,
    pub(super) warnings: Vec<Warning>,
    /// How many warnings are not among them.
    pub(super) unsaid: usize,
    /// Some document could not be read: objects may be missing.
    pub(super) incomplete: bool,
    pub(super) source: Source,
}

impl Content {
    /// What is wrong with it, where objects may be missing.
    pub(super) fn why_incomplete(&self) -> Option<String> {
        let why = || self.warnings.first().map_or_else(String::new, |first| first.text.clone());
        self.incomplete.then(why)
    }
}

/// What tells one text from another without keeping it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Source {
    bytes: u64,
    hash: u64,
}

impl Source {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self { bytes: bytes.len() as u64, hash: hasher.finish() }
    }

    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }
}

/// One object.
#[derive(Debug)]
pub(super) enum Object {
    /// `Change::Service`, `ServiceIgnored`, `Slice` or `SliceGone`.
    Fact(Arc<Change>),
    /// The slices made of one Endpoints object; in force where its Service has no slices.
    Endpoints(Vec<Arc<Change>>),
    /// Any node.
    Node(Arc<Change>),
}

impl Content {
    fn warn(&mut self, object: impl fmt::Display, text: impl fmt::Display) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(Warning { object: object.to_string(), text: text.to_string() });
        } else {
            self.unsaid += 1;
        }
    }

    /// Adds what a document contains.
    fn append(&mut self, other: Self) {
        self.objects.extend(other.objects);
        other.warnings.into_iter().for_each(|Warning { object, text }| self.warn(object, text));
        self.unsaid += other.unsaid;
    }

    fn finish(mut self, file: &str) -> Self {
        if self.unsaid > 0 {
            let text = format!("{} more warnings are left out", self.unsaid);
            self.warnings.push(Warning { object: file.to_owned(), text });
        }
        self
    }
}

impl Object {
    /// What makes it the same object in another text.
    pub(super) fn identity(&self) -> (&'static str, Option<ObjectKey>) {
        let kind_and_key = |change: &Change| match change {
            Change::Service(service) => ("Service", Some(service.key.clone())),
            Change::ServiceIgnored(key, _) => ("Service", Some(key.clone())),
            Change::Slice(slice) => ("EndpointSlice", Some(slice.key.clone())),
            Change::SliceGone(key) => ("EndpointSlice", Some(key.clone())),
            Change::Node(node) => ("Node", Some(ObjectKey::new("", &node.name))),
            _ => ("", None),
        };
        match self {
            Self::Fact(change) | Self::Node(change) => kind_and_key(change),
            Self::Endpoints(slices) => match slices.first().map(|slice| &**slice) {
                Some(Change::Slice(slice)) => ("Endpoints", Some(slice.service.clone())),
                _ => ("Endpoints", None),
            },
        }
    }
}

/// Reads a file's text. `file` is its name for people, `checked` whether they want to hear of what does no harm.
pub(super) fn read(file: &str, text: &str, converter: &Converter, checked: bool) -> Content {
    let mut content = Content::default();
    let mut documents = Documents::new(text);
    let reading = |number, line| Reading {
        place: format!("{file}, document {number}, line {line}"),
        line,
        converter,
        checked,
        content: Content::default(),
        in_tree: false,
    };
    while content.objects.len() <= OBJECTS
        && let Some(Document { text, content: tree, items: mut reading, .. }) =
            documents.next(reading)
    {
        match tree {
            Ok(tree) => {
                reading.document(tree);
                content.append(reading.content);
            }
            Err(error) => {
                content.incomplete = true;
                let name = hint(text).map(|name| format!(" ({name})")).unwrap_or_default();
                content.warn(
                    format_args!("{}{name}", reading.place),
                    format_args!("this document is ignored, it is not valid: {error}"),
                );
            }
        }
    }
    if content.objects.len() > OBJECTS {
        content.objects.truncate(OBJECTS);
        content.incomplete = true;
        let text = format!(
            "it has more than {OBJECTS} objects, the others are ignored: split it into several files"
        );
        content.warnings.insert(0, Warning { object: file.to_owned(), text });
    }
    content.finish(file)
}

/// A document on its way to objects.
struct Reading<'a> {
    /// Where it is, for people.
    place: String,
    line: usize,
    converter: &'a Converter,
    checked: bool,
    content: Content,
    /// The items from here on are left in the tree, to keep their order.
    in_tree: bool,
}

/// What an object is can follow its items. Those that say themselves what they are need not wait.
impl Items for Reading<'_> {
    fn begin(&mut self) {
        (self.content, self.in_tree) = (Content::default(), false);
    }

    fn take(&mut self, item: Value) -> Option<Value> {
        self.in_tree |= !item.get("kind").is_some_and(Value::is_string);
        if self.in_tree {
            return Some(item);
        }
        self.object(item, None, DEPTH - 1);
        None
    }
}

fn is_list(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str);
    value.get("items").is_some_and(Value::is_array)
        && kind.is_some_and(|kind| kind.ends_with("List"))
}

impl Reading<'_> {
    /// Adds the objects of a document that are not taken yet.
    fn document(&mut self, Tree { value, duplicates, followed }: Tree) {
        if !is_list(&value) {
            self.begin();
        }
        if followed {
            let text = "what follows its end is ignored: begin it with a line of ---";
            self.content.warn(&self.place, text);
        }
        for path in duplicates {
            let path = quote(&path);
            let text = format_args!("{path} is there twice, the last one counts");
            self.content.warn(&self.place, text);
        }
        self.object(value, None, DEPTH);
    }

    /// Adds an object, or those of a list. `kind` is what an item of a typed list is when it does not
    /// say so itself.
    fn object(&mut self, mut value: Value, kind: Option<&str>, depth: usize) {
        let Self { place, line, converter, checked, content, .. } = self;
        if content.objects.len() > OBJECTS {
            return;
        }
        let text = |field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let api = text("apiVersion");
        let Some(kind) = text("kind").or_else(|| kind.map(str::to_owned)) else {
            content.warn(
                place,
                "ignored: it has no kind; a manifest needs apiVersion, kind and metadata",
            );
            return;
        };
        if let Some(items) = value.get_mut("items").and_then(Value::as_array_mut)
            && let Some(item) = kind.strip_suffix("List")
            && depth > 0
        {
            let items = std::mem::take(items);
            let item = Some(item).filter(|item| !item.is_empty());
            for value in items {
                self.object(value, item, depth - 1);
            }
            return;
        }
        let unknown = if *checked { lint::unknown_fields(&kind, &value) } else { Vec::new() };
        let result = match (api.as_deref().unwrap_or_default(), kind.as_str()) {
            ("v1" | "", "Service") => typed(value, |raw| converter.service(raw)),
            ("discovery.k8s.io/v1" | "", "EndpointSlice") => {
                typed(value, |raw| converter.slice(raw))
            }
            ("v1" | "", "Endpoints") => typed(value, |raw| converter.legacy_endpoints(raw)),
            ("v1" | "", "Node") => typed(value, |raw| converter.node(raw)),
            (api, "EndpointSlice") if api.starts_with("discovery.k8s.io/") => Err(format!(
                "ignored: apiVersion {} is not discovery.k8s.io/v1; change it",
                quote(api)
            )),
            // Namespaces, Deployments and the like are in the same files and none of our business.
            _ => {
                if let Some(meant) = lint::meant(&kind).filter(|_| *checked) {
                    let kind = quote(&kind);
                    let text = format!("ignored: kind {kind} is not read; did you mean {meant}?");
                    content.warn(place, text);
                }
                return;
            }
        };
        for field in unknown {
            content.warn(format_args!("{kind} ({place})"), field);
        }
        match result {
            Ok(Converted { changes, warnings }) => {
                for Warning { object, text } in warnings {
                    content.warn(format_args!("{object} ({place})"), text);
                }
                let mut changes = changes.into_iter().map(Arc::new);
                let (line, objects) = (*line, &mut content.objects);
                match kind.as_str() {
                    "Endpoints" => objects.push((line, Object::Endpoints(changes.collect()))),
                    "Node" => objects.extend(changes.next().map(|node| (line, Object::Node(node)))),
                    _ => objects.extend(changes.next().map(|change| (line, Object::Fact(change)))),
                }
            }
            Err(text) => {
                content.warn(format_args!("{kind} ({place})"), text);
            }
        }
    }
}

fn typed<T: DeserializeOwned>(
    value: Value,
    convert: impl FnOnce(T) -> Converted,
) -> Result<Converted, String> {
    match serde_json::from_value(value) {
        Ok(raw) => Ok(convert(raw)),
        Err(error) => Err(format!("ignored: {error}")),
    }
}

/// A guess at which object a broken document is: what its first lines say about kind and name.
fn hint(text: &str) -> Option<String> {
    let mut kind = None;
    for line in text.lines().take(50) {
        let line = line.trim().trim_end_matches(',');
        let value = |field: &str| {
            let rest = line
                .strip_prefix(field)
                .or_else(|| line.strip_prefix('"')?.strip_prefix(field)?.strip_prefix('"'))?;
            Some(rest.strip_prefix(':')?.trim().trim_matches(['"', '\'']).to_owned())
        };
        if let Some(found) = value("kind") {
            kind.get_or_insert(found);
        } else if let Some(name) = value("name") {
            let kind = kind.as_deref().unwrap_or("object");
            return Some(format!("{} {}", kind.chars().take(40).collect::<String>(), quote(&name)));
        }
    }
    None
}
