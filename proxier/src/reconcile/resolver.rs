//! How the loop comes by its settings.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::Node;
use crate::dataplane::Settings;

/// How the settings follow from the node object and the addresses of the host, by the present
/// configuration.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

type Resolve = dyn Fn(Option<&Node>, &[IpAddr]) -> Settings + Send + Sync;

impl Resolver {
    /// From the function that gives the settings.
    pub fn new(
        resolve: impl Fn(Option<&Node>, &[IpAddr]) -> Settings + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }

    /// The settings for this node object and these addresses.
    pub fn resolve(&self, node: Option<&Node>, host_addresses: &[IpAddr]) -> Settings {
        (self.0)(node, host_addresses)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
