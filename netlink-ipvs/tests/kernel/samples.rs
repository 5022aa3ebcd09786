//! Virtual and real servers of every kind, each with the line of `ipvsadm -Sn`.

use super::*;

/// Every scheduler, flag, kind of key and engine, and the line that ipvsadm writes for it.
pub(super) fn every_virtual_server() -> Vec<(VirtualServer, &'static str)> {
    let with = |key, scheduler, change: fn(&mut VirtualServerConfig)| {
        let mut server = server(key, scheduler);
        change(&mut server.config);
        server
    };
    let persist = |timeout, prefix_len| {
        move |config: &mut VirtualServerConfig| {
            config.flags = config.flags | Flags::PERSISTENT;
            config.timeout = timeout;
            config.prefix_len = prefix_len;
        }
    };
    let mut all: Vec<_> = [
        (1, "rr", "-A -t 10.96.0.1:1 -s rr"),
        (2, "wrr", "-A -t 10.96.0.1:2 -s wrr"),
        (3, "lc", "-A -t 10.96.0.1:3 -s lc"),
        (4, "wlc", "-A -t 10.96.0.1:4 -s wlc"),
        (5, "lblc", "-A -t 10.96.0.1:5 -s lblc"),
        (6, "lblcr", "-A -t 10.96.0.1:6 -s lblcr"),
        (7, "dh", "-A -t 10.96.0.1:7 -s dh"),
        (8, "sh", "-A -t 10.96.0.1:8 -s sh"),
        (9, "sed", "-A -t 10.96.0.1:9 -s sed"),
        (10, "nq", "-A -t 10.96.0.1:10 -s nq"),
        (11, "fo", "-A -t 10.96.0.1:11 -s fo"),
        (12, "ovf", "-A -t 10.96.0.1:12 -s ovf"),
        (13, "mh", "-A -t 10.96.0.1:13 -s mh"),
    ]
    .map(|(port, scheduler, line)| (server(tcp(port), scheduler), line))
    .to_vec();
    let sched_flags = |config: &mut VirtualServerConfig| {
        config.flags = Flags::SCHED1 | Flags::SCHED2;
    };
    let one_packet = |config: &mut VirtualServerConfig| config.flags = Flags::ONE_PACKET;
    let mut sip = server(key("10.96.0.1", 5060, Protocol::Udp), "rr");
    persist(60, 32)(&mut sip.config);
    sip.config.persistence_engine = Some("sip".parse().unwrap());
    let mut v4_net = server(tcp(20), "rr");
    persist(10_800, 24)(&mut v4_net.config);
    let mut any_port = server(tcp(0), "rr");
    persist(360, 32)(&mut any_port.config);
    let mut v6_net = server(key("fd00::1", 80, Protocol::Tcp), "wlc");
    persist(600, 64)(&mut v6_net.config);
    let mut v6_mark = server(mark(8, Family::Ipv6), "rr");
    persist(300, 128)(&mut v6_mark.config);
    all.extend([
        (with(tcp(21), "sh", sched_flags), "-A -t 10.96.0.1:21 -s sh -b sh-fallback,sh-port"),
        (with(tcp(22), "mh", sched_flags), "-A -t 10.96.0.1:22 -s mh -b mh-fallback,mh-port"),
        (with(tcp(23), "rr", |c| c.flags = Flags::SCHED3), "-A -t 10.96.0.1:23 -s rr -b flag-3"),
        (
            with(key("10.96.0.1", 53, Protocol::Udp), "rr", one_packet),
            "-A -u 10.96.0.1:53 -s rr -o",
        ),
        (sip, "-A -u 10.96.0.1:5060 -s rr -p 60 --pe sip"),
        (v4_net, "-A -t 10.96.0.1:20 -s rr -p 10800 -M 255.255.255.0"),
        (any_port, "-A -t 10.96.0.1:0 -s rr -p 360"),
        (v6_net, "-A -t [fd00::1]:80 -s wlc -p 600 -M 64"),
        (server(key("fd00::1", 53, Protocol::Udp), "rr"), "-A -u [fd00::1]:53 -s rr"),
        (
            server(key("10.96.0.1", 7000, Protocol::Sctp), "rr"),
            "-A --sctp-service 10.96.0.1:7000 -s rr",
        ),
        (
            server(key("fd00::1", 7000, Protocol::Sctp), "rr"),
            "-A --sctp-service [fd00::1]:7000 -s rr",
        ),
        (server(mark(7, Family::Ipv4), "wlc"), "-A -f 7 -s wlc"),
        (v6_mark, "-A -f 8 -6 -s rr -p 300"),
    ]);
    all
}

/// Every way of forwarding, and the line that ipvsadm writes for it below 10.96.0.1:80.
pub(super) fn every_real_server() -> Vec<(RealServer, &'static str)> {
    let gue = |flags| Forwarding::Tunnel(Tunnel::Gue { port: 6080, flags });
    let gre = |flags| Forwarding::Tunnel(Tunnel::Gre { flags });
    let mut limited = real("10.1.0.9", 80, Forwarding::Direct, 1);
    limited.config.upper_threshold = 1000;
    limited.config.lower_threshold = 10;
    vec![
        (real("10.1.0.1", 8080, Forwarding::Masquerade, 1), "-r 10.1.0.1:8080 -m -w 1"),
        (real("10.1.0.2", 80, Forwarding::Masquerade, 0), "-r 10.1.0.2:80 -m -w 0"),
        (real("10.1.0.3", 80, Forwarding::Direct, 65_535), "-r 10.1.0.3:80 -g -w 65535"),
        (
            real("10.1.0.4", 80, Forwarding::Tunnel(Tunnel::Ipip), 1),
            "-r 10.1.0.4:80 -i -w 1 --tun-type ipip",
        ),
        (
            real("10.1.0.5", 80, gue(0), 1),
            "-r 10.1.0.5:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
        ),
        (
            real("10.1.0.6", 80, gue(1), 1),
            "-r 10.1.0.6:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
        ),
        (
            real("10.1.0.7", 80, gue(2), 1),
            "-r 10.1.0.7:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
        ),
        (real("10.1.0.8", 80, gre(1), 1), "-r 10.1.0.8:80 -i -w 1 --tun-type gre --tun-csum"),
        (limited, "-r 10.1.0.9:80 -g -w 1"), // -S does not say the thresholds
        (
            real("fd00::a", 80, Forwarding::Tunnel(Tunnel::Ipip), 1),
            "-r [fd00::a]:80 -i -w 1 --tun-type ipip",
        ),
        // An address of this host: the kernel keeps the method it was given.
        (real("127.0.0.1", 80, Forwarding::Masquerade, 1), "-r 127.0.0.1:80 -m -w 1"),
    ]
}
