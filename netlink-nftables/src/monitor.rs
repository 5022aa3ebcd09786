//! What the kernel tells of changes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{Failure, Malformed, Message, Notifications};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::wire::{chain, cmd, elements, generation, rule, set, GROUP, SUBSYSTEM};
use crate::{decode, Family, TableKey};

/// Tells of every transaction of anybody, in the network namespace of the thread that opened it.
///
/// A transaction is told when it is done: its changes, then its generation. It does not block: wait
/// until its descriptor can be read (`poll`, or `AsyncFd` of tokio), then
/// [`receive`](Self::receive) until nothing is left.
#[derive(Debug)]
pub struct Monitor {
    notifications: Notifications,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something of a table changed.
    Change(Change),
    /// A transaction ended. All changes before it, up to the one that ended before, were its.
    Generation(Generation),
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which table.
    pub table: TableKey,
    /// What.
    pub object: Object,
    /// The chain (of a rule: its chain), or the set (of elements: their set); `None` of others.
    pub name: Option<String>,
    /// Whether it is gone, or new or another one.
    pub deleted: bool,
    /// The netlink port of who made it ([`Client::port`](crate::Client::port)); 0: the kernel.
    pub port: u32,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// The table itself.
    Table,
    /// A chain.
    Chain,
    /// A rule.
    Rule,
    /// A set or map.
    Set,
    /// Elements of a set or map: also those that expired or that rules added.
    Elements,
    /// A stateful object, such as a counter.
    Stateful,
    /// A flow table.
    FlowTable,
}

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new generation.
    pub id: u32,
    /// The thread that made it: its number, which is the process's if it has only one, and its name,
    /// cut off after 15 bytes.
    pub process: Option<(u32, String)>,
    /// The netlink port of who made it ([`Client::port`](crate::Client::port)).
    pub port: u32,
}

impl Monitor {
    /// Begins to listen. Everything from now on is received, so open first and read then.
    pub fn open() -> io::Result<Self> {
        Notifications::open(NETLINK_NETFILTER, &[GROUP]).map(Self::over)
    }

    /// Over a socket that belongs to the group `NFNLGRP_NFTABLES` of `NETLINK_NETFILTER`.
    pub fn over(notifications: Notifications) -> Self {
        Self { notifications }
    }

    /// Hands each event of the next datagram to `each`; `false` if no datagram is waiting.
    ///
    /// [`Failure::Lost`] says that events were lost: see [`Notifications::receive`]. So does
    /// [`Failure::Malformed`].
    pub fn receive(&mut self, mut each: impl FnMut(Event)) -> Result<bool, Failure> {
        let mut malformed = None;
        let more = self.notifications.receive(|message| {
            match message.and_then(|message| event(&message)) {
                Ok(event) => event.into_iter().for_each(&mut each),
                Err(what) => malformed = Some(what),
            }
        })?;
        malformed.map_or(Ok(more), |what| Err(what.into()))
    }
}

/// Reads a message. `None` if it is about something else.
pub(crate) fn event(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
    let header = Header::of(message)?;
    if header.subsystem != SUBSYSTEM {
        return Ok(None);
    }
    let attributes = netfilter::attributes(message)?;
    let (object, deleted, name) = match header.command {
        cmd::NEW_GEN => return new_generation(message).map(Some),
        cmd::NEW_TABLE => (Object::Table, false, None),
        cmd::DEL_TABLE => (Object::Table, true, None),
        cmd::NEW_CHAIN => (Object::Chain, false, Some(chain::NAME)),
        cmd::DEL_CHAIN => (Object::Chain, true, Some(chain::NAME)),
        cmd::NEW_RULE => (Object::Rule, false, Some(rule::CHAIN)),
        cmd::DEL_RULE => (Object::Rule, true, Some(rule::CHAIN)),
        cmd::NEW_SET => (Object::Set, false, Some(set::NAME)),
        cmd::DEL_SET => (Object::Set, true, Some(set::NAME)),
        cmd::NEW_SETELEM => (Object::Elements, false, Some(elements::SET)),
        cmd::DEL_SETELEM => (Object::Elements, true, Some(elements::SET)),
        cmd::NEW_OBJ => (Object::Stateful, false, None),
        cmd::DEL_OBJ => (Object::Stateful, true, None),
        cmd::NEW_FLOWTABLE => (Object::FlowTable, false, None),
        cmd::DEL_FLOWTABLE => (Object::FlowTable, true, None),
        _ => return Ok(None),
    };
    let Some(family) = Family::from_number(header.family) else { return Ok(None) };
    let name = match name {
        Some(kind) => attributes.find(kind)?.map(|name| name.text()).transpose()?,
        None => None,
    };
    Ok(Some(Event::Change(Change {
        table: TableKey::new(family, decode::table_of(attributes)?),
        object,
        name: name.map(str::to_owned),
        deleted,
        port: message.port(),
    })))
}

fn new_generation(message: &Message<'_>) -> Result<Event, Malformed> {
    let attributes = netfilter::attributes(message)?;
    let id = attributes.find(generation::ID)?.ok_or(Malformed("generation without a number"))?;
    let process = attributes.find(generation::PROC_PID)?.map(|process| process.be32());
    let name = attributes.find(generation::PROC_NAME)?.map(|name| name.text()).transpose()?;
    let process = process.transpose()?;
    let process = process.map(|number| (number, name.unwrap_or_default().to_owned()));
    Ok(Event::Generation(Generation { id: id.be32()?, process, port: message.port() }))
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notifications.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.notifications.as_raw_fd()
    }
}
