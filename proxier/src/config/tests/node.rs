//! Acceptance rows A01 to A17, L01 to L08, L10, L20, L30, L31, L53.

use crate::config::node::{
    NodeIps, WrongFamily, check_families, health_check_ips, node_ips, node_port_ips, questionable,
};
use Family::{Ipv4, Ipv6};
use netlink_ipvs::Family;

use super::*;

fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

fn node(primary: Family, v4: &str, v6: &str) -> NodeIps {
    NodeIps { primary, v4: v4.parse().unwrap(), v6: v6.parse().unwrap() }
}

fn unknown() -> NodeIps {
    node(Ipv4, "127.0.0.1", "::1")
}

/// A01 to A12. The interfaces other than `kube-ipvs0` are what the host lists; A06 to A09 leave
/// nothing else of theirs.
#[test]
fn all_of_the_host_s_addresses() {
    for (row, family, host, expected) in [
        ("A01", Ipv4, "1.2.3.4 127.0.0.1", "1.2.3.4"),
        ("A02", Ipv4, "127.0.0.1", ""),
        ("A03", Ipv4, "", ""),
        (
            "A04",
            Ipv4,
            "10.20.30.40 fe80::200:ff:fe01:1 127.0.0.1 ::1 172.17.0.1",
            "10.20.30.40 172.17.0.1",
        ),
        ("A05", Ipv4, "10.20.30.40 127.0.0.1 1000:: 10.20.30.31", "10.20.30.31 10.20.30.40"),
        ("A09", Ipv4, "3.4.5.6 127.0.0.1", "3.4.5.6"),
        ("A10", Ipv4, "1.2.3.4 127.0.0.1 10.20.30.31", "1.2.3.4 10.20.30.31"),
        ("A11", Ipv6, "1.2.3.4 1000:: 10.20.30.31 2000:: fe80::1", "1000:: 2000::"),
        ("A12", Ipv6, "1.2.3.4 1000:: 127.0.0.1 ::1", "1000::"),
        ("A13", Ipv4, "127.0.0.1 127.0.0.0 127.6.7.8", ""),
        (
            "A14",
            Ipv4,
            "8.8.8.8 192.168.0.1 169.254.0.0 ::ffff:169.254.0.0",
            "8.8.8.8 169.254.0.0 192.168.0.1",
        ),
        ("A15", Ipv4, "1000::", ""),
        ("A16", Ipv6, "::1 fe80::200:ff:fe01:1 8.8.8.8 ::ffff:8.8.8.8", ""),
        ("A17", Ipv6, "1000::", "1000::"),
    ] {
        let found = node_port_ips(&NodePortAddresses::All, &unknown(), &ips(host), family);
        assert_eq!(found, ips(expected), "{row}");
    }
}

/// L01 to L08, with the loopback addresses that IPVS leaves out.
#[test]
fn the_host_s_addresses_in_the_given_ranges() {
    const HOST: &str = "10.20.30.51 100.200.201.1 127.0.0.1 2001:db8::1 ::1 fe80::1";
    const V4: &str = "10.20.30.51 100.200.201.1";
    const V6: &str = "2001:db8::1";
    for (row, cidrs, v4, v6) in [
        ("L01", "10.20.30.0/24", "10.20.30.51", V6),
        ("L02", "0.0.0.0/0", V4, V6),
        ("L03", "2001:db8::/64 ::1/128", V4, "2001:db8::1"),
        ("L04", "::/0", V4, V6),
        ("L05", "127.0.0.1/32", "", V6),
        ("L05b", "127.0.0.0/8", "", V6),
        ("L06", "10.20.30.0/24 100.200.201.0/24", V4, V6),
        ("L06b", "10.20.40.0/24", "", V6),
        ("L07", "", V4, V6),
        ("L08", "1.2.3.0/24 0.0.0.0/0", V4, V6),
        ("L08b", "1.2.3.0/24 0.0.0.0/0 2001:db8::/32", V4, "2001:db8::1"),
        ("L08c", "10.20.30.0/24 2001:db9::/32 ::/0", "10.20.30.51", V6),
        ("link-local", "fe80::/10", V4, ""),
    ] {
        let addresses = NodePortAddresses::Cidrs(nets(cidrs));
        let found = |family| node_port_ips(&addresses, &unknown(), &ips(HOST), family);
        assert_eq!(found(Ipv4), ips(v4), "{row}");
        assert_eq!(found(Ipv6), ips(v6), "{row}");
    }
}

