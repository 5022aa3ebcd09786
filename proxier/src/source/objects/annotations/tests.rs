use netlink_ipvs::Flags;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The settings of a Service with these annotations.
fn of(annotations: &[(&str, &str)]) -> Option<Box<ServiceSettings>> {
    let object: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    settings(serde_json::from_value(object.into()).unwrap())
}

fn one(annotation: &str, value: &str) -> ServiceSettings {
    *of(&[(annotation, value)]).expect("settings")
}

fn rejected(annotation: &str, value: &str) -> String {
    let mut settings = one(annotation, value);
    let rejected =
        settings.rejected.pop().unwrap_or_else(|| panic!("{annotation}: {value} is taken"));
    assert_eq!(settings, ServiceSettings::default(), "nothing else is set");
    rejected.to_string()
}

#[test]
fn a_service_without_such_annotations_has_no_settings() {
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[("example.com/scheduler", "rr"), ("proxier.io/one-packet", "false")]), None);
}

#[test]
fn the_scheduler_is_one_of_the_kernels_by_any_of_three_names() {
    for scheduler in ServiceSettings::SCHEDULERS {
        let name = scheduler.to_string();
        let found = one("proxier.io/scheduler", &name).scheduler.unwrap();
        assert_eq!(found, Annotated { value: scheduler, annotation: Annotation::Scheduler });
        let found = one("kube-router.io/service.scheduler", &name).scheduler.unwrap();
        assert_eq!(found.value, scheduler);
        assert_eq!(found.annotation, Annotation::KubeRouterScheduler);
    }
    for (text, scheduler) in
        [("random", Scheduler::RR), ("maglev", Scheduler::MH), ("least-connections", Scheduler::LC)]
    {
        let found = one("service.cilium.io/lb-algorithm", text).scheduler.unwrap();
        assert_eq!((found.value, found.annotation), (scheduler, Annotation::CiliumAlgorithm));
    }
    for (annotation, value) in [
        ("proxier.io/scheduler", "fastest"),
        ("proxier.io/scheduler", ""),
        ("proxier.io/scheduler", "RR"),
        ("proxier.io/scheduler", "none"),
        ("kube-router.io/service.scheduler", "maglev"),
        ("service.cilium.io/lb-algorithm", "mh"),
    ] {
        rejected(annotation, value);
    }
    assert_eq!(
        rejected("proxier.io/scheduler", "fastest"),
        "proxier.io/scheduler: \"fastest\" is not used: it takes rr, wrr, lc, wlc, lblc, lblcr, dh, sh, \
         sed, nq, fo, ovf, mh or twos"
    );
}

#[test]
fn our_own_annotation_decides_even_if_it_cannot_be_used() {
    let both = [("proxier.io/scheduler", "wlc"), ("kube-router.io/service.scheduler", "sh")];
    assert_eq!(of(&both).unwrap().scheduler.unwrap().value, Scheduler::WLC);
    let both = [("proxier.io/scheduler", "wlcc"), ("kube-router.io/service.scheduler", "sh")];
    let settings = of(&both).unwrap();
    assert_eq!((settings.scheduler, settings.rejected.len()), (None, 1));
}

#[test]
fn flags_have_the_names_of_ipvsadm() {
    let all = Flags::SCHED1 | Flags::SCHED2 | Flags::SCHED3;
    for (text, flags, of) in [
        ("sh-port", Flags::SCHED2, Some(Scheduler::SH)),
        ("sh-fallback, sh-port", Flags::SCHED1 | Flags::SCHED2, Some(Scheduler::SH)),
        ("mh-fallback,mh-port", Flags::SCHED1 | Flags::SCHED2, Some(Scheduler::MH)),
        ("flag-1,flag-2,flag-3", all, None),
        ("flag-3,mh-port", Flags::SCHED2 | Flags::SCHED3, Some(Scheduler::MH)),
        ("none", Flags::NONE, None),
        ("", Flags::NONE, None),
    ] {
        for annotation in ["proxier.io/scheduler-flags", "kube-router.io/service.schedflags"] {
            let found = one(annotation, text).scheduler_flags.unwrap().value;
            assert_eq!(found, SchedulerFlags { flags, of }, "{text}");
        }
    }
    for text in ["sh-port,mh-port", "flag-4", "sh-port,", "mh_port", "none,flag-1"] {
        rejected("proxier.io/scheduler-flags", text);
    }
}

