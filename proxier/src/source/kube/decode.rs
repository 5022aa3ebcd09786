//! Events and list pages as the API server writes them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::bounds::{self, Excess, ITEMS};
use super::failure::{ApiStatus, Failure};
use crate::source::objects::{Lenient, Shape, quote, raw};

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// An object was added or modified.
    Put(T),
    /// An object is gone; this was its last state.
    Gone(T),
    /// An object, or its last state, is so huge that only its metadata was read.
    Huge { metadata: Box<Lenient<raw::Metadata>>, gone: bool },
    /// How far the server has come.
    Bookmark {
        resource_version: String,
        /// The objects that existed at the start of the watch have all been sent.
        initial_end: bool,
    },
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Shape"))]
struct Line<T> {
    #[serde(rename = "type", default)]
    kind: String,
    // Without the attribute serde would ask for `T: Default`.
    #[serde(default = "absent")]
    object: Lenient<T>,
}

fn absent<T>() -> Lenient<T> {
    Lenient::Absent
}

/// What is read of an object that is huge.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    metadata: Lenient<raw::Metadata>,
}

/// What a bookmark carries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Marker {
    metadata: MarkerMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MarkerMetadata {
    resource_version: String,
    annotations: MarkerAnnotations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MarkerAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_end: String,
}

/// One page of a list. Its objects are decoded one by one, so that never more than one is there in
/// that form.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default, borrow)]
    items: Items<'a>,
}

#[derive(Default)]
struct Items<'a> {
    items: Vec<&'a RawValue>,
    /// There were more than are read.
    excess: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// A page that is certain to be one.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) items: Vec<&'a RawValue>,
    pub(super) resource_version: String,
    /// Token of the next page; empty on the last one.
    pub(super) next: String,
}

/// Decodes a line.
pub(super) fn event<T>(line: &[u8]) -> Result<Event<T>, Failure>
where
    T: DeserializeOwned + Shape,
{
    let garbage = |what: &str| Failure::Garbage(format!("{what}: {}", excerpt(line)));
    if bounds::is_huge(line) {
        let Line { kind, object } = tolerant::<Line<Named>>(line)?;
        return match (kind.as_str(), object) {
            ("ADDED" | "MODIFIED" | "DELETED", Lenient::Is(Named { metadata })) => {
                Ok(Event::Huge { metadata: metadata.into(), gone: kind == "DELETED" })
            }
            _ => Err(garbage("an event that cannot be understood")),
        };
    }
    let Line { kind, object } = tolerant::<Line<T>>(line)?;
    match (kind.as_str(), object) {
        ("ADDED" | "MODIFIED", Lenient::Is(object)) => Ok(Event::Put(object)),
        ("DELETED", Lenient::Is(object)) => Ok(Event::Gone(object)),
        ("BOOKMARK", _) => {
            let marker: Line<Marker> = tolerant(line)?;
            let Lenient::Is(Marker { metadata }) = marker.object else {
                return Err(garbage("a bookmark without an object"));
            };
            if metadata.resource_version.is_empty() {
                return Err(garbage("a bookmark without a resource version"));
            }
            Ok(Event::Bookmark {
                resource_version: metadata.resource_version,
                initial_end: metadata.annotations.initial_end == "true",
            })
        }
        ("ERROR", _) => {
            let status: Line<ApiStatus> = tolerant(line)?;
            let Lenient::Is(status) = status.object else {
                return Err(garbage("an error without a status"));
            };
            Err(Failure::from_status(status, None))
        }
        _ => Err(garbage("an event that cannot be understood")),
    }
}

