//! What an audit does, and what it may not do.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_no_more_than_one_piece_of_an_audit() {
    const READING: Duration = Duration::from_millis(10);
    let (mut reconciler, mut status) = settled(40).await;
    reconciler.dataplane().reading = READING;
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        for last in 3..20 {
            sender.send(Event::Disturbed).await.unwrap();
            // Somewhere in it.
            tokio::time::sleep(READING * u32::from(last) * 7 / 3).await;
            let before = status.borrow().counters.writes();
            let change = Event::from(Change::Slice(slice(2, &[1, last])));
            sender.send(change).await.unwrap();
            let sent = Instant::now();
            status.wait_for(|status| status.counters.writes() > before).await.unwrap();
            // That piece, and a look at the connections of the endpoint that goes.
            assert!(sent.elapsed() <= READING * 2, "{:?} with endpoint {last}", sent.elapsed());
        }
        drop(sender);
    };
    tokio::join!(reconciler.run(receiver), events);
}

#[tokio::test(start_paused = true)]
async fn a_slow_audit_is_through_after_half_a_sync_period() {
    const READING: Duration = Duration::from_millis(400);
    let (mut reconciler, mut status) = settled(40).await;
    reconciler.dataplane().reading = READING;
    for server in reconciler.dataplane().state.virtual_servers.values_mut() {
        let server = Arc::make_mut(server);
        server.real_servers = server.real_servers[..1].into();
    }
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        let began = Instant::now();
        sender.send(Event::Disturbed).await.unwrap();
        status.wait_for(|status| status.counters.drift == 40).await.unwrap();
        let took = began.elapsed();
        // What differs is read once more each, which nobody can know before.
        assert!(took <= TIMING.sync_period / 2 + READING * 4, "{took:?}");
        // Addresses, 17 sets, and three times three with virtual servers, with nothing between
        // them, take less: others had their time.
        assert!(took > READING * 27, "{took:?}");
        drop(sender);
    };
    tokio::join!(reconciler.run(receiver), events);
}

