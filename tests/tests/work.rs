//! How much work the loop does, counted: in proportion to what changed, however much there is.

use std::sync::Arc;

use netlink_ipvs::{Family, RealServer};
use proxier::builders::settings;
use proxier::cluster::{Change, ObjectKey};
use proxier::dataplane::Connections;
use proxier::dataplane::sets::SetRole;
use proxier::dataplane::split::EXPIRY;
use proxier::memory::Memory;
use proxier::reconcile::{Event, Status};
use proxier_tests::load::memory::{
    Settled, TIMING, nth_local_slice, nth_real_server, nth_service, nth_slice, nth_virtual_server,
};
use tokio::sync::mpsc;
use tokio::time::{Duration, advance, timeout};

/// What one piece of news cost.
#[derive(Debug, PartialEq)]
struct Work {
    steps: u64,
    contributions: u64,
    operations: Vec<String>,
    virtual_servers_read: usize,
    frames_read: usize,
}

/// Counts since it was made.
struct Before {
    status: Arc<Status>,
    read: usize,
    observed: usize,
}

impl Before {
    fn of(world: &mut Settled) -> Self {
        let status = world.status.borrow().clone();
        let memory = world.reconciler.dataplane();
        memory.done.clear();
        Self { status, read: memory.read, observed: memory.observed }
    }

