//! proxier: the home for IPVS in Kubernetes.

pub mod cluster;
pub mod dataplane;
pub mod memory;
pub mod reconcile;
pub mod source;
