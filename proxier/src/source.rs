//! Where the state of the cluster comes from: kube watches or manifests. Both send the same
//! [`Change`] values into one bounded channel.

use crate::cluster::{EndpointSlice, Node, ObjectKey, Service};

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

/// An object, or a part of one, that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The object: `Service dev/web`, `EndpointSlice dev/web-1`, `objects.yaml document 7`.
    pub object: String,
    /// What is wrong, what was left out because of it, and what to do.
    pub text: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.text)
    }
}
