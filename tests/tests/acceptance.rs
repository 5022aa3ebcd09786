//! `tests/ACCEPTANCE.md` says for every line of the acceptance list, and for everything that users of
//! kube-proxy suffer from, which test shows it. Here: that the file is complete and names tests that
//! exist. In the modules: rows that no other test has.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

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

use proxier_tests::evidence::{self, Sources};

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
const PAIN_POINTS: u32 = 43;

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
    let mut sources = Sources::default();
    let mut wrong = Vec::new();
    for row in table() {
        if row.what.is_empty() {
            wrong.push(format!("{}: what is it about?", row.id));
        }
        if row.shown_by.iter().all(|item| item.starts_with("differs: ")) {
            wrong.push(format!("{}: neither a test nor a reason", row.id));
        }
        for item in &row.shown_by {
            if let Err(reason) = sources.check(item) {
                wrong.push(format!("{}: {item}: {reason}", row.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_what_is_wrong() {
    let mut sources = Sources::default();
    let mut check = |item: &str| sources.check(item).is_ok();
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

/// The rows of both tables of `tests/ACCEPTANCE.md`, in order.
fn table() -> Vec<Row> {
    let rows = evidence::rows("tests/ACCEPTANCE.md");
    rows.into_iter()
        .map(|cells| {
            let [id, what, shown_by] = &cells[..] else { panic!("not three columns: {cells:?}") };
            Row { id: id.clone(), what: what.clone(), shown_by: evidence::items(shown_by) }
        })
        .collect()
}
