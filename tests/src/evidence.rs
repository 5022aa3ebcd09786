//! Tables that say which test shows a row: `tests/ACCEPTANCE.md` and `tests/ROBUSTNESS.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a row may say besides tests: why none shows it, or in what the tests expect something else.
const REMARKS: [&str; 3] = ["no: ", "not yet: ", "differs: "];

/// The cells of every row of the tables in a file, without their heads.
///
/// # Panics
/// There is no such file.
pub fn rows(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let rows = rows.filter(|line| !line.starts_with("| id |") && !line.starts_with("| ---"));
    rows.map(|line| {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// The items of a cell: `` `path::test` `` and ``golden `name` ``, separated by `; `, perhaps with a
/// remark at the end.
pub fn items(cell: &str) -> Vec<String> {
    let starts = REMARKS.iter().filter_map(|remark| cell.find(remark));
    let (tests, remark) = cell.split_at(starts.min().unwrap_or(cell.len()));
    let items = tests.split("; ").chain([remark]).filter(|item| !item.is_empty());
    items.map(|item| item.trim().to_owned()).collect()
}

/// The sources that were read so far.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Option<String>>);

impl Sources {
    /// Whether one item is what it claims to be.
    ///
    /// # Errors
    /// What it is not.
    pub fn check(&mut self, item: &str) -> Result<(), &'static str> {
        if let Some(reason) = REMARKS.iter().find_map(|remark| item.strip_prefix(remark)) {
            return if reason.is_empty() { Err("no reason") } else { Ok(()) };
        }
        let quoted = |text: &str| Some(text.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        if let Some(name) = item.strip_prefix("golden ") {
            let folder = quoted(name).filter(|name| !name.is_empty());
            let folder = folder.map(|name| root().join("tests/golden").join(name));
            return match folder {
                Some(folder) if folder.is_dir() => Ok(()),
                _ => Err("no such golden scenario"),
            };
        }
        let (file, name) = quoted(item)
            .and_then(|item| {
                item.split_once("::").map(|(file, name)| (file.to_owned(), name.to_owned()))
            })
            .ok_or("neither a test nor a golden scenario nor a reason")?;
        let read = |file: &String| fs::read_to_string(root().join(file)).ok();
        match self.0.entry(file.clone()).or_insert_with(|| read(&file)) {
            None => Err("no such file"),
            Some(source) if is_test(source, &name) => Ok(()),
            Some(_) => Err("no such test"),
        }
    }
}

/// Whether a source has this function, as a test.
fn is_test(source: &str, name: &str) -> bool {
    let mut attributes = Vec::new();
    for line in source.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[") {
            attributes.push(line);
        } else if let Some(function) = function {
            let is_test = attributes
                .iter()
                .any(|attribute| *attribute == "#[test]" || attribute.starts_with("#[tokio::test"));
            let found = function.split(['(', '<']).next() == Some(name);
            // A test inside `proptest!` has its attribute there as well.
            if found && is_test {
                return true;
            }
            attributes.clear();
        } else if !line.starts_with("//") {
            attributes.clear();
        }
    }
    false
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
