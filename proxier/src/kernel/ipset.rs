//! Named sets of the kernel (`ipset`), over netlink.
//!
//! One process per member, as `ipset add` needs, is what makes large clusters slow; here a
//! thousand members are two system calls.

mod codec;
mod refusal;
mod types;

use std::collections::HashMap;

use netlink_batch::{Batch, Error, ErrorKind, Failure, Malformed, Socket, netfilter};
use netlink_ipvs::Family;

use crate::dataplane::sets::SetType;
pub use codec::ForeignElement;
#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzz;
use codec::{Command, Encoder};
use refusal::{About, failed};
pub use types::{Change, Report, SetContent, SetHeader, SetSpec};

/// The newest protocol version (`IPSET_PROTOCOL`) and the oldest that has all that is used here.
const PROTOCOL: u8 = 7;
const OLDEST_PROTOCOL: u8 = 6;

/// The longest name, without its NUL (`IPSET_MAXNAMELEN`).
const LONGEST_NAME: usize = 31;

/// Holds the members of a set while it is made anew; ours, as every `KUBE-` name.
const SPARE: &str = "KUBE-PROXIER-SPARE";

/// A connection to the sets of the network namespace in which it was opened. Its calls block for
/// as long as the kernel takes.
#[derive(Debug)]
pub struct IpsetClient {
    socket: Socket,
    encoder: Encoder,
    revisions: HashMap<(SetType, Family), u8>,
}

