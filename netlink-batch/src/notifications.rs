//! What the kernel says of its own accord.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::Socket as Raw;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::frame::messages;
use crate::socket::receive;
use crate::{Failure, Malformed, Message};

/// Bytes that one receive takes: no datagram is longer.
const DATAGRAM: usize = 64 << 10;

/// A socket that belongs to multicast groups, of the network namespace of the thread that opened
/// it.
///
/// It does not block: wait until its descriptor can be read (`poll`, or `AsyncFd` of tokio), then
/// [`receive`](Self::receive) until nothing is left. Its buffer is what the system gives a socket;
/// where that is too small for a burst, [`receive`](Self::receive) says that messages were lost.
#[derive(Debug)]
pub struct Notifications {
    raw: Raw,
    datagram: Vec<u8>,
}

impl Notifications {
    /// Joins groups (`RTNLGRP_*`, `NFNLGRP_*`) of a protocol such as `NETLINK_ROUTE`. Everything
    /// from now on is received, so open first and list then.
    pub fn open(protocol: isize, groups: &[u32]) -> io::Result<Self> {
        Self::over(Raw::new(protocol)?, groups)
    }

    /// As [`open`](Self::open), with a new socket on which something was set, such as a filter.
    pub fn over(mut raw: Raw, groups: &[u32]) -> io::Result<Self> {
        raw.bind_auto()?;
        raw.set_non_blocking(true)?;
        for group in groups {
            raw.add_membership(*group)?;
        }
        Ok(Self { raw, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Hands each message of the next datagram to `each`; `false` if no datagram is waiting. A
    /// malformed message is the last of its datagram.
    ///
    /// [`Failure::Lost`] says that messages were lost and what they were about has to be listed
    /// again. Those that still wait are older than that list: open another socket before.
    pub fn receive(
        &mut self,
        each: impl FnMut(Result<Message<'_>, Malformed>),
    ) -> Result<bool, Failure> {
        match receive(&self.raw, &mut self.datagram, RecvFlags::empty()) {
            Ok(()) => messages(&self.datagram).for_each(each),
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno @ (Errno::NOBUFS | Errno::MSGSIZE)) => {
                return Err(Failure::Lost(errno.raw_os_error()));
            }
            Err(errno) => return Err(Failure::System(errno.raw_os_error())),
        }
        Ok(true)
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl AsRawFd for Notifications {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_raw_fd()
    }
}
