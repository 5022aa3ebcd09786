//! The rows named I are those of the acceptance list in the behaviour specification.

use super::*;
use crate::builders::{real_server, virtual_server};
use netlink_ipvs::{Family, VirtualServerConfig};

const TCP: &str = "10.96.0.1:80/tcp";
const LIMIT: Duration = Duration::from_mins(15);

fn server_of(key: &str) -> RealServer {
    RealServer { key: real_server(key), config: RealServerConfig::masquerade(0) }
}

fn state(scheduler: Scheduler, servers: &[(&str, u32)]) -> Arc<VirtualServerState> {
    let mut real_servers: Vec<RealServer> = servers
        .iter()
        .map(|(key, weight)| RealServer {
            key: real_server(key),
            config: RealServerConfig::masquerade(*weight),
        })
        .collect();
    real_servers.sort_unstable();
    let config = VirtualServerConfig::new(scheduler, Family::Ipv4);
    Arc::new(VirtualServerState { config, real_servers: real_servers.into() })
}

fn rr(servers: &[(&str, u32)]) -> Arc<VirtualServerState> {
    state(Scheduler::RR, servers)
}

/// Drains of one virtual server, at a time in seconds.
struct Case {
    drains: Drains,
    key: VirtualServerKey,
    /// Of one by firewall mark.
    protocol: Option<Protocol>,
    start: Instant,
}

