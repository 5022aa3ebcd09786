//! What failed, and when each of it is tried again: one table for everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::dataplane::{Subject, Target};

/// Back-off by subject: half a second after the first failure, twice as long after each further one.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failures: BTreeMap<Subject, Failure>,
    /// The subjects that nothing is trying now.
    due: BTreeSet<(Instant, Subject)>,
    /// What failed and is not wanted now, each until it is forgotten.
    past: BTreeMap<Subject, (Instant, Failure)>,
    /// When something of the past may be forgotten, in order.
    forgotten: VecDeque<(Instant, Subject)>,
}

/// A failure that lasts.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) text: String,
    due: Instant,
    delay: Duration,
    /// It was once tried earlier than its time.
    hastened: bool,
}

impl Retries {
    const FIRST: Duration = Duration::from_millis(500);
    /// No back-off is longer, however long the sync period is.
    const MOST: Duration = Duration::from_secs(30);

    /// How long a back-off outlives the need for what failed. Without that, whoever makes something
    /// come and go could make it be tried without end. After this time, even with all the quick tries of
    /// a new back-off it is tried no more often than every [`Self::MOST`].
    const MEMORY: Duration = Duration::from_mins(5);

    /// A subject failed, again or for the first time. `at_once` tries a first failure again without
    /// delay: what was believed of the kernel was wrong, and has been put right by then.
    pub(super) fn fail(&mut self, subject: Subject, text: String, now: Instant, at_once: bool) {
        let past = self.past.remove(&subject).map(|(_, failure)| failure);
        let known = self.failures.get(&subject);
        let (delay, hastened) = match known.or(past.as_ref()) {
            Some(known) if known.delay.is_zero() => (Self::FIRST, known.hastened),
            Some(known) => ((known.delay * 2).min(Self::MOST), known.hastened),
            None if at_once => (Duration::ZERO, false),
            None => (Self::FIRST, false),
        };
        if let Some(known) = known {
            self.due.remove(&(known.due, subject));
        }
        let due = now + delay;
        self.failures.insert(subject, Failure { text, due, delay, hastened });
        self.due.insert((due, subject));
    }

    /// A try of a subject succeeded.
    pub(super) fn settle(&mut self, subject: &Subject) {
        self.past.remove(subject);
        if let Some(known) = self.failures.remove(subject) {
            self.due.remove(&(known.due, *subject));
        }
    }

    /// There is nothing to be done about a subject now.
    pub(super) fn rest(&mut self, subject: Subject, now: Instant) {
        if let Some(known) = self.failures.remove(&subject) {
            self.due.remove(&(known.due, subject));
            let until = now + Self::MEMORY;
            self.past.insert(subject, (until, known));
            self.forgotten.push_back((until, subject));
        }
    }

    /// A subject that rested is wanted again before its time.
    pub(super) fn resume(&mut self, subject: &Subject) {
        if let Some((_, known)) = self.past.remove(subject) {
            self.due.insert((known.due, *subject));
            self.failures.insert(*subject, known);
        }
    }

    /// Whether anything may have to wait.
    pub(super) fn is_idle(&self) -> bool {
        self.failures.is_empty() && self.past.is_empty()
    }

    /// Whether a subject must not be tried now.
    pub(super) fn waits(&self, subject: &Subject, now: Instant) -> bool {
        let past = || self.past.get(subject).map(|(_, failure)| failure);
        self.failures.get(subject).or_else(past).is_some_and(|known| known.due > now)
    }

    /// Takes the subjects that are to be tried now. Each comes back by [`Self::fail`], or goes by
    /// [`Self::settle`] or [`Self::rest`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Subject> {
        while let Some((_, subject)) = self.forgotten.pop_front_if(|(until, _)| *until <= now) {
            if self.past.get(&subject).is_some_and(|(until, _)| *until <= now) {
                self.past.remove(&subject);
            }
        }
        let due = std::iter::from_fn(|| {
            let first = *self.due.first().filter(|(at, _)| *at <= now)?;
            self.due.remove(&first);
            Some(first.1)
        });
        due.collect()
    }

    /// When the next subject is to be tried.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Something happened outside that may have mended what fails. Each subject profits once, so
    /// that events cannot turn a back-off into a loop.
    pub(super) fn hasten(&mut self, now: Instant) {
        for (subject, failure) in &mut self.failures {
            failure.hastened |=
                !failure.hastened && bring_forward(&mut self.due, subject, failure, now);
        }
    }

    /// What may have been the reason of a failure is mended: it is tried now, and goes on with its
    /// back-off if that was not it.
    pub(super) fn try_now(&mut self, subject: &Subject, now: Instant) {
        if let Some(failure) = self.failures.get_mut(subject) {
            bring_forward(&mut self.due, subject, failure, now);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn contains(&self, subject: &Subject) -> bool {
        self.failures.contains_key(subject)
    }

    /// Everything that fails.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Subject, &Failure)> {
        self.failures.iter()
    }

    /// The failing targets from this one on, in order.
    pub(super) fn targets_from(&self, first: Target) -> impl Iterator<Item = Target> {
        self.failures.range(Subject::Target(first)..).map_while(|(subject, _)| match subject {
            Subject::Target(target) => Some(*target),
            Subject::Part(_) => None,
        })
    }
}

