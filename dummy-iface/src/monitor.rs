//! Changes of addresses and interfaces as they happen.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_batch::{Error, Failure, Malformed, Message, Notifications};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{protocols::NETLINK_ROUTE, Socket};
use socket2::{SockFilter, SockRef};
use tokio::io::unix::AsyncFd;

use crate::error::failed;
use crate::host::Entry;
use crate::link::LOOPBACK;
use crate::local::{self, ListedRoute, LOCAL_TABLE};
use crate::own::Asked;
use crate::route::{ports, read, PORTS_MASK};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const GROUPS: &[u32] = &[1, 5, 9];
/// The same with `RTNLGRP_IPV4_ROUTE` and `RTNLGRP_IPV6_ROUTE`.
const GROUPS_WITH_ROUTES: &[u32] = &[1, 5, 7, 9, 11];

/// `RTM_NEWROUTE`, `RTM_DELROUTE` and `RTPROT_KERNEL` of `linux/rtnetlink.h`.
const NEW_ROUTE: u16 = 24;
const DELETED_ROUTE: u16 = 25;
const MADE_BY_KERNEL: u8 = 2;

/// Reports what others change on the interfaces of this network namespace.
///
/// Addresses and routes that this process adds or removes with
/// [`DummyInterface`](crate::DummyInterface) are not reported. Of routes and IPv4 addresses the kernel
/// does not even tell the monitor, so that ten thousand of them neither cost a system call each nor
/// drown those of others; nor of routes outside the table `local`, of which a router may have a
/// million.
///
/// Everything after [`open`](Self::open) is reported, so open first and list then. The socket has
/// the system's default buffer: a burst of some hundred changes ends in one [`Event::Overrun`],
/// which is cheaper to follow than each of them.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<Notifications>,
    groups: &'static [u32],
    pending: VecDeque<Event>,
    asked: Arc<Asked>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An address came, changed or went that is neither IPv6 link-local nor a loopback address on the
    /// loopback interface.
    Address {
        /// Index of its interface.
        interface: u32,
        /// The address.
        address: IpAddr,
        /// Whether it is there now.
        added: bool,
    },
    /// A route of the table `local` came, changed or went, which is not one that the kernel has for an
    /// address. It does not tell of those that go with their interface. Only of a monitor that was
    /// opened [with routes](Monitor::open_with_routes).
    Route {
        /// Index of its interface.
        interface: u32,
        /// The network that it leads to.
        destination: IpAddr,
        /// Length of its prefix in bits.
        prefix_len: u8,
        /// Whether it is there now.
        added: bool,
    },
    /// An interface came, changed or went. Also reported for changes that are not shown here.
    Link {
        /// Its index.
        index: u32,
        /// Its name now.
        name: String,
        /// Whether it is administratively up (`IFF_UP`).
        up: bool,
        /// Whether it is gone.
        deleted: bool,
    },
    /// Changes were lost: list again. What is reported afterwards is newer than this event.
    Overrun,
}

impl Monitor {
    /// Starts to follow the namespace of the calling thread. Needs a tokio runtime, no privilege.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn open() -> Result<Self, Error> {
        Self::of(GROUPS)
    }

    /// The same, and reports [local routes](Event::Route), too. The kernel then looks at every change of
    /// any route for it.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn open_with_routes() -> Result<Self, Error> {
        Self::of(GROUPS_WITH_ROUTES)
    }

    fn of(groups: &'static [u32]) -> Result<Self, Error> {
        let asked = Asked::from_now_on();
        let socket =
            follow(groups).map_err(|error| failed("follow changes of interfaces", error))?;
        Ok(Self { socket, groups, pending: VecDeque::new(), asked })
    }

    /// Waits for the next change. Cancelling loses nothing.
    ///
    /// # Errors
    /// If the socket cannot be read; open a new monitor and list again.
    pub async fn changed(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let mut ready = self.socket.readable_mut().await.map_err(unreadable)?;
            let (pending, asked) = (&mut self.pending, &self.asked);
            let received = ready.get_inner_mut().receive(|message| {
                // A change that cannot be read is one that the caller has to look for.
                let event = event(message).unwrap_or(Some(Event::Overrun));
                pending.extend(event.filter(|event| is_news(event, asked)));
            });
            match received {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                Err(Failure::Lost(_)) => {
                    // What is queued is older than the list that follows, and would undo in the
                    // caller's mind what the lost messages said. A new socket has none of it.
                    self.socket = follow(self.groups).map_err(unreadable)?;
                    self.asked.lost();
                    return Ok(Event::Overrun);
                }
                Err(failure) => return Err(unreadable(failure)),
            }
        }
    }
}

