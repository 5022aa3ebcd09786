use std::net::IpAddr;

use super::*;
use crate::builders::*;
use crate::cluster::{EndpointSlice, Service};
use crate::dataplane::sets::Member;
use crate::dataplane::{Settings, contribution};
use netlink_ipvs::Protocol;

/// A desired state with the services and slices that it is to follow.
struct World {
    desired: Desired,
    settings: Settings,
    touched: BTreeSet<Target>,
}

impl World {
    fn new() -> Self {
        let settings = settings();
        let desired = Desired::new(&settings);
        Self { desired, settings, touched: BTreeSet::new() }
    }

    /// Sets what a service asks for; the result is what was touched. Checks that this is what has
    /// changed, no more and no less.
    fn set(&mut self, service: &Service, slices: &[EndpointSlice]) -> Vec<String> {
        let asked = contribution(service, &slices.iter(), &self.settings);
        self.replace(&service.key, Some((service.created, asked)))
    }

    fn remove(&mut self, name: &str) -> Vec<String> {
        self.replace(&key(name), None)
    }

    fn replace(&mut self, key: &ObjectKey, asked: Option<(i64, Contribution)>) -> Vec<String> {
        let before = self.desired.state().clone();
        let drops = self.desired.drops().clone();
        let mut touched = BTreeSet::new();
        let drops_changed = self.desired.set(key, asked, &mut touched);
        assert_eq!(touched, before.differences(self.desired.state()));
        assert_eq!(drops_changed, drops != *self.desired.drops());
        self.touched.extend(touched.iter().copied());
        touched.iter().map(ToString::to_string).collect()
    }

    fn members(&self, role: SetRole) -> Vec<String> {
        let set = &self.desired.state().sets[&role.of(Family::Ipv4)];
        set.members.iter().map(ToString::to_string).collect()
    }

    fn addresses(&self) -> Vec<String> {
        self.desired.state().interface.addresses.iter().map(ToString::to_string).collect()
    }

    fn real_servers(&self, key: &str) -> Vec<String> {
        let server = &self.desired.state().virtual_servers[&virtual_server(key)];
        server.real_servers.iter().map(|server| server.key.to_string()).collect()
    }

    fn owner(&self, key: &str) -> Option<String> {
        let (service, frontend) = self.desired.owner(&virtual_server(key))?;
        assert_eq!(frontend.key, virtual_server(key));
        Some(service.to_string())
    }
}

fn web(name: &str, address: &str) -> Service {
    service(name).cluster_ip(address).port(80)
}

#[test]
fn starts_with_all_sets_of_its_families_and_nothing_else() {
    for families in [&[Family::Ipv4][..], &[Family::Ipv4, Family::Ipv6]] {
        let desired = Desired::new(&Settings { families: families.to_vec(), ..settings() });
        let state = desired.state();
        assert_eq!(state.sets.len(), 17 * families.len());
        assert!(state.sets.keys().all(|set| families.contains(&set.family)));
        assert!(state.sets.values().all(|set| set.members.is_empty()));
        assert_eq!(state.targets().count(), state.sets.len());
    }
}

#[test]
fn touches_what_changes_and_only_that() {
    let mut world = World::new();
    let pod = |last: &str| [endpoints("web", 80, &[&format!("10.244.0.{last} @node-2")])];
    let all = [
        "10.96.0.1,tcp:80 in set KUBE-CLUSTER-IP",
        "10.96.0.1 in set KUBE-IPVS-IPS",
        "virtual server 10.96.0.1:80/tcp",
        "address 10.96.0.1",
    ];
    assert_eq!(world.set(&web("web", "10.96.0.1"), &pod("1")), all);
    assert_eq!(world.set(&web("web", "10.96.0.1"), &pod("1")), [""; 0]);
    assert_eq!(world.set(&web("web", "10.96.0.1"), &pod("2")), [all[2]]);
    assert_eq!(world.set(&web("web", "10.96.0.1").affinity(9), &pod("2")), [all[2]]);
    assert_eq!(world.remove("web"), all);
    assert_eq!(world.remove("web"), [""; 0]);
    assert_eq!(world.desired.contributions().count(), 0);
}

