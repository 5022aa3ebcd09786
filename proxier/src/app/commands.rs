//! What the program does, one file for each command.

pub(super) mod cleanup;
pub(super) mod daemon;
pub(super) mod diff;
pub(super) mod dry_run;
pub(super) mod explain;
pub(super) mod get;
pub(super) mod report;
pub(super) mod status;
pub(super) mod top;
pub(super) mod trace;
pub(super) mod version;
