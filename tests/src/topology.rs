//! Two nodes with their pods and a client, as network namespaces of the test kernel.
//!
//! ```text
//!   client ── lan0 (a bridge) ──┬── node-a ── cni0 ──┬── pod-a
//!   .100          192.168.50/24 │   .10   10.244.0/24├── pod-b
//!                 fd00:50::/64  │                    └── pod-c
//!                               └── node-b ── cni0 ──── pod-d
//!                                   .11   10.244.1/24
//! ```
//! The daemon under test runs in `node-a`. The client's default route leads there, as if a router sent
//! the service addresses to this node. IPv6 has the same host numbers, `fd00:10:244:N::/64` for pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::command::run;
use crate::netns::{Namespace, ip, require_test_kernel};

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
    /// `node-a`, where the daemon runs, and `node-b`.
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

// === impl Host ===

impl Host {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.ipv4.into(),
            Family::V6 => self.ipv6.into(),
        }
    }

    /// Creates a namespace whose `eth0` is connected to a bridge of the namespace `at`, or of the
    /// caller's own.
    fn create(
        name: &str,
        at: Option<&Namespace>,
        bridge: &str,
        ipv4: Ipv4Addr,
        ipv6: Ipv6Addr,
    ) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        let link = format!(
            "link add veth-{name} type veth peer name eth0 netns {name}\n\
             link set veth-{name} master {bridge} addrgenmode none up"
        );
        match at {
            Some(at) => at.ip(&link)?,
            None => ip(&link)?,
        }
        // Without duplicate detection, and without link-local addresses, addresses work at once.
        namespace.ip(&format!(
            "link set eth0 addrgenmode none up\n\
             addr add {ipv4}/24 dev eth0\n\
             addr add {ipv6}/64 dev eth0 nodad"
        ))?;
        Ok(Self { namespace, ipv4, ipv6 })
    }

    fn default_route(&self, ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Result<()> {
        self.namespace.ip(&format!("route add default via {ipv4}\nroute add ::/0 via {ipv6}"))
    }
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

    fn create(name: &str, number: u8, pods: &[&str]) -> Result<Self> {
        let host = Host::create(
            name,
            None,
            "lan0",
            Ipv4Addr::new(192, 168, 50, 10 + number),
            Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0x10 + u16::from(number)),
        )?;
        let (ipv4, ipv6) = (pod_ipv4(number, 1), pod_ipv6(number, 1));
        host.namespace.ip(&format!(
            "link add name cni0 type bridge\n\
             link set cni0 addrgenmode none up\n\
             addr add {ipv4}/24 dev cni0\n\
             addr add {ipv6}/64 dev cni0 nodad"
        ))?;
        // What a cluster's network plugin sets; the daemon itself has nothing to do with IPv6's.
        host.namespace.sysctls(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/bridge/bridge-nf-call-iptables", "1"),
            ("net/bridge/bridge-nf-call-ip6tables", "1"),
        ])?;
        let mut node = Self { host, pods: Vec::new(), number };
        for (index, pod) in (5..).zip(pods) {
            let at = Some(&node.host.namespace);
            let pod =
                Host::create(pod, at, "cni0", pod_ipv4(number, index), pod_ipv6(number, index))?;
            pod.default_route(ipv4, ipv6)?;
            node.pods.push(pod);
        }
        // A service address may lead a pod to itself: out of the bridge port that it came in by.
        let hairpin = |pod: &&str| format!("link set veth-{pod} type bridge_slave hairpin on\n");
        node.host.namespace.ip(&pods.iter().map(hairpin).collect::<String>())?;
        Ok(node)
    }

    /// Routes to another node's pods.
    fn route_to(&self, other: &Self) -> Result<()> {
        let (subnet4, subnet6) = (pod_ipv4(other.number, 0), pod_ipv6(other.number, 0));
        self.host.namespace.ip(&format!(
            "route add {subnet4}/24 via {}\nroute add {subnet6}/64 via {}",
            other.host.ipv4, other.host.ipv6
        ))
    }
}

// === impl Topology ===

impl Topology {
    /// Builds it in the caller's network namespace, which must be empty.
    pub fn build() -> Result<Self> {
        require_test_kernel()?;
        // Packets between pods of one bridge must pass the node's rules, as in any Kubernetes node.
        run("modprobe", ["-a", "br_netfilter", "ip_vs", "nf_conntrack"])?;
        ip("link add name lan0 type bridge\nlink set lan0 addrgenmode none up")?;
        let client = Host::create(
            "client",
            None,
            "lan0",
            Ipv4Addr::new(192, 168, 50, 100),
            Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0x100),
        )?;
        let nodes = [
            Node::create("node-a", 0, &["pod-a", "pod-b", "pod-c"])?,
            Node::create("node-b", 1, &["pod-d"])?,
        ];
        client.default_route(nodes[0].host.ipv4, nodes[0].host.ipv6)?;
        nodes[0].route_to(&nodes[1])?;
        nodes[1].route_to(&nodes[0])?;
        Ok(Self { client, nodes })
    }

    /// The node where the daemon runs.
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// All pods, of both nodes.
    pub fn pods(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().flat_map(|node| &node.pods)
    }
}

fn pod_ipv4(node: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, node, host)
}

fn pod_ipv6(node: u8, host: u8) -> Ipv6Addr {
    let prefix = 0x0244;
    Ipv6Addr::new(0xfd00, 0x10, prefix, u16::from(node), 0, 0, 0, u16::from(host))
}