/// Makes a subject due now, if it waits for its time.
fn bring_forward(
    due: &mut BTreeSet<(Instant, Subject)>,
    subject: &Subject,
    failure: &mut Failure,
    now: Instant,
) -> bool {
    let waits = due.remove(&(failure.due, *subject));
    if waits {
        failure.due = failure.due.min(now);
        due.insert((failure.due, *subject));
    }
    waits
}

/// What waits for something else to be read, or to be put in place.
#[derive(Debug, Default)]
pub(super) struct Held {
    by: BTreeMap<Subject, BTreeSet<Target>>,
    of: BTreeMap<Target, Subject>,
}

impl Held {
    /// A target waits for a subject, and for no other.
    pub(super) fn hold(&mut self, target: Target, subject: Subject) {
        if self.of.get(&target) != Some(&subject) {
            self.let_go(&target);
            self.of.insert(target, subject);
            self.by.entry(subject).or_default().insert(target);
        }
    }

    /// A target waits for nothing.
    pub(super) fn let_go(&mut self, target: &Target) {
        let Some(subject) = self.of.remove(target) else { return };
        if let Some(targets) = self.by.get_mut(&subject) {
            targets.remove(target);
            if targets.is_empty() {
                self.by.remove(&subject);
            }
        }
    }

    /// A subject is as it should be: what waited for it.
    pub(super) fn release(&mut self, subject: &Subject) -> BTreeSet<Target> {
        let targets = self.by.remove(subject).unwrap_or_default();
        for target in &targets {
            self.of.remove(target);
        }
        targets
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// What each target waits for.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Target, &Subject)> {
        self.of.iter()
    }

    /// The targets that wait, from this one on, in order.
    pub(super) fn targets_from(&self, first: Target) -> impl Iterator<Item = Target> {
        self.of.range(first..).map(|(target, _)| *target)
    }
}

#[cfg(test)]
mod tests {
    use netlink_ipvs::Family;

    use super::*;
    use crate::dataplane::Part;

    const SUBJECT: Subject = Subject::Part(Part::Rules(Family::Ipv4));

    #[tokio::test(start_paused = true)]
    async fn a_back_off_doubles_up_to_its_limit_and_ends_with_success() {
        let (mut retries, start) = (Retries::default(), Instant::now());
        let mut now = start;
        let mut tries = 0;
        while now < start + Duration::from_hours(1) {
            retries.fail(SUBJECT, String::new(), now, false);
            assert!(retries.waits(&SUBJECT, now) && retries.take_due(now).is_empty());
            tries += 1;
            now = retries.next().unwrap();
            assert_eq!(retries.take_due(now), [SUBJECT]);
        }
        // 0.5 + 1 + 2 + 4 + 8 + 16 s, then every 30 s.
        assert_eq!(tries, 7 + (3600 - 31) / 30);
        retries.settle(&SUBJECT);
        retries.fail(SUBJECT, String::new(), now, false);
        assert_eq!(retries.next(), Some(now + Retries::FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_tried_no_more_often() {
        let start = Instant::now();
        for period in [1, 7, 20, 45, 100, 299, 400, 700].map(Duration::from_secs) {
            let (mut retries, mut now, mut tries) = (Retries::default(), start, 0);
            // It is wanted in every other half of a period.
            while now < start + Duration::from_hours(1) {
                let since = (now - start).as_millis() % period.as_millis();
                if since >= period.as_millis() / 2 {
                    retries.take_due(now);
                    retries.rest(SUBJECT, now);
                } else if retries.waits(&SUBJECT, now) {
                    retries.resume(&SUBJECT);
                } else {
                    retries.take_due(now);
                    retries.fail(SUBJECT, String::new(), now, false);
                    tries += 1;
                }
                now += Duration::from_millis(100);
            }
            assert!(tries <= 6 + 3600 / 30, "{tries} tries at every {period:?}");
            retries.rest(SUBJECT, now);
            retries.take_due(now + Retries::MEMORY);
            assert!(retries.past.is_empty() && retries.forgotten.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_is_tried_at_once_and_a_hastened_one_once() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        retries.fail(SUBJECT, String::new(), now, true);
        assert_eq!(retries.take_due(now), [SUBJECT]);
        retries.fail(SUBJECT, String::new(), now, true);
        assert_eq!(retries.take_due(now), []);
        for expected in [&[SUBJECT][..], &[]] {
            retries.hasten(now);
            assert_eq!(retries.take_due(now), expected);
            retries.fail(SUBJECT, String::new(), now, false);
        }
    }

    #[test]
    fn what_is_held_waits_for_one_thing_at_a_time() {
        let other = Subject::Part(Part::Interface);
        let mut held = Held::default();
        held.hold(Target::Link, SUBJECT);
        held.hold(Target::Link, other);
        assert!(held.release(&SUBJECT).is_empty());
        assert_eq!(held.release(&other), [Target::Link].into());
        assert!(held.is_empty());
        held.hold(Target::Link, other);
        held.let_go(&Target::Link);
        assert!(held.is_empty() && held.release(&other).is_empty());
    }
}
