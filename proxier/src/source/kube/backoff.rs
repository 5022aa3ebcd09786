//! How long to wait before the next attempt.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// Waits that double from attempt to attempt.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The wait after one more failure. A server that says when to come back is given that time,
    /// within reason, and no client comes back exactly with all others.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: f64) -> Duration {
        let wait = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        let wait = wait.mul_f64(0.5 + random / 2.0);
        match asked {
            Some(asked) => asked.min(self.most * 10).mul_f64(1.0 + random / 10.0).max(wait),
            None => wait,
        }
    }

    /// Failures since the last reset.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number in `0.0..1.0`. It spreads clients and protects nothing.
pub(super) fn random() -> f64 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    f64::from((bits >> 32) as u32) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        let waits: Vec<_> = (0..8).map(|_| backoff.next(None, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        for _ in 0..100 {
            assert!(backoff.next(None, 1.0) <= 30 * SECOND);
        }
        backoff.reset();
        assert_eq!(backoff.next(None, 0.0), SECOND / 2);
    }

    #[test]
    fn what_the_server_asks_for_is_a_minimum_within_reason() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        assert_eq!(backoff.next(Some(7 * SECOND), 0.0), 7 * SECOND);
        assert!(backoff.next(Some(7 * SECOND), 0.9) > 7 * SECOND);
        assert!(backoff.next(Some(Duration::from_secs(1 << 40)), 1.0) <= 330 * SECOND);
        assert!(backoff.next(Some(Duration::ZERO), 0.0) >= 4 * SECOND);
    }

    #[test]
    fn random_numbers_are_in_range_and_differ() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(numbers.iter().any(|number| (number - numbers[0]).abs() > 0.01));
    }
}
