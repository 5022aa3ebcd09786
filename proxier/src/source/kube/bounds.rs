//! What one answer may cost, whoever sends it: bytes, and what they become in memory.
//!
//! An object in etcd has at most 1.5 MiB, which JSON can make six times as long (`<` becomes
//! `\u003c`); an EndpointSlice that the API server accepts has at most 1,000 endpoints of 100 addresses.
//! The bounds are above that, and so low that a list of the smallest entries (`{},` becomes 170
//! bytes) stays below 100 MiB. An object with more entries than that is possible (finalizers of one
//! letter), so it costs nobody but itself: it stays as it was known.

/// Longest object, and longest line of a watch, in bytes.
pub(super) const OBJECT: usize = 16 << 20;
/// Most entries of all lists in one object that is decoded.
pub(super) const ENTRIES: usize = 200_000;
/// A shorter object needs no counting: it cannot have so many entries that they matter.
const UNCOUNTED: usize = 256 << 10;
/// Longest page of a list, in bytes. Where it is longer, smaller pages are asked for.
pub(super) const PAGE: usize = 32 << 20;
/// Most objects in one page, whatever was asked for.
pub(super) const ITEMS: usize = 100_000;
/// Most objects of one kind.
const OBJECTS: usize = 200_000;
/// Pages in a row that are empty and name another page.
pub(super) const EMPTY_PAGES: u32 = 100;
/// Longest refusal, in bytes.
pub(super) const REFUSAL: usize = 64 << 10;

/// Which bound an answer goes beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Excess {
    #[error("an object of more than {} MiB", OBJECT >> 20)]
    Object,
    #[error("a list page of more than {} MiB", PAGE >> 20)]
    Page,
    #[error("a list page of more than {ITEMS} objects")]
    Items,
    #[error("more than {OBJECTS} objects of one kind")]
    Objects,
    #[error("{EMPTY_PAGES} empty list pages in a row")]
    EmptyPages,
    #[error("a refusal of more than {} KiB", REFUSAL >> 10)]
    Refusal,
}

/// Whether an object would need much more memory than a real one when it is decoded.
pub(super) fn is_huge(object: &[u8]) -> bool {
    object.len() > UNCOUNTED && entries(object) > ENTRIES
}

/// Whether a list may have so many objects.
pub(super) fn check_count(objects: usize) -> Result<(), Excess> {
    if objects > OBJECTS { Err(Excess::Objects) } else { Ok(()) }
}

/// The number of entries of all lists in a JSON text, at least.
fn entries(text: &[u8]) -> usize {
    // For each open bracket whether it is that of a list. The parser goes no deeper than 128.
    let mut lists = 0_u128;
    let mut count = 0;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at += string(&text[at..]),
            b'[' => {
                lists = lists << 1 | 1;
                count += 1;
            }
            b'{' => lists <<= 1,
            b']' | b'}' => lists >>= 1,
            b',' if lists & 1 == 1 => count += 1,
            _ => {}
        }
    }
    count
}

/// The length of a string from after its first quote, with the last one.
fn string(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &text[at..]) {
        if text[at + found] == b'"' {
            return at + found + 1;
        }
        at = (at + found + 2).min(text.len());
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_lists_are_counted_and_nothing_else() {
        for (text, count) in [
            ("{}", 0),
            (r#"{"a":1,"b":{"c":2,"d":3}}"#, 0),
            ("[]", 1),
            ("[{},{},{}]", 3),
            (r#"{"a":[1,2],"b":[[1],[2,{"x":[5,6]}]],"c":1}"#, 9),
            (r#"{"a":"[,,,[","b":["\"[,,",",\\"],"c":"\\"}"#, 2),
            (r#"["unfinished, \"#, 1),
        ] {
            assert_eq!(entries(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn an_object_is_huge_by_its_entries() {
        let list = |entry: &str, count: usize| format!("{{\"ports\":[{}]}}", entry.repeat(count));
        assert!(!is_huge(list("{},", ENTRIES - 1).as_bytes()));
        assert!(is_huge(list("{},", ENTRIES).as_bytes()));
        // The largest slice that an API server accepts.
        let endpoint = format!("{{\"addresses\":[{}\"10.0.0.1\"]}},", "\"10.0.0.1\",".repeat(99));
        assert!(!is_huge(list(&endpoint, 1000).as_bytes()));
    }
}
