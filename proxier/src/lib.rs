//! proxier: the home for IPVS in Kubernetes.

pub mod app;
pub mod args;
#[cfg(any(test, feature = "testing"))]
pub mod builders;
pub mod cluster;
pub mod config;
pub mod dataplane;
pub mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
mod input;
pub mod iptables;
pub mod kernel;
pub mod listing;
pub mod memory;
pub mod nftables;
pub mod reconcile;
pub mod render;
pub mod settings;
pub mod source;
pub mod telemetry;
pub mod text;
pub mod trace;
pub mod value;
