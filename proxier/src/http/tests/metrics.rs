//! The metrics server.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use netlink_ipvs::{Protocol, RealServerKey, VirtualServerKey};

use super::*;
use crate::config::ServiceMetrics;
use crate::dataplane::{Conflict, NoLocal};
use crate::reconcile::{Counters, Directory, Draining, Measures, Published};

/// A loop that has something to say about everything.
fn eventful() -> Status {
    let now = Instant::now();
    let draining = Draining {
        virtual_server: VirtualServerKey::new([10, 96, 0, 1].into(), 443, Protocol::Tcp),
        real_server: RealServerKey::new([10, 244, 0, 1].into(), 6443),
        connections: 3,
        deadline: now,
    };
    let no_local = NoLocal { internal: vec![Family::Ipv4], external: vec![Family::Ipv6] };
    let mut status = Status {
        pending: 1,
        held: 2,
        services: 5,
        virtual_servers: 12,
        real_servers: 40,
        conflicts: conflicts(),
        draining: [draining].into(),
        no_local: [(ObjectKey::new("default", "a"), no_local)].into_iter().collect(),
        directory: Directory::from_iter([(
            ObjectKey::new("dev", "web"),
            Arc::new(page::asks(3, &[5])),
        )]),
        counters: Counters {
            steps: 7,
            contributions: 9,
            drift: 4,
            sysctl_drift: [("proc/sys/net/ipv4/ip_forward", 3)].into(),
            held_back: 6,
            drains_cut: 1,
            firewall_failures: [(Family::Ipv4, 2)].into(),
            operations: [("address_add", (6, 0)), ("firewall", (2, 2))].into(),
        },
        measures: Arc::new(Measures::example()),
        ..synced()
    };
    for family in status.families.values_mut() {
        family.last_success = Some(UNIX_EPOCH + Duration::from_millis(1_780_315_200_500));
    }
    status
}

fn conflicts() -> Published<VirtualServerKey, Conflict> {
    let conflict = |n| {
        let key = page::virtual_server(n);
        let [winner, loser] = ["older", "newer"].map(|name| ObjectKey::new("default", name));
        (key, Conflict { key, winner, losers: vec![loser], more: 0 })
    };
    [1, 2].map(conflict).into_iter().collect()
}

fn watches() -> Watches {
    let services = Watch {
        resource: "services",
        silence: Some(Duration::from_millis(1500)),
        connected: true,
        events: 30,
        lists: 1,
        failures: 2,
    };
    let nodes = Watch { resource: "nodes", silence: None, connected: false, ..services.clone() };
    Arc::new(move || vec![services.clone(), nodes.clone()])
}

async fn start(
    config: Config,
    status: Status,
) -> (Servers, SocketAddr, watch::Sender<Arc<Status>>) {
    let (publish, receiver) = publish(status);
    let (current, watches) = (current(config), Some(watches()));
    let table = Some(page::table(&[6]));
    let sources = Sources { watches, table, ..Sources::new(current, receiver) };
    let servers = serve(sources).await.unwrap();
    let address = servers.metrics_address().unwrap();
    (servers, address, publish)
}

