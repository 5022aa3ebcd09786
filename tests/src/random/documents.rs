//! What the objects mean, and how they are written.

use std::sync::Arc;

use serde_json::{Value, json};

use netlink_ipvs::{Family, Protocol, Scheduler};
use proxier::cluster::{
    self, Annotated, Change, Conditions, Hints, Location, NotProxied, ObjectKey, Rejected,
    ServiceSettings, SlicePort, Weights,
};

use super::{Endpoint, Kind, Node, Port, Service, Slice};
use proxier::builders::NODE;

/// The key of a Service by its number.
pub fn service_key(name: u8) -> ObjectKey {
    ObjectKey::new("default", format!("service-{name}"))
}

/// The key of a slice by its number.
pub fn slice_key(name: u8) -> ObjectKey {
    ObjectKey::new("default", format!("slice-{name}"))
}

fn protocol(protocol: Protocol) -> String {
    protocol.to_string().to_uppercase()
}

const fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

impl Service {
    /// The fact that it is.
    pub fn fact(&self) -> Change {
        let key = service_key(self.name);
        if self.kind == Kind::Headless {
            return Change::ServiceIgnored(key, NotProxied::Headless);
        }
        let reachable = self.kind != Kind::ClusterIp || !self.external_ips.is_empty();
        let external_local = self.external_local && reachable;
        let health_check = self.kind == Kind::LoadBalancer && external_local;
        let mut vips = Vec::new();
        for (address, mode) in &self.ingress {
            if *mode != Some("Proxy") && !vips.contains(address) {
                vips.push(*address);
            }
        }
        Change::Service(cluster::Service {
            key,
            created: i64::from(self.created),
            cluster_ips: self.cluster_ips(),
            ports: self.ports.iter().map(Port::of_service).collect(),
            external_ips: self.external_ips.clone(),
            load_balancer_ips: vips,
            source_ranges: cluster::SourceRanges::new(self.source_ranges.iter().copied()),
            affinity: self.affinity,
            internal_local: self.internal_local,
            external_local,
            health_check_node_port: if health_check { self.health_check } else { 0 },
            settings: self.settings(),
        })
    }

    /// What its annotation means.
    fn settings(&self) -> Option<Box<ServiceSettings>> {
        let (annotation, value) = self.annotation?;
        let mut settings = ServiceSettings::default();
        let scheduler = |value| Some(Annotated { value, annotation });
        match value {
            "mh" => settings.scheduler = scheduler(Scheduler::MH),
            "least-connections" => settings.scheduler = scheduler(Scheduler::LC),
            "default:3" => settings.weights = Weights::new(vec![], vec![], Some(3)),
            "9" => settings.max_connections = Some(9),
            "true" => settings.one_packet = true,
            _ => {
                let reason =
                    "it takes rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos";
                let value = format!("{value:?}").into();
                settings.rejected = vec![Rejected { annotation, value, reason: reason.into() }];
            }
        }
        Some(Box::new(settings))
    }

    /// The object.
    pub fn document(&self) -> Value {
        let annotations: serde_json::Map<_, _> =
            self.annotation.iter().map(|(key, value)| (key.to_string(), json!(value))).collect();
        let ips = self.cluster_ips();
        let policy = |local| if local { "Local" } else { "Cluster" };
        let ingress = self.ingress.iter().map(|(address, mode)| match mode {
            Some(mode) => json!({ "ip": address, "ipMode": mode }),
            None => json!({ "ip": address }),
        });
        let ranges: Vec<String> = self.source_ranges.iter().map(ToString::to_string).collect();
        let mut spec = json!({
            "type": match self.kind {
                Kind::ClusterIp | Kind::Headless => "ClusterIP",
                Kind::NodePort => "NodePort",
                Kind::LoadBalancer => "LoadBalancer",
            },
            "clusterIP": ips.first(),
            "clusterIPs": ips,
            "ipFamilies": self.families.iter().map(|f| family(*f)).collect::<Vec<_>>(),
            "ports": self.ports.iter().map(Port::document).collect::<Vec<_>>(),
            "externalIPs": self.external_ips,
            "loadBalancerSourceRanges": ranges,
            "internalTrafficPolicy": policy(self.internal_local),
            "externalTrafficPolicy": policy(self.external_local),
            "healthCheckNodePort": self.health_check,
            "sessionAffinity": if self.affinity.is_some() { "ClientIP" } else { "None" },
        });
        if self.kind == Kind::Headless {
            spec["clusterIP"] = "None".into();
            spec["clusterIPs"] = json!(["None"]);
        }
        if let Some(seconds) = self.affinity {
            spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": seconds } });
        }
        let key = service_key(self.name);
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": key.name(),
                "namespace": key.namespace(),
                "creationTimestamp": format!("1970-01-01T00:00:{:02}Z", self.created),
                "annotations": annotations,
            },
            "spec": spec,
            "status": { "loadBalancer": { "ingress": ingress.collect::<Vec<_>>() } },
        })
    }
}

