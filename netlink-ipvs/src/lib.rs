#![doc = include_str!("../README.md")]

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
