//! What the fuzz targets do with bytes, and the replay of their corpora by the normal tests.
//! Nothing of it is in the program.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;

use crate::args::Args;
use crate::cluster::Change;
use crate::config::{Config, ConfigError, Environment};
use crate::kernel;
use crate::memory::Memory;
use crate::reconcile::{Event, Reconciler, Resolver, Timing};
use crate::settings::{Abilities, settings};
use crate::source::{files, kube as api};

const NODE: &str = "node-1";

/// What ipset answers.
pub fn ipset(bytes: &[u8]) {
    kernel::ipset::fuzz::answers(bytes);
}

/// What conntrack answers.
pub fn conntrack(bytes: &[u8]) {
    kernel::conntrack::fuzz::answers(bytes);
}

/// A configuration file: one that is accepted is the same after it was written and read.
///
/// # Panics
/// It is not.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match load(text) {
        Ok(config) => {
            let written = config.to_yaml().expect("a configuration as YAML");
            let again = load(&written).expect("what was written is accepted");
            assert_eq!(again.to_yaml().expect("a configuration as YAML"), written);
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

/// A manifest, and what becomes of it in the kernel.
pub fn manifest(bytes: &[u8]) {
    program(files::fuzz::manifest(bytes, NODE));
}

/// What an API server sends, and what becomes of it in the kernel.
pub fn watch(bytes: &[u8]) {
    program(api::fuzz::watches(bytes));
}

/// Only a file, which is this text.
struct File<'a>(&'a str);

impl Environment for File<'_> {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.to_owned())
    }

    fn host_name(&self) -> io::Result<String> {
        Ok(NODE.to_owned())
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::load(&arguments(&["--config=config.yaml"]), &File(text))
}

fn arguments(words: &[&str]) -> Args {
    Args::parse_from(["proxier"].iter().chain(words)).expect("arguments")
}

/// Carries out what changes ask for on a kernel in memory, which refuses what a kernel would: no
/// operation fails, the state is the one that is wanted, and then there is nothing more to do.
fn program(changes: Vec<Change>) {
    let config = Config::load(&arguments(&[]), &File("")).expect("the defaults");
    let resolver =
        Resolver::new(move |node, host| settings(&config, &Abilities::default(), node, host));
    let timing = Timing {
        sync_period: Duration::from_hours(1),
        min_sync_period: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        drain_check: Duration::from_hours(1),
    };
    let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, timing);
    reconciler.take(Event::HostAddresses(vec![[192, 0, 2, 1].into()]));
    for change in changes {
        reconciler.take(Event::from(change));
    }
    // Memory never waits.
    reconciler.step().now_or_never().expect("a step over memory");
    let counters = status.borrow().counters.clone();
    assert!(counters.operations.values().all(|(_, failed)| *failed == 0), "{counters:?}");
    let wanted = reconciler.desired().state().clone();
    assert_eq!(reconciler.dataplane().state, wanted);
    let done = reconciler.dataplane().done.len();
    reconciler.take(Event::Disturbed);
    reconciler.step().now_or_never().expect("a step over memory");
    assert_eq!(reconciler.dataplane().done.len(), done);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5, "{target}: {count} files");
    }

    #[test]
    fn the_corpora_are_read() {
        replay("ipset", ipset);
        replay("conntrack", conntrack);
        replay("configuration", configuration);
        replay("manifest", manifest);
        replay("watch", watch);
    }
}
