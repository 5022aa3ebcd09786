//! Objects written to do harm, from the text of a manifest to the kernel: each part is programmed,
//! left out with a reason, or limited, and never takes anything from the node or from the services
//! of others.

use std::net::IpAddr;
use std::path::PathBuf;

use netlink_ipvs::VirtualServerKey;
use proxier::builders::{NODE, NODE_ADDRESSES, ip, key, settings, virtual_server};
use proxier::dataplane::State;
use proxier::reconcile::Event;
use proxier_tests::simulated::{Kernel, Simulation, simulate};
use serde_json::{Value, json};

/// What came of some objects.
struct Outcome {
    state: State,
    /// What was said of what was left out.
    said: Vec<String>,
}

/// The API server's service and somebody else's, with the node that they are on.
fn victims() -> Vec<Value> {
    let service = |name: &str, seconds: u8, address: &str, port: u16, node_port: u16| {
        json!({
            "kind": "Service",
            "metadata": {
                "name": name,
                "creationTimestamp": format!("1970-01-01T00:00:{seconds:02}Z"),
            },
            "spec": {
                "type": "NodePort",
                "clusterIP": address,
                "ports": [{ "port": port, "nodePort": node_port }],
            },
        })
    };
    vec![
        service("kubernetes", 1, "10.96.0.1", 443, 0),
        slice("kubernetes", "IPv4", &["192.0.2.10"], &[6443]),
        service("victim", 30, "10.96.0.2", 80, 30_080),
        slice("victim", "IPv4", &["10.244.0.2"], &[8080]),
    ]
}

