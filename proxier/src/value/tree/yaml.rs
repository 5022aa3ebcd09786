//! YAML text as a tree.
//!
//! The only place that knows the YAML library, of which the events are used: what a scalar stands for
//! is decided here.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};
use serde_json::Value;
use serde_json::map::{Entry, Map};

use super::{
    DEPTH, Error, ITEMS, Items, MOST_VALUES, NAMED, Step, Tree, path, scalar, too_deep, too_many,
};

/// How much larger aliases may make a document, and what every document may have.
const ALIASES: usize = 20;
const SMALL: usize = 1000;

/// Reads the first document of a text that is not empty.
pub(crate) fn read(text: &str, items: &mut dyn Items) -> Result<Tree, Error> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: DEPTH,
        block_nesting_limit: DEPTH,
    };
    options.set_emit_comments(false);
    let mut events = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::new(text.len() * ALIASES + SMALL, items);
    while let Some(event) = events.next() {
        let (event, span) = event.map_err(|error| invalid(&error))?;
        let end = matches!(event, Event::DocumentEnd);
        builder.take(event).map_err(|text| Error { line: Some(span.start.line()), text })?;
        if end && let Some(value) = builder.root.take().filter(|value| !value.is_null()) {
            let duplicates = builder.duplicates;
            return Ok(Tree { value, duplicates, followed: is_followed(events) });
        }
    }
    Ok(Tree::default())
}

/// Whether a document that is not empty follows.
fn is_followed<'a>(
    events: impl Iterator<Item = Result<(Event<'a>, granit_parser::Span), ScanError>>,
) -> bool {
    for event in events {
        match event {
            Ok((Event::Scalar(text, ScalarStyle::Plain, ..), _))
                if scalar::plain(&text) == Ok(Value::Null) => {}
            Ok((Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..), _))
            | Err(_) => return true,
            Ok(_) => {}
        }
    }
    false
}

fn invalid(error: &ScanError) -> Error {
    let text = match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(),
        _ => error.info().lines().next().unwrap_or_default().to_owned(),
    };
    Error { line: Some(error.marker().line()), text }
}

/// What a value costs.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
    depth: usize,
}

/// A list or an object that has not ended.
struct Open {
    /// Number of its anchor; 0 is none.
    anchor: usize,
    /// Of what is in it so far.
    size: Size,
    content: Content,
}

enum Content {
    List {
        kept: Vec<Value>,
        /// How many there were, with those that were taken.
        number: usize,
        /// It is `items` of the document.
        is_items: bool,
    },
    Object {
        fields: Map<String, Value>,
        next: Next,
        /// Some fields are merged in: to be there twice is their purpose.
        merged: bool,
    },
}

/// What the next value in an object is.
#[derive(PartialEq)]
enum Next {
    Key,
    Value(String),
    /// The value of `<<`.
    Merged,
}

struct Builder<'i> {
    items: &'i mut dyn Items,
    root: Option<Value>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, Size)>,
    duplicates: Vec<String>,
    /// Values and bytes that may still come.
    left: usize,
    values: usize,
}

