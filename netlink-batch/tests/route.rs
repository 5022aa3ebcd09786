//! Against this machine's kernel, over questions that need no permission: the link with an index
//! that no link has.

#![allow(clippy::unwrap_used, reason = "tests")]

use netlink_batch::{Batch, ErrorKind, Failure, Limits, Options, Socket};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::Socket as Raw;
use rustix::io::Errno;
use rustix::net::sockopt;

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;

fn get_link(batch: &mut Batch, index: u32) {
    batch.push(RTM_GETLINK, 0, |out| {
        out.extend([0; 4]); // struct ifinfomsg
        out.extend(index.to_ne_bytes());
        out.extend([0; 8]);
    });
}

fn link(place: usize) -> u32 {
    1_000_000 + place as u32
}

/// A socket with buffers that the system gave it, not forced ones.
fn with_buffers(receive: usize, send: usize, limits: Option<Limits>) -> Socket {
    let mut raw = Raw::new(NETLINK_ROUTE).unwrap();
    raw.bind_auto().unwrap();
    let mut options = Options::default();
    (options.receive_buffer, options.send_buffer, options.limits) = (receive, send, limits);
    // The same size by the way that needs no permission, in case that forcing does.
    sockopt::set_socket_recv_buffer_size(&raw, receive).unwrap();
    sockopt::set_socket_send_buffer_size(&raw, send).unwrap();
    Socket::over(raw, NETLINK_ROUTE, &options).unwrap()
}

fn refused(socket: &mut Socket, count: usize) -> netlink_batch::Report<(usize, Failure)> {
    socket.execute(
        0..count,
        |batch, place| get_link(batch, link(*place)),
        |place, failure| Some((*place, failure)),
    )
}

fn all_are_refused(socket: &mut Socket, count: usize) -> usize {
    let report = refused(socket, count);
    assert_eq!((report.sent, report.failed.len()), (count, count), "{:?}", report.uncertain);
    for (place, (at, (command, failure))) in report.failed.iter().enumerate() {
        assert_eq!((place, place), (*at, *command));
        assert!(failure.is_refusal(Errno::NODEV), "{failure}");
    }
    assert_eq!(report.uncertain, []);
    report.sends
}

#[test]
fn each_refusal_lands_on_its_request() {
    let mut socket = Socket::open(NETLINK_ROUTE, &Options::default()).unwrap();
    let sends = all_are_refused(&mut socket, 2000);
    let most = 2000_usize.div_ceil(socket.limits().commands);
    assert!(sends <= most, "{sends}");
    let error = socket.run(|batch| get_link(batch, link(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// What the socket takes is learned from its buffer, or from the kernel's refusal.
#[test]
fn messages_are_split_to_what_the_send_buffer_takes() {
    let mut told = with_buffers(1 << 20, 2304, None);
    assert!(told.limits().bytes < 5000, "{:?}", told.limits());
    assert!(all_are_refused(&mut told, 1000) > 5);
    let mut learns =
        with_buffers(1 << 20, 2304, Some(Limits { commands: 64, ..Limits::default() }));
    let before = learns.limits();
    learns
        .execute(
            0..64,
            |batch, _| batch.push(RTM_GETLINK, 0, |out| out.extend([0; 1000])),
            |_, failure| Some(failure),
        )
        .failed
        .iter()
        .for_each(|(_, failure)| assert!(matches!(failure, Failure::Refused(_))));
    assert!(learns.limits().bytes < before.bytes, "{:?}", learns.limits());
    all_are_refused(&mut learns, 100);
}

#[test]
fn few_requests_go_at_once_where_the_receive_buffer_is_small() {
    let mut socket = with_buffers(2304, 1 << 20, None);
    assert!(socket.limits().commands < 10, "{:?}", socket.limits());
    all_are_refused(&mut socket, 100);
}

#[test]
fn lost_replies_are_uncertain_and_nothing_else_is() {
    let mut socket = with_buffers(2304, 1 << 20, Some(Limits::default()));
    let report = refused(&mut socket, 500);
    let uncertain: usize = report.uncertain.iter().map(ExactSizeIterator::len).sum();
    assert!(uncertain > 0);
    assert_eq!(report.failed.len() + uncertain, 500);
    assert!(report.failed.iter().all(|(at, _)| !report.uncertain.iter().any(|r| r.contains(at))));
    // The socket still works.
    let error = socket.run(|batch| get_link(batch, link(1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn lists_and_questions_are_answered_also_after_a_list_that_was_left() {
    let mut socket = Socket::open(NETLINK_ROUTE, &Options::default()).unwrap();
    let links = |batch: &mut Batch| get_link(batch, 0);
    let indices = |socket: &mut Socket| {
        socket.dump(links, |list: &mut Vec<u32>, message| {
            let index = message.payload.get(4..).and_then(|rest| rest.first_chunk());
            list.extend(index.map(|bytes| u32::from_ne_bytes(*bytes)));
            Ok(())
        })
    };
    let all = indices(&mut socket).unwrap();
    assert!(!all.is_empty(), "loopback at least");
    let mut left = socket.begin(links).unwrap();
    assert_eq!(indices(&mut socket).unwrap(), all);
    assert!(socket.piece(&mut left, |_| Ok(())).unwrap().is_err(), "never a shorter list");
    socket.begin(|batch| batch.push(RTM_GETADDR, 0, |out| out.extend([0; 8]))).unwrap();
    let flags = socket.ask(|batch| get_link(batch, all[0]), |message| Ok(message.kind)).unwrap();
    assert_eq!(flags, 16, "RTM_NEWLINK");
    let error = socket.ask(|batch| get_link(batch, link(1)), |_| Ok(())).unwrap_err();
    assert!(error.is_refusal(Errno::NODEV), "{error}");
}
