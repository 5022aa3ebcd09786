//! Members that the kernel lets go unless somebody renews them.

use tokio::time::Instant;

use super::Engine;
use crate::dataplane::Target;
use crate::dataplane::sets::{SetRole, SetType};
use crate::dataplane::split::EXPIRY;

impl Engine {
    /// Renews in a sync period, and often enough for one that fails to be made good.
    pub(super) fn renew_if_due(&mut self, now: Instant) {
        if self.renewal.is_none_or(|due| due > now) {
            return;
        }
        self.renewal = Some(now + self.timing.sync_period.min(EXPIRY / 4));
        let Some(settings) = &self.settings else { return };
        let expiring = |role: &SetRole| role.set_type() == SetType::Expiring;
        for role in SetRole::ALL.into_iter().filter(expiring) {
            let sets = settings.families.iter().map(|family| role.of(*family));
            self.touched.extend(sets.map(Target::Expiry));
        }
    }
}
