//! How long one answer may take, whoever sends it.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::Failure;

/// Least bytes a second of something that has an end.
const PACE: u64 = 16 << 10;

/// The time that something with an end may take: as long as it comes, but not in drops.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    patience: Duration,
}

impl Pace {
    /// From now on, with a grace of `patience`, which is also the longest wait for a next piece.
    pub(super) fn new(patience: Duration) -> Self {
        Self { start: Instant::now(), patience }
    }

    /// Until when the next piece must come, after so many bytes.
    pub(super) fn deadline(&self, received: u64) -> Instant {
        self.end(received).min(Instant::now() + self.patience)
    }

    fn end(&self, received: u64) -> Instant {
        self.start + self.patience + Duration::from_secs(received / PACE)
    }

    /// Why that time is over.
    pub(super) fn missed(&self, received: u64) -> Failure {
        if received > 0 && Instant::now() >= self.end(received) {
            Failure::Slow { took: self.start.elapsed(), received }
        } else {
            Failure::Stalled(self.patience)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_follows_what_comes() {
        let second = Duration::from_secs(1);
        let (start, pace) = (Instant::now(), Pace::new(60 * second));
        assert_eq!(pace.deadline(0), start + 60 * second);
        tokio::time::advance(50 * second).await;
        assert_eq!(pace.deadline(0), start + 60 * second);
        assert_eq!(pace.deadline(10 * PACE), start + 70 * second);
        assert_eq!(pace.deadline(1000 * PACE), start + 110 * second, "a stall is one all the same");
        tokio::time::advance(60 * second).await;
        assert!(matches!(pace.missed(1000 * PACE), Failure::Stalled(_)));
        assert!(matches!(pace.missed(PACE), Failure::Slow { received: PACE, .. }));
    }
}
