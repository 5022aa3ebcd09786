//! Command lines in a terminal of the node, and the golden of each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use proxier_tests::world::World;

/// Columns of the terminals.
const NARROW: u16 = 80;
const WIDE: u16 = 200;

/// Runs commands and compares, or records, what they print.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    names: BTreeSet<&'static str>,
    /// Goldens that are not what was printed, and how.
    wrong: Vec<String>,
}

impl Recorder {
    /// Compares what a command line prints in a narrow and in a wide terminal, and checks its exit status.
    pub(crate) fn show(&mut self, world: &World, name: &'static str, line: &str, status: i32) {
        self.after(world, name, &[], line, status);
    }

    /// The same after others, which change the node and are shown with it.
    pub(crate) fn after(
        &mut self,
        world: &World,
        name: &'static str,
        before: &[&str],
        line: &str,
        status: i32,
    ) {
        for one in before {
            world.topology.node().host.namespace.sh(one).unwrap();
        }
        let [narrow, wide] = [NARROW, WIDE].map(|columns| printed(world, line, columns, status));
        self.compare(name, before, line, [&narrow, &wide]);
    }

    /// Of a command that can be run once only, in a narrow terminal.
    pub(crate) fn once(&mut self, world: &World, name: &'static str, line: &str, status: i32) {
        let text = printed(world, line, NARROW, status);
        self.compare(name, &[], line, [&text; 2]);
    }

    fn compare(&mut self, name: &'static str, before: &[&str], line: &str, texts: [&str; 2]) {
        assert!(self.names.insert(name), "{name} twice");
        let lines = before.iter().chain([&line]).map(|line| format!("$ {line}\n"));
        let head: String = lines.collect();
        let [narrow, wide] = texts.map(|text| format!("{head}{}", alike(text)));
        self.wrong.extend(differs(&golden(name), Some(&narrow)));
        let other = Some(&wide).filter(|_| wide != narrow);
        self.wrong.extend(differs(&golden(&format!("{name}.{WIDE}")), other));
    }

    /// Fails unless all of these were shown, and nothing else, and each was as recorded.
    pub(crate) fn finish(self, names: &[&'static str]) {
        assert_eq!(self.names, names.iter().copied().collect());
        assert!(
            self.wrong.is_empty(),
            "UPDATE=1 records what is printed:\n{}",
            self.wrong.join("\n")
        );
    }
}

/// Where a transcript is.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("transcripts/{name}.txt"))
}

/// Both outputs of a line of the shell in a terminal of the node, without colours.
fn printed(world: &World, line: &str, columns: u16, status: i32) -> String {
    const SCRIPT: &str = r#"stty rows 50 cols "$COLUMNS_HERE"; eval "$LINE""#;
    let mut terminal = world.terminal(SCRIPT).unwrap();
    terminal.env("NO_COLOR", "1").env("COLUMNS_HERE", columns.to_string()).env("LINE", line);
    let output = terminal.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
    assert_eq!(output.status.code(), Some(status), "{line}: {text}");
    text
}

/// What is another in each run, as it was in one.
fn alike(text: &str) -> String {
    let line = |line: &str| {
        // What it was built from, and with.
        let line = rest(line, "commit    ", "COMMIT");
        let line = rest(&line, "built by  ", "rustc VERSION");
        let line = rest(&line, "target    ", "TARGET, PROFILE");
        let line = rest(&line, "features  ", "iptables, nftables");
        busy(&line) + "\n"
    };
    times(&text.lines().map(line).collect::<String>())
}

/// Since when, and for how long: `up 7s)`, `(for 2s)`, `at most 14m3s more`, also where a line ends between.
fn times(text: &str) -> String {
    let (mut out, mut before) = (String::new(), "");
    for part in text.split_inclusive([' ', '\n']) {
        let word = part.trim_end();
        let begins = word.starts_with(|letter: char| letter.is_ascii_digit());
        let new = match before {
            "up" | "(for" if begins && word.ends_with("s)") => "5s)",
            "most" if begins && word.ends_with('s') => "14m50s",
            _ => word,
        };
        out.push_str(new);
        out.push_str(&part[word.len()..]);
        if !word.is_empty() {
            before = word;
        }
    }
    out
}

/// Puts something else behind the beginning of a line.
fn rest(line: &str, begin: &str, new: &str) -> String {
    if line.starts_with(begin) { format!("{begin}{new}") } else { line.to_owned() }
}

/// Of a row of `top` with new connections: how many, and how many bytes, depends on the machine. These are of one
/// run.
fn busy(line: &str) -> String {
    const COLUMNS: &str = "         0       553        38    10.0 KiB     9.3 KiB";
    let is_rate = |word: &str| word.parse::<u32>().is_ok_and(|rate| rate > 0);
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [title, _, _, rate, _, _, _, "B" | "KiB"] if is_rate(rate) => {
            let end = line.find(title).unwrap_or_default() + title.len();
            let width = line.len() - COLUMNS.len();
            format!("{:width$}{COLUMNS}", &line[..end])
        }
        _ => line.to_owned(),
    }
}

/// The first line in which a golden is not as it should be; records it if that is asked for.
fn differs(path: &Path, wanted: Option<&String>) -> Option<String> {
    if std::env::var_os("UPDATE").is_some() {
        match wanted {
            Some(text) => fs::write(path, text).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    }
    let recorded = fs::read_to_string(path).ok();
    let name = path.file_name().unwrap_or_default().display();
    match (recorded, wanted) {
        (None, None) => None,
        (None, Some(text)) => Some(format!("{name} is missing:\n{text}")),
        (Some(_), None) => Some(format!("{name} is there, and both widths print the same")),
        (Some(recorded), Some(text)) => {
            let lines = recorded.lines().map(Some).chain([None]);
            let mut pairs = lines.zip(text.lines().map(Some).chain([None])).zip(1..);
            let ((old, new), at) = pairs.find(|((old, new), _)| old != new)?;
            Some(format!("{name}, line {at}: recorded {old:?}, printed {new:?}, in:\n{text}"))
        }
    }
}
