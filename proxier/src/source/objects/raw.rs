//! Services, EndpointSlices, Endpoints and Nodes as the API sends them, reduced to what is used.
//! Everything else in an object is skipped while it is read.

use serde::Deserialize;

use super::lenient::{Lenient, objects};

type Text = Lenient<Box<str>>;
type Number = Lenient<i64>;
type Flag = Lenient<bool>;
type List<T> = Lenient<Vec<Lenient<T>>>;

/// `metadata`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Text,
    pub(crate) namespace: Text,
    pub(crate) resource_version: Text,
    pub(crate) creation_timestamp: Text,
    pub(crate) deletion_timestamp: Text,
    pub(crate) labels: Lenient<Labels>,
    pub(crate) annotations: Lenient<Annotations>,
}

/// The labels that mean something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Labels {
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(crate) service_proxy_name: Text,
    #[serde(rename = "kubernetes.io/service-name")]
    pub(crate) service_name: Text,
    #[serde(rename = "service.kubernetes.io/headless")]
    pub(crate) headless: Text,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(crate) zone: Text,
}

/// The annotations that mean something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(crate) triggered: Text,
    #[serde(rename = "proxier.io/scheduler")]
    pub(crate) scheduler: Text,
    #[serde(rename = "kube-router.io/service.scheduler")]
    pub(crate) kube_router_scheduler: Text,
    #[serde(rename = "service.cilium.io/lb-algorithm")]
    pub(crate) cilium_algorithm: Text,
    #[serde(rename = "proxier.io/scheduler-flags")]
    pub(crate) scheduler_flags: Text,
    #[serde(rename = "kube-router.io/service.schedflags")]
    pub(crate) kube_router_flags: Text,
    #[serde(rename = "proxier.io/one-packet")]
    pub(crate) one_packet: Text,
    #[serde(rename = "proxier.io/weights")]
    pub(crate) weights: Text,
    #[serde(rename = "proxier.io/weight")]
    pub(crate) weight: Text,
    #[serde(rename = "proxier.io/slow-start")]
    pub(crate) slow_start: Text,
    #[serde(rename = "proxier.io/max-connections")]
    pub(crate) max_connections: Text,
}

/// v1 Service
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) metadata: Lenient<Metadata>,
    pub(crate) spec: Lenient<ServiceSpec>,
    pub(crate) status: Lenient<ServiceStatus>,
}

/// `spec` of a Service
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Text,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: List<Box<str>>,
    pub(crate) ip_families: List<Box<str>>,
    pub(crate) ports: List<ServicePort>,
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: List<Box<str>>,
    pub(crate) session_affinity: Text,
    pub(crate) session_affinity_config: Lenient<AffinityConfig>,
    pub(crate) external_traffic_policy: Text,
    pub(crate) internal_traffic_policy: Text,
    pub(crate) load_balancer_source_ranges: List<Box<str>>,
    pub(crate) health_check_node_port: Number,
}

/// `spec.ports[]` of a Service, `ports[]` of an EndpointSlice or of a subset of Endpoints
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub(crate) name: Text,
    pub(crate) protocol: Text,
    pub(crate) port: Number,
    pub(crate) node_port: Number,
}

/// `spec.sessionAffinityConfig`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: Lenient<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClientIpConfig {
    pub(crate) timeout_seconds: Number,
}

/// `status` of a Service
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) load_balancer: Lenient<LoadBalancerStatus>,
}

/// `status.loadBalancer`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancerStatus {
    pub(crate) ingress: List<Ingress>,
}

/// `status.loadBalancer.ingress[]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Ingress {
    pub(crate) ip: Text,
    pub(crate) ip_mode: Text,
}

/// discovery.k8s.io/v1 EndpointSlice
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Lenient<Metadata>,
    pub(crate) address_type: Text,
    pub(crate) ports: List<ServicePort>,
    pub(crate) endpoints: List<Endpoint>,
}

/// `endpoints[]` of an EndpointSlice
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub(crate) addresses: List<Box<str>>,
    pub(crate) conditions: Lenient<Conditions>,
    pub(crate) node_name: Text,
    pub(crate) zone: Text,
    pub(crate) hints: Lenient<Hints>,
    pub(crate) target_ref: Lenient<TargetRef>,
}

/// `endpoints[].targetRef`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub(crate) kind: Text,
    pub(crate) name: Text,
}

/// `endpoints[].conditions`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Flag,
    pub(crate) serving: Flag,
    pub(crate) terminating: Flag,
}

/// `endpoints[].hints`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hints {
    pub(crate) for_zones: List<Named>,
    pub(crate) for_nodes: List<Named>,
}

/// An object with nothing but a name that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub(crate) name: Text,
}

/// v1 Endpoints, the forerunner of EndpointSlices
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    pub(crate) metadata: Lenient<Metadata>,
    pub(crate) subsets: List<Subset>,
}

/// `subsets[]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Subset {
    pub(crate) addresses: List<SubsetAddress>,
    pub(crate) not_ready_addresses: List<SubsetAddress>,
    pub(crate) ports: List<ServicePort>,
}

/// `subsets[].addresses[]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SubsetAddress {
    pub(crate) ip: Text,
    pub(crate) node_name: Text,
}

/// v1 Node
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) metadata: Lenient<Metadata>,
    pub(crate) spec: Lenient<NodeSpec>,
    pub(crate) status: Lenient<NodeStatus>,
}

/// `spec` of a Node
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Text,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: List<Box<str>>,
    pub(crate) taints: List<Taint>,
}

/// `spec.taints[]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Taint {
    pub(crate) key: Text,
}

/// `status` of a Node
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: List<NodeAddress>,
}

/// `status.addresses[]`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    pub(crate) address: Text,
}

objects!(
    Metadata,
    Labels,
    Annotations,
    Service,
    ServiceSpec,
    ServicePort,
    AffinityConfig,
    ClientIpConfig,
    ServiceStatus,
    LoadBalancerStatus,
    Ingress,
    EndpointSlice,
    Endpoint,
    Conditions,
    Hints,
    Named,
    Endpoints,
    Subset,
    SubsetAddress,
    TargetRef,
    Node,
    NodeSpec,
    Taint,
    NodeStatus,
    NodeAddress,
);
