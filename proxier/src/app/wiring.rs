//! What the loop is connected to.

pub(super) mod counters;
pub(super) mod ending;
pub(super) mod feed;
pub(super) mod hand_over;
pub(super) mod notices;
pub(super) mod reload;
pub(super) mod rulesets;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::reconcile::{Resolver, Timing};
use crate::settings::{Abilities, settings};

/// How often the connections of draining real servers are counted.
const DRAIN_CHECK: Duration = Duration::from_secs(5);

/// How the loop is to work by a configuration.
pub(super) fn program(config: &Arc<Config>, abilities: &Abilities) -> (Resolver, Timing) {
    let timing = Timing {
        sync_period: config.sync_period,
        min_sync_period: config.min_sync_period,
        drain_timeout: config.drain_timeout,
        drain_check: DRAIN_CHECK,
    };
    let (config, abilities) = (Arc::clone(config), abilities.clone());
    (Resolver::new(move |node, host| settings(&config, &abilities, node, host)), timing)
}
