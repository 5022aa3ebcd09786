//! The commands as docs/commands.md shows them.
//!
//! `UPDATE=1 cargo test -p proxier-tests --test commands` writes anew what they print.

#![allow(clippy::unwrap_used, reason = "an unreadable document is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proxier_tests::command::program;

const DOCUMENT: &str = "docs/commands.md";
const PROMPT: &str = "    $ proxier ";
const RECORDED: &str = "<!-- transcript ";

/// What is read, and as which node, whatever the document's command asks.
const FLAGS: [&str; 8] = [
    "--manifests=deploy/examples",
    "--hostname-override=node-1",
    "--node-address=192.168.1.10",
    "--node-address=fd00:192:168::10",
    "--proxy-mode=ipvs",
    "--ipvs-scheduler=rr",
    // Where no proxy answers.
    "--metrics-bind-address=127.0.0.1:9",
    "--firewall=iptables",
];

#[test]
fn the_document_shows_what_the_commands_print() {
    let document = fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let mut wanted = String::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        wanted.push_str(line);
        wanted.push('\n');
        // What was recorded on a node is for tests/transcripts.rs to compare.
        while line.starts_with(RECORDED)
            && let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with("    "))
        {
            wanted.push_str(line);
            wanted.push('\n');
        }
        let Some(command) = line.strip_prefix(PROMPT) else { continue };
        for line in printed(command).lines() {
            wanted.push_str(format!("    {line}").trim_end());
            wanted.push('\n');
        }
        // What the document has there now, up to the next command or what is no block.
        let mut ends = false;
        while let Some(old) = lines.peek().filter(|old| !old.starts_with(PROMPT)) {
            ends = old.is_empty();
            if !(ends || old.starts_with("    ")) {
                break;
            }
            lines.next();
            if ends && lines.peek().is_none_or(|next| !next.starts_with("    ")) {
                break;
            }
        }
        if ends || lines.peek().is_some() {
            wanted.push('\n');
        }
    }
    let wanted = format!("{}\n", wanted.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(DOCUMENT), &wanted).unwrap();
    } else {
        assert!(document == wanted, "{DOCUMENT} is out of date: UPDATE=1 writes it anew\n{wanted}");
    }
}

#[test]
fn a_version_names_what_it_was_built_with() {
    let text = printed("version");
    assert!(
        text.starts_with(&format!("proxier v{}\ncommit    ", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&printed("version -o json")).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["rustc"].as_str().unwrap().starts_with("rustc 1."), "{json}");
    assert!(json["target"].as_str().unwrap().contains("-linux-"), "{json}");
    assert_eq!(json["features"][1], "nftables");
    assert_eq!(printed("--version=raw"), format!("{}\n", env!("CARGO_PKG_VERSION")));
}

/// In a real shell: what is proposed for words as far as they are typed.
#[test]
fn bash_completes_commands_kinds_and_flags() {
    let script = r#"
        source <("$PROXIER" completion bash)
        words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _proxier proxier "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        words proxier exp
        words proxier get v
        words proxier explain --names
        words proxier completion z
        words proxier explain --conntrack-m
    "#;
    let shell = Command::new("bash")
        .args(["--norc", "-c", script])
        .env("PROXIER", program("proxier").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(shell.stdout).unwrap();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["explain", "virtual-servers", "--namespace", "zsh", ""],
        "{}",
        String::from_utf8_lossy(&shell.stderr)
    );
}

/// Standard output, then standard error.
fn printed(command: &str) -> String {
    let output = Command::new(program("proxier").unwrap())
        .args(command.split_whitespace())
        .args(FLAGS)
        .current_dir(root())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    // Of the manifests, and the same for each command.
    let errors = errors.lines().filter(|line| !line.starts_with(" WARN "));
    let errors = errors.fold(String::new(), |all, line| all + line + "\n");
    String::from_utf8(output.stdout).unwrap() + &errors
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
