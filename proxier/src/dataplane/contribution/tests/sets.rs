//! Set members of every kind of frontend (section 6.3 of the behaviour specification).

use super::*;

/// `SET: MEMBER MEMBER`, every set that has any.
fn text(asked: &Contribution) -> Vec<String> {
    members(asked)
        .into_iter()
        .map(|(set, members)| format!("{set}: {}", members.join(" ")))
        .collect()
}

fn asked(service: &Service) -> Vec<String> {
    let slices = [slice("svc")
        .target("", Protocol::Tcp, 8080)
        .target("", Protocol::Udp, 8080)
        .target("", Protocol::Sctp, 8080)
        .endpoints(&["10.244.0.1 @node-1 gone", "10.244.1.1 @node-2"])];
    text(&ask(service, &slices, &node(V4, &["192.0.2.1", "192.0.2.2"])))
}

fn base() -> Service {
    service("svc").cluster_ip("10.96.0.1")
}

/// The two sets that every service port of `asked` has.
const ALWAYS: [&str; 2] =
    ["KUBE-CLUSTER-IP: 10.96.0.1,tcp:80", "KUBE-LOOP-BACK: 10.244.0.1,tcp:8080,10.244.0.1"];

#[track_caller]
fn expect(service: &Service, besides: &[&str]) {
    let mut expected: Vec<String> =
        ALWAYS.iter().chain(besides).map(|line| (*line).to_owned()).collect();
    expected.sort_unstable_by_key(|line| line.split(':').next().map(str::to_owned));
    assert_eq!(asked(service), expected);
}

#[test]
fn cluster_ip() {
    expect(&base().port(80), &[]);
}

#[test]
fn external_ip_is_in_one_set_or_the_other() {
    let open = || base().port(80).external_ip("1.2.3.4");
    expect(&open(), &["KUBE-EXTERNAL-IP: 1.2.3.4,tcp:80"]);
    expect(&open().external_local(), &["KUBE-EXTERNAL-IP-LOCAL: 1.2.3.4,tcp:80"]);
}

#[test]
fn c04_c05_load_balancer() {
    let open = || base().port(80).load_balancer("1.2.3.4").load_balancer("1.2.3.5");
    expect(&open(), &["KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80 1.2.3.5,tcp:80"]);
    expect(
        &open().external_local(),
        &[
            "KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80 1.2.3.5,tcp:80",
            "KUBE-LOAD-BALANCER-LOCAL: 1.2.3.4,tcp:80 1.2.3.5,tcp:80",
        ],
    );
}

#[test]
fn c06_source_ranges_without_and_with_the_node() {
    let open = || base().port(80).load_balancer("1.2.3.4");
    expect(
        &open().source_ranges(&["10.0.0.0/8", "203.0.113.7/32"]),
        &[
            "KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-FW: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-SOURCE-CIDR: 1.2.3.4,tcp:80,10.0.0.0/8 1.2.3.4,tcp:80,203.0.113.7",
        ],
    );
    expect(
        &open().source_ranges(&["192.0.2.0/24", "fd00::/8"]),
        &[
            "KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-FW: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-SOURCE-CIDR: 1.2.3.4,tcp:80,192.0.2.0/24",
            "KUBE-LOAD-BALANCER-SOURCE-IP: 1.2.3.4,tcp:80,1.2.3.4",
        ],
    );
    // Ranges of the other family only, or one that is everything: not restricted.
    for ranges in [&["fd00::/8"][..], &["10.0.0.0/8", "0.0.0.0/0"]] {
        expect(&open().source_ranges(ranges), &["KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80"]);
    }
}

/// The kernel refuses an element of an nftables set that overlaps another one.
#[test]
fn source_ranges_do_not_overlap_in_nftables() {
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.128/25", "192.0.2.0/25"];
    let service = base().port(80).load_balancer("1.2.3.4").source_ranges(&ranges);
    let of = |backend| {
        let asked = ask(&service, &[], &Settings { backend, ..node(V4, &["192.0.2.1"]) });
        members(&asked).remove("KUBE-LOAD-BALANCER-SOURCE-CIDR").unwrap().len()
    };
    assert_eq!(of(Backend::Iptables), 4);
    assert_eq!(of(Backend::Nftables), 2);
}

