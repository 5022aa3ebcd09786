#![doc = include_str!("../README.md")]

mod address;
mod error;
mod gateways;
mod host;
mod link;
mod local;
mod monitor;
mod own;
mod route;

pub use address::{AddressChange, AssignedAddress, Report};
pub use gateways::gateways;
pub use host::{host_addresses, InterfaceAddress};
pub use link::{DummyInterface, Ensured, Observation};
pub use local::{ListedRoute, LocalRoute, RouteChange, Routes};
pub use monitor::{Event, Monitor};
pub use netlink_batch::{Error, ErrorKind};
