//! How the whole is doing, and what somebody has to look at although the kernel is as it is wanted.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use super::{Current, Refused, Watch};
use crate::dataplane::Refusal;
use crate::reconcile::Status;
use crate::text;

/// A watch that was silent for longer has lost its server: bookmarks come every minute.
pub(super) const SILENT: Duration = Duration::from_mins(5);

/// How the whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not everything has been read from the cluster.
    Reading,
    /// The kernel is as it is wanted, and nothing is to be looked at.
    InSync,
    /// The kernel is as it is wanted; what is wanted is not what somebody meant, or may be out of date.
    NeedsAttention,
    /// Something that is wanted cannot be programmed.
    NotInSync,
    /// Syncing fails, or the loop is silent, for so long that load balancers are told.
    Unhealthy,
}

/// Something to be looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attention {
    /// One of [`Attention::KINDS`].
    pub(super) kind: &'static str,
    pub(super) what: String,
    pub(super) seconds: u64,
    /// What to do.
    pub(super) then: String,
}

// === impl State ===

impl State {
    const ALL: [Self; 5] =
        [Self::Reading, Self::InSync, Self::NeedsAttention, Self::NotInSync, Self::Unhealthy];

    /// As people and `/status.json` have it.
    const fn words(self) -> &'static str {
        match self {
            Self::Reading => "reading the cluster",
            Self::InSync => "in sync",
            Self::NeedsAttention => "in sync, needs attention",
            Self::NotInSync => "not in sync",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// The state of these words.
    pub(crate) fn by_words(words: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.words() == words)
    }

    pub(super) fn of(status: &Status, healthy: bool, attention: &[Attention]) -> Self {
        match (status.complete, status.synced, healthy, attention) {
            (false, ..) => Self::Reading,
            (_, false, ..) => Self::NotInSync,
            (_, _, false, _) => Self::Unhealthy,
            (.., []) => Self::InSync,
            _ => Self::NeedsAttention,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Attention ===

impl Attention {
    /// What there can be to look at.
    pub(super) const KINDS: [&str; 6] =
        ["listen", "configuration", "manifests", "watch", "conflict", "refused"];

    /// What is to be looked at now, in the order in which it should be.
    pub(super) fn of(
        status: &Status,
        current: &Current,
        watches: &[Watch],
        deaf: Option<&Refused>,
    ) -> Vec<Self> {
        let of_watches = watches.iter().filter_map(Self::watch);
        let others = [Self::conflict(status), Self::refused(status)];
        let files =
            [deaf.map(Self::listen), Self::configuration(current), Self::manifests(current)];
        let all = files.into_iter().flatten().chain(of_watches);
        all.chain(others.into_iter().flatten()).collect()
    }

    fn new(kind: &'static str, since: Option<Instant>, what: String, then: &str) -> Self {
        let seconds = since.map_or(0, |since| since.elapsed().as_secs());
        Self { kind, what, seconds, then: then.to_owned() }
    }

    fn listen(deaf: &Refused) -> Self {
        let then = "look whether kube-proxy still runs on this node: who asks there is answered by another program";
        Self::new("listen", Some(deaf.since), text::line(&deaf.why).to_string(), then)
    }

    fn configuration(current: &Current) -> Option<Self> {
        let refused = current.refused.as_ref()?;
        let what = format!(
            "the configuration file has changed and cannot be used; what it said before is in force: {}",
            text::line(&refused.why)
        );
        Some(Self::new("configuration", Some(refused.since), what, "mend the file"))
    }

    fn manifests(current: &Current) -> Option<Self> {
        let refused = current.manifests.as_ref()?;
        let what = format!(
            "not all manifests can be read; the rest, and what they said before, is in force: {}",
            text::line(&refused.why)
        );
        let then = "mend the file; proxier --dry-run --strict --manifests FILE says what is wrong";
        Some(Self::new("manifests", Some(refused.since), what, then))
    }

    fn watch(watch: &Watch) -> Option<Self> {
        let silence = watch.silence.filter(|silence| *silence > SILENT)?;
        let resource = watch.resource;
        let what = format!("no word of {resource} from the API server; the last state stays");
        let then = "the log says what the server answers";
        Some(Self { seconds: silence.as_secs(), ..Self::new("watch", None, what, then) })
    }

    fn conflict(status: &Status) -> Option<Self> {
        let (key, conflict) = status.conflicts.iter().next()?;
        let loser = conflict.losers.first().map(ToString::to_string).unwrap_or_default();
        let what = format!(
            "{}claimed by more than one Service: {key} goes to {}, not to {loser}",
            match status.conflicts.len() {
                1 => "an address and port is ".to_owned(),
                all => format!("{all} addresses and ports are "),
            },
            conflict.winner,
        );
        let then = format!("proxier explain {key}");
        Some(Self::new("conflict", status.conflicts_since, what, &then))
    }

    fn refused(status: &Status) -> Option<Self> {
        let told = status.refused.iter().filter(|(kind, _)| Refusal::is_told_kind(kind));
        let counts: Vec<(&str, usize)> =
            told.map(|(kind, count)| (*kind, *count)).filter(|(_, count)| *count > 0).collect();
        let all: usize = counts.iter().map(|(_, count)| count).sum();
        let by: Vec<String> =
            counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let what = match all {
            0 => return None,
            1 => format!("an address that a Service asks for is left out ({})", by.join(", ")),
            _ => format!("{all} addresses that Services ask for are left out ({})", by.join(", ")),
        };
        let then = "Events and the log name the Services; proxier explain says why";
        Some(Self::new("refused", status.refused_since, what, then))
    }
}
