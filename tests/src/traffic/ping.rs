//! One ICMP echo request.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

/// Asks and waits for the answer. The namespace must allow it (`net/ipv4/ping_group_range`).
pub fn ping(address: IpAddr, limit: Duration) -> io::Result<()> {
    let (family, protocol, request) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let kind = SocketType::DGRAM;
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(limit))?;
    // Connected, so that the kernel hands us the ICMP errors.
    connect(&socket, &SocketAddr::new(address, 0))?;
    // Type, code, checksum, identifier, sequence number: the kernel fills in the third and fourth.
    let socket = UdpSocket::from(socket);
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1])?;
    socket.recv(&mut [0; 64])?;
    Ok(())
}
