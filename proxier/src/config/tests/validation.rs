//! L47, one row for each way to be wrong.

use super::*;
use crate::config::validate::validate;

/// The errors of a valid object with one body merged in, without going through the defaults.
fn errors(body: &str) -> Vec<String> {
    let mut object = load("mode: ipvs").unwrap().object;
    let change: serde_json::Value = serde_saphyr::from_str(body).unwrap();
    let mut tree = serde_json::to_value(&object).unwrap();
    merge(&mut tree, change);
    object = serde_json::from_value(tree).unwrap();
    validate(&object).iter().map(ToString::to_string).collect()
}

fn merge(tree: &mut serde_json::Value, change: serde_json::Value) {
    match (tree, change) {
        (serde_json::Value::Object(tree), serde_json::Value::Object(change)) => {
            for (key, value) in change {
                let known = tree.contains_key(&key) || tree.is_empty();
                assert!(known, "the object has no field {key}");
                merge(tree.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (tree, change) => *tree = change,
    }
}

#[test]
fn valid_ones() {
    for body in [
        "{}",
        "nodePortAddresses: []",
        "nodePortAddresses: [primary]",
        "nodePortAddresses: [10.0.0.0/8, 'fd00::/64']",
        "clusterCIDR: ''",
        "clusterCIDR: 'fd00::/64,10.0.0.0/8'",
        "{detectLocalMode: NodeCIDR, clusterCIDR: nonsense}",
        "{detectLocalMode: BridgeInterface, detectLocal: {bridgeInterface: avz}}",
        "{detectLocalMode: InterfaceNamePrefix, detectLocal: {interfaceNamePrefix: avz}}",
        "healthzBindAddress: ''",
        "bindAddress: 010.0.0.1",
        "showHiddenMetricsForVersion: '1.35'",
        "{ipvs: {syncPeriod: 5s, minSyncPeriod: 5s}}",
        "oomScoreAdj: -1000",
        "iptables: {masqueradeBit: 31}",
    ] {
        assert_eq!(errors(body), [""; 0], "{body}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "it is a table")]
fn invalid_ones() {
    const CONNTRACK: &str = "KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration";
    const CIDRS: &str = "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. \
                         [10.100.0.0/16, fde4:8dba:82e1::/48]";
    const NO_CIDR: &str = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
    const NO_IP: &str = "not a valid textual representation of an IP address";
    let rows: &[(&str, &str)] = &[
        ("bindAddress: '10.10.12.11:2000'", &format!("BindAddress: \"10.10.12.11:2000\": {NO_IP}")),
        ("bindAddress: ''", &format!("BindAddress: \"\": {NO_IP}")),
        ("healthzBindAddress: 0.0.0.0", "HealthzBindAddress: \"0.0.0.0\": must be IP:port"),
        ("metricsBindAddress: 127.0.0.1", "MetricsBindAddress: \"127.0.0.1\": must be IP:port"),
        ("metricsBindAddress: ''", "MetricsBindAddress: \"\": must be IP:port"),
        ("healthzBindAddress: '0.0.0.0:0'", "HealthzBindAddress: \"0\": must be a valid port"),
        ("healthzBindAddress: '[::]:65536'", "HealthzBindAddress: \"65536\": must be a valid port"),
        ("metricsBindAddress: '1.1.1.1:foo'", "MetricsBindAddress: \"foo\": must be a valid port"),
        (
            "metricsBindAddress: '123.456.789.10:12345'",
            "MetricsBindAddress: \"123.456.789.10\": must be a valid IP",
        ),
        ("configSyncPeriod: -1s", "ConfigSyncPeriod: -1s: must be greater than 0"),
        ("configSyncPeriod: 0", "ConfigSyncPeriod: 0s: must be greater than 0"),
        ("ipvs: {syncPeriod: 0s}", "SyncPeriod: 0s: must be greater than 0"),
        ("ipvs: {minSyncPeriod: -1s}", "MinSyncPeriod: -1s: must be greater than or equal to 0"),
        (
            "ipvs: {syncPeriod: 1s, minSyncPeriod: 5s}",
            "SyncPeriod: 5s: must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod",
        ),
        (
            "mode: userspace",
            "Mode.ProxyMode: \"userspace\": must be iptables, ipvs, nftables or blank (blank \
             means the best-available proxy [currently iptables])",
        ),
        (
            "iptables: {masqueradeBit: -1}",
            "KubeProxyIPTablesConfiguration.MasqueradeBit: -1: must be within the range [0, 31]",
        ),
        (
            "iptables: {masqueradeBit: 32}",
            "KubeProxyIPTablesConfiguration.MasqueradeBit: 32: must be within the range [0, 31]",
        ),
        (
            "oomScoreAdj: -1001",
            "KubeProxyLinuxConfiguration.OOMScoreAdj: -1001: must be within the range [-1000, 1000]",
        ),
        (
            "oomScoreAdj: 1001",
            "KubeProxyLinuxConfiguration.OOMScoreAdj: 1001: must be within the range [-1000, 1000]",
        ),
        (
            "clientConnection: {burst: -5}",
            "ClientConnection.Burst: -5: must be greater than or equal to 0",
        ),
        (
            "ipvs: {tcpTimeout: -1s}",
            "KubeProxyIPVSConfiguration.TCPTimeout: -1s: must be greater than or equal to 0",
        ),
        (
            "ipvs: {tcpFinTimeout: -1s}",
            "KubeProxyIPVSConfiguration.TCPFinTimeout: -1s: must be greater than or equal to 0",
        ),
        (
            "ipvs: {udpTimeout: -1s}",
            "KubeProxyIPVSConfiguration.UDPTimeout: -1s: must be greater than or equal to 0",
        ),
        (
            "ipvs: {excludeCIDRs: [10.0.0.0/8, 192.168.0]}",
            "KubeProxyIPVSConfiguration.ExcludeCidrs[1]: \"192.168.0\": must be a valid CIDR",
        ),
        (
            "ipvs: {scheduler: 'round robin'}",
            "KubeProxyIPVSConfiguration.Scheduler: \"round robin\": \"round robin\" is not a \
             scheduler name: it takes 1 to 15 letters, digits, '-' or '_'",
        ),
        (
            "conntrack: {maxPerCore: -1}",
            &format!("{CONNTRACK}.MaxPerCore: -1: must be greater than or equal to 0"),
        ),
        (
            "conntrack: {min: -1}",
            &format!("{CONNTRACK}.Min: -1: must be greater than or equal to 0"),
        ),
        (
            "conntrack: {tcpEstablishedTimeout: -5s}",
            &format!("{CONNTRACK}.TCPEstablishedTimeout: -5s: must be greater than or equal to 0"),
        ),
        (
            "conntrack: {tcpCloseWaitTimeout: -5s}",
            &format!("{CONNTRACK}.TCPCloseWaitTimeout: -5s: must be greater than or equal to 0"),
        ),
        (
            "conntrack: {udpTimeout: -5s}",
            &format!("{CONNTRACK}.UDPTimeout: -5s: must be greater than or equal to 0"),
        ),
        (
            "conntrack: {udpStreamTimeout: -5s}",
            &format!("{CONNTRACK}.UDPStreamTimeout: -5s: must be greater than or equal to 0"),
        ),
        (
            "detectLocalMode: BridgeInterface",
            "DetectLocalConfiguration.InterfaceName: \"\": must not be empty",
        ),
        (
            "detectLocalMode: InterfaceNamePrefix",
            "DetectLocalConfiguration.InterfacePrefix: \"\": must not be empty",
        ),
        (
            "clusterCIDR: 172.16.200.0:24",
            &format!("DetectLocalConfiguration.ClusterCIDRs[0]: \"172.16.200.0:24\": {NO_CIDR}"),
        ),
        (
            "clusterCIDR: '192.168.59.0/24,foo'",
            &format!("DetectLocalConfiguration.ClusterCIDRs[1]: \"foo\": {NO_CIDR}"),
        ),
        (
            "clusterCIDR: '192.168.59.0/24,10.0.0.0/16'",
            &format!(
                "DetectLocalConfiguration.ClusterCIDRs: []string{{\"192.168.59.0/24\", \
                 \"10.0.0.0/16\"}}: {CIDRS}"
            ),
        ),
        (
            "clusterCIDR: '192.168.59.0/24,fd00:192:168::/64,10.0.0.0/16'",
            &format!(
                "DetectLocalConfiguration.ClusterCIDRs: []string{{\"192.168.59.0/24\", \
                 \"fd00:192:168::/64\", \"10.0.0.0/16\"}}: {CIDRS}"
            ),
        ),
        (
            "featureGates: {NFTablesProxyMode: false}",
            "featureGates: map[string]bool{\"NFTablesProxyMode\":false}: cannot set feature gate \
             NFTablesProxyMode to false, feature is locked to true",
        ),
        (
            "showHiddenMetricsForVersion: '1.30'",
            "ShowHiddenMetricsForVersion: \"1.30\": must be omitted or have the value '1.35': only \
             the previous minor version is allowed",
        ),
        (
            "showHiddenMetricsForVersion: yesterday",
            "ShowHiddenMetricsForVersion: \"yesterday\": must be a version such as '1.35'",
        ),
    ];
    for (body, expected) in rows {
        let (path, rest) = expected.split_once(": ").unwrap();
        let expected = format!("KubeProxyConfiguration.{path}: Invalid value: {rest}");
        assert_eq!(errors(body), [expected], "{body}");
    }
}

#[test]
fn node_port_addresses() {
    const CIDR: &str = "must be a valid CIDR";
    const BOTH: &str = "can't use both 'primary' and CIDRs";
    let row = |i: usize, value: &str, message: &str| {
        format!(
            "KubeProxyConfiguration.NodePortAddresses[{i}]: Invalid value: {value:?}: {message}"
        )
    };
    for entry in ["foo", "1.2.3", "", "0", "10.20.30.40", "::0", "2001:db8:xyz/64"] {
        let body = format!("nodePortAddresses: ['{entry}']");
        assert_eq!(errors(&body), [row(0, entry, CIDR)], "{entry}");
    }
    assert_eq!(
        errors("nodePortAddresses: [127.0.0.1/24, foo, '::1']"),
        [row(1, "foo", CIDR), row(2, "::1", CIDR)]
    );
    assert_eq!(errors("nodePortAddresses: [primary, 127.0.0.1/32]"), [row(0, "primary", BOTH)]);
    assert_eq!(errors("nodePortAddresses: [127.0.0.1/32, primary]"), [row(1, "primary", BOTH)]);
}

#[test]
fn unsupported_values() {
    assert_eq!(
        errors("detectLocalMode: Guess"),
        [
            "KubeProxyConfiguration.DetectLocalMode: Unsupported value: \"Guess\": supported values: \
          \"ClusterCIDR\", \"NodeCIDR\", \"BridgeInterface\", \"InterfaceNamePrefix\", \"\""
        ]
    );
    assert_eq!(
        errors("logging: {format: xml}"),
        ["logging.format: Invalid value: \"xml\": Unsupported log format"]
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    assert_eq!(
        errors("ipvs: {syncPeriod: -5s, minSyncPeriod: 2s}"),
        [
            "KubeProxyConfiguration.SyncPeriod: Invalid value: -5s: must be greater than 0",
            "KubeProxyConfiguration.SyncPeriod: Invalid value: 2s: must be greater than or equal \
             to KubeProxyConfiguration.MinSyncPeriod",
        ]
    );
    let error = load("oomScoreAdj: 2000\nbindAddress: x").unwrap_err().to_string();
    assert_eq!(
        error,
        "failed validate: [KubeProxyConfiguration.KubeProxyLinuxConfiguration.OOMScoreAdj: \
         Invalid value: 2000: must be within the range [-1000, 1000], \
         KubeProxyConfiguration.BindAddress: Invalid value: \"x\": not a valid textual \
         representation of an IP address]"
    );
}
