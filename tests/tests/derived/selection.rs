//! Which endpoints are used: combinations of policies, conditions and hints that were not recorded.

use super::*;

const PORT: [(&str, &str, u16); 1] = [("", "TCP", 80)];
const TARGET: [(&str, &str, u16); 1] = [("", "TCP", 8080)];

/// The real servers of the cluster IP and of the external IP, without their port, for a Service with these
/// policies in front of these endpoints.
#[track_caller]
fn used(policies: &Value, endpoints: &[&str], internal: &str, external: &str) {
    let mut more = policies.clone();
    more["externalIPs"] = json!(["203.0.113.9"]);
    let web = service("web", &["10.96.0.1"], &PORT, more);
    let dump = state(USUAL, &[web, slice("web", "4", &TARGET, endpoints)]);
    let of = |address: &str| {
        let servers = &dump.ipvs[&format!("-A -t {address}:80 -s rr")];
        let address = |line: &String| {
            line.rsplit_once(" -r ").unwrap().1.strip_suffix(":8080 -m -w 1").unwrap().to_owned()
        };
        servers.iter().map(address).collect::<Vec<_>>().join(" ")
    };
    let found = (of("10.96.0.1"), of("203.0.113.9"));
    assert_eq!(found, (internal.to_owned(), external.to_owned()), "{policies} {endpoints:?}");
}

fn internal_local() -> Value {
    json!({ "internalTrafficPolicy": "Local" })
}

fn external_local() -> Value {
    json!({ "externalTrafficPolicy": "Local" })
}

#[test]
fn terminating_endpoints_serve_where_nothing_else_does() {
    let (cluster, local) = (json!({}), internal_local());
    for (policies, endpoints, internal, external) in [
        // Here and elsewhere, only terminating.
        (
            &cluster,
            &["10.244.0.5 node-a terminating", "10.244.1.7 node-b terminating"][..],
            "10.244.0.5 10.244.1.7",
            "10.244.0.5 10.244.1.7",
        ),
        // Local: the terminating one here, though another is ready elsewhere.
        (
            &local,
            &["10.244.0.5 node-a terminating", "10.244.1.7 node-b"],
            "10.244.0.5",
            "10.244.1.7",
        ),
        (
            &local,
            &["10.244.0.5 node-a terminating", "10.244.0.6 node-a"],
            "10.244.0.6",
            "10.244.0.6",
        ),
        (&local, &["10.244.0.5 node-a gone", "10.244.1.7 node-b"], "", "10.244.1.7"),
        (&cluster, &["10.244.0.5 node-a unready", "10.244.1.7 node-b gone"], "", ""),
        (
            &cluster,
            &["10.244.0.5 node-a unready", "10.244.1.7 node-b terminating"],
            "10.244.1.7",
            "10.244.1.7",
        ),
        // Of both policies each decides for its own frontends.
        (
            &external_local(),
            &["10.244.0.5 node-a terminating", "10.244.1.7 node-b"],
            "10.244.1.7",
            "10.244.0.5",
        ),
        // Without any here the external frontends use them all.
        (
            &external_local(),
            &["10.244.1.7 node-b", "10.244.2.7 node-c"],
            "10.244.1.7 10.244.2.7",
            "10.244.1.7 10.244.2.7",
        ),
        (
            &external_local(),
            &["10.244.0.5 node-a unready", "10.244.1.7 node-b"],
            "10.244.1.7",
            "10.244.1.7",
        ),
    ] {
        used(policies, endpoints, internal, external);
    }
}

