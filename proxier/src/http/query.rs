//! What of the services is asked for, in the part of an address after `?`.

use std::fmt::{self, Display, Write as _};

use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;

/// Bytes of a search text, and of a name.
const LONGEST: usize = 100;
/// Services that are shown in full at once.
const OPEN: usize = 5;
/// Seconds between two looks, where nobody says otherwise, and at most.
const REFRESH: (u8, u8) = (5, 60);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) search: String,
    /// Of this namespace alone, if there is one.
    pub(super) namespace: String,
    pub(super) only: Option<Only>,
    pub(super) sort: Sort,
    /// The other way round.
    pub(super) reversed: bool,
    /// From 1.
    pub(super) page: usize,
    /// Services that are shown in full: `namespace/name`.
    pub(super) open: Vec<String>,
    /// Seconds after which a page asks again; 0 is never.
    pub(super) refresh: u8,
}

/// Services that are asked for by how they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Problem,
    NoEndpoints,
    Draining,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// Those with a problem.
    #[default]
    Problem,
    Name,
    /// Those with the fewest.
    Endpoints,
    /// The busiest.
    Connections,
    Bytes,
}

/// The value of a form's field in an address.
struct Encoded<'a>(&'a str);

// === impl Only ===

impl Only {
    pub(super) const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Problem, "problem", "with a problem"),
        (Self::NoEndpoints, "no-endpoints", "without endpoints"),
        (Self::Draining, "draining", "draining"),
    ];

    /// As it is written in an address.
    pub(super) fn word(self) -> &'static str {
        let word = |(only, word, _): &(Self, &'static str, _)| (*only == self).then_some(*word);
        Self::ALL.iter().find_map(word).unwrap_or_default()
    }
}

// === impl Sort ===

impl Sort {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Problem, "problem"),
        (Self::Name, "name"),
        (Self::Endpoints, "endpoints"),
        (Self::Connections, "connections"),
        (Self::Bytes, "bytes"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(sort, _)| *sort == self).map(|(_, word)| *word).unwrap_or_default()
    }

    /// Whether the largest come first.
    pub(super) fn descends(self) -> bool {
        matches!(self, Self::Connections | Self::Bytes)
    }
}

// === impl Query ===

impl Default for Query {
    fn default() -> Self {
        Self {
            search: String::new(),
            namespace: String::new(),
            only: None,
            sort: Sort::default(),
            reversed: false,
            page: 1,
            open: Vec::new(),
            refresh: REFRESH.0,
        }
    }
}

impl Query {
    /// From the part of the address after `?`. What makes no sense is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decoded(value);
            match name {
                "q" => query.search = cut(value.trim(), LONGEST),
                "namespace" => query.namespace = cut(&value, LONGEST),
                "only" => {
                    let named = Only::ALL.into_iter().find(|(_, word, _)| *word == value);
                    query.only = named.map(|(only, ..)| only);
                }
                "sort" => {
                    let (reversed, word) =
                        value.strip_prefix('-').map_or((false, &*value), |word| (true, word));
                    let named = Sort::ALL.into_iter().find(|(_, name)| *name == word);
                    if let Some((sort, _)) = named {
                        (query.sort, query.reversed) = (sort, reversed);
                    }
                }
                "page" => query.page = value.parse().unwrap_or(1).max(1),
                "open" if query.open.len() < OPEN => query.open.push(cut(&value, 3 * LONGEST)),
                "refresh" => {
                    query.refresh = value.parse().unwrap_or(REFRESH.0).min(REFRESH.1);
                }
                _ => {}
            }
        }
        query
    }

    /// The address of the page that this asks for.
    pub(super) fn address(&self) -> String {
        let mut fields = self.fields();
        fields.push(("page", if self.page > 1 { self.page.to_string() } else { String::new() }));
        let mut out = "/status".to_owned();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            let start = if out.contains('?') { "&amp;" } else { "?" };
            // Writing to a string does not fail.
            let _ = write!(out, "{start}{name}={}", Encoded(value));
        }
        out
    }

    /// All of it but the page, as the fields of a form; what is not said is empty.
    pub(super) fn fields(&self) -> Vec<(&'static str, String)> {
        let sort = format!("{}{}", if self.reversed { "-" } else { "" }, self.sort.word());
        let is_default = self.sort == Sort::default() && !self.reversed;
        let refresh = Some(self.refresh).filter(|seconds| *seconds != REFRESH.0);
        let mut fields = vec![
            ("q", self.search.clone()),
            ("namespace", self.namespace.clone()),
            ("only", self.only.map(Only::word).unwrap_or_default().to_owned()),
            ("sort", if is_default { String::new() } else { sort }),
            ("refresh", refresh.map(|seconds| seconds.to_string()).unwrap_or_default()),
        ];
        fields.extend(self.open.iter().map(|name| ("open", name.clone())));
        fields
    }

    /// The same on another page.
    pub(super) fn at(&self, page: usize) -> Self {
        Self { page, ..self.clone() }
    }

    /// Sorted so, or the other way round if it is already.
    pub(super) fn sorted(&self, sort: Sort) -> Self {
        let reversed = self.sort == sort && !self.reversed;
        Self { sort, reversed, page: 1, ..self.clone() }
    }

    pub(super) fn is_open(&self, key: &str) -> bool {
        self.open.iter().any(|name| name == key)
    }

    /// With this service shown in full, or no longer. The latest are kept.
    pub(super) fn toggled(&self, key: &str) -> Self {
        let mut open = self.open.clone();
        if self.is_open(key) {
            open.retain(|name| name != key);
        } else {
            open.drain(..open.len().saturating_sub(OPEN - 1));
            open.push(key.to_owned());
        }
        Self { open, ..self.clone() }
    }

    /// Whether a service is asked for by its namespace and by a part of its name or of one of its addresses.
    pub(super) fn matches(&self, key: &ObjectKey, contribution: &Contribution) -> bool {
        if !self.namespace.is_empty() && key.namespace() != self.namespace {
            return false;
        }
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

impl Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_is_asked_for() {
        for text in [
            "/status",
            "/status?q=a%20b%26c%3D%22%C3%A9%2F&amp;namespace=dev&amp;only=draining&amp;sort=-bytes&amp;page=3",
            "/status?sort=endpoints&amp;refresh=0&amp;open=dev%2Fweb&amp;open=dev%2Fapi",
            "/status?sort=-problem",
        ] {
            let query = text.split_once('?').map_or("", |(_, query)| query).replace("&amp;", "&");
            assert_eq!(Query::parse(&query).address(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let nonsense = "only=x&sort=up&page=0&page=-3&refresh=99&x=y&&=&open";
        assert_eq!(Query::parse(nonsense), Query { refresh: 60, ..Query::default() });
        let many: Vec<String> = (0..9).map(|n| format!("open=a%2F{n}")).collect();
        let many = many.join("&");
        assert_eq!(Query::parse(&many).open.len(), OPEN);
        let toggled = Query::parse(&many).toggled("b/new");
        assert_eq!((toggled.open.len(), toggled.is_open("b/new")), (OPEN, true));
        assert!(!toggled.toggled("b/new").is_open("b/new"));
    }

    #[test]
    fn a_second_click_sorts_the_other_way_round() {
        let once = Query::default().at(7).sorted(Sort::Bytes);
        assert_eq!((once.sort, once.reversed, once.page), (Sort::Bytes, false, 1));
        assert!(once.sorted(Sort::Bytes).reversed && !once.sorted(Sort::Name).reversed);
    }
}
