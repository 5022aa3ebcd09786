//! The objects of a large cluster, with the metadata that real ones carry.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::live::{NODE, NODE_ADDRESS};

/// How large the cluster is. Of the services 15 in 100 have node ports (5 of them are load
/// balancers), 5 session affinity, 4 both families, 1 is UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Services, at most 60,000.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

impl Size {
    /// A pod is in two services on average, and a node has some fifty pods.
    fn pods(self) -> u32 {
        (self.services * self.endpoints / 2).max(self.endpoints)
    }

    fn nodes(self) -> u32 {
        (self.pods() / 50).max(3)
    }

    /// The object of the node that the daemon runs on.
    pub fn node() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": "zone-0"}},
            "spec": {"podCIDR": "10.128.0.0/24", "podCIDRs": ["10.128.0.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]},
        })
    }

    /// Name and namespace of a service.
    pub fn name(service: u32) -> (String, String) {
        (format!("team-{:03}", service % 200), format!("component-{service:05}"))
    }

    /// The cluster IP of a service.
    pub fn cluster_ip(service: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 1, 0).to_bits() + service)
    }

    fn is_udp(service: u32) -> bool {
        service % 100 == 1
    }

    fn is_dual_stack(service: u32) -> bool {
        service.is_multiple_of(25)
    }

    /// Whether a service has one TCP address and nothing else.
    pub fn is_plain(service: u32) -> bool {
        !Self::is_udp(service)
            && !Self::is_dual_stack(service)
            && ![3, 7].contains(&(service % 10))
            && service % 20 != 11
    }

    /// Every object but the node.
    pub fn objects(self) -> impl Iterator<Item = Value> {
        (0..self.services).flat_map(move |service| {
            let v6 = Self::is_dual_stack(service).then(|| self.slice_v6(service));
            [Self::service(service), self.slice(service)].into_iter().chain(v6)
        })
    }

    /// The Service object.
    pub fn service(service: u32) -> Value {
        let (namespace, name) = Self::name(service);
        let protocol = if Self::is_udp(service) { "UDP" } else { "TCP" };
        let mut port =
            json!({"name": "main", "protocol": protocol, "port": 80, "targetPort": "main"});
        let mut addresses = vec![Self::cluster_ip(service).to_string()];
        let mut families = vec!["IPv4"];
        if Self::is_dual_stack(service) {
            addresses.push(format!("fd00:96::{service:x}"));
            families.push("IPv6");
        }
        let mut kind = "ClusterIP";
        let mut status = json!({"loadBalancer": {}});
        if service % 10 == 3 || service % 20 == 7 {
            kind = "NodePort";
            port["nodePort"] = json!(30_000 + service / 5);
        }
        if service % 20 == 7 {
            kind = "LoadBalancer";
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + service);
            status = json!({"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}});
        }
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata(&namespace, &name, service, "helm"),
            "spec": {
                "type": kind, "clusterIP": addresses[0], "clusterIPs": addresses,
                "ipFamilies": families, "ipFamilyPolicy": "PreferDualStack", "ports": [port],
                "selector": {"app.kubernetes.io/name": name},
                "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            },
            "status": status,
        });
        object["metadata"]["annotations"] = json!({
            "meta.helm.sh/release-name": name, "meta.helm.sh/release-namespace": namespace,
            "kubectl.kubernetes.io/last-applied-configuration": object["spec"].to_string(),
        });
        if service % 20 == 11 {
            object["spec"]["sessionAffinity"] = json!("ClientIP");
            object["spec"]["sessionAffinityConfig"] =
                json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        object
    }

    /// The EndpointSlice of a service in IPv4.
    pub fn slice(self, service: u32) -> Value {
        let endpoints = (0..self.endpoints).map(|endpoint| {
            let pod = (service * self.endpoints + endpoint) % self.pods();
            self.endpoint(pod, &pod_address(pod).to_string())
        });
        Self::slice_of(service, 0, "IPv4", endpoints.collect())
    }

    /// One that has other endpoints in the places of the first `changed`, in the `round`-th of two
    /// ways.
    pub fn changed_slice(self, service: u32, changed: u32, round: u32) -> Value {
        let mut slice = self.slice(service);
        if round % 2 == 1 {
            for endpoint in 0..changed {
                let pod = self.other_pod(service, endpoint);
                slice["endpoints"][endpoint as usize] =
                    self.endpoint(pod, &pod_address(pod).to_string());
            }
        }
        slice
    }

    /// What an endpoint of [`Self::changed_slice`] is changed to and from.
    pub fn flips(self, service: u32, endpoint: u32) -> [Ipv4Addr; 2] {
        let pod = (service * self.endpoints + endpoint) % self.pods();
        [pod, self.other_pod(service, endpoint)].map(pod_address)
    }

    fn other_pod(self, service: u32, endpoint: u32) -> u32 {
        self.pods() + service * self.endpoints + endpoint
    }

    /// A slice of endpoints that no other service has, the first `replaced` of them exchanged for
    /// others.
    pub fn own_slice(self, service: u32, replaced: u32) -> Value {
        const FIRST: u32 = 3_000_000;
        let endpoints = (0..self.endpoints).map(|endpoint| {
            let pod = FIRST + endpoint + if endpoint < replaced { self.endpoints } else { 0 };
            self.endpoint(pod, &pod_address(pod).to_string())
        });
        Self::slice_of(service, 0, "IPv4", endpoints.collect())
    }

    fn slice_v6(self, service: u32) -> Value {
        let endpoints = (0..self.endpoints).map(|endpoint| {
            let pod = (service * self.endpoints + endpoint) % self.pods();
            self.endpoint(pod, &format!("fd00:244::{pod:x}"))
        });
        Self::slice_of(service, 1, "IPv6", endpoints.collect())
    }

    fn endpoint(self, pod: u32, address: &str) -> Value {
        let node = pod % self.nodes();
        let node_name = if node == 0 { NODE.to_owned() } else { format!("worker-{node:04}") };
        // The endpoints of a Service are pods of one Deployment.
        let deployment = pod / self.endpoints;
        json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": node_name, "zone": format!("zone-{}", node % 3),
            "targetRef": {
                "kind": "Pod", "namespace": format!("team-{:03}", pod % 200),
                "name": format!("component-{deployment:05}-7c9d8f6b5-x{pod:05}"), "uid": uid(pod, "pod"),
            },
        })
    }

    #[allow(clippy::needless_pass_by_value, reason = "becomes a part of the object")]
    fn slice_of(service: u32, number: u32, kind: &str, endpoints: Vec<Value>) -> Value {
        let (namespace, owner) = Self::name(service);
        let name = format!("{owner}-{number}x7k2");
        let protocol = if Self::is_udp(service) { "UDP" } else { "TCP" };
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": metadata(&namespace, &name, service, "kube-controller-manager"),
            "addressType": kind,
            "ports": [{"name": "main", "protocol": protocol, "port": 8080}],
            "endpoints": endpoints,
        });
        let metadata = &mut object["metadata"];
        metadata["generateName"] = json!(format!("{owner}-"));
        metadata["labels"]["kubernetes.io/service-name"] = json!(owner);
        metadata["labels"]["endpointslice.kubernetes.io/managed-by"] =
            json!("endpointslice-controller.k8s.io");
        metadata["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "Service", "name": owner, "uid": uid(service, "service"),
            "controller": true, "blockOwnerDeletion": true,
        }]);
        object
    }
}

