//! Documents show transcripts as they were recorded: below `<!-- transcript NAME -->`, whole or, ending in `...`,
//! the beginning.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::STORY;
use super::recorder::golden;

const INDENT: &str = "    ";

/// Everything that people read.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let others = ["README.md", "deploy/README.md"].map(|name| root.join(name));
    let mut all: Vec<_> = folder.chain(others).collect();
    all.retain(|path| path.extension().is_some_and(|it| it == "md"));
    all.sort_unstable();
    all
}

/// The document as it should be, and what it shows.
fn with_transcripts(document: &str) -> (String, Vec<String>) {
    let (mut wanted, mut shown) = (String::new(), Vec::new());
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let _ = writeln!(wanted, "{line}");
        let mark = line.strip_prefix("<!-- transcript ").and_then(|it| it.strip_suffix(" -->"));
        let Some(name) = mark else { continue };
        let path = golden(name);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{name} is not recorded: {}: {error}", path.display()));
        lines.next_if_eq(&"");
        let mut old = Vec::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(INDENT)) {
            old.push(line);
        }
        while old.last().is_some_and(|line| line.is_empty()) {
            old.pop();
        }
        let ends_early = old.last().is_some_and(|line| line.trim() == "...");
        let most = if ends_early { old.len() - 1 } else { usize::MAX };
        wanted.push('\n');
        for line in text.lines().take(most) {
            let _ = writeln!(wanted, "{}", format!("{INDENT}{line}").trim_end());
        }
        if ends_early {
            let _ = writeln!(wanted, "{INDENT}...");
        }
        if lines.peek().is_some() {
            wanted.push('\n');
        }
        shown.push(name.to_owned());
    }
    (wanted, shown)
}

#[test]
fn documents_show_transcripts_as_they_were_recorded() {
    let mut commands = BTreeSet::new();
    for path in documents() {
        let document = fs::read_to_string(&path).unwrap();
        let (wanted, shown) = with_transcripts(&document);
        commands.extend(shown.iter().map(|name| name.split('-').next().unwrap().to_owned()));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &wanted).unwrap();
        } else {
            let differs = document.lines().zip(wanted.lines()).find(|(old, new)| old != new);
            assert!(document == wanted, "{}: UPDATE=1 writes {differs:?}", path.display());
        }
    }
    let all: BTreeSet<_> = STORY.iter().map(|name| name.split('-').next().unwrap()).collect();
    let missing: Vec<_> = all.into_iter().filter(|name| !commands.contains(*name)).collect();
    assert!(missing.is_empty(), "no document shows on a node: {missing:?}");
}

/// What was renamed or taken out of the story leaves nothing behind.
#[test]
fn every_recorded_transcript_is_of_the_story() {
    let folder = golden("status");
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder.parent().unwrap()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        names.insert(name.split('.').next().unwrap().to_owned());
    }
    assert_eq!(names, STORY.iter().map(|name| (*name).to_owned()).collect());
}
