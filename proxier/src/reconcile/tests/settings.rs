//! Settings of one Service: changed in place, with what the kernel has, and with time.

use super::*;
use crate::cluster::{Annotated, Annotation, SchedulerFlags, ServiceSettings};
use netlink_ipvs::{Flags, Scheduler};

fn with(number: u8, settings: ServiceSettings) -> Event {
    let settings = Some(Box::new(settings));
    Event::from(Change::Service(Service { settings, ..service(number) }))
}

fn scheduled(scheduler: Scheduler) -> ServiceSettings {
    let annotation = Annotation::Scheduler;
    let scheduler = Some(Annotated { value: scheduler, annotation });
    ServiceSettings { scheduler, ..ServiceSettings::default() }
}

#[tokio::test(start_paused = true)]
async fn every_setting_is_changed_in_place() {
    let (mut reconciler, status) = settled(2).await;
    done(&mut reconciler);
    let flags = SchedulerFlags { flags: Flags::SCHED2, of: Some(Scheduler::SH) };
    let annotation = Annotation::SchedulerFlags;
    let all = ServiceSettings {
        scheduler_flags: Some(Annotated { value: flags, annotation }),
        weights: crate::cluster::Weights::new(vec![], vec![], Some(7)),
        max_connections: Some(50),
        ..scheduled(Scheduler::SH)
    };
    reconciler.take(with(1, all));
    step(&mut reconciler).await;
    assert_eq!(
        done(&mut reconciler),
        [
            "change virtual server 10.96.0.1:80/tcp to sh",
            "set real server 10.244.1.1:8080 of 10.96.0.1:80/tcp to weight 7",
            "set real server 10.244.1.2:8080 of 10.96.0.1:80/tcp to weight 7",
        ]
    );
    let server = &reconciler.dataplane().state.virtual_servers[&vip(1)];
    assert_eq!(server.config.flags, Flags::SCHED2);
    assert!(server.real_servers.iter().all(|real| real.config.upper_threshold == 50));
    let counts = status.borrow().settings.clone();
    for setting in ["scheduler", "scheduler-flags", "weights", "max-connections"] {
        assert_eq!(counts.get(setting), Some(&1), "{setting}");
    }

    reconciler.take(Event::from(Change::Service(service(1))));
    step(&mut reconciler).await;
    assert_eq!(done(&mut reconciler).len(), 3, "and back");
    assert!(status.borrow().settings.values().all(|count| *count == 0));
}

