//! Where the state of the cluster comes from: kube watches or manifests. Both send the same
//! [`Change`] values (defined in [`crate::cluster`]) into one bounded channel.

pub mod files;
pub mod kube;
mod objects;

pub use crate::cluster::Change;

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
