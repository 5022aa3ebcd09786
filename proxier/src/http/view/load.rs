//! What the kernel has of the services that are shown, and what it counts.

use std::collections::BTreeMap;

use netlink_ipvs::{RealServerEntry, VirtualServerKey};
use serde::Serialize;

use super::REAL_SERVERS;
use crate::http::counters::{Counted, Table};

/// What the kernel counts of all virtual servers of a service that are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct LoadView {
    pub(in crate::http) active_connections: u64,
    pub(in crate::http) inactive_connections: u64,
    /// Null where they are not counted.
    pub(in crate::http) rates: Option<Rates>,
}

/// Each a second, as the kernel estimates it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Rates {
    pub(in crate::http) connections: u64,
    pub(in crate::http) bytes_in: u64,
    pub(in crate::http) bytes_out: u64,
}

/// A virtual server as the kernel has it.
pub(super) struct Read {
    /// With the first of its real servers.
    pub(super) counted: Counted,
    /// How many of these there are.
    pub(super) total: usize,
    /// Connections of all of them.
    active: u64,
    inactive: u64,
}

/// What the kernel has.
pub(super) type Kernel = BTreeMap<VirtualServerKey, Read>;

/// Reads them one at a time: of one with a hundred thousand real servers few are kept.
pub(super) fn count(
    table: &Table,
    keys: impl Iterator<Item = VirtualServerKey>,
) -> Result<Kernel, String> {
    let mut kernel = Kernel::new();
    for key in keys {
        for mut counted in table(&[key])? {
            let all = &counted.real_servers;
            let total = all.len();
            let active = all.iter().map(|entry| u64::from(entry.connections.active)).sum();
            let inactive = all.iter().map(|entry| u64::from(entry.connections.inactive)).sum();
            counted.real_servers.truncate(REAL_SERVERS);
            counted.real_servers.shrink_to_fit();
            kernel.insert(key, Read { counted, total, active, inactive });
        }
    }
    Ok(kernel)
}

// === impl Read ===

impl Read {
    /// Whether anything is counted of it.
    pub(super) fn counts(&self) -> bool {
        self.counted.counts
    }

    /// The first of its real servers.
    pub(super) fn real_servers(&self) -> &[RealServerEntry] {
        &self.counted.real_servers
    }

    pub(super) fn add_to(&self, load: &mut LoadView) {
        load.active_connections += self.active;
        load.inactive_connections += self.inactive;
        if self.counted.counts {
            let stats = &self.counted.server.stats;
            let rates = load.rates.get_or_insert_default();
            rates.connections += stats.connection_rate;
            rates.bytes_in += stats.byte_rate_in;
            rates.bytes_out += stats.byte_rate_out;
        }
    }
}
