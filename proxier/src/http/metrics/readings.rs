//! The readings that are being sent, of which there are only so many, however many connections wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::services::Reading;

/// Readings that are kept at the same time.
const MOST: usize = 3;
/// How long a reading is kept for those who have begun to read it, whoever else comes.
const GRACE: Duration = Duration::from_secs(10);

/// Those that somebody still reads, oldest first.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Readings(Arc<Mutex<VecDeque<Held>>>);

#[derive(Debug)]
struct Held {
    began: Instant,
    slot: Weak<Slot>,
}

/// Where a reading is until it is taken away.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Arc<Reading>>>);

/// The right to read a reading, until others need the room. It goes with its last lease.
#[derive(Debug, Clone)]
pub(in crate::http) struct Lease(Arc<Slot>);

// === impl Readings ===

impl Readings {
    /// A reading that began when or after it was asked for; one that others wait for too is shared.
    ///
    /// When as many are kept as may be, the oldest is taken away from its readers if they had time
    /// enough. Otherwise they are too many: the newest has to do. To be called by one at a time.
    pub(in crate::http) fn take(&self, asked: Instant, read: impl FnOnce() -> Reading) -> Lease {
        let began = Instant::now();
        let newest = {
            let mut held = self.held();
            held.retain(|held| held.slot.strong_count() > 0);
            let newest =
                held.back().and_then(|newest| Some((newest.began, newest.slot.upgrade()?)));
            if held.len() >= MOST
                && let Some(oldest) = held.pop_front_if(|oldest| oldest.began + GRACE <= began)
                && let Some(slot) = oldest.slot.upgrade()
            {
                slot.content().take();
            }
            newest.filter(|(newest, _)| *newest >= asked || held.len() >= MOST)
        };
        if let Some((_, slot)) = newest {
            return Lease(slot);
        }
        let lease = Lease(Arc::new(Slot(Mutex::new(Some(Arc::new(read()))))));
        self.held().push_back(Held { began, slot: Arc::downgrade(&lease.0) });
        lease
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lease ===

impl Lease {
    /// The reading, if it is still to be had.
    pub(in crate::http) fn get(&self) -> Option<Arc<Reading>> {
        self.0.content().clone()
    }
}

impl Slot {
    fn content(&self) -> MutexGuard<'_, Option<Arc<Reading>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn never() -> Reading {
        panic!("there is one already")
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_at_the_same_time_shares_a_reading_and_nobody_gets_an_old_one() {
        let readings = Readings::default();
        let asked = Instant::now();
        let first = readings.take(asked, Reading::default);
        let second = readings.take(asked, never);
        assert!(Arc::ptr_eq(&first.0, &second.0));
        advance(Duration::from_millis(1)).await;
        let third = readings.take(Instant::now(), Reading::default);
        assert!(!Arc::ptr_eq(&first.0, &third.0));
        // What nobody reads any more is gone.
        let slot = Arc::downgrade(&first.0);
        drop((first, second));
        assert!(slot.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_kept() {
        let readings = Readings::default();
        let mut leases = Vec::new();
        for _ in 0..MOST {
            advance(Duration::from_secs(1)).await;
            leases.push(readings.take(Instant::now(), Reading::default));
        }
        // All of them are young: the newest has to do.
        advance(Duration::from_secs(1)).await;
        let shared = readings.take(Instant::now(), never);
        assert!(Arc::ptr_eq(&shared.0, &leases[MOST - 1].0));
        assert!(leases.iter().all(|lease| lease.get().is_some()));
        // The oldest had its time.
        advance(GRACE).await;
        let new = readings.take(Instant::now(), Reading::default);
        assert!(new.get().is_some() && leases[0].get().is_none());
        assert!(leases[1..].iter().all(|lease| lease.get().is_some()));
        assert_eq!(readings.held().len(), MOST);
    }
}