/// 4.6: `primary` is the node's own address of each family; a family without one listens on all.
#[test]
fn the_node_s_primary_addresses() {
    const HOST: &str = "10.0.0.1 10.0.0.2 fd00::1 fd00::2";
    for (v4, v6, expected_v4, expected_v6) in [
        ("10.0.0.1", "fd00::2", "10.0.0.1", "fd00::2"),
        ("10.0.0.1", "::1", "10.0.0.1", "fd00::1 fd00::2"),
        ("127.0.0.1", "fd00::1", "10.0.0.1 10.0.0.2", "fd00::1"),
        ("127.0.0.1", "::1", "10.0.0.1 10.0.0.2", "fd00::1 fd00::2"),
        ("10.0.0.9", "::1", "", "fd00::1 fd00::2"),
    ] {
        let node = node(Ipv4, v4, v6);
        let found = |family| node_port_ips(&NodePortAddresses::Primary, &node, &ips(HOST), family);
        assert_eq!(found(Ipv4), ips(expected_v4), "{v4} {v6}");
        assert_eq!(found(Ipv6), ips(expected_v6), "{v4} {v6}");
    }
}

/// Where no cluster can tell the address, nothing is opened that was not asked for.
#[test]
fn primary_addresses_that_nobody_knows() {
    let host = ips("10.0.0.1 10.0.0.2 127.0.0.1 fd00::1 ::1");
    for (v4, v6, expected_v4, expected_v6) in [
        ("10.0.0.1", "fd00::1", "10.0.0.1", "fd00::1"),
        ("10.0.0.1", "::1", "10.0.0.1", ""),
        ("127.0.0.1", "::1", "", ""),
    ] {
        let (node, only) = (node(Ipv4, v4, v6), NodePortAddresses::PrimaryOnly);
        for (family, expected) in [(Ipv4, expected_v4), (Ipv6, expected_v6)] {
            assert_eq!(node_port_ips(&only, &node, &host, family), ips(expected), "{v4} {v6}");
            assert_eq!(health_check_ips(&only, &node, &host, family), ips(expected), "{v4} {v6}");
        }
    }
    let primary = load("nodePortAddresses: [primary]").unwrap();
    let [text] = &questionable(&primary, &unknown(), &[])[..] else { panic!("one warning") };
    assert!(text.contains("no address of node") && text.contains("on all local IPs"), "{text}");
    assert!(!text.contains("Consider using"), "{text}");
}

/// L53 and 10.4: health checks listen on loopback addresses too.
#[test]
fn where_health_check_node_ports_listen() {
    let host = ips("127.0.0.1 10.0.0.1 ::1");
    let found = |addresses: &NodePortAddresses, family| {
        health_check_ips(addresses, &unknown(), &host, family)
    };
    let loopback = NodePortAddresses::Cidrs(nets("127.0.0.0/8"));
    assert_eq!(found(&loopback, Ipv4), ips("127.0.0.1"));
    assert_eq!(found(&loopback, Ipv6), ips("::"));
    assert_eq!(found(&NodePortAddresses::All, Ipv4), ips("0.0.0.0"));
    let nowhere = NodePortAddresses::Cidrs(nets("10.9.0.0/16"));
    assert_eq!(found(&nowhere, Ipv4), ips(""));
}

