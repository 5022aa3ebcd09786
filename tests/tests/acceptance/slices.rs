//! Rows G from G20 on: EndpointSlices come, change and go, and what is read from them.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, Protocol};
use proxier::builders::*;
use proxier::cluster::topology::{Place, merge};
use proxier::cluster::{
    Change, Cluster, Conditions, Dirty, EndpointSlice, ObjectKey, Service, ServicePort,
};
use proxier::dataplane::contribution;

/// A slice of a Service, by the slice's name, with these named ports.
fn slice_of(
    name: &str,
    service: &str,
    protocol: Protocol,
    ports: &[(&str, u16)],
    addresses: &[&str],
) -> EndpointSlice {
    let base = slice(service).named(name).endpoints(addresses);
    ports.iter().fold(base, |slice, (port, number)| slice.target(port, protocol, *number))
}

pub(crate) fn udp(
    name: &str,
    service: &str,
    ports: &[(&str, u16)],
    addresses: &[&str],
) -> EndpointSlice {
    slice_of(name, service, Protocol::Udp, ports, addresses)
}

pub(crate) fn apply(
    cluster: &mut Cluster,
    changes: impl IntoIterator<Item = Change>,
) -> BTreeSet<ObjectKey> {
    let mut dirty = Dirty::default();
    for change in changes {
        cluster.apply(change, &mut dirty);
    }
    assert!(!dirty.all);
    dirty.services
}

/// Each Service that the slices name, with a port for each of theirs.
pub(crate) fn services(slices: &[&EndpointSlice]) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for slice in slices {
        let key = slice.service.clone();
        let at = services.iter().position(|service| service.key == key).unwrap_or_else(|| {
            let number = services.len() + 1;
            let service = service("any")
                .with(|service| service.key = key)
                .cluster_ip(&format!("10.96.0.{number}"))
                .health_check(30000 + u16::try_from(number).unwrap());
            services.push(service);
            services.len() - 1
        });
        for port in &slice.ports {
            let ports = &mut services[at].ports;
            if ports.iter().all(|known| known.name != port.name) {
                let number = 80 + u16::try_from(ports.len()).unwrap();
                ports.push(ServicePort {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    port: number,
                    node_port: 0,
                });
            }
        }
    }
    services.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    services
}

/// Rows GL, in their order.
#[test]
fn local_ready_endpoints_are_counted_by_address() {
    let p11 = [("p11", 11)];
    let one = |ports: &[(&str, u16)], addresses: &[&str]| udp("a", "ns1/ep1", ports, addresses);
    let mixed = vec![
        one(&p11, &["1.1.1.1 @node-1", "1.1.1.2 @node-2"]),
        udp("b", "ns2/ep2", &p11, &["2.2.2.1 @node-1", "2.2.2.2 @node-1"]),
        udp("c", "ns3/ep3", &p11, &["3.3.3.1 @node-2"]),
    ];
    let both = [("p11", 11), ("p12", 12)];
    for (id, slices, expected) in [
        ("GL01", vec![one(&p11, &[])], vec![0]),
        ("GL02", vec![one(&p11, &["1.1.1.1 @node-2"])], vec![0]),
        ("GL03", vec![one(&p11, &["1.1.1.1 @node-1"])], vec![1]),
        ("GL04", vec![one(&both, &["1.1.1.1 @node-1"])], vec![1]),
        ("GL05", mixed, vec![1, 2, 0]),
        ("GL06", vec![one(&p11, &["1.1.1.1 @node-1", "1.1.1.2 @node-1 terminating"])], vec![1]),
        ("GL07", vec![one(&p11, &["1.1.1.1 @node-1 terminating"])], vec![0]),
    ] {
        let services = services(&slices.iter().collect::<Vec<_>>());
        let count = |service: &Service| {
            let own = slices.iter().filter(|slice| slice.service == service.key);
            let asked = contribution(service, &own, &settings());
            asked.health.unwrap().local_endpoints[0].1
        };
        assert_eq!(services.iter().map(count).collect::<Vec<_>>(), expected, "{id}");
    }
}

