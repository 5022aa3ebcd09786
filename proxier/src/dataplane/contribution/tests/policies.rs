//! Traffic policies and terminating endpoints.

use super::*;

/// Real servers of the cluster IP and of the external IP, members of the loop-back set, each by
/// the last part of the address.
struct Policy {
    id: &'static str,
    service: Service,
    endpoints: &'static [&'static str],
    cluster: &'static str,
    external: &'static str,
    loop_back: &'static str,
}

fn base() -> Service {
    service("svc1").cluster_ip("172.20.1.1").port(80)
}

fn open() -> Service {
    base().external_ip("1.2.3.4")
}

const THREE_NODES: &[&str] =
    &["10.0.1.1 @node-1", "10.0.1.2 @node-2", "10.0.1.3 @node-3", "10.0.1.4 @node-3 unready"];
const REMOTE: &[&str] = &["10.0.1.1 @node-2", "10.0.1.2 @node-2", "10.0.1.3 @node-3"];
const READY_AND_TERMINATING: &[&str] = &[
    "10.0.1.1 @node-1",
    "10.0.1.2 @node-1",
    "10.0.1.3 @node-1 terminating",
    "10.0.1.4 @node-1 gone",
    "10.0.1.5 @node-2",
];
const ONLY_TERMINATING: &[&str] = &[
    "10.0.1.1 @node-1 terminating",
    "10.0.1.2 @node-1 terminating",
    "10.0.1.3 @node-1 gone",
    "10.0.1.4 @node-2 terminating",
    "10.0.1.5 @node-2 unready",
];
const LOCAL_TERMINATING: &[&str] = &[
    "10.0.1.1 @node-1 terminating",
    "10.0.1.2 @node-1 terminating",
    "10.0.1.3 @node-1 gone",
    "10.0.1.4 @node-2 terminating",
    "10.0.1.5 @node-2",
];

#[rustfmt::skip]
fn rows() -> Vec<Policy> {
    vec![
        Policy { id: "E01 E02", service: base(), endpoints: THREE_NODES, cluster: "1 2 3", external: "-", loop_back: "1" },
        Policy { id: "E03", service: base(), endpoints: REMOTE, cluster: "1 2 3", external: "-", loop_back: "" },
        Policy { id: "E04", service: base().internal_local(), endpoints: THREE_NODES, cluster: "1", external: "-", loop_back: "1" },
        Policy { id: "E05", service: base().internal_local(), endpoints: REMOTE, cluster: "", external: "-", loop_back: "" },
        Policy { id: "E06", service: open(), endpoints: READY_AND_TERMINATING, cluster: "1 2 5", external: "1 2 5", loop_back: "1 2 3 4" },
        Policy { id: "E07", service: open().external_local(), endpoints: READY_AND_TERMINATING, cluster: "1 2 5", external: "1 2", loop_back: "1 2 3 4" },
        Policy { id: "E08", service: open(), endpoints: ONLY_TERMINATING, cluster: "1 2 4", external: "1 2 4", loop_back: "1 2 3" },
        Policy { id: "E09", service: open().external_local(), endpoints: LOCAL_TERMINATING, cluster: "5", external: "1 2", loop_back: "1 2 3" },
        Policy { id: "external Local without a local endpoint", service: open().external_local(), endpoints: REMOTE, cluster: "1 2 3", external: "1 2 3", loop_back: "" },
        // Decided for quirk 9: Local means local, even where an external frontend has the others.
        Policy { id: "internal Local is never left", service: open().internal_local(), endpoints: REMOTE, cluster: "", external: "1 2 3", loop_back: "" },
        Policy { id: "both Local", service: open().internal_local().external_local(), endpoints: THREE_NODES, cluster: "1", external: "1", loop_back: "1" },
        Policy { id: "hints do not matter to Local", service: open().external_local(), endpoints: &["10.0.1.1 @node-1 zone=zone-b", "10.0.1.2 @node-2 zone=zone-a"], cluster: "2", external: "1", loop_back: "1" },
        Policy { id: "no endpoints", service: open(), endpoints: &[], cluster: "", external: "", loop_back: "" },
    ]
}

