use super::*;
use crate::builders::*;
use crate::dataplane::firewall::{FirewallOptions, LocalDetector};
use crate::dataplane::{Settings, contribution};

const HERE: &str = "10.244.0.5 @node-1";
const THERE: &str = "10.244.1.5 @node-2";

/// A node that knows its pods by their addresses.
fn split() -> Settings {
    let mut settings = settings();
    settings.local_policy = LocalPolicy::Split;
    for (family, cidr) in [(Family::Ipv4, "10.244.0.0/16"), (Family::Ipv6, "fd00:244::/56")] {
        let detector = LocalDetector::Cidr(cidr.parse().unwrap());
        let options =
            FirewallOptions { split: Some(0x1000), detector, ..FirewallOptions::default() };
        settings.firewall.insert(family, options);
    }
    settings
}

fn local(name: &str, vip: &str) -> crate::cluster::Service {
    let mut service = service(name).cluster_ip("10.96.0.1").port(80).node_port(30080);
    service.load_balancer_ips = vec![ip(vip)];
    service.external_local = true;
    service
}

fn asked(service: &crate::cluster::Service, of: &[&str], settings: &Settings) -> Contribution {
    contribution(service, &[endpoints("web", 8080, of)].iter(), settings)
}

fn real_servers(frontend: &Frontend) -> Vec<String> {
    frontend.server.real_servers.iter().map(|server| server.key.to_string()).collect()
}

fn members(asked: &Contribution, role: SetRole) -> Vec<String> {
    let all = asked.frontends.iter().flat_map(|frontend| &frontend.members);
    all.filter(|(set, _)| set.role == role).map(|(_, member)| member.to_string()).collect()
}

fn by_mark(asked: &Contribution) -> Option<&Frontend> {
    asked.frontends.iter().find(|frontend| frontend.kind == FrontendKind::Inside)
}

#[test]
fn clients_inside_have_all_endpoints_by_a_mark_that_all_frontends_outside_share() {
    let (mut marks, settings) = (Marks::default(), split());
    let web = local("web", "203.0.113.7");
    let mut out = asked(&web, &[HERE, THERE], &settings);
    marks.assign(settings.marks, &key("web"), Some(&mut out));
    let inside = by_mark(&out).unwrap();
    assert_eq!(inside.key, VirtualServerKey::FirewallMark { mark: 0x1000, family: Family::Ipv4 });
    assert_eq!(real_servers(inside), ["10.244.0.5:8080", "10.244.1.5:8080"]);
    assert_eq!(
        members(&out, SetRole::LocalMark),
        ["203.0.113.7,tcp:80 skbmark 0x1000", "192.0.2.1,tcp:30080 skbmark 0x1000"]
    );
    // Of the cluster IP externalTrafficPolicy says nothing; the others are kube-proxy's.
    for frontend in out.frontends.iter().filter(|it| it.kind != FrontendKind::Inside) {
        let all = frontend.kind == FrontendKind::ClusterIp;
        assert_eq!(real_servers(frontend).len(), if all { 2 } else { 1 }, "{}", frontend.key);
    }
    assert!(members(&out, SetRole::LocalClosed).is_empty());
    assert!(out.inside.is_none() && out.skipped.is_empty());
}

#[test]
fn without_an_endpoint_here_the_way_from_outside_is_closed_and_inside_needs_no_mark() {
    let (mut marks, settings) = (Marks::default(), split());
    let web = local("web", "203.0.113.7");
    let mut out = asked(&web, &[THERE], &settings);
    marks.assign(settings.marks, &key("web"), Some(&mut out));
    assert_eq!(by_mark(&out), None);
    assert_eq!(members(&out, SetRole::LocalClosed), ["203.0.113.7,tcp:80", "192.0.2.1,tcp:30080"]);
    // Without any endpoint IPVS refuses everybody.
    assert!(members(&asked(&web, &[], &settings), SetRole::LocalClosed).is_empty());
    // Nobody knows who is inside: nobody is refused.
    let mut blind = split();
    assert!(blind.refuses_outside(Family::Ipv4));
    blind.firewall.get_mut(&Family::Ipv4).unwrap().detector = LocalDetector::None;
    assert!(!blind.refuses_outside(Family::Ipv4));
    // As kube-proxy has it.
    let plain = asked(&web, &[THERE], &crate::builders::settings());
    assert!(members(&plain, SetRole::LocalClosed).is_empty() && plain.inside.is_none());
}

