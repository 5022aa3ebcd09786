//! The dummy interface itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_batch::{Error, ErrorKind, Malformed, Message, Socket};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{AddressFamily, SocketType};

use crate::address::{self, AddressChange, AssignedAddress, Report};
use crate::error::failed;
use crate::host::{self, Entry};
use crate::local::{self, RouteChange, Routes};
use crate::route;

/// The index of the loopback interface, in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A dummy interface (`ip link add NAME type dummy`) whose addresses this process manages.
///
/// Dropping the value leaves the interface as it is.
#[derive(Debug)]
pub struct DummyInterface {
    name: String,
    index: u32,
    socket: Mutex<Socket>,
}

/// What is on an interface at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Every address, but for the IPv6 link-local one that the kernel gives an interface that is
    /// up.
    pub addresses: BTreeSet<AssignedAddress>,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
}

/// How [`DummyInterface::ensure`] got its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ensured {
    /// It was not there and was made.
    Created,
    /// It was there and is used as it is.
    Adopted,
}

impl DummyInterface {
    /// The dummy interface of this name, made if there is none.
    ///
    /// A new one gets transmit queue length 0 and is left down, which is enough for the kernel
    /// to accept packets for its addresses. One that exists is taken as it is, up or down.
    ///
    /// # Errors
    /// [`ErrorKind::WrongKind`] if an interface of that name is not a dummy; it is not touched.
    /// [`ErrorKind::Unsupported`] if the kernel has no dummy module.
    pub fn ensure(name: &str) -> Result<(Self, Ensured), Error> {
        // Loads IPv6 where it is a module, which a message about an address does not.
        let _ = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None);
        if let Some(found) = Self::find(name)? {
            return Ok((found, Ensured::Adopted));
        }
        let operation = || format!("create dummy interface {name}");
        let mut message = named(name);
        message.attributes.extend([
            LinkAttribute::TxQueueLen(0),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]),
        ]);
        let request = RouteNetlinkMessage::NewLink(message);
        let created = open()?.run(|batch| route::push(batch, &request, NLM_F_CREATE | NLM_F_EXCL));
        let ensured = match created.map_err(|failure| failed(operation(), failure)) {
            Ok(()) => Ensured::Created,
            // Somebody else was faster.
            Err(error) if error.kind() == ErrorKind::Exists => Ensured::Adopted,
            Err(error) => return Err(error),
        };
        let disappeared =
            || Error::new(ErrorKind::NotFound, format!("{}: it disappeared at once", operation()));
        Ok((Self::find(name)?.ok_or_else(disappeared)?, ensured))
    }

    /// The dummy interface of this name, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::WrongKind`] if an interface of that name is not a dummy.
    pub fn find(name: &str) -> Result<Option<Self>, Error> {
        check_name(name)?;
        let mut socket = open()?;
        let request = RouteNetlinkMessage::GetLink(named(name));
        let answer = socket.ask(|batch| route::push(batch, &request, 0), link);
        let link =
            match answer.map_err(|failure| failed(format!("look up interface {name}"), failure)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                answer => answer?,
            };
        match kind_of(&link) {
            Some(InfoKind::Dummy) => {
                let (name, index) = (name.to_owned(), link.header.index);
                Ok(Some(Self { name, index, socket: Mutex::new(socket) }))
            }
            other => Err(wrong_kind(name, other)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index in this network namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The host addresses (prefix length 32 or 128) on it, without loopback and IPv6 link-local
    /// ones.
    ///
    /// # Errors
    /// Any failure to read the whole list is an error, never a shorter list.
    pub fn addresses(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let reachable = self.entries()?.into_iter().filter(Entry::is_reachable);
        Ok(reachable.filter_map(|entry| entry.assigned.as_host()).collect())
    }

    /// Everything that is on it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the interface is gone. Any failure to read the whole list is an
    /// error, never a shorter list.
    pub fn observe(&self) -> Result<Observation, Error> {
        let up = self.is_up()?;
        let assigned = self.entries()?.into_iter().map(|entry| entry.assigned);
        let addresses = assigned.filter(|assigned| !(up && is_kernels_own(assigned))).collect();
        Ok(Observation { addresses, up })
    }

    /// The local routes of this protocol (`RTPROT_*`) on it, which [`apply_routes`](Self::apply_routes)
    /// makes, and others that do not belong there: those of this protocol that are different or on
    /// another interface, and those on this interface that `ip route` adds (protocols `boot` and
    /// `static`).
    ///
    /// # Errors
    /// Any failure to read the whole list is an error, never a shorter list.
    pub fn routes(&self, protocol: u8) -> Result<Routes, Error> {
        let listed = local::list(&mut self.socket(), self.index, protocol);
        listed.map_err(|failure| failed(format!("list the routes of {}", self.name), failure))
    }

    /// Sets it up, which its IPv6 routes need; that it is up already is success.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the interface is gone, [`ErrorKind::NoPermission`].
    pub fn set_up(&self) -> Result<(), Error> {
        self.set(LinkFlags::Up)
    }

    /// Sets it down; that it is down already is success.
    ///
    /// The kernel removes the IPv6 routes of an interface that goes down, and the IPv6 addresses, unless
    /// `net.ipv6.conf.NAME.keep_addr_on_down` is set: observe again, and add them again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the interface is gone, [`ErrorKind::NoPermission`].
    pub fn set_down(&self) -> Result<(), Error> {
        self.set(LinkFlags::empty())
    }

    fn set(&self, flags: LinkFlags) -> Result<(), Error> {
        let mut message = self.message();
        message.header.flags = flags;
        message.header.change_mask = LinkFlags::Up;
        self.run(&RouteNetlinkMessage::SetLink(message), || {
            let state = if flags.contains(LinkFlags::Up) { "up" } else { "down" };
            format!("set interface {} {state}", self.name)
        })
    }

    /// Applies `changes` in their order, in batches of up to 512 in one system call.
    ///
    /// A change that fails does not stop the ones after it. Adding what is there and removing
    /// what is not count as success.
    pub fn apply<I: IntoIterator<Item = AddressChange>>(&self, changes: I) -> Report {
        address::apply(&mut self.socket(), (self.index, &self.name), changes)
    }

    /// Applies `changes` of its routes in their order, in batches of up to 512 in one system call; those that
    /// it makes have this protocol (`RTPROT_*`), by which they are known from others' routes.
    ///
    /// A change that fails does not stop the ones after it. Setting what is there and removing what is
    /// not count as success. IPv6 routes need the interface to be up.
    pub fn apply_routes<I: IntoIterator<Item = RouteChange>>(
        &self,
        protocol: u8,
        changes: I,
    ) -> Report {
        local::apply(&mut self.socket(), (self.index, &self.name), protocol, changes)
    }

    /// Removes the interface with all its addresses; that it is gone already is success.
    ///
    /// # Errors
    /// [`ErrorKind::NoPermission`], or [`ErrorKind::Uncertain`] when the outcome is unknown.
    pub fn delete(self) -> Result<(), Error> {
        let request = RouteNetlinkMessage::DelLink(self.message());
        match self.run(&request, || format!("delete dummy interface {}", self.name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn run(
        &self,
        request: &RouteNetlinkMessage,
        operation: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let done = self.socket().run(|batch| route::push(batch, request, 0));
        done.map_err(|failure| failed(operation(), failure))
    }

    fn is_up(&self) -> Result<bool, Error> {
        let request = RouteNetlinkMessage::GetLink(self.message());
        let answer = self.socket().ask(|batch| route::push(batch, &request, 0), link);
        let up = answer.map(|link| link.header.flags.contains(LinkFlags::Up));
        up.map_err(|failure| failed(format!("read the state of interface {}", self.name), failure))
    }

    /// A message about it that says nothing more.
    fn message(&self) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = self.index;
        message
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        host::list(self.index)
            .map_err(|failure| failed(format!("list the addresses of {}", self.name), failure))
    }
}

fn open() -> Result<Socket, Error> {
    route::open().map_err(|error| failed("open a netlink socket", error))
}

/// A message about the link of this name.
fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// The link that an answer is about.
fn link(answer: &Message<'_>) -> Result<LinkMessage, Malformed> {
    match route::read(answer)? {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        _ => Err(Malformed("answer: it is no link")),
    }
}

/// Whether the kernel has put an address on an interface that is up by itself: IPv6 link-local. It
/// goes when the interface goes down.
fn is_kernels_own(assigned: &AssignedAddress) -> bool {
    matches!(assigned.address, IpAddr::V6(v6) if host::is_link_local(v6))
        && assigned.prefix_len == 64
}

fn kind_of(message: &LinkMessage) -> Option<&InfoKind> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

fn wrong_kind(name: &str, kind: Option<&InfoKind>) -> Error {
    let what = match kind {
        Some(kind) => format!("of kind {kind}"),
        None => "not a virtual one".to_owned(),
    };
    Error::new(
        ErrorKind::WrongKind,
        format!(
            "interface {name} exists but is {what}, not dummy: \
             rename it (ip link set {name} name OTHER) or delete it (ip link delete {name})"
        ),
    )
}

/// The kernel's rules for names (`dev_valid_name`), so that a bad one is not taken for a missing
/// interface.
fn check_name(name: &str) -> Result<(), Error> {
    let reason = match name {
        "" => "empty",
        "." | ".." => "reserved",
        _ if name.len() > 15 => "longer than 15 bytes",
        _ if name
            .bytes()
            .any(|byte| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace()) =>
        {
            "with a character that the kernel refuses"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Invalid, format!("interface name {name:?} is {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernels_rules() {
        for name in ["kube-ipvs0", "a", "fifteen-bytes-x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a:1", "a\0"] {
            assert_eq!(check_name(name).unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
        }
    }

    #[test]
    fn another_kind_is_named_with_the_way_out() {
        let error = wrong_kind("kube-ipvs0", Some(&InfoKind::Bridge));
        assert_eq!(error.kind(), ErrorKind::WrongKind);
        let text = error.to_string();
        assert!(text.contains("kube-ipvs0") && text.contains("bridge"), "{text}");
        assert!(text.contains("ip link delete kube-ipvs0"), "{text}");
    }
}
