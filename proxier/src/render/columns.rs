//! Columns for people.

use std::fmt::Write as _;

use super::Style;

const GAP: usize = 2;

/// Rows below titles, each column as wide as its widest cell. The last one is not padded.
#[derive(Debug)]
pub struct Columns {
    headers: Vec<&'static str>,
    rows: Vec<(Vec<String>, bool)>,
}

impl Columns {
    /// Without rows.
    pub fn new(headers: Vec<&'static str>) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// One row with a cell for each title. One that is emphasised is red where there are colours.
    pub fn push(&mut self, cells: Vec<String>, emphasised: bool) {
        self.rows.push((cells, emphasised));
    }

    /// One line for each row. A last column without any text has no title either.
    pub fn text(&self, style: Style) -> String {
        let used = self.rows.iter().any(|(cells, _)| cells.last().is_some_and(|it| !it.is_empty()));
        let count = self.headers.len() - usize::from(!used);
        let mut widths: Vec<usize> =
            self.headers.iter().take(count).map(|header| header.len()).collect();
        for (cells, _) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>, escape: &str| {
            let mut line = String::new();
            for (cell, width) in cells.zip(&widths) {
                let _ = write!(line, "{cell:width$}{:GAP$}", "");
            }
            let (begin, end) = if style.colour { (escape, "\x1b[0m") } else { ("", "") };
            let end = if begin.is_empty() { "" } else { end };
            let _ = writeln!(out, "{begin}{}{end}", line.trim_end());
        };
        line(&mut self.headers.iter().copied(), "\x1b[1m");
        for (cells, emphasised) in &self.rows {
            let escape = if *emphasised { "\x1b[31m" } else { "" };
            line(&mut cells.iter().map(String::as_str), escape);
        }
        out
    }
}
