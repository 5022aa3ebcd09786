//! Rows H whose point is how the lists of endpoints follow from a Service's policies.

use netlink_ipvs::Family;
use proxier::builders::*;
use proxier::cluster::Service;
use proxier::cluster::topology::Place;
use proxier::dataplane::{FrontendKind, Settings, contribution};

struct Row {
    id: &'static str,
    service: Service,
    endpoints: &'static [&'static str],
    /// Last numbers of the real servers of the cluster IP.
    internal: &'static str,
    /// Of the node port; `-` if there is none.
    external: &'static str,
}

const HINTED: &[&str] = &[
    "10.1.2.3 @node-1 zone=zone-a",
    "10.1.2.4 @node-1 zone=zone-b",
    "10.1.2.5 zone=zone-c",
    "10.1.2.6 zone=zone-a",
];
const ONE_EACH: &[&str] = &["10.1.2.0 @node-1", "10.1.2.1 @node-2"];
const REMOTE: &[&str] = &["10.1.2.0 @node-2", "10.1.2.1 @node-3"];
const REMOTE_THEN_LOCAL: &[&str] = &["10.1.2.0 @node-2", "10.1.2.1 @node-1"];

fn rows() -> Vec<Row> {
    let closed = || service("svc").cluster_ip("10.96.0.1").port(80);
    let open = || closed().node_port(8080);
    let row = |id, service, endpoints, internal, external| Row {
        id,
        service,
        endpoints,
        internal,
        external,
    };
    vec![
        row("H02", open().external_local(), HINTED, "3 6", "3 4"),
        row("H03", open().internal_local(), HINTED, "3 4", "3 6"),
        row("H23", open().internal_local(), ONE_EACH, "0", "0 1"),
        row("H24", open().external_local(), ONE_EACH, "0 1", "0"),
        row("H25", open().internal_local().external_local(), ONE_EACH, "0", "0"),
        // An external frontend without a local endpoint has those of the cluster, an internal one
        // has none.
        row("H26", open().internal_local().external_local(), REMOTE, "", "0 1"),
        row("H29", closed().external_local(), REMOTE_THEN_LOCAL, "0 1", "-"),
        row("H30", closed().internal_local(), REMOTE_THEN_LOCAL, "1", "-"),
    ]
}

fn real_servers(row: &Row, settings: &Settings, kind: FrontendKind) -> String {
    let slices = [endpoints("svc", 80, row.endpoints)];
    let asked = contribution(&row.service, &slices.iter(), settings);
    let mut frontends = asked.frontends.iter().filter(|frontend| frontend.kind == kind);
    frontends.next().map_or("-".to_owned(), |frontend| {
        let real = frontend.server.real_servers.iter().map(|real| real.key.address.to_string());
        let last = |address: String| address.rsplit('.').next().unwrap_or_default().to_owned();
        real.map(last).collect::<Vec<_>>().join(" ")
    })
}

#[test]
fn lists_follow_the_policies() {
    let settings = Settings { families: vec![Family::Ipv4], ..settings() };
    for row in rows() {
        let of = |kind| real_servers(&row, &settings, kind);
        assert_eq!(of(FrontendKind::ClusterIp), row.internal, "{}: cluster IP", row.id);
        assert_eq!(of(FrontendKind::NodePort), row.external, "{}: node port", row.id);
    }
}

#[test]
fn h05_an_empty_zone_is_no_zone() {
    let row = Row {
        id: "H05",
        service: service("svc").cluster_ip("10.96.0.1").port(80),
        endpoints: &["10.1.2.3 zone=zone-a", "10.1.2.4 zone="],
        internal: "",
        external: "",
    };
    let settings =
        Settings { place: Place { node: NODE.into(), zone: Some("".into()) }, ..settings() };
    assert_eq!(real_servers(&row, &settings, FrontendKind::ClusterIp), "3 4");
}
