//! ARCHITECTURE.md's rules about who may use what, read off the sources.
//!
//! A simple scan: comments and test modules are left out, then paths such as `crate::kernel` are looked
//! for. It is meant to catch the honest mistake.

#![allow(clippy::unwrap_used, reason = "an unreadable source is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of `proxier` a module may use besides itself. `app` and the program use everything.
/// Every module is listed: a new one finds its place here first.
const ARROWS: &[(&str, &[&str])] = &[
    // How foreign text is shown. Whoever shows something uses it.
    ("text", &[]),
    ("cluster", &[]),
    ("dataplane", &["cluster", "value"]),
    ("source", &["cluster", "input", "value"]),
    ("memory", &["dataplane"]),
    // The words of iptables, without its programs.
    ("iptables", &["dataplane"]),
    // The words of nftables, without netlink.
    ("nftables", &["dataplane"]),
    ("kernel", &["dataplane", "iptables", "nftables", "value"]),
    // A state as text.
    ("render", &["cluster", "dataplane", "iptables", "nftables"]),
    ("reconcile", &["cluster", "dataplane"]),
    // Values as Kubernetes writes them, in flags, in files and in objects.
    ("value", &[]),
    // Files, bounded and off the threads that serve.
    ("input", &[]),
    ("args", &["value"]),
    // Settings have the types of those who use them.
    ("config", &["args", "dataplane", "input", "value"]),
    ("settings", &["cluster", "config", "dataplane"]),
    ("http", &["cluster", "config", "dataplane", "explain", "reconcile", "value"]),
    ("explain", &["cluster", "dataplane", "render"]),
    // What becomes of a packet.
    ("trace", &["dataplane", "iptables", "nftables"]),
    // What `get` and `top` show.
    ("listing", &["explain", "render"]),
    ("telemetry", &["config"]),
    // Only in fuzz targets and in the replay of what they found.
    ("fuzz", ANY),
    // Only in tests.
    ("builders", &["cluster", "dataplane", "value"]),
    ("app", ANY),
    ("main", ANY),
];

/// The sources of every crate but the tests.
const SOURCES: [&str; 5] = [
    "proxier/src",
    "netlink-batch/src",
    "netlink-ipvs/src",
    "netlink-nftables/src",
    "dummy-iface/src",
];

/// No restriction.
const ANY: &[&str] = &["*"];

/// What must not appear in a module, because it does input or output, knows the time, or speaks a
/// language that ends elsewhere.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("text", PURE),
    ("value", PURE),
    ("cluster", PURE),
    ("dataplane", PURE),
    ("explain", PURE),
    ("listing", PURE),
    ("iptables", PURE),
    ("nftables", PURE),
    ("render", PURE),
    ("trace", PURE),
    (
        "memory",
        &["std::fs", "std::net::TcpStream", "std::process", "tokio::net", "kube::", "k8s_openapi"],
    ),
    (
        "reconcile",
        &["std::fs", "std::process", "tokio::net", "kube::", "k8s_openapi", "netlink_sys"],
    ),
];

/// What a pure module does not do: it returns values, and the caller reads, logs and waits.
const PURE: &[&str] = &[
    "tokio::",
    "kube::",
    "k8s_openapi",
    "hyper",
    "tracing::",
    "netlink_sys",
    "netlink_packet",
    "rtnetlink",
    "dummy_iface::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime",
    "rand::",
    "async fn",
    ".await",
];

/// The limit for a source file, tests included.
const MOST_LINES: usize = 600;

/// A source file without its comments and tests.
struct Source {
    path: PathBuf,
    /// Its module path inside the crate: `["dataplane", "plan"]`.
    module: Vec<String>,
    code: String,
}

