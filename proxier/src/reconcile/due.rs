//! When the loop has to look after things by itself.

use std::time::Duration;

use tokio::time::Instant;

/// What has to be done even if nothing happens.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) audit: Instant,
    pub(super) drain_check: Option<Instant>,
    pub(super) retry: Option<Instant>,
    pub(super) retry_delay: Duration,
}

impl Due {
    pub(super) const FIRST_RETRY: Duration = Duration::from_millis(500);

    pub(super) fn next(&self) -> Instant {
        [self.drain_check, self.retry].into_iter().flatten().fold(self.audit, Instant::min)
    }

    pub(super) fn fail(&mut self, now: Instant, limit: Duration) {
        // Steps for other reasons do not put the retry off.
        if self.retry.is_some() {
            return;
        }
        self.retry = Some(now + self.retry_delay);
        self.retry_delay = (self.retry_delay * 2).min(limit.max(Self::FIRST_RETRY));
    }

    /// What was observed may have changed, and with it what made something fail.
    pub(super) fn disturbed(&mut self, now: Instant) {
        self.audit = now;
        self.retry = self.retry.map(|_| now);
    }

    pub(super) fn succeed(&mut self) {
        self.retry = None;
        self.retry_delay = Self::FIRST_RETRY;
    }
}