impl Port {
    fn of_service(&self) -> cluster::ServicePort {
        cluster::ServicePort {
            name: self.name.into(),
            protocol: self.protocol,
            port: self.number,
            node_port: self.node_port,
        }
    }

    fn document(&self) -> Value {
        let mut port =
            json!({ "name": self.name, "protocol": protocol(self.protocol), "port": self.number });
        if self.node_port != 0 {
            port["nodePort"] = self.node_port.into();
        }
        port
    }
}

impl Slice {
    /// The fact that it is.
    pub fn fact(&self) -> Change {
        let mut ports: Vec<SlicePort> = Vec::new();
        for port in &self.ports {
            let port =
                SlicePort { name: port.name.into(), protocol: port.protocol, port: port.number };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        Change::Slice(cluster::EndpointSlice {
            key: slice_key(self.name),
            service: service_key(self.service),
            family: self.family,
            ports: ports.into(),
            endpoints: self.endpoints.iter().map(Endpoint::fact).collect(),
            pods: cluster::Pods::default(),
            triggered: None,
        })
    }

    /// The object.
    pub fn document(&self) -> Value {
        let key = slice_key(self.name);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": key.name(),
                "namespace": key.namespace(),
                "labels": { "kubernetes.io/service-name": service_key(self.service).name() },
            },
            "addressType": family(self.family),
            "ports": self.ports.iter().map(Port::document).collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(Endpoint::document).collect::<Vec<_>>(),
        })
    }
}

impl Endpoint {
    fn fact(&self) -> cluster::Endpoint {
        let names = |list: &[&str]| list.iter().map(|name| (*name).into()).collect();
        let hints = Hints { zones: names(&self.zones), nodes: names(&self.nodes) };
        cluster::Endpoint {
            address: self.address,
            conditions: Conditions {
                ready: self.ready.unwrap_or(true),
                serving: self.serving.unwrap_or(true),
                terminating: self.terminating.unwrap_or(false),
            },
            location: Arc::new(Location { node: self.node.map(Into::into), zone: None, hints }),
        }
    }

    fn document(&self) -> Value {
        let names = |list: &[&str]| list.iter().map(|n| json!({ "name": n })).collect::<Vec<_>>();
        json!({
            "addresses": [self.address],
            "conditions": {
                "ready": self.ready,
                "serving": self.serving,
                "terminating": self.terminating,
            },
            "nodeName": self.node,
            "hints": { "forZones": names(&self.zones), "forNodes": names(&self.nodes) },
        })
    }
}

impl Node {
    /// The fact that it is.
    pub fn fact(&self) -> Change {
        Change::Node(cluster::Node {
            name: NODE.into(),
            zone: self.zone.map(Into::into),
            addresses: self.addresses.clone(),
            pod_cidrs: Vec::new(),
            eligible: true,
            weight: None,
        })
    }

    /// The object.
    pub fn document(&self) -> Value {
        let addresses =
            self.addresses.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
        let labels = self.zone.map(|zone| json!({ "topology.kubernetes.io/zone": zone }));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": NODE, "labels": labels },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        })
    }
}
