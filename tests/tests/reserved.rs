//! A node whose API server's address a Service claims: over a real kernel, with the server on another
//! machine. Whatever is claimed and whoever had it before, the node keeps its API server.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::sync::Arc;
use std::thread;

use proxier_tests::apiserver::ApiServer;
use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::golden::{Dump, Part, observe};
use proxier_tests::netns::{Namespace, ip, require_test_kernel};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const API: &str = "192.168.1.11";
const NODE: &str = "node-a";

/// The API server in this namespace, the node in another, and a wire between them.
struct Wire {
    server: ApiServer,
    runtime: Arc<Runtime>,
    _end: oneshot::Sender<()>,
    scratch: Scratch,
    node: Namespace,
}

impl Wire {
    fn new() -> Self {
        require_test_kernel().unwrap();
        ip("netns add node-a\n\
            link add api0 type veth peer name eth0 netns node-a\n\
            addr add 192.168.1.11/24 dev api0\n\
            link set api0 up")
        .unwrap();
        let node = Namespace::named(NODE);
        node.ip("link set lo up\naddr add 192.168.1.20/24 dev eth0\nlink set eth0 up\n\
                 route add default via 192.168.1.1")
            .unwrap();
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build().unwrap());
        let (end, ended) = oneshot::channel::<()>();
        let serving = Arc::clone(&runtime);
        thread::spawn(move || serving.block_on(ended));
        let server = runtime.block_on(ApiServer::start_at(API.parse().unwrap())).unwrap();
        let scratch = Scratch::create().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server.url()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        });
        scratch.replace("kubeconfig", kubeconfig.to_string()).unwrap();
        server.put_all([
            self::node(NODE, "192.168.1.20"),
            service("default", "web", "10.96.0.50"),
            slice("default", "web-1", "web", &["10.244.0.5"]),
        ]);
        Self { server, runtime, _end: end, scratch, node }
    }

    fn daemon(&self, more: &[&str]) -> Daemon {
        let kubeconfig = self.scratch.path().join("kubeconfig").display().to_string();
        let words = ["--kubeconfig", &kubeconfig, "--hostname-override", NODE, "--v=2"];
        let words = words.iter().chain(&["--proxy-mode=ipvs", "--conntrack-max-per-core=0"]);
        let words: Vec<&str> = words.chain(more).copied().collect();
        let log = self.scratch.path().join("log");
        Daemon::start_with(Some(&self.node), words, &log).unwrap()
    }

    fn kernel(&self) -> Dump {
        observe(Some(&self.node), &Dump::default(), &[Part::Ipvs, Part::Addresses, Part::Sets])
            .unwrap()
    }

    fn until(&self, daemon: &mut Daemon, what: &str, wanted: impl Fn(&Dump) -> bool) -> Dump {
        let question = || {
            let kernel = self.kernel();
            Ok(wanted(&kernel).then_some(kernel))
        };
        daemon.wait(question, || format!("{what}: {:#?}", self.kernel())).unwrap()
    }
}

/// `web` with one more external IP.
fn claiming(addresses: &[&str], by_status: bool) -> Value {
    let mut web = service("default", "web", "10.96.0.50");
    if by_status {
        web["spec"]["type"] = json!("LoadBalancer");
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        web["status"] = json!({"loadBalancer": {"ingress": ingress}});
    } else {
        web["spec"]["externalIPs"] = json!(addresses);
    }
    web
}

/// Whether virtual servers, addresses or sets name an address.
fn names(kernel: &Dump, address: &str) -> bool {
    let bound = format!("inet {address}/32");
    kernel.ipvs.keys().any(|key| key.contains(&format!("{address}:")))
        || kernel.addresses.iter().any(|line| line.starts_with(&bound))
        || kernel.sets.values().flatten().any(|member| member.starts_with(address))
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_service_with_the_api_servers_address_takes_nothing_from_the_node() {
    let wire = Wire::new();
    let mut daemon = wire.daemon(&["--ipvs-sync-period=1h"]);
    daemon.ready().unwrap();
    for (by_status, other) in [(false, "203.0.113.1"), (true, "203.0.113.2")] {
        // The gateway as well.
        wire.server.put(claiming(&[API, "192.168.1.1", other], by_status));
        let kernel = wire.until(&mut daemon, "the other address", |kernel| names(kernel, other));
        assert!(!names(&kernel, API), "{kernel:#?}");
        assert!(!names(&kernel, "192.168.1.1"), "{kernel:#?}");
    }
    assert!(daemon.log().contains("this node connects to the API server there"));
    assert!(daemon.log().contains("a default route of this node goes through it"));
    // New connections come through, too.
    let before = wire.server.requests().len();
    drop(daemon);
    let mut daemon = wire.daemon(&[]);
    daemon.ready().unwrap();
    assert!(wire.server.requests().len() > before);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_a_former_version_has_bound_is_released_at_the_start() {
    let mut wire = Wire::new();
    // A daemon that is allowed to does what a former version did, and is cut off by it.
    wire.server.put(claiming(&[API], false));
    let mut daemon = wire.daemon(&["--allow-reserved-ips=192.168.1.11"]);
    wire.until(&mut daemon, "the API server's address", |kernel| names(kernel, API));
    drop(daemon);
    wire.runtime.block_on(wire.server.stop());
    wire.runtime.block_on(wire.server.resume()).unwrap();
    let mut daemon = wire.daemon(&[]);
    daemon.ready().unwrap();
    let kernel = wire.kernel();
    assert!(!names(&kernel, API), "{kernel:#?}");
    assert!(names(&kernel, "10.96.0.50"), "{kernel:#?}");
    assert!(daemon.log().contains("taken from the services before the cluster is known"));
}

/// A control plane node: the API server is reached at an address of the node itself. It is not bound, and
/// its other ports are served as documented.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn of_an_address_of_the_node_only_the_port_that_is_needed_is_refused() {
    const OWN: &str = "192.168.1.20";
    let wire = Wire::new();
    let mut endpoint = slice("default", "kubernetes", "kubernetes", &[OWN]);
    endpoint["ports"][0]["port"] = json!(6443);
    wire.server.put(endpoint);
    let mut daemon = wire.daemon(&[]);
    daemon.ready().unwrap();
    let mut claim = claiming(&[OWN, "203.0.113.1"], false);
    let port = |name: &str, port: u16| json!({"name": name, "protocol": "TCP", "port": port});
    claim["spec"]["ports"] = json!([port("http", 80), port("api", 6443)]);
    wire.server.put(claim);
    let has = |kernel: &Dump, place: &str| kernel.ipvs.keys().any(|key| key.contains(place));
    let kernel =
        wire.until(&mut daemon, "its other port", |kernel| has(kernel, "192.168.1.20:80 "));
    assert!(!has(&kernel, "192.168.1.20:6443 "), "{kernel:#?}");
    assert!(has(&kernel, "203.0.113.1:6443 "), "{kernel:#?}");
    assert!(!kernel.addresses.iter().any(|line| line.contains(OWN)), "{kernel:#?}");
    assert!(daemon.log().contains("an API server is there"), "{}", daemon.log());
    // The endpoint is gone, and with it the reason.
    wire.server.delete("endpointslices", "default", "kubernetes");
    wire.until(&mut daemon, "the port", |kernel| has(kernel, "192.168.1.20:6443 "));
    daemon.stop().unwrap();
}
