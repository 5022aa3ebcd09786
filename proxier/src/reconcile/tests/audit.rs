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
            let change = Event::Change(Change::Slice(slice(2, &[1, last])));
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
    const READING: Duration = Duration::from_secs(2);
    let (mut reconciler, mut status) = settled(40).await;
    reconciler.dataplane().reading = READING;
    for server in reconciler.dataplane().state.virtual_servers.values_mut() {
        server.real_servers = server.real_servers[..1].into();
    }
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        let began = Instant::now();
        sender.send(Event::Disturbed).await.unwrap();
        status.wait_for(|status| status.counters.drift == 40).await.unwrap();
        let took = began.elapsed();
        assert!(took <= TIMING.sync_period / 2 + READING, "{took:?}");
        // Six reads with nothing between them take less: others had their time.
        assert!(took > READING * 6, "{took:?}");
        drop(sender);
    };
    tokio::join!(reconciler.run(receiver), events);
}

#[tokio::test(start_paused = true)]
async fn every_real_server_is_compared_however_often_an_audit_begins_anew() {
    let (mut reconciler, status) = settled(40).await;
    reconciler.dataplane().reading = Duration::from_millis(10);
    for server in reconciler.dataplane().state.virtual_servers.values_mut() {
        server.real_servers = server.real_servers[..1].into();
    }
    let (sender, receiver) = mpsc::channel(100);
    let events = async {
        for _ in 0..20 {
            sender.send(Event::Disturbed).await.unwrap();
            // Less than an audit of forty takes.
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        drop(sender);
    };
    let (dataplane, ()) = tokio::join!(reconciler.run(receiver), events);
    assert_eq!(status.borrow().counters.drift, 40);
    assert!(dataplane.state.virtual_servers.values().all(|server| server.real_servers.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn rules_that_were_changed_while_they_were_read_are_believed() {
    let (mut reconciler, _) = settled(1).await;
    reconciler.dataplane().reading = Duration::from_millis(10);
    reconciler.take(Event::Disturbed);
    reconciler.begin_due_audit(Instant::now());
    reconciler.read_on().await;
    let rules: Arc<str> = "newer than what is being read".into();
    let installed = Op::InstallFirewall(Family::Ipv4, Arc::clone(&rules));
    reconciler.dataplane().run(&installed).unwrap();
    reconciler.believed.as_mut().unwrap().absorb(&installed);
    let read = reconciler.unread.rules().await;
    reconciler.rules_read(read);
    assert_eq!(reconciler.believed.as_ref().unwrap().firewall[&Family::Ipv4], rules);
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

    reconciler.dataplane().blind = false;
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    let seen = status.borrow().clone();
    assert!(seen.synced);
    assert_eq!(seen.families[&Family::Ipv4].failing_since, None);
}
