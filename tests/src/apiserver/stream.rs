//! Bodies of watches, and bodies that go wrong.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use hyper::body::Bytes;
use serde_json::json;

use super::Shared;
use super::fault::Fault;
use super::http::Query;
use super::store::{Stored, line, metadata_of};

/// A piece of a body, or its violent end.
pub(super) type Piece = Result<Bytes, Broken>;

/// The body ends without an end.
#[derive(Debug)]
pub(super) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on command")
    }
}

impl std::error::Error for Broken {}

/// One open watch.
struct Watch {
    query: Query,
    shared: Arc<Shared>,
    after: u64,
    epoch: u64,
    bookmarks: u64,
    lines: VecDeque<String>,
    changed: tokio::sync::watch::Receiver<u64>,
    reverse: bool,
}

/// The lines of a watch. What exists when it begins is decided at once.
pub(super) fn watch(
    query: Query,
    fault: Option<Fault>,
    shared: Arc<Shared>,
    after: u64,
) -> std::pin::Pin<Box<dyn Stream<Item = Piece> + Send>> {
    let changed = shared.changed.subscribe();
    let mut lines = VecDeque::new();
    let (mut after, epoch, bookmarks) = {
        let state = shared.lock();
        if query.streaming {
            for object in state.store.selected(&query.resource, &query.selector) {
                lines.push_back(line("ADDED", &show(&query)(&object)));
            }
            if fault != Some(Fault::NoInitialEnd) {
                lines.push_back(bookmark(state.store.version(), true));
            }
        }
        (if query.streaming { state.store.version() } else { after }, state.epoch, state.bookmarks)
    };
    if query.streaming {
        after = after.max(1);
    }
    let reverse = fault == Some(Fault::Reverse);
    let watch = Watch { query, shared, after, epoch, bookmarks, lines, changed, reverse };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    misbehave(lines, fault)
}

impl Watch {
    /// The next line; `None` where the watch is cut.
    async fn next(&mut self) -> Option<Result<String, Broken>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            self.changed.mark_unchanged();
            {
                let state = self.shared.lock();
                if state.epoch != self.epoch {
                    return Some(Err(Broken));
                }
                let Query { resource, selector, .. } = &self.query;
                let events = state.store.events(resource, selector, self.after, show(&self.query));
                // What is of other kinds need not be looked through again.
                self.after = self.after.max(state.store.version());
                for line in events {
                    if self.reverse {
                        self.lines.push_front(line);
                    } else {
                        self.lines.push_back(line);
                    }
                }
                if state.bookmarks > self.bookmarks && self.query.bookmarks {
                    self.bookmarks = state.bookmarks;
                    self.lines.push_back(bookmark(state.store.version(), false));
                }
            }
            if self.lines.is_empty() && self.changed.changed().await.is_err() {
                return None;
            }
        }
    }
}

/// How objects are sent.
fn show(query: &Query) -> fn(&Stored) -> String {
    if query.metadata { metadata_of } else { Stored::to_string }
}

fn bookmark(version: u64, initial_end: bool) -> String {
    let mut object = json!({"metadata": {"resourceVersion": version.to_string()}});
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    line("BOOKMARK", &object)
}

/// Applies a fault that counts events; those that count bytes are left to [`faulty_stream`].
fn misbehave(
    lines: impl Stream<Item = Result<String, Broken>> + Send + 'static,
    fault: Option<Fault>,
) -> std::pin::Pin<Box<dyn Stream<Item = Piece> + Send>> {
    let bytes = |line: String| Ok(Bytes::from(line.into_bytes()));
    match fault {
        Some(Fault::HalfEvent { after }) => {
            let ended = lines.take(after + 1).enumerate().map(move |(n, line)| {
                let line = line?;
                bytes(if n == after { line[..line.len() / 2].to_owned() } else { line })
            });
            Box::pin(ended)
        }
        Some(Fault::End { after }) => Box::pin(lines.take(after).map(move |line| bytes(line?))),
        Some(Fault::Line { after, line: odd }) => {
            Box::pin(lines.enumerate().map(move |(n, line)| {
                let line = line?;
                bytes(if n == after { format!("{odd}\n") } else { line })
            }))
        }
        Some(Fault::Duplicate) => Box::pin(lines.map(move |line| {
            let line = line?;
            bytes(format!("{line}{line}"))
        })),
        Some(fault @ (Fault::Cut { .. } | Fault::Stall { .. } | Fault::Slow { .. })) => {
            Box::pin(faulty_stream(lines.map(move |line| bytes(line?)), &fault))
        }
        _ => Box::pin(lines.map(move |line| bytes(line?))),
    }
}

/// A body of known content that goes wrong.
pub(super) fn faulty(body: Vec<u8>, fault: &Fault) -> impl Stream<Item = Piece> + Send + use<> {
    faulty_stream(stream::iter([Ok(Bytes::from(body))]), fault)
}

fn faulty_stream(
    pieces: impl Stream<Item = Piece> + Send + 'static,
    fault: &Fault,
) -> std::pin::Pin<Box<dyn Stream<Item = Piece> + Send>> {
    match *fault {
        Fault::Cut { after } => Box::pin(upto(pieces, after).chain(stream::iter([Err(Broken)]))),
        Fault::Stall { after } => Box::pin(upto(pieces, after).chain(stream::pending())),
        Fault::Slow { piece, pause } => Box::pin(pieces.flat_map(move |bytes| {
            let parts: Vec<Piece> = match bytes {
                Ok(bytes) => bytes
                    .chunks(piece.max(1))
                    .map(|part| Ok(Bytes::copy_from_slice(part)))
                    .collect(),
                Err(broken) => vec![Err(broken)],
            };
            stream::iter(parts).then(move |part| async move {
                tokio::time::sleep(pause).await;
                part
            })
        })),
        _ => Box::pin(pieces),
    }
}

/// The first bytes of a body.
fn upto(
    pieces: impl Stream<Item = Piece> + Send + 'static,
    bytes: usize,
) -> impl Stream<Item = Piece> + Send {
    let pieces = Box::pin(pieces);
    stream::unfold((pieces, bytes), |(mut pieces, left)| async move {
        if left == 0 {
            return None;
        }
        match pieces.next().await? {
            Ok(mut piece) => {
                piece.truncate(left);
                let left = left - piece.len();
                Some((Ok(piece), (pieces, left)))
            }
            Err(broken) => Some((Err(broken), (pieces, 0))),
        }
    })
}

/// An orderly end when the time is over that the client asked for.
pub(super) fn limited(
    pieces: std::pin::Pin<Box<dyn Stream<Item = Piece> + Send>>,
    seconds: Option<u64>,
) -> impl Stream<Item = Piece> + Send {
    let end = tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(3600)));
    pieces.take_until(end)
}
