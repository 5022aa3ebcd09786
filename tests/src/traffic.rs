//! Both ends of test traffic: what a pod answers, and what a client found out.
//!
//! The program `traffic` (`src/bin/traffic.rs`) runs either end in a network namespace; [`Server`] and
//! [`Client`] start it from a test.

mod client;
mod flood;
mod pace;
mod ping;
mod run;
mod server;
mod socket;
mod timed;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};

pub use client::{connect, hold};
pub use flood::flood;
pub use pace::rate;
pub use ping::ping;
pub use run::{Client, Held, Rate, Server};
pub use server::serve;
pub use timed::{Took, time};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP in its one-to-one style.
    Sctp,
}

/// Where to listen or connect to, written `tcp:10.96.0.1:80` or `udp:[fd00::1]:53`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
}

/// What a server says to each connection, each line it reads, or each datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The server's name: who answered.
    pub name: String,
    /// The client's address as the server saw it: masqueraded or not.
    pub peer: SocketAddr,
    /// The server's own address; of UDP what its socket is bound to.
    pub local: SocketAddr,
}

/// What to send where.
#[derive(Debug, Clone)]
pub struct Load {
    /// The destination.
    pub to: Place,
    /// How many connections, or datagrams.
    pub times: u32,
    /// The address, and perhaps the port, to send from.
    pub source: Option<SocketAddr>,
    /// How long to wait for a connection, and for an answer, in milliseconds.
    pub timeout: u64,
    /// Send all datagrams from one UDP socket, so that they are one flow.
    pub one_socket: bool,
}

/// What came of it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Answers by server name.
    pub answers: BTreeMap<String, u32>,
    /// Answers by the server's own address, where it is bound to one or the protocol has connections.
    pub places: BTreeMap<SocketAddr, u32>,
    /// Answers by the client address that the servers saw, without the port.
    pub peers: BTreeMap<IpAddr, u32>,
    /// Failures by kind: `refused`, `timeout`, `reset`, or the error's text.
    pub errors: BTreeMap<String, u32>,
}

// === impl Report ===

impl Report {
    /// How many were answered.
    pub fn answered(&self) -> u32 {
        self.answers.values().sum()
    }

    /// How many failed.
    pub fn failed(&self) -> u32 {
        self.errors.values().sum()
    }

    /// Counts one result.
    fn count(&mut self, result: &std::io::Result<Answer>) {
        match result {
            Ok(answer) => {
                *self.answers.entry(answer.name.clone()).or_default() += 1;
                *self.places.entry(answer.local).or_default() += 1;
                *self.peers.entry(answer.peer.ip()).or_default() += 1;
            }
            Err(error) => *self.errors.entry(kind(error)).or_default() += 1,
        }
    }
}

// === impl Protocol ===

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => bail!("{text:?} is not a protocol: tcp, udp or sctp"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

// === impl Place ===

impl Place {
    /// A place of this protocol.
    pub fn new(protocol: Protocol, address: IpAddr, port: u16) -> Self {
        Self { protocol, address: SocketAddr::new(address, port) }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (protocol, address) = text
            .split_once(':')
            .with_context(|| format!("{text:?} is not PROTOCOL:ADDRESS:PORT"))?;
        let address =
            address.parse().with_context(|| format!("{address:?} is not ADDRESS:PORT"))?;
        Ok(Self { protocol: protocol.parse()?, address })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.protocol, self.address)
    }
}

/// A failure's kind, in a word where there is one.
pub fn kind(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timeout".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            "reset".to_owned()
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        // A connect that ran into its send timeout.
        _ if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            "timeout".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["tcp:10.96.0.1:80", "udp:[fd00::1]:53", "sctp:127.0.0.1:7777"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert!("icmp:10.0.0.1:1".parse::<Place>().is_err());
        assert!("tcp:10.0.0.1".parse::<Place>().is_err());
    }
}