#[test]
fn b15_an_address_stays_as_long_as_any_port_needs_it() {
    let mut world = World::new();
    let service = |ports: &[(u16, Protocol)]| {
        let base = service("svc").cluster_ip("172.16.55.4");
        ports.iter().fold(base, |service, (port, protocol)| {
            service.named_port(&format!("p{port}"), *protocol, *port)
        })
    };
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    for (ports, addresses) in [
        (&[(1234, tcp), (1235, tcp)][..], &["172.16.55.4"][..]),
        (&[(1234, tcp)], &["172.16.55.4"]),
        (&[(1234, tcp), (1235, tcp), (1236, udp)], &["172.16.55.4"]),
        (&[], &[]),
    ] {
        world.set(&service(ports), &[]);
        assert_eq!(world.addresses(), addresses);
        assert_eq!(world.members(SetRole::IpvsIps), addresses);
        assert_eq!(world.desired.state().virtual_servers.len(), ports.len());
    }
}

#[test]
fn a_port_that_takes_another_ones_place_touches_no_address() {
    let mut world = World::new();
    let service = |port: u16| service("svc").cluster_ip("10.96.0.1").port(port).node_port(30080);
    world.set(&service(80), &[]);
    assert_eq!(
        world.set(&service(81), &[]),
        [
            "10.96.0.1,tcp:80 in set KUBE-CLUSTER-IP",
            "10.96.0.1,tcp:81 in set KUBE-CLUSTER-IP",
            "virtual server 10.96.0.1:80/tcp",
            "virtual server 10.96.0.1:81/tcp",
        ]
    );
}

#[test]
fn what_several_services_share_goes_with_the_last() {
    let mut world = World::new();
    let open = |name: &str, port: u16, address: &str| {
        service(name).cluster_ip(address).port(port).external_ip("1.2.3.4").health_check(32000)
    };
    let local = |name: &str| [endpoints(name, 8080, &["10.244.0.1 @node-1"])];
    world.set(&open("a", 80, "10.96.0.1"), &local("a"));
    world.set(&open("b", 81, "10.96.0.2"), &local("b"));
    let shared = |world: &World| {
        (
            world.addresses().contains(&"1.2.3.4".to_owned()),
            world.members(SetRole::HealthCheckNodePort),
            world.members(SetRole::LoopBack),
        )
    };
    let both = shared(&world);
    assert_eq!(
        both,
        (true, vec!["32000".to_owned()], vec!["10.244.0.1,tcp:8080,10.244.0.1".to_owned()])
    );
    world.remove("a");
    assert_eq!(shared(&world), both);
    world.remove("b");
    assert_eq!(shared(&world), (false, vec![], vec![]));
    assert_eq!(world.desired.state(), Desired::new(&world.settings).state());
}

#[test]
fn f02_c16_all_that_goes_with_a_service_goes_with_it() {
    let mut world = World::new();
    let service = |port: u16| {
        web("svc", "10.96.0.1")
            .node_port(30080)
            .load_balancer("1.2.3.4")
            .external_local()
            .health_check(port)
    };
    world.set(&service(30000), &[]);
    assert_eq!(world.members(SetRole::HealthCheckNodePort), ["30000"]);
    world.set(&service(30001), &[]);
    assert_eq!(world.members(SetRole::HealthCheckNodePort), ["30001"]);
    world.remove("svc");
    assert_eq!(world.desired.state(), Desired::new(&world.settings).state());
}

#[test]
fn of_two_services_with_one_address_the_older_has_it() {
    let (a, b) = (|t| web("a", "10.96.0.1").created(t), |t| web("b", "10.96.0.2").created(t));
    let open = |service: Service| service.external_ip("1.2.3.4");
    let contested = "1.2.3.4:80/tcp";
    // Winner and loser by age, then by name, in both orders of arrival.
    for (a, b, winner) in [
        (open(a(1)), open(b(2)), "default/a"),
        (open(a(2)), open(b(1)), "default/b"),
        (open(a(1)), open(b(1)), "default/a"),
    ] {
        for services in [[&a, &b], [&b, &a]] {
            let mut world = World::new();
            for service in services {
                world.set(service, &[]);
            }
            assert_eq!(world.owner(contested).as_deref(), Some(winner));
            let conflicts = world.desired.conflicts();
            assert_eq!(conflicts.len(), 1);
            assert_eq!(conflicts[0].key, virtual_server(contested));
            assert_eq!(conflicts[0].winner.to_string(), winner);
            assert_eq!(conflicts[0].losers.len(), 1);
            assert_ne!(conflicts[0].losers[0], conflicts[0].winner);
            // The cluster IPs are nobody else's.
            assert_eq!(world.owner("10.96.0.1:80/tcp").as_deref(), Some("default/a"));
            assert_eq!(world.owner("10.96.0.2:80/tcp").as_deref(), Some("default/b"));
        }
    }
}