/// L10
#[test]
fn the_node_s_own_ips() {
    for (bind, object, expected) in [
        ("10.0.0.1", "", node(Ipv4, "10.0.0.1", "::1")),
        ("fd00:4321::2", "", node(Ipv6, "127.0.0.1", "fd00:4321::2")),
        ("0.0.0.0", "", unknown()),
        ("::", "", unknown()),
        ("0.0.0.0", "192.168.1.1", node(Ipv4, "192.168.1.1", "::1")),
        ("::", "192.168.1.1", node(Ipv4, "192.168.1.1", "::1")),
        ("0.0.0.0", "fd00:1234::1", node(Ipv6, "127.0.0.1", "fd00:1234::1")),
        ("::", "fd00:1234::1", node(Ipv6, "127.0.0.1", "fd00:1234::1")),
        ("::", "192.168.1.1 fd00:1234::1", node(Ipv4, "192.168.1.1", "fd00:1234::1")),
        ("0.0.0.0", "fd00:1234::1 192.168.1.1", node(Ipv6, "192.168.1.1", "fd00:1234::1")),
        ("10.0.0.1", "192.168.1.1", node(Ipv4, "10.0.0.1", "::1")),
        ("fd00:4321::2", "fd00:1234::1", node(Ipv6, "127.0.0.1", "fd00:4321::2")),
        ("10.0.0.1", "fd00:1234::1 192.168.1.1", node(Ipv4, "10.0.0.1", "fd00:1234::1")),
        ("fd00:4321::2", "192.168.1.1 fd00:1234::1", node(Ipv6, "192.168.1.1", "fd00:4321::2")),
        ("127.0.0.1", "fd00:1234::1 192.168.1.1", node(Ipv4, "127.0.0.1", "fd00:1234::1")),
        ("::1", "192.168.1.1 fd00:1234::1", node(Ipv6, "192.168.1.1", "::1")),
        ("0.0.0.0", "10.0.0.1 10.0.0.2 fd00::1 fd00::2", node(Ipv4, "10.0.0.1", "fd00::1")),
    ] {
        let found = node_ips(bind.parse().unwrap(), &ips(object));
        assert_eq!(found, expected, "bind {bind}, node {object}");
    }
    assert!(unknown().warning().is_some_and(|text| text.contains("--bind-address")));
    assert_eq!(node(Ipv6, "127.0.0.1", "fd00::1").warning(), None);
}

/// L20: a CIDR of the wrong family is still used for its own; which one, and when none, follows
/// from the list.
#[test]
fn cluster_cidrs_keep_both_families_in_either_order() {
    for text in ["10.0.0.0/14", "2002::/14", "10.0.0.0/14,2002::/14", "2002::/14,10.0.0.0/14", ""] {
        let config = load(&format!("clusterCIDR: '{text}'")).unwrap();
        let expected = nets(&text.replace(',', " ")).iter().map(IpNet::trunc).collect();
        assert_eq!(config.detect_local, DetectLocal::ClusterCidr(expected), "{text}");
    }
}

/// L30
#[test]
fn questionable_node_port_addresses() {
    const V4_ONLY: &str = "cluster appears to be dual-stack but nodePortAddresses contains only IPv4 addresses; \
         NodePort connections will be accepted on all local IPv6 IPs";
    const NOT_PRIMARY: &str = "cluster appears to be IPv6-primary but nodePortAddresses contains only IPv4 addresses; \
         NodePort connections will be accepted on all local IPv6 IPs";
    const UNSET: &str = "nodePortAddresses is unset; NodePort connections will be accepted on all local IPs. \
         Consider using `--nodeport-addresses primary`";
    let dual = "10.0.0.0/8,fd09::/64";
    for (cluster, ports, pods, primary, expected) in [
        ("10.0.0.0/8", "192.168.0.0/24", "", Ipv4, None),
        (dual, "192.168.0.0/24,fd03::/64", "", Ipv4, None),
        ("10.0.0.0/8", "", "", Ipv4, Some(UNSET)),
        (dual, "192.168.0.0/24", "", Ipv4, Some(V4_ONLY)),
        ("", "192.168.0.0/24", dual, Ipv4, Some(V4_ONLY)),
        ("fd09::/64", "192.168.0.0/24", "", Ipv6, Some(NOT_PRIMARY)),
        (dual, "192.168.0.0/24", "", Ipv6, Some(NOT_PRIMARY)),
    ] {
        let config = load(&format!("clusterCIDR: '{cluster}'\nnodePortAddresses: [{ports}]"));
        let node = NodeIps { primary, ..unknown() };
        let found = questionable(&config.unwrap(), &node, &nets(&pods.replace(',', " ")));
        let prefix = "Kube-proxy configuration may be incomplete or incorrect: ";
        let expected: Vec<_> = expected.into_iter().map(|text| format!("{prefix}{text}")).collect();
        assert_eq!(found, expected, "{cluster} {ports} {pods}");
    }
    let primary = load("nodePortAddresses: [primary]").unwrap();
    assert_eq!(questionable(&primary, &node(Ipv4, "10.0.0.1", "::1"), &[]), [""; 0]);
}