/// Endpoints 10.0.`third`.1 and so on, in turns on `node-1` and `node-2`; every n-th is not ready,
/// every m-th is terminating. 0 is none.
fn generate(
    name: &str,
    third: u8,
    count: usize,
    ports: &[(&str, u16)],
    every: (usize, usize),
) -> EndpointSlice {
    let mut slice = slice_of(name, "ns1/svc1", Protocol::Tcp, ports, &[]);
    let (unready, terminating) = every;
    slice.endpoints = (1..=count)
        .map(|n| {
            let node = 2 - n % 2;
            let mut endpoint = endpoint(&format!("10.0.{third}.{n} @node-{node}"));
            let hit = |every: usize| every > 0 && n % every == 0;
            endpoint.conditions = Conditions {
                ready: !hit(unready) && !hit(terminating),
                serving: !hit(unready),
                terminating: hit(terminating),
            };
            endpoint
        })
        .collect();
    slice
}

const HTTP: &[(&str, u16)] = &[("port-0", 80)];
const BOTH: &[(&str, u16)] = &[("port-0", 80), ("port-1", 443)];

/// The endpoints of one port of `ns1/svc1`: `ADDRESS:PORT`, with `*` if it is here, `-` if it is
/// not ready, `!` if it does not serve, `~` if it is terminating.
fn endpoints_of(cluster: &Cluster, port: &str) -> String {
    let port = ServicePort { name: port.into(), protocol: Protocol::Tcp, port: 80, node_port: 0 };
    let place = Place { node: NODE.into(), zone: None };
    let text = |(key, endpoint): (netlink_ipvs::RealServerKey, &proxier::cluster::Endpoint)| {
        let conditions = endpoint.conditions;
        let mark = |on: bool, mark: &'static str| if on { mark } else { "" };
        let short = key.to_string().replace("10.0.", "");
        format!(
            "{short}{}{}{}{}",
            mark(place.is_local(endpoint), "*"),
            mark(!conditions.ready, "-"),
            mark(!conditions.serving, "!"),
            mark(conditions.terminating, "~")
        )
    };
    let service = key("ns1/svc1");
    let slices = cluster.slices(&service);
    merge(slices, &port, Family::Ipv4).into_iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Rows G20 to G29.
#[test]
fn slices_become_endpoints() {
    let foreign = |service: &str| slice_of("other", service, Protocol::Tcp, BOTH, &["10.0.9.9"]);
    let duplicate = slice_of(
        "a",
        "ns1/svc1",
        Protocol::Tcp,
        HTTP,
        &["10.0.1.1 terminating", "10.0.1.1", "10.0.1.1 gone"],
    );
    for (id, slices, first, second) in [
        (
            "G20",
            vec![generate("a", 1, 3, BOTH, (0, 0))],
            "1.1:80* 1.2:80 1.3:80*",
            "1.1:443* 1.2:443 1.3:443*",
        ),
        (
            "G21",
            vec![generate("a", 1, 3, HTTP, (0, 0)), generate("b", 2, 3, HTTP, (0, 0))],
            "1.1:80* 1.2:80 1.3:80* 2.1:80* 2.2:80 2.3:80*",
            "",
        ),
        (
            "G22",
            vec![generate("a", 1, 3, HTTP, (0, 0)), generate("a", 1, 4, HTTP, (0, 0))],
            "1.1:80* 1.2:80 1.3:80* 1.4:80",
            "",
        ),
        (
            "G23",
            vec![generate("a", 1, 10, HTTP, (3, 0)), generate("a", 1, 10, HTTP, (6, 0))],
            "1.1:80* 1.2:80 1.3:80* 1.4:80 1.5:80* 1.6:80-! 1.7:80* 1.8:80 1.9:80* 1.10:80",
            "",
        ),
        (
            "G24",
            vec![generate("a", 1, 10, HTTP, (3, 5)), generate("a", 1, 10, HTTP, (6, 5))],
            "1.1:80* 1.2:80 1.3:80* 1.4:80 1.5:80*-~ 1.6:80-! 1.7:80* 1.8:80 1.9:80* 1.10:80-~",
            "",
        ),
        ("G25", vec![generate("a", 1, 2, HTTP, (1, 0))], "1.1:80*-! 1.2:80-!", ""),
        (
            "G26",
            vec![generate("a", 1, 1, HTTP, (0, 0)), foreign("ns1/svc2"), foreign("ns2/svc1")],
            "1.1:80*",
            "",
        ),
        (
            "G28",
            vec![
                generate("a", 1, 2, HTTP, (0, 0)),
                generate("b", 1, 2, &[("port-0", 8080)], (0, 0)),
            ],
            "1.1:80* 1.1:8080* 1.2:80 1.2:8080",
            "",
        ),
        ("G29", vec![duplicate], "1.1:80", ""),
    ] {
        let mut cluster = Cluster::new();
        apply(&mut cluster, slices.into_iter().map(Change::Slice));
        assert_eq!(endpoints_of(&cluster, "port-0"), first, "{id}");
        assert_eq!(endpoints_of(&cluster, "port-1"), second, "{id}");
    }
}

/// Rows G40 to G50, GC01 to GC03 and GS: over two slices of which the first has 3 and the second 2
/// endpoints, or none where a row starts with nothing.
#[test]
fn events_of_slices_request_a_step_only_if_they_change_something() {
    let a = |every| generate("a", 1, 3, BOTH, every);
    let b = |every| generate("b", 2, 2, BOTH, every);
    let base = || vec![a((0, 0)), b((0, 0))];
    let unready = || vec![a((1, 0)), b((1, 0))];
    let gone = |name: &str| Change::SliceGone(key(&format!("ns1/{name}")));
    let whole = "1.1:80* 1.2:80 1.3:80* 2.1:80* 2.2:80";
    let rows: Vec<(_, Vec<EndpointSlice>, Vec<Change>, bool, &str)> = vec![
        ("G40", vec![], vec![Change::Slice(a((0, 0)))], true, "1.1:80* 1.2:80 1.3:80*"),
        ("G41", base(), vec![Change::Slice(a((0, 0)))], false, whole),
        // An FQDN slice reaches the index as one that is gone.
        ("G42", base(), vec![gone("fqdn")], false, whole),
        (
            "G43",
            base(),
            vec![Change::Slice(generate("a", 1, 5, BOTH, (0, 0)))],
            true,
            "1.1:80* 1.2:80 1.3:80* 1.4:80 1.5:80* 2.1:80* 2.2:80",
        ),
        (
            "G44",
            base(),
            vec![Change::Slice(generate("c", 1, 5, HTTP, (0, 0)))],
            true,
            "1.1:80* 1.2:80 1.3:80* 1.4:80 1.5:80* 2.1:80* 2.2:80",
        ),
        ("G45", base(), vec![gone("a")], true, "2.1:80* 2.2:80"),
        ("G46", base(), vec![gone("nobody")], false, whole),
        (
            "G47",
            base(),
            unready().into_iter().map(Change::Slice).collect(),
            true,
            "1.1:80*-! 1.2:80-! 1.3:80*-! 2.1:80*-! 2.2:80-!",
        ),
        ("G48", unready(), base().into_iter().map(Change::Slice).collect(), true, whole),
        (
            "G49",
            vec![a((1, 0)), b((2, 0))],
            vec![Change::Slice(a((3, 0))), Change::Slice(b((2, 0)))],
            true,
            "1.1:80* 1.2:80 1.3:80*-! 2.1:80* 2.2:80-!",
        ),
        (
            "G50",
            vec![a((3, 0)), b((0, 0))],
            vec![Change::Slice(a((3, 2))), Change::Slice(b((0, 2)))],
            true,
            "1.1:80* 1.2:80-~ 1.3:80*-! 2.1:80* 2.2:80-~",
        ),
        ("GC01 GS01", base(), vec![], false, whole),
        ("GC02 GS02", vec![], vec![Change::Slice(a((2, 3)))], true, "1.1:80* 1.2:80-! 1.3:80*-~"),
        (
            "GC03",
            vec![a((0, 0))],
            vec![Change::Slice(generate("a", 1, 3, HTTP, (0, 0)))],
            true,
            "1.1:80* 1.2:80 1.3:80*",
        ),
    ];
    for (id, before, events, requested, expected) in rows {
        let mut cluster = Cluster::new();
        apply(&mut cluster, before.into_iter().map(Change::Slice));
        let changed = apply(&mut cluster, events);
        let affected: BTreeSet<_> = requested.then(|| key("ns1/svc1")).into_iter().collect();
        assert_eq!(changed, affected, "{id}");
        assert_eq!(endpoints_of(&cluster, "port-0"), expected, "{id}");
        let second = match id {
            "GC03" => String::new(),
            // The third slice has the first port only.
            "G44" => whole.replace(":80", ":443"),
            _ => expected.replace(":80", ":443"),
        };
        assert_eq!(endpoints_of(&cluster, "port-1"), second, "{id}");
    }
}

/// Rows GD, in their order.
#[test]
fn a_slice_changes_with_its_ports_and_endpoints() {
    let base = || slice_of("a", "ns1/svc1", Protocol::Tcp, BOTH, &["10.0.0.1", "10.0.0.2"]);
    let ports = |change: fn(&mut Vec<proxier::cluster::SlicePort>)| {
        base().with(|slice| {
            let mut ports = slice.ports.to_vec();
            change(&mut ports);
            slice.ports = ports.into();
        })
    };
    let endpoints = |change: fn(&mut Vec<proxier::cluster::Endpoint>)| {
        base().with(|slice| {
            let mut endpoints = slice.endpoints.to_vec();
            change(&mut endpoints);
            slice.endpoints = endpoints.into();
        })
    };
    for (id, changed, expected) in [
        ("GD01", ports(|_| {}), false),
        ("GD02", ports(|ports| ports.reverse()), true),
        ("GD03", ports(|ports| ports.truncate(1)), true),
        ("GD04", base().target("port-2", Protocol::Tcp, 8443), true),
        ("GD05", endpoints(|_| {}), false),
        ("GD06", endpoints(|endpoints| endpoints.reverse()), true),
        ("GD07", endpoints(|endpoints| endpoints.push(endpoint("10.0.0.3"))), true),
    ] {
        let mut cluster = Cluster::new();
        apply(&mut cluster, [Change::Slice(base())]);
        let dirty = apply(&mut cluster, [Change::Slice(changed)]);
        assert_eq!(!dirty.is_empty(), expected, "{id}");
    }
}

/// Rows GH, in their order.
#[test]
fn nothing_is_left_of_slices_that_are_gone() {
    let a = || generate("a", 1, 3, BOTH, (0, 0));
    let b = || generate("b", 2, 2, BOTH, (0, 0));
    let other = |name: &str| slice_of("c", name, Protocol::Tcp, HTTP, &["10.0.9.9"]);
    for (id, slices) in [
        ("GH01", vec![a()]),
        ("GH02", vec![a(), other("ns1/svc2")]),
        ("GH03", vec![a(), b()]),
        ("GH04", vec![a(), other("ns2/svc1")]),
    ] {
        let mut cluster = Cluster::new();
        let keys: Vec<ObjectKey> = slices.iter().map(|slice| slice.key.clone()).collect();
        apply(&mut cluster, slices.into_iter().map(Change::Slice));
        assert_eq!(cluster.slice_count(), keys.len());
        apply(&mut cluster, keys.into_iter().map(Change::SliceGone));
        assert_eq!(format!("{cluster:?}"), format!("{:?}", Cluster::new()), "{id}");
    }
    let mut cluster = Cluster::new();
    apply(&mut cluster, [Change::Slice(a()), Change::Slice(b()), Change::SliceGone(a().key)]);
    assert_eq!(endpoints_of(&cluster, "port-0"), "2.1:80* 2.2:80", "GH05");
}