/// Decodes a list page but for its items. An answer that merely looks empty (an error page, `{}`) is
/// not one: the kind and the resource version have to be there.
pub(super) fn page(body: &[u8]) -> Result<Page<'_>, Failure> {
    let page: RawPage<'_> = serde_json::from_slice(body)
        .map_err(|error| Failure::Garbage(format!("{error}: {}", excerpt(body))))?;
    if !page.kind.ends_with("List") || page.metadata.resource_version.is_empty() {
        return Err(Failure::Garbage(format!("an answer that is no list: {}", excerpt(body))));
    }
    if page.items.excess {
        return Err(Failure::Excess(Excess::Items));
    }
    let ListMetadata { resource_version, next } = page.metadata;
    Ok(Page { items: page.items.items, resource_version, next })
}

/// Decodes an object of a list page, as if it had been added.
pub(super) fn item<T: DeserializeOwned + Shape>(item: &RawValue) -> Result<Event<T>, Failure> {
    let text = item.get().as_bytes();
    let event = if bounds::is_huge(text) {
        match tolerant(text)? {
            Lenient::Is(Named { metadata }) => {
                Some(Event::Huge { metadata: metadata.into(), gone: false })
            }
            _ => None,
        }
    } else {
        match tolerant(text)? {
            Lenient::Is(object) => Some(Event::Put(object)),
            _ => None,
        }
    };
    event.ok_or_else(|| Failure::Garbage("a list with items that are no objects".into()))
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    /// Go writes a list of nothing as null when it was never allocated.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Items::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut read = Items::default();
        while let Some(item) = list.next_element()? {
            read.excess |= read.items.len() >= ITEMS;
            if !read.excess {
                read.items.push(item);
            }
        }
        Ok(read)
    }
}

/// Longest text for which the second way of [`tolerant`] is tried: it needs many times the memory.
const TOLERATED: usize = 1 << 20;

/// Decodes JSON. A second way, which takes the last of two equal keys, is for objects that the
/// first one refuses for that.
fn tolerant<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if first.is_data()
        && text.len() <= TOLERATED
        && let Ok(value) = serde_json::from_slice::<serde_json::Value>(text)
        && let Ok(value) = serde_json::from_value(value)
    {
        return Ok(value);
    }
    Err(Failure::Garbage(format!("{first}: {}", excerpt(text))))
}

fn excerpt(text: &[u8]) -> String {
    quote(&String::from_utf8_lossy(&text[..text.len().min(200)])).to_string()
}

macro_rules! shapes {
    ($($name:ty),*) => { $(
        impl Shape for $name {
            const WANTED: &'static str = "an object";
            fn from_object<'de, A: serde::de::MapAccess<'de>>(map: A) -> Result<Option<Self>, A::Error> {
                crate::source::objects::object(map)
            }
        }
    )* };
}
shapes!(Marker, Named, ApiStatus);

