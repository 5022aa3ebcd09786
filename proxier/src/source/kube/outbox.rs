//! What a watch has read and the loop has not been told yet. What belongs together is one event.
//!
//! * Of a stream, all that is there to be read.
//! * Of a list that replaces an older one, everything, with the keys that say what is gone: an
//!   endpoint that moved from one slice to another is in one of the two at any moment. Objects that
//!   are as they were told are left out, so this is as large as what has changed.
//! * The first list goes out in parts: nothing is written before all lists are complete.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use tokio::sync::mpsc;

use super::failure::Failure;
use crate::cluster::{Change, ObjectKey};

/// Changes in one event of a stream, and in a part of the first list.
const CHANGES: usize = 1024;
const PART: usize = 16;
/// Bytes of JSON behind one event of a stream.
const BYTES: usize = 4 << 20;
/// Bytes of JSON behind what a list has changed. A change of more than this much at once (some
/// 150,000 endpoints) goes out in parts rather than cost the memory for it twice.
const LIST_BYTES: usize = 64 << 20;

pub(super) struct Outbox<E> {
    sender: mpsc::Sender<E>,
    pending: Vec<Change>,
    bytes: usize,
    listing: bool,
    /// A list has been sent to its end.
    complete: bool,
    /// A hash of what is known, once what is pending is sent, of each object.
    told: HashMap<ObjectKey, u64>,
    hasher: RandomState,
}

impl<E: From<Vec<Change>>> Outbox<E> {
    pub(super) fn new(sender: mpsc::Sender<E>) -> Self {
        Self {
            sender,
            pending: Vec::new(),
            bytes: 0,
            listing: false,
            complete: false,
            told: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// What comes now is a list, up to [`Self::listed`].
    pub(super) fn begin_list(&mut self) {
        self.listing = true;
    }

    /// Takes in a change that so many bytes of JSON have led to.
    pub(super) fn push(&mut self, change: Change, bytes: usize) {
        if let Some(key) = key(&change) {
            let hash = self.hasher.hash_one(&change);
            let before = self.told.insert(key.clone(), hash);
            if self.listing && before == Some(hash) {
                return;
            }
        }
        self.pending.push(change);
        self.bytes += bytes;
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

    /// The list is complete; `listed` says so.
    pub(super) async fn listed(
        &mut self,
        listed: Change,
        is_listed: impl Fn(&ObjectKey) -> bool,
    ) -> Result<(), Failure> {
        self.told.retain(|key, _| is_listed(key));
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
                self.told.remove(key);
            }
        }
    }
}

/// The object that a change is about, where each object has a key of its own.
fn key(change: &Change) -> Option<&ObjectKey> {
    match change {
        Change::Service(service) => Some(&service.key),
        Change::Slice(slice) => Some(&slice.key),
        Change::ServiceIgnored(key, _) | Change::ServiceGone(key) | Change::SliceGone(key) => {
            Some(key)
        }
        Change::Node(_)
        | Change::ServicesListed(_)
        | Change::SlicesListed(_)
        | Change::NodeListed => None,
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
        (Outbox::new(sender), receiver)
    }

    async fn listed(outbox: &mut Outbox<Vec<Change>>) {
        outbox.listed(Change::ServicesListed(vec![]), |_| true).await.unwrap();
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
        outbox.push(gone(1), 1);
        // And back: the last word counts.
        outbox.push(ignored(1), 1);
        listed(&mut outbox).await;
        let event = events.try_recv().unwrap();
        assert_eq!(event[..2], [gone(1), ignored(1)]);
        // In a stream, nothing is left out.
        outbox.push(ignored(1), 1);
        outbox.flush().await.unwrap();
        assert_eq!(events.try_recv().unwrap(), [ignored(1)]);
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