#[test]
fn weights_are_found_by_node_then_zone_then_for_all_others() {
    let text = "zone=a:3, zone=b:0,node=n-1.example:65535,default:2";
    let weights = one("proxier.io/weights", text).weights.unwrap();
    for (node, zone, weight) in [
        (Some("n-1.example"), Some("a"), 65535),
        (Some("n-2"), Some("a"), 3),
        (None, Some("b"), 0),
        (None, Some("c"), 2),
        (None, None, 2),
    ] {
        assert_eq!(weights.of(node, zone).0, weight, "{node:?} {zone:?}");
    }
    assert_eq!(weights.to_string(), "node=n-1.example:65535,zone=a:3,zone=b:0,default:2");
    assert_eq!(one("proxier.io/weights", "zone=a:3").weights.unwrap().of(None, None).0, 1);
    for text in [
        "",
        "3",
        "a:3",
        "zone=a",
        "zone=a:",
        "zone=:3",
        "zone=a:65536",
        "zone=a:-1",
        "zone=a:+1",
        "zone=a:1,",
        "zone=a:1,zone=a:1",
        "default:1,default:1",
        "default=:1",
        "zone a:1",
        "zone=a b:1",
        "zone=a:99999999999999999999",
        "region=a:1",
    ] {
        rejected("proxier.io/weights", text);
    }
    let rules = |n: usize| (0..n).map(|n| format!("node=n{n}:1")).collect::<Vec<_>>().join(",");
    assert!(one("proxier.io/weights", &rules(100)).weights.is_some());
    assert!(rejected("proxier.io/weights", &rules(101)).len() < 200, "no more is kept of it");
}

#[test]
fn the_other_settings_and_their_bounds() {
    assert!(one("proxier.io/one-packet", "true").one_packet);
    for text in ["yes", "True", "1", ""] {
        rejected("proxier.io/one-packet", text);
    }
    for (text, seconds) in [("1s", 1), ("30s", 30), ("1m30s", 90), ("1h", 3600)] {
        let found = one("proxier.io/slow-start", text).slow_start;
        assert_eq!(found, Some(Duration::from_secs(seconds)));
    }
    for text in ["30", "0s", "999ms", "-30s", "1h1s", "999999999999h", "soon", ""] {
        rejected("proxier.io/slow-start", text);
    }
    for (text, most) in [("1", 1), ("1000000000", 1_000_000_000)] {
        assert_eq!(one("proxier.io/max-connections", text).max_connections, Some(most));
    }
    for text in ["0", "-1", "1000000001", "99999999999", "ten", "1e3", ""] {
        rejected("proxier.io/max-connections", text);
    }
}

#[test]
fn a_value_that_is_no_text_is_rejected_too() {
    let raw = json!({"proxier.io/one-packet": true, "proxier.io/max-connections": 5});
    let settings = settings(serde_json::from_value(raw).unwrap()).unwrap();
    let texts: Vec<String> = settings.rejected.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "proxier.io/one-packet: true is not used: it must be text, in quotes",
            "proxier.io/max-connections: the number 5 is not used: it must be text, in quotes",
        ]
    );
}

const ALL: [&str; 9] = [
    "proxier.io/scheduler",
    "kube-router.io/service.scheduler",
    "service.cilium.io/lb-algorithm",
    "proxier.io/scheduler-flags",
    "kube-router.io/service.schedflags",
    "proxier.io/one-packet",
    "proxier.io/weights",
    "proxier.io/slow-start",
    "proxier.io/max-connections",
];

/// Anything at all, or pieces of what is right in an order that is not.
fn hostile() -> impl Strategy<Value = String> {
    const PIECES: [&str; 22] = [
        "zone=",
        "node=",
        "default",
        ":",
        ",",
        "=",
        "a",
        "0",
        "65535",
        "65536",
        "-",
        "mh-port",
        "true",
        "1h",
        "99999999999h",
        ".5",
        "s",
        " ",
        "\u{0}",
        "\u{202e}",
        "\u{1b}[31m",
        "wrr",
    ];
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..12)
            .prop_map(|pieces| pieces.concat()),
        "[a-z=:,0-9]{0,300}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a tenant writes is taken, or rejected in few printable words; each annotation by itself.
    #[test]
    fn any_value_is_taken_or_rejected(values in proptest::collection::vec(hostile(), ALL.len())) {
        let pairs: Vec<_> = ALL.into_iter().zip(values.iter().map(|value| &**value)).collect();
        let together = of(&pairs).map(|settings| *settings).unwrap_or_default();
        for rejected in &together.rejected {
            let text = rejected.to_string();
            prop_assert!(text.len() < 700 && !text.chars().any(char::is_control), "{text:?}");
        }
        // Each of the three schedulers and two flags hides those after it.
        for (at, settings) in [(5, together.one_packet), (6, together.weights.is_some())] {
            let alone = of(&pairs[at..=at]).map(|settings| *settings).unwrap_or_default();
            prop_assert_eq!(settings, alone.one_packet || alone.weights.is_some());
        }
    }

    /// What is shown of weights is an annotation that means the same.
    #[test]
    fn weights_are_shown_as_they_are_written(text in "((zone|node)=[ab]{1,2}:[0-9]{1,5},?){1,4}") {
        if let Ok(read) = weights(&text) {
            prop_assert_eq!(weights(&read.to_string()), Ok(read));
        }
    }
}
