use std::sync::Arc;

use super::*;
use crate::builders::{endpoint, endpoints, service, settings};
use crate::cluster::{ServicePort, WeightRule};

/// A Service with these settings, and a port of each of two protocols.
fn with(settings: ServiceSettings) -> Service {
    let port =
        |name: &str, protocol| ServicePort { name: name.into(), protocol, port: 53, node_port: 0 };
    let ports = vec![port("tcp", Protocol::Tcp), port("udp", Protocol::Udp)];
    Service { settings: Some(Box::new(settings)), ports, ..service("web") }
}

fn scheduled(scheduler: Scheduler) -> ServiceSettings {
    let annotation = Annotation::Scheduler;
    let scheduler = Some(Annotated { value: scheduler, annotation });
    ServiceSettings { scheduler, ..ServiceSettings::default() }
}

fn flagged(mut settings: ServiceSettings, flags: Flags, of: Option<Scheduler>) -> ServiceSettings {
    let value = SchedulerFlags { flags, of };
    settings.scheduler_flags = Some(Annotated { value, annotation: Annotation::SchedulerFlags });
    settings
}

fn weights(zones: &[(&str, u16)]) -> Weights {
    let zones = zones.iter().map(|(zone, weight)| ((*zone).into(), *weight)).collect();
    Weights::new(Vec::new(), zones, None).unwrap()
}

/// `wrr 10` is the scheduler and flags of UDP, then what was rejected.
fn outcome(asked: ServiceSettings, node: &Settings) -> (String, Vec<String>) {
    let service = with(asked);
    let (tuning, applied) = Tuning::new(&service, &[], node);
    let config = tuning.virtual_server(Protocol::Udp, Family::Ipv4);
    let rejected = applied.unwrap().rejected;
    let text = format!("{} {:x}", config.scheduler, config.flags.bits());
    (text, rejected.iter().map(ToString::to_string).collect())
}

fn fine(asked: ServiceSettings) -> String {
    let (text, rejected) = outcome(asked, &settings());
    assert_eq!(rejected, [""; 0]);
    text
}

fn refused(asked: ServiceSettings) -> (String, String) {
    let (text, rejected) = outcome(asked, &settings());
    (text, rejected.join("\n"))
}

#[test]
fn without_annotations_everything_is_as_the_configuration_says() {
    for (scheduler, flags) in
        [(Scheduler::RR, Flags::NONE), (Scheduler::SH, Flags::NONE), (Scheduler::MH, Flags::SCHED2)]
    {
        let node = Settings { scheduler, ..settings() };
        let plain = service("web");
        let (tuning, applied) = Tuning::new(&plain, &[], &node);
        assert_eq!(applied, None);
        let mut config = VirtualServerConfig::new(scheduler, Family::Ipv4);
        config.flags = flags;
        assert_eq!(tuning.virtual_server(Protocol::Udp, Family::Ipv4), config);
        let real = tuning.real_server(&endpoint("10.244.0.1 @n in=a"));
        assert_eq!(real, RealServerConfig::masquerade(1));
    }
}

#[test]
fn scheduler_and_flags() {
    let fallback = Flags::SCHED1;
    for (asked, text) in [
        (scheduled(Scheduler::LC), "lc 0"),
        // As the cluster-wide one has it, unless flags are given.
        (scheduled(Scheduler::MH), "mh 10"),
        (flagged(scheduled(Scheduler::MH), Flags::NONE, None), "mh 0"),
        (flagged(scheduled(Scheduler::MH), fallback, Some(Scheduler::MH)), "mh 8"),
        (flagged(scheduled(Scheduler::SH), fallback | Flags::SCHED2, Some(Scheduler::SH)), "sh 18"),
        (flagged(ServiceSettings::default(), Flags::SCHED3, None), "rr 20"),
    ] {
        assert_eq!(fine(asked), text);
    }
    let (text, why) = refused(flagged(scheduled(Scheduler::MH), fallback, Some(Scheduler::SH)));
    assert_eq!(text, "mh 10", "those that it has by itself");
    assert_eq!(
        why,
        "proxier.io/scheduler-flags: \"sh-fallback\" is not used: these are flags of sh, and the \
         scheduler is mh"
    );
}