    fn work(&self, world: &mut Settled) -> Work {
        let counters = world.status.borrow().counters.clone();
        let memory = world.reconciler.dataplane();
        Work {
            steps: counters.steps - self.status.counters.steps,
            contributions: counters.contributions - self.status.counters.contributions,
            operations: memory.done.iter().map(ToString::to_string).collect(),
            virtual_servers_read: memory.read - self.read,
            frames_read: memory.observed - self.observed,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_is_the_same_work_among_20_services_and_among_2000() {
    for services in [20, 2000] {
        let mut world = Settled::with(services).await;
        let before = Before::of(&mut world);
        world.change(7, &[1, 3]).await;
        let expected = Work {
            steps: 1,
            contributions: 1,
            // An idle server need not drain: one look, and it is gone.
            operations: [
                "add real server 10.128.7.3:8080 to 10.96.0.7:80/tcp, weight 1",
                "set real server 10.128.7.2:8080 of 10.96.0.7:80/tcp to weight 0",
                "remove real server 10.128.7.2:8080 of 10.96.0.7:80/tcp",
            ]
            .map(str::to_owned)
            .into(),
            virtual_servers_read: 1,
            frames_read: 0,
        };
        assert_eq!(before.work(&mut world), expected, "among {services}");
    }
}

/// One virtual server by address has all endpoints, and one by mark.
#[tokio::test(start_paused = true)]
async fn one_endpoint_is_the_same_work_among_20_local_policies_and_among_1000() {
    for services in [20, 1000] {
        let mut world = Settled::local(services).await;
        let before = Before::of(&mut world);
        world.reconciler.take(Event::from(Change::Slice(nth_local_slice(7, 3))));
        world.reconciler.step().await;
        let work = before.work(&mut world);
        assert_eq!((work.steps, work.contributions), (1, 1));
        let [new, old] = ["10.128.7.3:8080", "10.128.7.2:8080"];
        let mut operations = Vec::new();
        let mark = work.operations.iter().find_map(|op| Some(op.split_once(" to mark ")?.1));
        let mark =
            mark.and_then(|rest| rest.split_once(',')).map(|(mark, _)| format!("mark {mark}"));
        for key in ["10.96.0.7:80/tcp", &mark.expect("a virtual server by mark")] {
            operations.extend([
                format!("add real server {new} to {key}, weight 1"),
                format!("set real server {old} of {key} to weight 0"),
                format!("remove real server {old} of {key}"),
            ]);
        }
        operations.sort_unstable();
        let mut done = work.operations;
        done.sort_unstable();
        assert_eq!(done, operations, "among {services}");
        assert_eq!((work.virtual_servers_read, work.frames_read), (2, 0));
    }
}

/// However many marks there are, renewing them is one operation, and computes nothing.
#[tokio::test(start_paused = true)]
async fn marks_are_renewed_together() {
    for services in [20, 1000] {
        let mut world = Settled::local(services).await;
        let before = Before::of(&mut world);
        advance(EXPIRY / 4).await;
        world.reconciler.step().await;
        let work = before.work(&mut world);
        let renewed = format!("renew {services} members of set KUBE-LOCAL-MARK");
        assert_eq!((work.contributions, work.operations), (0, vec![renewed]));
    }
}

/// Without the split what it left goes, and is not renewed before.
#[tokio::test(start_paused = true)]
async fn what_the_split_left_is_not_renewed_without_it() {
    let objects = |n| (nth_service(n), nth_slice(n, &[1, 2]));
    let mut memory = Memory::new();
    let split = Settled::local(3).await.reconciler.desired().state().sets.clone();
    let marks = SetRole::LocalMark.of(Family::Ipv4);
    assert_eq!(split[&marks].members.len(), 3);
    memory.state.sets.insert(marks, split[&marks].clone());
    let mut world = Settled::over(memory, settings, (0..3).map(objects)).await;
    let gone = |op: &&String| op.ends_with("from set KUBE-LOCAL-MARK");
    let done: Vec<String> =
        world.reconciler.dataplane().done.iter().map(ToString::to_string).collect();
    assert_eq!(done.iter().filter(gone).count(), 3, "{done:?}");
    advance(EXPIRY / 4).await;
    world.reconciler.step().await;
    let memory = world.reconciler.dataplane();
    assert!(!memory.done.iter().any(|op| op.to_string().starts_with("renew")), "{:?}", memory.done);
}

/// Another weight of a node computes the services on it, and changes their real servers there.
#[tokio::test(start_paused = true)]
async fn the_weight_of_a_node_is_the_same_work_among_20_services_and_among_2000() {
    for services in [20, 2000] {
        let slice = |n| {
            let mut slice = nth_slice(n, &[1, 2]);
            let node = if n < 3 { "heavy" } else { "plain" };
            Arc::make_mut(&mut slice.endpoints[0].location).node = Some(node.into());
            slice
        };
        let objects = (0..services).map(|n| (nth_service(n), slice(n)));
        let mut world = Settled::of(settings, objects).await;
        let weigh = |weight| Event::from(Change::NodeWeight(ObjectKey::new("", "heavy"), weight));
        world.reconciler.take(weigh(Some(2)));
        world.reconciler.step().await;
        let before = Before::of(&mut world);
        world.reconciler.take(weigh(Some(5)));
        world.reconciler.step().await;
        let expected = Work {
            steps: 1,
            contributions: 3,
            operations: (0..3)
                .map(|n| {
                    let (real, server) = (nth_real_server(n, 1), nth_virtual_server(n));
                    format!("set real server {real} of {server} to weight 5")
                })
                .collect(),
            virtual_servers_read: 0,
            frames_read: 0,
        };
        assert_eq!(before.work(&mut world), expected, "among {services}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_drains_is_not_counted_again_for_each_change() {
    let mut world = Settled::with(300).await;
    for n in 0..200 {
        let busy = Connections { active: 1, inactive: 0 };
        let removed = (nth_virtual_server(n), nth_real_server(n, 2));
        world.reconciler.dataplane().connections.insert(removed, busy);
        world.change(n, &[1]).await;
    }
    // What is shown of many is not made anew for each change.
    advance(Duration::from_secs(1)).await;
    world.change(250, &[1]).await;
    assert_eq!(world.status.borrow().draining.len(), 200);
    let before = Before::of(&mut world);
    world.change(251, &[1]).await;
    assert_eq!(before.work(&mut world).virtual_servers_read, 1);
    // All of them when it is time, in slices.
    advance(TIMING.drain_check).await;
    let before = Before::of(&mut world);
    let mut slices = 0;
    while before.work(&mut world).virtual_servers_read < 200 {
        let so_far = before.work(&mut world).virtual_servers_read;
        world.reconciler.step().await;
        let more = before.work(&mut world).virtual_servers_read - so_far;
        assert!((1..=16).contains(&more), "{more} virtual servers in one slice");
        slices += 1;
    }
    assert_eq!(slices, 13);
}

#[tokio::test(start_paused = true)]
async fn an_audit_lets_changes_pass_and_still_sees_everything() {
    const SERVICES: u32 = 1000;
    let mut world = Settled::with(SERVICES).await;
    for n in 0..SERVICES {
        let state = &mut world.reconciler.dataplane().state;
        let server = state.virtual_servers.get_mut(&nth_virtual_server(n)).unwrap();
        let server = Arc::make_mut(server);
        server.real_servers = server.real_servers.iter().take(1).copied().collect();
    }
    advance(TIMING.sync_period).await;
    let before = Before::of(&mut world);
    world.change(500, &[1, 3]).await;
    let work = before.work(&mut world);
    assert_eq!(work.contributions, 1);
    assert!(world.reconciler.is_auditing());
    // One piece, and the change's own.
    assert!(work.frames_read + work.virtual_servers_read <= 2, "read before the change: {work:?}");
    let servers = |world: &mut Settled, n| -> Vec<RealServer> {
        let state = &world.reconciler.dataplane().state;
        state.virtual_servers[&nth_virtual_server(n)].real_servers.to_vec()
    };
    assert!(servers(&mut world, 500).iter().any(|real| real.key == nth_real_server(500, 3)));

    let wanted = world.reconciler.desired().state().clone();
    let (sender, receiver) = mpsc::channel(1);
    let mut status = world.status.clone();
    // The change came to one of them before the audit did.
    let repaired =
        |status: &Status| status.synced && status.counters.drift == u64::from(SERVICES) - 1;
    let run = tokio::spawn(world.reconciler.run(receiver));
    let repaired = status.wait_for(|status| repaired(status));
    timeout(Duration::from_secs(1), repaired).await.unwrap().unwrap();
    drop(sender);
    assert_eq!(run.await.unwrap().state, wanted);
}

/// The queue holds 4,096 events and the sources wait when it is full: what grows is neither it nor
/// the time until the last state is there.
#[tokio::test(start_paused = true)]
async fn of_a_burst_of_100_000_events_the_last_state_is_programmed() {
    const EVENTS: u32 = 100_000;
    const SERVICES: u32 = 10;
    let world = Settled::with(SERVICES).await;
    let before = world.status.borrow().clone();
    let status = world.status.clone();
    let (sender, receiver) = mpsc::channel(4096);
    let run = tokio::spawn(world.reconciler.run(receiver));
    let slices: Vec<Vec<_>> =
        (0..SERVICES).map(|n| (2..10).map(|last| nth_slice(n, &[1, last])).collect()).collect();
    for event in 0..EVENTS {
        let last = if event + SERVICES >= EVENTS { 7 } else { event / SERVICES % 5 };
        let slice = slices[(event % SERVICES) as usize][last as usize].clone();
        sender.send(Event::from(Change::Slice(slice))).await.unwrap();
    }
    drop(sender);
    let memory: Memory = run.await.unwrap();
    for n in 0..SERVICES {
        let keys = memory.state.virtual_servers[&nth_virtual_server(n)].real_servers.iter();
        let keys: Vec<_> = keys.map(|real| real.key).collect();
        assert_eq!(keys, [nth_real_server(n, 1), nth_real_server(n, 9)]);
    }
    let steps = status.borrow().counters.steps - before.counters.steps;
    let contributions = status.borrow().counters.contributions - before.counters.contributions;
    // What waits is taken together; the sender is let go on after 128 events.
    assert!(steps <= u64::from(EVENTS / 128 + 2), "{steps} steps");
    assert!(contributions <= steps * u64::from(SERVICES), "{contributions} in {steps} steps");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_or_goes_computes_itself_alone() {
    for services in [20, 2000] {
        let mut world = Settled::with(services).await;
        let before = Before::of(&mut world);
        world.reconciler.take(Event::from(Change::Service(nth_service(services))));
        world.reconciler.step().await;
        let work = before.work(&mut world);
        // Its virtual server, its address, and a member of two sets.
        assert_eq!((work.contributions, work.operations.len()), (1, 4), "{:?}", work.operations);
        let before = Before::of(&mut world);
        world.reconciler.take(Event::from(Change::ServiceGone(nth_service(services).key)));
        world.reconciler.step().await;
        let work = before.work(&mut world);
        assert_eq!((work.contributions, work.operations.len()), (1, 4), "{:?}", work.operations);
        assert_eq!((work.virtual_servers_read, work.frames_read), (0, 0));
    }
}
