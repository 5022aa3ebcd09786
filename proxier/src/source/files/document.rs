//! Text of a manifest as documents, each of which stands or falls alone.
//!
//! Documents are read one by one, and lists of objects item by item, so that little is in memory as a
//! tree; in time in proportion to the text.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::value::tree::{self, Items, Tree};

/// One document of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Document<'a, I> {
    /// Counted from 1.
    pub(super) number: usize,
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    /// What it is made from.
    pub(super) text: &'a str,
    /// Its content, or what is wrong with it.
    pub(super) content: Result<Tree, String>,
    /// Who may have taken items of it.
    pub(super) items: I,
}

/// The documents of a file, empty ones left out.
pub(super) struct Documents<'a> {
    text: &'a str,
    form: Form<'a>,
    /// How many there were.
    number: usize,
}

enum Form<'a> {
    Json(Json<'a>),
    Yaml(Yaml<'a>),
}

impl<'a> Documents<'a> {
    /// JSON begins with a brace. YAML may do so, too, which the first document decides.
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let form = if text.trim_start().starts_with('{') {
            Form::Json(Json::new(text))
        } else {
            Form::Yaml(Yaml::new(text))
        };
        Self { text, form, number: 0 }
    }

    /// The next one. `items` makes who takes items from the document with a number and a line.
    pub(super) fn next<I: Items>(
        &mut self,
        items: impl Fn(usize, usize) -> I,
    ) -> Option<Document<'a, I>> {
        self.number += 1;
        let number = self.number;
        let items = |line| items(number, line);
        let mut document = match &mut self.form {
            Form::Json(json) => json.next(&items)?,
            Form::Yaml(yaml) => yaml.next(&items)?,
        };
        if number == 1
            && document.content.is_err()
            && matches!(self.form, Form::Json(_))
            && !is_json(self.text)
        {
            let mut yaml = Yaml::new(self.text);
            document = yaml.next(&items)?;
            self.form = Form::Yaml(yaml);
        }
        Some(Document { number, ..document })
    }
}

/// Whether a text that begins with a brace, and is not read as JSON, is none of YAML either.
fn is_json(text: &str) -> bool {
    let value = || serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>().next();
    let yaml = || Yaml::new(text).next(&|_| ()).is_some_and(|document| document.content.is_ok());
    value().is_some_and(|value| value.is_ok()) || !yaml()
}

/// JSON values one after the other.
struct Json<'a> {
    text: &'a str,
    at: usize,
    /// The line at `at`.
    line: usize,
    /// How much more may be read a second time.
    again: usize,
}

impl<'a> Json<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, again: text.len() }
    }

    fn go_to(&mut self, at: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.text.as_bytes()[self.at..at]).count();
        self.at = at;
    }

    /// Where to go on after a broken value that was read up to `length`: at the next line that
    /// begins with a brace. That may be inside of what was read, but not for ever: a text of broken
    /// values inside each other would be read again and again.
    fn after_broken(&mut self, length: usize) -> usize {
        let next = |from: usize| {
            let rest = self.text.get(from..).unwrap_or_default();
            rest.find("\n{").map_or(self.text.len(), |found| from + found + 1)
        };
        let inside = next(self.at + 1);
        let again = (self.at + length).saturating_sub(inside);
        if let Some(left) = self.again.checked_sub(again) {
            self.again = left;
            return inside;
        }
        let mut end = (self.at + length).saturating_sub(1).max(self.at + 1);
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        next(end)
    }

    fn next<I: Items>(&mut self, items: &impl Fn(usize) -> I) -> Option<Document<'a, I>> {
        let rest = &self.text[self.at..];
        let begin = self.at + (rest.len() - rest.trim_start().len());
        self.go_to(begin);
        let (line, rest) = (self.line, &self.text[begin..]);
        if rest.is_empty() {
            return None;
        }
        let mut items = items(line);
        let (content, length) = tree::json(rest, &mut items);
        let end = if content.is_ok() { begin + length } else { self.after_broken(length) };
        self.go_to(end);
        let text = &self.text[begin..end];
        Some(Document { number: 0, line, text, content: in_file(content, line), items })
    }
}

/// YAML documents, separated by lines that begin with `---`.
struct Yaml<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Yaml<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    /// The text up to the next separator, which is never its first line; the line that it begins on.
    fn chunk(&mut self) -> Option<(&'a str, usize)> {
        let mut length = 0;
        let mut lines = 0;
        for line in self.rest.split_inclusive('\n') {
            if length > 0 && is_separator(line) {
                break;
            }
            length += line.len();
            lines += 1;
        }
        let (chunk, rest) = self.rest.split_at(length);
        let line = self.line;
        self.rest = rest;
        self.line += lines;
        (length > 0).then_some((chunk, line))
    }

    fn next<I: Items>(&mut self, items: &impl Fn(usize) -> I) -> Option<Document<'a, I>> {
        loop {
            let (text, line) = self.chunk()?;
            if is_empty(text) {
                continue;
            }
            let mut items = items(line);
            let content = tree::yaml(text, &mut items);
            if content.as_ref().is_ok_and(|tree| tree.value == Value::Null) {
                continue;
            }
            let content = in_file(content, line);
            return Some(Document { number: 0, line, text, content, items });
        }
    }
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_empty(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "..."
    })
}

/// The error of a document with its line in the file.
fn in_file(content: Result<Tree, tree::Error>, first: usize) -> Result<Tree, String> {
    content.map_err(|error| {
        let line = error.line.map(|line| first + line.saturating_sub(1));
        tree::Error { line, ..error }.to_string()
    })
}

#[cfg(test)]
mod tests;
