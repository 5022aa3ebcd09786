//! Connection tracking (`conntrack`), over netlink: finding flows and deleting single ones.

mod codec;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use netlink_batch::{Error, ErrorKind, Failure, Socket, netfilter};
use netlink_ipvs::{Family, Protocol, RealServerKey};
use rustix::io::Errno;

#[cfg(any(test, fuzzing))]
pub(crate) use codec::fuzz;

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
    /// A rule of DNAT has changed its destination; IPVS is none.
    pub translated: bool,
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

/// What became of the flows that were to be deleted; one that had ended already is unchanged.
pub type Report = netlink_batch::Report<Error>;

/// A connection to the connection tracking of the network namespace in which it was opened. Its
/// calls block for as long as the kernel takes.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
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
        let socket = netfilter::open()
            .map_err(|error| Error::failed("connect to the kernel's connection tracking", error))?;
        Ok(Self { socket, filters: true })
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
                Err(Failure::Refused(refusal)) if self.filters && !refusal.is(Errno::PERM) => {
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
        self.socket.execute(
            flows,
            |batch, flow| codec::encode_delete(batch, flow),
            |flow, failure| {
                let ended = failure.is_refusal(Errno::NOENT);
                (!ended).then(|| failed(format!("delete flow {flow}"), failure))
            },
        )
    }

    fn dump(&mut self, family: Family, protocol: Protocol) -> Result<(Vec<Flow>, bool), Failure> {
        let filter = self.filters.then_some(protocol);
        let mut flows = Vec::new();
        let interrupted = self.socket.dump_once(
            |batch| codec::encode_list(batch, family, filter),
            |message| {
                let flow = codec::decode_flow(netfilter::attributes(message)?)?;
                flows.extend(flow.filter(|flow| flow.protocol == protocol));
                Ok(())
            },
        )?;
        Ok((flows, interrupted))
    }
}

fn failed(operation: String, failure: Failure) -> Error {
    match (&failure, failure.kind()) {
        // What a kernel answers that does not know the subsystem.
        (Failure::Refused(_), ErrorKind::Invalid) => Error::with_source(
            ErrorKind::Unsupported,
            format!("{operation} (module nf_conntrack_netlink)"),
            failure,
        ),
        _ => Error::failed(operation, failure),
    }
}

#[cfg(test)]
mod tests;
