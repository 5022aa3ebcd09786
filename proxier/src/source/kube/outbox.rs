//! What a watch has read and the loop has not been told yet. What belongs together is one event.
//!
//! * Of a stream, all that is there to be read.
//! * Of a list that replaces an older one, everything, with the keys that say what is gone: an
//!   endpoint that moved from one slice to another is in one of the two at any moment. Objects that
//!   are as they were told are left out, so this is as large as what has changed.
//! * The first list goes out in parts: nothing is written before all lists are complete.

use std::collections::HashSet;

use tokio::sync::mpsc;

use super::failure::Failure;
use super::room::{Fit, Room};
use crate::cluster::{Change, ObjectKey};

/// Changes in one event of a stream, and in a part of the first list.
const CHANGES: usize = 1024;
const PART: usize = 16;
/// Bytes of JSON behind one event of a stream.
const BYTES: usize = 4 << 20;
/// Bytes of JSON behind what a list has changed. A change of more than this much at once (some
/// 150,000 endpoints) goes out in parts rather than cost the memory for it twice.
const LIST_BYTES: usize = 64 << 20;

/// Whether there is an object, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
    /// It exists, and nothing is known of it: there is no room.
    LeftOut,
}

pub(super) struct Outbox<E> {
    sender: mpsc::Sender<E>,
    pub(super) pending: Vec<Change>,
    bytes: usize,
    listing: bool,
    /// A list has been sent to its end.
    complete: bool,
    /// What is known once what is pending is sent.
    told: Room,
    /// There is room for objects that were left out.
    has_room: bool,
}

impl<E: From<Vec<Change>>> Outbox<E> {
    /// `most` is how many bytes the objects of one namespace may cost.
    pub(super) fn new(sender: mpsc::Sender<E>, most: u64) -> Self {
        Self {
            sender,
            pending: Vec::new(),
            bytes: 0,
            listing: false,
            complete: false,
            told: Room::new(most),
            has_room: false,
        }
    }

    /// What comes now is a list, up to [`Self::listed`].
    pub(super) fn begin_list(&mut self) {
        self.listing = true;
        self.has_room = false;
        self.told.begin_list();
    }

    /// Takes in a change that so many bytes of JSON have led to. Whether there is such an object, as far
    /// as is known from now on, is the result: not one that is gone, or for which there is no room.
    pub(super) fn push(&mut self, change: Change, bytes: usize) -> Known {
        // A Node is written every few minutes, and hardly ever because of its weight.
        let is_noise = self.listing || matches!(change, Change::NodeWeight(..));
        let known = match key(&change) {
            None => Known::Yes,
            Some(key) if is_gone(&change) => {
                if is_noise && !self.told.knows(key) {
                    // What is not in a list is gone by that.
                    return Known::No;
                }
                self.has_room |= self.told.remove(key);
                Known::No
            }
            Some(key) => match self.told.put(key, &change) {
                Fit::Same if is_noise => return Known::Yes,
                Fit::Same | Fit::Changed => Known::Yes,
                Fit::LeftOut { known } => {
                    if known {
                        self.pending.extend(end_of(&change));
                    }
                    return Known::LeftOut;
                }
            },
        };
        self.pending.push(change);
        self.bytes += bytes;
        known
    }

    /// Whether objects that were left out would fit now, as far as can be known.
    pub(super) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Namespaces of which something was left out, each with how many objects.
    pub(super) fn left_out(&self) -> impl Iterator<Item = (&std::sync::Arc<str>, usize)> {
        self.told.left_out()
    }

    /// Sends what is pending where enough of it has come together.
    pub(super) async fn relieve(&mut self) -> Result<(), Failure> {
        let full = match (self.listing, self.complete) {
            (true, false) => self.pending.len() >= PART || self.bytes >= BYTES,
            (true, true) => self.bytes >= LIST_BYTES,
            (false, _) => self.is_full(),
        };
        if full { self.flush().await } else { Ok(()) }
    }

    /// Whether there is enough for an event of a stream.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= CHANGES || self.bytes >= BYTES
    }

    /// Sends what is pending.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        if self.pending.is_empty() {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.pending);
        self.sender.send(changes.into()).await.map_err(|_| Failure::Receiver)
    }

    /// The list is complete, and these objects are all; `listed` says so.
    pub(super) async fn listed(
        &mut self,
        listed: Change,
        keys: &HashSet<ObjectKey>,
    ) -> Result<(), Failure> {
        self.told.listed(keys);
        self.pending.push(listed);
        self.flush().await?;
        self.listing = false;
        self.complete = true;
        Ok(())
    }

    /// The list has failed: what of it was not sent never will be.
    pub(super) fn discard(&mut self) {
        self.listing = false;
        self.bytes = 0;
        for change in self.pending.drain(..) {
            // Nobody knows it in this form; the next list says it again.
            if let Some(key) = key(&change) {
                self.has_room |= self.told.remove(key);
            }
        }
    }
}

/// The object that a change is about, where each object has a key of its own.
fn key(change: &Change) -> Option<&ObjectKey> {
    match change {
        Change::Service(service) => Some(&service.key),
        Change::Slice(slice) => Some(&slice.key),
        Change::ServiceIgnored(key, _)
        | Change::ServiceGone(key)
        | Change::SliceGone(key)
        | Change::NodeWeight(key, _) => Some(key),
        Change::Node(_)
        | Change::ServicesListed(_)
        | Change::SlicesListed(_)
        | Change::NodeWeightsListed(_)
        | Change::NodeListed => None,
    }
}

