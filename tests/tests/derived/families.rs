//! The IPv6 twins of what was recorded with IPv4, and both families together.

use super::*;

const ALL: [(&str, &str, u16); 3] = [("t", "TCP", 80), ("u", "UDP", 53), ("s", "SCTP", 77)];
const TARGETS: [(&str, &str, u16); 3] =
    [("t", "TCP", 8080), ("u", "UDP", 8053), ("s", "SCTP", 777)];

#[test]
fn ipv6_alone_with_every_frontend_and_protocol() {
    let web = service(
        "web",
        &["fd00:10:96::1"],
        &ALL,
        json!({ "nodePorts": [30080, 30053, 30077], "externalIPs": ["2001:db8::e"] }),
    );
    let web = balanced(web, &[json!({ "ip": "2001:db8::7" })]);
    let pods = slice("web", "6", &TARGETS, &["fd00:10:244::5 node-a", "fd00:10:244:1::7 node-b"]);
    let mut expected = vec![
        "bound 2001:db8::7 2001:db8::e fd00:10:96::1".to_owned(),
        "KUBE-6-CLUSTER-IP: fd00:10:96::1,sctp:77 fd00:10:96::1,tcp:80 fd00:10:96::1,udp:53".into(),
        "KUBE-6-EXTERNAL-IP: 2001:db8::e,sctp:77 2001:db8::e,tcp:80 2001:db8::e,udp:53".into(),
        "KUBE-6-LOAD-BALANCER: 2001:db8::7,sctp:77 2001:db8::7,tcp:80 2001:db8::7,udp:53".into(),
        "KUBE-6-LOOP-BACK: fd00:10:244::5,sctp:777,fd00:10:244::5 \
         fd00:10:244::5,tcp:8080,fd00:10:244::5 fd00:10:244::5,udp:8053,fd00:10:244::5"
            .into(),
        "KUBE-6-NODE-PORT-SCTP-HASH: fd00:50::10,sctp:30077".into(),
        "KUBE-6-NODE-PORT-TCP: 30080".into(),
        "KUBE-6-NODE-PORT-UDP: 30053".into(),
    ];
    for ((flag, port, node_port), target) in
        [("-t", 80, 30080), ("-u", 53, 30053), ("--sctp-service", 77, 30077)]
            .iter()
            .zip([8080, 8053, 777])
    {
        for address in ["fd00:10:96::1", "2001:db8::e", "2001:db8::7", "fd00:50::10"] {
            let port = if address == "fd00:50::10" { node_port } else { port };
            expected.push(format!(
                "{flag} [{address}]:{port} -s rr | [fd00:10:244:1::7]:{target} [fd00:10:244::5]:{target}"
            ));
        }
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect(&state(USUAL, &[web, pods]), &expected);
}

#[test]
fn ipv6_affinity_is_on_every_virtual_server() {
    let sticky = json!({
        "nodePorts": [30080], "externalIPs": ["2001:db8::e"], "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 77 } },
    });
    let web = service("web", &["fd00:10:96::1"], &ALL[..1], sticky);
    let pods = slice("web", "6", &TARGETS[..1], &["fd00:10:244:1::7 node-b"]);
    expect(
        &state(USUAL, &[web, pods]),
        &[
            "-t [fd00:10:96::1]:80 -s rr -p 77 | [fd00:10:244:1::7]:8080",
            "-t [2001:db8::e]:80 -s rr -p 77 | [fd00:10:244:1::7]:8080",
            "-t [fd00:50::10]:30080 -s rr -p 77 | [fd00:10:244:1::7]:8080",
            "bound 2001:db8::e fd00:10:96::1",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80",
            "KUBE-6-EXTERNAL-IP: 2001:db8::e,tcp:80",
            "KUBE-6-NODE-PORT-TCP: 30080",
        ],
    );
}

/// Ranges are per family: the one without any is open. Host bits do not count, a range of one address is
/// printed as that address.
#[test]
fn source_ranges_close_their_own_family() {
    let with = |ranges: Value| {
        let more = json!({ "loadBalancerSourceRanges": ranges });
        let web = service("web", &["10.96.0.1", "fd00:10:96::1"], &ALL[..1], more);
        let dump = state(
            USUAL,
            &[balanced(web, &[json!({ "ip": "203.0.113.7" }), json!({ "ip": "2001:db8::7" })])],
        );
        let chain = |chains: &proxier_tests::golden::Chains| {
            chains.0["KUBE-IPVS-OUT-FILTER"].iter().any(|rule| rule.contains("-j DROP"))
        };
        let dropped = [chain(&dump.filter4), chain(&dump.filter6)];
        let sets: Vec<String> = lines(&dump)
            .lines()
            .filter(|line| line.contains("-FW") || line.contains("SOURCE"))
            .map(str::to_owned)
            .collect();
        (sets, dropped)
    };
    let six = [
        "KUBE-6-LOAD-BALANCER-FW: 2001:db8::7,tcp:80",
        "KUBE-6-LOAD-BALANCER-SOURCE-CID: 2001:db8::7,tcp:80,2001:db8:9::1 2001:db8::7,tcp:80,fd00:50::/64",
        "KUBE-6-LOAD-BALANCER-SOURCE-IP: 2001:db8::7,tcp:80,2001:db8::7",
    ];
    let ranges = json!([" fd00:50::9/64", "2001:db8:9::1/128", "no range"]);
    assert_eq!(with(ranges), (six.map(str::to_owned).to_vec(), [false, false]));
    let other = [
        "KUBE-6-LOAD-BALANCER-FW: 2001:db8::7,tcp:80",
        "KUBE-6-LOAD-BALANCER-SOURCE-CID: 2001:db8::7,tcp:80,2001:db8:9::/48",
        "KUBE-LOAD-BALANCER-FW: 203.0.113.7,tcp:80",
        "KUBE-LOAD-BALANCER-SOURCE-CIDR: 203.0.113.7,tcp:80,192.168.50.0/24",
        "KUBE-LOAD-BALANCER-SOURCE-IP: 203.0.113.7,tcp:80,203.0.113.7",
    ];
    let ranges = json!(["192.168.50.0/24", "2001:db8:9::/48"]);
    assert_eq!(with(ranges), (other.map(str::to_owned).to_vec(), [false, true]));
    // A range of everything opens its family again.
    let four = [
        "KUBE-LOAD-BALANCER-FW: 203.0.113.7,tcp:80",
        "KUBE-LOAD-BALANCER-SOURCE-CIDR: 203.0.113.7,tcp:80,198.51.100.0/24",
    ];
    let ranges = json!(["198.51.100.0/24", "::/0", "2001:db8:9::/48"]);
    assert_eq!(with(ranges), (four.map(str::to_owned).to_vec(), [true, false]));
}

#[test]
fn each_family_takes_the_slices_of_its_own() {
    let web = service("web", &["10.96.0.1", "fd00:10:96::1"], &ALL[..1], json!({}));
    let objects = [
        web,
        slice("web", "4", &TARGETS[..1], &["10.244.1.7 node-b"]),
        // Another number under the same name.
        slice("web", "6", &[("t", "TCP", 9090)], &["fd00:10:244:1::7 node-b"]),
        slice("web", "6b", &TARGETS[..1], &["fd00:10:244:2::7 node-c"]),
    ];
    expect(
        &state(USUAL, &objects),
        &[
            "-t 10.96.0.1:80 -s rr | 10.244.1.7:8080",
            "-t [fd00:10:96::1]:80 -s rr | [fd00:10:244:1::7]:9090 [fd00:10:244:2::7]:8080",
            "bound 10.96.0.1 fd00:10:96::1",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80",
        ],
    );
}

#[test]
fn external_policy_local_keeps_every_ipv6_frontend_on_this_node() {
    let more = json!({
        "nodePorts": [30080, 30053, 30077], "externalIPs": ["2001:db8::e"],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
    });
    let web = service("web", &["fd00:10:96::1"], &ALL, more);
    let web = balanced(web, &[json!({ "ip": "2001:db8::7" })]);
    let pods = slice("web", "6", &TARGETS, &["fd00:10:244::5 node-a", "fd00:10:244:1::7 node-b"]);
    let dump = state(USUAL, &[web, pods]);
    for (head, servers) in &dump.ipvs {
        let expected = if head.contains("[fd00:10:96::1]") { 2 } else { 1 };
        assert_eq!(servers.len(), expected, "{head} {servers:?}");
        assert!(servers.iter().any(|server| server.contains("[fd00:10:244::5]")), "{servers:?}");
    }
    assert_eq!(dump.ipvs.len(), 4 * 3);
    for (set, members) in [
        ("KUBE-6-EXTERNAL-IP", 0),
        ("KUBE-6-EXTERNAL-IP-LOCAL", 3),
        ("KUBE-6-LOAD-BALANCER", 3),
        ("KUBE-6-LOAD-BALANCER-LOCAL", 3),
        ("KUBE-6-NODE-PORT-LOCAL-TCP", 1),
        ("KUBE-6-NODE-PORT-TCP", 1),
        ("KUBE-6-NODE-PORT-LOCAL-UDP", 1),
        ("KUBE-6-NODE-PORT-LOCAL-SCTP-HAS", 1),
        ("KUBE-6-NODE-PORT-SCTP-HASH", 1),
        ("KUBE-6-HEALTH-CHECK-NODE-PORT", 1),
        ("KUBE-HEALTH-CHECK-NODE-PORT", 0),
        ("KUBE-6-LOOP-BACK", 3),
    ] {
        assert_eq!(dump.set(set).len(), members, "{set}");
    }
}
