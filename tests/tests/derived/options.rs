//! Configurations that were not recorded.

use super::*;

const PORT: [(&str, &str, u16); 1] = [("", "TCP", 80)];

/// The rule that says which packets to cluster IPs are masqueraded, of both families.
fn masqueraded(node: &Value, config: &str) -> [String; 2] {
    let web = service("web", &["10.96.0.1", "fd00:10:96::1"], &PORT, json!({}));
    let dump = on(node, &["192.168.50.10", "fd00:50::10"], config, &[web]);
    [&dump.nat4, &dump.nat6].map(|chains| {
        let rules = &chains.0["KUBE-SERVICES"];
        let comment =
            "-m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" ";
        let rule = rules.iter().find(|rule| rule.contains(comment)).unwrap();
        rule.replace(comment, "").replace("-A KUBE-SERVICES ", "")
    })
}

#[test]
fn local_traffic_is_told_in_each_family() {
    let usual = node("node-a", json!({}));
    let mut only6 = usual.clone();
    only6["spec"]["podCIDRs"] = json!(["fd00:10:244::/64"]);
    let dst =
        |what: &str, set: &str| format!("{what}-m set --match-set {set} dst,dst -j KUBE-MARK-MASQ");
    let src4 = "-m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ".to_owned();
    let src6 = "-m set --match-set KUBE-6-CLUSTER-IP src,dst -j KUBE-MARK-MASQ".to_owned();
    let both = |what: &str| [dst(what, "KUBE-CLUSTER-IP"), dst(what, "KUBE-6-CLUSTER-IP")];
    let cidr4 = |cidr: &str| dst(&format!("! -s {cidr} "), "KUBE-CLUSTER-IP");
    let cidr6 = |cidr: &str| dst(&format!("! -s {cidr} "), "KUBE-6-CLUSTER-IP");
    for (node, config, expected) in [
        (&usual, "", [src4.clone(), src6.clone()]),
        (&usual, "clusterCIDR: 10.244.3.9/16", [cidr4("10.244.0.0/16"), src6]),
        (&usual, "clusterCIDR: fd00:10:244::/56", [src4.clone(), cidr6("fd00:10:244::/56")]),
        (
            &usual,
            "clusterCIDR: 'fd00:10:244::/56,10.244.0.0/16'",
            [cidr4("10.244.0.0/16"), cidr6("fd00:10:244::/56")],
        ),
        (
            &usual,
            "detectLocalMode: NodeCIDR\nclusterCIDR: 10.0.0.0/8",
            [cidr4("10.244.0.0/24"), cidr6("fd00:10:244::/64")],
        ),
        (&only6, "detectLocalMode: NodeCIDR", [src4, cidr6("fd00:10:244::/64")]),
        (
            &usual,
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}",
            both("! -i cni0 "),
        ),
        (
            &usual,
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}",
            both("! -i veth+ "),
        ),
        (&usual, "clusterCIDR: 10.244.0.0/16\niptables: {masqueradeAll: true}", both("")),
    ] {
        assert_eq!(masqueraded(node, config), expected, "{config}");
    }
}

#[test]
fn node_ports_listen_where_they_are_told_in_each_family() {
    let web = service(
        "web",
        &["10.96.0.1", "fd00:10:96::1"],
        &[("t", "TCP", 80), ("s", "SCTP", 77)],
        json!({ "type": "NodePort", "nodePorts": [30080, 30077] }),
    );
    let node = node("node-a", json!({}));
    let addresses = ["192.168.50.10", "172.17.0.1", "10.96.0.9", "fd00:50::10", "fd00:51::10"];
    for (config, four, six) in [
        (
            "[]",
            &["10.96.0.9", "172.17.0.1", "192.168.50.10"][..],
            &["fd00:50::10", "fd00:51::10"][..],
        ),
        ("[primary]", &["192.168.50.10"], &["fd00:50::10"]),
        // A family without a range listens everywhere.
        ("['fd00:51::/64']", &["10.96.0.9", "172.17.0.1", "192.168.50.10"], &["fd00:51::10"]),
        ("[172.16.0.0/12, 'fd00:50::10/128']", &["172.17.0.1"], &["fd00:50::10"]),
        ("[172.16.0.0/12, '::/0']", &["172.17.0.1"], &["fd00:50::10", "fd00:51::10"]),
        ("[198.51.100.0/24, '2001:db8::/32']", &[], &[]),
        // The range of the Services: their addresses on kube-ipvs0 are not the node's.
        ("[10.96.0.0/12, 'fd00:10:96::/112']", &["10.96.0.9"], &[]),
    ] {
        let config = format!("{USUAL}\nnodePortAddresses: {config}");
        let dump = on(&node, &addresses, &config, std::slice::from_ref(&web));
        let mut expected: Vec<String> = Vec::new();
        for (flag, port, node_port) in [("-t", 80, 30080), ("--sctp-service", 77, 30077)] {
            expected.push(format!("-A {flag} 10.96.0.1:{port} -s rr"));
            expected.push(format!("-A {flag} [fd00:10:96::1]:{port} -s rr"));
            expected.extend(four.iter().map(|ip| format!("-A {flag} {ip}:{node_port} -s rr")));
            expected.extend(six.iter().map(|ip| format!("-A {flag} [{ip}]:{node_port} -s rr")));
        }
        expected.sort_unstable();
        let found: Vec<&String> = dump.ipvs.keys().collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{config}");
        for (set, any) in [("KUBE-NODE-PORT-TCP", four), ("KUBE-6-NODE-PORT-TCP", six)] {
            assert_eq!(dump.set(set).len(), usize::from(!any.is_empty()), "{set} {config}");
        }
        assert_eq!(dump.set("KUBE-NODE-PORT-SCTP-HASH").len(), four.len(), "{config}");
        assert_eq!(dump.set("KUBE-6-NODE-PORT-SCTP-HASH").len(), six.len(), "{config}");
    }
}

