//! `tests/ROBUSTNESS.md` says for every fault which test shows that nothing is lost by it. Here: that
//! the file is complete and names tests that exist.

use proxier_tests::evidence::{self, Sources};

/// The letters of each part, and how many rows it has.
const PARTS: [(&str, usize); 8] =
    [("A", 30), ("K", 42), ("C", 15), ("T", 3), ("B", 24), ("F", 7), ("P", 20), ("S", 2)];

#[test]
fn every_fault_has_its_test_and_its_figure() {
    let rows = evidence::rows("tests/ROBUSTNESS.md");
    let ids =
        PARTS.iter().flat_map(|(part, count)| (1..=*count).map(move |n| format!("{part}{n:02}")));
    let found: Vec<&str> = rows.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(found, ids.collect::<Vec<_>>());

    let mut sources = Sources::default();
    let mut wrong = Vec::new();
    for cells in &rows {
        let [id, fault, shown_by, figure] = &cells[..] else {
            panic!("not four columns: {cells:?}")
        };
        if fault.is_empty() || figure.is_empty() {
            wrong.push(format!("{id}: which fault, and with which figure?"));
        }
        let items = evidence::items(shown_by);
        if items.is_empty() {
            wrong.push(format!("{id}: neither a test nor a reason"));
        }
        for item in items {
            if let Err(reason) = sources.check(&item) {
                wrong.push(format!("{id}: {item}: {reason}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