#[test]
fn weights_bring_a_scheduler_that_heeds_them() {
    let asked = |scheduler| ServiceSettings {
        weights: Some(weights(&[("a", 3), ("b", 0)])),
        ..scheduled(scheduler)
    };
    for (scheduler, text) in [
        (Scheduler::RR, "wrr 0"),
        (Scheduler::LC, "wlc 0"),
        (Scheduler::SED, "sed 0"),
        // The clients of an endpoint of weight 0 are not refused.
        (Scheduler::SH, "sh 8"),
        (Scheduler::MH, "mh 18"),
    ] {
        assert_eq!(fine(asked(scheduler)), text);
    }
    let (text, why) = refused(asked(Scheduler::DH));
    assert_eq!(text, "dh 0");
    assert!(why.starts_with("proxier.io/weights: \"zone=a:3,zone=b:0\" is not used: "), "{why}");

    let service = with(asked(Scheduler::RR));
    let (tuning, applied) = Tuning::new(&service, &[], &settings());
    let in_force: Vec<String> = applied.unwrap().in_force.iter().map(ToString::to_string).collect();
    assert_eq!(
        in_force,
        [
            "scheduler rr (proxier.io/scheduler)",
            "scheduler wrr (proxier.io/weights)",
            "weights zone=a:3,zone=b:0 (proxier.io/weights)",
        ]
    );
    for (text, weight) in [("in=a", 3), ("in=b", 0), ("in=c", 1), ("", 1)] {
        let config = tuning.real_server(&endpoint(&format!("10.244.0.1 {text}")));
        assert_eq!(config, RealServerConfig::masquerade(weight), "{text}");
    }
    let rule = weights(&[("a", 3)]).of(None, Some("a"));
    assert_eq!(rule, (3, WeightRule::Zone));
}

#[test]
fn slow_start_needs_weights_that_are_shares() {
    let duration = Duration::from_secs(30);
    let asked = |scheduler, weight| ServiceSettings {
        slow_start: Some(duration),
        weights: Some(weights(&[("a", weight)])),
        ..scheduled(scheduler)
    };
    for (scheduler, weight, begins) in [
        (Scheduler::RR, 1, true),
        (Scheduler::WLC, 6553, true),
        (Scheduler::MH, 2, true),
        (Scheduler::RR, 6554, false),
        (Scheduler::SH, 1, false),
        (Scheduler::FO, 1, false),
        (Scheduler::OVF, 1, false),
    ] {
        let service = with(asked(scheduler, weight));
        let (tuning, applied) = Tuning::new(&service, &[], &settings());
        let applied = applied.unwrap();
        assert_eq!(applied.slow_start, begins.then_some(duration), "{scheduler} {weight}");
        assert_eq!(applied.rejected.is_empty(), begins);
        let scale = if begins { SlowStarts::STEPS } else { 1 };
        let real = tuning.real_server(&endpoint("10.244.0.1 in=a"));
        assert_eq!(real.weight, u32::from(weight) * scale);
    }
}

#[test]
fn one_packet_is_for_udp_without_affinity() {
    let asked = ServiceSettings { one_packet: true, ..ServiceSettings::default() };
    let service = with(asked.clone());
    let (tuning, applied) = Tuning::new(&service, &[], &settings());
    assert_eq!(applied.unwrap().rejected, []);
    let udp = tuning.virtual_server(Protocol::Udp, Family::Ipv4);
    assert_eq!((udp.flags, udp.persistence_engine), (Flags::ONE_PACKET, Some(REPLIES)));
    let tcp = tuning.virtual_server(Protocol::Tcp, Family::Ipv4);
    assert_eq!((tcp.flags, tcp.persistence_engine), (Flags::NONE, None));

    let sticky = Service { affinity: Some(60), ..service.clone() };
    let tcp_only = Service { ports: service.ports[..1].to_vec(), ..service };
    for service in [sticky, tcp_only] {
        let (tuning, applied) = Tuning::new(&service, &[], &settings());
        assert_eq!(applied.unwrap().rejected.len(), 1);
        let config = tuning.virtual_server(Protocol::Udp, Family::Ipv4);
        assert!(!config.flags.contains(Flags::ONE_PACKET) && config.persistence_engine.is_none());
    }
}

