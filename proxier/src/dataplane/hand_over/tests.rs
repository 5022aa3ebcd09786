use netlink_ipvs::Family;

use super::*;
use crate::builders::{ServiceExt as _, service, settings};
use crate::cluster::EndpointSlice;
use crate::dataplane::contribution;

const LIMIT: Duration = Duration::from_mins(15);

/// A Service with a cluster IP and node ports.
fn asked() -> Vec<Frontend> {
    let one = service("web").cluster_ip("10.96.0.1").port(80).node_port(30080);
    let none: [EndpointSlice; 0] = [];
    contribution(&one, &none.iter(), &settings()).frontends
}

#[test]
fn a_successor_has_a_service_when_it_has_each_address_and_the_node_port() {
    let frontends = asked();
    let cluster_ip = VirtualServerKey::new("10.96.0.1".parse().unwrap(), 80, Protocol::Tcp);
    assert!(frontends.len() > 1, "{frontends:?}");
    let mut served = Served::default();
    assert_eq!(served.lacks(&frontends).len(), frontends.len());

    served.node_ports.insert((Protocol::Udp, 30080));
    assert_eq!(served.lacks(&frontends).len(), frontends.len(), "another protocol");
    // On whichever addresses it has it.
    served.node_ports.insert((Protocol::Tcp, 30080));
    assert_eq!(served.lacks(&frontends), [cluster_ip].into());

    // The port of a service address is no node port.
    served.node_ports.insert((Protocol::Tcp, 80));
    assert_eq!(served.lacks(&frontends), [cluster_ip].into());
    served.addresses.insert(cluster_ip);
    assert_eq!(served.lacks(&frontends), [].into());
}

#[test]
fn what_the_successor_has_in_place_stays() {
    let all = |family| {
        [
            Leftover::Iptables(family),
            Leftover::Nftables(family),
            Leftover::Ipvs(family),
            Leftover::OwnTable(family),
        ]
    };
    let [v4, v6] = [Family::Ipv4, Family::Ipv6];
    let there: BTreeSet<_> = all(v4).into_iter().chain(all(v6)).collect();
    let stays = |successor, there: &BTreeSet<Leftover>| -> Vec<Leftover> {
        let settings = Settings { successor, ..settings() };
        there.iter().copied().filter(|left| !settings.removes(*left, there)).collect()
    };
    assert_eq!(stays(None, &there), []);
    assert_eq!(
        stays(Some(Successor::Nftables), &there),
        [Leftover::Nftables(v4), Leftover::Nftables(v6)]
    );
    // Some chains have the same names in both modes.
    let both = [v4, v6].map(Leftover::Iptables).into_iter().chain([v4, v6].map(Leftover::Ipvs));
    assert_eq!(stays(Some(Successor::Iptables), &there), both.collect::<Vec<_>>());
    let ours = [Leftover::Ipvs(v4)].into();
    assert_eq!(stays(Some(Successor::Iptables), &ours), []);
}

/// What is seen one after the other: what is lacking, and connections, each a second later.
fn stages(seen: &[(usize, Option<u64>)], limit: Duration) -> Vec<String> {
    let begin = Instant::now();
    let mut stage = Stage::Waits(BTreeSet::new());
    let mut out = Vec::new();
    for (second, (lacking, connections)) in (0..).zip(seen) {
        let key = |n: usize| {
            let port = u16::try_from(n).unwrap();
            VirtualServerKey::new("10.96.0.1".parse().unwrap(), port, Protocol::Tcp)
        };
        let sight = Sight {
            lacking: (0..*lacking).map(key).collect(),
            connections: *connections,
            now: begin + Duration::from_secs(second),
        };
        stage = stage.next(sight, limit);
        out.push(stage.to_string());
    }
    out
}

#[test]
fn connections_drain_once_the_successor_has_everything() {
    assert_eq!(
        stages(
            &[(2, None), (1, None), (0, Some(7)), (0, Some(9)), (0, Some(3)), (0, Some(0))],
            LIMIT
        ),
        [
            "it lacks 2 of ours, such as 10.96.0.1:0/tcp",
            "it lacks 1 of ours, such as 10.96.0.1:0/tcp",
            "it has everything; 7 of 7 connections are open here",
            "it has everything; 9 of 9 connections are open here",
            "it has everything; 3 of 9 connections are open here",
            "9 connections drained within 3 s, 0 cut",
        ]
    );
}

#[test]
fn virtual_servers_that_somebody_has_removed_have_not_drained() {
    assert_eq!(
        stages(&[(0, None), (0, Some(7)), (0, None), (0, Some(7)), (0, Some(0))], LIMIT),
        [
            "it has everything",
            "it has everything; 7 of 7 connections are open here",
            "it has everything; 7 of 7 connections are open here",
            "it has everything; 7 of 7 connections are open here",
            "7 connections drained within 3 s, 0 cut",
        ]
    );
}

#[test]
fn draining_is_bounded_and_begins_anew_for_a_successor_that_has_lost_something() {
    assert_eq!(
        stages(
            &[(0, Some(7)), (1, None), (0, Some(6)), (0, Some(5)), (0, None), (9, None)],
            Duration::from_secs(2)
        ),
        [
            "it has everything; 7 of 7 connections are open here",
            "it lacks 1 of ours, such as 10.96.0.1:0/tcp",
            "it has everything; 6 of 6 connections are open here",
            "it has everything; 5 of 6 connections are open here",
            "1 connections drained within 2 s, 5 cut",
            // Whatever comes then.
            "1 connections drained within 2 s, 5 cut",
        ]
    );
}
