use std::collections::BTreeSet;

use netlink_ipvs::{PersistenceEngine, RealServerConfig, VirtualServerConfig};

use super::*;
use crate::builders::*;
use crate::dataplane::firewall::{FirewallOptions, ruleset};
use crate::dataplane::sets::{Member, SetRole};
use crate::dataplane::{InterfaceState, SetState, VirtualServerState};

fn add(
    state: &mut State,
    key: VirtualServerKey,
    scheduler: &str,
    change: impl FnOnce(&mut VirtualServerConfig),
    servers: &[(&str, RealServerConfig)],
) {
    let mut config = VirtualServerConfig::new(scheduler.parse().unwrap(), key.family());
    change(&mut config);
    let server = |(key, config): &(&str, RealServerConfig)| RealServer {
        key: real_server(key),
        config: *config,
    };
    let real_servers = servers.iter().map(server).collect();
    state.virtual_servers.insert(key, VirtualServerState { config, real_servers }.into());
}

fn with(forwarding: Forwarding, weight: u32) -> RealServerConfig {
    RealServerConfig::new(forwarding, weight)
}

/// As ipvsadm 1.31 saved one that was made so over netlink.
#[test]
fn a_persistence_engine_is_saved_without_persistence_too() {
    let mut state = State::default();
    add(
        &mut state,
        virtual_server("10.0.0.3:53/udp"),
        "rr",
        |config| {
            config.flags = Flags::ONE_PACKET;
            config.persistence_engine = Some(PersistenceEngine::SIP);
        },
        &[],
    );
    assert_eq!(ipvsadm(&state), "-A -u 10.0.0.3:53 -s rr --pe sip -o\n");
}

/// The same table made with `ipvsadm` in the test kernel; the text is what `ipvsadm-save -n` of
/// ipvsadm 1.31 printed of it, blocks and `-a` lines sorted.
#[test]
fn ipvsadm_prints_what_ipvsadm_saves() {
    let mut state = State::default();
    let none = |_: &mut VirtualServerConfig| {};
    let tunnel = |tunnel| with(Forwarding::Tunnel(tunnel), 3);
    let mut limited = RealServerConfig::masquerade(1);
    (limited.upper_threshold, limited.lower_threshold) = (10, 5);
    add(
        &mut state,
        virtual_server("10.0.0.1:80/tcp"),
        "rr",
        none,
        &[
            ("10.1.0.1:8080", limited),
            ("10.1.0.2:80", tunnel(Tunnel::Ipip)),
            ("10.1.0.3:80", tunnel(Tunnel::Gue { port: 6080, flags: 0 })),
            ("10.1.0.4:80", tunnel(Tunnel::Gue { port: 6080, flags: 1 })),
            ("10.1.0.5:80", tunnel(Tunnel::Gre { flags: 0 })),
            ("10.1.0.10:8080", with(Forwarding::Direct, 0)),
        ],
    );
    add(
        &mut state,
        virtual_server("10.0.0.2:80/tcp"),
        "mh",
        |config| {
            config.flags = Flags::PERSISTENT | Flags::SCHED1 | Flags::SCHED2;
            (config.timeout, config.prefix_len) = (300, 24);
        },
        &[],
    );
    add(&mut state, virtual_server("10.0.0.2:53/udp"), "rr", |c| c.flags = Flags::ONE_PACKET, &[]);
    add(
        &mut state,
        virtual_server("10.0.0.4:53/udp"),
        "sh",
        |config| {
            config.flags = Flags::PERSISTENT | Flags::ONE_PACKET | Flags::SCHED1 | Flags::SCHED2;
            config.timeout = 60;
        },
        &[],
    );
    let all = Flags::SCHED1 | Flags::SCHED2 | Flags::SCHED3;
    add(&mut state, virtual_server("10.0.0.6:53/tcp"), "wrr", |config| config.flags = all, &[]);
    let mark = |mark, family| VirtualServerKey::FirewallMark { mark, family };
    let pod = ("10.1.0.4:0", RealServerConfig::masquerade(1));
    add(&mut state, mark(7, Family::Ipv4), "wlc", none, &[pod]);
    add(
        &mut state,
        mark(8, Family::Ipv6),
        "wlc",
        |config| {
            config.flags = Flags::PERSISTENT;
            (config.timeout, config.prefix_len) = (60, 64);
        },
        &[],
    );
    add(&mut state, virtual_server("10.0.0.3:9/sctp"), "lc", none, &[]);
    add(
        &mut state,
        virtual_server("[fd00::1]:443/tcp"),
        "rr",
        |config| (config.flags, config.timeout) = (Flags::PERSISTENT, 10800),
        &[("[fd00::2]:443", RealServerConfig::masquerade(1))],
    );
    add(
        &mut state,
        virtual_server("10.0.0.7:21/tcp"),
        "rr",
        |config| {
            (config.flags, config.timeout) = (Flags::PERSISTENT, 20);
            config.persistence_engine = Some("sip".parse().unwrap());
        },
        &[],
    );
    let expected = "\
-A --sctp-service 10.0.0.3:9 -s lc
-A -f 7 -s wlc
-a -f 7 -r 10.1.0.4:0 -m -w 1
-A -f 8 -6 -s wlc -p 60 -M 64
-A -t 10.0.0.1:80 -s rr
-a -t 10.0.0.1:80 -r 10.1.0.10:8080 -g -w 0
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 3 --tun-type ipip
-a -t 10.0.0.1:80 -r 10.1.0.3:80 -i -w 3 --tun-type gue --tun-port 6080 --tun-nocsum
-a -t 10.0.0.1:80 -r 10.1.0.4:80 -i -w 3 --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.1:80 -r 10.1.0.5:80 -i -w 3 --tun-type gre --tun-nocsum
-A -t 10.0.0.2:80 -s mh -p 300 -M 255.255.255.0 -b mh-fallback,mh-port
-A -t 10.0.0.6:53 -s wrr -b flag-1,flag-2,flag-3
-A -t 10.0.0.7:21 -s rr -p 20 --pe sip
-A -t [fd00::1]:443 -s rr -p 10800
-a -t [fd00::1]:443 -r [fd00::2]:443 -m -w 1
-A -u 10.0.0.2:53 -s rr -o
-A -u 10.0.0.4:53 -s sh -p 60 -o -b sh-fallback,sh-port
";
    assert_eq!(ipvsadm(&state), expected);
}

