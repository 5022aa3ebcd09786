//! Health check node ports.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::reconcile::Published;

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);

/// A port that nobody uses, not even as the port of a client.
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Programs that run beside each other start far apart.
        let next = std::process::id() * 64 + TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (next % 12_000) as u16;
        if std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// The status of a node with this health check node port.
fn with_service(name: &str, port: u16, counts: &[(Family, usize)]) -> Status {
    let health = Health { port, local_endpoints: counts.to_vec() };
    Status {
        health: [(ObjectKey::new("default", name), health)].into_iter().collect(),
        host_addresses: [HOST.into()].into(),
        ..synced()
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Acceptance row L52.
#[tokio::test(start_paused = true)]
async fn a_service_answers_with_its_local_endpoints() {
    // The health server is off: the node ports do not need it (quirk 35).
    let config = Config { healthz_bind: None, ..config() };
    let port = free_port();
    let v4 = |count| with_service("shop", port, &[(Family::Ipv4, count)]);
    let (publish, status) = publish(v4(0));
    let servers = start(config, status).await.unwrap();
    assert_eq!(servers.health_address(), None);
    becomes(local(port), true).await;
    let answer = get(local(port), "/").await;
    assert_eq!(code(&answer), "503");

    publish.send_replace(Arc::new(v4(2)));
    let expected = golden("etp-local-with-local-endpoints", "http://127.0.0.1:32001/");
    for (method, path) in [("GET", "/"), ("POST", "/"), ("GET", "/any/path?x")] {
        assert_eq!(recorded(&request(local(port), method, path).await), expected);
    }
    publish.send_replace(Arc::new(Status { health: Published::default(), ..v4(0) }));
    becomes(local(port), false).await;
    publish.send_replace(Arc::new(with_service("edge", port, &[(Family::Ipv4, 0)])));
    becomes(local(port), true).await;
    let expected = golden("terminating-fallback-etp-local", "http://192.168.50.10:32095/");
    assert_eq!(recorded(&get(local(port), "/").await), expected);

    publish.send_replace(Arc::new(Status { health: Published::default(), ..v4(0) }));
    becomes(local(port), false).await;
    publish.send_replace(Arc::new(v4(18)));
    becomes(local(port), true).await;
    let answer = get(local(port), "/").await;
    assert_eq!(code(&answer), "200");
    assert!(answer.contains("\r\nX-Load-Balancing-Endpoint-Weight: 18\r\n"), "{answer}");

    // An unhealthy proxy still tells its count; an ineligible node does not matter.
    let mut failing = Status { node_eligible: Some(false), ..v4(18) };
    failing.families.get_mut(&Family::Ipv6).unwrap().failing_since = Some(Instant::now());
    advance(Duration::from_secs(59)).await;
    failing.last_step = Some(Instant::now());
    publish.send_replace(Arc::new(failing));
    assert_eq!(code(&get(local(port), "/").await), "200");
    advance(Duration::from_secs(1)).await;
    let answer = get(local(port), "/").await;
    assert_eq!(code(&answer), "503");
    assert!(answer.contains("\r\nX-Load-Balancing-Endpoint-Weight: 18\r\n"), "{answer}");
    assert!(body(&answer).contains("\t\"serviceProxyHealthy\": false\n"), "{answer}");

    let other = free_port();
    let mut moved = v4(18);
    let health = Health { port: other, local_endpoints: vec![(Family::Ipv4, 1)] };
    moved.health.put(&ObjectKey::new("default", "shop"), Some(health));
    publish.send_replace(Arc::new(moved));
    becomes(local(port), false).await;
    becomes(local(other), true).await;
    publish.send_replace(Arc::new(Status { health: Published::default(), ..v4(0) }));
    becomes(local(other), false).await;
}

#[tokio::test(start_paused = true)]
async fn the_families_have_sockets_and_counts_of_their_own() {
    let port = free_port();
    let (_publish, status) =
        publish(with_service("shop", port, &[(Family::Ipv4, 0), (Family::Ipv6, 3)]));
    let _servers = start(config(), status).await.unwrap();
    let v6 = (Ipv6Addr::LOCALHOST, port).into();
    becomes(local(port), true).await;
    becomes(v6, true).await;
    assert_eq!(code(&get(local(port), "/").await), "503");
    assert_eq!(code(&get(v6, "/").await), "200");
}

/// Acceptance row L53.
#[tokio::test(start_paused = true)]
async fn it_listens_where_node_ports_listen() {
    let cidr = |text: &str| NodePortAddresses::Cidrs(vec![text.parse().unwrap()]);
    let port = free_port();
    let host = (HOST, port).into();

    let only_loopback = Config { node_port_addresses: cidr("127.0.0.0/30"), ..config() };
    let (publish_1, status) = publish(with_service("shop", port, &[(Family::Ipv4, 1)]));
    let servers = start(only_loopback, status).await.unwrap();
    becomes(local(port), true).await;
    becomes(host, false).await;
    drop((servers, publish_1));
    becomes(local(port), false).await;

    // Addresses that come and go.
    let with_host = Config { node_port_addresses: cidr("127.0.0.4/30"), ..config() };
    let without = Status {
        host_addresses: [IpAddr::from([192, 0, 2, 1])].into(),
        ..with_service("shop", port, &[(Family::Ipv4, 1)])
    };
    let (publish, status) = publish(without.clone());
    let _servers = start(with_host, status).await.unwrap();
    becomes(host, false).await;
    publish.send_replace(Arc::new(with_service("shop", port, &[(Family::Ipv4, 1)])));
    becomes(host, true).await;
    becomes(local(port), false).await;
    publish.send_replace(Arc::new(without));
    becomes(host, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_costs_only_its_service_and_is_tried_again() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let (port, fine) = (taken.local_addr().unwrap().port(), free_port());
    let health = |port| Health { port, local_endpoints: vec![(Family::Ipv4, 1)] };
    let services: Published<_, _> = [
        (ObjectKey::new("default", "a"), health(port)),
        (ObjectKey::new("default", "b"), health(fine)),
    ]
    .into_iter()
    .collect();
    let (_publish, status) = publish(Status { health: services, ..synced() });
    let _servers = start(config(), status).await.unwrap();
    becomes(local(fine), true).await;
    drop(taken);
    becomes(local(port), false).await;
    advance(LISTEN_AGAIN).await;
    becomes(local(port), true).await;
}