/// The resource version of an object, for continuing after it.
pub(super) fn resource_version(metadata: &Lenient<raw::Metadata>) -> Option<&str> {
    metadata.get()?.resource_version.get().map(|version| &**version).filter(|v| !v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Event<raw::Service>, Failure> {
        event(line.as_bytes())
    }

    #[test]
    fn events() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}"#;
        let Ok(Event::Put(service)) = read(line) else { panic!() };
        assert_eq!(resource_version(&service.metadata), Some("7"));
        assert!(matches!(read(&line.replace("ADDED", "DELETED")), Ok(Event::Gone(_))));
        // The object may come before the type.
        assert!(matches!(
            read(r#"{"object":{"metadata":{}},"type":"MODIFIED"}"#),
            Ok(Event::Put(_))
        ));
        // A key twice is no reason to lose an object.
        let twice =
            r#"{"type":"ADDED","object":{"metadata":{"name":"a"},"metadata":{"name":"b"}}}"#;
        let Ok(Event::Put(service)) = read(twice) else { panic!() };
        assert_eq!(service.metadata.get().unwrap().name.get().map(|n| &**n), Some("b"));
    }

    #[test]
    fn bookmarks() {
        let line = r#"{"type":"BOOKMARK","object":{"kind":"Service","metadata":{"resourceVersion":"9",
            "annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let Ok(Event::Bookmark { resource_version, initial_end: true }) = read(line) else {
            panic!()
        };
        assert_eq!(resource_version, "9");
        let plain = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert!(matches!(read(plain), Ok(Event::Bookmark { initial_end: false, .. })));
        let empty = r#"{"type":"BOOKMARK","object":{"metadata":{}}}"#;
        assert!(matches!(read(empty), Err(Failure::Garbage(_))));
    }

    #[test]
    fn errors_and_garbage() {
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#;
        assert!(matches!(read(gone), Err(Failure::Gone(_))));
        let other = r#"{"type":"ERROR","object":{"code":500,"message":"broken"}}"#;
        assert!(matches!(read(other), Err(Failure::Refused { code: 500, .. })));
        for line in [
            "",
            "{",
            "[]",
            "nonsense",
            "{}",
            r#"{"type":"ADDED"}"#,
            r#"{"type":"ADDED","object":5}"#,
        ] {
            assert!(matches!(read(line), Err(Failure::Garbage(_))), "{line:?}");
        }
    }

    #[test]
    fn only_a_real_list_is_a_list() {
        let read = |body: &'static str| page(body.as_bytes());
        let empty = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3"},"items":null}"#;
        assert!(read(empty).is_ok_and(|page| page.items.is_empty() && page.next.is_empty()));
        let more = r#"{"items":[{}, {"spec":7}],"kind":"ServiceList","metadata":{"resourceVersion":"3","continue":"x"}}"#;
        let more = read(more).unwrap();
        assert_eq!((more.items.len(), &*more.next), (2, "x"));
        assert!(more.items.into_iter().all(|raw| item::<raw::Service>(raw).is_ok()));
        for body in [
            "",
            "{}",
            "[]",
            r#"{"items":[]}"#,
            r#"{"kind":"ServiceList","items":[]}"#,
            r#"{"kind":"Status","metadata":{"resourceVersion":"3"}}"#,
            r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3"},"items":7}"#,
            r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3"},"items":[{"#,
        ] {
            assert!(matches!(read(body), Err(Failure::Garbage(_))), "{body:?}");
        }
        let odd = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3"},"items":[7]}"#;
        let odd = item::<raw::Service>(read(odd).unwrap().items[0]);
        assert!(matches!(odd, Err(Failure::Garbage(_))));
    }

    #[test]
    fn a_page_of_endless_objects_is_refused() {
        let page_of = |count: usize| {
            let items = "{},".repeat(count - 1);
            format!(
                r#"{{"kind":"ServiceList","metadata":{{"resourceVersion":"3"}},"items":[{items}{{}}]}}"#
            )
        };
        assert_eq!(page(page_of(ITEMS).as_bytes()).unwrap().items.len(), ITEMS);
        let failure = page(page_of(ITEMS + 1).as_bytes()).unwrap_err();
        assert!(matches!(failure, Failure::Excess(Excess::Items)), "{failure}");
    }

    #[test]
    fn of_an_object_of_endless_entries_only_the_metadata_is_read() {
        let ports = "{},".repeat(200_000);
        let object = format!(r#"{{"spec":{{"ports":[{ports}{{}}]}},"metadata":{{"name":"a"}}}}"#);
        let page_text = format!(
            r#"{{"kind":"ServiceList","metadata":{{"resourceVersion":"3"}},"items":[{object}]}}"#
        );
        let in_page = item::<raw::Service>(page(page_text.as_bytes()).unwrap().items[0]);
        let in_stream = |kind: &str| read(&format!(r#"{{"type":"{kind}","object":{object}}}"#));
        for (event, was_gone) in
            [(in_page, false), (in_stream("MODIFIED"), false), (in_stream("DELETED"), true)]
        {
            let Ok(Event::Huge { metadata, gone }) = event else { panic!() };
            let name = metadata.get().and_then(|metadata| metadata.name.get());
            assert_eq!((name.map(|name| &**name), gone), (Some("a"), was_gone));
        }
        assert!(matches!(in_stream("WHAT"), Err(Failure::Garbage(_))));
    }
}
