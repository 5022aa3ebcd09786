//! rtnetlink over the floor's socket: ports by which our changes are known, and typed messages.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::OnceLock;

use netlink_batch::{Batch, Malformed, Message, Options, Socket};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, NetlinkSerializable as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{protocols::NETLINK_ROUTE, Socket as Raw, SocketAddr};

/// The ports (`nl_pid`) of this process's sockets have this in all but their last byte, so that a
/// [`Monitor`](crate::Monitor) knows whose changes it is told of: random, above every process
/// number, and below what the kernel gives a socket that asks for none.
pub(crate) fn ports() -> u32 {
    static PORTS: OnceLock<u32> = OnceLock::new();
    *PORTS.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id());
        0x4000_0000 | (random as u32 & 0x3fff_ff00)
    })
}

/// The part of a port that is in [`ports`].
pub(crate) const PORTS_MASK: u32 = 0xffff_ff00;

/// A socket for requests.
pub(crate) fn open() -> io::Result<Socket> {
    let mut raw = Raw::new(NETLINK_ROUTE)?;
    bind(&mut raw)?;
    // Lets the kernel filter dumps (since 4.20).
    let _ = raw.set_netlink_get_strict_chk(true);
    Socket::over(raw, NETLINK_ROUTE, &Options::default())
}

/// Gives a socket the first free one of our ports, or any when none is free.
fn bind(socket: &mut Raw) -> io::Result<()> {
    for number in 0..=!PORTS_MASK {
        match socket.bind(&SocketAddr::new(ports() | number, 0)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    socket.bind_auto().map(drop)
}

/// Appends a request.
pub(crate) fn push(batch: &mut Batch, message: &RouteNetlinkMessage, flags: u16) {
    batch.push(message.message_type(), flags, |out| {
        let start = out.len();
        out.resize(start + message.buffer_len(), 0);
        message.serialize(&mut out[start..]);
    });
}

/// Reads a message of rtnetlink; `None` if it is another.
pub(crate) fn read(message: &Message<'_>) -> Result<Option<RouteNetlinkMessage>, Malformed> {
    let message = NetlinkMessage::deserialize(message.whole);
    match message.map_err(|_| Malformed("rtnetlink message"))?.payload {
        NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
        _ => Ok(None),
    }
}