/// The kernel without the modules of some schedulers: the Service has the cluster-wide one in the same
/// step, once there is a configuration with the module it is tried again.
#[tokio::test(start_paused = true)]
async fn a_scheduler_that_the_kernel_lacks_costs_a_service_only_its_setting() {
    for new in [false, true] {
        let (mut reconciler, status) = settled(2).await;
        let (sender, mut notices) = mpsc::channel(100);
        reconciler.notify(sender);
        let lacking = Arc::new(Mutex::new(true));
        let fault = Arc::clone(&lacking);
        reconciler.dataplane().fault = Some(Box::new(move |op| match op {
            Op::AddVirtualServer(_, config) | Op::SetVirtualServer(_, config) => {
                let lacks = config.scheduler == Scheduler::TWOS && *fault.lock().unwrap();
                lacks.then_some(OpErrorKind::Unsupported)
            }
            _ => None,
        }));
        let number = if new { 3 } else { 1 };
        reconciler.take(with(number, scheduled(Scheduler::TWOS)));
        reconciler.take(Event::from(Change::Slice(slice(number, &[1, 2]))));
        step(&mut reconciler).await;
        assert!(status.borrow().synced, "{:?}", status.borrow().errors);
        let scheduler = |reconciler: &mut Reconciler<Memory>| {
            let server = &reconciler.dataplane().state.virtual_servers[&vip(number)];
            (server.config.scheduler, server.real_servers.len())
        };
        assert_eq!(scheduler(&mut reconciler), (Scheduler::RR, 2));
        assert_eq!(status.borrow().rejected_settings, 1);
        let told: Vec<Notice> = std::iter::from_fn(|| notices.try_recv().ok()).collect();
        let [Notice::Setting(service, text)] = &*told else { panic!("{told:?}") };
        assert_eq!(service.to_string(), format!("ns/web-{number}"));
        assert!(text.contains("no module ip_vs_twos"), "{text}");

        // It is not tried for each change.
        done(&mut reconciler);
        reconciler.take(Event::from(Change::Slice(slice(number, &[1, 2, 3]))));
        step(&mut reconciler).await;
        assert_eq!(done(&mut reconciler).len(), 1, "the new endpoint alone");

        *lacking.lock().unwrap() = false;
        reconciler.take(Event::Configured(Resolver::new(settings), TIMING));
        step(&mut reconciler).await;
        assert_eq!(scheduler(&mut reconciler), (Scheduler::TWOS, 3));
        assert_eq!(status.borrow().rejected_settings, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_used_is_told_of_once_and_costs_nothing() {
    let (mut reconciler, status) = settled(1).await;
    let (sender, mut notices) = mpsc::channel(100);
    reconciler.notify(sender);
    done(&mut reconciler);
    let rejected = crate::cluster::Rejected {
        annotation: Annotation::Scheduler,
        value: "\"fast\"".into(),
        reason: "it takes rr".into(),
    };
    let bad = ServiceSettings { rejected: vec![rejected], ..ServiceSettings::default() };
    reconciler.take(with(1, bad.clone()));
    step(&mut reconciler).await;
    assert_eq!(done(&mut reconciler), [""; 0]);
    reconciler.take(with(1, ServiceSettings { max_connections: Some(5), ..bad }));
    step(&mut reconciler).await;
    assert_eq!(done(&mut reconciler).len(), 2, "what can be used is");
    let told: Vec<Notice> = std::iter::from_fn(|| notices.try_recv().ok()).collect();
    let text = "proxier.io/scheduler: \"fast\" is not used: it takes rr";
    assert_eq!(told, [Notice::Setting(ObjectKey::new("ns", "web-1"), text.to_owned())]);
    assert_eq!(status.borrow().rejected_settings, 1);
    reconciler.take(Event::from(Change::ServiceGone(ObjectKey::new("ns", "web-1"))));
    step(&mut reconciler).await;
    assert_eq!(status.borrow().rejected_settings, 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_weight_in_steps_and_the_loop_wakes_for_them() {
    let slow =
        ServiceSettings { slow_start: Some(Duration::from_secs(90)), ..ServiceSettings::default() };
    let (mut reconciler, status) = reconciler(Memory::new());
    reconciler.take(Event::HostAddresses(vec![]));
    reconciler.take(with(1, slow));
    reconciler.take(Event::from(Change::Slice(slice(1, &[1, 2]))));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    // Those of the start are not new.
    assert_eq!(weights(&mut reconciler, 1), [(pod(1, 1), 10), (pod(1, 2), 10)]);
    reconciler.take(Event::from(Change::Slice(slice(1, &[1, 2, 3]))));
    step(&mut reconciler).await;
    assert_eq!(status.borrow().slow_starts, 1);
    done(&mut reconciler);
    for part in 1..=10 {
        let weight = weights(&mut reconciler, 1)[2].1;
        assert_eq!(weight, part);
        advance(Duration::from_secs(10) + Duration::from_millis(1)).await;
        step(&mut reconciler).await;
    }
    let steps = done(&mut reconciler);
    assert_eq!(steps.len(), 9, "one operation for each step: {steps:?}");
    assert!(steps.iter().all(|op| op.starts_with("set real server 10.244.1.3:8080 of")));
    assert_eq!(status.borrow().slow_starts, 0);
}
