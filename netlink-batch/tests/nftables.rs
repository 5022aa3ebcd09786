//! What a codec for nftables needs of this crate, against this machine's kernel: User-mode Linux has
//! no nftables for IPv4.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

use netlink_batch::netfilter::{self, Header, Rejected};
use netlink_batch::{Batch, Failure, Notifications, PutAttributes, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

const SUBSYSTEM: u8 = 10;
const NFNLGRP_NFTABLES: u32 = 7;

// linux/netfilter/nf_tables.h
const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const NEW_GENERATION: u8 = 15;
const GET_GENERATION: u8 = 16;
const TABLE_NAME: u16 = 1;
const GENERATION_ID: u16 = 1;

const fn header(command: u8, flags: u16) -> Header {
    Header { subsystem: SUBSYSTEM, command, flags, family: 2 }
}

fn tables(socket: &mut Socket) -> Vec<String> {
    let all = |batch: &mut Batch| netfilter::push(batch, header(GET_TABLE, 0), |_| ());
    let list = socket.dump(all, |list: &mut Vec<String>, message| {
        let name = netfilter::attributes(message)?.find(TABLE_NAME)?.unwrap();
        list.push(name.text()?.to_owned());
        Ok(())
    });
    list.unwrap()
}

fn generation(socket: &mut Socket) -> u32 {
    let question = |batch: &mut Batch| netfilter::push(batch, header(GET_GENERATION, 0), |_| ());
    let answer = socket.ask(question, |message| {
        netfilter::attributes(message)?.find(GENERATION_ID)?.unwrap().be32()
    });
    answer.unwrap()
}

/// Makes these tables, none of which may be there.
fn make(socket: &mut Socket, generation: Option<u32>, names: &[&str]) -> Result<(), Rejected> {
    netfilter::transaction(socket, SUBSYSTEM, generation, |batch| {
        for name in names {
            let header = header(NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL);
            netfilter::push(batch, header, |out| out.text(TABLE_NAME, name));
        }
    })
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn a_transaction_is_all_or_nothing_and_tells_others() {
    let test = "a_transaction_is_all_or_nothing_and_tells_others";
    own_namespace::in_namespace(test, &["--map-root-user"], || {
        let mut told = Notifications::open(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES]).unwrap();
        let mut socket = netfilter::open().unwrap();
        let before = generation(&mut socket);
        make(&mut socket, Some(before), &["one", "two"]).unwrap();
        make(&mut socket, None, &[]).unwrap();
        assert_eq!(tables(&mut socket), ["one", "two"]);

        let mut commands = Vec::new();
        let mut note = |message: Header| commands.push((message.subsystem, message.command));
        while told.receive(|message| note(Header::of(&message.unwrap()).unwrap())).unwrap() {}
        let expected = [NEW_TABLE, NEW_TABLE, NEW_GENERATION].map(|command| (SUBSYSTEM, command));
        assert_eq!(commands, expected);

        // Those that are refused are named, and nothing is done.
        let rejected = make(&mut socket, None, &["three", "two", "one"]).unwrap_err();
        let refused: Vec<_> = rejected.requests.iter().map(|(index, _)| *index).collect();
        assert_eq!(refused, [1, 2]);
        assert!(rejected.failure.is_refusal(Errno::EXIST), "{}", rejected.failure);
        // One that is meant for an older generation is about nothing in particular.
        let rejected = make(&mut socket, Some(before), &["three"]).unwrap_err();
        assert_eq!(rejected.requests, []);
        assert!(rejected.failure.is_refusal(Errno::RESTART), "{}", rejected.failure);
        // So is one that is longer than a send buffer may be: the kernel doubles what is asked for.
        // Older kernels do not show how long in a network namespace.
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
        let most: usize = most.map_or(4 << 20, |text| text.trim().parse().unwrap());
        let long = vec!["three"; 2 * most / 32];
        let rejected = make(&mut socket, None, &long).unwrap_err();
        let expected = Failure::System(Errno::MSGSIZE.raw_os_error());
        assert_eq!((rejected.requests, rejected.failure), (Vec::new(), expected));

        assert_eq!(tables(&mut socket), ["one", "two"]);
        assert!(!told.receive(|_| ()).unwrap(), "nobody is told of what was not done");
        assert_ne!(generation(&mut socket), before);
        make(&mut socket, None, &["three"]).unwrap();
        assert_eq!(tables(&mut socket).len(), 3);
    });
}