#[test]
fn the_node_is_dropped_where_the_ranges_leave_it_out() {
    for (ranges, dropped) in [
        (&[][..], false),
        (&["10.0.0.0/8"], true),
        (&["10.0.0.0/8", "192.0.2.1/32"], false),
        // The address by which the node is known decides, not any that it has.
        (&["192.0.2.2/32"], true),
    ] {
        let service = base()
            .port(80)
            .external_ip("1.2.3.3")
            .load_balancer("1.2.3.4")
            .node_port(30080)
            .source_ranges(ranges);
        let asked = ask(&service, &[], &node(V4, &["192.0.2.1", "192.0.2.2"]));
        for frontend in &asked.frontends {
            let expected = dropped && frontend.kind == FrontendKind::LoadBalancer;
            assert_eq!(frontend.drop_from_node, expected, "{} {ranges:?}", frontend.key);
        }
    }
}

/// With the option, in both families; without it only load balancer addresses are closed.
#[test]
fn source_ranges_hold_everywhere_if_asked() {
    let service = |ranges: &[&str]| {
        service("svc")
            .cluster_ip("10.96.0.1")
            .cluster_ip("fd00::1")
            .port(80)
            .external_ip("1.2.3.3")
            .external_ip("2001:db8::3")
            .load_balancer("1.2.3.4")
            .node_port(30080)
            .source_ranges(ranges)
    };
    let of = |asked: &Contribution, set: &str| -> Vec<String> {
        members(asked).remove(set).unwrap_or_default()
    };
    let everywhere = Settings { source_ranges_everywhere: true, ..settings() };
    let ranges = service(&["10.0.0.0/8", "2001:db8::/32"]);

    let asked = ask(&ranges, &[], &settings());
    assert_eq!(of(&asked, "KUBE-LOAD-BALANCER-FW"), ["1.2.3.4,tcp:80"]);
    assert_eq!(of(&asked, "KUBE-6-LOAD-BALANCER-FW"), [""; 0]);

    let asked = ask(&ranges, &[], &everywhere);
    let closed = ["1.2.3.3,tcp:80", "1.2.3.4,tcp:80", "192.0.2.1,tcp:30080"];
    assert_eq!(of(&asked, "KUBE-LOAD-BALANCER-FW"), closed);
    let open = closed.map(|place| format!("{place},10.0.0.0/8"));
    assert_eq!(of(&asked, "KUBE-LOAD-BALANCER-SOURCE-CIDR"), open);
    let closed = ["2001:db8::1,tcp:30080", "2001:db8::3,tcp:80"];
    assert_eq!(of(&asked, "KUBE-6-LOAD-BALANCER-FW"), closed);
    // The node is in the ranges of IPv6 alone.
    assert_eq!(of(&asked, "KUBE-LOAD-BALANCER-SOURCE-IP"), [""; 0]);
    assert_eq!(
        of(&asked, "KUBE-6-LOAD-BALANCER-SOURCE-IP"),
        ["2001:db8::1,tcp:30080,2001:db8::1", "2001:db8::3,tcp:80,2001:db8::3"]
    );
    for frontend in &asked.frontends {
        let cluster_ip = frontend.kind == FrontendKind::ClusterIp;
        let dropped = !cluster_ip && frontend.key.family() == Family::Ipv4;
        assert_eq!(frontend.drop_from_node, dropped, "{}", frontend.key);
    }
    // Without ranges nothing is closed.
    let asked = ask(&service(&[]), &[], &everywhere);
    assert_eq!(of(&asked, "KUBE-LOAD-BALANCER-FW"), [""; 0]);
}

#[test]
fn node_ports_of_tcp_and_udp_are_numbers_and_of_sctp_addresses() {
    let open = |protocol: Protocol| base().named_port("", protocol, 80).node_port(30080);
    for (protocol, cluster, local) in [
        (Protocol::Tcp, "KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-LOCAL-TCP"),
        (Protocol::Udp, "KUBE-NODE-PORT-UDP", "KUBE-NODE-PORT-LOCAL-UDP"),
    ] {
        let lines = asked(&open(protocol));
        assert!(lines.contains(&format!("{cluster}: 30080")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with(local)));
        let lines = asked(&open(protocol).external_local());
        assert!(lines.contains(&format!("{cluster}: 30080")), "{lines:?}");
        assert!(lines.contains(&format!("{local}: 30080")), "{lines:?}");
    }
}

