use std::collections::BTreeMap;

use netlink_ipvs::Scheduler;

use super::*;
use crate::builders::{ServiceExt, endpoints, key, service, settings};
use crate::cluster::{Annotated, Annotation, Service, ServiceSettings};
use crate::dataplane::contribution;

const DURATION: Duration = Duration::from_secs(90);

/// A Service whose endpoints start slowly, at a time in seconds.
struct Case {
    starts: SlowStarts,
    service: Service,
    begin: Instant,
}

impl Case {
    fn new() -> Self {
        let scheduler =
            Some(Annotated { value: Scheduler::WRR, annotation: Annotation::Scheduler });
        let slow_start = Some(DURATION);
        let asked = ServiceSettings { scheduler, slow_start, ..ServiceSettings::default() };
        let service = service("web").cluster_ip("10.96.0.1").port(80);
        let service = Service { settings: Some(Box::new(asked)), ..service };
        Self { starts: SlowStarts::default(), service, begin: Instant::now() }
    }

    /// The weights with these endpoints, by the last number of their addresses.
    fn at(&mut self, seconds: u64, list: &[&str]) -> BTreeMap<String, u32> {
        let now = self.begin + Duration::from_secs(seconds);
        let slices = [endpoints("web", 8080, list)];
        let mut asked = contribution(&self.service, &slices.iter(), &settings());
        let duration = asked.applied.as_ref().unwrap().slow_start;
        let ready = slices[0].endpoints.iter().filter(|endpoint| endpoint.conditions.ready);
        let key = self.service.key.clone();
        self.starts.update(&key, duration, ready.map(|endpoint| endpoint.address), now);
        self.starts.apply(&key, &mut asked, now);
        let servers = asked.frontends[0].server.real_servers.iter();
        servers.map(|server| (server.key.address.to_string(), server.config.weight)).collect()
    }

    fn next(&self) -> Option<u64> {
        self.starts.next().map(|due| (due - self.begin).as_secs())
    }
}

fn weights<const N: usize>(of: [(&str, u32); N]) -> BTreeMap<String, u32> {
    of.map(|(address, weight)| (address.to_owned(), weight)).into()
}

#[test]
fn the_curve() {
    let tenths = |seconds: u64| SlowStarts::step(Duration::from_secs(seconds), DURATION);
    let curve: Vec<u32> = (0..=10).map(|n| tenths(n * 10)).collect();
    assert_eq!(curve, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
    assert_eq!((tenths(9), tenths(89), tenths(1_000_000)), (1, 9, 10));
    for duration in [1_u64, 7, 3600].map(Duration::from_secs) {
        for step in 1..SlowStarts::STEPS {
            let begins = SlowStarts::begins(step, duration);
            assert_eq!(SlowStarts::step(begins, duration), step + 1, "{duration:?}");
            let before = begins.saturating_sub(Duration::from_nanos(2));
            assert_eq!(SlowStarts::step(before, duration), step);
        }
    }
}

#[test]
fn a_new_endpoint_of_a_service_that_has_others_begins_small_and_reaches_its_weight() {
    let mut case = Case::new();
    let (one, both) = (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(case.at(0, &one), weights([("10.0.0.1", 10)]), "it is the only one");
    assert_eq!((case.next(), case.starts.count()), (None, 0));
    assert_eq!(case.at(100, &both), weights([("10.0.0.1", 10), ("10.0.0.2", 1)]));
    let mut steps = Vec::new();
    while let Some(due) = case.next() {
        assert_eq!(case.starts.count(), 1);
        let now = case.begin + Duration::from_secs(due) + Duration::from_nanos(1);
        assert_eq!(case.starts.take_due(now), [case.service.key.clone()]);
        // The step is a nanosecond after the second.
        case.begin += Duration::from_nanos(10);
        steps.push((due, case.at(due, &both)["10.0.0.2"]));
        case.begin -= Duration::from_nanos(10);
    }
    let expected: Vec<(u64, u32)> = (1..10).map(|n| (100 + n * 10, n as u32 + 1)).collect();
    assert_eq!(steps, expected);
    assert_eq!(case.starts.count(), 0);
    assert_eq!(case.at(500, &both), weights([("10.0.0.1", 10), ("10.0.0.2", 10)]));
}

#[test]
fn those_that_are_there_at_the_start_or_take_the_place_of_all_others_do_not_begin_small() {
    let mut case = Case::new();
    let all_full = weights([("10.0.0.1", 10), ("10.0.0.2", 10)]);
    assert_eq!(case.at(0, &["10.0.0.1", "10.0.0.2"]), all_full);
    let replaced = weights([("10.0.0.3", 10), ("10.0.0.4", 10)]);
    assert_eq!(case.at(10, &["10.0.0.3", "10.0.0.4"]), replaced);
}

#[test]
fn one_that_was_not_ready_begins_again_and_one_that_stays_goes_on() {
    let mut case = Case::new();
    case.at(0, &["10.0.0.1"]);
    case.at(0, &["10.0.0.1", "10.0.0.2"]);
    let three = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    assert_eq!(
        case.at(50, &three),
        weights([("10.0.0.1", 10), ("10.0.0.2", 6), ("10.0.0.3", 1)]),
        "each by its own age"
    );
    case.at(60, &["10.0.0.1", "10.0.0.2 unready", "10.0.0.3"]);
    assert_eq!(case.at(70, &three), weights([("10.0.0.1", 10), ("10.0.0.2", 1), ("10.0.0.3", 3)]));
}

#[test]
fn nothing_is_kept_of_a_service_that_is_gone() {
    let mut case = Case::new();
    case.at(0, &["10.0.0.1"]);
    case.at(0, &["10.0.0.1", "10.0.0.2"]);
    let (service, now) = (case.service.key.clone(), case.begin);
    case.starts.update(&service, None, std::iter::empty(), now);
    assert!(case.starts.services.is_empty() && case.starts.due.is_empty());
    case.starts.update(&key("other"), None, std::iter::empty(), now);
    assert!(case.starts.services.is_empty());
}
