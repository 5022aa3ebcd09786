//! `tests/ACCEPTANCE.md` says for every line of the acceptance list, and for everything that users of
//! kube-proxy suffer from, which test shows it. Here: that the file is complete and names tests that
//! exist. In the modules: rows that no other test has.

#![allow(clippy::unwrap_used, reason = "an unreadable file is a failed test")]

#[path = "acceptance/endpoints.rs"]
mod endpoints;
#[path = "acceptance/reconciler.rs"]
mod reconciler;
#[path = "acceptance/services.rs"]
mod services;
#[path = "acceptance/sets.rs"]
mod sets;
#[path = "acceptance/slices.rs"]
mod slices;
#[path = "acceptance/transitions.rs"]
mod transitions;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The ids of the acceptance list, first and last of each run. The runs of two letters are the rows
/// that have no id there, numbered in their order.
const ROWS: [(&str, u32, u32); 32] = [
    ("A", 1, 17),
    ("B", 1, 16),
    ("C", 1, 18),
    ("D", 1, 13),
    ("E", 1, 16),
    ("F", 1, 7),
    ("F", 10, 27),
    ("F", 30, 33),
    ("G", 1, 18),
    // Which services the tracker reports as changed.
    ("GS", 1, 2),
    // Local ready endpoints.
    ("GL", 1, 7),
    ("G", 20, 29),
    // When a slice counts as changed.
    ("GD", 1, 7),
    ("G", 40, 50),
    // What one commit hands over.
    ("GC", 1, 3),
    // Trigger times.
    ("GT", 1, 8),
    // What stays behind after deletions.
    ("GH", 1, 5),
    ("H", 1, 32),
    ("I", 1, 6),
    // Cases that the list asks for beyond kube-proxy's own tests.
    ("IX", 1, 6),
    ("J", 1, 27),
    ("K", 1, 11),
    ("L", 1, 8),
    ("L", 10, 13),
    ("L", 20, 21),
    ("L", 30, 31),
    ("L", 40, 47),
    ("L", 50, 53),
    ("L", 60, 63),
    ("L", 70, 70),
    ("L", 80, 80),
    ("L", 90, 90),
];

/// How many things users suffer from; their ids are numbers.
const PAIN_POINTS: u32 = 39;

/// What a row may say besides tests: why none shows it, or in what the tests expect something else.
const REMARKS: [&str; 3] = ["no: ", "not yet: ", "differs: "];

#[test]
fn every_line_has_one_row() {
    let rows = ROWS.iter().flat_map(|(letters, first, last)| {
        (*first..=*last).map(move |number| format!("{letters}{number:02}"))
    });
    let expected: Vec<String> =
        rows.chain((1..=PAIN_POINTS).map(|number| number.to_string())).collect();
    let found: Vec<String> = table().into_iter().map(|row| row.id).collect();
    // In their order, so that a row is found where it is looked for.
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn every_row_names_tests_that_exist_or_says_why_there_is_none() {
    let mut sources = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in table() {
        if row.what.is_empty() {
            wrong.push(format!("{}: what is it about?", row.id));
        }
        if row.shown_by.iter().all(|item| item.starts_with("differs: ")) {
            wrong.push(format!("{}: neither a test nor a reason", row.id));
        }
        for item in &row.shown_by {
            if let Err(reason) = check(item, &mut sources) {
                wrong.push(format!("{}: {item}: {reason}", row.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_what_is_wrong() {
    let mut sources = BTreeMap::new();
    let mut check = |item: &str| check(item, &mut sources).is_ok();
    let this = "tests/tests/acceptance.rs";
    assert!(check(&format!("`{this}::the_check_sees_what_is_wrong`")));
    assert!(check("golden `clusterip-tcp`"));
    assert!(check("no: there is no such thing"));
    for item in [
        &format!("`{this}::nobody`"),
        &format!("`{this}::table`"),
        "`tests/tests/nowhere.rs::test`",
        "golden `nowhere`",
        "golden ``",
        "no: ",
        "some words",
        "",
    ] {
        assert!(!check(item), "{item}");
    }
}

struct Row {
    id: String,
    what: String,
    shown_by: Vec<String>,
}

/// The rows of both tables of `tests/ACCEPTANCE.md`, in order. The last column is a list of
/// `` `path::test` `` and ``golden `name` ``, separated by `; `, and may end with one of [`REMARKS`].
fn table() -> Vec<Row> {
    let text = fs::read_to_string(root().join("tests/ACCEPTANCE.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with('|'));
    // The head of a table and the line below it.
    let rows = rows.filter(|line| !line.starts_with("| id |") && !line.starts_with("| ---"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, what, shown_by] = cells[..] else { panic!("not three columns: {line}") };
        let starts = REMARKS.iter().filter_map(|remark| shown_by.find(remark));
        let (tests, remark) = shown_by.split_at(starts.min().unwrap_or(shown_by.len()));
        let items = tests.split("; ").chain([remark]).filter(|item| !item.is_empty());
        let shown_by = items.map(|item| item.trim().to_owned()).collect();
        Row { id: id.to_owned(), what: what.to_owned(), shown_by }
    })
    .collect()
}

/// Whether one item of the last column is what it claims to be.
fn check(item: &str, sources: &mut BTreeMap<String, Option<String>>) -> Result<(), &'static str> {
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
    let source = sources.entry(file.clone()).or_insert_with(|| read(&file));
    match source {
        None => Err("no such file"),
        Some(source) if is_test(source, &name) => Ok(()),
        Some(_) => Err("no such test"),
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
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
