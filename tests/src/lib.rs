//! Shared parts of the tests that cross crates: the golden scenarios, nodes and pods made of network
//! namespaces, the daemon under test and the two ends of test traffic.

pub mod apiserver;
pub mod builders;
pub mod command;
pub mod daemon;
pub mod floor;
pub mod golden;
pub mod live;
pub mod manifest;
pub mod netns;
pub mod topology;
pub mod traffic;
pub mod world;
