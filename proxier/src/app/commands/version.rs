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

pub(in crate::app) fn run(output: Output) -> anyhow::Result<ExitCode> {
    let commit = Some(env!("PROXIER_COMMIT")).filter(|commit| !commit.is_empty());
    let (rustc, target, profile) =
        (env!("PROXIER_RUSTC"), env!("PROXIER_TARGET"), env!("PROXIER_PROFILE"));
    if output == Output::Json {
        print_json(&json!({
            "version": VERSION,
            "commit": commit,
            "rustc": rustc,
            "target": target,
            "profile": profile,
            "features": FEATURES,
        }))?;
    } else {
        print(&format!(
            "proxier v{VERSION}\n\
             commit    {}\n\
             built by  {rustc}\n\
             target    {target}, {profile}\n\
             features  {}\n",
            commit.unwrap_or("not recorded (PROXIER_COMMIT was not set when it was built)"),
            FEATURES.join(", ")
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
