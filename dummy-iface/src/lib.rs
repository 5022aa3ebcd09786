//! A dummy network interface and its host addresses, over rtnetlink.
//!
//! A dummy interface is a place for addresses that belong to this machine without being on any
//! network: the kernel accepts packets for them, whether the interface is up or down. Load
//! balancers keep their virtual addresses there.
//!
//! * [`DummyInterface`] makes or adopts the interface and changes thousands of addresses on it in
//!   a few system calls, with one result for each change.
//! * [`host_addresses`] lists the addresses of all interfaces of the machine.
//! * [`gateways()`] lists the next hops of its default routes.
//! * [`Monitor`] reports changes of addresses and interfaces as they happen.
//!
//! ```no_run
//! use dummy_iface::{AddressChange, DummyInterface, Monitor, host_addresses};
//!
//! # async fn example() -> Result<(), dummy_iface::Error> {
//! let (interface, ensured) = DummyInterface::ensure("vips0")?;
//! println!("{} ({ensured:?})", interface.name());
//!
//! let wanted = ["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
//! let report = interface.apply(wanted.map(AddressChange::Add));
//! for (position, error) in &report.failed {
//!     eprintln!("{}: {error}", wanted[*position]);
//! }
//!
//! // Follow first, then list: no change between the two is missed.
//! let mut monitor = Monitor::open()?;
//! let mut others = host_addresses()?;
//! others.retain(|entry| entry.interface != interface.index());
//! let event = monitor.changed().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The async functions need a tokio runtime with time and I/O enabled. The others block for as
//! long as the kernel takes, which is microseconds for each change.

mod address;
mod error;
mod gateways;
mod host;
mod link;
mod monitor;
mod own;
mod route;

pub use address::{AddressChange, AssignedAddress, Report};
pub use gateways::gateways;
pub use host::{InterfaceAddress, host_addresses};
pub use link::{DummyInterface, Ensured, Observation};
pub use monitor::{Event, Monitor};
pub use netlink_batch::{Error, ErrorKind};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
