//! Two nodes with their pods and a client, as network namespaces of the test kernel.
//!
//! ```text
//!   client ── lan0 (a bridge) ──┬── node-a ── cni0 ──┬── pod-a
//!   .100          192.168.50/24 │   .10   10.244.0/24├── pod-b
//!                 fd00:50::/64  │                    └── pod-c
//!                               └── node-b ── cni0 ──── pod-d
//!                                   .11   10.244.1/24
//! ```
//! The daemon under test runs in the first node. The client's default route leads there, as if a router
//! sent the service addresses to this node. IPv6 has the same host numbers, `fd00:10:244:N::/64` for pods.
//! The names, the network between the nodes and the pods are those of a [`Plan`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::command::run;
use crate::netns::{Namespace, ip, require_test_kernel};

/// What to build.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The network of the nodes, /24: node N has host number 10 + N, the client 100.
    pub lan4: Ipv4Addr,
    /// The same in IPv6, /64, with hexadecimal digits that look like the decimal ones.
    pub lan6: Ipv6Addr,
    /// Two nodes: their names, and those of their pods, whose host numbers count from 5.
    pub nodes: [(&'a str, &'a [&'a str]); 2],
}

/// A machine or a pod: a namespace with one address of each family on `eth0`.
#[derive(Debug)]
pub struct Host {
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

/// A node and its pods.
#[derive(Debug)]
pub struct Node {
    /// The node.
    pub host: Host,
    /// Its pods.
    pub pods: Vec<Host>,
    /// The third part of its pods' addresses.
    number: u8,
}

/// The whole picture; gone when dropped.
#[derive(Debug)]
pub struct Topology {
    /// A machine outside the cluster.
    pub client: Host,
    /// The nodes; the daemon runs in the first.
    pub nodes: [Node; 2],
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

// === impl Plan ===

impl Plan<'_> {
    fn ipv4(&self, host: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.lan4.octets();
        Ipv4Addr::new(a, b, c, host)
    }

    fn ipv6(&self, host: u16) -> Ipv6Addr {
        let mut parts = self.lan6.segments();
        parts[7] = host;
        parts.into()
    }
}

// === impl Host ===

impl Host {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.ipv4.into(),
            Family::V6 => self.ipv6.into(),
        }
    }

    fn new(name: &str, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Self {
        Self { namespace: Namespace::named(name), ipv4, ipv6 }
    }

    /// Commands that connect its `eth0` to a bridge of the namespace in which they are run.
    fn link(&self, bridge: &str) -> String {
        let name = self.namespace.name();
        format!(
            "link add veth-{name} type veth peer name eth0 netns {name}\n\
             link set veth-{name} master {bridge} addrgenmode none\n\
             link set veth-{name} type bridge_slave hairpin on\n\
             link set veth-{name} up\n"
        )
    }

    /// Commands that give it its addresses, in its own namespace. Without duplicate detection they work
    /// at once; that of the link is what a router asks for its neighbours with.
    fn addresses(&self) -> String {
        let Self { ipv4, ipv6, .. } = self;
        let host = ipv6.segments()[7];
        format!(
            "link set lo up\n\
             link set eth0 addrgenmode none\n\
             link set eth0 up\n\
             addr add {ipv4}/24 dev eth0\n\
             addr add fe80::{host:x}/64 dev eth0 nodad\n\
             addr add {ipv6}/64 dev eth0 nodad\n"
        )
    }
}

/// Commands for the default routes.
fn default_route(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> String {
    format!("route add default via {ipv4}\nroute add ::/0 via {ipv6}\n")
}

// === impl Node ===

impl Node {
    /// A pod by its namespace's name.
    ///
    /// # Panics
    /// If the node has none of this name.
    pub fn pod(&self, name: &str) -> &Host {
        let found = self.pods.iter().find(|pod| pod.namespace.name() == name);
        found.unwrap_or_else(|| panic!("no pod {name} on node {}", self.host.namespace.name()))
    }

    fn new(plan: &Plan<'_>, number: u8) -> Self {
        let (name, pods) = plan.nodes[usize::from(number)];
        let host = Host::new(name, plan.ipv4(10 + number), plan.ipv6(0x10 + u16::from(number)));
        let pod = |(index, name): (u8, &&str)| {
            Host::new(name, pod_ipv4(number, index), pod_ipv6(number, index))
        };
        Self { host, pods: (5..).zip(pods).map(pod).collect(), number }
    }

    /// Sets up the node and its pods, whose namespaces are there.
    fn set_up(&self, other: &Self) -> Result<()> {
        let (ipv4, ipv6) = (pod_ipv4(self.number, 1), pod_ipv6(self.number, 1));
        let mut batch = self.host.addresses() + &bridge("cni0");
        batch.extend([format!(
            "addr add {ipv4}/24 dev cni0\n\
             addr add fe80::1/64 dev cni0 nodad\n\
             addr add {ipv6}/64 dev cni0 nodad\n\
             route add {}/24 via {}\n\
             route add {}/64 via {}\n",
            pod_ipv4(other.number, 0),
            other.host.ipv4,
            pod_ipv6(other.number, 0),
            other.host.ipv6,
        )]);
        batch.extend(self.pods.iter().map(|pod| pod.link("cni0")));
        self.host.namespace.ip(&batch)?;
        // What a cluster's network plugin sets; the daemon itself has nothing to do with IPv6's.
        self.host.namespace.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/bridge/bridge-nf-call-iptables", "1"),
            ("net/bridge/bridge-nf-call-ip6tables", "1"),
            // Every refusal is told at once, not one a second.
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ])?;
        for pod in &self.pods {
            pod.namespace.ip(&(pod.addresses() + &default_route(ipv4, ipv6)))?;
        }
        Ok(())
    }
}

// === impl Topology ===

impl Topology {
    /// Builds the one in the picture, in the caller's network namespace, which must be empty.
    pub fn build() -> Result<Self> {
        Self::build_as(&Plan {
            lan4: Ipv4Addr::new(192, 168, 50, 0),
            lan6: Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0),
            nodes: [("node-a", &["pod-a", "pod-b", "pod-c"]), ("node-b", &["pod-d"])],
        })
    }

    /// Builds one with other names and addresses.
    pub fn build_as(plan: &Plan<'_>) -> Result<Self> {
        require_test_kernel()?;
        // Packets between pods of one bridge must pass the node's rules, as in any Kubernetes node.
        run("modprobe", ["-a", "br_netfilter", "ip_vs", "nf_conntrack"])?;
        let topology = Self {
            client: Host::new("client", plan.ipv4(100), plan.ipv6(0x100)),
            nodes: [Node::new(plan, 0), Node::new(plan, 1)],
        };
        // As few processes as possible: each costs the test kernel 50 ms.
        let mut batch = topology.netns("add");
        batch += &bridge("lan0");
        batch += &topology.client.link("lan0");
        batch.extend(topology.nodes.iter().map(|node| node.host.link("lan0")));
        ip(&batch)?;
        let [first, second] = &topology.nodes;
        let gateway = default_route(first.host.ipv4, first.host.ipv6);
        topology.client.namespace.ip(&(topology.client.addresses() + &gateway))?;
        first.set_up(second)?;
        second.set_up(first)?;
        Ok(topology)
    }

    /// The node where the daemon runs.
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// A pod by its namespace's name, and its node.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn pod(&self, name: &str) -> (&Host, &Node) {
        let has = |node: &&Node| node.pods.iter().any(|pod| pod.namespace.name() == name);
        let node = self.nodes.iter().find(has).unwrap_or_else(|| panic!("no pod {name}"));
        (node.pod(name), node)
    }

    /// All pods, of both nodes.
    pub fn pods(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().flat_map(|node| &node.pods)
    }

    /// Commands that add or delete all namespaces.
    fn netns(&self, verb: &str) -> String {
        let hosts =
            self.nodes.iter().flat_map(|node| std::iter::once(&node.host).chain(&node.pods));
        let names = std::iter::once(&self.client).chain(hosts).map(|host| host.namespace.name());
        names.fold(String::new(), |batch, name| batch + "netns " + verb + " " + name + "\n")
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        // What is left goes with the test kernel, and a panic here would hide the test's own.
        let _ = ip(&(self.netns("delete") + "link delete lan0\n"));
    }
}

/// Commands that make a bridge. It forwards multicast everywhere, whatever it has learned so far.
fn bridge(name: &str) -> String {
    format!(
        "link add name {name} type bridge mcast_snooping 0\n\
         link set {name} addrgenmode none\n\
         link set {name} up\n"
    )
}

fn pod_ipv4(node: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, host)
}

fn pod_ipv6(node: u8, host: u8) -> Ipv6Addr {
    let prefix = 0x0244;
    Ipv6Addr::new(0xfd00, 0x10, prefix, u16::from(node), 0, 0, 0, u16::from(host))
}