#[test]
fn what_the_kernel_lacks_is_left_out_with_its_reason() {
    let lacking = |module| Settings { missing_modules: [module].into(), ..settings() };
    let twos = Module::Scheduler(Scheduler::TWOS);
    let (text, why) = outcome(scheduled(Scheduler::TWOS), &lacking(twos));
    assert_eq!(text, "rr 0");
    assert_eq!(
        why,
        ["proxier.io/scheduler: \"twos\" is not used: the kernel of this node has no module \
          ip_vs_twos; load it and restart proxier"]
    );
    let weighted =
        ServiceSettings { weights: Some(weights(&[("a", 3)])), ..ServiceSettings::default() };
    let (text, why) = outcome(weighted, &lacking(Module::Scheduler(Scheduler::WRR)));
    assert_eq!((&*text, why.len()), ("rr 0", 1));
    let single = ServiceSettings { one_packet: true, ..ServiceSettings::default() };
    let (text, why) = outcome(single, &lacking(Module::PersistenceEngine(REPLIES)));
    assert_eq!((&*text, why.len()), ("rr 0", 1));
    assert!(why[0].contains("ip_vs_pe_sip"), "{why:?}");
}

#[test]
fn of_a_long_value_the_beginning_is_shown() {
    let zones: Vec<(String, u16)> = (0..100).map(|n| (format!("zone-{n:03}"), 1)).collect();
    let zones: Vec<(&str, u16)> = zones.iter().map(|(zone, weight)| (&**zone, *weight)).collect();
    for scheduler in [Scheduler::WRR, Scheduler::DH] {
        let weights = Some(weights(&zones));
        let service = with(ServiceSettings { weights, ..scheduled(scheduler) });
        let applied = Tuning::new(&service, &[], &settings()).1.unwrap();
        let in_force = applied.in_force.iter().map(|it| &it.value);
        let longest =
            in_force.chain(applied.rejected.iter().map(|it| &it.value)).map(|it| it.len());
        let longest = longest.max().unwrap();
        assert!((200..=210).contains(&longest), "{longest}");
    }
}

/// Rules of the Service for a node go before what the Node says, and that before zones.
#[test]
fn nodes_weigh_their_endpoints_unless_the_service_names_them() {
    let nodes = [("n1", 4), ("n2", 0), ("n3", 9)].map(|(node, weight)| (node.into(), weight));
    let node = Settings { node_weights: Arc::new(nodes.into()), ..settings() };
    let slice =
        endpoints("web", 80, &["10.0.0.1 @n1 in=a", "10.0.0.2 @n2 in=a", "10.0.0.5 @n5 in=a"]);
    let weights = |tuning: &Tuning<'_>| {
        slice.endpoints.iter().map(|it| tuning.real_server(it).weight).collect::<Vec<_>>()
    };
    let plain = service("web");
    let (tuning, applied) = Tuning::new(&plain, [&slice], &node);
    assert_eq!(weights(&tuning), [4, 0, 1]);
    let said: Vec<String> = applied.unwrap().in_force.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["scheduler wrr (proxier.io/weight)", "weights node=n1:4,node=n2:0 (proxier.io/weight)"]
    );
    let own = Weights::new(vec![("n2".into(), 7)], vec![("a".into(), 3)], None).unwrap();
    let own = with(ServiceSettings { weights: Some(own), ..ServiceSettings::default() });
    let (tuning, _) = Tuning::new(&own, [&slice], &node);
    assert_eq!(weights(&tuning), [4, 7, 3]);
    // Without endpoints on such nodes, and with a scheduler that heeds none.
    let others = endpoints("web", 80, &["10.0.0.5 @n5"]);
    assert_eq!(Tuning::new(&plain, [&others], &node).1, None);
    let hashes = with(scheduled(Scheduler::DH));
    let (tuning, applied) = Tuning::new(&hashes, [&slice], &node);
    assert_eq!(weights(&tuning), [1, 1, 1]);
    assert_eq!(applied.unwrap().rejected[0].annotation, Annotation::NodeWeight);
    // A hash that leads to weight 0 needs the fallback.
    let hashes = with(scheduled(Scheduler::SH));
    let flags =
        Tuning::new(&hashes, [&slice], &node).0.virtual_server(Protocol::Tcp, Family::Ipv4).flags;
    assert!(flags.contains(Flags::SCHED1));
}
