//! A file that is replaced by one rename is one change: no virtual server that has a real server before
//! and after is ever without one.

use std::fs;

use proxier::builders::{NODE, NODE_ADDRESSES, ip, key, settings};
use proxier::dataplane::State;
use proxier::reconcile::{Event, Resolver};
use proxier::source::files::Manifests;
use proxier_tests::daemon::Scratch;
use proxier_tests::simulated::{Kernel, Simulation, prefixes, simulate, unsafe_between};
use tokio::sync::mpsc;

use super::input;

/// Sends what a folder says and what changes, from a thread of its own.
fn follow(scratch: &Scratch) -> mpsc::Receiver<Event> {
    let mut manifests = Manifests::new(vec![scratch.path().join("all")], NODE);
    let loaded = manifests.read().unwrap();
    let (sender, events) = mpsc::channel(1000);
    sender.try_send(Event::from(loaded.changes)).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(manifests.watch(sender)).unwrap();
    });
    events
}

/// Has the loop follow a file through these contents. It acts after every single event, which is the
/// worst that can happen.
fn replaced(contents: &[String]) {
    let scratch = Scratch::create().unwrap();
    scratch.replace("all/objects.yaml", &contents[0]).unwrap();
    let mut events = follow(&scratch);
    simulate(async {
        let resolver = Resolver::new(|_, _| settings());
        let mut simulation = Simulation::with(Kernel::new(State::default()), resolver);
        simulation.reconciler.take(Event::HostAddresses(NODE_ADDRESSES.map(ip).to_vec()));
        simulation.reconciler.take(events.recv().await.unwrap());
        simulation.reconciler.step().await;
        assert_eq!(simulation.lacks(), []);
        for (n, content) in contents.iter().enumerate().skip(1) {
            let before = simulation.state();
            assert!(before.virtual_servers.values().all(|server| !server.real_servers.is_empty()));
            simulation.done();
            scratch.replace("all/objects.yaml", content).unwrap();
            // What comes after the fence comes after the file.
            let fence = format!("fence-{n}");
            let object = format!(
                "kind: Service\nmetadata: {{name: {fence}, namespace: default}}\nspec: {{clusterIP: None}}\n"
            );
            scratch.replace(&format!("all/{fence}.yaml"), object).unwrap();
            while simulation.reconciler.cluster().ignored(&key(&fence)).is_none() {
                let event = events.recv().await.unwrap();
                simulation.reconciler.take(event);
                simulation.reconciler.step().await;
            }
            let after = simulation.state();
            let ops = simulation.done();
            for state in prefixes(&before, &ops) {
                assert_eq!(unsafe_between(&before, &state, &after), None, "{ops:#?}");
            }
        }
    });
}

/// The field's own: `port-renamed-before.yaml` and `-after.yaml`, there and back.
#[test]
fn a_renamed_port_keeps_its_real_servers() {
    let [before, after] = ["port-renamed-before.yaml", "port-renamed-after.yaml"]
        .map(|name| fs::read_to_string(input(name)).unwrap());
    replaced(&[before.clone(), after.clone(), before, after]);
}

fn service(name: &str, ports: &str) -> String {
    format!(
        "---\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{clusterIP: 10.96.0.1, \
         ports: {ports}}}\n"
    )
}

fn slice(name: &str, ports: &str, addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|a| format!("{{addresses: [{a}]}}")).collect();
    format!(
        "---\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: default, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: {ports}\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

#[test]
fn addresses_that_change_slices_are_never_away() {
    let port = "[{port: 80}]";
    let of = |one: &[&str], two: &[&str]| {
        service("web", port) + &slice("web-1", port, one) + &slice("web-2", port, two)
    };
    let (a, b) = ("10.244.0.1", "10.244.0.2");
    replaced(&[of(&[a], &[b]), of(&[b], &[a]), of(&[], &[a, b]), of(&[a, b], &[]), of(&[a], &[b])]);
}

/// Two ports exchange their names, a slice gets another name, and the Service itself does.
#[test]
fn whatever_else_is_only_renamed_stays() {
    let pair =
        |one: &str, two: &str| format!("[{{name: {one}, port: 80}}, {{name: {two}, port: 81}}]");
    let with = |one: &str, two: &str| {
        service("web", &pair(one, two)) + &slice("web-1", &pair(one, two), &["10.244.0.1"])
    };
    replaced(&[with("a", "b"), with("b", "a"), with("a", "c")]);
    let port = "[{port: 80}]";
    let named = |slice_name: &str| service("web", port) + &slice(slice_name, port, &["10.244.0.1"]);
    replaced(&[named("web-1"), named("web-2"), named("a")]);
    let of = |name: &str| {
        (service(name, port) + &slice("web-1", port, &["10.244.0.1"]))
            .replace("service-name: web", &format!("service-name: {name}"))
    };
    replaced(&[of("web"), of("shop"), of("web")]);
}
