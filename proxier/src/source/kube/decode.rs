//! Events and list pages as the API server writes them.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use crate::source::objects::{Lenient, Shape, quote, raw};

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// An object was added or modified.
    Put(T),
    /// An object is gone; this was its last state.
    Gone(T),
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

/// `meta/v1.Status`, in which the server describes a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiStatus {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
}

impl ApiStatus {
    /// From the body of a refusal, which need not be one.
    pub(super) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

/// One page of a list.
#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Shape"))]
struct RawPage<T> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default = "absent_list")]
    items: Lenient<Vec<Lenient<T>>>,
}

fn absent_list<T>() -> Lenient<Vec<Lenient<T>>> {
    Lenient::Absent
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// A page that is certain to be one.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) resource_version: String,
    /// Token of the next page; empty on the last one.
    pub(super) next: String,
}

/// Decodes a line.
pub(super) fn event<T>(line: &[u8]) -> Result<Event<T>, Failure>
where
    T: DeserializeOwned + Shape,
{
    let Line { kind, object } = tolerant::<Line<T>>(line)?;
    let garbage = |what: &str| Failure::Garbage(format!("{what}: {}", excerpt(line)));
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

/// Decodes a list page. An answer that merely looks empty (an error page, `{}`) is not one: the
/// kind and the resource version have to be there.
pub(super) fn page<T>(body: &[u8]) -> Result<Page<T>, Failure>
where
    T: DeserializeOwned + Shape,
{
    let page = tolerant::<RawPage<T>>(body)?;
    let is_list = page.kind.ends_with("List") && !page.metadata.resource_version.is_empty();
    let items = match page.items {
        Lenient::Is(items) => items,
        // Go writes a list of nothing as null when it was never allocated.
        Lenient::Absent => Vec::new(),
        Lenient::Wrong(_) => return Err(Failure::Garbage("a list without items".into())),
    };
    if !is_list {
        return Err(Failure::Garbage(format!("an answer that is no list: {}", excerpt(body))));
    }
    let items = items
        .into_iter()
        .map(|item| match item {
            Lenient::Is(item) => Ok(item),
            _ => Err(Failure::Garbage("a list with items that are no objects".into())),
        })
        .collect::<Result<_, _>>()?;
    Ok(Page { items, resource_version: page.metadata.resource_version, next: page.metadata.next })
}

/// Decodes JSON. A second way, which takes the last of two equal keys, is for objects that the
/// first one refuses for that.
fn tolerant<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if first.is_data()
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
shapes!(Marker, ApiStatus);

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
        let read = |body: &str| page::<raw::Service>(body.as_bytes());
        let empty = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3"},"items":null}"#;
        assert!(read(empty).is_ok_and(|page| page.items.is_empty() && page.next.is_empty()));
        let more = r#"{"kind":"ServiceList","metadata":{"resourceVersion":"3","continue":"x"},"items":[{}, {"spec":7}]}"#;
        assert!(read(more).is_ok_and(|page| page.items.len() == 2 && page.next == "x"));
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
    }
}
