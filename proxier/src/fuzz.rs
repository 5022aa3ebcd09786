//! What the fuzz targets do with bytes, and the replay of their corpora by the normal tests.
//! Nothing of it is in the program.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use netlink_ipvs::VirtualServerKey;

use crate::args::Args;
use crate::cluster::{Change, ObjectKey};
use crate::config::{Config, ConfigError, Environment};
use crate::dataplane::{Limits, Need, Origin, Reserved, Settings};
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

/// Memory that the process of [`tenant`] may have: so little that its budgets matter.
const MEMORY: u64 = 16 << 20;

/// What an API server sends as the objects of one namespace, beside those of others: the node keeps what
/// it needs, the others what they have, and no more is built than there is memory for.
///
/// # Panics
/// They do not, or it is.
pub fn tenant(bytes: &[u8]) {
    let changes = api::fuzz::watches(bytes).into_iter().filter_map(|change| match change {
        Change::Service(mut service) => {
            service.key = of_tenant(&service.key);
            // What a tenant cannot choose.
            service.created = 1000;
            service.cluster_ips = vec![[10, 96, 7, 7].into()];
            service.ports.iter_mut().for_each(|port| port.node_port = 0);
            Some(Change::Service(service))
        }
        Change::ServiceGone(key) => Some(Change::ServiceGone(of_tenant(&key))),
        Change::Slice(mut slice) => {
            slice.key = of_tenant(&slice.key);
            Some(Change::Slice(slice))
        }
        Change::SliceGone(key) => Some(Change::SliceGone(of_tenant(&key))),
        _ => None,
    });
    let changes = api::fuzz::with_room(changes, MEMORY / 16);
    let config = Config::load(&arguments(&[]), &File("")).expect("the defaults");
    let resolver = Resolver::new(move |node, host| Settings {
        limits: Limits::of_memory(MEMORY),
        ..settings(&config, &Abilities::default(), node, host)
    });
    let (mut reconciler, _status) = Reconciler::new(Memory::new(), resolver, TIMING);
    reconciler.take(Event::HostAddresses(vec![OWN.into()]));
    let mut reserved = Reserved::default();
    reserved.add(SERVER.into(), Need::ApiServer, 6443);
    reserved.add(GATEWAY.into(), Need::Gateway, 0);
    reconciler.take(Event::Reserved(Origin::Host, reserved));
    reconciler.take(Event::from(api::fuzz::watches(OTHERS.as_bytes())));
    reconciler.step().now_or_never().expect("a step over memory");
    let others = reconciler.dataplane().state.clone();
    assert!(!others.virtual_servers.is_empty() && !others.interface.addresses.is_empty());
    for change in changes {
        reconciler.take(Event::from(change));
    }
    reconciler.step().now_or_never().expect("a step over memory");
    let state = &reconciler.dataplane().state;
    for (key, server) in &others.virtual_servers {
        assert_eq!(state.virtual_servers.get(key), Some(server), "{key}");
    }
    assert!(state.interface.addresses.is_superset(&others.interface.addresses));
    for needed in [OWN, SERVER, GATEWAY] {
        assert!(!state.interface.addresses.contains(&needed.into()), "{needed:?} is bound");
    }
    for key in state.virtual_servers.keys() {
        if let VirtualServerKey::Address { address, .. } = key {
            let needed = [SERVER, GATEWAY].map(std::net::IpAddr::from);
            assert!(!needed.contains(address), "{key} is served");
        }
    }
    // Each costs more than a kilobyte, with its members and all.
    let most = Limits::of_memory(MEMORY).namespace / 1024;
    let built = state.virtual_servers.len() - others.virtual_servers.len();
    assert!(built as u64 <= most, "{built} virtual servers");
}

/// Addresses of the node, of the API server and of the gateway.
const OWN: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [192, 0, 2, 11];
const GATEWAY: [u8; 4] = [192, 0, 2, 254];

/// The objects of others as a watch sends them. Each line is read as every kind, so no two have one name.
const OTHERS: &str = concat!(
    r#"{"type":"ADDED","object":{"metadata":{"namespace":"default","name":"kubernetes","creationTimestamp":"1970-01-01T00:00:01Z"},"spec":{"type":"ClusterIP","clusterIP":"10.96.0.1","ports":[{"name":"","port":443}]}}}"#,
    "\n",
    r#"{"type":"ADDED","object":{"metadata":{"namespace":"default","name":"kubernetes-1","labels":{"kubernetes.io/service-name":"kubernetes"}},"addressType":"IPv4","ports":[{"name":"","port":6443}],"endpoints":[{"addresses":["192.0.2.11"]}]}}"#,
    "\n",
    r#"{"type":"ADDED","object":{"metadata":{"namespace":"other","name":"web","creationTimestamp":"1970-01-01T00:00:02Z"},"spec":{"type":"NodePort","clusterIP":"10.96.0.2","externalIPs":["203.0.113.2"],"ports":[{"name":"","port":80,"nodePort":30080}]}}}"#,
    "\n",
    r#"{"type":"ADDED","object":{"metadata":{"namespace":"other","name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"name":"","port":8080}],"endpoints":[{"addresses":["10.244.0.2"]}]}}"#,
    "\n",
);

fn of_tenant(key: &ObjectKey) -> ObjectKey {
    ObjectKey::new("tenant", key.name())
}

const TIMING: Timing = Timing {
    sync_period: Duration::from_hours(1),
    min_sync_period: Duration::ZERO,
    drain_timeout: Duration::ZERO,
    drain_check: Duration::from_hours(1),
};

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
    let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, TIMING);
    reconciler.take(Event::HostAddresses(vec![OWN.into()]));
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
        replay("watch", tenant);
        replay("tenant", tenant);
    }
}
