//! Against a real kernel, with ipvsadm(8) as the other reader and writer.
//!
//! Every test runs in a network namespace of its own: the test's process starts itself again
//! under `unshare --net`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command as Process;

use netlink_ipvs::message::IpvsMessage;
use netlink_ipvs::{
    Client, Command, ErrorKind, Family, Flags, Forwarding, Limits, Protocol, RealServer,
    RealServerConfig, RealServerKey, Stats, SyncDaemon, SyncRole, Timeouts, Tunnel, VirtualServer,
    VirtualServerConfig, VirtualServerKey,
};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_generic::GenlMessage;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::thread::{set_capabilities, CapabilitySet, CapabilitySets};

#[path = "kernel/foreign.rs"]
mod foreign;
#[path = "kernel/samples.rs"]
mod samples;

use samples::{every_real_server, every_virtual_server};

/// Runs `body` in a new network namespace, with loopback up.
fn in_namespace(test: &str, body: impl FnOnce()) {
    own_namespace::in_namespace(test, &[], || {
        let up = Process::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success(), "{up}");
        body();
    });
}

fn ipvsadm(arguments: &str) -> String {
    let output = Process::new("ipvsadm").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ipvsadm {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `ipvsadm -Sn`: sorted, as the kernel's order is that of a hash table.
fn saved() -> BTreeSet<String> {
    ipvsadm("-Sn").lines().map(|line| line.trim_end().to_owned()).collect()
}

fn lines(text: &[&str]) -> BTreeSet<String> {
    text.iter().map(|line| (*line).to_owned()).collect()
}

fn key(address: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::new(address.parse().unwrap(), port, protocol)
}

fn tcp(port: u16) -> VirtualServerKey {
    key("10.96.0.1", port, Protocol::Tcp)
}

const fn mark(mark: u32, family: Family) -> VirtualServerKey {
    VirtualServerKey::FirewallMark { mark, family }
}

fn server(key: VirtualServerKey, scheduler: &str) -> VirtualServer {
    let config = VirtualServerConfig::new(scheduler.parse().unwrap(), key.family());
    VirtualServer { key, config }
}

fn real(address: &str, port: u16, forwarding: Forwarding, weight: u32) -> RealServer {
    RealServer {
        key: RealServerKey::new(address.parse().unwrap(), port),
        config: RealServerConfig::new(forwarding, weight),
    }
}

/// The `index`th of many real servers.
fn numbered(index: u32) -> RealServer {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + index);
    let key = RealServerKey::new(address.into(), 8080);
    RealServer { key, config: RealServerConfig::masquerade(1) }
}

fn numbered_virtual(index: u32) -> VirtualServer {
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + index);
    server(VirtualServerKey::new(address.into(), 80, Protocol::Tcp), "rr")
}

fn virtual_servers(client: &mut Client) -> Vec<VirtualServer> {
    let mut servers: Vec<_> =
        client.virtual_servers().unwrap().iter().map(|entry| entry.server).collect();
    servers.sort();
    servers
}

