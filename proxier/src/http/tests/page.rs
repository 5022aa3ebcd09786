//! The status page and its JSON.

use netlink_ipvs::{
    Connections, Flags, RealServer, RealServerConfig, RealServerEntry, RealServerKey, Scheduler,
    Stats, VirtualServer, VirtualServerConfig, VirtualServerEntry,
};
use serde_json::Value;

use super::*;
use crate::cluster::{Annotation, Rejected};
use crate::dataplane::{
    Applied, Conflict, Contribution, Frontend, FrontendKind, InForce, Subject, Target,
    VirtualServerState,
};
use crate::reconcile::HeldBack;
use netlink_ipvs::{Protocol, VirtualServerKey};

pub(in crate::http) fn virtual_server(n: u16) -> VirtualServerKey {
    let [high, low] = n.to_be_bytes();
    VirtualServerKey::new([10, 96, high, low].into(), 80, Protocol::Tcp)
}

fn real_server(n: u8) -> RealServer {
    let key = RealServerKey::new([10, 244, 0, n].into(), 8080);
    RealServer { key, config: RealServerConfig::masquerade(1) }
}

/// A service with one virtual server and these endpoints.
pub(in crate::http) fn asks(n: u16, endpoints: &[u8]) -> Contribution {
    let server = VirtualServerState {
        config: VirtualServerConfig::new(Scheduler::RR, Family::Ipv4),
        real_servers: endpoints.iter().map(|n| real_server(*n)).collect(),
    };
    let frontend = Frontend {
        key: virtual_server(n),
        kind: FrontendKind::ClusterIp,
        port: "http".into(),
        server: server.into(),
        bind: true,
        drop_from_node: false,
        members: Vec::new(),
    };
    Contribution { frontends: vec![frontend], ..Contribution::default() }
}

/// The kernel has every virtual server that it is asked for, with these endpoints, whose numbers
/// are their counters as well; the last of them is draining.
pub(in crate::http) fn table(endpoints: &'static [u8]) -> Table {
    Arc::new(move |keys| {
        let counted = |key: &VirtualServerKey| {
            let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
            let stats = |n: u64| {
                let mut stats = Stats::default();
                (stats.connections, stats.packets_in) = (n, n * 10);
                stats
            };
            let entry = |(at, n): (usize, &u8)| {
                let mut server = real_server(*n);
                server.config.weight = u32::from(at + 1 < endpoints.len());
                let n = u32::from(*n);
                let mut entry = RealServerEntry::from(server);
                entry.connections = Connections { active: n, inactive: n * 2, persistent: 0 };
                entry.stats = stats(u64::from(n));
                entry
            };
            let all = endpoints.iter().map(|n| u64::from(*n)).sum();
            let mut server = VirtualServerEntry::from(VirtualServer { key: *key, config });
            server.stats = stats(all);
            let real_servers = endpoints.iter().enumerate().map(entry).collect();
            Counted { server, real_servers, counts: true }
        };
        Ok(keys.iter().map(counted).collect())
    })
}

pub(in crate::http) fn with_services(
    services: impl IntoIterator<Item = (ObjectKey, Contribution)>,
) -> Status {
    let services = services.into_iter().map(|(key, asked)| (key, Arc::new(asked)));
    Status { directory: services.collect(), ..synced() }
}

async fn show(status: Status, table: Option<Table>) -> (Servers, SocketAddr) {
    let (_, status) = publish(status);
    let current = current(config());
    let servers = serve(Sources { table, ..Sources::new(current, status) }).await.unwrap();
    let address = servers.metrics_address().unwrap();
    (servers, address)
}

async fn json(address: SocketAddr, query: &str) -> Value {
    let answer = get(address, &format!("/status.json?{query}")).await;
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
    serde_json::from_str(body(&answer)).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("dev", name)
}

