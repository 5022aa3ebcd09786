//! Kubernetes objects for tests, as JSON documents.

use std::ffi::OsStr;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::program;
use crate::daemon::Scratch;
use crate::topology::{Family, Host, Node};
use crate::traffic::Protocol;

/// A Service and the EndpointSlices that belong to it, in namespace `default`.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    annotations: Value,
    spec: Value,
    ingress: Vec<Value>,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, Copy)]
struct Port {
    protocol: Protocol,
    target: u16,
}

// === impl Service ===

impl Service {
    /// A Service with these cluster IPs, the first of them decides its family.
    pub fn new(name: &str, cluster_ips: &[&str]) -> Self {
        let family = |ip: &&str| if ip.contains(':') { "IPv6" } else { "IPv4" };
        let spec = json!({
            "type": "ClusterIP",
            "clusterIP": cluster_ips.first(),
            "clusterIPs": cluster_ips,
            "ipFamilies": cluster_ips.iter().map(family).collect::<Vec<_>>(),
            "ports": [],
        });
        let (name, annotations) = (name.to_owned(), json!({}));
        Self { name, annotations, spec, ingress: Vec::new(), ports: Vec::new() }
    }

    /// Gives it an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }

    /// Adds a port that leads to `target` of the pods.
    #[must_use]
    pub fn port(self, protocol: Protocol, port: u16, target: u16) -> Self {
        self.add(protocol, port, target, None)
    }

    /// Adds a port that can also be reached as `node_port` of the nodes.
    #[must_use]
    pub fn node_port(mut self, protocol: Protocol, port: u16, target: u16, node_port: u16) -> Self {
        if self.spec["type"] == "ClusterIP" {
            self.spec["type"] = "NodePort".into();
        }
        self.add(protocol, port, target, Some(node_port))
    }

    /// Gives it external IPs.
    #[must_use]
    pub fn external_ips(mut self, addresses: &[&str]) -> Self {
        self.spec["externalIPs"] = json!(addresses);
        self
    }

    /// Makes it a load balancer's, with these addresses.
    #[must_use]
    pub fn load_balancer(mut self, addresses: &[&str]) -> Self {
        self.spec["type"] = "LoadBalancer".into();
        self.ingress = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
        self
    }

    /// Gives it addresses at which a load balancer stands by itself and sends connections on to the nodes.
    #[must_use]
    pub fn proxying_load_balancer(mut self, addresses: &[&str]) -> Self {
        self.spec["type"] = "LoadBalancer".into();
        let all = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "Proxy" }));
        self.ingress.extend(all);
        self
    }

    /// Sets any other field of `spec`.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// The Service as a document.
    pub fn document(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.name,
                "namespace": "default",
                "annotations": self.annotations,
            },
            "spec": self.spec,
            "status": { "loadBalancer": { "ingress": self.ingress } },
        })
    }

    /// An EndpointSlice of one family for it: these pods, ready, each on its node.
    pub fn slice(&self, family: Family, pods: &[(&Host, &Node)]) -> Value {
        let ready = pods.iter().map(|(pod, node)| endpoint(family, pod, node, Condition::Ready));
        self.slice_of(family, &ready.collect::<Vec<_>>())
    }

    /// An EndpointSlice of one family for it, with these [`endpoint`]s.
    pub fn slice_of(&self, family: Family, endpoints: &[Value]) -> Value {
        let port = |port: &Port| {
            json!({
                "name": name(port.protocol, port.target),
                "protocol": port.protocol.to_string().to_uppercase(),
                "port": port.target,
            })
        };
        let (suffix, address_type) = match family {
            Family::V4 => ("v4", "IPv4"),
            Family::V6 => ("v6", "IPv6"),
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{suffix}", self.name),
                "namespace": "default",
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": address_type,
            "ports": self.ports.iter().map(port).collect::<Vec<_>>(),
            "endpoints": endpoints,
        })
    }

    fn add(mut self, protocol: Protocol, port: u16, target: u16, node_port: Option<u16>) -> Self {
        let mut entry = json!({
            "name": name(protocol, target),
            "protocol": protocol.to_string().to_uppercase(),
            "port": port,
            "targetPort": target,
        });
        if let Some(node_port) = node_port {
            entry["nodePort"] = node_port.into();
        }
        if let Some(ports) = self.spec["ports"].as_array_mut() {
            ports.push(entry);
        }
        self.ports.push(Port { protocol, target });
        self
    }
}

/// What a pod is fit for, by its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Ready,
    /// It is being deleted and still serves.
    Terminating,
}

/// An endpoint of an EndpointSlice: a pod on its node.
pub fn endpoint(family: Family, pod: &Host, node: &Node, condition: Condition) -> Value {
    let ready = condition == Condition::Ready;
    json!({
        "addresses": [pod.address(family)],
        "conditions": { "ready": ready, "serving": true, "terminating": !ready },
        "nodeName": node.host.namespace.name(),
    })
}

/// A Node object for a node of the topology.
pub fn node(node: &Node) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.host.namespace.name() },
        "status": { "addresses": [
            { "type": "InternalIP", "address": node.host.ipv4 },
            { "type": "InternalIP", "address": node.host.ipv6 },
        ]},
    })
}

/// Documents in one file.
pub fn file(documents: &[Value]) -> String {
    documents.iter().fold(String::new(), |text, document| format!("{text}---\n{document}\n"))
}

/// Runs `proxier` over these documents, as on node `n1`, and without a kernel.
pub fn over(
    documents: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Output> {
    let scratch = Scratch::create()?;
    let path = scratch.replace("objects.yaml", documents)?;
    Command::new(program("proxier")?)
        .args(arguments)
        .arg("--manifests")
        .arg(path)
        .args(["--hostname-override=n1", "--node-address=192.168.1.10", "--proxy-mode=ipvs"])
        .output()
        .context("run proxier")
}

/// The name by which a service port finds the slice's port.
fn name(protocol: Protocol, target: u16) -> String {
    format!("{protocol}-{target}")
}
