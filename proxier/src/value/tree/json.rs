//! JSON text as a tree.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::map::{Entry, Map};

use super::{
    DEPTH, Error, ITEMS, Items, MOST_VALUES, NAMED, Step, Tree, path, too_deep, too_many, whole,
};

/// Reads the value that a text begins with; how far was read, whether or not that went well.
pub(crate) fn read(text: &str, items: &mut dyn Items) -> (Result<Tree, Error>, usize) {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut reader = Reader { items, depth: 0, duplicates: Vec::new(), values: 0 };
    let value = Place { reader: &mut reader, of_document: true, is_items: false };
    let value = value.deserialize(&mut json);
    let duplicates = reader.duplicates.iter().map(|steps| path(steps.iter().rev())).collect();
    let length = json.into_iter::<IgnoredAny>().byte_offset();
    let tree = match value {
        Ok(value) => Ok(Tree { value, duplicates, followed: false }),
        Err(error) => Err(Error { line: Some(error.line().max(1)), text: without_place(&error) }),
    };
    (tree, length)
}

/// Without the place that `serde_json` appends.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]).to_owned()
}

struct Reader<'i> {
    items: &'i mut dyn Items,
    /// Lists and objects around what is being read.
    depth: usize,
    /// Where keys are there twice, from the inside to the outside.
    duplicates: Vec<Vec<Step>>,
    values: usize,
}

impl Reader<'_> {
    fn count<E: de::Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values > MOST_VALUES { Err(E::custom(too_many())) } else { Ok(()) }
    }

    /// Says where the duplicates are that were found in a part, if there are any: `from` on.
    fn are_in(&mut self, from: usize, step: impl FnOnce() -> Step) {
        if let Some(found) = self.duplicates.get_mut(from..).filter(|found| !found.is_empty()) {
            let step = step();
            for steps in found {
                steps.push(step.clone());
            }
        }
    }
}

/// Where the next value belongs.
struct Place<'r, 'i> {
    reader: &'r mut Reader<'i>,
    /// It is the document.
    of_document: bool,
    /// It is `items` of the document.
    is_items: bool,
}

impl<'r, 'i> Place<'r, 'i> {
    fn inner(reader: &'r mut Reader<'i>) -> Self {
        Place { reader, of_document: false, is_items: false }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.reader.depth > DEPTH {
            return Err(de::Error::custom(too_deep()));
        }
        self.reader.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(whole(value).unwrap_or_default())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let Self { reader, is_items, .. } = self;
        reader.depth += 1;
        let mut kept = Vec::new();
        for number in 0.. {
            let (values, duplicates) = (reader.values, reader.duplicates.len());
            let Some(item) = list.next_element_seed(Place::inner(reader))? else { break };
            reader.are_in(duplicates, || Step::Item(number));
            let item = if is_items { reader.items.take(item) } else { Some(item) };
            match item {
                Some(item) => kept.push(item),
                None => reader.values = values,
            }
        }
        reader.depth -= 1;
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let Self { reader, of_document, .. } = self;
        reader.depth += 1;
        let mut fields = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            reader.count()?;
            let duplicates = reader.duplicates.len();
            let is_items = of_document && key == ITEMS;
            if is_items {
                reader.items.begin();
            }
            let place = Place { reader, of_document: false, is_items };
            let value = object.next_value_seed(place)?;
            reader.are_in(duplicates, || Step::Key(key.clone()));
            match fields.entry(key) {
                Entry::Vacant(field) => _ = field.insert(value),
                Entry::Occupied(mut field) => {
                    if reader.duplicates.len() < NAMED {
                        reader.duplicates.push(vec![Step::Key(field.key().clone())]);
                    }
                    field.insert(value);
                }
            }
        }
        reader.depth -= 1;
        Ok(Value::Object(fields))
    }
}
