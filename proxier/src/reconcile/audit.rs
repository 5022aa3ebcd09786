//! Reading everything, piece by piece: when the loop begins, and once in a while after that.
//!
//! ```text
//!            due                                               all listed
//!   Idle ─────────▶ Sysctls ─▶ Interface ─▶ Sets ─▶ Listing ─────────────▶ RealServers ─▶ Idle
//!    │                                               │  ▲                     │  ▲
//!    └── a look at the rules goes on beside it       ▼  │ a suspect is read   ▼  │
//!                                                  by itself before it counts as drift
//! ```
//!
//! So that no change waits for all of it, an audit goes on between events, each piece followed by a
//! pause. The first one does not pause, and takes what it finds instead of comparing it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use netlink_ipvs::{Family, VirtualServerKey};
use tokio::time::Instant;

use crate::dataplane::sets::SetId;
use crate::dataplane::{Part, Query, RulesState, Settings, Target};

/// Virtual servers whose real servers are read at once: a millisecond. About as many are listed at
/// once.
const SLICE: usize = 16;
/// Of the time until everything was read, one part in so many goes into reading.
const SHARE: u32 = 10;
/// Events hasten an audit at most so often.
const HASTE: Duration = Duration::from_secs(1);

/// What is read next.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    Sysctls,
    Interface,
    Sets(VecDeque<SetId>),
    /// With the virtual servers seen so far; none before the list has begun.
    Listing(Option<HashSet<VirtualServerKey>>),
    RealServers(Vec<VirtualServerKey>),
}

/// The look at the rules.
#[derive(Debug, Default)]
enum Rules {
    #[default]
    Idle,
    /// To be begun.
    Due(BTreeSet<Family>),
    /// Under way, with what was believed when it began, and the families that have to be looked at
    /// again since then.
    Looking(Vec<(Family, RulesState)>, BTreeSet<Family>),
}

/// An audit and what it has still to read.
#[derive(Debug)]
pub(super) struct Audit {
    /// When the next one begins.
    due: Instant,
    /// Before this, no event makes one begin.
    no_haste_before: Instant,
    stage: Stage,
    rules: Rules,
    /// Virtual servers that are not as believed, or were not when they were listed.
    suspects: BTreeSet<VirtualServerKey>,
    /// What turned out not to be as believed among them.
    pub(super) drift: BTreeSet<Target>,
    /// Virtual servers with connections to count of real servers that drain.
    counting: Vec<VirtualServerKey>,
    /// The next piece, not before.
    not_before: Instant,
    /// When all of it is to be read.
    until: Instant,
    /// An audit has ended and its result has not been reported.
    pub(super) ended: bool,
}

