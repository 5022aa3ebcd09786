//! Rules and sets in the kernel, by either backend.

mod iptables;
mod nftables;

use netlink_ipvs::Family;

pub use self::iptables::Iptables;
pub use self::nftables::{Doubt, Nftables};
use crate::dataplane::firewall::Backend;
use crate::dataplane::sets::SetId;
use crate::dataplane::{Look, Op, OpError, SetState};

/// Operations that failed, by their place among those that were given, in ascending order.
pub type Failures = Vec<(usize, OpError)>;

/// What keeps rules and sets.
#[derive(Debug)]
pub enum Filter {
    /// iptables and ipset.
    Iptables(Iptables),
    /// One table of nftables for each family.
    Nftables(Nftables),
}

/// What was found of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This; or there is none.
    State(Option<SetState>),
    /// Nobody has changed it since it was last read or written.
    Unchanged,
}

impl Filter {
    /// Which it is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Iptables(_) => Backend::Iptables,
            Self::Nftables(_) => Backend::Nftables,
        }
    }

    /// By what to say that others have changed something; only nftables tells of that.
    pub fn doubt(&self) -> Option<Doubt> {
        match self {
            Self::Iptables(_) => None,
            Self::Nftables(filter) => Some(filter.doubt()),
        }
    }

    /// Processes started so far.
    pub(super) fn processes_started(&self) -> u64 {
        match self {
            Self::Iptables(filter) => filter.firewall.processes_started(),
            Self::Nftables(filter) => filter.processes_started(),
        }
    }

    pub(super) fn set(&mut self, set: SetId) -> Result<Found, OpError> {
        match self {
            Self::Iptables(filter) => filter.set(set).map(Found::State),
            Self::Nftables(filter) => filter.set(set),
        }
    }

    pub(super) fn look(&mut self, families: &[Family]) -> Look {
        match self {
            Self::Iptables(filter) => filter.look(families),
            Self::Nftables(filter) => filter.look(families),
        }
    }

    /// Carries out operations on rules, sets and leftovers that stand together in a plan.
    pub(super) fn execute(&mut self, ops: &[&Op]) -> Failures {
        match self {
            Self::Iptables(filter) => filter.execute(ops),
            Self::Nftables(filter) => filter.execute(ops),
        }
    }
}
