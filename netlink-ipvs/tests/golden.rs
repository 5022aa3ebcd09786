//! Bytes as ipvsadm(8) and the kernel write them, both ways.
//!
//! `golden/requests.txt` and `golden/replies.txt` say how they were captured. Where our request
//! is meant to differ from ipvsadm's, ours is a golden of its own in this file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_endian = "little")]

use std::net::IpAddr;

use netlink_ipvs::message::IpvsMessage;
use netlink_ipvs::{
    Batch, Command, Connections, Family, Flags, Forwarding, Limits, Protocol, RealServer,
    RealServerConfig, RealServerKey, Scheduler, Stats, SyncDaemon, SyncRole, Timeouts, Tunnel,
    VirtualServer, VirtualServerConfig, VirtualServerKey,
};
use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_generic::GenlHeader;

const REQUESTS: &str = include_str!("golden/requests.txt");
const REPLIES: &str = include_str!("golden/replies.txt");
/// Bytes of the netlink header, which the captures leave out.
const HEADER: usize = 16;

/// The bytes below this title.
fn golden(text: &str, title: &str) -> Vec<u8> {
    let lines = text.lines().skip_while(|line| *line != title).skip(1);
    let hex: String = lines.take_while(|line| line.starts_with("  ")).map(str::trim).collect();
    assert!(!hex.is_empty(), "no golden {title:?}");
    bytes(&hex)
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn typed(message: &[u8]) -> IpvsMessage {
    let header = GenlHeader::parse(message).unwrap();
    assert_eq!(header.version, 1);
    IpvsMessage::parse_with_param(&message[4..], header).unwrap()
}

fn ours(command: Command) -> Vec<u8> {
    let mut batch = Batch::new(0, Limits::default());
    batch.push(command);
    batch.bytes()[HEADER..].to_vec()
}

fn tcp(address: &str, port: u16) -> VirtualServerKey {
    key(address, port, Protocol::Tcp)
}

fn key(address: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::new(address.parse().unwrap(), port, protocol)
}

const fn mark(mark: u32, family: Family) -> VirtualServerKey {
    VirtualServerKey::FirewallMark { mark, family }
}

fn server(key: VirtualServerKey, scheduler: Scheduler) -> VirtualServer {
    VirtualServer { key, config: VirtualServerConfig::new(scheduler, key.family()) }
}

fn persistent(mut server: VirtualServer, timeout: u32, prefix_len: u8) -> VirtualServer {
    server.config.flags = server.config.flags | Flags::PERSISTENT;
    server.config.timeout = timeout;
    server.config.prefix_len = prefix_len;
    server
}

fn flagged(mut server: VirtualServer, flags: Flags) -> VirtualServer {
    server.config.flags = flags;
    server
}

fn sip(mut server: VirtualServer) -> VirtualServer {
    server.config.persistence_engine = Some("sip".parse().unwrap());
    server
}

fn real(address: &str, port: u16, forwarding: Forwarding, weight: u32) -> RealServer {
    RealServer {
        key: RealServerKey::new(address.parse::<IpAddr>().unwrap(), port),
        config: RealServerConfig::new(forwarding, weight),
    }
}

fn with_thresholds(mut server: RealServer, upper: u32, lower: u32) -> RealServer {
    server.config.upper_threshold = upper;
    server.config.lower_threshold = lower;
    server
}

#[test]
fn adding_and_changing_virtual_servers_is_what_ipvsadm_sends() {
    use Command::{AddVirtualServer as Add, SetVirtualServer as Set};
    let v4 = tcp("10.96.0.1", 443);
    let udp = |address, port| key(address, port, Protocol::Udp);
    let sctp = key("fd00::10", 7000, Protocol::Sctp);
    let sched = Flags::SCHED1 | Flags::SCHED2;
    let (rr, mh) = (Scheduler::RR, Scheduler::MH);
    for (title, command) in [
        ("-A -t 10.96.0.1:443 -s rr", Add(server(v4, rr))),
        ("-E -t 10.96.0.1:443 -s wlc", Set(server(v4, Scheduler::WLC))),
        (
            "-A -u 10.96.0.10:53 -s wrr -o",
            Add(flagged(server(udp("10.96.0.10", 53), Scheduler::WRR), Flags::ONE_PACKET)),
        ),
        (
            "-A --sctp-service [fd00::10]:7000 -s sh -b sh-fallback,sh-port",
            Add(flagged(server(sctp, Scheduler::SH), sched)),
        ),
        (
            "-A -t 10.96.0.4:80 -s mh -b mh-fallback,mh-port",
            Add(flagged(server(tcp("10.96.0.4", 80), mh), sched)),
        ),
        (
            "-A -t [fd00::1]:80 -s mh -p 600 -M 64",
            Add(persistent(server(tcp("fd00::1", 80), mh), 600, 64)),
        ),
        (
            "-A -t 10.96.0.2:80 -s lc -p 10800 -M 255.255.255.0",
            Add(persistent(server(tcp("10.96.0.2", 80), Scheduler::LC), 10800, 24)),
        ),
        ("-A -t 10.96.0.5:0 -s rr -p", Add(persistent(server(tcp("10.96.0.5", 0), rr), 360, 32))),
        ("-A -f 7 -s wlc", Add(server(mark(7, Family::Ipv4), Scheduler::WLC))),
        ("-A -f 8 -6 -s rr -p 300", Add(persistent(server(mark(8, Family::Ipv6), rr), 300, 128))),
        (
            "-A -u 10.96.0.11:5060 -s rr -p 60 --pe sip",
            Add(sip(persistent(server(udp("10.96.0.11", 5060), rr), 60, 32))),
        ),
        ("--set 900 120 300", Command::SetTimeouts(Timeouts { tcp: 900, tcp_fin: 120, udp: 300 })),
        ("-Z", Command::Zero(None)),
        ("-C", Command::Flush),
    ] {
        let golden = golden(REQUESTS, &format!("ipvsadm {title}"));
        assert_eq!(ours(command), golden, "{title}");
        assert_eq!(typed(&golden).to_command().unwrap(), command, "{title}");
    }
}

#[test]
fn requests_about_real_servers_mean_what_ipvsadm_means() {
    use Forwarding::{Direct, Masquerade, Tunnel as Tun};
    let v4 = tcp("10.96.0.1", 443);
    let v6 = tcp("fd00::1", 80);
    let fwm = mark(7, Family::Ipv4);
    let sctp = key("fd00::10", 7000, Protocol::Sctp);
    let gue = |flags| Tun(Tunnel::Gue { port: 6080, flags });
    let add = Command::AddRealServer;
    for (title, command) in [
        (
            "-a -t 10.96.0.1:443 -r 10.244.1.7:8443 -m -w 1",
            add(v4, real("10.244.1.7", 8443, Masquerade, 1)),
        ),
        (
            "-a -t [fd00::1]:80 -r [fd00::7]:8080 -m -w 5",
            add(v6, real("fd00::7", 8080, Masquerade, 5)),
        ),
        (
            "-a -f 7 -r 10.244.1.8:80 -g -w 3 -x 100 -y 50",
            add(fwm, with_thresholds(real("10.244.1.8", 80, Direct, 3), 100, 50)),
        ),
        ("-a -f 7 -r 10.244.1.9 -i -w 2", add(fwm, real("10.244.1.9", 0, Tun(Tunnel::Ipip), 2))),
        (
            "-a -f 7 -r 10.244.1.10 -i --tun-type gue --tun-port 6080 --tun-csum",
            add(fwm, real("10.244.1.10", 0, gue(1), 1)),
        ),
        (
            "-a --sctp-service [fd00::10]:7000 -r [fd00::11]:7000 -i --tun-type gue --tun-port \
             6080 --tun-remcsum",
            add(sctp, real("fd00::11", 7000, gue(2), 1)),
        ),
        (
            "-a -f 7 -r 10.244.1.12 -i --tun-type gre --tun-csum",
            add(fwm, real("10.244.1.12", 0, Tun(Tunnel::Gre { flags: 1 }), 1)),
        ),
        ("-a -t [fd00::1]:80 -r 10.9.9.9 -i", add(v6, real("10.9.9.9", 80, Tun(Tunnel::Ipip), 1))),
        (
            "-e -t 10.96.0.1:443 -r 10.244.1.7:8443 -m -w 0",
            Command::SetRealServer(v4, real("10.244.1.7", 8443, Masquerade, 0)),
        ),
        (
            "-d -t 10.96.0.1:443 -r 10.244.1.7:8443",
            Command::DeleteRealServer(v4, real("10.244.1.7", 8443, Masquerade, 0).key),
        ),
        ("-D -t 10.96.0.1:443", Command::DeleteVirtualServer(v4)),
        ("-Z -t 10.96.0.1:443", Command::Zero(Some(v4))),
    ] {
        let golden = golden(REQUESTS, &format!("ipvsadm {title}"));
        assert_eq!(typed(&golden).to_command().unwrap(), command, "{title}");
        // What we leave out is what the kernel does not read: the real server's part is the same.
        let bytes = ours(command);
        assert_eq!(bytes[..4], golden[..4], "{title}");
        if let Some(part) = destination(&bytes) {
            let theirs = destination(&golden).unwrap();
            let identity_only = matches!(command, Command::DeleteRealServer(..));
            // ipvsadm leaves the rest of an IPv6 address behind an IPv4 one.
            let foreign_family = title.contains("10.9.9.9");
            assert!(
                identity_only || foreign_family || part == theirs,
                "{title}\n{part:02x?}\n{theirs:02x?}"
            );
        }
        assert_eq!(typed(&bytes).to_command().unwrap(), command, "{title}");
    }
}

/// The attribute of the real server with its header, from a message.
fn destination(message: &[u8]) -> Option<&[u8]> {
    let service = usize::from(u16::from_le_bytes([message[4], message[5]]));
    message.get(4 + service..).filter(|rest| !rest.is_empty())
}

#[test]
fn our_own_requests_about_real_servers() {
    let v4 = tcp("10.96.0.1", 443);
    // AF, PROTOCOL, ADDR and PORT in SERVICE
    let service = "30000180 06000100 02000000 06000200 06000000 \
                   14000300 0a600001 00000000 00000000 00000000 06000400 01bb0000";
    // ADDR_FAMILY, ADDR and PORT in DEST
    let identity =
        "06000b00 02000000 14000100 0af40107 00000000 00000000 00000000 06000200 20fb0000";
    let key = RealServerKey::new("10.244.1.7".parse().unwrap(), 8443);
    let golden = |text: &str| bytes(&text.replace(char::is_whitespace, ""));
    assert_eq!(
        ours(Command::DeleteRealServer(v4, key)),
        golden(&format!("07010000 {service} 28000280 {identity}"))
    );
    assert_eq!(ours(Command::DeleteVirtualServer(v4)), golden(&format!("03010000 {service}")));
    assert_eq!(ours(Command::Zero(Some(v4))), golden(&format!("10010000 {service}")));
    let server = RealServer { key, config: RealServerConfig::masquerade(1) };
    assert_eq!(
        ours(Command::AddRealServer(v4, server)),
        golden(&format!(
            "05010000 {service} 60000280 {identity} 08000300 00000000 08000400 01000000 \
             05000d00 00000000 06000e00 00000000 06000f00 00000000 \
             08000500 00000000 08000600 00000000"
        ))
    );
}

/// The master as it is asked for, and the backup.
fn sync_daemons() -> [(&'static str, SyncDaemon); 2] {
    let on = |role, id| SyncDaemon::new(role, "ha0".parse().unwrap(), id);
    let mut backup = on(SyncRole::Backup, 9);
    backup.group = Some("ff05::5".parse().unwrap());
    (backup.port, backup.ttl, backup.max_message) = (9000, 4, 1000);
    [
        ("--start-daemon master --mcast-interface ha0 --syncid 7", on(SyncRole::Master, 7)),
        (
            "--start-daemon backup --mcast-interface ha0 --syncid 9 --sync-maxlen 1000 \
             --mcast-group ff05::5 --mcast-port 9000 --mcast-ttl 4",
            backup,
        ),
    ]
}

#[test]
fn synchronisation_daemons_are_started_as_ipvsadm_does_and_read() {
    let [master, backup] = sync_daemons();
    for (title, daemon) in [master, backup] {
        let golden = golden(REQUESTS, &format!("ipvsadm {title}"));
        assert_eq!(ours(Command::StartSync(daemon)), golden, "{title}");
        assert_eq!(typed(&golden).to_command().unwrap(), Command::StartSync(daemon));
    }
    let stop = Command::StopSync(SyncRole::Master);
    let golden_stop = golden(REQUESTS, "ipvsadm --stop-daemon master");
    assert_eq!(typed(&golden_stop).to_command().unwrap(), stop);
    // ipvsadm names no interface and number 0; the kernel reads neither.
    assert_eq!(ours(stop), bytes("0a0100000c0003800800010001000000"));

    let read = |title| {
        typed(&golden(REPLIES, &format!("synchronisation daemon: ipvsadm {title}")))
            .to_sync_daemon()
            .unwrap()
    };
    // What was left to the kernel is filled in, and 1000 bytes are too few.
    let mut running = master.1;
    running.group = Some("224.0.0.81".parse().unwrap());
    (running.port, running.ttl, running.max_message) = (8848, 1, 1472);
    assert_eq!(read(master.0), running);
    running = backup.1;
    running.max_message = 1024;
    assert_eq!(read(backup.0), running);
}

#[test]
fn replies_with_counters() {
    // ipvsadm -Ln --stats: 5 48 43 335303 302314; --rate: 1 5 5 41882 37765 (-persistent-conn: 1)
    let counters = |stats: Stats| {
        let counts = [stats.connections, stats.packets_in, stats.packets_out];
        let bytes = [stats.bytes_in, stats.bytes_out];
        let rates = [stats.connection_rate, stats.packet_rate_in, stats.packet_rate_out];
        (counts, bytes, rates, [stats.byte_rate_in, stats.byte_rate_out])
    };
    let expected = ([5, 48, 43], [335_303, 302_314], [1, 5, 5], [41_882, 37_765]);
    let title = "virtual server: ipvsadm -A -t 10.96.0.1:80 -s rr -p 600";
    let entry = typed(&golden(REPLIES, title)).to_virtual_server().unwrap();
    assert_eq!(entry.server, persistent(server(tcp("10.96.0.1", 80), Scheduler::RR), 600, 32));
    assert_eq!(counters(entry.stats), expected);

    let title = "real server: ipvsadm -a -t 10.96.0.1:80 -r 10.96.0.1:8080 -m -w 3 -x 900 -y 20";
    let entry = typed(&golden(REPLIES, title)).to_real_server(Family::Ipv4).unwrap();
    let server = real("10.96.0.1", 8080, Forwarding::Masquerade, 3);
    assert_eq!(entry.server, with_thresholds(server, 900, 20));
    assert_eq!(entry.connections, Connections { active: 1, inactive: 4, persistent: 1 });
    assert_eq!(counters(entry.stats), expected);
}

#[test]
fn replies_of_every_shape() {
    let virtual_server = |title| {
        typed(&golden(REPLIES, &format!("virtual server: ipvsadm {title}")))
            .to_virtual_server()
            .unwrap()
            .server
    };
    let rr = Scheduler::RR;
    assert_eq!(
        virtual_server("-A -f 8 -6 -s rr -p 300"),
        persistent(server(mark(8, Family::Ipv6), rr), 300, 128)
    );
    assert_eq!(
        virtual_server("-A -u 10.96.0.11:5060 -s rr -p 60 --pe sip"),
        sip(persistent(server(key("10.96.0.11", 5060, Protocol::Udp), rr), 60, 32))
    );
    assert_eq!(
        virtual_server("-A -t [fd00::1]:80 -s mh -p 600 -M 64"),
        persistent(server(tcp("fd00::1", 80), Scheduler::MH), 600, 64)
    );

    let real_server = |title, family| {
        typed(&golden(REPLIES, &format!("real server: ipvsadm {title}")))
            .to_real_server(family)
            .unwrap()
            .server
    };
    assert_eq!(
        real_server("-a -t [fd00::1]:80 -r 10.9.9.9 -i", Family::Ipv6),
        real("10.9.9.9", 80, Forwarding::Tunnel(Tunnel::Ipip), 1)
    );
    assert_eq!(
        real_server(
            "-a -f 7 -r 10.244.1.10 -i --tun-type gue --tun-port 6080 --tun-csum",
            Family::Ipv4
        ),
        real("10.244.1.10", 0, Forwarding::Tunnel(Tunnel::Gue { port: 6080, flags: 1 }), 1)
    );

    assert_eq!(
        typed(&golden(REPLIES, "timeouts: ipvsadm --set 900 120 300")).to_timeouts().unwrap(),
        Timeouts { tcp: 900, tcp_fin: 120, udp: 300 }
    );
    let info = typed(&golden(REPLIES, "info")).to_info().unwrap();
    assert_eq!((info.version, info.connection_table_size), ((1, 2, 1), 4096));
}

#[test]
fn older_kernels_send_less() {
    // Before 4.1 no STATS64, before 3.18 no ADDR_FAMILY: leave them out of a captured reply.
    let title = "real server: ipvsadm -a -t 10.96.0.1:80 -r 10.96.0.1:8080 -m -w 3 -x 900 -y 20";
    let reply = golden(REPLIES, title);
    let whole = typed(&reply).to_real_server(Family::Ipv4).unwrap();
    let mut old = reply.clone();
    let stats64_at = old.len() - 0xa0;
    old.truncate(stats64_at);
    old[4..6].copy_from_slice(&(u16::try_from(stats64_at).unwrap() - 4).to_le_bytes());
    let family_at = old.windows(4).position(|w| w == [6, 0, 11, 0]).unwrap();
    old[family_at + 2] = 99; // an attribute that nobody knows
    assert_eq!(typed(&old).to_real_server(Family::Ipv4).unwrap(), whole);
}

#[test]
fn a_virtual_server_needs_an_address_but_not_the_kernels_own_flag() {
    let reply = golden(REPLIES, "virtual server: ipvsadm -A -t [fd00::1]:80 -s mh -p 600 -M 64");
    let whole = typed(&reply).to_virtual_server().unwrap();
    // IPVS_SVC_ATTR_ADDR becomes an attribute that nobody knows.
    let mut without = reply.clone();
    let address_at = without.windows(4).position(|w| w == [20, 0, 3, 0]).unwrap();
    without[address_at + 2] = 99;
    assert!(typed(&without).to_virtual_server().is_err());
    // IP_VS_SVC_F_HASHED goes from IPVS_SVC_ATTR_FLAGS.
    let mut unhashed = reply;
    let flags_at = unhashed.windows(4).position(|w| w == [12, 0, 7, 0]).unwrap() + 4;
    assert_eq!(unhashed[flags_at] & 2, 2);
    unhashed[flags_at] &= !2;
    assert_eq!(typed(&unhashed).to_virtual_server().unwrap(), whole);
}

#[test]
fn messages_keep_what_the_kernel_sent() {
    for title in REPLIES.lines().filter(|line| line.contains(" server: ")) {
        let reply = golden(REPLIES, title);
        let message = typed(&reply);
        let mut emitted = vec![0; message.buffer_len()];
        message.emit(&mut emitted);
        assert_eq!(emitted, reply[4..], "{title}");
    }
}
