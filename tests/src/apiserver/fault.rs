//! Misbehaviour on command.

use std::time::Duration;

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Lists of a kind (plural).
    List(&'static str),
    /// Watches of a kind, of both sorts.
    Watch(&'static str),
    /// Watches of a kind that ask for initial events.
    Streaming(&'static str),
    /// Everything about a kind.
    Any(&'static str),
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The answer is a Status with this code.
    Refuse {
        /// HTTP status code.
        code: u16,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// No answer at all.
    Silence,
    /// An answer of success with this body in place of the real one.
    Body(String),
    /// The body breaks off after that many bytes, without an orderly end.
    Cut {
        /// Bytes.
        after: usize,
    },
    /// The body stops after that many bytes, and the connection stays open.
    Stall {
        /// Bytes.
        after: usize,
    },
    /// That many events, then the middle of one, then an orderly end of the body.
    HalfEvent {
        /// Whole events.
        after: usize,
    },
    /// An orderly end after that many events.
    End {
        /// Events.
        after: usize,
    },
    /// A line in place of the event after so many.
    Line {
        /// Events before it.
        after: usize,
        /// Without newline.
        line: String,
    },
    /// Each event twice.
    Duplicate,
    /// Events of one moment in the opposite order.
    Reverse,
    /// Pauses between pieces of one byte and more.
    Slow {
        /// Bytes in one piece.
        piece: usize,
        /// Between pieces.
        pause: Duration,
    },
    /// Initial events come without the bookmark that ends them, as from a server that does not know
    /// them.
    NoInitialEnd,
}

#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(On, usize, Fault)>);

impl Faults {
    pub(super) fn add(&mut self, on: On, times: usize, fault: Fault) {
        self.0.push((on, times, fault));
    }

    pub(super) fn pending(&self) -> usize {
        self.0.iter().map(|(_, times, _)| times).sum()
    }

    /// The first fault that is for this request.
    pub(super) fn take(&mut self, resource: &str, watch: bool, streaming: bool) -> Option<Fault> {
        let (_, times, fault) = self.0.iter_mut().find(|(on, times, _)| {
            *times > 0
                && match on {
                    On::List(kind) => *kind == resource && !watch,
                    On::Watch(kind) => *kind == resource && watch,
                    On::Streaming(kind) => *kind == resource && streaming,
                    On::Any(kind) => *kind == resource,
                }
        })?;
        *times -= 1;
        Some(fault.clone())
    }
}
