//! The rows of the behaviour table for endpoint categories, and the merging of slices.

use super::*;
use crate::cluster::{Conditions, Hints, Location, ObjectKey, SlicePort};
use netlink_ipvs::Protocol;

fn endpoint(spec: &str) -> (String, Endpoint) {
    // "3 za ready node=node-1 hints": address 10.1.2.3, flags in any order
    let mut words = spec.split_whitespace();
    let last = words.next().unwrap();
    let mut endpoint = Endpoint {
        address: format!("10.1.2.{last}").parse().unwrap(),
        conditions: Conditions::default(),
        location: Arc::default(),
    };
    for word in words {
        let location = Arc::make_mut(&mut endpoint.location);
        match word.split_at(1) {
            ("z", zones) => {
                location.hints.zones =
                    zones.split(',').map(|z| format!("zone-{z}").into()).collect();
            }
            ("n", node) => {
                location.hints.nodes = vec![format!("node-{node}").into()];
            }
            ("@", node) => location.node = Some(node.into()),
            _ => {
                endpoint.conditions = match word {
                    "unready" => Conditions { ready: false, serving: false, terminating: false },
                    "terminating" => Conditions { ready: false, serving: true, terminating: true },
                    "gone" => Conditions { ready: false, serving: false, terminating: true },
                    other => panic!("{other}"),
                }
            }
        }
    }
    (last.to_owned(), endpoint)
}

struct Row {
    id: &'static str,
    cluster: bool,
    local: bool,
    node: &'static str,
    zone: &'static str,
    endpoints: &'static [&'static str],
    expect_cluster: &'static str,
    expect_local: &'static str,
    any: bool,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { id: "H01", cluster: true, local: false, node: "own", zone: "zone-a", endpoints: &["3 za", "4 zb", "5 zc", "6 za"], expect_cluster: "3 6", expect_local: "-", any: true },
    Row { id: "H02", cluster: true, local: true, node: "own", zone: "zone-a", endpoints: &["3 za @own", "4 zb @own", "5 zc", "6 za"], expect_cluster: "3 6", expect_local: "3 4", any: true },
    Row { id: "H04", cluster: true, local: false, node: "own", zone: "", endpoints: &["3 za"], expect_cluster: "3", expect_local: "-", any: true },
    Row { id: "H06", cluster: true, local: false, node: "own", zone: "zone-b", endpoints: &["3 za"], expect_cluster: "3", expect_local: "-", any: true },
    Row { id: "H07", cluster: true, local: false, node: "own", zone: "zone-a", endpoints: &["3 za", "4 zb", "5 zc", "6 za unready"], expect_cluster: "3", expect_local: "-", any: true },
    Row { id: "H08", cluster: true, local: false, node: "own", zone: "zone-a", endpoints: &["3 za unready", "4 zb", "5 zc", "6 za unready"], expect_cluster: "4 5", expect_local: "-", any: true },
    Row { id: "H09", cluster: true, local: false, node: "own", zone: "zone-a", endpoints: &["3 za", "4 zb", "5", "6 za"], expect_cluster: "3 4 5 6", expect_local: "-", any: true },
    Row { id: "H10", cluster: true, local: false, node: "own", zone: "zone-c", endpoints: &["3 za,b,c", "4 zb,c", "5 zb,d", "6 zc"], expect_cluster: "3 4 6", expect_local: "-", any: true },
    Row { id: "H12", cluster: true, local: false, node: "node-1", zone: "zone-a", endpoints: &["3 n1 za", "4 n2 zb", "5 n3 zc", "6 n4 za"], expect_cluster: "3", expect_local: "-", any: true },
    Row { id: "H13", cluster: true, local: false, node: "node-1", zone: "zone-a", endpoints: &["3 n1 za", "4", "5 n3 zc", "6 n4 za"], expect_cluster: "3 4 5 6", expect_local: "-", any: true },
    Row { id: "H14", cluster: true, local: false, node: "node-0", zone: "zone-a", endpoints: &["3 n1 za", "4 n2 zb", "5 n3 zc", "6 n4 za"], expect_cluster: "3 6", expect_local: "-", any: true },
    Row { id: "H15", cluster: true, local: true, node: "own", zone: "zone-a", endpoints: &["0 za @own", "1 zb @own", "2 za", "3 zb"], expect_cluster: "0 2", expect_local: "0 1", any: true },
    Row { id: "H16", cluster: false, local: true, node: "own", zone: "", endpoints: &[], expect_cluster: "-", expect_local: "", any: false },
    Row { id: "H17", cluster: false, local: true, node: "own", zone: "", endpoints: &["0 @other", "1 @other"], expect_cluster: "-", expect_local: "", any: true },
    Row { id: "H18", cluster: false, local: true, node: "own", zone: "", endpoints: &["0 @own", "1 @own"], expect_cluster: "-", expect_local: "0 1", any: true },
    Row { id: "H19", cluster: false, local: true, node: "own", zone: "", endpoints: &["0 @own", "1 @other"], expect_cluster: "-", expect_local: "0", any: true },
    Row { id: "H20", cluster: true, local: false, node: "own", zone: "", endpoints: &["0 unready", "1 unready"], expect_cluster: "", expect_local: "-", any: false },
    Row { id: "H21", cluster: true, local: false, node: "own", zone: "", endpoints: &["0", "1 unready"], expect_cluster: "0", expect_local: "-", any: true },
    Row { id: "H22", cluster: true, local: false, node: "own", zone: "", endpoints: &["0 terminating", "1 terminating"], expect_cluster: "0 1", expect_local: "-", any: true },
    Row { id: "H25", cluster: true, local: true, node: "own", zone: "", endpoints: &["0 @own", "1 @other"], expect_cluster: "0 1", expect_local: "0", any: true },
    Row { id: "H26", cluster: true, local: true, node: "own", zone: "", endpoints: &["0 @other", "1 @other"], expect_cluster: "0 1", expect_local: "", any: true },
    Row { id: "H27", cluster: true, local: true, node: "own", zone: "", endpoints: &["0 @other terminating", "1 @other terminating"], expect_cluster: "0 1", expect_local: "", any: true },
    Row { id: "H28", cluster: true, local: true, node: "own", zone: "", endpoints: &["0 @other", "1 @own unready", "2 @own terminating", "3 @other terminating"], expect_cluster: "0", expect_local: "2", any: true },
    Row { id: "H31", cluster: true, local: false, node: "own", zone: "", endpoints: &[], expect_cluster: "", expect_local: "-", any: false },
    Row { id: "H32", cluster: true, local: false, node: "own", zone: "zone-a", endpoints: &["0 unready"], expect_cluster: "", expect_local: "-", any: false },
    Row { id: "gone endpoints are no fallback", cluster: true, local: false, node: "own", zone: "", endpoints: &["0 gone", "1 terminating"], expect_cluster: "1", expect_local: "-", any: true },
    Row { id: "no node name, nothing local", cluster: false, local: true, node: "", zone: "", endpoints: &["0 @"], expect_cluster: "-", expect_local: "", any: true },
];