#[test]
fn addresses_print_as_ip_does() {
    let addresses = ["fd00::1", "10.96.0.10", "10.96.0.9"].map(ip).into();
    let state = State {
        interface: InterfaceState { addresses, ..InterfaceState::default() },
        ..State::default()
    };
    assert_eq!(
        super::addresses(&state),
        "inet 10.96.0.9/32 scope global\ninet 10.96.0.10/32 scope global\ninet6 fd00::1/128 scope global\n"
    );
}

/// Made with `ipset` 7.17 in the test kernel, whose `ipset save` printed this but for
/// `bucketsize 12 initval ...`, which are its own.
#[test]
fn j27_ipset_prints_what_ipset_saves() {
    let mut state = State::default();
    let mut add = |role: SetRole, family, capacity, members: &[Member]| {
        let members = members.iter().copied().collect();
        state.sets.insert(role.of(family), SetState { capacity, members, ..SetState::default() });
    };
    let (v4, v6) = (ip("10.0.0.1"), ip("fd00::1"));
    let net = |text: &str| text.parse().unwrap();
    add(SetRole::LoopBack, Family::Ipv4, 65536, &[Member::IpPortIp(v4, Protocol::Tcp, 80, v4)]);
    add(
        SetRole::LoadBalancerSourceCidr,
        Family::Ipv6,
        131_072,
        &[
            Member::IpPortNet(v6, Protocol::Udp, 80, net("fd01::1/128")),
            Member::IpPortNet(v6, Protocol::Sctp, 80, net("fd01::/64")),
        ],
    );
    add(SetRole::NodePortTcp, Family::Ipv4, 65536, &[Member::Port(30080)]);
    let expected = "\
create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6 hashsize 1024 maxelem 131072
add KUBE-6-LOAD-BALANCER-SOURCE-CID fd00::1,udp:80,fd01::1
add KUBE-6-LOAD-BALANCER-SOURCE-CID fd00::1,sctp:80,fd01::/64
create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536
add KUBE-LOOP-BACK 10.0.0.1,tcp:80,10.0.0.1
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
";
    assert_eq!(ipset(&state), expected);
}

#[test]
fn firewall_rules_are_printed_in_the_words_of_iptables() {
    let mut state = State::default();
    assert_eq!(firewall(&state, Family::Ipv4), "");
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    state.firewall.insert(Family::Ipv4, rules.clone());
    assert_eq!(firewall(&state, Family::Ipv4), iptables::save_text(&rules));
}

mod for_people {
    use std::collections::BTreeSet;

    use super::super::{Style, json, table};
    use crate::builders::*;
    use crate::cluster::{Annotation, Rejected, ServiceSettings, Weights};
    use crate::dataplane::{Desired, contribution};

