//! Handing a node over to kube-proxy in another mode: when that has everything, and when nothing is left
//! that needs the virtual servers.
//!
//! nftables and iptables translate a packet's destination before IPVS sees it. So both can be there: once
//! the other has a Service, its new connections are the other's, and IPVS serves those that are open.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::leftovers::Leftover;
use super::{Frontend, FrontendKind, Settings};

/// The mode of kube-proxy to which a node is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// Its table of nftables.
    Nftables,
    /// Its chains of iptables.
    Iptables,
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nftables => "kube-proxy in nftables mode",
            Self::Iptables => "kube-proxy in iptables mode",
        })
    }
}

impl Settings {
    /// Whether something is to be removed that others have left, given all of it. The successor's is
    /// not. Chains of IPVS mode have names of iptables mode: where that has begun, they may be its own.
    pub fn removes(&self, leftover: Leftover, there: &BTreeSet<Leftover>) -> bool {
        match (self.successor, leftover) {
            (Some(Successor::Nftables), Leftover::Nftables(_))
            | (Some(Successor::Iptables), Leftover::Iptables(_)) => false,
            (Some(Successor::Iptables), Leftover::Ipvs(family)) => {
                !there.contains(&Leftover::Iptables(family))
            }
            _ => true,
        }
    }

    /// Whether the rules of a family are to replace those of iptables mode, which take its packets until then.
    pub(crate) fn takes_over(&self, family: Family, there: &BTreeSet<Leftover>) -> bool {
        let left = Leftover::Iptables(family);
        there.contains(&left) && self.removes(left, there)
    }

    /// Whether others' rules, which are to go, do the work of a family until ours are there. Then ours come
    /// after the members of all sets: a packet that is between two of our rules while members come might be
    /// refused, as one to an address of a service but to none of its ports.
    pub(crate) fn rules_come_last(&self, family: Family, there: &BTreeSet<Leftover>) -> bool {
        let others =
            [Leftover::Iptables(family), Leftover::OwnTable(family), Leftover::Ipvs(family)];
        others.iter().any(|left| there.contains(left) && self.removes(*left, there))
    }
}

/// What the successor has in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Service addresses with their ports.
    pub addresses: BTreeSet<VirtualServerKey>,
    /// Node ports, on whichever addresses of the node.
    pub node_ports: BTreeSet<(Protocol, u16)>,
}

impl Served {
    /// Those of these frontends that it does not have.
    pub fn lacks<'a>(
        &self,
        frontends: impl IntoIterator<Item = &'a Frontend>,
    ) -> BTreeSet<VirtualServerKey> {
        let missing = |frontend: &&Frontend| !self.has(frontend);
        frontends.into_iter().filter(missing).map(|frontend| frontend.key).collect()
    }

    fn has(&self, frontend: &Frontend) -> bool {
        let node_port = match frontend.key {
            VirtualServerKey::Address { port, protocol, .. } => {
                frontend.kind == FrontendKind::NodePort
                    && self.node_ports.contains(&(protocol, port))
            }
            VirtualServerKey::FirewallMark { .. } => false,
        };
        node_port || self.addresses.contains(&frontend.key)
    }
}

/// How far a hand-over is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The successor does not have these yet.
    Waits(BTreeSet<VirtualServerKey>),
    /// New connections are the successor's; open ones are served.
    Drains {
        /// Since when.
        since: Instant,
        /// Connections at the beginning.
        first: u64,
        /// Connections that are left.
        left: u64,
    },
    /// Nothing needs the virtual servers any more.
    Over {
        /// Connections that have ended by themselves.
        drained: u64,
        /// Connections that are cut, since the limit was reached.
        cut: u64,
        /// How long it took.
        took: Duration,
    },
}

/// What was seen at one moment.
#[derive(Debug, Clone)]
pub struct Sight {
    /// What the successor does not have.
    pub lacking: BTreeSet<VirtualServerKey>,
    /// Connections through virtual servers; none if somebody has removed some of these, since nobody knows
    /// then how many wait for them to be put back.
    pub connections: Option<u64>,
    /// When.
    pub now: Instant,
}

impl Stage {
    /// What follows from what was seen. Draining takes at most `limit`. A successor that has lost
    /// something is waited for again.
    #[must_use]
    pub fn next(self, sight: Sight, limit: Duration) -> Self {
        let Sight { lacking, connections, now } = sight;
        match (self, connections) {
            (Self::Over { drained, cut, took }, _) => Self::Over { drained, cut, took },
            _ if !lacking.is_empty() => Self::Waits(lacking),
            (Self::Waits(_), None) => Self::Waits(lacking),
            (Self::Waits(_), Some(first)) => {
                Self::Drains { since: now, first, left: first }.unless_over(now, limit)
            }
            (Self::Drains { since, first, left }, seen) => {
                let left = seen.unwrap_or(left);
                // What was under way when the others were counted.
                let first = first.max(left);
                Self::Drains { since, first, left }.unless_over(now, limit)
            }
        }
    }

    fn unless_over(self, now: Instant, limit: Duration) -> Self {
        match self {
            Self::Drains { since, first, left }
                if left == 0 || now.saturating_duration_since(since) >= limit =>
            {
                let took = now.saturating_duration_since(since);
                Self::Over { drained: first.saturating_sub(left), cut: left, took }
            }
            other => other,
        }
    }
}

/// For people.
impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(lacking) => match lacking.first() {
                Some(one) => write!(f, "it lacks {} of ours, such as {one}", lacking.len()),
                None => f.write_str("it has everything"),
            },
            Self::Drains { first, left, .. } => {
                write!(f, "it has everything; {left} of {first} connections are open here")
            }
            Self::Over { drained, cut, took } => {
                write!(f, "{drained} connections drained within {} s, {cut} cut", took.as_secs())
            }
        }
    }
}

#[cfg(test)]
mod tests;