fn is_gone(change: &Change) -> bool {
    matches!(change, Change::ServiceGone(_) | Change::SliceGone(_) | Change::NodeWeight(_, None))
}

/// The object that a change is about is gone.
fn end_of(change: &Change) -> Option<Change> {
    let key = key(change)?.clone();
    match change {
        Change::Slice(_) | Change::SliceGone(_) => Some(Change::SliceGone(key)),
        Change::NodeWeight(..) => Some(Change::NodeWeight(key, None)),
        _ => Some(Change::ServiceGone(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(name: usize) -> Change {
        Change::ServiceGone(ObjectKey::new("n", name.to_string()))
    }

    fn ignored(name: usize) -> Change {
        let why = crate::cluster::NotProxied::Headless;
        Change::ServiceIgnored(ObjectKey::new("n", name.to_string()), why)
    }

    fn outbox() -> (Outbox<Vec<Change>>, mpsc::Receiver<Vec<Change>>) {
        let (sender, receiver) = mpsc::channel(100);
        (Outbox::new(sender, 1 << 30), receiver)
    }

    /// Nothing has gone but what was told.
    async fn listed(outbox: &mut Outbox<Vec<Change>>) {
        let all = (0..100).map(|name| ObjectKey::new("n", name.to_string())).collect();
        outbox.listed(Change::ServicesListed(vec![]), &all).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_list_goes_out_in_parts_and_later_ones_as_a_whole() {
        let (mut outbox, mut events) = outbox();
        outbox.begin_list();
        for n in 0..100 {
            outbox.push(ignored(n), 1);
            outbox.relieve().await.unwrap();
        }
        listed(&mut outbox).await;
        let mut parts = Vec::new();
        while let Ok(event) = events.try_recv() {
            parts.push(event.len());
        }
        assert_eq!(parts, [16, 16, 16, 16, 16, 16, 5]);

        // Only what has changed, at once.
        outbox.begin_list();
        for n in 0..100 {
            outbox.push(if n < 30 { gone(n) } else { ignored(n) }, 1);
            outbox.relieve().await.unwrap();
        }
        assert!(events.try_recv().is_err());
        listed(&mut outbox).await;
        assert_eq!(events.try_recv().map(|event| event.len()), Ok(31));
        assert!(events.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_a_failed_list_did_not_send_is_sent_by_the_next() {
        let (mut outbox, mut events) = outbox();
        outbox.begin_list();
        outbox.push(ignored(1), 1);
        listed(&mut outbox).await;
        assert_eq!(events.try_recv().map(|event| event.len()), Ok(2));
        for _ in 0..2 {
            outbox.begin_list();
            outbox.push(gone(1), 1);
            outbox.discard();
        }
        outbox.begin_list();
        outbox.push(ignored(1), 1);
        listed(&mut outbox).await;
        let event = events.try_recv().unwrap();
        assert_eq!(event[0], ignored(1));
        // In a stream, nothing is left out.
        outbox.push(ignored(1), 1);
        outbox.flush().await.unwrap();
        assert_eq!(events.try_recv().unwrap(), [ignored(1)]);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_gone_until_there_is_room() {
        let (sender, mut events) = mpsc::channel(100);
        let mut outbox: Outbox<Vec<Change>> = Outbox::new(sender, 3000);
        outbox.begin_list();
        let fit: Vec<Known> = (0..6).map(|n| outbox.push(ignored(n), 1)).collect();
        let (kept, rest) = fit.split_at(fit.iter().filter(|it| **it == Known::Yes).count());
        assert!(kept.len() > 2 && rest.len() > 1 && rest.iter().all(|it| *it == Known::LeftOut));
        listed(&mut outbox).await;
        assert_eq!(events.try_recv().map(|event| event.len()), Ok(kept.len() + 1));
        assert_eq!(outbox.left_out().map(|(_, count)| count).sum::<usize>(), rest.len());
        // Of a stream nothing is kept of it either.
        assert_eq!(outbox.push(ignored(9), 1), Known::LeftOut);
        assert_eq!(outbox.push(gone(9), 1), Known::No);
        assert!(!outbox.has_room());
        assert_eq!(outbox.push(gone(0), 1), Known::No);
        assert_eq!(outbox.push(gone(1), 1), Known::No);
        assert!(outbox.has_room());
        outbox.begin_list();
        assert!(!outbox.has_room(), "it is being found out");
    }

    #[tokio::test]
    async fn a_stream_and_a_list_hold_back_so_much_and_no_more() {
        let (mut outbox, mut events) = outbox();
        for n in 0..CHANGES {
            assert!(!outbox.is_full());
            outbox.push(gone(n), 1);
        }
        assert!(outbox.is_full());
        outbox.relieve().await.unwrap();
        assert_eq!(events.try_recv().map(|event| event.len()), Ok(CHANGES));
        outbox.push(gone(0), BYTES);
        assert!(outbox.is_full());
        outbox.flush().await.unwrap();
        listed(&mut outbox).await;
        while events.try_recv().is_ok() {}
        outbox.begin_list();
        for n in 0..15 {
            outbox.push(ignored(n), BYTES);
            outbox.relieve().await.unwrap();
            assert!(events.try_recv().is_err());
        }
        outbox.push(ignored(15), BYTES);
        outbox.relieve().await.unwrap();
        assert_eq!(events.try_recv().map(|event| event.len()), Ok(16));
    }
}