#[test]
fn b08_b09_sctp_node_ports() {
    let open = base().named_port("", Protocol::Sctp, 80).node_port(3001);
    let both = "192.0.2.1,sctp:3001 192.0.2.2,sctp:3001";
    let lines = asked(&open);
    assert!(lines.contains(&format!("KUBE-NODE-PORT-SCTP-HASH: {both}")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("KUBE-NODE-PORT-LOCAL")));
    let lines = asked(&open.external_local());
    assert!(lines.contains(&format!("KUBE-NODE-PORT-SCTP-HASH: {both}")), "{lines:?}");
    assert!(lines.contains(&format!("KUBE-NODE-PORT-LOCAL-SCTP-HASH: {both}")), "{lines:?}");
}

#[test]
fn b06_b14_node_ports_need_an_address_to_listen_on() {
    let service = base().port(80).node_port(30080).external_local();
    let text = text(&ask(&service, &[], &node(V4, &[])));
    assert_eq!(text, ["KUBE-CLUSTER-IP: 10.96.0.1,tcp:80"]);
}

#[test]
fn c07_health_check_ports_even_without_node_addresses() {
    // Quirk 15 fixed: kube-proxy forgets the port when no address takes node ports.
    let service = base().port(80).port(81).external_local().health_check(32000);
    let asked = ask(&service, &[], &node(V4, &[]));
    assert_eq!(
        text(&asked),
        [
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80 10.96.0.1,tcp:81",
            "KUBE-HEALTH-CHECK-NODE-PORT: 32000"
        ]
    );
    assert_eq!(asked.members.len(), 1, "once, not for every port");
}

#[test]
fn every_set_of_ipv6_has_its_own_name() {
    let service = service("svc")
        .cluster_ip("fd00::1")
        .named_port("", Protocol::Sctp, 80)
        .node_port(3001)
        .external_ip("2001:db8::50")
        .load_balancer("2001:db8::60")
        .source_ranges(&["2001:db8::/32"])
        .external_local()
        .health_check(32000);
    let slices = [slice("svc").target("", Protocol::Sctp, 9).endpoints(&["fd01::1 @node-1"])];
    let asked = ask(&service, &slices, &node(V6, &["2001:db8::1"]));
    assert_eq!(
        text(&asked),
        [
            "KUBE-6-CLUSTER-IP: fd00::1,sctp:80",
            "KUBE-6-EXTERNAL-IP-LOCAL: 2001:db8::50,sctp:80",
            "KUBE-6-HEALTH-CHECK-NODE-PORT: 32000",
            "KUBE-6-LOAD-BALANCER: 2001:db8::60,sctp:80",
            "KUBE-6-LOAD-BALANCER-FW: 2001:db8::60,sctp:80",
            "KUBE-6-LOAD-BALANCER-LOCAL: 2001:db8::60,sctp:80",
            "KUBE-6-LOAD-BALANCER-SOURCE-CID: 2001:db8::60,sctp:80,2001:db8::/32",
            "KUBE-6-LOAD-BALANCER-SOURCE-IP: 2001:db8::60,sctp:80,2001:db8::60",
            "KUBE-6-LOOP-BACK: fd01::1,sctp:9,fd01::1",
            "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS: 2001:db8::1,sctp:3001",
            "KUBE-6-NODE-PORT-SCTP-HASH: 2001:db8::1,sctp:3001",
        ]
    );
}

#[test]
fn one_address_in_several_roles_is_in_the_sets_of_all() {
    expect(
        &base()
            .port(80)
            .external_ip("1.2.3.4")
            .load_balancer("1.2.3.4")
            .source_ranges(&["10.0.0.0/8"]),
        &[
            "KUBE-EXTERNAL-IP: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-FW: 1.2.3.4,tcp:80",
            "KUBE-LOAD-BALANCER-SOURCE-CIDR: 1.2.3.4,tcp:80,10.0.0.0/8",
        ],
    );
    let service = base()
        .port(80)
        .external_ip("1.2.3.4")
        .load_balancer("1.2.3.4")
        .source_ranges(&["10.0.0.0/8"]);
    let asked = ask(&service, &[], &node(V4, &[]));
    assert!(asked.frontends.iter().any(|frontend| frontend.drop_from_node));
}
