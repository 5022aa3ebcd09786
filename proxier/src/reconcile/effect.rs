//! What the loop wants of a kernel.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, VirtualServerKey};

use crate::dataplane::{Plan, Query};

/// What the engine wants to be done. What came of it goes back before the next effect is asked for,
/// except for a look.
#[derive(Debug)]
pub(super) enum Effect {
    /// Read this, and give the answer to [`Engine::answered`](super::engine::Engine::answered).
    Read(Query),
    /// Begin to look at the rules of these families; [`Engine::rules_read`](super::engine::Engine::rules_read) takes what is found.
    Look(Vec<Family>),
    /// Wait for the look: nothing can be done before it has ended.
    AwaitLook,
    /// Say that these virtual servers are others', and whether they stay.
    Tell(BTreeSet<VirtualServerKey>, bool),
    /// Carry this out, and give the outcome to [`Engine::written`](super::engine::Engine::written).
    Write(Plan),
}