#[tokio::test(start_paused = true)]
async fn every_real_server_is_compared_however_often_an_audit_begins_anew() {
    let (mut reconciler, status) = settled(40).await;
    reconciler.dataplane().reading = Duration::from_millis(10);
    for server in reconciler.dataplane().state.virtual_servers.values_mut() {
        let server = Arc::make_mut(server);
        server.real_servers = server.real_servers[..1].into();
    }
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        for _ in 0..20 {
            sender.send(Event::Disturbed).await.unwrap();
            // Less than an audit of forty takes.
            tokio::time::sleep(Duration::from_millis(1350)).await;
        }
        drop(sender);
    };
    let (dataplane, ()) = tokio::join!(reconciler.run(receiver), events);
    assert_eq!(status.borrow().counters.drift, 40);
    assert!(dataplane.state.virtual_servers.values().all(|server| server.real_servers.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn rules_that_were_changed_while_they_were_read_are_believed() {
    let (mut reconciler, status) = settled(1).await;
    reconciler.dataplane().reading = Duration::from_millis(10);
    reconciler.take(Event::Disturbed);
    reconciler.read_piece().await;
    let began_with = reconciler.dataplane().state.firewall[&Family::Ipv4].clone();
    // Something changes the rules while they are read: a service whose source ranges leave the
    // node out.
    let source_ranges = SourceRanges::new(["10.0.0.0/8".parse().unwrap()]);
    let load_balancer_ips = vec![IpAddr::from([203, 0, 113, 7])];
    let closed = Service { load_balancer_ips, source_ranges, ..service(1) };
    reconciler.take(Event::from(Change::Service(closed)));
    reconciler.carry_out(Instant::now()).await;
    let rules = reconciler.dataplane().state.firewall[&Family::Ipv4].clone();
    assert_ne!(rules, began_with);
    let found = look(&mut reconciler.look).await;
    reconciler.engine.rules_read(found, Instant::now());
    reconciler.dataplane().reading = Duration::ZERO;
    advance(TIMING.sync_period / 2).await;
    step(&mut reconciler).await;
    assert_eq!(reconciler.engine.believed().state().firewall[&Family::Ipv4], rules);
    assert_eq!(reconciler.dataplane().state.firewall[&Family::Ipv4], rules);
    assert_eq!(status.borrow().counters.drift, 0);
}

/// The list is of before the change: neither what it lacks nor what it has too much is drift.
#[tokio::test(start_paused = true)]
async fn what_changes_while_virtual_servers_are_listed_is_no_drift() {
    let (mut reconciler, status) = settled(40).await;
    reconciler.take(Event::Disturbed);
    let observed = reconciler.dataplane().observed;
    while reconciler.dataplane().observed == observed {
        reconciler.read_piece().await;
    }
    // One goes, one comes, and one gets another timeout.
    reconciler.take(Event::from(Change::ServiceGone(ObjectKey::new("ns", "web-40"))));
    reconciler.take(Event::from(Change::Service(service(41))));
    let affinity = Some(60);
    reconciler.take(Event::from(Change::Service(Service { affinity, ..service(39) })));
    step(&mut reconciler).await;
    let servers = &reconciler.dataplane().state.virtual_servers;
    assert!(!servers.contains_key(&vip(40)) && servers.contains_key(&vip(41)));
    assert_eq!(status.borrow().counters.drift, 0);
}

/// What somebody else did to virtual servers, and not only to their real servers, is found.
#[tokio::test(start_paused = true)]
async fn virtual_servers_that_went_came_or_changed_are_repaired_and_told_of_together() {
    let (mut reconciler, status) = settled(40).await;
    let (sender, mut notices) = mpsc::channel(100);
    reconciler.notify(sender);
    let wanted = reconciler.dataplane().state.virtual_servers.clone();
    let servers = &mut reconciler.dataplane().state.virtual_servers;
    servers.retain(|key, _| *key > vip(30));
    Arc::make_mut(servers.get_mut(&vip(31)).unwrap()).config.scheduler = Scheduler::WLC;
    let foreign = servers[&vip(32)].clone();
    servers.insert(vip(99), foreign);
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    assert_eq!(reconciler.dataplane().state.virtual_servers, wanted);
    assert_eq!(status.borrow().counters.drift, 32);
    // What is there and should be otherwise, then everything that is missing.
    let told = std::iter::from_fn(|| notices.try_recv().ok());
    let told: Vec<Notice> = told.collect();
    assert!(matches!(&*told, [Notice::Drift(_), Notice::Drift(_)]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_not_read_at_leisure() {
    const READING: Duration = Duration::from_millis(10);
    let (mut reconciler, mut status) = settled(40).await;
    reconciler.dataplane().reading = READING;
    reconciler.dataplane().state.virtual_servers.clear();
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        let began = Instant::now();
        sender.send(Event::Disturbed).await.unwrap();
        status.wait_for(|status| status.counters.drift == 40).await.unwrap();
        // Addresses and 19 sets with their pauses, the empty list, then three times sixteen virtual
        // servers.
        assert!(began.elapsed() <= READING * (20 * 10 + 1 + 3), "{:?}", began.elapsed());
        drop(sender);
    };
    let (dataplane, ()) = tokio::join!(reconciler.run(receiver), events);
    assert_eq!(dataplane.state.virtual_servers.len(), 40);
}

/// Work that has to wait for `min_sync_period` does not hold the audit up.
#[tokio::test(start_paused = true)]
async fn an_audit_goes_on_between_steps_that_are_far_apart() {
    let (mut reconciler, mut status) = settled(40).await;
    let timing = Timing { min_sync_period: Duration::from_secs(10), ..TIMING };
    reconciler.take(Event::Configured(Resolver::new(settings), timing));
    reconciler.dataplane().reading = Duration::from_millis(10);
    for server in reconciler.dataplane().state.virtual_servers.values_mut() {
        let server = Arc::make_mut(server);
        server.real_servers = server.real_servers[..1].into();
    }
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        sender.send(Event::Disturbed).await.unwrap();
        let began = Instant::now();
        for last in (3..200).cycle() {
            sender.send(Event::from(Change::Slice(slice(2, &[1, last])))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if status.borrow_and_update().counters.drift >= 39 {
                break;
            }
        }
        assert!(began.elapsed() <= TIMING.sync_period / 2, "{:?}", began.elapsed());
        drop(sender);
    };
    tokio::join!(reconciler.run(receiver), events);
}

/// Quirk 33: nothing has to change for a failure to be seen.
#[tokio::test(start_paused = true)]
async fn an_audit_that_cannot_read_the_kernel_is_a_failure_until_one_can() {
    let (mut reconciler, status) = settled(1).await;
    let first = status.borrow().families[&Family::Ipv4];
    let synced = Instant::now();
    assert_eq!(first.failing_since, None);
    reconciler.dataplane().blind = true;
    for _ in 0..5 {
        reconciler.take(Event::Disturbed);
        advance(Duration::from_secs(30)).await;
        step(&mut reconciler).await;
    }
    let seen = status.borrow().clone();
    assert!(!seen.synced && seen.failing_since.is_some());
    assert_eq!(seen.families[&Family::Ipv4].last_success, first.last_success);
    let since = seen.families[&Family::Ipv4].failing_since.unwrap();
    assert_eq!(since, synced + Duration::from_secs(30));

    // What failed is read again when its back-off has ended.
    reconciler.dataplane().blind = false;
    advance(Duration::from_secs(30)).await;
    step(&mut reconciler).await;
    let seen = status.borrow().clone();
    assert!(seen.synced);
    assert_eq!(seen.families[&Family::Ipv4].failing_since, None);
}