impl<'i> Builder<'i> {
    fn new(left: usize, items: &'i mut dyn Items) -> Self {
        Self {
            items,
            root: None,
            open: Vec::new(),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            left,
            values: 0,
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if self.is_merge(&text, style, tag.as_deref()) {
                    if let Some(Open { content: Content::Object { next, .. }, .. }) =
                        self.open.last_mut()
                    {
                        *next = Next::Merged;
                    }
                    return Ok(());
                }
                let size = Size { values: 1, bytes: text.len(), depth: 0 };
                self.pay(size)?;
                let value = value_of(&text, style, tag.as_deref())?;
                self.add(value, size, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let is_items = anchor == 0 && self.is_at_items();
                self.begin(anchor, Content::List { kept: Vec::new(), number: 0, is_items })
            }
            Event::MappingStart(_, anchor, _) => {
                let content =
                    Content::Object { fields: Map::new(), next: Next::Key, merged: false };
                self.begin(anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some((_, size)) = self.anchors.get(&anchor) else {
                    return Err("the value of an anchor contains itself".to_owned());
                };
                let size = *size;
                if self.open.len() + size.depth > DEPTH {
                    return Err(too_deep());
                }
                self.pay(size)?;
                let value = self.anchors.get(&anchor).map(|(value, _)| value.clone());
                self.add(value.unwrap_or_default(), size, 0)
            }
            _ => Ok(()),
        }
    }

    /// Whether a scalar is the key `<<`.
    fn is_merge(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
        let Some(Open { content: Content::Object { next: Next::Key, .. }, .. }) = self.open.last()
        else {
            return false;
        };
        let merge = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:"));
        text == "<<"
            && (merge.is_some_and(|it| it == "merge")
                || tag.is_none() && style == ScalarStyle::Plain)
    }

    /// Whether the next value is `items` of a document that no alias can repeat.
    fn is_at_items(&self) -> bool {
        let [Open { anchor: 0, content: Content::Object { next, .. }, .. }] = &*self.open else {
            return false;
        };
        matches!(next, Next::Value(key) if key == ITEMS)
    }

    /// Counts what is about to be made.
    fn pay(&mut self, size: Size) -> Result<(), String> {
        self.values += size.values;
        if self.values > MOST_VALUES {
            return Err(too_many());
        }
        let left = self.left.checked_sub(size.values + size.bytes);
        self.left = left.ok_or_else(|| "its aliases make it too large".to_owned())?;
        Ok(())
    }

    fn begin(&mut self, anchor: usize, content: Content) -> Result<(), String> {
        if self.open.len() >= DEPTH {
            return Err(too_deep());
        }
        self.pay(Size { values: 1, ..Size::default() })?;
        self.open.push(Open { anchor, size: Size::default(), content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(Open { anchor, size, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List { kept, .. } => Value::Array(kept),
            Content::Object { fields, .. } => Value::Object(fields),
        };
        self.add(value, Size { values: size.values + 1, depth: size.depth + 1, ..size }, anchor)
    }

    /// Puts a value where it belongs.
    fn add(&mut self, value: Value, size: Size, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            // The copy has to be held, too.
            self.pay(size)?;
            self.anchors.insert(anchor, (value.clone(), size));
        }
        let is_document = self.open.len() == 1;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Ok(());
        };
        open.size.values += size.values;
        open.size.bytes += size.bytes;
        open.size.depth = open.size.depth.max(size.depth);
        match &mut open.content {
            Content::List { kept, number, is_items } => {
                *number += 1;
                let value = if *is_items { self.items.take(value) } else { Some(value) };
                if value.is_none() {
                    self.values -= size.values;
                }
                kept.extend(value);
            }
            Content::Object { fields, next, merged } => match std::mem::replace(next, Next::Key) {
                Next::Key => {
                    let key = key_of(value)?;
                    if is_document && key == ITEMS {
                        self.items.begin();
                    }
                    *next = Next::Value(key);
                }
                Next::Value(key) => match fields.entry(key) {
                    Entry::Vacant(field) => {
                        field.insert(value);
                    }
                    Entry::Occupied(mut field) => {
                        field.insert(value);
                        if !*merged {
                            let key = field.key().clone();
                            self.duplicate(key);
                        }
                    }
                },
                Next::Merged => {
                    *merged = true;
                    if merge(fields, value)? && is_document {
                        self.items.begin();
                    }
                }
            },
        }
        Ok(())
    }

    /// Notes that a key of the innermost object was there before.
    fn duplicate(&mut self, key: String) {
        if self.duplicates.len() >= NAMED {
            return;
        }
        let outer = self.open.iter().take(self.open.len() - 1);
        let outer = outer.map(|open| match &open.content {
            Content::List { number, .. } => Step::Item(*number),
            Content::Object { next: Next::Value(key), .. } => Step::Key(key.clone()),
            Content::Object { .. } => Step::Key("<<".to_owned()),
        });
        let steps: Vec<Step> = outer.chain([Step::Key(key)]).collect();
        self.duplicates.push(path(&steps));
    }
}

fn value_of(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match (tag, style) {
        (None, ScalarStyle::Plain) => scalar::plain(text),
        (None, _) => Ok(text.into()),
        (Some(tag), _) => match tag.core_suffix() {
            Some(kind) => scalar::tagged(kind, text),
            None => Ok(text.into()),
        },
    }
}

/// A key as text. JSON has no others.
fn key_of(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => Err("null is no key".to_owned()),
        Value::Array(_) | Value::Object(_) => Err("a list or an object is no key".to_owned()),
    }
}

/// Puts the fields of an object, or of each in a list, over those that are there. The first one of a
/// list comes last. Whether `items` is among them.
fn merge(fields: &mut Map<String, Value>, value: Value) -> Result<bool, String> {
    let objects = match value {
        Value::Array(objects) => objects,
        object => vec![object],
    };
    let mut items = false;
    for object in objects.into_iter().rev() {
        let Value::Object(object) = object else {
            return Err("<< needs an object, or a list of objects".to_owned());
        };
        items |= object.contains_key(ITEMS);
        fields.extend(object);
    }
    Ok(items)
}
