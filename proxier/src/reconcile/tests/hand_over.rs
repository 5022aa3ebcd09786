//! While a node is handed over.

use super::*;
use crate::dataplane::firewall::Backend;
use crate::dataplane::hand_over::Successor;

fn to_nftables_mode(node: Option<&Node>, host: &[IpAddr]) -> Settings {
    let successor = Some(Successor::Nftables);
    Settings { successor, backend: Backend::Nftables, ..settings(node, host) }
}

#[tokio::test(start_paused = true)]
async fn what_the_successor_has_in_place_is_left_alone() {
    let (mut reconciler, status) =
        Reconciler::new(Memory::new(), Resolver::new(to_nftables_mode), TIMING);
    reconciler.take(Event::HostAddresses(vec![]));
    reconciler.take(Event::from(Change::Service(service(1))));
    reconciler.take(Event::from(Change::Slice(slice(1, &[1]))));
    take_lists(&mut reconciler);
    step(&mut reconciler).await;
    assert!(reconciler.dataplane().state.firewall[&Family::Ipv4].holds());
    assert_eq!(status.borrow().counters.drift, 0);

    let (theirs, others) = (Leftover::Nftables(Family::Ipv4), Leftover::Iptables(Family::Ipv4));
    reconciler.dataplane().state.leftovers = [theirs, others].into();
    reconciler.take(Event::Disturbed);
    step(&mut reconciler).await;
    assert_eq!(reconciler.dataplane().state.leftovers, [theirs].into());
    let status = status.borrow();
    assert!(status.synced);
    assert_eq!(status.counters.drift, 1, "what is not to be there counts, and nothing else");
}
