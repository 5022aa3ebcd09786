//! Rows F: Services come, change and go; which of their addresses each family has.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, Protocol};
use proxier::builders::*;
use proxier::cluster::{Change, Cluster, Dirty, NotProxied, ObjectKey, Service};
use proxier::dataplane::{Contribution, Desired, FrontendKind, Settings, contribution};

/// An index with what its Services ask for.
struct World {
    cluster: Cluster,
    desired: Desired,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let settings = Settings { families: vec![Family::Ipv4], ..settings() };
        let desired = Desired::new(&settings);
        Self { cluster: Cluster::new(), desired, settings }
    }

    /// Takes in changes, all in one step; how many Services were computed again.
    fn step(&mut self, changes: impl IntoIterator<Item = Change>) -> usize {
        let mut dirty = Dirty::default();
        for change in changes {
            self.cluster.apply(change, &mut dirty);
        }
        for key in &dirty.services {
            let asked = self.cluster.service(key).map(|service| {
                (0, contribution(service, &self.cluster.slices(key), &self.settings))
            });
            self.desired.set(key, asked, &mut BTreeSet::new());
        }
        dirty.services.len()
    }

    /// Service ports, and health check node ports.
    fn counts(&self) -> (usize, Vec<u16>) {
        let all = || self.desired.contributions().map(|(_, asked)| asked);
        let ports = |asked: &Contribution| {
            let of = asked.frontends.iter();
            of.filter(|frontend| frontend.kind == FrontendKind::ClusterIp).count()
        };
        let health = all().filter_map(|asked| asked.health.as_ref()).map(|health| health.port);
        (all().map(ports).sum(), health.collect())
    }
}

fn with_ports(service: Service, count: u16) -> Service {
    (0..count)
        .fold(service, |service, n| service.named_port(&format!("p{n}"), Protocol::Udp, 1234 + n))
}

/// A Service of each type, the last one with externalTrafficPolicy Local.
fn each_type(ports: u16) -> Vec<Service> {
    let service = |name: &str, n: u8| {
        with_ports(service(&format!("ns/{name}")).cluster_ip(&format!("172.16.55.{n}")), ports)
    };
    vec![
        service("cluster-ip", 4),
        service("node-port", 10).node_port(30345),
        service("load-balancer", 11).load_balancer("10.1.2.4"),
        service("only-local", 12).load_balancer("10.1.2.3").external_local().health_check(345),
    ]
}

/// Rows F01, F02 and F06.
#[test]
fn services_of_every_type_come_and_go() {
    for (ports, all) in [(3, 12), (2, 8)] {
        let mut world = World::new();
        assert_eq!(world.step(each_type(ports).into_iter().map(Change::Service)), 4);
        assert_eq!(world.counts(), (all, vec![345]));
        let first = each_type(ports).remove(0).with(|service| service.ports.truncate(1));
        let gone = each_type(ports).into_iter().skip(1).map(|s| Change::ServiceGone(s.key));
        assert_eq!(world.step(std::iter::once(Change::Service(first)).chain(gone)), 4);
        assert_eq!(world.counts(), (1, vec![]));
    }
}

/// Rows F03 and F04.
#[test]
fn what_is_not_proxied_asks_for_nothing() {
    let mut world = World::new();
    let ignored = [NotProxied::Headless, NotProxied::ExternalName, NotProxied::NoClusterIp];
    let changes = ignored.into_iter().enumerate();
    let changes = changes.map(|(n, why)| Change::ServiceIgnored(key(&format!("s{n}")), why));
    assert_eq!(world.step(changes), 0);
    assert_eq!(world.counts(), (0, vec![]));
}

#[test]
fn f05_a_service_that_changes_its_type_and_back() {
    let mut world = World::new();
    let plain = with_ports(service("svc").cluster_ip("172.16.55.4"), 2);
    let balanced = plain.clone().load_balancer("10.1.2.3").external_local().health_check(345);
    for (service, computed, health) in [
        (plain.clone(), 1, vec![]),
        (balanced.clone(), 1, vec![345]),
        (balanced, 0, vec![345]),
        (plain, 1, vec![]),
    ] {
        assert_eq!(world.step([Change::Service(service)]), computed);
        assert_eq!(world.counts(), (2, health));
    }
}

#[test]
fn f07_nothing_is_left_of_a_service_that_came_and_went_in_one_step() {
    let mut world = World::new();
    let service = each_type(2).remove(0);
    let key: ObjectKey = service.key.clone();
    world.step([Change::Service(service), Change::ServiceGone(key)]);
    assert_eq!(format!("{:?}", world.cluster), format!("{:?}", Cluster::new()));
    assert_eq!(world.desired.contributions().count(), 0);
    assert_eq!(world.desired.state(), Desired::new(&world.settings).state());
}

/// What a Service has in one family: its addresses and the ranges that may use its VIPs.
fn seen(service: &Service, family: Family) -> (Vec<String>, Vec<String>) {
    let settings = Settings { families: vec![family], ..settings() };
    let asked = contribution(service, &[], &settings);
    let addresses = asked.frontends.iter().map(|frontend| frontend.key.to_string()).collect();
    let ranges = service.source_ranges.of(family).map(|range| range.to_string()).collect();
    (addresses, ranges)
}

/// Rows F14 to F19 and F21 to F27: of addresses of both families each family takes its own, whatever
/// the Service's type.
#[test]
fn each_family_takes_its_own_addresses() {
    let mixed = |cluster_ip: &str| {
        service("svc")
            .cluster_ip(cluster_ip)
            .port(80)
            .external_ip("8.8.8.8")
            .external_ip("2001:db8::8")
            .load_balancer("8.8.4.4")
            .load_balancer("2001:db8:85a3::8a2e:370:7335")
            .source_ranges(&["0.0.0.0/1", "2001:db8::/32"])
    };
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (id, cluster_ip, family, addresses, ranges) in [
        ("F21", "fd00::1", Family::Ipv4, &[][..], "0.0.0.0/1"),
        ("F22", "10.0.0.1", Family::Ipv6, &[], "2001:db8::/32"),
        (
            "F23 F25",
            "10.0.0.1",
            Family::Ipv4,
            &["10.0.0.1:80/tcp", "8.8.8.8:80/tcp", "8.8.4.4:80/tcp"],
            "0.0.0.0/1",
        ),
        (
            "F24 F26",
            "fd00::1",
            Family::Ipv6,
            &["[fd00::1]:80/tcp", "[2001:db8::8]:80/tcp", "[2001:db8:85a3::8a2e:370:7335]:80/tcp"],
            "2001:db8::/32",
        ),
    ] {
        let expected = (strings(addresses), strings(&[ranges]));
        assert_eq!(seen(&mixed(cluster_ip), family), expected, "{id}");
    }
}