#[test]
fn selects_by_policy_hints_and_conditions() {
    for row in ROWS {
        let endpoints: Vec<Endpoint> = row.endpoints.iter().map(|spec| endpoint(spec).1).collect();
        let by_key: Endpoints<'_> =
            endpoints.iter().map(|e| (RealServerKey::new(e.address, 80), e)).collect();
        let place =
            Place { node: row.node.into(), zone: (!row.zone.is_empty()).then(|| row.zone.into()) };
        let needs = Needs { cluster: row.cluster, local: row.local };
        let selection = select(&by_key, needs, &place);
        let text = |list: &Option<Vec<RealServerKey>>| match list {
            None => "-".to_owned(),
            Some(keys) => {
                let last = |key: &RealServerKey| key.address.to_string()[7..].to_owned();
                keys.iter().map(last).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(text(&selection.cluster), row.expect_cluster, "{}: cluster", row.id);
        assert_eq!(text(&selection.local), row.expect_local, "{}: local", row.id);
        assert_eq!(selection.any, row.any, "{}: any", row.id);
    }
}

fn slice(name: &str, ports: &[(&str, u16)], endpoints: &[&str]) -> EndpointSlice {
    EndpointSlice {
        key: ObjectKey::new("ns", name),
        service: ObjectKey::new("ns", "web"),
        family: Family::Ipv4,
        ports: ports
            .iter()
            .map(|(name, port)| SlicePort {
                name: (*name).into(),
                protocol: Protocol::Tcp,
                port: *port,
            })
            .collect(),
        endpoints: endpoints.iter().map(|spec| endpoint(spec).1).collect(),
        pods: crate::cluster::Pods::default(),
        triggered: None,
    }
}

fn http() -> ServicePort {
    ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }
}

fn keys(endpoints: &Endpoints<'_>) -> Vec<String> {
    endpoints.keys().map(ToString::to_string).collect()
}

#[test]
fn slices_of_one_service_are_merged_by_port_name_and_protocol() {
    let slices = [
        slice("a", &[("http", 8080), ("other", 9)], &["1", "2"]),
        slice("b", &[("http", 9090)], &["2", "3"]),
        slice("c", &[("Http", 1)], &["4"]),
    ];
    let expected = ["10.1.2.1:8080", "10.1.2.2:8080", "10.1.2.2:9090", "10.1.2.3:9090"];
    assert_eq!(keys(&merge(&slices, &http(), Family::Ipv4)), expected);
    assert!(merge(&slices, &http(), Family::Ipv6).is_empty());
    let udp = ServicePort { protocol: Protocol::Udp, ..http() };
    assert!(merge(&slices, &udp, Family::Ipv4).is_empty());
}

#[test]
fn of_duplicates_one_that_is_not_terminating_wins_in_any_order() {
    let specs = ["1 terminating", "1", "1 gone"];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let slices: Vec<_> = order
            .iter()
            .enumerate()
            .map(|(i, spec)| slice(&i.to_string(), &[("http", 80)], &[specs[*spec]]))
            .collect();
        let merged = merge(&slices, &http(), Family::Ipv4);
        assert_eq!(merged.len(), 1);
        assert!(merged.values().all(|e| e.conditions.ready), "{order:?}");
    }
}

#[test]
fn hints_do_not_travel_between_endpoints() {
    let hints = Hints { zones: vec!["zone-a".into()], nodes: vec![] };
    let place = Place { node: "n".into(), zone: Some("zone-a".into()) };
    let hinted = Endpoint {
        location: Arc::new(Location { hints, ..Location::default() }),
        ..endpoint("1").1
    };
    assert!(place.is_hinted_zone(&hinted));
    assert!(!place.is_hinted_node(&hinted));
    assert!(!place.is_hinted_zone(&endpoint("1").1));
}