#[test]
fn a_port_keeps_its_mark_as_long_as_it_has_frontends_outside() {
    let (mut marks, settings) = (Marks::default(), split());
    let mut web = local("web", "203.0.113.7");
    let mut mark = |service: &crate::cluster::Service, of: &[&str]| {
        let mut out = asked(service, of, &settings);
        marks.assign(settings.marks, &key("web"), Some(&mut out));
        by_mark(&out).map(|it| it.key)
    };
    let first = mark(&web, &[HERE, THERE]);
    assert!(first.is_some());
    // Its connections would end with it.
    assert_eq!(mark(&web, &[THERE]), first);
    assert_eq!(mark(&web, &[HERE]), first);
    web.external_local = false;
    assert_eq!(mark(&web, &[HERE, THERE]), first);
    web.load_balancer_ips.clear();
    web.ports[0].node_port = 0;
    assert_eq!(mark(&web, &[HERE, THERE]), None);
}

#[test]
fn a_mark_that_was_given_back_is_the_last_to_be_used_again() {
    let mut marks = Marks::default();
    let settings = Settings { marks: "0x1000/0x1003".parse().unwrap(), ..split() };
    let mut assign = |name: &str, there: bool| {
        let mut out = asked(&local(name, "203.0.113.7"), &[HERE, THERE], &settings);
        marks.assign(settings.marks, &key(name), there.then_some(&mut out));
        let mark = by_mark(&out).map(|frontend| frontend.key);
        let without = out.skipped.iter().filter(|it| it.reason == Refusal::NoMark).count();
        match mark {
            Some(VirtualServerKey::FirewallMark { mark, .. }) => format!("{mark:#x}"),
            _ if !there => "gone".to_owned(),
            _ => format!("{without} without"),
        }
    };
    let steps = [
        ("a", true, "0x1000"),
        ("b", true, "0x1001"),
        ("a", false, "gone"),
        ("c", true, "0x1002"),
        ("b", false, "gone"),
        ("d", true, "0x1003"),
        ("e", true, "0x1000"),
        ("f", true, "0x1001"),
        ("g", true, "1 without"),
        ("d", false, "gone"),
        ("g", true, "0x1003"),
    ];
    for (name, there, expected) in steps {
        assert_eq!(assign(name, there), expected, "{name}");
    }
}

#[test]
fn after_a_restart_each_frontend_has_the_mark_that_the_kernel_knows() {
    let settings = split();
    let mut found = State::default();
    let set = found.sets.entry(SetRole::LocalMark.of(Family::Ipv4)).or_default();
    for (address, port, mark) in
        [("203.0.113.7", 80, 0x1005), ("192.0.2.1", 30080, 0x1005), ("203.0.113.99", 80, 0x1000)]
    {
        set.members.insert(Member::Marked(ip(address), Protocol::Tcp, port, mark));
    }
    let mut marks = Marks::default();
    marks.adopt(settings.marks, &found);
    let mut mark = |name: &str, vip: &str| {
        let mut service = local(name, vip);
        service.ports[0].node_port = 0;
        let mut out = asked(&service, &[HERE, THERE], &settings);
        marks.assign(settings.marks, &key(name), Some(&mut out));
        by_mark(&out).map(|frontend| frontend.key)
    };
    let of = |mark| Some(VirtualServerKey::FirewallMark { mark, family: Family::Ipv4 });
    // Another service comes first: it gets none that the kernel knows as somebody's.
    assert_eq!(mark("new", "203.0.113.8"), of(0x1001));
    assert_eq!(mark("web", "203.0.113.7"), of(0x1005));
    // One whose service is gone is free when everything is known, after all that are.
    marks.adopted();
    assert_eq!(marks.returned, [0x1000]);
}
