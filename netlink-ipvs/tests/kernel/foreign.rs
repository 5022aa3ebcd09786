//! Entries that other programs make, and the daemons that nobody but an administrator starts.

use super::*;

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_foreign_entry_is_lost() {
    in_namespace("foreign::no_foreign_entry_is_lost", || {
        let mut client = Client::open().unwrap();
        let mut servers: Vec<_> = [0, 1, 50, 255, 256, u16::MAX]
            .map(|number| key("10.96.0.1", 80, Protocol::from_number(number)))
            .into_iter()
            .chain([key("fd00::1", 80, Protocol::Other(50)), tcp(80)])
            .map(|key| server(key, "rr"))
            .collect();
        for (at, server) in servers.iter_mut().enumerate() {
            server.config.flags = Flags::from_bits(!0 << at);
        }
        let mut unscheduled = server(tcp(81), "none");
        unscheduled.config.prefix_len = 0;
        servers.push(unscheduled);
        servers.sort();
        let report = client.execute(servers.iter().copied().map(Command::AddVirtualServer));
        assert!(report.is_success(), "{report:?}");

        let tunnel = |kind, port| Forwarding::Tunnel(Tunnel::Other { kind, port, flags: 0xffff });
        let mut reals: Vec<_> = (5..=7)
            .map(Forwarding::Other)
            .chain([tunnel(3, 7), tunnel(u8::MAX, 0)])
            .zip(1..)
            .map(|(forwarding, last)| real(&format!("10.1.0.{last}"), 80, forwarding, 1))
            .collect();
        reals.sort();
        for owner in [tcp(80), key("10.96.0.1", 80, Protocol::Other(50))] {
            let add = |real: &RealServer| Command::AddRealServer(owner, *real);
            let report = client.execute(reals.iter().map(add));
            assert!(report.is_success(), "{report:?}");
            assert_eq!(real_servers(&mut client, owner), reals);
        }

        assert_eq!(virtual_servers(&mut client), servers);
        for server in servers {
            assert_eq!(client.virtual_server(server.key).unwrap().server, server);
            client.run(Command::SetVirtualServer(server)).unwrap();
            client.run(Command::DeleteVirtualServer(server.key)).unwrap();
        }
        assert_eq!(client.virtual_servers().unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn synchronisation_daemons() {
    in_namespace("foreign::synchronisation_daemons", || {
        let link = "ip link add ha0 type dummy && ip address add 192.0.2.1/24 dev ha0 &&
                    ip address add fd00::5/64 dev ha0 nodad && ip link set ha0 up";
        assert!(Process::new("sh").args(["-c", link]).status().unwrap().success());
        let mut client = Client::open().unwrap();
        assert_eq!(client.sync_daemons().unwrap(), []);
        let on = |role, interface: &str, id| SyncDaemon::new(role, interface.parse().unwrap(), id);
        let mut backup = on(SyncRole::Backup, "ha0", 9);
        backup.group = Some("ff05::5".parse().unwrap());
        (backup.port, backup.ttl, backup.max_message) = (9000, 4, 1200);
        client.run(Command::StartSync(on(SyncRole::Master, "ha0", 7))).unwrap();
        client.run(Command::StartSync(backup)).unwrap();
        let master_line = "master sync daemon (mcast=ha0, syncid=7, maxlen=1472, \
                           group=224.0.0.81, port=8848, ttl=1)\n";
        let backup_line = "backup sync daemon (mcast=ha0, syncid=9, maxlen=1200, group=ff05::5, \
                           port=9000, ttl=4)\n";
        assert_eq!(ipvsadm("-Ln --daemon"), format!("{master_line}{backup_line}"));
        let mut master = on(SyncRole::Master, "ha0", 7);
        master.group = Some("224.0.0.81".parse().unwrap());
        (master.port, master.ttl, master.max_message) = (8848, 1, 1472);
        assert_eq!(client.sync_daemons().unwrap(), [master, backup]);

        let again = client.run(Command::StartSync(backup)).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Exists);
        client.run(Command::StopSync(SyncRole::Backup)).unwrap();
        let again = client.run(Command::StopSync(SyncRole::Backup)).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
        assert_eq!(again.to_string(), "stop the backup synchronisation daemon");
        let nowhere = Command::StartSync(on(SyncRole::Backup, "nosuch0", 1));
        assert_eq!(client.run(nowhere).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(ipvsadm("-Ln --daemon"), master_line);

        // Made by ipvsadm, read and stopped by us.
        ipvsadm("--start-daemon backup --mcast-interface ha0 --syncid 3");
        let found = client.sync_daemons().unwrap();
        assert_eq!((found[1].role, found[1].sync_id), (SyncRole::Backup, 3));
        for role in [SyncRole::Master, SyncRole::Backup] {
            client.run(Command::StopSync(role)).unwrap();
        }
        assert_eq!(ipvsadm("-Ln --daemon"), "");
    });
}
