//! A file of manifests that is replaced is one change, on two processors and under load.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use proxier_tests::topology::Topology;
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{TCP, World};
use proxier_tests::{figure, full};
use serde_json::{Value, json};

fn address(service: usize) -> String {
    format!("10.96.{}.{}", 1 + service / 200, 1 + service % 200)
}

/// A Service whose port has this name, and two slices that have this name and one of two addresses.
fn documents(service: usize, port: &str, addresses: [&str; 2]) -> Vec<Value> {
    let name = format!("web-{service}");
    let slice = |number: usize| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{number}"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": port, "protocol": "TCP", "port": TCP}],
            "endpoints": [{"addresses": [addresses[number]], "conditions": {"ready": true}}],
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": address(service), "clusterIPs": [address(service)],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": port, "protocol": "TCP", "port": 80, "targetPort": TCP}],
        },
    });
    vec![service, slice(0), slice(1)]
}

/// What comes with a replacement and shows that it has arrived.
fn mark(replacement: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "zz-mark", "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "mark", "protocol": "TCP", "port": 1000 + replacement}],
        },
    })
}

/// The n-th content of the file: names and addresses change, what is asked for does not.
fn content(services: usize, replacement: usize, [one, two]: [&str; 2]) -> Vec<Value> {
    let (port, addresses) =
        if replacement.is_multiple_of(2) { ("http", [one, two]) } else { ("web", [two, one]) };
    let all = (0..services).flat_map(|service| documents(service, port, addresses));
    all.chain([mark(replacement)]).collect()
}

/// Virtual servers of port 80 that have no real server that takes connections, and how many there
/// are, in what the kernel shows in `/proc/net/ip_vs`.
fn without_endpoints(table: &str) -> (BTreeSet<String>, usize) {
    let mut without = BTreeSet::new();
    let (mut current, mut all) = (None, 0);
    for line in table.lines() {
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["TCP", place, ..] => {
                current = place.ends_with(":0050").then(|| place.to_owned());
                all += usize::from(current.is_some());
                without.extend(current.clone());
            }
            // "-> address:port, forwarding, weight, active, inactive"
            ["->", _, _, weight, ..] if weight != "0" => {
                current.take().map(|place| without.remove(&place));
            }
            _ => {}
        }
    }
    (without, all)
}

/// Looks at the table of the kernel without a pause.
struct Observer {
    end: Arc<AtomicBool>,
    replacement: Arc<AtomicUsize>,
    /// By replacement, which Services were once seen without endpoints, or not at all.
    seen: Arc<Mutex<BTreeSet<(usize, String)>>>,
    looks: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Observer {
    /// Of the namespace of this process.
    fn start(pid: u32, services: usize) -> Self {
        let (end, replacement, looks) = (Arc::default(), Arc::default(), Arc::default());
        let seen = Arc::default();
        let mut own = Self { end, replacement, seen, looks, thread: None };
        let (end, replacement) = (Arc::clone(&own.end), Arc::clone(&own.replacement));
        let (seen, looks) = (Arc::clone(&own.seen), Arc::clone(&own.looks));
        own.thread = Some(thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let replacement = replacement.load(Ordering::Relaxed);
                let table = fs::read_to_string(format!("/proc/{pid}/net/ip_vs")).unwrap();
                let (without, all) = without_endpoints(&table);
                let missing = (all < services).then(|| format!("{} are missing", services - all));
                let found = without.into_iter().chain(missing);
                seen.lock().unwrap().extend(found.map(|service| (replacement, service)));
                looks.fetch_add(1, Ordering::Relaxed);
            }
        }));
        own
    }

    fn end(mut self) -> (BTreeSet<(usize, String)>, usize) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        (seen, self.looks.load(Ordering::Relaxed))
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn replaced_files_leave_no_service_without_endpoints_on_two_processors() {
    let (services, replacements) = if full() { (300, 24) } else { (100, 6) };
    let settings = "scheduler: rr, minSyncPeriod: 0s";
    let mut world = World::build_with(Topology::build().unwrap(), settings).unwrap();
    let pods = ["pod-a", "pod-d"];
    for pod in pods {
        world.start_server(pod, pod).unwrap();
    }
    let addresses = pods.map(|pod| world.topology.pod(pod).0.ipv4.to_string());
    let addresses = [&*addresses[0], &*addresses[1]];
    let arrived = |number: usize| {
        move |text: &str| {
            let mark = format!("-A -t 10.96.9.9:{} ", 1000 + number);
            text.contains(&mark) && text.matches(" -r ").count() == 2 * services
        }
    };
    world.apply_until(&content(services, 0, addresses), "the first file", arrived(0)).unwrap();
    let client = &world.topology.client.namespace;
    client.sysctls(&[("net/ipv4/ip_local_port_range", "1024 65535")]).unwrap();
    let rates: Vec<_> = [0, services / 2, services - 1]
        .into_iter()
        .map(|service| {
            let to = Place::new(Protocol::Tcp, address(service).parse().unwrap(), 80);
            let load =
                Load { to, times: u32::MAX, source: None, timeout: 30_000, one_socket: false };
            Client::new(client).rate(&load, 15).unwrap()
        })
        .collect();
    let observer = Observer::start(world.pid().unwrap(), services);
    for number in 1..=replacements {
        observer.replacement.store(number, Ordering::Relaxed);
        world
            .apply_until(&content(services, number, addresses), "the next file", arrived(number))
            .unwrap();
    }
    let (seen, looks) = observer.end();
    let reports: Vec<_> = rates.into_iter().map(|rate| rate.end().unwrap()).collect();
    let (answered, failed) = reports.iter().fold((0, 0), |(answered, failed), report| {
        (answered + report.answered(), failed + report.failed())
    });
    figure(&format!(
        "{replacements} replacements of a file with {services} Services: {} of {} Service changes seen \
         without endpoints in {looks} looks; {answered} connections, {failed} failed",
        seen.len(),
        replacements * services,
    ));
    assert_eq!(seen, BTreeSet::new());
    assert_eq!(failed, 0, "{reports:#?}");
    assert!(answered > 0 && looks > replacements, "{answered} connections, {looks} looks");
}