// What replaces `AsyncFd::new` is unsafe; this descriptor lives as long as its owner.
#[allow(deprecated)]
fn follow(groups: &[u32]) -> io::Result<AsyncFd<Notifications>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    SockRef::from(&socket).attach_filter(&news())?;
    AsyncFd::new(Notifications::over(socket, groups)?)
}

/// Drops messages whose `nlmsg_pid`, the port of who asked for the change, is one of ours, and those about
/// routes that are in another table than `local` or that the kernel has made. Classic BPF
/// (`linux/filter.h`), which reads words in network byte order.
fn news() -> [SockFilter; 12] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
                              // In `struct nlmsghdr`, and in `struct rtmsg` after it.
    const TYPE_AT: u32 = 4;
    const PORT_AT: u32 = 12;
    const TABLE_AT: u32 = 20;
    const PROTOCOL_AT: u32 = 21;
    // Where a jump leads, counted from the instruction after it.
    const NEXT: u8 = 0;
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        SockFilter::new(LOAD_WORD, 0, 0, PORT_AT),
        SockFilter::new(AND, 0, 0, PORTS_MASK.to_be()),
        SockFilter::new(JUMP_IF_EQUAL, 8, NEXT, ports().to_be()),
        SockFilter::new(LOAD_HALF, 0, 0, TYPE_AT),
        SockFilter::new(JUMP_IF_EQUAL, 1, NEXT, kind(NEW_ROUTE)),
        SockFilter::new(JUMP_IF_EQUAL, NEXT, 4, kind(DELETED_ROUTE)),
        SockFilter::new(LOAD_BYTE, 0, 0, TABLE_AT),
        SockFilter::new(JUMP_IF_EQUAL, NEXT, 3, u32::from(LOCAL_TABLE)),
        SockFilter::new(LOAD_BYTE, 0, 0, PROTOCOL_AT),
        SockFilter::new(JUMP_IF_EQUAL, 1, NEXT, u32::from(MADE_BY_KERNEL)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn unreadable(failure: impl Into<Failure>) -> Error {
    failed("read changes of interfaces", failure)
}

fn event(message: Result<Message<'_>, Malformed>) -> Result<Option<Event>, Malformed> {
    Ok(match read(&message?)? {
        Some(RouteNetlinkMessage::NewAddress(message)) => address(&message, true),
        Some(RouteNetlinkMessage::DelAddress(message)) => address(&message, false),
        Some(RouteNetlinkMessage::NewRoute(message)) => route(&message, true),
        Some(RouteNetlinkMessage::DelRoute(message)) => route(&message, false),
        Some(RouteNetlinkMessage::NewLink(message)) => Some(link(&message, false)),
        Some(RouteNetlinkMessage::DelLink(message)) => Some(link(&message, true)),
        _ => None,
    })
}

/// Whether others have done it.
fn is_news(event: &Event, asked: &Asked) -> bool {
    match *event {
        Event::Address { interface, address, added } => !asked.expects(interface, address, added),
        Event::Link { index, deleted: true, .. } => {
            asked.gone(index);
            true
        }
        Event::Route { .. } | Event::Link { .. } | Event::Overrun => true,
    }
}

fn address(message: &AddressMessage, added: bool) -> Option<Event> {
    let entry = Entry::of(message).filter(|entry| entry.is_reachable() || is_misplaced(entry))?;
    let Entry { interface, assigned } = entry;
    Some(Event::Address { interface, address: assigned.address, added })
}

/// A loopback address on another interface, where only somebody who means something by it puts it.
fn is_misplaced(entry: &Entry) -> bool {
    entry.assigned.address.is_loopback() && entry.interface != LOOPBACK
}

fn route(message: &RouteMessage, added: bool) -> Option<Event> {
    let (route, _) = local::of(message)?;
    let ListedRoute { interface, destination, prefix_len, .. } = route;
    Some(Event::Route { interface, destination, prefix_len, added })
}

fn link(message: &LinkMessage, deleted: bool) -> Event {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    Event::Link {
        index: message.header.index,
        name: name.unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
        deleted,
    }
}
