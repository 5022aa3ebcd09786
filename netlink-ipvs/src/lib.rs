//! IPVS (the Linux virtual server, the kernel's layer-4 load balancer) over generic netlink.
//!
//! - [`Client`] reads and changes the kernel's table. [`Client::execute`] takes thousands of
//!   [`Command`]s in few system calls and says for each one what became of it.
//! - Identity ([`VirtualServerKey`], [`RealServerKey`]), configuration ([`VirtualServerConfig`],
//!   [`RealServerConfig`]) and counters ([`Stats`], [`Connections`]) are separate types, all plain
//!   values without pointers.
//! - [`message`] has the same messages as typed values over `netlink-packet-generic`, for another
//!   transport. [`Batch`] is the batching without a socket.
//! - [`Error`] names the operation and the object; [`Error::kind`] says whether something exists,
//!   is not there, is not permitted, or is not known.
//!
//! # Example
//!
//! ```no_run
//! use netlink_ipvs::{
//!     Client, Command, ErrorKind, Family, Protocol, RealServer, RealServerConfig, RealServerKey,
//!     Scheduler, VirtualServer, VirtualServerConfig, VirtualServerKey,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut ipvs = Client::open()?;
//! let key = VirtualServerKey::new("10.96.0.10".parse()?, 80, Protocol::Tcp);
//! let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
//!
//! // Replace it if it is there, add it if not.
//! match ipvs.run(Command::AddVirtualServer(VirtualServer { key, config })) {
//!     Err(error) if error.kind() == ErrorKind::Exists => {
//!         ipvs.run(Command::SetVirtualServer(VirtualServer { key, config }))?;
//!     }
//!     other => other?,
//! }
//!
//! // Many commands, few system calls.
//! let report = ipvs.execute((1..=200).map(|host| {
//!     let server = RealServerKey::new([10, 244, 0, host].into(), 8080);
//!     Command::AddRealServer(key, RealServer {
//!         key: server,
//!         config: RealServerConfig::masquerade(1),
//!     })
//! }));
//! for (index, error) in &report.failed {
//!     eprintln!("command {index}: {error}");
//! }
//! if !report.uncertain.is_empty() {
//!     eprintln!("replies were lost: read back");
//! }
//!
//! for real in ipvs.real_servers(key)? {
//!     println!("{} has {} connections", real.server.key, real.connections.active);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Privileges and namespaces
//!
//! The kernel asks for `CAP_NET_ADMIN` for all of it, reading included. A [`Client`] works on the
//! network namespace that its thread was in when it was opened, wherever it is used later.
//!
//! In a new network namespace the loopback interface must be up before IPVS takes a real server;
//! until then adding one is [`ErrorKind::Invalid`].

mod batch;
mod client;
mod command;
mod decode;
mod encode;
mod entry;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod message;
mod model;
mod name;
mod wire;

pub use batch::{Batch, Report};
pub use client::{Client, VirtualServers};
pub use command::{Command, Info, SyncDaemon, SyncRole, Timeouts};
pub use entry::{Connections, RealServerEntry, Stats, VirtualServerEntry};
pub use error::Error;
pub use model::{
    Family, Flags, Forwarding, Protocol, RealServer, RealServerConfig, RealServerKey, Tunnel,
    VirtualServer, VirtualServerConfig, VirtualServerKey,
};
pub use name::{InterfaceName, ParseNameError, PersistenceEngine, Scheduler};
pub use netlink_batch::{ErrorKind, Limits, Options, Socket};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
