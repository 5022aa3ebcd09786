//! `proxier version`: what this program is and what it was built with.

use std::process::ExitCode;

use serde_json::json;

use crate::app::{print, print_json};
use crate::args::Output;

pub(in crate::app) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is not in every build, and what others are compared by.
const FEATURES: &[&str] = &[
    "iptables",
    "nftables",
    #[cfg(feature = "testing")]
    "testing",
];

const RUSTC: &str = env!("PROXIER_RUSTC");
const TARGET: &str = env!("PROXIER_TARGET");
const PROFILE: &str = env!("PROXIER_PROFILE");

fn commit() -> Option<&'static str> {
    Some(env!("PROXIER_COMMIT")).filter(|commit| !commit.is_empty())
}

pub(in crate::app) fn run(output: Output) -> anyhow::Result<ExitCode> {
    if output == Output::Json {
        print_json(&json!({
            "version": VERSION,
            "commit": commit(),
            "rustc": RUSTC,
            "target": TARGET,
            "profile": PROFILE,
            "features": FEATURES,
        }))?;
    } else {
        print(&text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// For people.
pub(super) fn text() -> String {
    format!(
        "proxier v{VERSION}\n\
         commit    {}\n\
         built by  {RUSTC}\n\
         target    {TARGET}, {PROFILE}\n\
         features  {}\n",
        commit().unwrap_or("not recorded (PROXIER_COMMIT was not set when it was built)"),
        FEATURES.join(", ")
    )
}
