use netlink_ipvs::{RealServer, RealServerConfig};

use super::*;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A flow of a client to a frontend, and who answers it.
fn flow(protocol: Protocol, to: &str, answered_by: &str) -> Flow {
    let client = socket("10.1.1.1:40000");
    Flow {
        protocol,
        original: Direction { source: client, destination: socket(to) },
        reply: Direction { source: socket(answered_by), destination: client },
        translated: false,
        zone: None,
        original_zone: None,
        id: None,
    }
}

/// Acceptance rows L60 and L62.
#[test]
fn a_flow_is_stale_when_nobody_who_is_left_answers_it() {
    const FRONTENDS: [&str; 4] =
        ["172.30.1.1:8000", "192.168.99.100:8000", "1.2.3.4:8000", "10.0.0.9:32000"];
    let key = RealServerKey::new(socket("10.240.0.4:9090").ip(), 9090);
    let serving = RealServers::from([RealServer { key, config: RealServerConfig::masquerade(1) }]);
    let kept: BTreeMap<_, _> = FRONTENDS.iter().map(|to| (socket(to), &serving)).collect();
    for to in FRONTENDS {
        for (answered_by, stale) in [
            ("10.240.0.4:9090", false),
            ("10.240.0.4:8080", true), // the target port of before
            ("10.240.1.5:9090", true), // not serving
            ("10.240.9.9:9090", true), // deleted
            (to, true),                // never translated
        ] {
            let is_stale = |protocol| flow(protocol, to, answered_by).is_stale(&kept);
            assert_eq!(is_stale(Protocol::Udp), stale, "{to} {answered_by}");
            assert!(!is_stale(Protocol::Tcp) && !is_stale(Protocol::Sctp));
        }
    }
    // Ports that are no frontend's, of addresses that are, and the other way round.
    for to in ["172.30.1.1:32000", "10.0.0.9:8000", "10.0.0.8:32000", "1.2.3.4:53"] {
        assert!(!flow(Protocol::Udp, to, "10.240.9.9:9090").is_stale(&kept), "{to}");
    }
    // A service without endpoints keeps no flow.
    let nobody = RealServers::from([]);
    let kept = [(socket(FRONTENDS[0]), &nobody)].into();
    assert!(flow(Protocol::Udp, FRONTENDS[0], "10.240.0.4:9090").is_stale(&kept));
}
