//! What an operator should see beside the log.

use std::collections::BTreeSet;

use netlink_ipvs::{RealServerKey, VirtualServerKey};
use tokio::sync::mpsc;

use super::HeldBack;
use crate::cluster::ObjectKey;
use crate::dataplane::Conflict;

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
    /// Somebody else has changed the kernel; what, in words. It is repaired.
    Drift(String),
    /// The kernel could not be brought to what is wanted for a sync period; the last error.
    Failing(String),
    /// Something of a service has been held back for as long.
    HeldBack(ObjectKey, HeldBack),
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