#[test]
fn the_winner_has_the_address_with_everything_that_belongs_to_it() {
    let mut world = World::new();
    let young = web("young", "10.96.0.1")
        .created(9)
        .load_balancer("1.2.3.4")
        .source_ranges(&["10.0.0.0/8"])
        .affinity(60);
    let old = web("old", "10.96.0.2").created(1).external_ip("1.2.3.4").external_local();
    let pods = |name: &str, address: &str| [endpoints(name, 8080, &[address])];
    let contested = "1.2.3.4:80/tcp";

    world.set(&young, &pods("young", "10.244.0.1"));
    assert_eq!(world.members(SetRole::LoadBalancerFw), ["1.2.3.4,tcp:80"]);
    assert!(world.desired.drops().contains(&virtual_server(contested)));
    let alone = world.desired.state().clone();

    let touched = world.set(&old, &pods("old", "10.244.0.2 @node-1"));
    assert!(touched.contains(&format!("virtual server {contested}")));
    assert!(!touched.contains(&"address 1.2.3.4".to_owned()), "it stays bound");
    assert_eq!(world.real_servers(contested), ["10.244.0.2:8080"]);
    assert_eq!(world.members(SetRole::ExternalIpLocal), ["1.2.3.4,tcp:80"]);
    for role in [SetRole::LoadBalancer, SetRole::LoadBalancerFw, SetRole::LoadBalancerSourceCidr] {
        assert_eq!(world.members(role), [""; 0]);
    }
    assert!(world.desired.drops().is_empty());
    assert_eq!(world.desired.state().virtual_servers[&virtual_server(contested)].config.timeout, 0);

    // The loser changes in vain, and is back when the winner goes.
    let other = pods("young", "10.244.0.3");
    assert_eq!(world.set(&young, &other), ["virtual server 10.96.0.1:80/tcp"]);
    world.remove("old");
    assert_eq!(world.real_servers(contested), ["10.244.0.3:8080"]);
    assert!(world.desired.conflicts().is_empty());
    world.set(&young, &pods("young", "10.244.0.1"));
    assert_eq!(*world.desired.state(), alone);
    assert!(world.desired.drops().contains(&virtual_server(contested)));
}

#[test]
fn claims_follow_every_change_of_their_services() {
    let mut world = World::new();
    let open =
        |name: &str, created: i64| service(name).created(created).port(80).external_ip("1.2.3.4");
    let contested = "1.2.3.4:80/tcp";
    let owner = |world: &World| world.owner(contested);
    for name in ["c", "b", "a"] {
        world.set(&open(name, 5), &[]);
    }
    let losers = |world: &World| -> Vec<String> {
        let conflict = world.desired.conflict(&virtual_server(contested)).unwrap();
        conflict.losers.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (owner(&world).unwrap().as_str(), losers(&world)),
        ("default/a", vec!["default/b".into(), "default/c".into()])
    );
    // The winner gives the address up, without being deleted.
    world.set(&open("a", 5).with(|service| service.external_ips.clear()), &[]);
    assert_eq!(owner(&world).as_deref(), Some("default/b"));
    // The same name, deleted and made again in between: the youngest now.
    world.set(&open("b", 9), &[]);
    assert_eq!(
        (owner(&world).unwrap().as_str(), losers(&world)),
        ("default/c", vec!["default/b".into()])
    );
    world.set(&open("a", 5), &[]);
    world.remove("c");
    assert_eq!(
        (owner(&world).unwrap().as_str(), losers(&world)),
        ("default/a", vec!["default/b".into()])
    );
    world.remove("a");
    world.remove("b");
    assert_eq!((owner(&world), world.desired.conflicts()), (None, vec![]));
}

