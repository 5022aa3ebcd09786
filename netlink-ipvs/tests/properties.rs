//! What must hold for every value: the two encoders agree, decoding undoes encoding, replies find
//! their commands, and no bytes make anything panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use netlink_ipvs::message::IpvsMessage;
use netlink_ipvs::{
    Batch, Command, ErrorKind, Family, Flags, Forwarding, Limits, Protocol, RealServer,
    RealServerConfig, RealServerKey, Report, Scheduler, SyncDaemon, SyncRole, Timeouts, Tunnel,
    VirtualServer, VirtualServerConfig, VirtualServerKey,
};
use netlink_packet_core::{
    NetlinkMessage, ParseableParametrized, NLMSG_ERROR, NLM_F_ACK, NLM_F_CAPPED, NLM_F_REQUEST,
};
use netlink_packet_generic::{GenlHeader, GenlMessage};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

const FAMILY_ID: u16 = 0x1c;
const HEADERS: usize = 20;

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        3 => prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        1 => any::<u16>().prop_map(Protocol::from_number),
    ]
}

fn virtual_server_key() -> impl Strategy<Value = VirtualServerKey> {
    prop_oneof![
        3 => (any::<IpAddr>(), any::<u16>(), protocol())
            .prop_map(|(address, port, protocol)| VirtualServerKey::new(address, port, protocol)),
        1 => (1..=u32::MAX, prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)])
            .prop_map(|(mark, family)| VirtualServerKey::FirewallMark { mark, family }),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9_-]{1,15}"
}

fn virtual_server() -> impl Strategy<Value = VirtualServer> {
    (virtual_server_key(), name(), any::<u32>(), any::<u32>(), 0..=128u8, option::of(name()))
        .prop_map(|(key, scheduler, flags, timeout, prefix_len, persistence_engine)| {
            let longest = if key.family() == Family::Ipv4 { 32 } else { 128 };
            let scheduler = scheduler.parse::<Scheduler>().unwrap();
            let mut config = VirtualServerConfig::new(scheduler, key.family());
            config.flags = Flags::from_bits(flags);
            config.timeout = timeout;
            config.prefix_len = prefix_len.min(longest);
            config.persistence_engine = persistence_engine.map(|name| name.parse().unwrap());
            VirtualServer { key, config }
        })
}

fn real_server_key() -> impl Strategy<Value = RealServerKey> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| RealServerKey::new(address, port))
}

fn forwarding() -> impl Strategy<Value = Forwarding> {
    prop_oneof![
        Just(Forwarding::Masquerade),
        Just(Forwarding::LocalNode),
        Just(Forwarding::Direct),
        Just(Forwarding::Bypass),
        Just(Forwarding::Tunnel(Tunnel::Ipip)),
        (any::<u16>(), any::<u16>())
            .prop_map(|(port, flags)| Forwarding::Tunnel(Tunnel::Gue { port, flags })),
        any::<u16>().prop_map(|flags| Forwarding::Tunnel(Tunnel::Gre { flags })),
        (3..=u8::MAX, any::<u16>(), any::<u16>()).prop_map(|(kind, port, flags)| {
            Forwarding::Tunnel(Tunnel::Other { kind, port, flags })
        }),
        (5..=Forwarding::MAX).prop_map(Forwarding::Other),
    ]
}

