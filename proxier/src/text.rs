//! Text that others wrote, on its way to people: terminals, log lines, Events, pages.
//!
//! Names, error texts of servers, words of programs and arguments may contain anything. Whatever is
//! shown passes one of these functions, all of which have the same idea of what may be shown.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display, Write};

/// Bytes that are shown of a name. Kubernetes allows 253.
const NAME: usize = 256;
/// Bytes that are shown of an error with its causes.
const ERROR: usize = 2048;
/// Bytes that are shown of a whole field or line.
const LINE: usize = 4096;

/// Shows a value without what a terminal, a reader of lines or an eye would take for something else:
/// control characters, line ends, changes of direction, invisible characters. They are shown as Rust
/// writes them in a literal (`\n`, `\u{202e}`). What is too long is cut.
///
/// Text that has passed it once passes it again unchanged.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T> {
    value: T,
    most: usize,
}

/// Makes what is written through it printable.
struct Escaping<W> {
    out: W,
    left: usize,
    cut: usize,
}

/// The name of something.
pub fn name<T: Display>(value: T) -> Printable<T> {
    Printable { value, most: NAME }
}

/// A whole field or line.
pub fn line<T: Display>(value: T) -> Printable<T> {
    Printable { value, most: LINE }
}

/// A JSON document with the same meaning in which every character may be shown.
pub fn json(document: &str) -> Cow<'_, str> {
    if document.is_ascii() && !document.contains('\u{7f}') {
        return document.into();
    }
    let mut out = String::with_capacity(document.len());
    for c in document.chars() {
        // All before it is either escaped already or white space of the document itself.
        if c < '\u{7f}' || is_printable(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out.into()
}

/// An error and its causes as one line that may be shown.
pub fn chain(error: &dyn Error) -> String {
    Printable { value: causes(error), most: ERROR }.to_string()
}

/// An error and its causes as they are. What a cause repeats, as some libraries do, is left out, and
/// so are links to the documentation of libraries.
pub fn causes(error: &dyn Error) -> String {
    let mut text = without_links(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = without_links(&cause.to_string());
        if !tells(&text, &cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The first of them, and how many more there are: `a, b and 3 more`.
pub fn few<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let first: Vec<String> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    and_more(&first.join(", "), items.count())
}

/// `1 service`, `2 services`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `512 B`, `1.5 KiB`
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = count.saturating_mul(10) / 1024;
    let mut units = units.into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1024, next);
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `1,234,567`
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `a, b or c`.
pub fn any_of(items: impl IntoIterator<Item = String>) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    match (items.pop(), items.is_empty()) {
        (None, _) => String::new(),
        (Some(only), true) => only,
        (Some(last), false) => format!("{} or {last}", items.join(", ")),
    }
}

/// `a, b and 3 more`.
pub fn and_more(first: &str, more: usize) -> String {
    if more == 0 { first.to_owned() } else { format!("{first} and {more} more") }
}

/// How many letters, case aside, have to be changed, or swapped with the next one, to make the one name of
/// the other; nothing if these are too many for a slip.
pub fn edits(name: &str, other: &str) -> Option<usize> {
    let edits = strsim::osa_distance(&name.to_ascii_lowercase(), &other.to_ascii_lowercase());
    Some(edits).filter(|edits| *edits <= 2.min(other.len() / 3))
}

/// Whether a text already has this as one of the parts between its colons.
fn tells(text: &str, part: &str) -> bool {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(": ");
    let begins = |at: usize| at == 0 || text[..at].ends_with(": ");
    text.match_indices(part).any(|(at, _)| begins(at) && ends(&text[at + part.len()..]))
        || text.ends_with(part)
}

/// For those who use a library, not for those who use this program.
fn without_links(text: &str) -> String {
    let Some((before, link)) = text.split_once("https://docs.rs/") else { return text.to_owned() };
    let after = link.find(char::is_whitespace).map_or("", |end| &link[end..]);
    let before = before.trim_end_matches([' ', ':', ',']).trim_end_matches(" see");
    format!("{}{after}", before.trim_end_matches([' ', ':', ',']))
}

/// Whether an eye sees this character, and no program obeys it.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Letters that are blank: fillers of Hangul, and the empty pattern of Braille.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}' => false,
        // The standard library knows which are control, format, unassigned, or join the one before.
        c => c.escape_debug().len() == 1,
    }
}

// === impl Printable ===

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Escaping { out: &mut *f, left: self.most, cut: 0 };
        write!(out, "{}", self.value)?;
        match out.cut {
            0 => Ok(()),
            cut => write!(f, "... ({cut} more bytes)"),
        }
    }
}

// === impl Escaping ===

impl<W: Write> Escaping<W> {
    /// Writes something that is not to be taken apart.
    fn put(&mut self, text: &str, of: usize) -> fmt::Result {
        if self.cut > 0 || text.len() > self.left {
            self.cut += of;
            return Ok(());
        }
        self.left -= text.len();
        self.out.write_str(text)
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while !text.is_empty() {
            let plain = text.find(|c| !is_printable(c)).unwrap_or(text.len());
            let fits = text.floor_char_boundary(plain.min(self.left));
            self.put(&text[..fits], fits)?;
            if fits < plain {
                self.cut += text.len() - fits;
                return Ok(());
            }
            text = &text[plain..];
            if let Some(c) = text.chars().next() {
                let mut escaped = String::new();
                escaped.extend(c.escape_default());
                self.put(&escaped, c.len_utf8())?;
                text = &text[c.len_utf8()..];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