/// What cannot be the same twice is `VALUE`.
fn stable(text: &str) -> String {
    let of_the_moment = |line: &&str| {
        line.starts_with("process_")
            || line.starts_with("proxier_service_counters_read_seconds ")
            || line.starts_with("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{")
    };
    let mut out = String::new();
    for line in text.lines() {
        match Some(line).filter(of_the_moment).and_then(|line| line.rsplit_once(' ')) {
            Some((name, _)) => out.extend([name, " VALUE"]),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[tokio::test(start_paused = true)]
async fn everything_is_said_in_the_text_format() {
    let config = Config { service_metrics: ServiceMetrics::All, ..config() };
    let (servers, address, _publish) = start(config, eventful()).await;
    get(servers.health_address().unwrap(), "/healthz").await;
    get(servers.health_address().unwrap(), "/livez").await;
    let answer = get(address, "/metrics").await;
    assert!(
        answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    let actual = stable(body(&answer));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/tests/metrics.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(actual == expected, "UPDATE=1 writes {path} anew; it is now\n{actual}");
}

/// The table in section 10.3 of the behaviour specification.
#[tokio::test(start_paused = true)]
async fn names_types_and_labels_are_kube_proxys() {
    let (servers, address, publish) = start(config(), eventful()).await;
    let health = servers.health_address().unwrap();
    for _ in 0..2 {
        get(health, "/healthz").await;
    }
    publish.send_replace(Arc::new(Status { node_eligible: Some(false), ..eventful() }));
    for path in ["/healthz", "/livez"] {
        get(health, path).await;
    }
    let answer = get(address, "/metrics").await;
    let text = body(&answer);
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    for (name, kind, labels) in [
        ("sync_proxy_rules_duration_seconds", "histogram", "_count{ip_family=\"IPv4\"} 2"),
        (
            "sync_proxy_rules_duration_seconds",
            "histogram",
            "_bucket{ip_family=\"IPv6\",le=\"16.384\"} 1",
        ),
        ("sync_proxy_rules_last_timestamp_seconds", "gauge", "{ip_family=\"IPv6\"} 1780315200.5"),
        ("sync_proxy_rules_last_queued_timestamp_seconds", "gauge", "{ip_family=\"IPv4\"} "),
        ("sync_proxy_rules_service_changes_total", "counter", " 0"),
        ("sync_proxy_rules_service_changes_pending", "gauge", " 0"),
        ("sync_proxy_rules_endpoint_changes_total", "counter", " 0"),
        ("sync_proxy_rules_endpoint_changes_pending", "gauge", " 0"),
        ("sync_proxy_rules_iptables_restore_failures_total", "counter", "{ip_family=\"IPv4\"} 2"),
        (
            "sync_proxy_rules_no_local_endpoints_total",
            "gauge",
            "{ip_family=\"IPv4\",traffic_policy=\"internal\"} 1",
        ),
        (
            "sync_proxy_rules_no_local_endpoints_total",
            "gauge",
            "{ip_family=\"IPv4\",traffic_policy=\"external\"} 0",
        ),
        (
            "network_programming_duration_seconds",
            "histogram",
            "_bucket{ip_family=\"IPv4\",le=\"0.25\"} ",
        ),
        (
            "network_programming_duration_seconds",
            "histogram",
            "_bucket{ip_family=\"IPv4\",le=\"300\"} ",
        ),
        ("conntrack_reconciler_sync_duration_seconds", "histogram", "_count{ip_family=\"IPv4\"} "),
        ("conntrack_reconciler_deleted_entries_total", "counter", "{ip_family=\"IPv4\"} 5"),
        ("proxy_healthz_total", "counter", "{code=\"200\"} 2"),
        ("proxy_healthz_total", "counter", "{code=\"503\"} 1"),
        ("proxy_livez_total", "counter", "{code=\"200\"} 1"),
    ] {
        let name = format!("kubeproxy_{name}");
        assert_eq!(types.get(&*name), Some(&kind), "{name}");
        let sample = format!("\n{name}{labels}");
        assert!(text.contains(&sample), "{sample} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_other_paths() {
    let mut config = config();
    (config.statusz, config.flagz) = (true, true);
    let expected = config.configz();
    let mut without = config.clone();
    (without.statusz, without.flagz) = (false, false);
    let errors = Arc::new(["bind 10.96.0.1: no".to_owned()].into());
    let (_servers, address, _publish) = start(config, Status { errors, ..synced() }).await;

    let answer = get(address, "/proxyMode").await;
    assert!(answer.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{answer}");
    assert_eq!(body(&answer), "ipvs");
    assert_eq!(body(&get(address, "/healthz").await), "ok");
    assert_eq!(body(&get(address, "/healthz/ping").await), "ok");
    assert_eq!(body(&get(address, "/healthz?verbose").await), "[+]ping ok\nhealthz check passed\n");
    let answer = get(address, "/configz").await;
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
    let configz: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(configz, expected);
    let answer = get(address, "/statusz").await;
    assert!(body(&answer).contains("\nSynced: true\n"), "{answer}");
    assert!(body(&answer).contains("\nError: bind 10.96.0.1: no\n"), "{answer}");
    assert!(body(&get(address, "/flagz").await).contains("flagz"));

    for path in ["/", "/metrics/", "/proxymode", "/debug/pprof/", "/../etc/passwd"] {
        assert_eq!(code(&get(address, path).await), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer = request(address, method, "/metrics").await;
        assert_eq!(code(&answer), "405", "{method}");
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    }
    let answer = request(address, "HEAD", "/metrics").await;
    assert_eq!((code(&answer), body(&answer)), ("200", ""));

    let (_servers, address, _publish) = start(without, synced()).await;
    for path in ["/statusz", "/flagz"] {
        assert_eq!(code(&get(address, path).await), "404", "the gate of {path} is off");
    }
}

/// Which of these series there are: service, endpoint.
async fn counted(namespaces: &ServiceMetrics, table: Table) -> Vec<String> {
    let services = [("dev", "web", 1), ("dev", "api", 2), ("shop", "cart", 3)];
    let services =
        services.map(|(namespace, name, n)| (ObjectKey::new(namespace, name), page::asks(n, &[5])));
    // Of two that claim the same, the counters are the winner's.
    let conflict = Conflict {
        key: page::virtual_server(2),
        winner: ObjectKey::new("other", "older"),
        losers: vec![ObjectKey::new("dev", "api")],
        more: 0,
    };
    let status = Status {
        conflicts: [(conflict.key, conflict)].into_iter().collect(),
        ..page::with_services(services)
    };
    let (_, status) = publish(status);
    let current = current(Config { service_metrics: namespaces.clone(), ..config() });
    let sources = Sources { table: Some(table), ..Sources::new(current, status) };
    let servers = serve(sources).await.unwrap();
    let answer = get(servers.metrics_address().unwrap(), "/metrics").await;
    let lines = body(&answer).lines().filter(|line| {
        ["proxier_service_", "proxier_endpoint_"].iter().any(|name| line.starts_with(name))
            && !line.contains("read_seconds")
    });
    lines.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn counters_of_services_are_read_for_the_namespaces_that_are_asked_for() {
    let never: Table = Arc::new(|_| panic!("nobody has asked"));
    assert_eq!(counted(&ServiceMetrics::Of(Vec::new()), never).await, [""; 0]);

    let dev = counted(&ServiceMetrics::Of(vec!["dev".to_owned()]), page::table(&[5, 6])).await;
    let web = "namespace=\"dev\",service=\"web\",port=\"http\",frontend=\"cluster IP\",\
               virtual_server=\"10.96.0.1:80/tcp\"";
    for line in [
        "proxier_service_counters_read_failed 0".to_owned(),
        format!("proxier_service_connections_total{{{web}}} 11"),
        format!("proxier_service_incoming_packets_total{{{web}}} 110"),
        format!("proxier_endpoint_connections_total{{{web},endpoint=\"10.244.0.6:8080\"}} 6"),
        format!("proxier_endpoint_active_connections{{{web},endpoint=\"10.244.0.6:8080\"}} 6"),
        format!("proxier_endpoint_inactive_connections{{{web},endpoint=\"10.244.0.6:8080\"}} 12"),
        format!("proxier_endpoint_weight{{{web},endpoint=\"10.244.0.6:8080\"}} 0"),
    ] {
        assert!(dev.contains(&line), "{line} is not in\n{}", dev.join("\n"));
    }
    // One virtual server has 5 series, each endpoint 8; the contested one is not dev/api's.
    assert_eq!(dev.len(), 2 + 5 + 2 * 8, "{}", dev.join("\n"));
    let all = counted(&ServiceMetrics::All, page::table(&[5, 6])).await;
    assert_eq!(all.len(), 2 + 2 * (5 + 2 * 8), "{}", all.join("\n"));

    let failing: Table = Arc::new(|_| Err("no".to_owned()));
    let failed = counted(&ServiceMetrics::All, failing).await;
    let expected =
        ["proxier_service_counters_read_failed 1", "proxier_service_counters_left_out 0"];
    assert_eq!(failed, expected);
}
