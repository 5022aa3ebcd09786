//! Keeps what hostile objects or a broken server say from filling the log.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of lines: `burst` at once, then one every `every`.
#[derive(Debug)]
pub(super) struct Limit {
    burst: u32,
    every: Duration,
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Limit {
    pub(super) fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self { burst, every, left: burst, since: now, suppressed: 0 }
    }

    /// Whether a line may be written now, and how many were not since the last one.
    pub(super) fn allow(&mut self, now: Instant) -> Option<u64> {
        while self.left < self.burst && now.duration_since(self.since) >= self.every {
            self.left += 1;
            self.since += self.every;
        }
        if self.left == self.burst {
            self.since = now;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut limit = Limit::new(2, second, start);
        assert_eq!(limit.allow(start), Some(0));
        assert_eq!(limit.allow(start), Some(0));
        assert_eq!(limit.allow(start), None);
        assert_eq!(limit.allow(start + second / 2), None);
        assert_eq!(limit.allow(start + second), Some(2));
        assert_eq!(limit.allow(start + second), None);
        assert_eq!(limit.allow(start + 10 * second), Some(1));
        assert_eq!(limit.allow(start + 10 * second), Some(0));
        assert_eq!(limit.allow(start + 10 * second), None);
    }
}