fn pod_address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 1).to_bits() + pod)
}

fn uid(number: u32, kind: &str) -> String {
    format!("{number:08x}-{:04x}-4a6f-9c3e-{number:012x}", kind.len())
}

fn metadata(namespace: &str, name: &str, number: u32, manager: &str) -> Value {
    json!({
        "namespace": namespace, "name": name, "uid": uid(number, name), "generation": 1,
        "creationTimestamp": format!("2026-01-{:02}T10:{:02}:00Z", 1 + number % 28, number % 60),
        "labels": {
            "app.kubernetes.io/name": name, "app.kubernetes.io/instance": name,
            "app.kubernetes.io/managed-by": manager, "app.kubernetes.io/version": "1.14.2",
            "helm.sh/chart": "component-4.2.0", "team": namespace,
        },
        "managedFields": [{
            "manager": manager, "operation": "Update", "apiVersion": "v1",
            "time": "2026-01-01T10:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {
                    "f:annotations": {".": {}, "f:meta.helm.sh/release-name": {}},
                    "f:labels": {
                        ".": {}, "f:app.kubernetes.io/name": {}, "f:app.kubernetes.io/instance": {},
                        "f:app.kubernetes.io/managed-by": {}, "f:helm.sh/chart": {},
                    },
                },
                "f:spec": {
                    "f:internalTrafficPolicy": {}, "f:selector": {}, "f:sessionAffinity": {},
                    "f:type": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
                    }},
                },
            },
        }],
    })
}
