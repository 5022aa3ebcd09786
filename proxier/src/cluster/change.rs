//! Facts about the cluster, as sources send them.

use super::{EndpointSlice, Node, ObjectKey, Service};

/// One fact about the cluster. Applying a change twice is the same as applying it once.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A Service that is proxied was added or changed.
    Service(Service),
    /// A Service is gone, or is no longer one that is proxied (headless, ExternalName, ...).
    ServiceGone(ObjectKey),
    /// An EndpointSlice was added or changed.
    Slice(EndpointSlice),
    /// An EndpointSlice is gone or no longer usable. The key is the slice's own.
    SliceGone(ObjectKey),
    /// This node's object was added or changed.
    Node(Node),
    /// A complete list of Services was read: every other one is gone.
    ServicesListed(Vec<ObjectKey>),
    /// A complete list of EndpointSlices was read: every other one is gone.
    SlicesListed(Vec<ObjectKey>),
    /// The node object was read, or does not exist.
    NodeListed,
}