impl Case {
    fn new(key: &str) -> Self {
        Self {
            drains: Drains::new(LIMIT),
            key: virtual_server(key),
            protocol: None,
            start: Instant::now(),
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn update(
        &mut self,
        seconds: u64,
        desired: Option<&Arc<VirtualServerState>>,
        believed: Option<&Arc<VirtualServerState>>,
    ) -> bool {
        let now = self.at(seconds);
        let protocol = match self.key {
            VirtualServerKey::Address { protocol, .. } => Some(protocol),
            VirtualServerKey::FirewallMark { .. } => self.protocol,
        };
        self.drains.update(&self.key, protocol, desired, believed, now);
        self.drains.take_fresh() == [self.key]
    }

    fn overlay(&self, desired: &Arc<VirtualServerState>) -> Vec<(String, u32)> {
        let overlaid = self.drains.overlay(&self.key, desired);
        assert!(overlaid.real_servers.is_sorted_by(|a, b| a.key < b.key));
        overlaid
            .real_servers
            .iter()
            .map(|server| (server.key.to_string(), server.config.weight))
            .collect()
    }

    fn count(&mut self, seconds: u64, server: &str, active: u32, inactive: u32) -> Vec<Finished> {
        let counts = [(self.key, server_of(server), Connections { active, inactive })];
        let now = self.at(seconds);
        self.drains.count(&counts, now)
    }

    fn draining(&self) -> Vec<String> {
        self.drains.iter().map(|(_, server, ..)| server.to_string()).collect()
    }
}

fn weights(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(key, weight)| ((*key).to_owned(), *weight)).collect()
}

const A: &str = "10.244.0.1:80";
const B: &str = "10.244.0.2:80";

#[test]
fn i01_to_i04_what_stays_and_at_which_weight() {
    for (id, key, active, inactive, stays) in [
        ("I01", TCP, 0, 0, false),
        ("I02", TCP, 10, 0, true),
        ("I03", TCP, 0, 10, true),
        ("I04", "10.96.0.1:80/udp", 10, 10, false),
        ("SCTP is drained too", "10.96.0.1:80/sctp", 1, 0, true),
        ("SCTP without associations", "10.96.0.1:80/sctp", 0, 0, false),
    ] {
        let mut case = Case::new(key);
        let (desired, believed) = (rr(&[]), rr(&[(A, 100)]));
        let started = case.update(0, Some(&desired), Some(&believed));
        assert_eq!(started, !key.ends_with("udp"), "{id}");
        let finished = case.count(1, A, active, inactive);
        let expected = if stays { weights(&[(A, 0)]) } else { vec![] };
        assert_eq!(case.overlay(&desired), expected, "{id}");
        assert!(finished.iter().all(|finished| finished.cut == 0), "{id}");
        assert_eq!(finished.len(), usize::from(started && !stays), "{id}");
    }
}

#[test]
fn i05_counts_of_others_change_nothing() {
    let mut case = Case::new(TCP);
    let desired = rr(&[]);
    case.update(0, Some(&desired), Some(&rr(&[(A, 1)])));
    assert_eq!(case.count(1, B, 0, 0), []);
    assert_eq!(case.overlay(&desired), weights(&[(A, 0)]));
    let elsewhere = [(virtual_server("10.96.0.9:80/tcp"), server_of(A), Connections::default())];
    assert_eq!(case.drains.count(&elsewhere, case.start), []);
    assert_eq!(case.draining(), [A]);
}

#[test]
fn it_is_over_with_the_last_connection_and_said_once() {
    let mut case = Case::new(TCP);
    let (desired, believed) = (rr(&[(B, 1)]), rr(&[(A, 0), (B, 1)]));
    assert!(case.update(0, Some(&desired), Some(&believed)));
    assert!(!case.update(5, Some(&desired), Some(&believed)), "it has already started");
    assert_eq!(case.count(10, A, 1, 2), []);
    assert_eq!(
        case.drains.iter().map(|(_, _, connections, _)| connections).collect::<Vec<_>>(),
        [3]
    );
    assert_eq!(case.overlay(&desired), weights(&[(A, 0), (B, 1)]));
    let over = Finished { virtual_server: case.key, real_server: real_server(A), cut: 0 };
    assert_eq!(case.count(15, A, 0, 0), [over]);
    assert_eq!(case.overlay(&desired), weights(&[(B, 1)]));
    // Until the kernel no longer has it, whatever it counts.
    assert_eq!(case.count(20, A, 1, 0), []);
    assert!(!case.update(20, Some(&desired), Some(&believed)));
    assert_eq!(case.overlay(&desired), weights(&[(B, 1)]));
    case.update(25, Some(&desired), Some(&desired));
    assert_eq!((case.draining(), case.drains.virtual_servers()), (vec![], vec![]));
}

#[test]
fn nothing_stays_longer_than_the_limit() {
    let mut case = Case::new(TCP);
    let (desired, believed) = (rr(&[]), rr(&[(A, 1)]));
    case.update(0, Some(&desired), Some(&believed));
    // What happens meanwhile does not prolong it.
    case.update(600, Some(&desired), Some(&believed));
    assert_eq!(case.count(899, A, 7, 1), []);
    let cut = Finished { virtual_server: case.key, real_server: real_server(A), cut: 8 };
    assert_eq!(case.count(900, A, 7, 1), [cut]);
    assert_eq!(case.overlay(&desired), []);
}

#[test]
fn without_a_limit_it_stays_as_long_as_it_has_connections() {
    // As `proxier diff` looks at what drains.
    let mut case = Case { drains: Drains::new(Duration::MAX), ..Case::new(TCP) };
    let (desired, believed) = (rr(&[]), rr(&[(A, 1)]));
    case.update(0, Some(&desired), Some(&believed));
    assert_eq!(case.count(1_000_000, A, 7, 1), []);
    assert_eq!(case.overlay(&desired), weights(&[(A, 0)]));
}

#[test]
fn a_returning_endpoint_is_back_at_once() {
    let mut case = Case::new(TCP);
    let (without, with) = (rr(&[(B, 1)]), rr(&[(A, 1), (B, 1)]));
    case.update(0, Some(&without), Some(&with));
    assert_eq!(case.overlay(&without), weights(&[(A, 0), (B, 1)]));
    let draining = rr(&[(A, 0), (B, 1)]);
    assert!(!case.update(1, Some(&with), Some(&draining)));
    assert_eq!(case.overlay(&with), weights(&[(A, 1), (B, 1)]));
    assert_eq!(case.draining(), [""; 0]);
    // Leaving again gives it the whole time again.
    case.update(800, Some(&without), Some(&with));
    assert_eq!(case.count(1000, A, 1, 0), []);
}

#[test]
fn a_returning_endpoint_is_back_even_when_its_time_was_over() {
    let mut case = Case::new(TCP);
    let (without, with) = (rr(&[]), rr(&[(A, 1)]));
    case.update(0, Some(&without), Some(&with));
    assert_eq!(case.count(1, A, 0, 0).len(), 1);
    case.update(2, Some(&with), Some(&rr(&[(A, 0)])));
    assert_eq!(case.overlay(&with), weights(&[(A, 1)]));
}

#[test]
fn drains_end_with_their_virtual_server() {
    let mut case = Case::new(TCP);
    let (desired, believed) = (rr(&[]), rr(&[(A, 1)]));
    case.update(0, Some(&desired), Some(&believed));
    assert!(!case.update(1, None, Some(&believed)));
    assert_eq!(case.drains.virtual_servers(), []);
    case.update(2, Some(&desired), Some(&believed));
    assert!(!case.update(3, Some(&desired), None));
    assert_eq!(case.drains.virtual_servers(), []);
}

#[test]
fn a_restarted_daemon_goes_on_where_the_last_one_stopped() {
    let mut case = Case::new(TCP);
    let (desired, found) = (rr(&[(B, 1)]), rr(&[(A, 0), (B, 1)]));
    assert!(case.update(0, Some(&desired), Some(&found)));
    assert_eq!(case.overlay(&desired), weights(&[(A, 0), (B, 1)]));
}

#[test]
fn only_the_weight_changes() {
    let mut case = Case::new(TCP);
    let desired = rr(&[]);
    let mut found = rr(&[(A, 3)]).real_servers.to_vec();
    found[0].config.upper_threshold = 9;
    let found = VirtualServerState { real_servers: found.into(), config: desired.config }.into();
    case.update(0, Some(&desired), Some(&found));
    let overlaid = case.drains.overlay(&case.key, &desired);
    let mut config = RealServerConfig::masquerade(0);
    config.upper_threshold = 9;
    assert_eq!(overlaid.real_servers[0].config, config);
}

#[test]
fn hashing_schedulers_fall_back_while_something_drains_and_only_then() {
    for (scheduler, falls_back) in [
        (Scheduler::SH, true),
        (Scheduler::MH, true),
        (Scheduler::DH, true),
        (Scheduler::RR, false),
        (Scheduler::WLC, false),
    ] {
        let mut case = Case::new(TCP);
        let (desired, believed) =
            (state(scheduler, &[(B, 1)]), state(scheduler, &[(A, 1), (B, 1)]));
        let flag = |case: &Case| {
            let config = case.drains.overlay(&case.key, &desired).config;
            let falls_back = config.flags.contains(Flags::SCHED1);
            assert!(falls_back || config.scheduler == scheduler || scheduler == Scheduler::DH);
            falls_back || config.scheduler != scheduler
        };
        assert!(!flag(&case));
        case.update(0, Some(&desired), Some(&believed));
        assert_eq!(flag(&case), falls_back, "{scheduler}");
        case.count(1, A, 0, 0);
        assert!(!flag(&case), "{scheduler}");
    }
}

#[test]
fn one_by_firewall_mark_drains_as_the_protocol_of_its_service_port() {
    for (protocol, drains) in [
        (None, false),
        (Some(Protocol::Udp), false),
        (Some(Protocol::Tcp), true),
        (Some(Protocol::Sctp), true),
    ] {
        let mut case = Case::new(TCP);
        case.key = VirtualServerKey::FirewallMark { mark: 7, family: Family::Ipv4 };
        case.protocol = protocol;
        assert_eq!(case.update(0, Some(&rr(&[])), Some(&rr(&[(A, 1)]))), drains, "{protocol:?}");
        assert_eq!(!case.draining().is_empty(), drains, "{protocol:?}");
    }
}
