//! Shared parts of the tests that cross crates: the golden scenarios, nodes and pods made of network
//! namespaces, the daemon under test and the two ends of test traffic.

pub mod apiserver;
pub mod command;
pub mod daemon;
pub mod disturbed;
pub mod evidence;
pub mod floor;
pub mod golden;
pub mod http;
pub mod injector;
pub mod live;
pub mod load;
pub mod manifest;
pub mod netns;
pub mod nft;
pub mod own_namespace;
pub mod packets;
pub mod random;
pub mod simulated;
pub mod small_buffers;
pub mod topology;
pub mod trace;
pub mod traffic;
pub mod wait;
pub mod world;
pub mod worst;

/// Whether tests that have a bounded and a full form are to run in full: `PROXIER_FULL` is set.
pub fn full() -> bool {
    std::env::var_os("PROXIER_FULL").is_some()
}

/// Prints a figure that a test has found, so that `tests/run` shows it.
pub fn figure(text: &str) {
    println!("figure: {text}");
}
