//! A connection to the kernel's nftables.

use std::collections::HashSet;
use std::io;

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{
    Attributes, Batch, Error, ErrorKind, Failure, Malformed, Message, PutAttributes, Socket,
};
use rustix::io::Errno;

use crate::error::RefusedRequest;
use crate::wire::{chain, cmd, elements, generation, rule, set, table, SUBSYSTEM};
use crate::{
    decode, Chain, ElementEntry, Entry, Family, Refused, Rule, Set, TableEntry, TableKey,
    Transaction,
};

/// How often a list of elements is read that comes with some of them twice.
const ATTEMPTS: u32 = 32;

/// A blocking connection to the nftables of one network namespace: the one that the calling thread
/// was in when it was opened.
///
/// Needs `CAP_NET_ADMIN` in the user namespace of that network namespace. Calls take as long as the
/// kernel works: from an async runtime, use a thread of its own.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
}

impl Client {
    /// Opens a connection.
    pub fn open() -> Result<Self, Error> {
        let socket = netfilter::open();
        let failed = |error| Error::failed("connect to the kernel's nftables", error);
        Ok(Self::over(socket.map_err(failed)?))
    }

    /// Over a socket of `NETLINK_NETFILTER`; of the network namespace in which that was made.
    pub fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// The netlink port of this connection, by which a [`Monitor`](crate::Monitor) tells its
    /// changes from those of others.
    pub fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// Makes all changes of a transaction, or none. With a `generation` only if the kernel's is
    /// still that ([`Refused::is_outdated`]). An empty one is not sent.
    ///
    /// All of it goes to the kernel in one send. The send buffer grows to hold it as far as that is
    /// permitted ([`Refused::is_too_long`]).
    pub fn commit(
        &mut self,
        transaction: &Transaction,
        generation: Option<u32>,
    ) -> Result<(), Refused> {
        let named = |(index, refusal)| RefusedRequest {
            index,
            what: transaction.describe(index).unwrap_or_default(),
            refusal,
        };
        if let Some(index) = transaction.too_long {
            let refusal = netlink_batch::Refusal {
                code: Errno::MSGSIZE.raw_os_error(),
                text: Some("an attribute is longer than netlink can say".into()),
            };
            let failure = refusal.clone().into();
            return Err(Refused { requests: vec![named((index, refusal))], failure });
        }
        let requests = |batch: &mut Batch| batch.append(&transaction.batch);
        let result = netfilter::transaction(&mut self.socket, SUBSYSTEM, generation, requests);
        result.map_err(|rejected| Refused {
            requests: rejected.requests.into_iter().map(named).collect(),
            failure: rejected.failure,
        })
    }

