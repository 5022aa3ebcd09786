//! Deserialising that does not lose an object because one of its fields has an odd type.
//!
//! A derived `Deserialize` gives up the whole object, and with it the whole list, at the first
//! field of a wrong type. [`Lenient`] takes any value and remembers what was wrong, so that the
//! conversion can leave out that part and say so.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Report;

/// Longest piece of a wrong value that is quoted in a warning.
const QUOTED: usize = 40;

/// A field that may be absent (or null, which Kubernetes treats alike) or of a wrong type.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Lenient<T> {
    #[default]
    Absent,
    Is(T),
    /// What was found instead.
    Wrong(Box<str>),
}

impl<T: Shape> Lenient<T> {
    /// The value if there is one, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<Option<T>, String> {
        match self {
            Self::Is(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Wrong(found) => Err(format!("must be {}, found {found}", T::WANTED)),
        }
    }

    /// The value; one of a wrong type is reported under the field's name and counts as absent.
    pub(crate) fn take(self, field: impl fmt::Display, report: &mut Report<'_>) -> Option<T> {
        self.checked().unwrap_or_else(|why| {
            report.warn(format_args!("{field} {why}; it is ignored"));
            None
        })
    }

    /// The value, if it is there and of the right type.
    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }
}

impl<T: Shape + Default> Lenient<T> {
    /// As [`Self::take`], with the default where there is no value.
    pub(crate) fn or_default(self, field: impl fmt::Display, report: &mut Report<'_>) -> T {
        self.take(field, report).unwrap_or_default()
    }
}

/// A type that knows which JSON values it accepts. What is not overridden is refused.
pub(crate) trait Shape: Sized {
    /// "text", "a number", ...
    const WANTED: &'static str;

    fn from_text(_: &str) -> Option<Self> {
        None
    }
    fn from_number(_: i64) -> Option<Self> {
        None
    }
    fn from_flag(_: bool) -> Option<Self> {
        None
    }
    fn from_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn from_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl Shape for Box<str> {
    const WANTED: &'static str = "text";
    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl Shape for i64 {
    const WANTED: &'static str = "a whole number";
    fn from_number(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Shape for bool {
    const WANTED: &'static str = "true or false";
    fn from_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

impl<T: Shape> Shape for Vec<Lenient<T>> {
    const WANTED: &'static str = "a list";
    fn from_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        // The size hint comes from the input; growing as elements arrive needs no trust.
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Some(elements))
    }
}

/// Reads a struct all of whose fields are lenient.
pub(crate) fn object<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    map: A,
) -> Result<Option<T>, A::Error> {
    T::deserialize(MapAccessDeserializer::new(map)).map(Some)
}

/// Makes structs of lenient fields a [`Shape`].
macro_rules! objects {
    ($($name:ty),* $(,)?) => { $(
        impl $crate::source::objects::lenient::Shape for $name {
            const WANTED: &'static str = "an object";
            fn from_object<'de, A: serde::de::MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
                $crate::source::objects::lenient::object(map)
            }
        }
    )* };
}
pub(crate) use objects;

impl<'de, T: Shape> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue(PhantomData))
    }
}

struct AnyValue<T>(PhantomData<T>);

impl<T: Shape> AnyValue<T> {
    fn accept(value: Option<T>, found: impl fmt::Display) -> Lenient<T> {
        value.map_or_else(|| Lenient::Wrong(found.to_string().into()), Lenient::Is)
    }
}

impl<'de, T: Shape> Visitor<'de> for AnyValue<T> {
    type Value = Lenient<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient::Absent)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Lenient::Absent)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Self::accept(T::from_flag(flag), flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Self::accept(T::from_number(number), format_args!("the number {number}")))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        let value = i64::try_from(number).ok().and_then(T::from_number);
        Ok(Self::accept(value, format_args!("the number {number}")))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Self::accept(None, format_args!("the number {number}")))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Self::accept(T::from_text(text), format_args!("the text {}", quote(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Ok(Self::accept(T::from_list(list)?, "a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(Self::accept(T::from_object(map)?, "an object"))
    }
}

/// Text from an object as it may stand in a log line: quoted, escaped, cut.
pub(crate) fn quote(text: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| match text.char_indices().nth(QUOTED) {
        None => write!(f, "{text:?}"),
        Some((end, _)) => write!(f, "{:?}...", &text[..end]),
    })
}
