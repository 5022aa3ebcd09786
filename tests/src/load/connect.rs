//! How long it takes to connect through a VIP, beside straight to the pod.

use anyhow::Result;
use proxier::dataplane::firewall::Backend;
use serde_json::{Value, json};

use crate::manifest::Service;
use crate::topology::Family;
use crate::traffic::{Client, Place, Protocol, Took};
use crate::world::{TCP, World};

/// Virtual servers besides those that are connected to.
const OTHERS: u16 = 1500;
const CLUSTER: &str = "10.96.0.10";
const EXTERNAL: &str = "203.0.113.10";
const NODE_PORT: u16 = 30080;

/// Connects so many times from a machine outside the cluster, through the node, in this network namespace,
/// which must be new.
pub fn measure(backend: Backend, rounds: u32) -> Result<Value> {
    let mut world = World::build_by(backend, "rr")?;
    let (pod, on) = world.topology.pod("pod-a");
    let tcp = |address: std::net::IpAddr, port| Place::new(Protocol::Tcp, address, port);
    let straight = tcp(pod.address(Family::V4), TCP);
    let node_port = tcp(on.host.address(Family::V4), NODE_PORT);

    let service = Service::new("web", &[CLUSTER]).external_ips(&[EXTERNAL]);
    let service = service.node_port(Protocol::Tcp, 80, TCP, NODE_PORT);
    let mut objects = vec![service.document(), service.slice(Family::V4, &[(pod, on)])];
    for number in 0..OTHERS {
        let [high, low] = number.to_be_bytes();
        let other = Service::new(&format!("other-{number}"), &[&format!("10.97.{high}.{low}")]);
        let other = other.port(Protocol::Tcp, 80, TCP);
        objects.extend([other.document(), other.slice(Family::V4, &[(pod, on)])]);
    }
    let time = |world: &World, places: &[Place]| {
        Client::new(&world.topology.client.namespace).time(rounds, places)
    };
    let without = time(&world, &[straight])?;
    // The node port is on two addresses.
    world.apply(&objects, usize::from(OTHERS) + 4, &[CLUSTER, EXTERNAL])?;
    world.ready()?;
    let places = [straight, tcp(CLUSTER.parse()?, 80), tcp(EXTERNAL.parse()?, 80), node_port];
    let took = time(&world, &places)?;
    let names =
        ["straight, nothing installed", "straight", "cluster IP", "external IP", "node port"];
    let took: Vec<Value> = names
        .into_iter()
        .zip(without.into_iter().chain(took))
        .map(|(name, Took { p50, p99 })| json!({"to": name, "p50": p50, "p99": p99}))
        .collect();
    Ok(json!({"backend": backend.to_string(), "rounds": rounds, "took": took}))
}