#[test]
fn frontends_follow_their_policy() {
    for row in rows() {
        let slices = [endpoints("svc1", 80, row.endpoints)];
        let asked = ask(&row.service, &slices, &node(V4, &[]));
        let last = |address: IpAddr| address.to_string().split('.').next_back().unwrap().to_owned();
        let real = |kind: FrontendKind| {
            let frontend = asked.frontends.iter().find(|frontend| frontend.kind == kind);
            frontend.map_or("-".to_owned(), |frontend| {
                let real = frontend.server.real_servers.iter();
                real.map(|server| last(server.key.address)).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(real(FrontendKind::ClusterIp), row.cluster, "{}: cluster IP", row.id);
        assert_eq!(real(FrontendKind::ExternalIp), row.external, "{}: external IP", row.id);
        let loop_back: Vec<String> = row
            .loop_back
            .split_whitespace()
            .map(|n| format!("10.0.1.{n},tcp:80,10.0.1.{n}"))
            .collect();
        let members = members(&asked).remove("KUBE-LOOP-BACK").unwrap_or_default();
        assert_eq!(members, loop_back, "{}: loop-back", row.id);

        let asked = ask(&row.service, &[], &node(V4, &[]));
        assert!(!members_of_loop_back(&asked), "{}: after the slice is gone", row.id);
        assert!(asked.frontends.iter().all(|frontend| frontend.server.real_servers.is_empty()));
    }
}

fn members_of_loop_back(asked: &Contribution) -> bool {
    members(asked).contains_key("KUBE-LOOP-BACK")
}

#[test]
fn services_without_a_local_endpoint_are_told_by_policy() {
    let local: &[&str] = &["10.0.1.1 @node-1", "10.0.1.2 @node-2"];
    let remote: &[&str] = &["10.0.1.2 @node-2"];
    let node_port = || base().node_port(30000);
    for (id, service, endpoints_of, internal, external) in [
        ("E10", node_port().internal_local(), local, false, false),
        ("E11", node_port().external_local(), local, false, false),
        ("E12", node_port().internal_local().external_local(), local, false, false),
        ("E13", node_port().internal_local(), remote, true, false),
        ("E14", node_port().external_local(), remote, false, true),
        ("E15", node_port().internal_local().external_local(), remote, true, true),
        ("E16", node_port().internal_local().external_local(), &[][..], false, false),
        // A policy for frontends that the service does not have.
        ("not reachable from outside", base().external_local(), remote, false, false),
        (
            "unready ones are no endpoints",
            node_port().internal_local(),
            &["10.0.1.2 unready"][..],
            false,
            false,
        ),
    ] {
        let slices = [endpoints("svc1", 80, endpoints_of)];
        let asked = ask(&service, &slices, &node(V4, &["10.0.0.1"]));
        let found = asked.no_local.as_deref().cloned().unwrap_or_default();
        let found = (!found.internal.is_empty(), !found.external.is_empty());
        assert_eq!(found, (internal, external), "{id}");
    }
}

#[test]
fn h29_external_local_without_an_external_frontend_uses_the_cluster() {
    let slices = [endpoints("svc1", 80, &["10.0.1.1 @node-2", "10.0.1.2 @node-1"])];
    let asked = ask(&base().external_local(), &slices, &node(V4, &[]));
    assert_eq!(servers(&asked), ["172.20.1.1:80/tcp bound -> 10.0.1.1:80 10.0.1.2:80"]);
}

#[test]
fn an_external_ip_of_the_other_family_does_not_open_this_one() {
    // KEP-2086: an internal-only service does not leave the node; in IPv6 this one is internal.
    let service = base().cluster_ip("fd00::1").external_ip("1.2.3.4").internal_local();
    let slices = [
        endpoints("svc1", 80, &["10.0.1.1 @node-2"]),
        endpoints("svc1", 80, &["fd01::1 @node-2"]).named("svc1-6"),
    ];
    let asked = ask(&service, &slices, &settings());
    assert_eq!(
        servers(&asked),
        [
            "172.20.1.1:80/tcp bound ->",
            "1.2.3.4:80/tcp bound -> 10.0.1.1:80",
            "[fd00::1]:80/tcp bound ->",
        ]
    );
}

#[test]
fn c17_the_health_check_counts_local_ready_addresses() {
    let service = |port: u16| {
        base()
            .with(|service| service.ports.clear())
            .named_port("a", Protocol::Tcp, 80)
            .named_port("b", Protocol::Tcp, 81)
            .external_local()
            .health_check(port)
    };
    let slices = |specs: &[&str]| {
        [slice("svc1")
            .target("a", Protocol::Tcp, 8080)
            .target("b", Protocol::Tcp, 8081)
            .endpoints(specs)]
    };
    let count =
        |service: &Service, specs: &[&str]| ask(service, &slices(specs), &node(V4, &[])).health;
    let specs = ["10.0.1.1 @node-1", "10.0.1.2 @node-1", "10.0.1.3", "10.0.1.4 @node-1 unready"];
    let health = |local| {
        Some(Box::new(Health { port: 30000, local_endpoints: vec![(Family::Ipv4, local)] }))
    };
    assert_eq!(count(&service(30000), &specs), health(2));
    let specs = ["10.0.1.1 @node-1 terminating", "10.0.1.2 @node-1 gone", "10.0.1.3 unready"];
    assert_eq!(count(&service(30000), &specs), health(0));
    assert_eq!(count(&service(0), &specs), None);
}
