//! JSON text as a tree.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{DEPTH, Error, MOST_VALUES, NAMED, Step, Tree, path, too_deep, too_many, whole};

/// Reads the value that a text begins with; how far was read, whether or not that went well.
pub(crate) fn read(text: &str) -> (Result<Tree, Error>, usize) {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut reader = Reader::default();
    let value = reader.deserialize(&mut json);
    let length = json.into_iter::<IgnoredAny>().byte_offset();
    let tree = match value {
        Ok(value) => Ok(Tree { value, duplicates: reader.duplicates, followed: false }),
        Err(error) => Err(Error { line: Some(error.line().max(1)), text: without_place(&error) }),
    };
    (tree, length)
}

/// Without the place that `serde_json` appends.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]).to_owned()
}

#[derive(Default)]
struct Reader {
    steps: Vec<Step>,
    duplicates: Vec<String>,
    values: usize,
}

impl Reader {
    fn count<E: de::Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        if self.values > MOST_VALUES { Err(E::custom(too_many())) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.steps.len() > DEPTH {
            return Err(de::Error::custom(too_deep()));
        }
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader {
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
        let mut items = Vec::new();
        loop {
            self.steps.push(Step::Item(items.len()));
            let item = list.next_element_seed(&mut *self)?;
            self.steps.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            self.count()?;
            self.steps.push(Step::Key(key.clone()));
            let value = object.next_value_seed(&mut *self)?;
            if fields.insert(key, value).is_some() && self.duplicates.len() < NAMED {
                self.duplicates.push(path(&self.steps));
            }
            self.steps.pop();
        }
        Ok(Value::Object(fields))
    }
}