fn slice(service: &str, family: &str, addresses: &[&str], ports: &[i64]) -> Value {
    let endpoints = addresses.iter().map(|address| json!({ "addresses": [address] }));
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": family,
        "ports": ports.iter().map(|port| json!({ "port": port })).collect::<Vec<_>>(),
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// The Service of the enemy, older than the victim. `change` is merged into its `spec`.
fn enemy(change: Value, ingress: &[&str]) -> Value {
    let ingress = ingress.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>();
    let mut service = json!({
        "kind": "Service",
        "metadata": { "name": "enemy", "creationTimestamp": "1970-01-01T00:00:10Z" },
        "spec": { "clusterIP": "10.96.0.66", "ports": [{ "port": 80 }] },
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    if let Value::Object(fields) = change {
        for (field, value) in fields {
            service["spec"][field] = value;
        }
    }
    service
}

/// Brings the objects, and those of the victims, through the reader of manifests and the loop to a
/// kernel. Whatever they are, the victims keep what they have, and the node what is its own.
fn program(what: &str, objects: Vec<Value>) -> Outcome {
    let folder = std::env::temp_dir().join(format!(
        "proxier-hostile-{}-{}",
        std::process::id(),
        what.replace(' ', "-")
    ));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file: PathBuf = folder.join("objects.json");
    let documents = victims().into_iter().chain(objects).map(|object| object.to_string());
    let documents: Vec<String> = documents.collect();
    std::fs::write(&file, documents.join("\n")).expect("a file");
    let loaded = proxier::source::files::load(&[file], NODE);
    std::fs::remove_dir_all(&folder).expect("a folder of our own");
    let loaded = loaded.expect("a readable manifest");
    let mut said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    for warning in &said {
        assert!(warning.len() < 1000, "{what}: {} bytes of log", warning.len());
    }
    let state = simulate(async {
        let resolver = proxier::reconcile::Resolver::new(|_, _| settings());
        let mut simulation = Simulation::with(Kernel::new(State::default()), resolver);
        for change in loaded.changes {
            simulation.reconciler.take(Event::from(change));
        }
        let host = NODE_ADDRESSES.map(ip).to_vec();
        simulation.reconciler.take(Event::HostAddresses(host));
        simulation.reconciler.step().await;
        assert_eq!(simulation.lacks(), [], "{what}");
        assert!(simulation.status.borrow().synced, "{what}");
        let contribution = simulation.reconciler.desired().contribution(&key("enemy"));
        for skipped in contribution.iter().flat_map(|contribution| &contribution.skipped) {
            said.push(skipped.to_string());
        }
        simulation.state()
    });
    for (address, server) in [
        ("10.96.0.1:443", "192.0.2.10:6443"),
        ("10.96.0.2:80", "10.244.0.2:8080"),
        ("192.0.2.1:30080", "10.244.0.2:8080"),
    ] {
        let servers = &state.virtual_servers[&virtual_server(address)].real_servers;
        let servers: Vec<String> = servers.iter().map(|server| server.key.to_string()).collect();
        assert_eq!(servers, [server], "{what}: {address}");
    }
    for address in &state.interface.addresses {
        assert!(is_for_services(*address), "{what}: {address} is bound");
    }
    for key in state.virtual_servers.keys() {
        let VirtualServerKey::Address { address, port, .. } = key else {
            panic!("{what}: {key}");
        };
        let own = NODE_ADDRESSES.map(ip).contains(address);
        assert!(own || state.interface.addresses.contains(address), "{what}: {key} is not bound");
        assert!(*port != 0, "{what}: {key}");
    }
    Outcome { state, said }
}

/// Not an address of the node, nor one that means something to every node.
fn is_for_services(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !local && !special && !NODE_ADDRESSES.map(ip).contains(&address)
}

impl Outcome {
    /// Everything that the victims have not asked for: `10.96.0.66:80/tcp 10.244.0.6:8080`.
    fn servers(&self) -> Vec<String> {
        let victims = ["10.96.0.1:443/tcp", "10.96.0.2:80/tcp", "192.0.2.1:30080/tcp"];
        let more = self.state.virtual_servers.iter().filter(|(key, _)| {
            !victims.contains(&key.to_string().as_str())
                && *key != &virtual_server("[2001:db8::1]:30080")
        });
        more.map(|(key, server)| {
            let servers = server.real_servers.iter().map(|server| format!(" {}", server.key));
            format!("{key}{}", servers.collect::<String>())
        })
        .collect()
    }

    fn says(&self, what: &str, expected: &[&str]) {
        for expected in expected {
            let said = self.said.iter().any(|said| said.contains(expected));
            assert!(said, "{what}: nothing says {expected:?}: {:#?}", self.said);
        }
    }
}

/// (what, objects, virtual servers beside the victims', what is said)
type Row = (&'static str, Vec<Value>, &'static [&'static str], &'static [&'static str]);

fn check(rows: Vec<Row>) {
    for (what, objects, servers, said) in rows {
        let outcome = program(what, objects);
        assert_eq!(outcome.servers(), servers, "{what}: {:#?}", outcome.said);
        outcome.says(what, said);
    }
}

const SPECIAL: [(&str, &str); 10] = [
    ("127.0.0.1", "loopback"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.53", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
];

#[test]
fn no_service_has_an_address_that_means_something_else() {
    const KEPT: &[&str] = &["10.96.0.66:80/tcp"];
    let addresses = SPECIAL.map(|(address, _)| address);
    let every = |kind: &str| format!("is a {kind} address");
    let external = program("external", vec![enemy(json!({ "externalIPs": addresses }), &[])]);
    let vips = program("vips", vec![enemy(json!({ "type": "LoadBalancer" }), &addresses)]);
    for outcome in [external, vips] {
        assert_eq!(outcome.servers(), KEPT);
        let mut kinds: Vec<String> = SPECIAL.iter().map(|(_, kind)| every(kind)).collect();
        // Of many warnings about one object the first few are shown.
        kinds.truncate(8);
        outcome.says("special", &kinds.iter().map(String::as_str).collect::<Vec<_>>());
    }
    // Cluster IPs are the administrator's choice, and IPv4 ones may be link-local.
    for (address, kind) in SPECIAL.into_iter().filter(|(address, _)| *address != "169.254.169.254")
    {
        let outcome = program("cluster ip", vec![enemy(json!({ "clusterIP": address }), &[])]);
        assert_eq!(outcome.servers(), [""; 0], "{address}");
        outcome.says(address, &[&every(kind)]);
    }
}

#[test]
fn no_service_takes_what_is_the_nodes_or_anothers() {
    let two_ports = json!([{ "name": "a", "port": 443 }, { "name": "b", "port": 80 }]);
    check(vec![
        (
            // As in kube-proxy: the port is served, and the address stays the node's.
            "external IP of the node",
            vec![enemy(json!({ "externalIPs": ["192.0.2.1", "2001:db8::1"] }), &[])],
            &["10.96.0.66:80/tcp", "192.0.2.1:80/tcp"],
            &[],
        ),
        (
            "VIP of the node",
            vec![enemy(json!({ "type": "LoadBalancer" }), &["192.0.2.1"])],
            &["10.96.0.66:80/tcp", "192.0.2.1:80/tcp"],
            &[],
        ),
        (
            "cluster IP of the node",
            vec![enemy(json!({ "clusterIP": "192.0.2.1" }), &[])],
            &["192.0.2.1:80/tcp"],
            &[],
        ),
        (
            // What nobody has is free: 10.96.0.1:80 and 10.96.0.2:443.
            "cluster IPs of others as external IPs",
            vec![enemy(
                json!({ "externalIPs": ["10.96.0.1", "10.96.0.2"], "ports": two_ports }),
                &[],
            )],
            &["10.96.0.1:80/tcp", "10.96.0.2:443/tcp", "10.96.0.66:80/tcp", "10.96.0.66:443/tcp"],
            &[],
        ),
        (
            "cluster IPs of others as VIPs",
            vec![enemy(
                json!({ "type": "LoadBalancer", "ports": two_ports }),
                &["10.96.0.1", "10.96.0.2"],
            )],
            &["10.96.0.1:80/tcp", "10.96.0.2:443/tcp", "10.96.0.66:80/tcp", "10.96.0.66:443/tcp"],
            &[],
        ),
        (
            "node port of another by an external IP",
            vec![enemy(
                json!({ "externalIPs": ["192.0.2.1"], "ports": [{ "port": 30_080 }] }),
                &[],
            )],
            &["10.96.0.66:30080/tcp"],
            &[],
        ),
        (
            "the API server's cluster IP",
            vec![enemy(json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 443 }] }), &[])],
            &[],
            &[],
        ),
        (
            "one address in every role",
            vec![enemy(
                json!({ "externalIPs": ["10.96.0.66", "010.096.000.066", "::ffff:10.96.0.66"] }),
                &["10.96.0.66", "10.96.0.66"],
            )],
            &["10.96.0.66:80/tcp"],
            &[],
        ),
        (
            "source ranges that are none leave a VIP closed",
            vec![enemy(
                json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/99", "all"] }),
                &["203.0.113.1"],
            )],
            &["10.96.0.66:80/tcp"],
            &["has no usable network: the VIPs are not served"],
        ),
    ]);
}

#[test]
fn no_endpoint_leads_to_the_node_itself_or_its_metadata() {
    for family in ["IPv4", "IPv6"] {
        let good = if family == "IPv4" { "10.244.0.6" } else { "fd00:244::6" };
        let cluster_ip = if family == "IPv4" { "10.96.0.66" } else { "fd00:96::66" };
        let six = |address: &str| address.contains(':') && !address.contains('.');
        for (address, kind) in SPECIAL.into_iter().filter(|(ip, _)| six(ip) == (family == "IPv6")) {
            let objects = vec![
                enemy(json!({ "clusterIP": cluster_ip }), &[]),
                slice("enemy", family, &[address, good], &[8080]),
            ];
            let outcome = program("endpoint", objects);
            let lines = if family == "IPv4" {
                "10.96.0.66:80/tcp 10.244.0.6:8080"
            } else {
                "[fd00:96::66]:80/tcp [fd00:244::6]:8080"
            };
            assert_eq!(outcome.servers(), [lines], "{address}");
            outcome.says(address, &[&format!("is a {kind} address; it is ignored")]);
        }
    }
}

#[test]
fn ports_that_are_none_cost_only_themselves() {
    let odd = json!([
        { "name": "zero", "port": 0 },
        { "name": "negative", "port": -1 },
        { "name": "big", "port": 65_536 },
        { "name": "huge", "port": 1e99 },
        { "name": "text", "port": "80" },
        { "name": "none" },
        { "name": "odd", "port": 81, "protocol": "ICMP" },
        { "name": "", "port": 80, "nodePort": 65_536 },
    ]);
    let objects = |service: Value| {
        vec![service, slice("enemy", "IPv4", &["10.244.0.6"], &[0, -1, 65_536, 8080])]
    };
    check(vec![
        (
            "ports out of range",
            objects(enemy(json!({ "type": "NodePort", "ports": odd }), &[])),
            &["10.96.0.66:80/tcp 10.244.0.6:8080"],
            &[
                "spec.ports[0].port 0 is not in 1-65535",
                "spec.ports[4].port must be a whole number, found the text \"80\"; the port is ignored",
                "spec.ports[5].port is missing; the port is ignored",
                "ports[2].port 65536 is not in 1-65535",
            ],
        ),
        (
            "one port twice",
            objects(enemy(
                json!({ "ports": [
                    { "port": 80 },
                    { "port": 81 },
                    { "name": "b", "port": 80 },
                    { "port": 80, "protocol": "UDP" },
                ] }),
                &[],
            )),
            &["10.96.0.66:80/tcp 10.244.0.6:8080", "10.96.0.66:80/udp"],
            &["same name and protocol", "same number 80 and protocol"],
        ),
        (
            "times out of range",
            objects(enemy(
                json!({
                    "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": -1 } },
                    "healthCheckNodePort": 65_536,
                }),
                &[],
            )),
            &["10.96.0.66:80/tcp 10.244.0.6:8080"],
            &["timeoutSeconds -1 is not in 1-86400; 10800 is used"],
        ),
    ]);
}

#[test]
fn names_of_any_kind_and_length_do_no_harm() {
    const MEBIBYTE: usize = 1 << 20;
    let long = "x".repeat(MEBIBYTE);
    let mut named = Vec::new();
    for name in [long.as_str(), "ünïcödé", "a\u{202e}b\n\u{1b}[31m", "..", "a/b", ""] {
        let mut service = enemy(json!({ "clusterIP": "10.96.0.67" }), &[]);
        service["metadata"]["name"] = name.into();
        named.push(service);
        let mut slice = slice("enemy", "IPv4", &["10.244.0.7"], &[8080]);
        slice["metadata"]["name"] = name.into();
        named.push(slice);
    }
    // ".." is made of allowed characters, and a name for nothing but a key.
    let outcome = program("names", named);
    assert_eq!(outcome.servers(), ["10.96.0.67:80/tcp"]);
    outcome.says("names", &["must be lower-case letters"]);

    let zones: Vec<Value> = (0..10_000).map(|n| json!({ "name": format!("zone-{n}") })).collect();
    let mut slice = slice("enemy", "IPv4", &["10.244.0.6"], &[8080]);
    slice["endpoints"][0]["nodeName"] = long.as_str().into();
    slice["endpoints"][0]["hints"] = json!({ "forZones": zones, "forNodes": [{ "name": long }] });
    slice["metadata"]["labels"]["more"] = long.as_str().into();
    let mut port = json!({ "port": 81, "name": long });
    port["appProtocol"] = "🦀".into();
    let service =
        enemy(json!({ "ports": [{ "port": 80 }, port, { "port": 82, "name": "ß" }] }), &[]);
    let outcome = program("long names", vec![service, slice]);
    assert_eq!(outcome.servers(), ["10.96.0.66:80/tcp 10.244.0.6:8080"]);
    outcome.says("long names", &["is not a port name"]);
}

/// As many as the API server lets through: all are served, and nothing grows with their square.
#[test]
fn ten_thousand_ports_and_as_many_endpoints_are_served() {
    const MANY: u16 = 10_000;
    let ports: Vec<Value> =
        (1..=MANY).map(|port| json!({ "name": format!("p{port}"), "port": port })).collect();
    let mut slice = slice("enemy", "IPv4", &["10.244.0.6"], &[]);
    slice["ports"] = ports.clone().into();
    let service = enemy(json!({ "ports": ports }), &["203.0.113.1"]);
    let outcome = program("many ports", vec![service, slice]);
    let servers = outcome.servers();
    assert_eq!(servers.len(), 2 * usize::from(MANY));
    assert!(servers.contains(&"203.0.113.1:9999/tcp 10.244.0.6:9999".to_owned()));

    let pods: Vec<String> =
        (0..MANY).map(|n| format!("10.{}.{}.1", 128 + n / 256, n % 256)).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let slice = self::slice("enemy", "IPv4", &pods, &[8080]);
    let outcome = program("many endpoints", vec![enemy(json!({}), &[]), slice]);
    let servers = &outcome.state.virtual_servers[&virtual_server("10.96.0.66:80")].real_servers;
    assert_eq!(servers.len(), usize::from(MANY));
}
