//! Whether IPVS counts what goes through it.

use std::fs;
use std::path::Path;

/// Off, IPVS has no statistics: they are copied by what estimates rates.
const SETTING: &str = "proc/sys/net/ipv4/vs/run_estimation";

/// Below this root (`/`). Kernels without the setting always count.
pub(in crate::app) fn is_on(root: &Path) -> bool {
    fs::read_to_string(root.join(SETTING)).map_or(true, |text| text.trim() != "0")
}