fn real_servers(client: &mut Client, key: VirtualServerKey) -> Vec<RealServer> {
    let mut servers: Vec<_> =
        client.real_servers(key).unwrap().iter().map(|entry| entry.server).collect();
    servers.sort();
    servers
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn info_and_timeouts() {
    in_namespace("info_and_timeouts", || {
        let mut client = Client::open().unwrap();
        let info = client.info().unwrap();
        let expected = format!(
            "IP Virtual Server version {}.{}.{} (size={})\n",
            info.version.0, info.version.1, info.version.2, info.connection_table_size
        );
        assert!(ipvsadm("-Ln").starts_with(&expected), "{info:?}");

        ipvsadm("--set 901 121 301");
        let set = Timeouts { tcp: 901, tcp_fin: 121, udp: 301 };
        assert_eq!(client.timeouts().unwrap(), set);
        client.run(Command::SetTimeouts(Timeouts { tcp: 77, tcp_fin: 0, udp: 33 })).unwrap();
        assert_eq!(ipvsadm("-Ln --timeout"), "Timeout (tcp tcpfin udp): 77 121 33\n");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_virtual_server_is_read_alike_by_ipvsadm_and_by_us() {
    in_namespace("every_virtual_server_is_read_alike_by_ipvsadm_and_by_us", || {
        let mut client = Client::open().unwrap();
        let all = every_virtual_server();
        let expected: BTreeSet<_> = all.iter().map(|(_, line)| (*line).to_owned()).collect();
        let mut servers: Vec<_> = all.iter().map(|(server, _)| *server).collect();
        servers.sort();

        let report = client.execute(servers.iter().copied().map(Command::AddVirtualServer));
        assert!(report.is_success(), "{report:?}");
        assert_eq!(report.sends, 1);
        assert_eq!(saved(), expected);
        assert_eq!(virtual_servers(&mut client), servers);
        for server in &servers {
            assert_eq!(client.virtual_server(server.key).unwrap().server, *server);
        }

        // The other direction: made by ipvsadm, read by us.
        client.run(Command::Flush).unwrap();
        assert_eq!(client.virtual_servers().unwrap(), []);
        for (_, line) in all {
            // ipvsadm cannot be told the third scheduler flag by its number.
            ipvsadm(line.trim_end_matches(" -b flag-3"));
        }
        for server in &mut servers {
            if server.config.flags == Flags::SCHED3 {
                server.config.flags = Flags::NONE;
            }
        }
        assert_eq!(virtual_servers(&mut client), servers);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn every_real_server_is_read_alike_by_ipvsadm_and_by_us() {
    in_namespace("every_real_server_is_read_alike_by_ipvsadm_and_by_us", || {
        let mut client = Client::open().unwrap();
        let all = every_real_server();
        let mut servers: Vec<_> = all.iter().map(|(server, _)| *server).collect();
        servers.sort();
        let mut expected = lines(&["-A -t 10.96.0.1:80 -s rr"]);
        expected.extend(all.iter().map(|(_, line)| format!("-a -t 10.96.0.1:80 {line}")));

        client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap();
        let report =
            client.execute(servers.iter().map(|real| Command::AddRealServer(tcp(80), *real)));
        assert!(report.is_success(), "{report:?}");
        assert_eq!(saved(), expected);
        assert_eq!(real_servers(&mut client, tcp(80)), servers);
        let thresholds = ipvsadm("-Ln --thresholds");
        let limited = thresholds.lines().find(|line| line.contains("10.1.0.9:80")).unwrap();
        let numbers: Vec<_> = limited.split_whitespace().skip(2).collect();
        assert_eq!(numbers, ["1000", "10", "0", "0"]);

        client.run(Command::Flush).unwrap();
        ipvsadm("-A -t 10.96.0.1:80 -s rr");
        for (server, line) in &all {
            let thresholds = match server.config.upper_threshold {
                0 => "",
                _ => " -x 1000 -y 10",
            };
            ipvsadm(&format!("-a -t 10.96.0.1:80 {line}{thresholds}"));
        }
        assert_eq!(real_servers(&mut client, tcp(80)), servers);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn methods_that_ipvsadm_cannot_set() {
    in_namespace("methods_that_ipvsadm_cannot_set", || {
        let mut client = Client::open().unwrap();
        client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap();
        let servers = [
            real("10.1.0.1", 80, Forwarding::LocalNode, 1),
            real("10.1.0.2", 80, Forwarding::Bypass, 1),
        ];
        for server in servers {
            client.run(Command::AddRealServer(tcp(80), server)).unwrap();
        }
        assert_eq!(real_servers(&mut client, tcp(80)), servers);
    });
}

/// Whatever others have put into the table, it can be read, changed and deleted.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_example_lists_the_table() {
    in_namespace("the_example_lists_the_table", || {
        let mut client = Client::open().unwrap();
        client.run(Command::AddVirtualServer(server(tcp(80), "sed"))).unwrap();
        client.run(Command::AddRealServer(tcp(80), numbered(1))).unwrap();
        let here = std::env::current_exe().unwrap();
        let example = here.parent().unwrap().with_file_name("examples").join("ipvs-list");
        let output = Process::new(example).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for part in ["\n10.96.0.1:80/tcp sed", "\n  -> 10.128.0.1:8080 Masquerade weight 1"] {
            assert!(text.contains(part), "{text}");
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn changes_and_deletions() {
    in_namespace("changes_and_deletions", || {
        let mut client = Client::open().unwrap();
        let fwm = mark(9, Family::Ipv4);
        let real_v6 = real("fd00::2", 80, Forwarding::Masquerade, 4);
        let v6 = key("fd00::1", 80, Protocol::Tcp);
        let mut changed = server(tcp(80), "wlc");
        changed.config.flags = Flags::PERSISTENT;
        changed.config.timeout = 30;
        let report = client.execute([
            Command::AddVirtualServer(server(tcp(80), "rr")),
            Command::AddRealServer(tcp(80), numbered(1)),
            Command::AddRealServer(tcp(80), numbered(2)),
            Command::AddVirtualServer(server(fwm, "rr")),
            Command::AddRealServer(fwm, numbered(3)),
            Command::AddVirtualServer(server(v6, "rr")),
            Command::AddRealServer(v6, real_v6),
            Command::SetVirtualServer(changed),
            Command::SetRealServer(
                tcp(80),
                RealServer { config: RealServerConfig::masquerade(0), ..numbered(1) },
            ),
            Command::DeleteRealServer(tcp(80), numbered(2).key),
            Command::DeleteRealServer(v6, real_v6.key),
            Command::Zero(Some(tcp(80))),
            Command::Zero(None),
            Command::DeleteVirtualServer(fwm),
        ]);
        assert!(report.is_success(), "{report:?}");
        assert_eq!(
            saved(),
            lines(&[
                "-A -t 10.96.0.1:80 -s wlc -p 30",
                "-a -t 10.96.0.1:80 -r 10.128.0.1:8080 -m -w 0",
                "-A -t [fd00::1]:80 -s rr",
            ])
        );
        let entry = client.virtual_server(tcp(80)).unwrap();
        assert_eq!(entry.stats, Stats::default());
        client.run(Command::Flush).unwrap();
        assert_eq!(saved(), lines(&[]));
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn errors_say_what_the_matter_is() {
    in_namespace("errors_say_what_the_matter_is", || {
        let mut client = Client::open().unwrap();
        client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap();
        client.run(Command::AddRealServer(tcp(80), numbered(1))).unwrap();
        let mut no_engine = server(tcp(81), "rr");
        no_engine.config.flags = Flags::PERSISTENT;
        no_engine.config.persistence_engine = Some("nosuch".parse().unwrap());
        let mut too_heavy = numbered(3);
        too_heavy.config.weight = u32::MAX;
        let mut thresholds_crossed = numbered(3);
        thresholds_crossed.config.upper_threshold = 1;
        thresholds_crossed.config.lower_threshold = 2;
        let other_family = real("fd00::7", 80, Forwarding::Masquerade, 1);
        for (command, kind) in [
            (Command::AddVirtualServer(server(tcp(80), "rr")), ErrorKind::Exists),
            (Command::AddRealServer(tcp(80), numbered(1)), ErrorKind::Exists),
            (Command::SetVirtualServer(server(tcp(81), "rr")), ErrorKind::NotFound),
            (Command::DeleteVirtualServer(tcp(81)), ErrorKind::NotFound),
            (Command::AddRealServer(tcp(81), numbered(1)), ErrorKind::NotFound),
            (Command::SetRealServer(tcp(80), numbered(2)), ErrorKind::NotFound),
            (Command::DeleteRealServer(tcp(80), numbered(2).key), ErrorKind::NotFound),
            (Command::Zero(Some(tcp(81))), ErrorKind::NotFound),
            (Command::AddVirtualServer(server(tcp(81), "nosuch")), ErrorKind::Unsupported),
            (Command::SetVirtualServer(server(tcp(80), "nosuch")), ErrorKind::Unsupported),
            (Command::AddVirtualServer(no_engine), ErrorKind::Unsupported),
            (Command::AddRealServer(tcp(80), too_heavy), ErrorKind::Invalid),
            (Command::AddRealServer(tcp(80), thresholds_crossed), ErrorKind::Invalid),
            (Command::AddRealServer(tcp(80), other_family), ErrorKind::Invalid),
        ] {
            let error = client.run(command).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}: {:?}", error.errno());
            assert_eq!(error.command(), Some(&command));
        }
        let error = client.virtual_server(tcp(81)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(client.real_servers(tcp(81)).unwrap(), [], "the kernel reports no error");
        assert_eq!(
            saved(),
            lines(&["-A -t 10.96.0.1:80 -s rr", "-a -t 10.96.0.1:80 -r 10.128.0.1:8080 -m -w 1",])
        );
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn without_the_capability() {
    in_namespace("without_the_capability", || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).unwrap(); // of this thread
                                               // The module may have to be loaded, which needs no privilege.
        let mut client = Client::open().unwrap();
        let error = client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoPermission);
        let report = client.execute((1..=300).map(|port| Command::DeleteVirtualServer(tcp(port))));
        assert_eq!(report.failed.len(), 300);
        assert!(report.uncertain.is_empty());
        assert_eq!(client.virtual_servers().unwrap_err().kind(), ErrorKind::NoPermission);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn of_20_000_commands_each_failure_is_matched_to_its_own() {
    in_namespace("of_20_000_commands_each_failure_is_matched_to_its_own", || {
        const COUNT: u32 = 20_000;
        let mut client = Client::open().unwrap();
        // Every 7th command deletes what is not there, every 11th adds what is.
        let command = |index: u32| match index {
            0 => Command::AddVirtualServer(numbered_virtual(0)),
            _ if index.is_multiple_of(7) => {
                Command::DeleteVirtualServer(numbered_virtual(COUNT + index).key)
            }
            _ if index.is_multiple_of(11) => Command::AddVirtualServer(numbered_virtual(0)),
            _ => Command::AddVirtualServer(numbered_virtual(index)),
        };
        let report = client.execute((0..COUNT).map(command));
        assert_eq!(report.sent, COUNT as usize);
        assert!(report.sends < 50, "{} sends", report.sends);
        assert_eq!(report.uncertain, []);
        let expected: Vec<_> = (1..COUNT)
            .filter_map(|index| match index {
                _ if index.is_multiple_of(7) => Some((index as usize, ErrorKind::NotFound)),
                _ if index.is_multiple_of(11) => Some((index as usize, ErrorKind::Exists)),
                _ => None,
            })
            .collect();
        let failed: Vec<_> =
            report.failed.iter().map(|(index, error)| (*index, error.kind())).collect();
        assert_eq!(failed, expected);
        for (index, error) in &report.failed {
            assert_eq!(error.command(), Some(&command(*index as u32)));
        }
        // The others were carried out, and a dump of many datagrams reads them all.
        assert_eq!(client.virtual_servers().unwrap().len(), report.sent - failed.len());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn large_tables_are_read_whole() {
    in_namespace("large_tables_are_read_whole", || {
        let mut client = Client::open().unwrap();
        let v6 = server(key("fd00::1", 80, Protocol::Tcp), "rr");
        let mut odd = server(mark(7, Family::Ipv4), "wlc");
        odd.config.flags = Flags::PERSISTENT;
        odd.config.timeout = 60;
        let mut ops = server(key("10.96.0.2", 53, Protocol::Udp), "wrr");
        ops.config.flags = Flags::ONE_PACKET;
        let servers: Vec<_> = (0..500).map(numbered_virtual).chain([v6, odd, ops]).collect();
        // One virtual server has more than a dump of one datagram can hold, of another family too.
        let reals: Vec<_> = (0..3000)
            .map(|index| (numbered_virtual(index % 500).key, numbered(index)))
            .chain((3000..5000).map(|index| (numbered_virtual(0).key, numbered(index))))
            .chain([
                (v6.key, real("fd00::7", 8080, Forwarding::Masquerade, 3)),
                (odd.key, real("10.1.0.1", 0, Forwarding::Direct, 2)),
            ])
            .collect();
        let commands = servers
            .iter()
            .map(|server| Command::AddVirtualServer(*server))
            .chain(reals.iter().map(|(key, real)| Command::AddRealServer(*key, *real)));
        let report = client.execute(commands);
        assert!(report.is_success(), "{report:?}");

        let mut found: Vec<_> = virtual_servers(&mut client);
        let mut found_reals: Vec<_> = found
            .iter()
            .flat_map(|server| {
                let entries = client.real_servers(server.key).unwrap();
                entries.into_iter().map(|entry| (server.key, entry.server))
            })
            .collect();
        let by_key = |server: &VirtualServer| server.key;
        let by_keys = |(key, real): &(VirtualServerKey, RealServer)| (*key, real.key);
        let (mut servers, mut reals) = (servers, reals);
        servers.sort_unstable_by_key(by_key);
        found.sort_unstable_by_key(by_key);
        reals.sort_unstable_by_key(by_keys);
        found_reals.sort_unstable_by_key(by_keys);
        // Not assert_eq: the tables are too long to be printed.
        assert!(found == servers, "{} virtual servers, not as written", found.len());
        assert!(found_reals == reals, "{} real servers, not as written", found_reals.len());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn lost_replies_are_uncertain_and_not_successes() {
    in_namespace("lost_replies_are_uncertain_and_not_successes", || {
        const COUNT: usize = 500;
        let mut options = Client::options();
        (options.receive_buffer, options.limits) = (2304, Some(Limits::default()));
        let mut client = Client::open_with(&options).unwrap();
        // Every second one fails: far more replies than fit.
        let command = |index: usize| match index % 2 {
            0 => Command::AddVirtualServer(numbered_virtual(index as u32)),
            _ => Command::DeleteVirtualServer(tcp(index as u16)),
        };
        let report = client.execute((0..COUNT).map(command));
        assert_eq!((report.sent, report.sends), (COUNT, 1));
        assert!(!report.uncertain.is_empty());
        let uncertain = |index| report.uncertain.iter().any(|range| range.contains(&index));
        let failed = |index| report.failed.iter().any(|(at, _)| *at == index);
        for index in 0..COUNT {
            match index % 2 {
                0 => assert!(!failed(index), "{index} was carried out"),
                _ => assert!(failed(index) != uncertain(index), "{index} failed"),
            }
        }
        // What the kernel did is there to be read, and the connection still works.
        assert_eq!(client.virtual_servers().unwrap().len(), COUNT / 2);
        client.run(Command::Flush).unwrap();
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn everything_is_programmed_with_the_smallest_buffers() {
    in_namespace("everything_is_programmed_with_the_smallest_buffers", || {
        const COUNT: u32 = 500;
        for (send, receive, sends) in [(2304, 8 << 20, 10), (1 << 20, 2304, 200)] {
            let mut options = Client::options();
            (options.send_buffer, options.receive_buffer) = (send, receive);
            let mut client = Client::open_with(&options).unwrap();
            let add = || (0..COUNT).map(|index| Command::AddVirtualServer(numbered_virtual(index)));
            let report = client.execute(add());
            assert!(report.is_success(), "{:?}", report.failed.first());
            assert!(report.sends > sends, "{} sends: the buffer was not small", report.sends);
            let report = client.execute(add());
            assert_eq!((report.failed.len(), report.uncertain.len()), (COUNT as usize, 0));
            assert_eq!(client.virtual_servers().unwrap().len(), COUNT as usize);
            client.run(Command::Flush).unwrap();
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn virtual_servers_come_in_pieces_that_others_can_write_between() {
    in_namespace("virtual_servers_come_in_pieces_that_others_can_write_between", || {
        const COUNT: usize = 500;
        let mut writer = Client::open().unwrap();
        let add = |index: usize| Command::AddVirtualServer(numbered_virtual(index as u32));
        assert!(writer.execute((0..COUNT).map(add)).failed.is_empty());
        let whole = writer.virtual_servers().unwrap();

        let pieces = Client::open().unwrap().into_virtual_servers().unwrap();
        let pieces: Vec<_> = pieces.map(|piece| piece.unwrap()).collect();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.len() < 100));
        assert_eq!(pieces.concat(), whole);

        // Nothing that another one does ends the list, and what stays is in it but for a few that
        // lie where the kernel goes on after what was deleted.
        let pieces = Client::open().unwrap().into_virtual_servers().unwrap();
        let mut seen = BTreeSet::new();
        let mut gone = 0;
        for piece in pieces {
            seen.extend(piece.unwrap().into_iter().map(|entry| entry.server.key));
            if gone < 10 {
                writer.run(Command::DeleteVirtualServer(whole[gone].server.key)).unwrap();
                gone += 1;
                writer.run(add(COUNT + gone)).unwrap();
            }
        }
        assert_eq!(gone, 10);
        let stayed = whole[gone..].iter().filter(|entry| seen.contains(&entry.server.key));
        assert!(stayed.count() >= COUNT - 2 * gone);

        // A list that is left gives its connection back.
        let mut pieces = Client::open().unwrap().into_virtual_servers().unwrap();
        assert!(!pieces.next().unwrap().unwrap().is_empty());
        let mut client = pieces.into_client();
        assert_eq!(client.virtual_servers().unwrap().len(), COUNT);
        writer.run(Command::Flush).unwrap();
    });
}

/// Takes IPVS out of the kernel, and before it whatever uses it, and puts it in again. A namespace of
/// before may take a moment to go.
fn reload() {
    const SCRIPT: &str = r#"
        users() { awk '$1 == "ip_vs" { gsub(/[,-]/, " ", $4); print $4 }' /proc/modules; }
        unload() { for user in $(users); do rmmod "$user" || return 1; done; rmmod ip_vs; }
        until unload 2>/dev/null; do sleep 0.1; done
        modprobe ip_vs"#;
    let status = Process::new("bash").args(["-c", SCRIPT]).status().unwrap();
    assert!(status.success(), "load ip_vs again: {status}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_module_that_was_loaded_again_is_found_again() {
    in_namespace("a_module_that_was_loaded_again_is_found_again", || {
        let mut client = Client::open().unwrap();
        let before = client.family_id();
        client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap();
        client.run(Command::Flush).unwrap();
        reload();
        let report = client.execute([
            Command::AddVirtualServer(server(tcp(80), "rr")),
            Command::DeleteVirtualServer(tcp(81)),
            Command::AddRealServer(tcp(80), numbered(1)),
        ]);
        assert_eq!(report.failed.len(), 1, "{report:?}");
        assert_eq!(report.failed[0].1.kind(), ErrorKind::NotFound);
        assert_eq!(saved().len(), 2, "{:?}", saved());
        assert_ne!(client.family_id(), before);

        client.run(Command::Flush).unwrap();
        reload();
        // What a read finds out, a command knows.
        assert_eq!(client.virtual_servers().unwrap(), []);
        client.run(Command::AddVirtualServer(server(tcp(80), "rr"))).unwrap();
        client.run(Command::Flush).unwrap();
        reload();
        assert_eq!(client.timeouts().unwrap().tcp, 900);
        reload();
        let pieces = client.into_virtual_servers().unwrap();
        let pieces: Vec<_> = pieces.map(|piece| piece.unwrap()).collect();
        assert_eq!(pieces.concat(), []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn messages_work_over_a_transport_of_ones_own() {
    in_namespace("messages_work_over_a_transport_of_ones_own", || {
        let family_id = Client::open().unwrap().family_id();
        let mut socket = Socket::new(NETLINK_GENERIC).unwrap();
        socket.bind_auto().unwrap();
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        let exchange = |message: IpvsMessage, flags: u16| {
            let mut genl = GenlMessage::from_payload(message);
            genl.set_resolved_family_id(family_id);
            let mut request = NetlinkMessage::from(genl);
            request.header.flags = NLM_F_REQUEST | flags;
            request.finalize();
            let mut bytes = vec![0; request.buffer_len()];
            request.serialize(&mut bytes);
            socket.send(&bytes, 0).unwrap();
            let mut reply = Vec::with_capacity(8192);
            socket.recv(&mut reply, 0).unwrap();
            NetlinkMessage::<GenlMessage<IpvsMessage>>::deserialize(&reply).unwrap().payload
        };
        let wanted = server(tcp(80), "sed");
        let ack = exchange(IpvsMessage::from(&Command::AddVirtualServer(wanted)), NLM_F_ACK);
        assert!(matches!(ack, NetlinkPayload::Error(ref error) if error.code.is_none()));
        let NetlinkPayload::InnerMessage(reply) =
            exchange(IpvsMessage::get_virtual_server(&tcp(80)), 0)
        else {
            panic!("no virtual server");
        };
        assert_eq!(reply.payload.to_virtual_server().unwrap().server, wanted);
    });
}
