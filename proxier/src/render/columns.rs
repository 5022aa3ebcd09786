//! Columns for people.

use std::fmt::Write as _;

use super::{Style, wrapped};

const GAP: usize = 2;

/// Rows below titles, each column as wide as its widest cell. The last one is not padded.
#[derive(Debug)]
pub struct Columns {
    headers: Vec<&'static str>,
    rows: Vec<(Vec<String>, bool)>,
}

/// A row as it is drawn.
struct Row<'a> {
    /// The lines of each cell.
    cells: Vec<Vec<&'a str>>,
    /// What stands below the row, for lack of room in it.
    below: Option<&'a str>,
    emphasised: bool,
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
    ///
    /// In a terminal that is too narrow for that, lists get a line for each item, and what does not fit into the
    /// last column stands below its row; but only if everything fits then.
    pub fn text(&self, style: Style) -> String {
        let used = self.rows.iter().any(|(cells, _)| cells.last().is_some_and(|it| !it.is_empty()));
        let count = self.headers.len() - usize::from(!used);
        let plain = self.rows(count, |cell| vec![cell]);
        let widths = self.widths(count, &plain);
        if whole(&widths) <= style.width {
            return self.draw(&plain, &widths, style);
        }
        let mut folded = self.rows(count, |cell| cell.split_inclusive(',').collect());
        let mut narrow = self.widths(count, &folded);
        if used {
            narrow.pop();
            let room = style.width.saturating_sub(whole(&narrow) + GAP);
            for (row, (cells, _)) in folded.iter_mut().zip(&self.rows) {
                let last = cells.last().map(String::as_str).unwrap_or_default();
                let fits = last.chars().count() <= room;
                row.below = (!fits).then_some(last);
                row.cells[count - 1] = vec![if fits { last } else { "" }];
            }
            // Without a title where nothing stands below it.
            if folded.iter().any(|row| row.cells.last().is_some_and(|it| it != &[""])) {
                narrow.push(self.headers[count - 1].len());
            }
        }
        if whole(&narrow) <= style.width {
            self.draw(&folded, &narrow, style)
        } else {
            self.draw(&plain, &widths, style)
        }
    }

    fn rows(&self, count: usize, lines: fn(&str) -> Vec<&str>) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for (cells, emphasised) in &self.rows {
            let cells = cells.iter().take(count).map(|cell| lines(cell)).collect();
            rows.push(Row { cells, below: None, emphasised: *emphasised });
        }
        rows
    }

    fn widths(&self, count: usize, rows: &[Row<'_>]) -> Vec<usize> {
        let mut widths: Vec<usize> =
            self.headers.iter().take(count).map(|header| header.len()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(&row.cells) {
                let widest = cell.iter().map(|line| line.chars().count()).max();
                *width = (*width).max(widest.unwrap_or(0));
            }
        }
        widths
    }

    fn draw(&self, rows: &[Row<'_>], widths: &[usize], style: Style) -> String {
        let mut out = String::new();
        let mut put = |line: &str, escape: &str| {
            let (begin, end) = if style.colour { (escape, "\x1b[0m") } else { ("", "") };
            let end = if begin.is_empty() { "" } else { end };
            let _ = writeln!(out, "{begin}{}{end}", line.trim_end());
        };
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            cells.zip(widths).fold(String::new(), |line, (cell, width)| {
                format!("{line}{cell:width$}{:GAP$}", "")
            })
        };
        put(&line(&mut self.headers.iter().copied()), "\x1b[1m");
        for row in rows {
            let escape = if row.emphasised { "\x1b[31m" } else { "" };
            let high = row.cells.iter().map(Vec::len).max().unwrap_or(0).max(1);
            for at in 0..high {
                let mut cells =
                    row.cells.iter().map(|cell| cell.get(at).copied().unwrap_or_default());
                put(&line(&mut cells), escape);
            }
            let below =
                row.below.map(|text| wrapped(&format!("{:1$}{text}", "", GAP * 2), style.width));
            below.iter().flat_map(|text| text.lines()).for_each(|line| put(line, escape));
        }
        out
    }
}

/// Columns of the terminal that a line takes.
fn whole(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Columns {
        let mut columns = Columns::new(vec!["NAME", "ADDRESSES", "PROBLEM"]);
        let row = |texts: [&str; 3]| texts.map(str::to_owned).to_vec();
        columns
            .push(row(["jobs", "10.96.0.40", "has no endpoints, connections are refused"]), true);
        columns.push(row(["web", "10.96.0.10,fd00::10", "short"]), false);
        columns
    }

    fn text(width: usize) -> String {
        table().text(Style { width, colour: false })
    }

    #[test]
    fn a_wide_terminal_has_a_line_for_each_row() {
        let wide = "NAME  ADDRESSES            PROBLEM\n\
                    jobs  10.96.0.40           has no endpoints, connections are refused\n\
                    web   10.96.0.10,fd00::10  short\n";
        assert_eq!(text(usize::MAX), wide);
        assert_eq!(text(68), wide);
        assert_eq!(text(10), wide, "nothing helps");
    }

    #[test]
    fn nothing_is_above_a_column_that_is_all_below() {
        assert_eq!(
            text(20),
            "NAME  ADDRESSES\n\
             jobs  10.96.0.40\n\
             \x20   has no\n\
             \x20     endpoints,\n\
             \x20     connections\n\
             \x20     are refused\n\
             web   10.96.0.10,\n\
             \x20     fd00::10\n\
             \x20   short\n"
        );
    }

    #[test]
    fn a_narrow_one_has_lists_and_long_texts_below() {
        assert_eq!(
            text(30),
            "NAME  ADDRESSES    PROBLEM\n\
             jobs  10.96.0.40\n\
             \x20   has no endpoints,\n\
             \x20     connections are refused\n\
             web   10.96.0.10,  short\n\
             \x20     fd00::10\n"
        );
        let red = table().text(Style { width: 30, colour: true });
        assert!(red.contains("\x1b[31m    has no endpoints,\x1b[0m\n"), "{red:?}");
    }
}