#[test]
fn hints_are_for_the_cluster_s_endpoints_only() {
    let cluster = json!({});
    let zones = [
        "10.244.0.5 node-a zone=zone-2",
        "10.244.1.7 node-b zone=zone-1",
        "10.244.2.7 node-c zone=zone-2",
    ];
    let nodes = [
        "10.244.0.5 node-a hint=node-a zone=zone-1",
        "10.244.0.6 node-a hint=node-b zone=zone-1",
        "10.244.1.7 node-b hint=node-b zone=zone-2",
    ];
    for (policies, endpoints, internal, external) in [
        (&cluster, &zones[..], "10.244.1.7", "10.244.1.7"),
        // What is local needs no hint.
        (&external_local(), &zones, "10.244.1.7", "10.244.0.5"),
        (&internal_local(), &zones, "10.244.0.5", "10.244.1.7"),
        // PreferSameNode wins over the zone.
        (&cluster, &nodes, "10.244.0.5", "10.244.0.5"),
        // None for this node: by zone.
        (&cluster, &nodes[1..], "10.244.0.6", "10.244.0.6"),
        // One without a hint: all.
        (
            &cluster,
            &[zones[1], "10.244.2.7 node-c"],
            "10.244.1.7 10.244.2.7",
            "10.244.1.7 10.244.2.7",
        ),
        // Hints of endpoints that are not ready do not count.
        (
            &cluster,
            &[zones[0], "10.244.1.7 node-b zone=zone-1 unready"],
            "10.244.0.5",
            "10.244.0.5",
        ),
        // Terminating ones are taken whatever their zone.
        (&cluster, &["10.244.2.7 node-c zone=zone-2 terminating"], "10.244.2.7", "10.244.2.7"),
        // How the hints came about is the control plane's matter.
        (
            &json!({ "trafficDistribution": "PreferSameZone" }),
            &["10.244.1.7 node-b", "10.244.2.7 node-c"],
            "10.244.1.7 10.244.2.7",
            "10.244.1.7 10.244.2.7",
        ),
        (
            &json!({ "trafficDistribution": "PreferClose", "publishNotReadyAddresses": true }),
            &[zones[1], "10.244.0.9 node-a unready"],
            "10.244.1.7",
            "10.244.1.7",
        ),
    ] {
        used(policies, endpoints, internal, external);
    }
}

#[test]
fn a_node_without_a_zone_takes_no_zone_hints() {
    let web = service("web", &["10.96.0.1"], &PORT, json!({}));
    let endpoints = ["10.244.1.7 node-b zone=zone-1", "10.244.2.7 node-c zone=zone-2"];
    let objects = [web, slice("web", "4", &TARGET, &endpoints)];
    for labels in
        [json!({}), json!({ "topology.kubernetes.io/zone": "" }), json!({ "zone": "zone-1" })]
    {
        let dump = on(&node("node-a", labels), &["192.168.50.10"], USUAL, &objects);
        let servers = &dump.ipvs["-A -t 10.96.0.1:80 -s rr"];
        assert_eq!(servers.len(), 2, "{servers:?}");
    }
}

/// Port names and protocols must both be the Service's; numbers may differ from slice to slice.
#[test]
fn slices_are_joined_by_port_name_and_protocol() {
    let web = service("web", &["10.96.0.1"], &[("a", "TCP", 80), ("b", "TCP", 81)], json!({}));
    let mut no_number = slice("web", "5", &[("a", "TCP", 1)], &["10.244.5.1 node-b"]);
    no_number["ports"] =
        json!([{ "name": "a", "protocol": "TCP" }, { "protocol": "TCP", "port": 5 }]);
    let objects = [
        web,
        slice("web", "1", &[("a", "TCP", 8080), ("b", "TCP", 8081)], &["10.244.1.1 node-b"]),
        slice("web", "2", &[("a", "TCP", 9090)], &["10.244.1.1 node-b", "10.244.2.1 node-c"]),
        slice("web", "3", &[("a", "UDP", 7), ("c", "TCP", 7)], &["10.244.3.1 node-c"]),
        slice("other", "4", &[("a", "TCP", 8080)], &["10.244.4.1 node-c"]),
        no_number,
    ];
    expect(
        &state(USUAL, &objects),
        &[
            "-t 10.96.0.1:80 -s rr | 10.244.1.1:8080 10.244.1.1:9090 10.244.2.1:9090",
            "-t 10.96.0.1:81 -s rr | 10.244.1.1:8081",
            "bound 10.96.0.1",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80 10.96.0.1,tcp:81",
        ],
    );
}