#[test]
fn node_ports_of_two_services_collide_on_every_address() {
    let mut world = World::new();
    let a = web("a", "10.96.0.1").node_port(30080).created(1);
    let b = web("b", "10.96.0.2").node_port(30080).external_local().created(2);
    world.set(&b, &[]);
    assert_eq!(world.members(SetRole::NodePortLocalTcp), ["30080"]);
    world.set(&a, &[]);
    assert_eq!(world.owner("192.0.2.1:30080/tcp").as_deref(), Some("default/a"));
    assert_eq!(world.members(SetRole::NodePortTcp), ["30080"]);
    assert_eq!(world.members(SetRole::NodePortLocalTcp), [""; 0]);
}

#[test]
fn a_frontend_that_replaces_another_keeps_what_both_have() {
    // Node ports on two addresses share one member; they swap which of the addresses is there.
    let mut world = World::new();
    let service = web("web", "10.96.0.1").node_port(30080);
    world.settings.node_port_addresses = [ip("192.0.2.7")].into();
    world.set(&service, &[]);
    world.settings.node_port_addresses = [ip("192.0.2.9")].into();
    assert_eq!(
        world.set(&service, &[]),
        ["virtual server 192.0.2.7:30080/tcp", "virtual server 192.0.2.9:30080/tcp"]
    );
}

#[test]
fn sets_are_sized_for_what_they_hold() {
    let mut desired = Desired::new(&Settings { families: vec![Family::Ipv4], ..settings() });
    let set = SetRole::LoopBack.of(Family::Ipv4);
    let mut touched = BTreeSet::new();
    let member = |n: u32| {
        let address = IpAddr::from(n.to_be_bytes());
        (set, Member::IpPortIp(address, Protocol::Tcp, 80, address))
    };
    let asked =
        |n: u32| Contribution { members: (0..n).map(member).collect(), ..Contribution::default() };
    desired.set(&key("a"), Some((0, asked(SetId::DEFAULT_CAPACITY))), &mut touched);
    assert_eq!(desired.state().sets[&set].capacity, SetId::DEFAULT_CAPACITY);
    assert!(!touched.contains(&Target::Set(set)));
    desired.set(&key("a"), Some((0, asked(SetId::DEFAULT_CAPACITY + 1))), &mut touched);
    assert_eq!(desired.state().sets[&set].capacity, 2 * SetId::DEFAULT_CAPACITY);
    assert!(touched.contains(&Target::Set(set)));
}

#[test]
fn firewall_rules_touch_only_when_they_change() {
    let mut desired = Desired::new(&Settings { families: vec![Family::Ipv4], ..settings() });
    for (name, expected) in [("a", 1), ("a", 0), ("b", 1)] {
        let mut touched = BTreeSet::new();
        desired.set_firewall(Family::Ipv4, rules(name), &mut touched);
        assert_eq!(touched.len(), expected, "{name}");
        assert_eq!(desired.state().firewall[&Family::Ipv4], rules(name));
    }
}

/// Who may write external IPs into a Service could else take over every cluster IP to come.
#[test]
fn what_the_api_server_has_allocated_goes_before_what_anyone_may_write() {
    let mut world = World::new();
    let greedy = service("greedy").created(1).cluster_ip("10.96.0.9").port(80).port(30080);
    let greedy = greedy.external_ip("10.96.0.1").external_ip("192.0.2.1");
    let node_port = web("given", "10.96.0.1").created(2).node_port(30080);
    let greedy = |extra: &str| greedy.clone().load_balancer(extra);
    for order in [["greedy", "given"], ["given", "greedy"]] {
        for name in order {
            match name {
                "greedy" => world.set(&greedy("203.0.113.1"), &[]),
                _ => world.set(&node_port, &[]),
            };
        }
        for key in ["10.96.0.1:80", "192.0.2.1:30080"] {
            assert_eq!(world.owner(key).as_deref(), Some("default/given"), "{key}");
        }
        assert_eq!(world.owner("203.0.113.1:80").as_deref(), Some("default/greedy"));
        world.remove("given");
        assert_eq!(world.owner("10.96.0.1:80").as_deref(), Some("default/greedy"));
        world.remove("greedy");
        assert!(world.desired.conflicts().is_empty());
        assert!(world.desired.state().virtual_servers.is_empty());
    }
}
