//! What Kubernetes says, indexed. Pure: no I/O, no clock, no logging.

mod address;
mod change;
mod index;
mod object;
mod pods;
mod service_settings;
pub mod topology;

pub use address::{Special, Use};
pub use change::{Change, NotProxied};
pub use index::{Cluster, Dirty, Objects};
pub use object::{
    Conditions, Endpoint, EndpointSlice, Hints, Location, Node, ObjectKey, Service, ServicePort,
    SlicePort, SourceRanges, UNDATED,
};
pub use pods::Pods;
pub use service_settings::{
    Annotated, Annotation, NodeWeights, Rejected, SchedulerFlags, ServiceSettings, WeightRule,
    Weights, weight,
};
