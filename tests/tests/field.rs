//! Inputs from the field (`tests/field`): small files written after reports of people who run service
//! proxies, each with the right answer. `siblings` of the same kind are beside them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "field/explain.rs"]
mod explain;
#[path = "field/files.rs"]
mod files;
#[path = "field/reserved.rs"]
mod reserved;
#[path = "field/transactions.rs"]
mod transactions;

use std::path::PathBuf;

/// An input.
fn input(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("field").join(name)
}