    /// The number of the kernel's present rules: every transaction, of anybody, makes it another
    /// one. One message each way.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let answer = self.socket.ask(
            |batch| push(batch, cmd::GET_GEN, 0, |_| ()),
            |message| {
                let id = netfilter::attributes(message)?.find(generation::ID)?;
                id.ok_or(Malformed("generation without a number"))?.be32()
            },
        );
        answer.map_err(|failure| Error::failed("read the generation of nftables", failure))
    }

    /// A table, if it is there.
    pub fn table(&mut self, key: &TableKey) -> Result<Option<TableEntry>, Error> {
        let answer = self.socket.ask(
            |batch| {
                let name = |out: &mut Vec<u8>| out.text(table::NAME, &key.name);
                push(batch, cmd::GET_TABLE, key.family.number(), name);
            },
            |message| decode::table(key.family, netfilter::attributes(message)?),
        );
        match answer {
            Ok(entry) => Ok(Some(entry)),
            Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(Error::failed(format!("read table {key}"), failure)),
        }
    }

    /// All tables, of one family or of all.
    pub fn tables(&mut self, family: Option<Family>) -> Result<Vec<TableEntry>, Error> {
        let list = self.socket.dump(
            |batch| push(batch, cmd::GET_TABLE, family.map_or(0, Family::number), |_| ()),
            |list: &mut Vec<TableEntry>, message| {
                // One that this crate has no name for is none of the caller's.
                if let Some(family) = Family::from_number(Header::of(message)?.family) {
                    list.push(decode::table(family, netfilter::attributes(message)?)?);
                }
                Ok(())
            },
        );
        list.map_err(|failure| Error::failed("read the tables of nftables", failure))
    }

    /// The chains of a table; none if it is not there.
    pub fn chains(&mut self, of: &TableKey) -> Result<Vec<Entry<Chain>>, Error> {
        let request = |out: &mut Vec<u8>| out.text(chain::TABLE, &of.name);
        let list = self.list(of, cmd::GET_CHAIN, request, |list, attributes| {
            list.push(decode::chain(attributes)?);
            Ok(())
        });
        list.map_err(|failure| Error::failed(format!("read the chains of table {of}"), failure))
    }

    /// The rules of a table, or of one of its chains, in their order; none if it is not there.
    pub fn rules(&mut self, of: &TableKey, chain: Option<&str>) -> Result<Vec<Entry<Rule>>, Error> {
        let request = |out: &mut Vec<u8>| {
            out.text(rule::TABLE, &of.name);
            if let Some(chain) = chain {
                out.text(rule::CHAIN, chain);
            }
        };
        let list = self.list(of, cmd::GET_RULE, request, |list, attributes| {
            list.push(decode::rule(attributes)?);
            Ok(())
        });
        list.map_err(|failure| Error::failed(format!("read the rules of table {of}"), failure))
    }

    /// The sets and maps of a table, those of single rules included ([`SetFlags::ANONYMOUS`]).
    /// [`NotFound`](ErrorKind::NotFound) if the table is not there.
    ///
    /// [`SetFlags::ANONYMOUS`]: crate::SetFlags::ANONYMOUS
    pub fn sets(&mut self, of: &TableKey) -> Result<Vec<Entry<Set>>, Error> {
        let request = |out: &mut Vec<u8>| out.text(set::TABLE, &of.name);
        let list = self.list(of, cmd::GET_SET, request, |list, attributes| {
            list.push(decode::set(attributes)?);
            Ok(())
        });
        list.map_err(|failure| Error::failed(format!("read the sets of table {of}"), failure))
    }

    /// The elements of a set or map, in the kernel's order.
    /// [`NotFound`](ErrorKind::NotFound) if it is not there.
    ///
    /// After many elements were added to a set without a size, the kernel moves them to a larger
    /// hash table while it lists them: then some come twice instead of others. A list in which
    /// that is so is read again, and is [`Interrupted`](ErrorKind::Interrupted) if it does not end.
    pub fn elements(&mut self, of: &TableKey, set: &str) -> Result<Vec<ElementEntry>, Error> {
        let failed = |failure| Error::failed(format!("read the set {set} of table {of}"), failure);
        for _ in 0..ATTEMPTS {
            let list = self.elements_once(of, set).map_err(failed)?;
            if is_whole(&list) {
                return Ok(list);
            }
        }
        Err(failed(Failure::Interrupted(ATTEMPTS)))
    }

    fn elements_once(&mut self, of: &TableKey, set: &str) -> Result<Vec<ElementEntry>, Failure> {
        let request = |out: &mut Vec<u8>| {
            out.text(elements::TABLE, &of.name);
            out.text(elements::SET, set);
        };
        self.list(of, cmd::GET_SETELEM, request, |list, attributes| {
            decode::elements(attributes, |element| list.push(element))
        })
    }

    /// Reads a list of a table's objects: not every kernel leaves out those of other tables.
    fn list<T>(
        &mut self,
        of: &TableKey,
        command: u8,
        request: impl Fn(&mut Vec<u8>),
        mut add: impl FnMut(&mut Vec<T>, Attributes<'_>) -> Result<(), Malformed>,
    ) -> Result<Vec<T>, Failure> {
        let family = of.family.number();
        self.socket.dump(
            |batch| push(batch, command, family, &request),
            |list: &mut Vec<T>, message: &Message<'_>| {
                let attributes = netfilter::attributes(message)?;
                let ours = Header::of(message)?.family == family
                    && decode::table_of(attributes)? == of.name;
                if ours {
                    add(list, attributes)?;
                }
                Ok(())
            },
        )
    }
}

fn push(batch: &mut Batch, command: u8, family: u8, body: impl FnOnce(&mut Vec<u8>)) {
    netfilter::push(batch, Header { subsystem: SUBSYSTEM, command, flags: 0, family }, body);
}

/// Whether no element comes twice. The kernel lists as many elements as there are: where none comes
/// twice, none is missing.
fn is_whole(list: &[ElementEntry]) -> bool {
    let mut seen = HashSet::with_capacity(list.len());
    list.iter().all(|ElementEntry { element, .. }| {
        seen.insert((&element.key, &element.key_end, element.interval_end, element.catch_all))
    })
}
