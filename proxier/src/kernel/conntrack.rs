//! Connection tracking (`conntrack`), over netlink: finding flows and deleting single ones.

mod codec;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use netlink_ipvs::{Family, Protocol, RealServerKey};
use rustix::io::Errno;

#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzz;

use super::nfnetlink::{Error, ErrorKind, Failure, Messages, NfSocket};
use crate::dataplane::RealServers;

/// Attempts at a list during which the table changed; a busy node may never have a quiet moment.
const ATTEMPTS: usize = 5;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Direction {
    /// Where its packets come from.
    pub source: SocketAddr,
    /// Where they go to.
    pub destination: SocketAddr,
}

/// A tracked flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: Protocol,
    /// The packets of the side that began, as they arrived: the destination may be a service's
    /// address.
    pub original: Direction,
    /// The packets that answer: the source is who really answers.
    pub reply: Direction,
    /// Zone of the entry (`CTA_ZONE`).
    zone: Option<u16>,
    /// Zone of the original direction only (`CTA_TUPLE_ZONE`).
    original_zone: Option<u16>,
    /// The kernel's number of the entry. A later flow with the same addresses has another, unless
    /// it got the same place in memory.
    id: Option<u32>,
}

/// The flows that were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flows {
    /// Each flow once, ordered.
    pub flows: Vec<Flow>,
    /// False if the table changed during each attempt to read it; a flow may be missing then.
    pub complete: bool,
}

/// What became of the flows that were to be deleted.
#[derive(Debug, Default)]
#[must_use]
pub struct Report {
    /// Deletions that were sent to the kernel.
    pub sent: usize,
    /// Of these, the ones whose flow had ended already.
    pub unchanged: usize,
    /// Deletions that failed, by position in the sequence.
    pub failed: Vec<(usize, Error)>,
    /// Answers were lost: list the flows again.
    pub uncertain: bool,
}

/// A connection to the connection tracking of the network namespace in which it was opened. Its
/// calls block for as long as the kernel takes.
#[derive(Debug)]
pub struct Conntrack {
    socket: NfSocket,
    messages: Messages,
    /// Whether the kernel filters lists by protocol (since 5.8); tried once.
    filters: bool,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (answered by {})", self.protocol, self.original, self.reply.source)
    }
}

impl Flow {
    /// Whether it is a UDP flow to one of these virtual servers, by address and port, that none of
    /// the real servers kept there answers.
    pub fn is_stale(&self, kept: &BTreeMap<SocketAddr, &RealServers>) -> bool {
        let from = RealServerKey::new(self.reply.source.ip(), self.reply.source.port());
        self.protocol == Protocol::Udp
            && kept
                .get(&self.original.destination)
                .is_some_and(|servers| servers.iter().all(|server| server.key != from))
    }
}

impl Conntrack {
    /// Opens a connection.
    ///
    /// # Errors
    /// If the kernel has no netfilter.
    pub fn open() -> Result<Self, Error> {
        let socket = NfSocket::open()
            .map_err(|error| Error::io("connect to the kernel's connection tracking", error))?;
        Ok(Self { socket, messages: Messages::default(), filters: true })
    }

    /// The flows of one family and protocol.
    ///
    /// # Errors
    /// [`ErrorKind::NoPermission`] without `CAP_NET_ADMIN`, [`ErrorKind::Unsupported`] if the
    /// kernel lacks connection tracking over netlink (`nf_conntrack_netlink`).
    pub fn flows(&mut self, family: Family, protocol: Protocol) -> Result<Flows, Error> {
        let operation = || format!("list the {family} flows of {protocol}");
        let mut found = Flows::default();
        for _ in 0..ATTEMPTS {
            let (flows, interrupted) = match self.dump(family, protocol) {
                Err(Failure::Refused(refusal)) if self.filters && !refusal.is_permission() => {
                    self.filters = false;
                    self.dump(family, protocol)
                }
                result => result,
            }
            .map_err(|failure| failed(operation(), failure))?;
            // What one attempt missed another may have seen.
            found.flows.extend(flows);
            found.complete = !interrupted;
            if found.complete {
                break;
            }
        }
        found.flows.sort_unstable();
        found.flows.dedup();
        Ok(found)
    }

    /// Deletes these flows and no others; the whole table is never emptied.
    pub fn delete(&mut self, flows: &[Flow]) -> Report {
        let mut report = Report::default();
        for batch in flows.chunks(Messages::MOST) {
            self.messages.clear();
            for flow in batch {
                codec::encode_delete(&mut self.messages, flow);
            }
            self.send(batch, &mut report);
        }
        report
    }

    fn dump(&mut self, family: Family, protocol: Protocol) -> Result<(Vec<Flow>, bool), Failure> {
        self.messages.clear();
        codec::encode_list(&mut self.messages, family, self.filters.then_some(protocol));
        let mut flows = Vec::new();
        let item = |body: &[u8]| {
            let flow = codec::decode_flow(body)?;
            flows.extend(flow.filter(|flow| flow.protocol == protocol));
            Ok(())
        };
        let interrupted = self.socket.dump(&mut self.messages, item)?;
        Ok((flows, interrupted))
    }

    fn send(&mut self, batch: &[Flow], report: &mut Report) {
        let start = report.sent;
        report.sent += batch.len();
        let outcome = match self.socket.transact(&mut self.messages, |_| Ok(())) {
            Ok(outcome) => outcome,
            Err(error) => {
                report.uncertain = true;
                for (position, flow) in batch.iter().enumerate() {
                    let again = std::io::Error::new(error.kind(), error.to_string());
                    report
                        .failed
                        .push((start + position, Error::io(format!("delete flow {flow}"), again)));
                }
                return;
            }
        };
        report.uncertain |= outcome.uncertain;
        for (position, refusal) in outcome.refused {
            if refusal.code == Errno::NOENT.raw_os_error() {
                report.unchanged += 1;
            } else {
                let operation = format!("delete flow {}", batch[position]);
                report.failed.push((start + position, failed(operation, refusal.into())));
            }
        }
    }
}

fn failed(operation: String, failure: Failure) -> Error {
    match failure {
        Failure::Io(error) => Error::io(operation, error),
        Failure::Refused(refusal) => match ErrorKind::of_errno(refusal.code) {
            // What a kernel answers that does not know the subsystem.
            ErrorKind::Invalid => Error::with_source(
                ErrorKind::Unsupported,
                format!("{operation} (module nf_conntrack_netlink)"),
                refusal,
            ),
            kind => Error::with_source(kind, operation, refusal),
        },
    }
}

#[cfg(test)]
mod tests;