#[tokio::test(start_paused = true)]
async fn what_annotations_set_is_shown_with_where_it_is_from() {
    let mut asked = asks(1, &[5]);
    let server = Arc::make_mut(&mut asked.frontends[0].server);
    server.config.scheduler = Scheduler::MH;
    server.config.flags = Flags::SCHED2 | Flags::ONE_PACKET;
    let mut limited = real_server(5);
    limited.config.upper_threshold = 100;
    server.real_servers = [limited].into();
    let in_force =
        InForce { setting: "scheduler", value: "mh".into(), annotation: Annotation::Scheduler };
    let rejected = Rejected {
        annotation: Annotation::Weights,
        value: "\"<b>\"".into(),
        reason: "it takes something else".into(),
    };
    let applied = Applied { in_force: vec![in_force], rejected: vec![rejected], slow_start: None };
    asked.applied = Some(Box::new(applied));
    let (_servers, address) = show(with_services([(key("web"), asked)]), None).await;
    let view = json(address, "").await;
    let service = &view["listing"]["services"][0];
    assert_eq!(
        service["settings"],
        serde_json::json!([
            {"setting": "scheduler", "value": "mh", "annotation": "proxier.io/scheduler"}
        ])
    );
    let frontend = &service["frontends"]["first"][0];
    assert_eq!(frontend["schedulerFlags"], serde_json::json!(["mh-port"]));
    assert_eq!(frontend["onePacket"], true);
    assert_eq!(frontend["realServers"]["first"][0]["upperThreshold"], 100);
    let page = get(address, "/status?open=dev%2Fweb").await;
    for text in [
        "scheduler <code>mh</code>, by its annotation <code>proxier.io/scheduler</code>",
        "proxier.io/weights: &quot;&lt;b&gt;&quot; is not used: it takes something else",
        "mh mh-port, one packet at a time",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_are_shown_with_what_the_kernel_counts() {
    let status = with_services([(key("web"), asks(1, &[5]))]);
    let (_servers, address) = show(status, Some(table(&[5, 6]))).await;
    let view = json(address, "").await;
    let frontend = &view["listing"]["services"][0]["frontends"]["first"][0];
    assert_eq!(frontend["virtualServer"], "10.96.0.1:80/tcp");
    assert_eq!((&frontend["connections"], &frontend["programmed"]), (&11.into(), &true.into()));
    assert_eq!(
        frontend["realServers"]["first"],
        serde_json::json!([
            {"address": "10.244.0.5:8080", "weight": 1, "active": 5, "inactive": 10,
             "connections": 5, "draining": false},
            {"address": "10.244.0.6:8080", "weight": 0, "active": 6, "inactive": 12,
             "connections": 6, "draining": true},
        ])
    );

    let page = get(address, "/status").await;
    for part in [
        "<code>10.96.0.1:80/tcp</code> <small>cluster IP</small>",
        "<td class=\"number mid\">11</td>",
        "aria-expanded=\"false\"",
        ">in sync</span>",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let page = get(address, "/status?open=dev%2Fweb").await;
    for part in [
        "aria-expanded=\"true\" aria-controls=\"open-0\"",
        "draining: it keeps the connections that it has",
        "<td class=\"number wide\">12</td>",
        "11 connections so far",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let browser = "GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n";
    let answer = exchange(address, browser).await;
    assert!(code(&answer) == "303" && answer.contains("\r\nLocation: /status\r\n"), "{answer}");
}

const UNREADABLE: &str = "the kernel's counters cannot be read, what is wanted is shown: no <IPVS>";

#[tokio::test(start_paused = true)]
async fn without_counters_what_is_wanted_is_shown() {
    let failing: Table = Arc::new(|_| Err("no <IPVS>".to_owned()));
    for (table, error) in [(None, Value::Null), (Some(failing), UNREADABLE.into())] {
        let (_servers, address) = show(with_services([(key("web"), asks(1, &[5]))]), table).await;
        let view = json(address, "").await;
        assert_eq!(view["listing"]["countersError"], error);
        let frontend = &view["listing"]["services"][0]["frontends"]["first"][0];
        assert_eq!(frontend["programmed"], Value::Null);
        assert_eq!(frontend["realServers"]["first"][0]["address"], "10.244.0.5:8080");
        assert_eq!(frontend["realServers"]["first"][0]["active"], Value::Null);
        assert_eq!(code(&get(address, "/status").await), "200");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_shown_with_what_it_waits_for() {
    let held = HeldBack {
        target: Target::Address([10, 96, 0, 1].into()),
        waits_for: Subject::Target(Target::Firewall(Family::Ipv4)),
    };
    let status = Status { held_back: [held].into(), held: 70, ..with_services([]) };
    let (_servers, address) = show(status, None).await;
    let first = serde_json::json!([
        {"target": "address 10.96.0.1", "waitsFor": "IPv4 firewall rules", "address": "10.96.0.1"}
    ]);
    let expected = serde_json::json!({"total": 70, "first": first});
    assert_eq!(json(address, "").await["heldBack"], expected);
    let page = get(address, "/status").await;
    let row = "<th scope=\"row\">address 10.96.0.1</th><td>IPv4 firewall rules</td>";
    assert!(page.contains(row) && page.contains("and 69 more"), "{page}");
}

/// An answer is bounded whatever the cluster has: so are the reads from the kernel behind it.
#[tokio::test(start_paused = true)]
async fn ten_thousand_services_are_shown_page_by_page() {
    let services = (0..10_000).map(|n| (key(&format!("s{n:05}")), asks(n, &[5])));
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (inner, count) = (table(&[5, 6]), read.clone());
    let table: Table = Arc::new(move |keys| {
        count.fetch_add(keys.len(), std::sync::atomic::Ordering::Relaxed);
        inner(keys)
    });
    let (_servers, address) = show(with_services(services), Some(table)).await;
    let names = |view: &Value| -> Vec<String> {
        let services = view["listing"]["services"].as_array().unwrap().iter();
        services.map(|service| service["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = json(address, "").await;
    assert_eq!(read.load(std::sync::atomic::Ordering::Relaxed), 50);
    assert_eq!(
        (&first["listing"]["matches"], &first["listing"]["pages"]),
        (&10_000.into(), &200.into())
    );
    assert_eq!(names(&first).len(), 50);
    let last = json(address, "page=200").await;
    assert_eq!(names(&last).last().unwrap(), "s09999");
    for beyond in ["page=201", "page=99999999999999", "page=18446744073709551615"] {
        assert_eq!(names(&json(address, beyond).await).len(), 50, "{beyond}");
    }
    assert_eq!(names(&json(address, "q=s0123").await).len(), 10);
    assert_eq!(names(&json(address, "q=DEV%2Fs00042").await), ["s00042"]);
    // By the address of a virtual server: 0x0102 = 258.
    assert_eq!(names(&json(address, "q=10.96.1.2%3A80").await), ["s00258"]);
    assert_eq!(names(&json(address, "q=nobody").await), [""; 0]);
    let page = get(address, "/status?q=s0&page=2").await;
    assert!(page.len() < 100_000, "{}", page.len());
    assert!(page.contains("<a rel=\"next\" href=\"/status?q=s0&amp;page=3\">Next</a>"), "{page}");
    assert!(page.contains("<span class=\"soft\" role=\"status\">10,000 services</span>"), "{page}");
}

/// Neither do services with many frontends and endpoints make an answer that is not.
#[tokio::test(start_paused = true)]
async fn a_page_of_the_largest_services_is_bounded() {
    let endpoints: Vec<u8> = (0..=255).collect();
    let large = |n: u16| {
        let frontends = (0..100).flat_map(|at| asks(n * 100 + at, &endpoints).frontends);
        Contribution { frontends: frontends.collect(), ..Contribution::default() }
    };
    let services = (0..50).map(|n| (key(&format!("{}{n}", "s".repeat(240))), large(n)));
    let (_servers, address) = show(with_services(services), None).await;
    let open: Vec<String> = (0..9).map(|n| format!("open=dev%2F{}{n}", "s".repeat(240))).collect();
    let open = open.join("&");
    for path in [format!("/status?{open}"), format!("/status.json?{open}")] {
        let answer = get(address, &path).await;
        assert!((50_000..1_000_000).contains(&answer.len()), "{path}: {} bytes", answer.len());
    }
    let view = json(address, "").await;
    let frontends = view["listing"]["services"][24]["frontends"].clone();
    assert_eq!(
        (&frontends["total"], &frontends["first"][19]["realServers"]["total"]),
        (&100.into(), &256.into())
    );
}

/// Names that no API server would accept, and a search that nobody would type.
#[tokio::test(start_paused = true)]
async fn hostile_texts_stay_texts() {
    let evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)>";
    let mut contribution = asks(1, &[5]);
    contribution.frontends[0].port = evil.into();
    let conflict =
        Conflict { key: virtual_server(1), winner: key(evil), losers: vec![key(evil)], more: 0 };
    let status = Status {
        errors: Arc::new([evil.to_owned()].into()),
        conflicts: [(virtual_server(1), conflict)].into_iter().collect(),
        ..with_services([(ObjectKey::new(evil, evil), contribution)])
    };
    let (_servers, address) = show(status, Some(table(&[5]))).await;
    for query in ["", "?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", "?q=%ff%00%1b[31m&page=%3Cb"]
    {
        let answer = get(address, &format!("/status{query}")).await;
        assert_eq!(code(&answer), "200");
        let (head, html) = answer.split_once("\r\n\r\n").unwrap();
        let policy = head.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: "));
        assert!(policy.unwrap().starts_with("default-src 'none'; style-src 'nonce-"), "{head}");
        for tag in ["<img", "\u{1b}", "\0"] {
            assert!(!html.contains(tag), "{tag}: {html}");
        }
        assert_eq!(
            (html.matches("<script").count(), html.matches("<script nonce=\"").count()),
            (1, 1)
        );
        // Every quote that opens an attribute is ours: the value of the field ends where we end it.
        let value = html.split_once("name=\"q\" value=\"").unwrap().1.split_once('"').unwrap().1;
        assert!(value.starts_with(" maxlength="), "{value}");
    }
    let long = get(address, &format!("/status?q={}", "é".repeat(200))).await;
    assert_eq!(code(&long), "200");
}

fn names(view: &Value) -> Vec<&str> {
    let services = view["listing"]["services"].as_array().unwrap().iter();
    services.map(|service| service["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn services_are_chosen_and_sorted_by_the_server() {
    let conflict =
        Conflict { key: virtual_server(3), winner: key("a"), losers: vec![key("lost")], more: 0 };
    let draining = crate::reconcile::Draining {
        virtual_server: virtual_server(2),
        real_server: real_server(9).key,
        connections: 1,
        deadline: Instant::now(),
    };
    let status = Status {
        conflicts: [(virtual_server(3), conflict)].into_iter().collect(),
        draining: [draining].into(),
        ..with_services([
            (key("a"), asks(1, &[5, 6, 7])),
            (key("drains"), asks(2, &[5])),
            (key("lost"), asks(3, &[5, 6])),
            (key("nothing"), asks(4, &[])),
            (ObjectKey::new("shop", "web"), asks(5, &[5, 6, 7, 8])),
        ])
    };
    // Each carries ten times as much as the one before, and 1 has most connections.
    let totals: Totals = Arc::new(|| {
        let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
        let entry = |n: u16| {
            let server = VirtualServer { key: virtual_server(n), config };
            let mut entry = VirtualServerEntry::from(server);
            entry.stats.byte_rate_out = 10_u64.pow(n.into());
            entry.stats.connection_rate = if n == 1 { 99 } else { n.into() };
            entry
        };
        Ok((1..=5).map(entry).collect())
    });
    let (_publish, status) = publish(status);
    let sources = Sources::new(current(config()), status);
    let servers = serve(Sources { totals: Some(totals), ..sources }).await.unwrap();
    let address = servers.metrics_address().unwrap();
    for (query, wanted) in [
        ("", &["lost", "nothing", "a", "drains", "web"][..]),
        ("sort=name", &["a", "drains", "lost", "nothing", "web"]),
        ("sort=-name", &["web", "nothing", "lost", "drains", "a"]),
        ("sort=endpoints", &["nothing", "drains", "lost", "a", "web"]),
        ("sort=bytes", &["web", "nothing", "lost", "drains", "a"]),
        ("sort=connections", &["a", "web", "nothing", "lost", "drains"]),
        ("only=problem", &["lost", "nothing"]),
        ("only=no-endpoints", &["nothing"]),
        ("only=draining", &["drains"]),
        ("namespace=shop", &["web"]),
        ("namespace=shop&only=problem", &[]),
    ] {
        assert_eq!(names(&json(address, query).await), wanted, "{query}");
    }
    let problem = &json(address, "only=no-endpoints").await["listing"]["services"][0]["problems"];
    let text = "10.96.0.4:80/tcp has no endpoints, connections are refused";
    assert_eq!(*problem, serde_json::json!({"total": 1, "first": [text]}));
}

/// So that a page of somebody else cannot read it under its own name.
#[tokio::test(start_paused = true)]
async fn pages_are_for_names_that_a_node_can_have() {
    let (_servers, address) = show(with_services([]), None).await;
    for (path, host, wanted) in [
        ("/status", "127.0.0.1:10249", "200"),
        ("/status", "127.0.0.1", "200"),
        ("/status", "[::1]:10249", "200"),
        ("/status", "localhost:10249", "200"),
        ("/status", "node-1", "200"),
        ("/status", "evil.example.com:10249", "421"),
        ("/status.json", "evil.example.com", "421"),
        ("/configz", "evil.example.com", "421"),
        ("/", "evil.example.com", "421"),
        // Programs may have any name for it.
        ("/metrics", "node-1.example.com:10249", "200"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(code(&exchange(address, &request).await), wanted, "{path} of {host}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_reaches_everything() {
    let (sender, receiver) = watch::channel(Arc::new(Current::new(Arc::new(config()))));
    let (_, status) = publish(synced());
    let sources = Sources::new(receiver, status);
    let servers = serve(sources).await.unwrap();
    let address = servers.metrics_address().unwrap();
    assert_eq!(code(&get(address, "/statusz").await), "200");

    let changed = Config { statusz: false, ..config() };
    let refused = Some(Refused { since: Instant::now(), why: "mode: no such <mode>".to_owned() });
    sender.send_replace(Arc::new(Current { refused, ..Current::new(Arc::new(changed)) }));
    assert_eq!(code(&get(address, "/statusz").await), "404");
    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("\nproxier_configuration_refused 1\n"), "{metrics}");
    let page = get(address, "/status").await;
    assert!(page.contains("in force: mode: no such &lt;mode&gt;"), "{page}");
}
