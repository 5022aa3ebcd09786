//! What is green and yet to be looked at.

use super::*;
use crate::http::attention::{Attention, SILENT, State};

fn watch(silence: Option<Duration>) -> Watch {
    let (resource, connected) = ("services", true);
    Watch { resource, silence, connected, events: 0, lists: 1, failures: 0 }
}

#[test]
fn what_is_green_and_not_right_is_named() {
    let fine = synced();
    let current = Current::new(Arc::new(config()));
    let quiet = [watch(None), watch(Some(SILENT))];
    let none = Attention::of(&fine, &current, &quiet, None);
    assert_eq!(none.len(), 0, "{none:?}");
    assert_eq!(State::of(&fine, true, &none), State::InSync);

    let since = Instant::now();
    let mut wrong = fine.clone();
    wrong.refused = [("gate", 7), ("reserved", 2), ("budget", 0)].into();
    wrong.refused_since = Some(since);
    let refused = Some(Refused { since, why: "mode: no such\u{1b}[2J".to_owned() });
    let manifests =
        Some(Refused { since, why: "/etc/proxier/web.yaml: not valid: line 2".to_owned() });
    let current = Current { refused, manifests, ..current };
    let silent = [watch(Some(SILENT + Duration::from_secs(1)))];
    let all = Attention::of(&wrong, &current, &silent, None);
    assert_eq!(State::of(&wrong, true, &all), State::NeedsAttention);
    let texts: Vec<(&str, &str)> = all.iter().map(|one| (one.kind, &*one.what)).collect();
    assert_eq!(
        texts,
        [
            (
                "configuration",
                "the configuration file has changed and cannot be used; what it said before is in \
                 force: mode: no such\\u{1b}[2J"
            ),
            (
                "manifests",
                "not all manifests can be read; the rest, and what they said before, is in force: \
                 /etc/proxier/web.yaml: not valid: line 2"
            ),
            ("watch", "no word of services from the API server; the last state stays"),
            ("refused", "2 addresses that Services ask for are left out (reserved 2)"),
        ]
    );
    assert_eq!(all[2].seconds, 301);
    assert!(all.iter().all(|one| Attention::KINDS.contains(&one.kind)));
    for (status, healthy, state) in [
        (Status { synced: false, ..wrong.clone() }, true, State::NotInSync),
        (wrong.clone(), false, State::Unhealthy),
        (Status { complete: false, ..wrong }, true, State::Reading),
    ] {
        assert_eq!(State::of(&status, healthy, &all), state);
    }
}
