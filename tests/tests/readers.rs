//! What clients that ask and do not read cost this process, at 5,000 Services with all their counters.
//! One test in a process of its own: it looks at the memory of the process.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{
    Connections, Family, RealServer, RealServerConfig, RealServerEntry, RealServerKey, Scheduler,
    Stats, VirtualServer, VirtualServerConfig, VirtualServerEntry, VirtualServerKey,
};
use proxier::args::Args;
use proxier::builders::{
    NODE_ADDRESSES, ServiceExt as _, endpoints as endpoints_of, ip, service, settings,
};
use proxier::cluster::Change;
use proxier::config::{Config, Host};
use proxier::http::{self, Counted, Current, Sources, Table};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver, Status, Timing};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

const SERVICES: u16 = 5000;
/// As many connections as the server has.
const READERS: usize = 32;

/// A loop that has programmed [`SERVICES`] Services.
async fn synced() -> watch::Receiver<Arc<Status>> {
    let timing = Timing {
        sync_period: Duration::from_secs(30),
        min_sync_period: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        drain_check: Duration::from_secs(30),
    };
    let resolver = Resolver::new(|_, _| settings());
    let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, timing);
    reconciler.take(Event::HostAddresses(NODE_ADDRESSES.map(ip).to_vec()));
    let mut changes = vec![
        Change::ServicesListed(Vec::new()),
        Change::SlicesListed(Vec::new()),
        Change::NodeListed,
    ];
    for n in 0..SERVICES {
        let [high, low] = n.to_be_bytes();
        let name = format!("namespace-of-somebody/service-with-a-name-{n:05}");
        let address = format!("10.96.{high}.{low}");
        let endpoints = [format!("10.244.{high}.{low}"), format!("10.245.{high}.{low}")];
        changes.push(Change::Service(service(&name).cluster_ip(&address).port(80)));
        let leads_to = endpoints.each_ref().map(String::as_str);
        changes.push(Change::Slice(endpoints_of(&name, 8080, &leads_to)));
    }
    reconciler.take(Event::Changes(changes));
    reconciler.step().await;
    status
}

/// A kernel that has all of them.
fn table() -> Table {
    let mut stats = Stats::default();
    (stats.connections, stats.packets_in) = (1 << 40, 1 << 50);
    let real = move |n: u8| {
        let key = RealServerKey::new([10, 244, 0, n].into(), 8080);
        let config = RealServerConfig::masquerade(1);
        let mut entry = RealServerEntry::from(RealServer { key, config });
        entry.connections = Connections { active: 1, inactive: 2, persistent: 0 };
        entry.stats = stats;
        entry
    };
    Arc::new(move |keys| {
        let counted = |key: &VirtualServerKey| {
            let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
            let mut server = VirtualServerEntry::from(VirtualServer { key: *key, config });
            server.stats = stats;
            Counted { server, real_servers: vec![real(1), real(2)], counts: true }
        };
        Ok(keys.iter().map(counted).collect())
    })
}

async fn start() -> (http::Servers, SocketAddr) {
    let line = "proxier --proxy-mode=ipvs --hostname-override=a --node-address=192.0.2.1 \
                --service-metrics=*";
    let args = Args::parse_from(line.split_whitespace()).unwrap();
    let mut config = Config::load(&args, &Host).unwrap();
    config.healthz_bind = None;
    config.metrics_bind = (Ipv4Addr::LOCALHOST, 0).into();
    let current = watch::channel(Arc::new(Current::new(Arc::new(config)))).1;
    let status = synced().await;
    let sources = Sources { table: Some(table()), ..Sources::new(current, status) };
    let servers = http::serve(sources).await.unwrap();
    let address = servers.metrics_address().unwrap();
    (servers, address)
}

/// Asks, and returns when the answer has begun.
async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.readable().await.unwrap();
    stream
}

/// Reads an answer to its end. Its length.
async fn read(address: SocketAddr, path: &str) -> usize {
    let mut answer = Vec::new();
    ask(address, path).await.read_to_end(&mut answer).await.unwrap();
    answer.len()
}

/// Memory in use, in MB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

#[tokio::test]
async fn readers_who_do_not_read_cost_little_and_what_they_cost_comes_back() {
    let (_servers, address) = start().await;
    for path in ["/metrics", "/status", "/status.json", "/configz"] {
        // Whatever one reader needs is there before and after.
        let length = read(address, path).await;
        read(address, path).await;
        let before = resident();
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(ask(address, path).await);
        }
        let during = resident();
        drop(readers);
        for _ in 0..3 {
            assert!(read(address, path).await.abs_diff(length) < 1000, "an answer is whole");
        }
        let after = resident();
        println!(
            "{path}: {length} bytes; {before} MB, with {READERS} readers {during}, after {after}"
        );
        assert!(during <= before + 24, "{path}: {before} MB, then {during} MB");
        assert!(after <= before + 16, "{path}: {before} MB, in the end {after} MB");
    }
    assert!(read(address, "/metrics").await > 5 << 20, "it would be much");
}
