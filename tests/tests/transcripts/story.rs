//! The Services of the node that the transcripts are of.

use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Topology};
use proxier_tests::traffic::Protocol;
use proxier_tests::world::TCP;
use serde_json::{Value, json};

/// How far the story is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chapter {
    /// `web` has three pods that are ready, and one that is not.
    Quiet,
    /// One of the three terminates, and has connections.
    Rollout,
    /// Another Service claims the external IP of `web`.
    Conflict,
}

/// An endpoint: a pod of the topology, what it is called in the cluster, and its state.
struct Pod(&'static str, &'static str, State);

#[derive(Clone, Copy)]
enum State {
    Ready,
    NotReady,
    Terminating,
}

pub(crate) fn objects(topology: &Topology, chapter: Chapter) -> Vec<Value> {
    use State::{NotReady, Ready, Terminating};
    let leaving = if chapter < Chapter::Rollout { Ready } else { Terminating };
    let web = Service::new("web", &["10.96.0.10", "fd00:10:96::10"])
        .node_port(Protocol::Tcp, 80, TCP, 30080)
        .external_ips(&["203.0.113.10", "2001:db8::10"]);
    let pods = [
        Pod("pod-a", "web-1", Ready),
        Pod("pod-b", "web-2", NotReady),
        Pod("pod-c", "web-3", leaving),
        Pod("pod-d", "web-4", Ready),
    ];
    let mut all = vec![web.document()];
    all.extend([Family::V4, Family::V6].map(|family| slice(topology, &web, family, &pods)));

    let shop = Service::new("shop", &["10.96.0.20"])
        .node_port(Protocol::Tcp, 80, TCP, 30020)
        .load_balancer(&["198.51.100.20"])
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(32020));
    let pods = [Pod("pod-b", "shop-1", Ready), Pod("pod-d", "shop-2", Ready)];
    all.extend([shop.document(), slice(topology, &shop, Family::V4, &pods)]);

    let api = Service::new("api", &["10.96.0.30"])
        .port(Protocol::Tcp, 443, TCP)
        .load_balancer(&["198.51.100.30"])
        .with("allocateLoadBalancerNodePorts", json!(false))
        .with("loadBalancerSourceRanges", json!(["172.16.0.0/12"]))
        .annotation("proxier.io/scheduler", "lc")
        .annotation("proxier.io/weights", "zone=eu-1a:3,zone=eu-1b:1");
    let pods = [Pod("pod-c", "api-1", Ready), Pod("pod-d", "api-2", Ready)];
    all.extend([api.document(), slice(topology, &api, Family::V4, &pods)]);

    all.push(Service::new("jobs", &["10.96.0.40"]).port(Protocol::Tcp, 80, TCP).document());
    if chapter >= Chapter::Conflict {
        let copy = Service::new("web-copy", &["10.96.0.50"])
            .port(Protocol::Tcp, 80, TCP)
            .external_ips(&["203.0.113.10"]);
        let pods = [Pod("pod-a", "web-1", Ready)];
        all.extend([copy.document(), slice(topology, &copy, Family::V4, &pods)]);
    }
    all.iter_mut().for_each(called_http);
    all
}

fn slice(topology: &Topology, service: &Service, family: Family, pods: &[Pod]) -> Value {
    let of = |Pod(host, name, state): &Pod| {
        let (pod, node) = topology.pod(host);
        let condition = match state {
            State::Terminating => Condition::Terminating,
            State::Ready | State::NotReady => Condition::Ready,
        };
        let mut endpoint = endpoint(family, pod, node, condition);
        if matches!(state, State::NotReady) {
            endpoint["conditions"] = json!({ "ready": false, "serving": false });
        }
        endpoint["targetRef"] = json!({ "kind": "Pod", "namespace": "default", "name": name });
        endpoint["zone"] = json!(if *host == "pod-d" { "eu-1b" } else { "eu-1a" });
        endpoint
    };
    service.slice_of(family, &pods.iter().map(of).collect::<Vec<_>>())
}

/// Gives the only port a name as people do.
fn called_http(document: &mut Value) {
    let slice = document["kind"] == "EndpointSlice";
    let place = if slice { &mut *document } else { &mut document["spec"] };
    place["ports"][0]["name"] = json!("http");
}
