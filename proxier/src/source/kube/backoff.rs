//! How long to wait before the next attempt.
//!
//! | the server | waits |
//! | --- | --- |
//! | cannot be reached | doubling up to 2 s, for as long as it lasts: a refused connection costs next to nothing |
//! | answers, but cannot do it (5xx, 429, a watch that ends at once) | the same for five minutes, then growing to 30 s |
//! | answers and will go on refusing (401, 403, 404) | the same for one minute, since a server that starts refuses so too; then growing to 30 s |
//! | breaks off while everything is read | doubling up to 30 s: each attempt costs it a list |
//!
//! Each wait is 50 to 100 % of that, and never shorter than `Retry-After`.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::failure::Class;

/// How long a server that answers is asked as often as one that starts.
const PATIENCE: Duration = Duration::from_mins(5);
/// The same for one that will not change its mind by itself.
const DENIED_PATIENCE: Duration = Duration::from_mins(1);
/// After that time, waits are longer by this share of it.
const GROWTH: u32 = 10;

/// Waits that grow with the failures of their class.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    soon: Duration,
    most: Duration,
    /// Since the last reset.
    failures: u32,
    streaks: [Streak; 4],
}

/// Failures of one class.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// `first` doubles up to `soon` where a server is asked again soon, otherwise up to `most`.
    pub(super) fn new(first: Duration, soon: Duration, most: Duration) -> Self {
        Self { first, soon, most, failures: 0, streaks: Default::default() }
    }

    /// The wait after one more failure. A server that says when to come back is given that time,
    /// within reason, and no client comes back exactly with all others.
    pub(super) fn next(&mut self, class: Class, asked: Option<Duration>, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if class == Class::Unreachable {
            // Who answers after this is another one, or has begun anew.
            self.streaks[Class::Answered as usize] = Streak::default();
            self.streaks[Class::Denied as usize] = Streak::default();
        }
        let streak = &mut self.streaks[class as usize];
        let lasted = streak.since.get_or_insert_with(Instant::now).elapsed();
        let wait = self.first.saturating_mul(1 << streak.failures.min(16));
        streak.failures = streak.failures.saturating_add(1);
        let later = |patience| self.soon + lasted.saturating_sub(patience) / GROWTH;
        let most = match class {
            Class::Unreachable => self.soon,
            Class::Answered => later(PATIENCE),
            Class::Denied => later(DENIED_PATIENCE),
            Class::Broken => self.most,
        };
        let wait = wait.min(most).min(self.most).mul_f64(0.5 + random / 2.0);
        match asked {
            Some(asked) => asked.min(self.most * 10).mul_f64(1.0 + random / 10.0).max(wait),
            None => wait,
        }
    }

    /// Failures since the last reset.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How long failures of a class have been going on.
    pub(super) fn lasted(&self, class: Class) -> Duration {
        self.streaks[class as usize].since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
        self.streaks = Default::default();
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

    fn backoff() -> Backoff {
        Backoff::new(SECOND / 2, 2 * SECOND, 30 * SECOND)
    }

    /// The longest waits of the failures of an hour, with the time at which each began.
    async fn hour(class: Class) -> Vec<(Duration, Duration)> {
        let (start, mut backoff, mut waits) = (Instant::now(), backoff(), Vec::new());
        while start.elapsed() < Duration::from_hours(1) {
            let wait = backoff.next(class, None, 1.0);
            waits.push((start.elapsed(), wait));
            tokio::time::advance(wait).await;
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_may_be_back_at_any_moment_is_asked_again_soon() {
        let waits = hour(Class::Unreachable).await;
        assert!(waits.iter().all(|(_, wait)| *wait <= 2 * SECOND));
        let first: Vec<_> = waits.iter().take(4).map(|(_, wait)| wait.as_secs_f32()).collect();
        assert_eq!(first, [0.5, 1.0, 2.0, 2.0]);
        for (class, patience) in [(Class::Answered, PATIENCE), (Class::Denied, DENIED_PATIENCE)] {
            let waits = hour(class).await;
            for (at, wait) in &waits {
                assert!(*at > patience || *wait <= 2 * SECOND, "{class:?}: {wait:?} at {at:?}");
                assert!(*wait <= 30 * SECOND);
            }
            assert_eq!(waits.last().map(|(_, wait)| *wait), Some(30 * SECOND), "{class:?}");
            assert!(waits.len() < 360, "{class:?}: {}", waits.len());
        }
        let doubling: Vec<_> =
            hour(Class::Broken).await.iter().take(8).map(|(_, w)| w.as_secs_f32()).collect();
        assert_eq!(doubling, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_away_is_a_new_one_but_for_its_lists() {
        let mut backoff = backoff();
        for _ in 0..10 {
            backoff.next(Class::Denied, None, 1.0);
            backoff.next(Class::Broken, None, 1.0);
            tokio::time::advance(60 * SECOND).await;
        }
        assert_eq!(backoff.next(Class::Denied, None, 1.0), 30 * SECOND);
        assert_eq!(backoff.next(Class::Unreachable, None, 1.0), SECOND / 2);
        assert_eq!(backoff.next(Class::Denied, None, 1.0), SECOND / 2);
        assert_eq!(backoff.next(Class::Broken, None, 1.0), 30 * SECOND);
        backoff.reset();
        assert_eq!(backoff.next(Class::Broken, None, 0.0), SECOND / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_asks_for_is_a_minimum_within_reason() {
        let mut backoff = backoff();
        let mut next = |asked, random| backoff.next(Class::Answered, Some(asked), random);
        assert_eq!(next(7 * SECOND, 0.0), 7 * SECOND);
        assert!(next(7 * SECOND, 0.9) > 7 * SECOND);
        assert!(next(Duration::from_secs(1 << 40), 1.0) <= 330 * SECOND);
        assert!(next(Duration::ZERO, 0.0) >= SECOND);
    }

    #[test]
    fn random_numbers_are_in_range_and_differ() {
        let numbers: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(numbers.iter().any(|number| (number - numbers[0]).abs() > 0.01));
    }
}
