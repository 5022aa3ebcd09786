//! Keeps what fails again and again from filling the log: the same warning or error is written once a
//! minute, with the number of times that it was not; and of those that one line of source code
//! writes, only so many, with the number of those left out.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::text;

/// How long the same text is not written again.
const SAME: Duration = Duration::from_mins(1);
/// So many different ones of one source line are written in so long a time.
pub(super) type Similar = (u32, Duration);
/// While the daemon runs.
pub(super) const OF_THE_DAEMON: Similar = (30, Duration::from_secs(30));
/// While a command runs, whose user is waiting for all that is wrong.
pub(super) const OF_A_COMMAND: Similar = (200, Duration::MAX);
/// Texts that are remembered.
const MOST: usize = 1000;

/// A format that leaves out repetitions.
#[derive(Debug)]
pub(super) struct Limited<F> {
    inner: F,
    /// Lines are JSON objects.
    json: bool,
    repeats: Arc<Mutex<Repeats>>,
}

/// What a format leaves out.
#[derive(Debug)]
pub(super) struct Counted(Arc<Mutex<Repeats>>);

/// What was written of late.
#[derive(Debug)]
pub(super) struct Repeats {
    most: Similar,
    /// All that was left out so far.
    left_out: u64,
    texts: HashMap<String, (Instant, u64)>,
    places: HashMap<Place, Window>,
}

/// A line of source code.
type Place = (Option<&'static str>, Option<u32>);

#[derive(Debug)]
struct Window {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What was left out before a line that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LeftOut {
    pub(super) same: u64,
    pub(super) similar: u64,
}

// === impl Repeats ===

impl Repeats {
    pub(super) fn new(most: Similar) -> Self {
        Self { most, left_out: 0, texts: HashMap::new(), places: HashMap::new() }
    }

    /// Whether a line may be written now, and what was left out before it.
    pub(super) fn allow(&mut self, text: &str, place: Place, now: Instant) -> Option<LeftOut> {
        let recent = |since: &Instant, limit| now.saturating_duration_since(*since) < limit;
        if let Some((since, same)) = self.texts.get_mut(text)
            && recent(since, SAME)
        {
            *same += 1;
            self.left_out += 1;
            return None;
        }
        let (most, span) = self.most;
        let fresh = || Window { since: now, written: 0, left_out: 0 };
        let window = self.places.entry(place).or_insert_with(fresh);
        if !recent(&window.since, span) {
            (window.since, window.written) = (now, 0);
        }
        if window.written == most {
            window.left_out += 1;
            self.left_out += 1;
            return None;
        }
        window.written += 1;
        let similar = std::mem::take(&mut window.left_out);
        if self.texts.len() >= MOST {
            self.texts.retain(|_, (since, _)| recent(since, SAME));
        }
        let had = if self.texts.len() < MOST {
            self.texts.insert(text.to_owned(), (now, 0))
        } else {
            None
        };
        Some(LeftOut { same: had.map_or(0, |(_, same)| same), similar })
    }
}

// === impl Limited ===

impl<F> Limited<F> {
    pub(super) fn new(inner: F, json: bool, most: Similar) -> Self {
        Self { inner, json, repeats: Arc::new(Mutex::new(Repeats::new(most))) }
    }

    /// What it leaves out, also after it was given away.
    pub(super) fn counted(&self) -> Counted {
        Counted(self.repeats.clone())
    }
}

// === impl Counted ===

impl Counted {
    /// Lines that were not written so far.
    pub(super) fn left_out(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left_out
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return self.inner.format_event(context, out, event);
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let place = (metadata.file(), metadata.line());
        let allowed = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            repeats.allow(&text.0, place, Instant::now())
        };
        match allowed {
            // An empty line is no line.
            None => Ok(()),
            Some(left_out) if left_out == LeftOut::default() => {
                self.inner.format_event(context, out, event)
            }
            Some(LeftOut { same, similar }) => {
                let mut line = String::new();
                self.inner.format_event(context, Writer::new(&mut line), event)?;
                let line = line.trim_end();
                if self.json {
                    let line = line.strip_suffix('}').unwrap_or(line);
                    return writeln!(out, "{line},\"repeated\":{same},\"leftOut\":{similar}}}");
                }
                out.write_str(line)?;
                if same > 0 {
                    write!(out, " (repeated {same} times)")?;
                }
                if similar > 0 {
                    write!(out, " ({similar} like this were left out)")?;
                }
                writeln!(out)
            }
        }
    }
}

/// The fields of an event as one text.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // How often something has failed already makes no difference.
        if !matches!(field.name(), "failures" | "suppressed") {
            // Writing to a string does not fail.
            let _ = write!(self.0, "{}={} ", field.name(), text::line(format_args!("{value:?}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = (Some("here.rs"), Some(1));
    const THERE: Place = (Some("there.rs"), Some(2));

    const fn left_out(same: u64, similar: u64) -> LeftOut {
        LeftOut { same, similar }
    }

    #[test]
    fn the_same_text_is_written_once_a_minute_with_a_count() {
        let (mut repeats, start) = (Repeats::new(OF_THE_DAEMON), Instant::now());
        assert_eq!(repeats.allow("a", HERE, start), Some(left_out(0, 0)));
        assert_eq!(repeats.allow("b", HERE, start), Some(left_out(0, 0)));
        for n in 0..41 {
            assert_eq!(repeats.allow("a", HERE, start + Duration::from_secs(n)), None);
        }
        assert_eq!(repeats.allow("a", HERE, start + SAME), Some(left_out(41, 0)));
        assert_eq!(repeats.allow("a", HERE, start + SAME * 3), Some(left_out(0, 0)));
    }

    #[test]
    fn ten_thousand_different_texts_of_one_place_are_a_few_lines() {
        let (mut repeats, start) = (Repeats::new(OF_THE_DAEMON), Instant::now());
        let texts = || (0..10_000).map(|n| format!("op {n}"));
        let written = texts().filter(|text| repeats.allow(text, HERE, start).is_some()).count();
        assert_eq!(written, 30);
        assert_eq!(
            repeats.allow("else", THERE, start),
            Some(left_out(0, 0)),
            "other places have their own"
        );
        assert_eq!(
            repeats.allow("next", HERE, start + OF_THE_DAEMON.1),
            Some(left_out(0, 10_000 - 30))
        );
        assert!(repeats.texts.len() <= MOST);
    }
}
