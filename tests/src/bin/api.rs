//! The public API of the crates that are published, against `api.txt` beside each of them.
//!
//!     api [--update] CRATE=RUSTDOC.json...
//!
//! The first line of `api.txt` names the version whose API it is; `unreleased` until there is one.
//! Of a released one, a line that goes or changes needs a version that may break, and a line that comes
//! needs a later version. `--update` writes the file anew if the version allows it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

const UNRELEASED: &str = "unreleased";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let update = words.iter().any(|word| word == "--update");
    let mut good = true;
    for word in words.iter().filter(|word| *word != "--update") {
        if let Err(error) = check(word, update) {
            eprintln!("{word}: {error:#}");
            good = false;
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(word: &str, update: bool) -> Result<()> {
    let (folder, json) = word.split_once('=').context("CRATE=RUSTDOC.json is wanted")?;
    let file = Path::new(folder).join("api.txt");
    let known = std::fs::read_to_string(&file).unwrap_or_else(|_| format!("{UNRELEASED}\n"));
    let (released, known) = known.split_once('\n').context("api.txt has no first line")?;
    let found = api(json)?;
    let version = env!("CARGO_PKG_VERSION");
    let known: BTreeSet<&str> = known.lines().collect();
    let now: BTreeSet<&str> = found.lines().collect();
    let gone: Vec<_> = known.difference(&now).copied().collect();
    let new: Vec<_> = now.difference(&known).copied().collect();
    if gone.is_empty() && new.is_empty() {
        return Ok(());
    }
    for (sign, lines) in [('-', &gone), ('+', &new)] {
        for line in lines {
            println!("{sign} {line}");
        }
    }
    if released != UNRELEASED {
        allows(released, version, !gone.is_empty())?;
    }
    ensure!(update, "the public API is not that of {}: .ci/api --update", file.display());
    let heading = if released == UNRELEASED { UNRELEASED } else { version };
    std::fs::write(&file, format!("{heading}\n{found}"))?;
    Ok(())
}

/// Whether a version may follow a released one, by semver before and after 1.0.
fn allows(released: &str, version: &str, breaks: bool) -> Result<()> {
    let parse = |text: &str| -> Result<Vec<u64>> {
        text.split('.').map(|part| part.parse().context(text.to_owned())).collect()
    };
    let (old, new) = (parse(released)?, parse(version)?);
    ensure!(new > old, "what is new needs a later version than {released}");
    // The first number that is not zero says what may break.
    let compatible = old.iter().position(|number| *number > 0).unwrap_or(2) + 1;
    if breaks && old[..compatible] == new[..compatible] {
        bail!("what went or changed needs a version that may break what used {released}");
    }
    Ok(())
}

fn api(json: &str) -> Result<String> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    let lines: Vec<String> = api.items().map(ToString::to_string).collect();
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn a_change_that_breaks_needs_a_version_that_may() {
        for (released, version, of_additions, of_breaks) in [
            ("0.1.0", "0.1.0", false, false),
            ("0.1.0", "0.1.1", true, false),
            ("0.1.9", "0.2.0", true, true),
            ("1.2.3", "1.3.0", true, false),
            ("1.2.3", "2.0.0", true, true),
            ("0.2.0", "0.1.9", false, false),
        ] {
            let allowed = |breaks| allows(released, version, breaks).is_ok();
            let found = (allowed(false), allowed(true));
            assert_eq!(found, (of_additions, of_breaks), "{released} {version}");
        }
    }
}
