//! IPVS (the Linux virtual server) over generic netlink.
mod model;

pub use model::{
    Family, Flags, Forwarding, ParseSchedulerError, Protocol, RealServer, RealServerConfig,
    RealServerKey, Scheduler, Tunnel, VirtualServer, VirtualServerConfig, VirtualServerKey,
};