fn real_server() -> impl Strategy<Value = RealServer> {
    (real_server_key(), forwarding(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(key, forwarding, weight, upper_threshold, lower_threshold)| {
            let mut config = RealServerConfig::new(forwarding, weight);
            config.upper_threshold = upper_threshold;
            config.lower_threshold = lower_threshold;
            RealServer { key, config }
        },
    )
}

fn sync_role() -> impl Strategy<Value = SyncRole> {
    prop_oneof![Just(SyncRole::Master), Just(SyncRole::Backup)]
}

fn sync_daemon() -> impl Strategy<Value = SyncDaemon> {
    let numbers = (any::<u32>(), any::<u16>(), any::<u8>(), any::<u16>());
    (sync_role(), name(), numbers, option::of(any::<IpAddr>())).prop_map(
        |(role, interface, (sync_id, port, ttl, max_message), group)| {
            let mut daemon = SyncDaemon::new(role, interface.parse().unwrap(), sync_id);
            (daemon.group, daemon.port) = (group, port);
            (daemon.ttl, daemon.max_message) = (ttl, max_message);
            daemon
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        virtual_server().prop_map(Command::AddVirtualServer),
        virtual_server().prop_map(Command::SetVirtualServer),
        virtual_server_key().prop_map(Command::DeleteVirtualServer),
        (virtual_server_key(), real_server()).prop_map(|(key, r)| Command::AddRealServer(key, r)),
        (virtual_server_key(), real_server()).prop_map(|(key, r)| Command::SetRealServer(key, r)),
        (virtual_server_key(), real_server_key())
            .prop_map(|(key, r)| Command::DeleteRealServer(key, r)),
        (any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(tcp, tcp_fin, udp)| Command::SetTimeouts(Timeouts { tcp, tcp_fin, udp })),
        Just(Command::Flush),
        option::of(virtual_server_key()).prop_map(Command::Zero),
        sync_daemon().prop_map(Command::StartSync),
        sync_role().prop_map(Command::StopSync),
    ]
}

fn batch_of(commands: &[Command], first_sequence: u32) -> Batch {
    let mut batch = Batch::new(FAMILY_ID, Limits { commands: 4096, bytes: 1 << 20 });
    batch.clear(first_sequence);
    for command in commands {
        assert!(batch.has_room());
        batch.push(*command);
    }
    batch
}

/// The message of one command, by the append-only writer.
fn written(command: Command) -> Vec<u8> {
    batch_of(&[command], 7).bytes().to_vec()
}

fn parse(message: &[u8]) -> Option<IpvsMessage> {
    let header = GenlHeader::parse(message).ok()?;
    IpvsMessage::parse_with_param(&message[4..], header).ok()
}

/// An acknowledgement (`errno` 0) or error reply, capped as on our socket.
fn reply(sequence: u32, errno: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(36u32.to_ne_bytes());
    bytes.extend(NLMSG_ERROR.to_ne_bytes());
    bytes.extend(NLM_F_CAPPED.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend((-errno).to_ne_bytes());
    bytes.extend([0; 16]);
    bytes
}

proptest! {
    #[test]
    fn another_transport_sends_the_same_bytes(command in command()) {
        let mut genl = GenlMessage::from_payload(IpvsMessage::from(&command));
        genl.set_resolved_family_id(FAMILY_ID);
        let mut message = NetlinkMessage::from(genl);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.header.sequence_number = 7;
        message.finalize();
        let mut typed = vec![0; message.buffer_len()];
        message.serialize(&mut typed);
        prop_assert_eq!(written(command), typed);
    }

    #[test]
    fn decoding_undoes_encoding(command in command()) {
        let message = parse(&written(command)[16..]).unwrap();
        prop_assert_eq!(message.to_command().unwrap(), command);
    }

    #[test]
    fn unknown_attributes_change_nothing(command in command(), kind in 100..0x3fffu16, value in vec(any::<u8>(), 0..40)) {
        let mut bytes = written(command)[16..].to_vec();
        let mut unknown = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        unknown.extend(kind.to_ne_bytes());
        unknown.extend(&value);
        unknown.resize(unknown.len().next_multiple_of(4), 0);
        let nested = !matches!(command, Command::SetTimeouts(_) | Command::Flush | Command::Zero(None));
        if nested {
            // First of the first nested attribute, and last of all.
            let length = u16::from_ne_bytes([bytes[4], bytes[5]]) + unknown.len() as u16;
            bytes[4..6].copy_from_slice(&length.to_ne_bytes());
            bytes.splice(8..8, unknown.iter().copied());
        }
        bytes.extend(&unknown);
        prop_assert_eq!(parse(&bytes).unwrap().to_command().unwrap(), command);
    }

    #[test]
    fn a_batch_stays_within_its_limits(commands in vec(command(), 1..8), bytes in 200usize..1 << 16, limit in 1usize..600) {
        let mut batch = Batch::new(FAMILY_ID, Limits { bytes, commands: limit });
        let mut endless = commands.iter().cycle();
        while batch.has_room() {
            batch.push(*endless.next().unwrap());
        }
        prop_assert!(batch.len() <= limit);
        prop_assert!(batch.bytes().len() <= bytes);
    }

    /// Any of the commands fail; the replies come in order, in datagrams cut anywhere.
    #[test]
    fn replies_find_their_commands(
        commands in vec(command(), 1..40),
        failing in vec((any::<Index>(), 1..100i32), 0..20),
        cuts in vec(any::<bool>(), 40),
        first_sequence in any::<u32>(),
        before in 0..1000usize,
    ) {
        let mut batch = batch_of(&commands, first_sequence);
        let mut errnos = vec![0; commands.len()];
        for (index, errno) in failing {
            errnos[index.index(commands.len())] = errno;
        }
        let last = commands.len() - 1;
        let mut answered = batch.absorb(&reply(first_sequence.wrapping_sub(1), 17));
        prop_assert!(!answered, "a reply to an older request");
        let mut datagram = Vec::new();
        for (index, &errno) in errnos.iter().enumerate() {
            if errno != 0 || index == last {
                datagram.extend(reply(first_sequence.wrapping_add(index as u32), errno));
            }
            if cuts[index] {
                answered = batch.absorb(&std::mem::take(&mut datagram));
            }
        }
        if !answered {
            answered = batch.absorb(&datagram);
        }
        prop_assert!(answered);

        let mut report = Report { sent: before, ..Report::default() };
        batch.conclude(&mut report);
        prop_assert_eq!(report.sent, before + commands.len());
        prop_assert!(report.uncertain.is_empty());
        let failed: Vec<_> = report
            .failed
            .iter()
            .map(|(index, error)| (*index, error.errno().unwrap(), *error.command().unwrap()))
            .collect();
        let expected: Vec<_> = (0..commands.len())
            .filter(|&index| errnos[index] != 0)
            .map(|index| (before + index, errnos[index], commands[index]))
            .collect();
        prop_assert_eq!(failed, expected);
    }

    /// Some replies are lost: what has none is uncertain, what has one is not.
    #[test]
    fn lost_replies_leave_no_command_a_success(
        commands in vec(command(), 1..40),
        received in vec(option::of(1..100i32), 40),
        last_is_acknowledged in any::<bool>(),
    ) {
        let mut batch = batch_of(&commands, 1000);
        let last = commands.len() - 1;
        for (index, errno) in received.iter().enumerate().take(last) {
            if let Some(errno) = errno {
                batch.absorb(&reply(1000 + index as u32, *errno));
            }
        }
        if last_is_acknowledged {
            prop_assert!(batch.absorb(&reply(1000 + last as u32, 0)));
        }
        batch.lost_replies(rustix::io::Errno::NOBUFS);
        let mut report = Report::default();
        batch.conclude(&mut report);
        for (index, errno) in received.iter().enumerate().take(commands.len()) {
            let failed = report.failed.iter().any(|(at, _)| *at == index);
            let uncertain = report.uncertain.iter().filter(|range| range.contains(&index)).count();
            let definite = if index == last { last_is_acknowledged } else { errno.is_some() };
            prop_assert_eq!(uncertain, usize::from(!definite), "command {}", index);
            prop_assert_eq!(failed, index != last && definite, "command {}", index);
        }
        prop_assert!(report.uncertain.iter().all(|range| !range.is_empty()));
    }

    #[test]
    fn nothing_arrives_when_the_send_fails(commands in vec(command(), 1..40)) {
        let mut batch = batch_of(&commands, 0);
        batch.not_sent(rustix::io::Errno::MSGSIZE);
        let mut report = Report::default();
        batch.conclude(&mut report);
        prop_assert_eq!(report.failed.len(), commands.len());
        prop_assert!(report.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Io));
        prop_assert!(report.uncertain.is_empty());
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_in_every_way(&bytes);
    }

    /// Bytes near valid ones reach further.
    #[test]
    fn damaged_messages_do_not_panic(
        command in command(),
        damage in vec((any::<Index>(), any::<u8>()), 0..6),
        length in any::<Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = written(command);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        read_in_every_way(&bytes);
        read_in_every_way(bytes.get(HEADERS..).unwrap_or_default());
    }
}

fn read_in_every_way(bytes: &[u8]) {
    batch_of(&[Command::Flush], 0).absorb(bytes);
    for number in 0..20 {
        let header = GenlHeader { cmd: number, version: 1 };
        if let Ok(message) = IpvsMessage::parse_with_param(bytes, header) {
            let _ = message.to_command();
            let _ = message.to_virtual_server();
            let _ = message.to_real_server(Family::Ipv6);
            let _ = message.to_timeouts();
            let _ = message.to_info();
            let _ = message.to_sync_daemon();
        }
    }
    if bytes.len() >= 4 {
        let _ = parse(bytes);
    }
}

#[test]
fn only_the_last_message_asks_for_an_acknowledgement() {
    let mut batch = batch_of(&[Command::Flush, Command::Zero(None), Command::Flush], 5);
    let bytes = batch.bytes();
    let flags: Vec<_> =
        bytes.chunks(HEADERS).map(|message| u16::from_ne_bytes([message[6], message[7]])).collect();
    assert_eq!(flags, [NLM_F_REQUEST, NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_ACK]);
}
