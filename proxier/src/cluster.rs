//! What Kubernetes says, indexed. Pure: no I/O, no clock, no logging.

mod change;
mod object;

pub use change::Change;
pub use object::{
    Conditions, Endpoint, EndpointSlice, Hints, Node, ObjectKey, Service, ServicePort, SlicePort,
    SourceRanges,
};
