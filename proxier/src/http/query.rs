//! What of the services is asked for, in the part of an address after `?`.

use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;

/// Bytes of a search text.
const SEARCH: usize = 100;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) search: String,
    /// From 1.
    pub(super) page: usize,
}

// === impl Query ===

impl Query {
    /// From the part of the address after `?`. What makes no sense is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self { page: 1, ..Self::default() };
        for pair in text.split('&') {
            match pair.split_once('=') {
                Some(("q", value)) => {
                    let mut value = decoded(value).trim().to_owned();
                    value.truncate(value.floor_char_boundary(SEARCH));
                    query.search = value;
                }
                Some(("page", value)) => query.page = value.parse().unwrap_or(1).max(1),
                _ => {}
            }
        }
        query
    }

    /// Whether a service is asked for: by a part of its name or of one of its addresses.
    pub(super) fn matches(&self, key: &ObjectKey, contribution: &Contribution) -> bool {
        if self.search.is_empty() {
            return true;
        }
        let search = self.search.to_lowercase();
        key.to_string().contains(&search)
            || contribution.frontends.iter().any(|frontend| {
                frontend.key.to_string().contains(&search)
                    || frontend
                        .server
                        .real_servers
                        .iter()
                        .any(|real| real.key.address.to_string().contains(&search))
            })
    }
}

/// As a form writes values into an address.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = match (first, tail) {
            (b'%', [a, b, ..]) => std::str::from_utf8(&[*a, *b])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        match (first, code) {
            (_, Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (other, None) => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
