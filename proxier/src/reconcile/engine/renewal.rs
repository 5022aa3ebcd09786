//! Members that the kernel lets go unless somebody renews them.

use netlink_ipvs::Family;
use tokio::time::Instant;

use super::Engine;
use crate::dataplane::Target;
use crate::dataplane::sets::{SetId, SetRole, SetType};
use crate::dataplane::split::{EXPIRY, LocalPolicy};

impl Engine {
    /// When they are renewed next, if there are any.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let due = self.renewal?;
        let known = &self.believed.state().sets;
        let has_members = |set: SetId| known.get(&set).is_some_and(|set| !set.members.is_empty());
        expiring(&self.settings.as_ref()?.families).any(has_members).then_some(due)
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
        self.touched.extend(expiring(&settings.families).map(Target::Expiry));
    }
}

/// The sets that they are in.
fn expiring(families: &[Family]) -> impl Iterator<Item = SetId> {
    let expire = |role: &SetRole| role.set_type() == SetType::Expiring;
    let roles = SetRole::ALL.into_iter().filter(expire);
    roles.flat_map(|role| families.iter().map(move |family| role.of(*family)))
}
