//! Acceptance row L46: what a changed file means for a program that runs.

use super::*;

#[test]
fn fields_that_differ_are_named_by_their_paths() {
    let before = load("mode: ipvs").unwrap();
    assert_eq!(before.differences(&before.clone()), [""; 0]);
    let after = load(
        "mode: ipvs\nipvs: {scheduler: wrr, syncPeriod: 30s, excludeCIDRs: [10.0.0.0/8]}\n\
         featureGates: {AllowServiceExternalIPs: false}\nconntrack: {min: 7}",
    )
    .unwrap();
    let mut paths = [
        "conntrack.min",
        "featureGates.AllowServiceExternalIPs",
        "ipvs.excludeCIDRs",
        "ipvs.scheduler",
    ];
    paths.sort_unstable();
    for (from, to) in [(&before, &after), (&after, &before)] {
        let mut found = from.differences(to);
        found.sort_unstable();
        assert_eq!(found, paths);
    }
}

#[test]
fn only_what_is_settled_at_the_start_needs_one() {
    let before = load("mode: ipvs").unwrap();
    for (body, restart) in [
        ("clientConnection: {kubeconfig: /other}", true),
        ("clientConnection: {qps: 50}", true),
        ("healthzBindAddress: 0.0.0.0:1234", true),
        ("metricsBindAddress: 0.0.0.0:1235", true),
        ("hostnameOverride: another", true),
        ("logging: {format: json}", true),
        ("logging: {verbosity: 4}", false),
        ("bindAddressHardFail: true", false),
        ("bindAddress: 10.0.0.1", false),
        ("clusterCIDR: 10.0.0.0/8", false),
        ("conntrack: {min: 7, tcpBeLiberal: true}", false),
        ("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}", false),
        ("featureGates: {AllowServiceExternalIPs: false, ComponentStatusz: false}", false),
        ("iptables: {masqueradeAll: true, masqueradeBit: 3}", false),
        (
            "ipvs: {scheduler: wrr, strictARP: true, syncPeriod: 1m, minSyncPeriod: 2s, \
             tcpTimeout: 1h, excludeCIDRs: [10.0.0.0/8]}",
            false,
        ),
        ("nodePortAddresses: [primary]", false),
        ("oomScoreAdj: -5", false),
    ] {
        let after = load(&format!("mode: ipvs\n{body}")).unwrap();
        assert_ne!(before, after, "{body}");
        assert_eq!(before.needs_restart(&after), restart, "{body}");
    }
}
