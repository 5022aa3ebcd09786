//! The servers over loopback, with paused time: what waits for a time limit goes on at once.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::SystemTime;

use netlink_ipvs::Family;
use tokio::net::TcpStream;
use tokio::time::advance;

use super::*;
use crate::args::Args;
use crate::cluster::ObjectKey;
use crate::config::{Environment, NodePortAddresses};
use crate::dataplane::Health;
use crate::reconcile::FamilyStatus;

mod attention;
mod hostile;
mod limits;
mod metrics;
mod node_ports;
pub(super) mod page;

struct Fake;

impl Environment for Fake {
    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> io::Result<String> {
        Ok("node-1".to_owned())
    }
}

/// All defaults, but for the addresses: loopback, any port.
fn config() -> Config {
    let mut config = Config::load(&Args::parse_from(["proxier"]).unwrap(), &Fake).unwrap();
    config.healthz_bind = Some(any());
    config.metrics_bind = any();
    config
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A loop that has just been successful in both families.
fn synced() -> Status {
    let now = Instant::now();
    let fine = FamilyStatus { last_success: Some(SystemTime::now()), failing_since: None };
    Status {
        complete: true,
        synced: true,
        last_success: Some(now),
        last_step: Some(now),
        families: [(Family::Ipv4, fine), (Family::Ipv6, fine)].into(),
        node_eligible: Some(true),
        ..Status::default()
    }
}

fn publish(status: Status) -> (watch::Sender<Arc<Status>>, watch::Receiver<Arc<Status>>) {
    watch::channel(Arc::new(status))
}

fn current(config: Config) -> watch::Receiver<Arc<Current>> {
    // What nobody can change any more stays as it is.
    watch::channel(Arc::new(Current::new(Arc::new(config)))).1
}

async fn start(config: Config, status: watch::Receiver<Arc<Status>>) -> anyhow::Result<Servers> {
    serve(Sources::new(current(config), status)).await
}

/// Sends this and returns all that comes until the connection ends.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    send(&stream, request).await;
    rest(&stream).await
}

