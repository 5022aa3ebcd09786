//! Whether IPVS counts what goes through it.

use std::fs;

/// Off, IPVS has no statistics: they are copied by what estimates rates.
const SETTING: &str = "/proc/sys/net/ipv4/vs/run_estimation";

/// What to say of counters that stay 0.
pub(in crate::app) const OFF: &str = "connections, packets and bytes are not counted: net.ipv4.vs.run_estimation \
     is 0; --ipvs-run-estimation=true, or `sysctl -w net.ipv4.vs.run_estimation=1`, has them counted from then on";

/// Kernels without the setting always count.
pub(in crate::app) fn is_on() -> bool {
    fs::read_to_string(SETTING).map_or(true, |text| text.trim() != "0")
}