#[test]
fn modules_use_only_what_the_arrows_allow() {
    let mut wrong = Vec::new();
    for source in sources("proxier/src") {
        let Some(own) = source.module.first() else { continue };
        let allowed =
            ARROWS.iter().find(|(name, _)| name == own).map_or(&[][..], |(_, allowed)| *allowed);
        for used in source.modules_used() {
            let fine = used == *own
                || used == "text"
                || allowed == ANY
                || allowed.contains(&used.as_str());
            if !fine {
                wrong.push(format!("{}: {own} uses {used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No file uses another that uses it, by whatever way round. A module and those inside it are one
/// thing told in several files.
#[test]
fn no_files_use_each_other_in_a_circle() {
    for folder in SOURCES {
        let sources = sources(folder);
        let uses: BTreeMap<&[String], BTreeSet<&[String]>> =
            sources.iter().map(|source| (&*source.module, source.files_used(&sources))).collect();
        let circle = uses.keys().find_map(|start| circle(start, &uses));
        assert_eq!(circle, None, "{folder}");
    }
}

/// A way from a module back to itself, if there is one.
fn circle<'a>(
    start: &'a [String],
    uses: &BTreeMap<&'a [String], BTreeSet<&'a [String]>>,
) -> Option<Vec<String>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in &uses[way.last()?] {
            if *next == start {
                return Some(way.iter().map(|module| module.join("::")).collect());
            }
            if seen.insert(*next) {
                ways.push(way.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}

#[test]
fn every_module_has_its_place_in_the_picture() {
    for source in sources("proxier/src") {
        let Some(own) = source.module.first() else { continue };
        let listed = ARROWS.iter().any(|(name, _)| name == own);
        assert!(
            listed,
            "{}: say in tests/tests/architecture.rs what {own} may use",
            source.path.display()
        );
    }
}

#[test]
fn pure_modules_do_no_input_or_output() {
    let mut wrong = Vec::new();
    for source in sources("proxier/src") {
        let of = |(name, _): &&(&str, _)| source.module.first().is_some_and(|own| own == name);
        for word in FORBIDDEN.iter().find(of).map_or(&[][..], |(_, words)| *words) {
            if source.code.contains(word) {
                wrong.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What comes from outside cannot end the process, and what it starts is in one place.
#[test]
fn no_unsafe_code_and_processes_in_one_place_only() {
    let mut wrong = Vec::new();
    for folder in SOURCES {
        for source in sources(folder) {
            let name = source.path.display().to_string();
            let for_tests = ["fuzz.rs", "builders.rs", "captures.rs"]
                .iter()
                .any(|file| source.path.ends_with(file));
            // The tools of iptables, and this program in place of itself.
            let runs_programs = source.path.ends_with("kernel/firewall/process.rs")
                || source.path.ends_with("app/wiring/reload.rs");
            for (word, fine) in [
                ("unsafe {", false),
                ("unsafe fn", false),
                ("unsafe impl", false),
                (".unwrap()", for_tests),
                (".expect(", for_tests),
                ("Command::new(", runs_programs),
                ("std::process::Command", runs_programs),
                ("/bin/sh", false),
            ] {
                if !fine && source.code.contains(word) {
                    wrong.push(format!("{name}: {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn netlink_bytes_stay_in_the_kernel_module() {
    for source in sources("proxier/src") {
        let inside = matches!(source.module.first().map(String::as_str), Some("kernel"));
        for word in
            ["netlink_sys", "netlink_packet_core", "netlink_packet_generic", "netlink_packet_route"]
        {
            assert!(inside || !source.code.contains(word), "{}: {word}", source.path.display());
        }
    }
}

/// What the loop publishes can be read by anybody, and nobody who reads it holds up the loop.
#[test]
fn the_loop_shares_no_lock_with_readers() {
    for source in sources("proxier/src") {
        let inside = source.module.first().is_some_and(|own| own == "reconcile");
        for word in ["Mutex", "RwLock"] {
            assert!(!inside || !source.code.contains(word), "{}: {word}", source.path.display());
        }
    }
}

#[test]
fn wire_types_of_the_api_stay_in_the_source_module() {
    for source in sources("proxier/src") {
        let inside = matches!(source.module.first().map(String::as_str), Some("source" | "app"));
        for word in ["kube::", "k8s_openapi"] {
            assert!(inside || !source.code.contains(word), "{}: {word}", source.path.display());
        }
    }
}

#[test]
fn only_the_outermost_layer_knows_of_a_dry_run() {
    for source in sources("proxier/src") {
        let outside = ["app", "args", "config", "main"];
        let may = source.module.first().is_none_or(|own| outside.contains(&own.as_str()));
        assert!(
            may || !source.code.contains("dry_run"),
            "{} knows of a dry run",
            source.path.display()
        );
    }
}

#[test]
fn the_netlink_crates_know_nothing_of_kubernetes_or_each_other() {
    for name in ["netlink-batch", "netlink-ipvs", "netlink-nftables", "dummy-iface"] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for other in ["netlink-ipvs", "netlink-nftables", "dummy-iface", "proxier"] {
            let depends =
                manifest.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(other));
            assert!(!depends, "{name} depends on {other}");
        }
        for source in sources(&format!("{name}/src")) {
            let code = source.code.to_lowercase();
            for word in ["kube", "k8s", "endpointslice"] {
                assert!(!code.contains(word), "{}: {word}", source.path.display());
            }
        }
    }
}

/// The tour says how much there is to read, tests aside.
#[test]
fn what_a_newcomer_reads_is_as_short_as_the_tour_says() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let [_, what, files, lines] = *line.strip_suffix(" |")?.split('|').collect::<Vec<_>>()
        else {
            return None;
        };
        let most: usize = lines.trim().replace(',', "").parse().ok()?;
        Some((what.trim(), files, most))
    });
    let mut checked = 0;
    for (what, files, most) in rows {
        let lines = |path: &str| {
            let text = fs::read_to_string(root().join("proxier/src").join(path)).unwrap();
            text.lines().take_while(|line| *line != "#[cfg(test)]").count()
        };
        let sum: usize = files.split('`').skip(1).step_by(2).map(lines).sum();
        assert!(sum <= most && most <= 1500, "{what}: {sum} lines, not {most}");
        checked += 1;
    }
    assert!(checked >= 6, "{checked} rows");
}

#[test]
fn files_are_small_and_modules_named_after_their_files() {
    for folder in
        ["proxier", "netlink-batch", "netlink-ipvs", "netlink-nftables", "dummy-iface", "tests"]
    {
        for path in files(&root().join(folder)) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= MOST_LINES, "{}: {lines} lines", path.display());
            assert!(
                !path.ends_with("mod.rs"),
                "{}: modules are named after their files",
                path.display()
            );
        }
    }
}

#[test]
fn the_scan_sees_what_it_is_there_to_see() {
    let code = "use crate::{args::X, kernel, source::{a, b}};\nfn f() { crate::memory::g(); super::super::app::h() }";
    let source = Source {
        path: PathBuf::new(),
        module: vec!["dataplane".into(), "plan".into()],
        code: code.into(),
    };
    assert_eq!(source.modules_used(), ["args", "kernel", "source", "memory", "app"]);
    let paths: Vec<String> = source.paths().iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["args::X", "kernel", "source::a", "source::b", "memory::g", "app::h"]);
    let text = "//! tokio::\nuse std::fs; // kube::\n#[cfg(test)]\nmod tests { use crate::app; }\n";
    assert_eq!(without_comments_and_tests(text), "\nuse std::fs; \n");
}

// === impl Source ===

impl Source {
    /// The first names of paths that start at the crate's root.
    fn modules_used(&self) -> Vec<String> {
        // From a module at depth n, n times `super::` is the root as well.
        let climb = "super::".repeat(self.module.len());
        let mut used = Vec::new();
        for start in ["crate::", "proxier::", climb.as_str()] {
            for (place, _) in self.code.match_indices(start) {
                let longer_word = self.code[..place]
                    .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                if !longer_word {
                    used.extend(first_names(&self.code[place + start.len()..]));
                }
            }
        }
        used
    }
}

impl Source {
    /// The other files whose names this one uses, but those around it and inside it.
    fn files_used<'a>(&self, all: &'a [Source]) -> BTreeSet<&'a [String]> {
        let known: BTreeMap<&[String], &'a [String]> =
            all.iter().map(|source| (&*source.module, &*source.module)).collect();
        let mut used = BTreeSet::new();
        for path in self.paths() {
            // The longest beginning that is a file; what follows are items, or re-exported.
            let file = (1..=path.len()).rev().find_map(|length| known.get(&path[..length]));
            let other = |file: &&[String]| {
                !self.module.starts_with(file) && !file.starts_with(&self.module)
            };
            used.extend(file.copied().filter(other));
        }
        used
    }

    /// Every path that starts at the crate's root or a module around this one, from the root.
    fn paths(&self) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        for (start, up) in [("crate::", None), ("super::", Some(1))] {
            for (place, _) in self.code.match_indices(start) {
                let before = &self.code[..place];
                if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let mut rest = &self.code[place + start.len()..];
                let mut up = up;
                while let Some(further) = rest.strip_prefix("super::") {
                    (rest, up) = (further, up.map(|up| up + 1));
                }
                let around = up.map_or(0, |up| self.module.len().saturating_sub(up));
                branches(&self.module[..around], rest, &mut out);
            }
        }
        out
    }
}

/// The paths that go on from `from`, with every branch of a `{...}` group.
fn branches(from: &[String], rest: &str, out: &mut Vec<Vec<String>>) {
    let rest = rest.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        let (mut depth, mut item) = (0_u32, 0);
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    branches(from, &group[item..place], out);
                    item = place + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let path: Vec<String> = from.iter().cloned().chain([name.clone()]).collect();
    match rest[name.len()..].strip_prefix("::") {
        Some(further) => branches(&path, further, out),
        None => out.push(path),
    }
}

/// The names that a path goes on with: one, or all of a `{...}` group's first level.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_lowercase() || *c == '_').collect()
    };
    let mut names = Vec::new();
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0_u32;
        let mut item = 0;
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.push(name(&group[item..place]));
                    item = place + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    } else {
        names.push(name(rest));
    }
    // Types and functions of the root are no modules; super and self are looked at by themselves.
    names.retain(|name| !name.is_empty() && name != "super" && name != "self");
    names
}

/// All sources under a folder, without test files.
fn sources(folder: &str) -> Vec<Source> {
    let folder = root().join(folder);
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&folder).unwrap().with_extension("");
        let mut module: Vec<String> =
            inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        module.retain(|part| part != "lib");
        let code = without_comments_and_tests(&fs::read_to_string(&path).unwrap());
        Source { path, module, code }
    };
    let is_test = |path: &PathBuf| {
        path.iter().skip(folder.iter().count()).any(|part| part == "tests" || part == "tests.rs")
    };
    let found: Vec<_> =
        files(&folder).into_iter().filter(|path| !is_test(path)).map(read).collect();
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

/// The code before the test module, without line comments.
fn without_comments_and_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines: Vec<_> =
        code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    lines.join("\n") + "\n"
}

/// All Rust files under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