/// Sends this, or as much of it as the other side takes.
async fn send(stream: &TcpStream, text: &str) {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(left) {
            Ok(sent) => left = &left[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// What comes next; nothing at the end. A connection that is reset ends as well.
async fn next(stream: &TcpStream) -> Vec<u8> {
    let mut buffer = [0; 4096];
    loop {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(read) => return buffer[..read].to_vec(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Vec::new(),
        }
    }
}

/// What still comes.
async fn rest(stream: &TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        match next(stream).await {
            end if end.is_empty() => return String::from_utf8(answer).unwrap(),
            more => answer.extend(more),
        }
    }
}

/// Returns as soon as somebody listens there, or nobody does any more.
async fn becomes(address: SocketAddr, open: bool) {
    for _ in 0..1000 {
        if TcpStream::connect(address).await.is_ok() == open {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{address}: open is not {open}");
}

async fn get(address: SocketAddr, path: &str) -> String {
    request(address, "GET", path).await
}

async fn request(address: SocketAddr, method: &str, path: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = exchange(address, &head).await;
    match answer.split_once("\r\n\r\n") {
        Some((head, pieces)) if head.contains("Transfer-Encoding: chunked") => {
            format!("{head}\r\n\r\n{}", put_together(pieces))
        }
        _ => answer,
    }
}

/// The pieces of an answer (RFC 9112, 7.1) as one.
fn put_together(mut pieces: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = pieces.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole += &rest[..size];
        pieces = &rest[size + 2..];
    }
    whole
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("not an answer: {answer:?}"))
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// An answer in the form of `health.txt` of the golden scenarios, with spaces left out in front of
/// times, as the records have one there that kube-proxy does not write.
fn recorded(answer: &str) -> String {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut text = format!("HTTP {}\n", code(answer));
    for name in ["Content-Type", "X-Content-Type-Options", "X-Load-Balancing-Endpoint-Weight"] {
        let line = head.lines().find(|line| line.starts_with(&format!("{name}: ")));
        text.extend(line.map(|line| format!("{line}\n")));
    }
    let mut body = body.to_owned();
    for key in ["\"lastUpdated\":", "\"currentTime\":"] {
        let mut pieces = body.split(key);
        let mut clean = pieces.next().unwrap().to_owned();
        for piece in pieces {
            let after = piece.splitn(3, '"').nth(2).unwrap();
            clean = clean + key + "\"TIME\"" + after;
        }
        body = clean;
    }
    format!("{text}\n{body}")
}

/// What kube-proxy answered at this URL in a golden scenario.
fn golden(scenario: &str, url: &str) -> String {
    let path = format!("{}/../tests/golden/{scenario}/health.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("### GET ").find_map(|section| section.strip_prefix(url)).unwrap();
    section.trim().replace(": \"TIME\"", ":\"TIME\"")
}

#[tokio::test(start_paused = true)]
async fn healthz_and_livez_answer_as_kube_proxy() {
    let (_publish, status) = publish(synced());
    let servers = start(config(), status).await.unwrap();
    let address = servers.health_address().unwrap();
    for path in ["/healthz", "/livez"] {
        let expected = golden("clusterip-tcp", &format!("http://127.0.0.1:10256{path}"));
        for method in ["GET", "POST", "DELETE"] {
            assert_eq!(recorded(&request(address, method, path).await), expected);
        }
    }
    assert_eq!(body(&request(address, "HEAD", "/healthz").await), "");
    assert_eq!(code(&get(address, "/").await), "404");
    assert_eq!(code(&get(address, "/healthz/x").await), "404");
}

/// Acceptance row L51.
#[tokio::test(start_paused = true)]
async fn an_ineligible_node_fails_healthz_only() {
    let (publish, status) = publish(Status { node_eligible: Some(false), ..synced() });
    let servers = start(config(), status).await.unwrap();
    let address = servers.health_address().unwrap();
    let answer = get(address, "/healthz").await;
    assert_eq!(code(&answer), "503");
    assert!(body(&answer).contains(r#""nodeEligible":false,"healthy":true,"status""#), "{answer}");
    let answer = get(address, "/livez").await;
    assert_eq!(code(&answer), "200");
    assert!(!answer.contains("nodeEligible"));

    publish.send_replace(Arc::new(Status { node_eligible: Some(true), ..synced() }));
    assert_eq!(code(&get(address, "/healthz").await), "200");

    // No object of this node: not known yet, or there is none.
    publish.send_replace(Arc::new(Status { node_eligible: None, ..synced() }));
    assert_eq!(code(&get(address, "/healthz").await), "200");
    publish.send_replace(Arc::new(Status::default()));
    assert_eq!(code(&get(address, "/healthz").await), "503");
    assert_eq!(code(&get(address, "/livez").await), "200");
}

#[tokio::test(start_paused = true)]
async fn an_address_in_use_ends_the_start_or_is_tried_again() {
    let taken = TcpListener::bind(any()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let (_publish, status) = publish(synced());
    let mut config =
        Config { healthz_bind: Some(address), bind_address_hard_fail: true, ..config() };
    let error = start(config.clone(), status.clone()).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with(&format!("listen on {address} for the health server"))
    );

    config.bind_address_hard_fail = false;
    let servers = start(config, status).await.unwrap();
    assert_eq!(servers.health_address(), None);
    // Who asks there is answered by another program, so it is said where people look.
    let metrics = servers.metrics_address().unwrap();
    let said = get(metrics, "/status.json").await;
    assert!(said.contains("in sync, needs attention"), "{said}");
    assert!(said.contains(&format!("cannot listen on {address} for the health server")), "{said}");
    drop(taken);
    // Its timer starts when its task first runs.
    tokio::task::yield_now().await;
    advance(LISTEN_AGAIN).await;
    becomes(address, true).await;
    assert_eq!(code(&get(address, "/livez").await), "200");
    let said = get(metrics, "/status.json").await;
    assert!(!said.contains("needs attention"), "{said}");

    drop(servers);
    becomes(address, false).await;
}

/// Acceptance row L50, with failures in place of delayed updates.
#[tokio::test(start_paused = true)]
async fn a_family_that_fails_for_two_sync_periods_is_unhealthy() {
    let config = Config { sync_period: Duration::from_secs(5), ..config() };
    let (_publish, receiver) = publish(Status::default());
    let monitor = health::Monitor::new(current(config), receiver, None);
    let healthy = |status: &Status| monitor.verdict(status).healthy();
    let fail = |status: &mut Status, family| {
        status.families.get_mut(&family).unwrap().failing_since = Some(Instant::now());
    };

    assert!(healthy(&Status::default()), "before anything was read");
    advance(Duration::from_secs(25)).await;
    assert!(healthy(&Status::default()));

    let mut status = synced();
    fail(&mut status, Family::Ipv4);
    advance(Duration::from_millis(9_999)).await;
    status.last_step = Some(Instant::now());
    assert!(healthy(&status));
    advance(Duration::from_millis(1)).await;
    let text = serde_json::to_value(monitor.verdict(&status).states()).unwrap();
    assert_eq!(text, serde_json::json!({"IPv4": false, "IPv6": true}));

    // The other family's success does not help.
    status.families.get_mut(&Family::Ipv6).unwrap().last_success = Some(SystemTime::now());
    assert!(!healthy(&status));
    *status.families.get_mut(&Family::Ipv4).unwrap() =
        FamilyStatus { last_success: Some(SystemTime::now()), failing_since: None };
    assert!(healthy(&status));

    // So is a loop that is stuck in its first step, when no family is known yet.
    let first = Status { last_step: Some(Instant::now()), ..Status::default() };
    advance(Duration::from_millis(9_999)).await;
    assert!(healthy(&first));
    advance(Duration::from_millis(1)).await;
    assert!(!healthy(&first));

    // A loop that is stuck fails in every family.
    advance(Duration::from_secs(25)).await;
    let text = serde_json::to_value(monitor.verdict(&status).states()).unwrap();
    assert_eq!(text, serde_json::json!({"IPv4": false, "IPv6": false}));
}
