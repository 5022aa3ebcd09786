//! The dataplane in the kernel: IPVS, `kube-ipvs0`, sets, rules and UDP flows.
//!
//! A plan is carried out in its order; what stands together and goes to the same part of the kernel
//! goes in one batch.

pub mod cleanup;
pub mod conntrack;
pub mod firewall;
pub mod ipset;
mod ipvs;
