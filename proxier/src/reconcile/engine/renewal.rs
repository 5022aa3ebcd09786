//! Members that the kernel lets go unless somebody renews them.

use tokio::time::Instant;

use super::Engine;
use crate::dataplane::Target;
use crate::dataplane::sets::{SetRole, SetType};
use crate::dataplane::split::{EXPIRY, LocalPolicy};

impl Engine {
    /// When they are renewed next, if there are any.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let sets = &self.believed.state().sets;
        let any = sets
            .iter()
            .any(|(set, known)| set.set_type() == SetType::Expiring && !known.members.is_empty());
        self.renewal.filter(|_| any)
    }

    pub(super) fn renew_if_due(&mut self, now: Instant) {
        if self.next_renewal().is_some_and(|due| due <= now) {
            self.renew(now);
        }
    }

    /// Renews all, and again when three more times may fail until they are gone. Without the split nothing
    /// that expires is wanted.
    pub(super) fn renew(&mut self, now: Instant) {
        let settings = self.settings.as_ref();
        let Some(settings) = settings.filter(|of| of.local_policy == LocalPolicy::Split) else {
            self.renewal = None;
            return;
        };
        self.renewal = Some(now + EXPIRY / 4);
        let expiring = |role: &SetRole| role.set_type() == SetType::Expiring;
        for role in SetRole::ALL.into_iter().filter(expiring) {
            let sets = settings.families.iter().map(|family| role.of(*family));
            self.touched.extend(sets.map(Target::Expiry));
        }
    }
}
