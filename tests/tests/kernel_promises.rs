//! What the loop promises when something fails, on a real kernel and read back with the tools of
//! others: foreign things are repaired, a failure stops nothing else, nothing is open that is to be
//! closed, and a daemon that cannot work costs little.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

#[path = "kernel_promises/closed.rs"]
mod closed;
#[path = "kernel_promises/foreign.rs"]
mod foreign;
#[path = "kernel_promises/host.rs"]
mod host;
#[path = "kernel_promises/ownership.rs"]
mod ownership;
#[path = "kernel_promises/programs.rs"]
mod programs;
#[path = "kernel_promises/replaced.rs"]
mod replaced;
#[path = "kernel_promises/unreadable.rs"]
mod unreadable;
