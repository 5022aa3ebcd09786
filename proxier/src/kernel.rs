//! The dataplane in the kernel.

pub mod firewall;
