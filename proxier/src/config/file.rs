//! The configuration object `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`, field
//! for field as it is written.
//!
//! Every field may be missing; the zero value then stands for it, as in Go, until the defaults are
//! filled in. Serialising writes every field, which is also how unknown fields are found.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::value::GoDuration;

/// `apiVersion` of the configuration object.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// `kind` of the configuration object.
pub const KIND: &str = "KubeProxyConfiguration";

/// The configuration object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeProxyConfiguration {
    /// [`API_VERSION`]
    pub api_version: String,
    /// [`KIND`]
    pub kind: String,
    /// Feature gates by name.
    pub feature_gates: BTreeMap<String, bool>,
    /// How to reach the API server.
    pub client_connection: ClientConnectionConfiguration,
    /// Logs.
    pub logging: LoggingConfiguration,
    /// The node's name, if not the host's.
    pub hostname_override: String,
    /// The node's IP, if specific; nothing is bound to it.
    pub bind_address: String,
    /// `IP:port` or `IP` of the health server.
    pub healthz_bind_address: String,
    /// `IP:port` or `IP` of the metrics server.
    pub metrics_bind_address: String,
    /// Whether failing to listen on one of the two ends the process.
    pub bind_address_hard_fail: bool,
    /// Go's profiles on the metrics server.
    pub enable_profiling: bool,
    /// Which version's hidden metrics to show.
    pub show_hidden_metrics_for_version: String,
    /// `iptables`, `ipvs` or `nftables`.
    pub mode: String,
    /// iptables mode, and masquerading in every mode.
    pub iptables: IptablesConfiguration,
    /// IPVS mode.
    pub ipvs: IpvsConfiguration,
    /// nftables mode.
    pub nftables: NftablesConfiguration,
    /// Windows.
    pub winkernel: WinkernelConfiguration,
    /// `ClusterCIDR`, `NodeCIDR`, `BridgeInterface` or `InterfaceNamePrefix`.
    pub detect_local_mode: String,
    /// Values of the last two modes.
    pub detect_local: DetectLocalConfiguration,
    /// One CIDR, or one of each family with a comma between.
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    /// CIDRs, or `primary` alone.
    pub node_port_addresses: Vec<String>,
    /// `oom_score_adj` of the process.
    pub oom_score_adj: Option<i32>,
    /// Connection tracking.
    pub conntrack: ConntrackConfiguration,
    /// How often everything is re-listed.
    pub config_sync_period: GoDuration,
    /// Unused since the userspace mode is gone.
    pub port_range: String,
    /// Windows.
    pub windows_run_as_service: bool,
}

/// `clientConnection`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnectionConfiguration {
    /// Path of a kubeconfig file; empty is the service account of the pod.
    pub kubeconfig: String,
    /// Encodings to accept.
    pub accept_content_types: String,
    /// Encoding to send.
    pub content_type: String,
    /// Requests a second.
    pub qps: f32,
    /// Requests at once.
    pub burst: i32,
}

/// `logging` (component-base `LoggingConfiguration`)
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggingConfiguration {
    /// `text` or `json`.
    pub format: String,
    /// How long messages may stay in memory.
    pub flush_frequency: GoDuration,
    /// As `-v`.
    pub verbosity: u32,
    /// Verbosity of single source files.
    pub vmodule: Vec<VModuleItem>,
    /// Options of the formats.
    pub options: LogFormatOptions,
}

/// An item of `logging.vmodule`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VModuleItem {
    /// File name without its extension; `*` and `?` as in a shell.
    pub file_pattern: String,
    /// Verbosity there.
    pub verbosity: u32,
}

/// `logging.options`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFormatOptions {
    /// Of text.
    pub text: LogOutputOptions,
    /// Of JSON.
    pub json: LogOutputOptions,
}

/// `logging.options.text` and `logging.options.json`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogOutputOptions {
    /// Whether errors go to stderr and everything else to stdout.
    pub split_stream: bool,
    /// Bytes to buffer before writing.
    pub info_buffer_size: Quantity,
}

/// A Kubernetes quantity as it was written, `0` if it was not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quantity(pub String);

/// `iptables`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IptablesConfiguration {
    /// Bit of the packet mark that asks for masquerading; used by IPVS too.
    pub masquerade_bit: Option<i32>,
    /// Masquerade everything; used by IPVS too.
    pub masquerade_all: bool,
    /// Node ports on loopback addresses.
    pub localhost_node_ports: Option<bool>,
    /// As in `ipvs`.
    pub sync_period: GoDuration,
    /// As in `ipvs`.
    pub min_sync_period: GoDuration,
}

/// `ipvs`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpvsConfiguration {
    /// How often everything is checked against the kernel.
    pub sync_period: GoDuration,
    /// How long changes are collected after a sync.
    pub min_sync_period: GoDuration,
    /// Scheduler of all virtual servers.
    pub scheduler: String,
    /// Where foreign virtual servers are left alone.
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Vec<String>,
    /// Do not answer ARP for service addresses on other interfaces.
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    /// Idle time of TCP connections.
    pub tcp_timeout: GoDuration,
    /// Idle time of TCP connections after a FIN.
    pub tcp_fin_timeout: GoDuration,
    /// Idle time of UDP.
    pub udp_timeout: GoDuration,
}

/// `nftables`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NftablesConfiguration {
    /// As in `iptables`, for nftables mode only.
    pub masquerade_bit: Option<i32>,
    /// As in `iptables`, for nftables mode only.
    pub masquerade_all: bool,
    /// As in `ipvs`.
    pub sync_period: GoDuration,
    /// As in `ipvs`.
    pub min_sync_period: GoDuration,
}

/// `winkernel`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WinkernelConfiguration {
    /// HNS network.
    pub network_name: String,
    /// Source VIP.
    pub source_vip: String,
    /// Direct server return.
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    /// Name of the root endpoint.
    pub root_hns_endpoint_name: String,
    /// Whether health checks of VIPs are forwarded.
    #[serde(rename = "forwardHealthCheckVip")]
    pub forward_health_check_vip: bool,
}

/// `detectLocal`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocalConfiguration {
    /// The bridge that pods are attached to.
    pub bridge_interface: String,
    /// What the names of the pods' interfaces begin with.
    pub interface_name_prefix: String,
}

/// `conntrack`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConntrackConfiguration {
    /// Entries for each CPU; 0 leaves the kernel's limit alone.
    pub max_per_core: Option<i32>,
    /// Least number of entries.
    pub min: Option<i32>,
    /// Idle time of established TCP connections.
    pub tcp_established_timeout: Option<GoDuration>,
    /// Idle time of TCP connections in `CLOSE_WAIT`.
    pub tcp_close_wait_timeout: Option<GoDuration>,
    /// Accept packets outside the TCP window.
    pub tcp_be_liberal: bool,
    /// Idle time of UDP flows in one direction.
    pub udp_timeout: GoDuration,
    /// Idle time of UDP flows in both directions.
    pub udp_stream_timeout: GoDuration,
}

// === impl Quantity ===

impl Default for Quantity {
    fn default() -> Self {
        Self("0".to_owned())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 64Ki")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                match number.parse::<f64>() {
                    Ok(_) => Ok(Quantity(text.to_owned())),
                    Err(_) => Err(E::custom(format_args!("{text:?} is not a quantity"))),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }

        deserializer.deserialize_any(Text)
    }
}
