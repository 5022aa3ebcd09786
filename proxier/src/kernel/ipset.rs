//! Named sets of the kernel (`ipset`), over netlink.
//!
//! One process per member, as `ipset add` needs, is what makes large clusters slow; here a
//! thousand members are two system calls.

mod codec;
mod refusal;
mod types;

use std::collections::HashMap;

use netlink_ipvs::Family;

use super::nfnetlink::{Error, ErrorKind, Failure, Messages, NfSocket, malformed};
use crate::dataplane::sets::SetType;
pub use codec::ForeignElement;
#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzz;
use codec::{Command, Element, Encoder};
use refusal::{About, failed, refused};
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
    socket: NfSocket,
    encoder: Encoder,
    messages: Messages,
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
        let socket = NfSocket::open().map_err(|error| Error::io(operation, error))?;
        let mut client = Self {
            socket,
            encoder: Encoder { protocol: PROTOCOL },
            messages: Messages::default(),
            revisions: HashMap::new(),
        };
        client.encoder.protocol(&mut client.messages);
        let versions = client.ask(operation, About::Set, Command::Protocol).map_err(|error| {
            match error.kind() {
                // What a kernel answers that does not know the subsystem.
                ErrorKind::Invalid => Error::with_source(
                    ErrorKind::Unsupported,
                    format!("{operation}: it has none (module ip_set)"),
                    error,
                ),
                _ => error,
            }
        })?;
        let (lowest, highest) = versions;
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
        let operation = "list the sets";
        self.messages.clear();
        self.encoder.list_headers(&mut self.messages);
        let mut headers = Vec::new();
        let item = |body: &[u8]| {
            headers.extend(codec::decode_header(body)?);
            Ok(())
        };
        self.socket
            .dump(&mut self.messages, item)
            .map_err(|failure| failed(operation, failure, About::Set))?;
        Ok(headers)
    }

    /// What a set holds, its type known here or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such set. Any failure to read the whole list is an
    /// error, never a shorter list.
    pub fn members(&mut self, name: &str) -> Result<SetContent, Error> {
        let operation = || format!("list the members of set {name}");
        check_name(name)?;
        self.messages.clear();
        self.encoder.list(&mut self.messages, name);
        let mut content = SetContent::default();
        let mut header = None;
        let item = |body: &[u8]| {
            header = codec::decode_header(body)?.or(header.take());
            let Some(header) = &header else {
                return Err(malformed("members before their set's type"));
            };
            codec::decode_elements(body, header.set_type, |element| {
                match element {
                    Element::Member(member) => content.members.insert(member),
                    Element::Foreign(element) => content.foreign.insert(element),
                };
            })
        };
        self.socket
            .dump(&mut self.messages, item)
            .map_err(|failure| failed(operation(), failure, About::Set))?;
        Ok(content)
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
        self.encoder.create(&mut self.messages, set, revision);
        self.run(operation, About::Set)
    }

    /// Adds and removes members of any sets, in order, hundreds in one system call.
    ///
    /// A change that fails does not stop the ones after it. Adding what is there and removing
    /// what is not count as success.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>) -> Report {
        let mut report = Report::default();
        let mut changes = changes.into_iter().peekable();
        let mut batch: Vec<Change<'a>> = Vec::new();
        while changes.peek().is_some() {
            batch.clear();
            self.messages.clear();
            while !self.messages.is_full() {
                let Some(change) = changes.next() else { break };
                self.encoder.change(&mut self.messages, &change);
                batch.push(change);
            }
            self.send(&batch, &mut report);
        }
        report
    }

    /// Exchanges the content of two sets of the same type; rules follow the name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::Mismatch`] if their types differ.
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
            None if filled.uncertain => Err(Error::new(
                ErrorKind::Io,
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
        self.messages.clear();
        self.encoder.one(&mut self.messages, command, name);
        self.run(operation, About::Set)
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
        self.messages.clear();
        self.encoder.two(&mut self.messages, command, name, other);
        self.run(operation, about)
    }

    /// Sends the one request that was encoded.
    fn run(&mut self, operation: String, about: About) -> Result<(), Error> {
        match self.exchange(|_| Ok(())) {
            Ok(()) => Ok(()),
            Err(failure) => Err(failed(operation, failure, about)),
        }
    }

    /// Sends the one request that was encoded and reads the versions in its answer.
    fn ask(&mut self, operation: &str, about: About, command: Command) -> Result<(u8, u8), Error> {
        let mut versions = None;
        let item = |body: &[u8]| {
            versions = Some(codec::decode_versions(body, command)?);
            Ok(())
        };
        self.exchange(item).map_err(|failure| failed(operation, failure, about))?;
        versions.ok_or_else(|| Error::new(ErrorKind::Io, format!("{operation}: no answer")))
    }

    fn exchange(&mut self, item: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), Failure> {
        let outcome = self.socket.transact(&mut self.messages, item)?;
        match outcome.refused.into_iter().next() {
            Some((_, refusal)) => Err(refusal.into()),
            None if outcome.uncertain => {
                Err(std::io::Error::other("the kernel's answer was lost").into())
            }
            None => Ok(()),
        }
    }

    fn revision(&mut self, operation: &str, set: &SetSpec<'_>) -> Result<u8, Error> {
        let key = (set.set_type, set.family);
        if let Some(revision) = self.revisions.get(&key) {
            return Ok(*revision);
        }
        self.messages.clear();
        self.encoder.set_type(&mut self.messages, set.set_type, set.family);
        let (lowest, highest) = self.ask(operation, About::Set, Command::Type)?;
        let revision = codec::revision(set.set_type, (lowest, highest)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("{operation}: the kernel has only revisions {lowest} to {highest} of it"),
            )
        })?;
        self.revisions.insert(key, revision);
        Ok(revision)
    }

    fn send(&mut self, batch: &[Change<'_>], report: &mut Report) {
        let start = report.sent;
        report.sent += batch.len();
        let outcome = match self.socket.transact(&mut self.messages, |_| Ok(())) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The error may have come after the kernel did its work.
                report.uncertain = true;
                for (position, change) in batch.iter().enumerate() {
                    let again = match error.raw_os_error() {
                        Some(code) => std::io::Error::from_raw_os_error(code),
                        None => std::io::Error::new(error.kind(), error.to_string()),
                    };
                    report.failed.push((start + position, Error::io(change.to_string(), again)));
                }
                return;
            }
        };
        report.uncertain |= outcome.uncertain;
        for (position, refusal) in outcome.refused {
            let change = &batch[position];
            if refusal.code == refusal::EXIST {
                report.unchanged += 1;
            } else {
                let error = refused(change.to_string(), refusal, change.about());
                report.failed.push((start + position, error));
            }
        }
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
