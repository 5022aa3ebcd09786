//! Facts about the cluster, as sources send them.

use std::fmt;
use std::sync::Arc;

use super::{EndpointSlice, Node, ObjectKey, Service};
use crate::text;

/// One fact about the cluster. Applying a change twice is the same as applying it once.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Change {
    /// A Service that is proxied was added or changed.
    Service(Service),
    /// There is a Service of this name, but it is not proxied.
    ServiceIgnored(ObjectKey, NotProxied),
    /// A Service is gone.
    ServiceGone(ObjectKey),
    /// An EndpointSlice was added or changed.
    Slice(EndpointSlice),
    /// An EndpointSlice is gone or no longer usable. The key is the slice's own.
    SliceGone(ObjectKey),
    /// This node's object was added or changed.
    Node(Node),
    /// A Node has a weight for its endpoints, or has none (any more).
    NodeWeight(ObjectKey, Option<u16>),
    /// A complete list of Services was read: every other one is gone.
    ServicesListed(Vec<ObjectKey>),
    /// A complete list of EndpointSlices was read: every other one is gone.
    SlicesListed(Vec<ObjectKey>),
    /// A complete list of Nodes was read: every other one has no weight.
    NodeWeightsListed(Vec<ObjectKey>),
    /// The node object was read, or does not exist; and before it the weights of all Nodes, where they count.
    NodeListed,
}

/// Why a Service is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotProxied {
    /// `clusterIP: None`
    Headless,
    /// `type: ExternalName`
    ExternalName,
    /// Label `service.kubernetes.io/service-proxy-name` gives it to the named proxy.
    OtherProxy(Arc<str>),
    /// The API server has not given it a cluster IP.
    NoClusterIp,
}

impl fmt::Display for NotProxied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headless => f.write_str("it is headless (clusterIP: None)"),
            Self::ExternalName => f.write_str("it is of type ExternalName"),
            Self::OtherProxy(name) => {
                let label = "service.kubernetes.io/service-proxy-name";
                write!(f, "its label {label} gives it to \"{}\"", text::name(name))
            }
            Self::NoClusterIp => f.write_str("it has no cluster IP"),
        }
    }
}