    fn desired() -> Desired {
        let settings = settings();
        let mut desired = Desired::new(&settings);
        let pods = ["10.244.0.1", "10.244.0.2", "10.244.0.3"];
        let services = [
            (
                service("web").cluster_ip("10.96.0.1").port(80).node_port(30080).affinity(10800),
                &pods[..],
            ),
            (
                service("db").created(9).cluster_ip("10.96.0.2").port(80).external_ip("10.96.0.1"),
                &[][..],
            ),
        ];
        for (service, pods) in services {
            let slices = [endpoints(service.key.name(), 8080, pods)];
            let asked = contribution(&service, &slices.iter(), &settings);
            desired.set(&service.key, Some((service.created, asked)), &mut BTreeSet::new());
        }
        desired
    }

    #[test]
    fn the_table_wraps_real_servers_and_shows_conflicts() {
        let expected = "\
SERVICE      FRONTEND    VIRTUAL SERVER       SCHEDULER     REAL SERVERS
default/db   cluster IP  10.96.0.2:80/tcp     rr            none: refused
default/web  cluster IP  10.96.0.1:80/tcp     rr sticky 3h  10.244.0.1:8080 10.244.0.2:8080
                                                            10.244.0.3:8080
             node port   192.0.2.1:30080/tcp  rr sticky 3h  10.244.0.1:8080 10.244.0.2:8080
                                                            10.244.0.3:8080

2 services, 3 virtual servers, 6 real servers, 2 addresses on kube-ipvs0
conflict: 10.96.0.1:80/tcp goes to default/web, not to default/db
";
        assert_eq!(table(&desired(), Style { width: 92, colour: false }), expected);
    }

    /// A Service with annotations, one of which cannot be used.
    fn tuned() -> Desired {
        let settings = settings();
        let mut desired = Desired::new(&settings);
        let rejected = Rejected {
            annotation: Annotation::SlowStart,
            value: "\"soon\"".into(),
            reason: "it takes a duration".into(),
        };
        let zones = vec![("a".into(), 3)];
        let asked = ServiceSettings {
            weights: Weights::new(vec![], zones, None),
            max_connections: Some(100),
            rejected: vec![rejected],
            ..ServiceSettings::default()
        };
        let service = service("web").cluster_ip("10.96.0.1").port(80);
        let service = service.with(|service| service.settings = Some(Box::new(asked)));
        let slices = [endpoints("web", 8080, &["10.244.0.1 in=a", "10.244.0.2"])];
        let asked = contribution(&service, &slices.iter(), &settings);
        desired.set(&service.key, Some((0, asked)), &mut BTreeSet::new());
        desired
    }

    #[test]
    fn what_annotations_set_is_in_the_table_and_in_json() {
        let text = table(&tuned(), Style { width: 120, colour: false });
        for line in [
            "10.96.0.1:80/tcp  wrr max 100  10.244.0.1:8080*3 10.244.0.2:8080*1\n",
            "setting: default/web: scheduler wrr (proxier.io/weights)\n",
            "setting: default/web: weights zone=a:3 (proxier.io/weights)\n",
            "setting: default/web: proxier.io/slow-start: \"soon\" is not used: it takes a duration\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        let json = json::desired(&tuned());
        assert_eq!(json["virtualServers"][0]["realServers"][0]["upperThreshold"], 100);
        assert_eq!(
            json["settings"][2],
            serde_json::json!({
                "service": "default/web",
                "setting": "max-connections",
                "value": "100",
                "annotation": "proxier.io/max-connections",
            })
        );
        assert_eq!(json["rejectedSettings"][0]["annotation"], "proxier.io/slow-start");
    }

    #[test]
    fn a_narrow_table_puts_real_servers_below() {
        let text = table(&desired(), Style { width: 40, colour: false });
        assert!(
            text.contains("\n    10.244.0.1:8080 10.244.0.2:8080\n    10.244.0.3:8080\n"),
            "{text}"
        );
    }

    #[test]
    fn json_names_the_service_of_every_virtual_server() {
        let value = json::desired(&desired());
        let servers = value["virtualServers"].as_array().unwrap();
        let owners: Vec<_> = servers.iter().map(|server| server["service"].as_str()).collect();
        assert_eq!(owners, [Some("default/web"), Some("default/db"), Some("default/web")]);
        assert_eq!(servers[0]["persistenceSeconds"], 10800);
        assert_eq!(servers[0]["realServers"][2]["address"], "10.244.0.3");
        assert_eq!(value["conflicts"][0]["losers"][0], "default/db");
        assert_eq!(value["sets"]["KUBE-NODE-PORT-TCP"][0], "30080");
    }
}