/// L31
#[test]
fn settings_of_the_wrong_family() {
    const ERROR: bool = false;
    const FATAL: bool = true;
    let rows = [
        ("clusterCIDR: 10.0.0.0/8", "", None, None),
        ("clusterCIDR: 'fd00::/64,10.0.0.0/8'", "", None, None),
        ("clusterCIDR: 'fd00::/64'", "", Some(FATAL), Some(ERROR)),
        ("detectLocalMode: NodeCIDR\nclusterCIDR: 'fd00::/64'", "", Some(ERROR), Some(ERROR)),
        ("detectLocalMode: NodeCIDR", "fd00::/64", Some(FATAL), Some(FATAL)),
        ("detectLocalMode: NodeCIDR", "fd00::/64 10.0.0.0/8", None, None),
        ("clusterCIDR: 10.0.0.0/8", "fd00::/64", Some(ERROR), Some(ERROR)),
        ("ipvs: {excludeCIDRs: ['fd00::/64']}", "", Some(ERROR), None),
        ("ipvs: {excludeCIDRs: ['fd00::/64', 10.0.0.0/8]}", "", None, None),
        ("metricsBindAddress: '[fd00::1]:80'", "", Some(ERROR), None),
        ("healthzBindAddress: '[fd00::1]:80'", "", Some(ERROR), None),
        ("healthzBindAddress: '[::]:80'", "", None, None),
    ];
    for (body, pods, single, dual) in rows {
        let config = load(body).unwrap();
        for (dual_stack, expected) in [(false, single), (true, dual)] {
            let found = check_families(&config, &unknown(), &nets(pods), dual_stack);
            let found = match found {
                Ok(warnings) if warnings.is_empty() => None,
                Ok(_) => Some(ERROR),
                Err(_) => Some(FATAL),
            };
            assert_eq!(found, expected, "{body}, pods {pods}, dual-stack {dual_stack}");
        }
    }
}

#[test]
fn wrong_families_are_told_in_kube_proxy_s_words() {
    let config = load(
        "clusterCIDR: 'fd00::/64'\nipvs: {excludeCIDRs: ['fd01::/64']}\n\
         healthzBindAddress: '[fd00::1]:80'\nmetricsBindAddress: '[fd00::1]:81'\n",
    )
    .unwrap();
    let WrongFamily { problems } =
        check_families(&config, &unknown(), &nets("fd02::/64"), false).unwrap_err();
    assert_eq!(
        problems,
        [
            "cluster is IPv4-only but clusterCIDRs contains only IPv6 addresses",
            "cluster is IPv4-only but node.spec.podCIDRs contains only IPv6 addresses",
            "cluster is IPv4-only but ipvs.excludeCIDRs contains only IPv6 addresses",
            "cluster is IPv4-only but healthzBindAddress is IPv6",
            "cluster is IPv4-only but metricsBindAddress is IPv6",
        ]
    );
    let warnings = check_families(&config, &unknown(), &[], true).unwrap();
    assert_eq!(
        warnings,
        ["Kube-proxy configuration may be incomplete or incorrect: cluster is IPv4-primary but \
          clusterCIDRs contains only IPv6 addresses"]
    );
}
