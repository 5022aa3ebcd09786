//! Sockets of three protocols, bound and with time limits.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol as Number, SocketFlags, SocketType, bind, connect, ipproto, listen,
    socket_with,
};

use super::{Place, Protocol};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that listens (or, for UDP, receives) at a place.
pub(super) fn listening(place: Place) -> io::Result<OwnedFd> {
    let socket = open(place)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &place.address)?;
    if place.protocol != Protocol::Udp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

/// A socket that is connected to a place; connecting, sending and receiving each take `limit` at most.
pub(super) fn connected(
    place: Place,
    source: Option<SocketAddr>,
    limit: Duration,
) -> io::Result<OwnedFd> {
    let socket = open(place)?;
    // The send timeout also limits connect.
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
    if let Some(source) = source {
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &source)?;
    }
    connect(&socket, &place.address)?;
    Ok(socket)
}

/// An IPv4-mapped address as the IPv4 address that it is.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn open(place: Place) -> io::Result<OwnedFd> {
    let family = if place.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number): (SocketType, Option<Number>) = match place.protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, number)?)
}
