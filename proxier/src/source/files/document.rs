//! Text of a manifest as documents, each of which stands or falls alone.
//!
//! Documents are read one by one, so that only one is in memory as a tree, and in time in proportion
//! to the text.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::value::tree::{self, Tree};

/// One document of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Document<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    /// What it is made from.
    pub(super) text: &'a str,
    /// Its content, or what is wrong with it.
    pub(super) content: Result<Tree, String>,
}

/// The documents of a file, empty ones left out.
pub(super) fn documents(text: &str) -> Box<dyn Iterator<Item = Document<'_>> + '_> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents: Box<dyn Iterator<Item = Document<'_>>> =
        if is_json(text) { Box::new(Json::new(text)) } else { Box::new(Yaml::new(text)) };
    Box::new(documents.zip(1..).map(|(document, number)| Document { number, ..document }))
}

/// JSON begins with a brace. YAML may do so, too.
fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let value = || serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>().next();
    let yaml = || Yaml::new(text).next().is_some_and(|document| document.content.is_ok());
    text.starts_with('{') && (value().is_some_and(|value| value.is_ok()) || !yaml())
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
}

impl<'a> Iterator for Json<'a> {
    type Item = Document<'a>;

    fn next(&mut self) -> Option<Document<'a>> {
        let rest = &self.text[self.at..];
        let begin = self.at + (rest.len() - rest.trim_start().len());
        self.go_to(begin);
        let (line, rest) = (self.line, &self.text[begin..]);
        if rest.is_empty() {
            return None;
        }
        let (content, length) = tree::json(rest);
        let end = if content.is_ok() { begin + length } else { self.after_broken(length) };
        self.go_to(end);
        Some(Document {
            number: 0,
            line,
            text: &self.text[begin..end],
            content: in_file(content, line),
        })
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
}

impl<'a> Iterator for Yaml<'a> {
    type Item = Document<'a>;

    fn next(&mut self) -> Option<Document<'a>> {
        loop {
            let (text, line) = self.chunk()?;
            if is_empty(text) {
                continue;
            }
            let content = tree::yaml(text);
            if content.as_ref().is_ok_and(|tree| tree.value == Value::Null) {
                continue;
            }
            return Some(Document { number: 0, line, text, content: in_file(content, line) });
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
