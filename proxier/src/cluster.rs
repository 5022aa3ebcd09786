//! What Kubernetes says, indexed. Pure: no I/O, no clock, no logging.

mod address;
mod change;
mod index;
mod object;
pub mod topology;

pub use address::{Special, Use};
pub use change::{Change, NotProxied};
pub use index::{Cluster, Dirty};
pub use object::{
    Conditions, Endpoint, EndpointSlice, Hints, Node, ObjectKey, Service, ServicePort, SlicePort,
    SourceRanges, UNDATED,
};
