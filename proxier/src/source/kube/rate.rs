//! How many requests a second this client makes (`clientConnection.qps` and `burst`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate that all who have a copy of it share.
#[derive(Debug, Clone, Default)]
pub struct Rate(Option<Arc<Bucket>>);

#[derive(Debug)]
struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the last request that was let through would have been due without a burst.
    due: Mutex<Instant>,
}

impl Rate {
    /// So many requests a second, and so many at once. A negative number a second is no limit.
    pub fn new(per_second: f32, burst: u32) -> Self {
        if per_second <= 0.0 {
            return Self(None);
        }
        let interval = Duration::try_from_secs_f64(1.0 / f64::from(per_second)).unwrap_or_default();
        let due = Mutex::new(Instant::now());
        Self(Some(Arc::new(Bucket { interval, burst: burst.max(1), due })))
    }

    /// Returns when a request may be made.
    pub(super) async fn turn(&self) {
        let Some(bucket) = &self.0 else { return };
        let at = {
            let mut due = bucket.due.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*due).max(Instant::now());
            *due = at + bucket.interval;
            at.checked_sub(bucket.interval * (bucket.burst - 1)).unwrap_or(at)
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_after_the_other() {
        let start = Instant::now();
        let rate = Rate::new(5.0, 3);
        let mut times = Vec::new();
        for _ in 0..5 {
            rate.turn().await;
            times.push(start.elapsed().as_millis());
        }
        assert_eq!(times, [0, 0, 0, 200, 400]);
        // What was not used for a while is there again, and no more than that.
        tokio::time::advance(Duration::from_mins(1)).await;
        let start = Instant::now();
        for _ in 0..4 {
            rate.clone().turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 200);
        let start = Instant::now();
        for _ in 0..1000 {
            Rate::new(-1.0, 0).turn().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