impl IpsetClient {
    /// Opens a connection and agrees on a protocol version.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the kernel has no ipset or one that is too old or too new,
    /// [`ErrorKind::NoPermission`] without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        let operation = "connect to the kernel's ipset";
        let mut client = Self {
            socket: netfilter::open().map_err(|error| Error::failed(operation, error))?,
            encoder: Encoder { protocol: PROTOCOL },
            revisions: HashMap::new(),
        };
        let encoder = client.encoder;
        let versions = client.versions(Command::Protocol, |batch| encoder.protocol(batch));
        let (lowest, highest) = versions.map_err(|failure| match failure.kind() {
            // What a kernel answers that does not know the subsystem.
            ErrorKind::Invalid => Error::with_source(
                ErrorKind::Unsupported,
                format!("{operation}: it has none (module ip_set)"),
                failure,
            ),
            _ => failed(operation, failure, About::Set),
        })?;
        client.encoder.protocol = PROTOCOL.min(highest);
        if client.encoder.protocol < lowest.max(OLDEST_PROTOCOL) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{operation}: it speaks versions {lowest} to {highest} of the protocol, \
                     this program {OLDEST_PROTOCOL} to {PROTOCOL}"
                ),
            ));
        }
        Ok(client)
    }

    /// All sets of the namespace, whoever made them, without their members.
    ///
    /// # Errors
    /// Any failure to read the whole list is an error, never a shorter list.
    pub fn list(&mut self) -> Result<Vec<SetHeader>, Error> {
        let encoder = self.encoder;
        let headers = self.socket.dump(
            |batch| encoder.list_headers(batch),
            |headers: &mut Vec<SetHeader>, message| {
                headers.extend(codec::decode_header(netfilter::attributes(message)?)?);
                Ok(())
            },
        );
        headers.map_err(|failure| failed("list the sets", failure, About::Set))
    }

    /// What a set holds, its type known here or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such set. Any failure to read the whole list is an
    /// error, never a shorter list.
    pub fn members(&mut self, name: &str) -> Result<SetContent, Error> {
        Ok(self.set(name)?.1)
    }

    /// A set and what it holds.
    ///
    /// # Errors
    /// As for [`Self::members`].
    pub fn set(&mut self, name: &str) -> Result<(SetHeader, SetContent), Error> {
        check_name(name)?;
        let operation = || format!("list the members of set {name}");
        let encoder = self.encoder;
        let list = self.socket.dump(
            |batch| encoder.list(batch, name),
            |(header, content): &mut (Option<SetHeader>, SetContent), message| {
                let body = netfilter::attributes(message)?;
                *header = codec::decode_header(body)?.or(header.take());
                let header = header.as_ref();
                let set_type = header.ok_or(Malformed("list: members before their type"))?.set_type;
                codec::decode_elements(body, set_type, |element| content.insert(element))
            },
        );
        let (header, content) = list.map_err(|failure| failed(operation(), failure, About::Set))?;
        let none = || Error::new(ErrorKind::NotFound, format!("{}: there is none", operation()));
        Ok((header.ok_or_else(none)?, content))
    }

    /// Makes an empty set.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if there is a set of this name, of whatever type;
    /// [`ErrorKind::Unsupported`] if the kernel lacks the type.
    pub fn create(&mut self, set: &SetSpec<'_>) -> Result<(), Error> {
        check_name(set.name)?;
        let operation = format!("create set {} ({})", set.name, set.set_type.name());
        let revision = self.revision(&operation, set)?;
        let encoder = self.encoder;
        self.run(operation, About::Set, |batch| encoder.create(batch, set, revision))
    }

    /// Adds and removes members of any sets, in order, hundreds in one system call.
    ///
    /// A change that fails does not stop the ones after it. Adding what is there and removing
    /// what is not count as success.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>) -> Report {
        let encoder = self.encoder;
        self.socket.execute(
            changes,
            |batch, change| encoder.change(batch, change),
            |change, failure| match failure {
                Failure::Refused(refusal) if refusal.code == refusal::EXIST => None,
                failure => Some(failed(change.to_string(), failure, change.about())),
            },
        )
    }

    /// Exchanges the content of two sets of the same type; rules follow the name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::WrongKind`] if their types differ.
    pub fn swap(&mut self, name: &str, other: &str) -> Result<(), Error> {
        self.two(Command::Swap, name, other, format!("swap sets {name} and {other}"), About::Swap)
    }

    /// Gives a set another name.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if there is a set of the new name, [`ErrorKind::Busy`] if a rule
    /// refers to the set.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), Error> {
        self.two(Command::Rename, name, new, format!("rename set {name} to {new}"), About::Rename)
    }

    /// Removes a set with its members.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Busy`] if a rule refers to it.
    pub fn destroy(&mut self, name: &str) -> Result<(), Error> {
        self.one(Command::Destroy, name, format!("destroy set {name}"))
    }

    /// Removes all members of a set.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such set.
    pub fn flush(&mut self, name: &str) -> Result<(), Error> {
        self.one(Command::Flush, name, format!("empty set {name}"))
    }

    /// Makes the set of this name anew as `set` says, with the members it has but no foreign
    /// elements, and without a moment in which rules see it lack one: a second set is filled and
    /// swapped in.
    ///
    /// # Errors
    /// The first step that failed; the set itself is then as before.
    pub fn remake(&mut self, set: &SetSpec<'_>) -> Result<(), Error> {
        let members = self.members(set.name)?.members;
        // Left over if this program was killed in here.
        self.destroy_if_there(SPARE)?;
        self.create(&set.named(SPARE))?;
        let filled = self.apply(members.into_iter().map(|member| Change::Add(SPARE, member)));
        let swapped = match filled.failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None if !filled.uncertain.is_empty() => Err(Error::new(
                ErrorKind::Uncertain,
                format!("copy the members of set {}: answers were lost", set.name),
            )),
            None => self.swap(set.name, SPARE),
        };
        let destroyed = self.destroy_if_there(SPARE);
        swapped.and(destroyed)
    }

    fn destroy_if_there(&mut self, name: &str) -> Result<(), Error> {
        match self.destroy(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn one(&mut self, command: Command, name: &str, operation: String) -> Result<(), Error> {
        check_name(name)?;
        let encoder = self.encoder;
        self.run(operation, About::Set, |batch| encoder.one(batch, command, name))
    }

    fn two(
        &mut self,
        command: Command,
        name: &str,
        other: &str,
        operation: String,
        about: About,
    ) -> Result<(), Error> {
        check_name(name)?;
        check_name(other)?;
        let encoder = self.encoder;
        self.run(operation, about, |batch| encoder.two(batch, command, name, other))
    }

    fn run(
        &mut self,
        operation: String,
        about: About,
        request: impl FnOnce(&mut Batch),
    ) -> Result<(), Error> {
        self.socket.run(request).map_err(|failure| failed(operation, failure, about))
    }

    /// Asks for versions, lowest and highest.
    fn versions(
        &mut self,
        command: Command,
        request: impl FnOnce(&mut Batch),
    ) -> Result<(u8, u8), Failure> {
        self.socket.ask(request, |message| {
            codec::decode_versions(netfilter::attributes(message)?, command)
        })
    }

    fn revision(&mut self, operation: &str, set: &SetSpec<'_>) -> Result<u8, Error> {
        let key = (set.set_type, set.family);
        if let Some(revision) = self.revisions.get(&key) {
            return Ok(*revision);
        }
        let encoder = self.encoder;
        let question = |batch: &mut Batch| encoder.set_type(batch, set.set_type, set.family);
        let (lowest, highest) = self
            .versions(Command::Type, question)
            .map_err(|failure| failed(operation, failure, About::Set))?;
        let revision = codec::revision(set.set_type, (lowest, highest)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("{operation}: the kernel has only revisions {lowest} to {highest} of it"),
            )
        })?;
        self.revisions.insert(key, revision);
        Ok(revision)
    }
}

/// An empty name would mean all sets to the kernel; one with a NUL another set.
fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{name:?} is no name of a set: 1 to {LONGEST_NAME} bytes without NUL"),
        ));
    }
    Ok(())
}