impl Audit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now,
            no_haste_before: now,
            stage: Stage::Idle,
            rules: Rules::Idle,
            suspects: BTreeSet::new(),
            drift: BTreeSet::new(),
            counting: Vec::new(),
            not_before: now,
            until: now,
            ended: false,
        }
    }

    /// Begins, if it is time and the one before has ended.
    pub(super) fn begin_if_due(&mut self, now: Instant, period: Duration, settings: &Settings) {
        if now >= self.due && !self.is_reading() {
            (self.due, self.until, self.not_before) = (now + period, now + period / 2, now);
            self.stage = Stage::Sysctls;
            self.rules = Rules::Due(settings.families.iter().copied().collect());
        }
    }

    /// Something else may have changed the kernel: the next audit begins soon.
    pub(super) fn hasten(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.no_haste_before));
        self.no_haste_before = self.due + HASTE;
    }

    /// The period has changed.
    pub(super) fn within(&mut self, now: Instant, period: Duration) {
        self.due = self.due.min(now + period);
    }

    /// Whether it is under way.
    pub(super) fn is_reading(&self) -> bool {
        self.has_piece() || !matches!(self.rules, Rules::Idle)
    }

    fn has_piece(&self) -> bool {
        !matches!(self.stage, Stage::Idle) || !self.suspects.is_empty()
    }

    /// When it has something to do by itself.
    pub(super) fn next_wake(&self) -> Instant {
        if self.has_piece() || !self.counting.is_empty() || matches!(self.rules, Rules::Due(_)) {
            self.not_before
        } else if self.is_reading() {
            // The look wakes the loop.
            self.due.max(self.until)
        } else {
            self.due
        }
    }

    /// Whether a pause is over.
    pub(super) fn may_read(&self, now: Instant) -> bool {
        self.not_before <= now
    }

    /// The next thing to read, which is being read from now on.
    pub(super) fn next(&mut self, settings: &Settings) -> Option<Query> {
        if !self.suspects.is_empty() {
            return Some(Query::VirtualServers(self.some_suspects()));
        }
        if !self.counting.is_empty() {
            return Some(Query::RealServers(slice(&mut self.counting)));
        }
        loop {
            match &mut self.stage {
                Stage::Idle => return None,
                Stage::Sysctls => {
                    self.stage = Stage::Interface;
                    if !settings.sysctls.is_empty() {
                        return Some(Query::Sysctls(settings.sysctls.clone()));
                    }
                }
                Stage::Interface => {
                    let ours = |set: &SetId| settings.families.contains(&set.family);
                    self.stage = Stage::Sets(SetId::all().filter(ours).collect());
                    return Some(Query::Interface);
                }
                Stage::Sets(sets) => match sets.pop_front() {
                    Some(set) => return Some(Query::Set(set)),
                    None => self.stage = Stage::Listing(None),
                },
                Stage::Listing(seen) => {
                    let begin = seen.is_none();
                    seen.get_or_insert_default();
                    return Some(Query::List { begin });
                }
                Stage::RealServers(keys) if keys.is_empty() => {
                    self.stage = Stage::Idle;
                    self.ended = true;
                }
                Stage::RealServers(keys) => return Some(Query::RealServers(slice(keys))),
            }
        }
    }

    /// The families whose rules are to be looked at, which begins now; with what is believed of
    /// them.
    pub(super) fn begin_look(
        &mut self,
        may_look: impl Fn(&Family) -> bool,
        believed: impl Fn(Family) -> RulesState,
    ) -> Option<Vec<Family>> {
        let Rules::Due(families) = &mut self.rules else { return None };
        let families: Vec<Family> = std::mem::take(families).into_iter().filter(may_look).collect();
        if families.is_empty() {
            self.rules = Rules::Idle;
            return None;
        }
        let known = families.iter().map(|family| (*family, believed(*family)));
        self.rules = Rules::Looking(known.collect(), BTreeSet::new());
        Some(families)
    }

    /// The look has ended: what was believed when it began of the families for which it counts.
    pub(super) fn end_look(&mut self) -> BTreeMap<Family, RulesState> {
        let Rules::Looking(known, again) = std::mem::take(&mut self.rules) else {
            return BTreeMap::new();
        };
        let counts = known.into_iter().filter(|(family, _)| !again.contains(family)).collect();
        if !again.is_empty() {
            self.rules = Rules::Due(again);
        }
        counts
    }

    pub(super) fn is_looking(&self) -> bool {
        matches!(self.rules, Rules::Looking(..))
    }

    /// Looks at the rules of a family; what a look finds that is under way is out of date.
    pub(super) fn look_again(&mut self, family: Family) {
        match &mut self.rules {
            Rules::Due(families) | Rules::Looking(_, families) => _ = families.insert(family),
            Rules::Idle => self.rules = Rules::Due([family].into()),
        }
    }

    /// These were in the list.
    pub(super) fn listed(&mut self, keys: impl Iterator<Item = VirtualServerKey>) {
        if let Stage::Listing(Some(seen)) = &mut self.stage {
            seen.extend(keys);
        }
    }

    /// The list has ended: which of these were not in it. Their real servers come next.
    pub(super) fn list_ended(&mut self, known: Vec<VirtualServerKey>) -> Vec<VirtualServerKey> {
        let Stage::Listing(Some(seen)) = std::mem::take(&mut self.stage) else { return Vec::new() };
        let missing = known.iter().copied().filter(|key| !seen.contains(key)).collect();
        self.stage = Stage::RealServers(known);
        missing
    }

    /// A part is not read: a list has its end with it.
    pub(super) fn skip(&mut self, part: Part) {
        if part == Part::VirtualServers {
            self.stage = Stage::Idle;
            self.ended = true;
        }
    }

    /// Lists virtual servers anew, if nothing else is being read.
    pub(super) fn list_again(&mut self) {
        if matches!(self.stage, Stage::Idle) {
            self.stage = Stage::Listing(None);
        }
    }

    /// A virtual server may not be as believed.
    pub(super) fn suspect(&mut self, keys: impl IntoIterator<Item = VirtualServerKey>) {
        self.suspects.extend(keys);
    }

    /// Whether there are connections to count.
    pub(super) fn is_counting(&self) -> bool {
        !self.counting.is_empty()
    }

    /// Whether every suspect has been read.
    pub(super) fn no_suspects(&self) -> bool {
        self.suspects.is_empty()
    }

    fn some_suspects(&mut self) -> Vec<VirtualServerKey> {
        std::iter::from_fn(|| self.suspects.pop_first()).take(SLICE).collect()
    }

    /// Connections of these are to be counted.
    pub(super) fn count(&mut self, now: Instant, keys: Vec<VirtualServerKey>, within: Duration) {
        if !self.is_reading() && self.counting.is_empty() {
            (self.until, self.not_before) = (now + within, now);
        }
        if self.counting.is_empty() {
            self.counting = keys;
        }
    }

    /// Leaves the processor to others after a piece that took so long: long enough that reading
    /// stays a small share, short enough that all of it is read in time. What may have to be
    /// repaired does not wait.
    pub(super) fn pause(&mut self, now: Instant, took: Duration, virtual_servers: usize) {
        if !self.suspects.is_empty() {
            self.not_before = now;
            return;
        }
        // After a list of virtual servers come their real servers.
        let servers = self.counting.len()
            + match &self.stage {
                Stage::Idle => 0,
                Stage::RealServers(keys) => keys.len(),
                Stage::Listing(Some(seen)) => 2 * virtual_servers - virtual_servers.min(seen.len()),
                Stage::Sysctls | Stage::Interface | Stage::Sets(_) | Stage::Listing(None) => {
                    2 * virtual_servers
                }
            };
        let sets = if let Stage::Sets(sets) = &self.stage { sets.len() } else { 0 };
        let left = u32::try_from(sets + servers / SLICE + 1).unwrap_or(u32::MAX);
        let rest = self.until.saturating_duration_since(now);
        let spare = (rest / left).saturating_sub(took);
        self.not_before = now + (took * (SHARE - 1)).min(spare);
    }
}

/// Takes the next few.
fn slice(keys: &mut Vec<VirtualServerKey>) -> Vec<VirtualServerKey> {
    keys.split_off(keys.len().saturating_sub(SLICE))
}