/// Only with `mh` is there a flag, whatever else a scheduler may know.
#[test]
fn every_scheduler_is_taken_as_it_is() {
    let sticky = json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
    });
    let objects = [
        service("web", &["10.96.0.1", "fd00:10:96::1"], &PORT, json!({})),
        service("sticky", &["10.96.0.2"], &PORT, sticky),
    ];
    for scheduler in [
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh",
        "twos",
    ] {
        let dump = state(&format!("ipvs: {{scheduler: {scheduler}}}"), &objects);
        let flag = if scheduler == "mh" { " -b mh-port" } else { "" };
        let expected = [
            format!("-A -t 10.96.0.1:80 -s {scheduler}{flag}"),
            format!("-A -t 10.96.0.2:80 -s {scheduler} -p 60{flag}"),
            format!("-A -t [fd00:10:96::1]:80 -s {scheduler}{flag}"),
        ];
        assert_eq!(dump.ipvs.keys().cloned().collect::<Vec<_>>(), expected);
    }
}

/// Off, they are neither served nor bound; that the Service has some still counts for its policies.
#[test]
fn the_gate_of_external_ips_takes_them_away() {
    let web = service(
        "web",
        &["10.96.0.1", "fd00:10:96::1"],
        &PORT,
        json!({ "externalIPs": ["203.0.113.9", "2001:db8::9"] }),
    );
    let config = format!("{USUAL}\nfeatureGates: {{AllowServiceExternalIPs: false}}");
    expect(
        &state(&config, &[web]),
        &[
            "-t 10.96.0.1:80 -s rr | ",
            "-t [fd00:10:96::1]:80 -s rr | ",
            "bound 10.96.0.1 fd00:10:96::1",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80",
        ],
    );
}

/// Which address of the node source ranges must hold for its own processes to be let through. Where it
/// has none of the family that is loopback, whatever its interfaces have.
#[test]
fn source_ranges_ask_for_the_node_s_own_address() {
    let internal = json!({ "type": "InternalIP", "address": "192.168.50.10" });
    let external = json!({ "type": "ExternalIP", "address": "203.0.113.200" });
    let other = json!({ "type": "InternalIP", "address": "fd00:50::10" });
    for (addresses, config, range, allowed) in [
        (vec![&internal], "", "192.168.50.0/24", true),
        (vec![&external, &internal], "", "192.168.50.0/24", true),
        (vec![&external, &internal], "", "203.0.113.0/24", false),
        (vec![&external, &other], "", "203.0.113.0/24", true),
        (vec![&other], "", "192.168.50.0/24", false),
        (vec![&other], "", "127.0.0.0/8", true),
        (vec![&internal], "bindAddress: 192.168.77.1", "192.168.50.0/24", false),
        (vec![&internal], "bindAddress: 192.168.77.1", "192.168.77.1/32", true),
        (vec![&internal], "bindAddress: 'fd00:77::1'", "192.168.50.0/24", true),
    ] {
        let mut node = node("node-a", json!({}));
        node["status"]["addresses"] = json!(addresses);
        let web =
            service("web", &["10.96.0.1"], &PORT, json!({ "loadBalancerSourceRanges": [range] }));
        let web = balanced(web, &[json!({ "ip": "203.0.113.7" })]);
        let dump = on(&node, &["192.168.50.10"], config, &[web]);
        let let_through = dump.set("KUBE-LOAD-BALANCER-SOURCE-IP");
        let dropped =
            dump.filter4.0.get("KUBE-IPVS-OUT-FILTER").is_some_and(|rules| !rules.is_empty());
        let expected: &[&str] = if allowed { &["203.0.113.7,tcp:80,203.0.113.7"] } else { &[] };
        assert_eq!(let_through, expected, "{addresses:?} {config} {range}");
        assert_eq!(dropped, !allowed, "{addresses:?} {config} {range}");
    }
}
