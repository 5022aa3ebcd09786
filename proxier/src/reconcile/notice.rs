//! What an operator should see beside the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use netlink_ipvs::{RealServerKey, VirtualServerKey};
use tokio::sync::mpsc;

use super::HeldBack;
use crate::cluster::ObjectKey;
use crate::dataplane::{Conflict, Target};
use crate::text;

/// Something that an operator should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Services claim the same address and port.
    Conflict(Conflict),
    /// A service does not get something that it asks for; what and why, in words.
    Refused(ObjectKey, String),
    /// An annotation of a service cannot be used; which and why, in words.
    Setting(ObjectKey, String),
    /// An address that this node needs was on `kube-ipvs0` at the start; which and why, in words.
    Released(String),
    /// A draining real server was removed with its connections.
    DrainCut {
        /// The service that had it.
        service: Option<ObjectKey>,
        /// Where.
        virtual_server: VirtualServerKey,
        /// Which.
        real_server: RealServerKey,
        /// How many connections it had.
        connections: u64,
    },
    /// Somebody else has changed the kernel. It is repaired.
    Drift(Drift),
    /// The kernel could not be brought to what is wanted for a sync period; the last error.
    Failing(String),
    /// Something of a service has been held back for as long.
    HeldBack(ObjectKey, HeldBack),
}

/// What somebody else has changed in the kernel, by kind: it may be everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Drift {
    /// How many of one kind are named.
    const NAMED: usize = 3;

    /// Of these.
    pub(super) fn of<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        let mut drift = Self::default();
        for target in targets {
            drift.add(kind(target), 1, [target.to_string()]);
        }
        drift
    }

    /// Adds what was found later.
    pub fn merge(&mut self, later: Self) {
        for (kind, (count, first)) in later.0 {
            self.add(kind, count, first);
        }
    }

    fn add(&mut self, kind: &'static str, more: usize, found: impl IntoIterator<Item = String>) {
        let (count, first) = self.0.entry(kind).or_default();
        *count += more;
        let room = Self::NAMED.saturating_sub(first.len());
        first.extend(found.into_iter().take(room));
    }
}

/// `2 addresses (address 10.96.0.1, address 10.96.0.2), IPv4 firewall rules`
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, (count, first))) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { ", " } else { "" })?;
            match &**first {
                [only] if *count == 1 => f.write_str(only)?,
                first => {
                    let all = text::and_more(&first.join(", "), count - first.len());
                    write!(f, "{count} {kind} ({all})")?;
                }
            }
        }
        Ok(())
    }
}

/// What several of them are called.
fn kind(target: &Target) -> &'static str {
    match target {
        Target::Sysctl(_) => "kernel settings",
        Target::Link => "links",
        Target::Set(_) => "sets",
        Target::Member(..) => "members of sets",
        Target::ForeignMembers(_) => "sets with foreign members",
        Target::Expiry(_) => "sets whose members expire",
        Target::Firewall(_) => "families of firewall rules",
        Target::Leftover(_) => "leftovers",
        Target::VirtualServer(_) => "virtual servers",
        Target::RealServer(..) => "real servers",
        Target::Flows(_) => "virtual servers with stale UDP flows",
        Target::Address(_) => "addresses",
        Target::ForeignAddress(_) => "foreign addresses",
    }
}

/// Who hears of notices. What does not fit is not told: the loop waits for nobody.
#[derive(Debug, Default)]
pub(super) struct Notices {
    receiver: Option<mpsc::Sender<Notice>>,
    /// That it fails has been told.
    failing: bool,
    /// Of which services it has been told that something is held back.
    held_back: BTreeSet<ObjectKey>,
}

impl Notices {
    pub(super) fn to(receiver: mpsc::Sender<Notice>) -> Self {
        Self { receiver: Some(receiver), ..Self::default() }
    }

    pub(super) fn send(&self, notice: Notice) {
        if let Some(receiver) = &self.receiver {
            // One that is slow or gone misses it; the log has it.
            let _ = receiver.try_send(notice);
        }
    }

    /// After a step: tells once that it has been failing for too long.
    pub(super) fn failing(&mut self, too_long: bool, error: impl FnOnce() -> String) {
        if too_long && !self.failing {
            self.send(Notice::Failing(error()));
        }
        self.failing = too_long;
    }

    /// After a step: tells once of each service of which something has been held back for too long.
    pub(super) fn held_back<'a>(
        &mut self,
        too_long: bool,
        held: impl Iterator<Item = (Option<ObjectKey>, &'a HeldBack)>,
    ) {
        if !too_long {
            self.held_back.clear();
            return;
        }
        for (service, held) in held {
            let Some(service) = service.filter(|service| !self.held_back.contains(service)) else {
                continue;
            };
            self.send(Notice::HeldBack(service.clone(), *held));
            self.held_back.insert(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use netlink_ipvs::Family;

    use super::*;

    #[test]
    fn drift_is_named_where_it_is_little_and_counted_by_kind_where_it_is_much() {
        let address = |last| Target::Address(IpAddr::from(Ipv4Addr::new(10, 96, 0, last)));
        let rules = Target::Firewall(Family::Ipv4);
        assert_eq!(Drift::of([&address(1)]).to_string(), "address 10.96.0.1");
        let mut drift = Drift::of([&address(1), &address(2), &rules]);
        assert_eq!(
            drift.to_string(),
            "2 addresses (address 10.96.0.1, address 10.96.0.2), IPv4 firewall rules"
        );
        let later: Vec<Target> = (3..=200).map(address).chain([Target::Link]).collect();
        drift.merge(Drift::of(&later));
        assert_eq!(
            drift.to_string(),
            "200 addresses (address 10.96.0.1, address 10.96.0.2, address 10.96.0.3 and 197 more), \
             IPv4 firewall rules, link kube-ipvs0"
        );
    }
}
