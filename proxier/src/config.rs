//! Resolved and validated configuration: from the arguments, and from a file of kube-proxy's kind.
//!
//! ```text
//! text --decode--> object --defaults, flags--> object --validate--> resolve --> Config
//! ```
//!
//! With `--config`, the file decides, and only the flags of [`crate::args::AlwaysFlags`] count
//! beside it. Everything that is ignored is named in [`Config::warnings`]. Nothing here touches
//! the process: files and the host's name come through [`Environment`].

mod decode;
mod defaults;
mod difference;
pub mod file;
mod flags;
mod gates;
pub mod node;
mod object;
mod resolve;
mod unused;
mod validate;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use netlink_ipvs::{Scheduler, Timeouts};

use file::KubeProxyConfiguration;
pub use validate::{FieldError, FieldErrors};

use crate::args::Args;
use crate::dataplane::firewall::{Backend, FirewallOptions};
use crate::dataplane::hand_over::Successor;
use crate::dataplane::split::LocalPolicy;
use crate::dataplane::sysctls::SysctlOptions;
use crate::input;
use crate::value::{GoDuration, MarkRange};

/// Largest configuration file; the longest real ones have some kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// The value of `nodePortAddresses` that stands for the node's own addresses.
const PRIMARY: &str = "primary";

/// Everything the daemon is told, validated, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct Config {
    /// This node's name: trimmed, lower case, not empty.
    pub node_name: Arc<str>,
    /// How virtual servers distribute connections.
    pub scheduler: Scheduler,
    /// Virtual servers on these addresses are never removed.
    pub exclude_cidrs: Vec<IpNet>,
    /// What the kernel settings depend on.
    pub sysctls: SysctlOptions,
    /// Idle times of IPVS connections.
    pub ipvs_timeouts: Timeouts,
    /// How often everything is checked against the kernel.
    pub sync_period: Duration,
    /// How long changes are collected after a sync.
    pub min_sync_period: Duration,
    /// How long a removed real server may keep its connections.
    pub drain_timeout: Duration,
    /// What the firewall rules depend on, but for how pods are recognised, which is not the same in
    /// both families, and what iptables can do.
    pub firewall: FirewallOptions,
    /// How externalTrafficPolicy Local is programmed.
    pub local_policy: LocalPolicy,
    /// Firewall marks that are ours.
    pub marks: MarkRange,
    /// What keeps rules and sets; whichever works where nothing is asked for.
    pub backend: Option<Backend>,
    /// To whom this node is handed over (`hand-over`).
    pub successor: Option<Successor>,
    /// Whether source ranges hold for node ports and external IPs too
    /// (`--source-ranges-everywhere`).
    pub source_ranges_everywhere: bool,
    /// Reserved addresses that Services may have all the same (`--allow-reserved-ips`).
    pub allow_reserved: Vec<IpNet>,
    /// Virtual servers that others have made stay. It is so without a cluster, where nobody expects a
    /// service proxy to own all of IPVS.
    pub keep_foreign: bool,
    /// Manifests without a configuration: there is no kube-proxy whose settings could be missing.
    pub stand_alone: bool,
    /// Bytes of memory that this process may have, if given (`--memory-limit`).
    pub memory_limit: Option<u64>,
    /// Where node ports listen.
    pub node_port_addresses: NodePortAddresses,
    /// How traffic from this node's pods is recognised.
    pub detect_local: DetectLocal,
    /// Whether `spec.externalIPs` is honoured (feature gate `AllowServiceExternalIPs`).
    pub external_ips: bool,
    /// The node's IP if specific; its family is the default of the servers' addresses.
    pub bind_address: IpAddr,
    /// Where the health server listens; nowhere with `--healthz-port=0`.
    pub healthz_bind: Option<SocketAddr>,
    /// Where the metrics server listens.
    pub metrics_bind: SocketAddr,
    /// Whether failing to listen on one of the two ends the process.
    pub bind_address_hard_fail: bool,
    /// `oom_score_adj` of the process.
    pub oom_score_adj: i32,
    /// How to reach the API server.
    pub client: ClientConnection,
    /// Logs.
    pub logging: Logging,
    /// Namespaces whose services have the kernel's counters among the metrics.
    pub service_metrics: ServiceMetrics,
    /// Whether `/flagz` is answered (feature gate `ComponentFlagz`).
    pub flagz: bool,
    /// Whether `/statusz` is answered (feature gate `ComponentStatusz`).
    pub statusz: bool,
    /// What was ignored or is questionable, one sentence each.
    pub warnings: Vec<String>,
    /// The configuration object that all of this comes from, for `/configz` and
    /// `--write-config-to`.
    pub object: KubeProxyConfiguration,
}

/// Which of the node's addresses node ports listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All.
    All,
    /// The node's primary addresses, one of each family. A family without one listens on all, as in
    /// kube-proxy.
    Primary,
    /// The same, but a family without one listens on none: there is no cluster that could still tell.
    PrimaryOnly,
    /// Those in one of these CIDRs. A family without a CIDR, or with one of length 0, listens on
    /// all.
    Cidrs(Vec<IpNet>),
}

/// How traffic from this node's pods is recognised, which is not masqueraded on its way to a
/// service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectLocal {
    /// By its source in the cluster's CIDRs, at most one of each family; none means that nothing
    /// is recognised.
    ClusterCidr(Vec<IpNet>),
    /// By its source in the node's own pod CIDRs (`spec.podCIDRs`).
    NodeCidr,
    /// By this bridge it comes in on.
    Bridge(String),
    /// By the first letters of the interface it comes in on.
    InterfacePrefix(String),
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientConnection {
    /// Path of a kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server in place of the kubeconfig's. With neither, the service account of
    /// the pod.
    pub master: Option<String>,
    /// Requests a second; negative is no limit.
    pub qps: f32,
    /// Requests at once.
    pub burst: u32,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Text or JSON.
    pub format: LogFormat,
    /// As `-v`: 0 is one line for each real change.
    pub verbosity: u32,
    /// Verbosity of single source files, first match wins: file name without its extension (with
    /// `*` and `?`), verbosity.
    pub vmodule: Vec<(String, u32)>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which services have the kernel's counters among the metrics. By default none: the number of series
/// grows with the endpoints of the cluster, on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceMetrics {
    /// Those of all namespaces.
    All,
    /// Those of these namespaces; none is none.
    Of(Vec<String>),
}

impl ServiceMetrics {
    /// Whether any service has them.
    pub fn any(&self) -> bool {
        *self != Self::Of(Vec::new())
    }

    /// Whether services of this namespace have them.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(namespaces) => namespaces.iter().any(|name| name == namespace),
        }
    }
}

/// What the configuration needs from outside.
pub trait Environment {
    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The host's name.
    fn host_name(&self) -> io::Result<String>;
}

/// The real files and the real host name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file of `--config`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a configuration object.
    #[error("failed to decode the configuration file {}: {}", path.display(), problems.join("; "))]
    Decode {
        /// The file of `--config`.
        path: PathBuf,
        /// Each thing that is wrong, with the field's path.
        problems: Vec<String>,
    },
    /// `--hostname-override` is white space.
    #[error("empty hostname-override is invalid: leave the flag out or name the node")]
    EmptyHostnameOverride,
    /// The host's name is needed and cannot be read.
    #[error("cannot read the host's name; give the node's name with --hostname-override")]
    HostName(#[source] io::Error),
    /// The host's name is needed and empty.
    #[error("empty hostname is invalid: give the node's name with --hostname-override")]
    EmptyHostName,
    /// Fields have values that cannot be.
    #[error("failed validate: {0}")]
    Invalid(FieldErrors),
    /// The object cannot be written as YAML.
    #[error("cannot write the configuration as YAML: {0}")]
    Encode(String),
}

// === impl Config ===

impl Config {
    /// Puts the configuration together from the arguments and the file they name.
    pub fn load(args: &Args, env: &impl Environment) -> Result<Self, ConfigError> {
        let mut warnings = Vec::new();
        let object = object::assemble(args, env, &mut warnings)?;
        let node_name = node_name(&object.hostname_override, env)?;
        resolve::resolve(args, object, node_name, warnings)
    }

    /// The configuration object as kube-proxy writes it: the sync periods of modes that do not
    /// run are 0.
    fn written(&self) -> KubeProxyConfiguration {
        let mut object = self.object.clone();
        object.iptables.sync_period = GoDuration::ZERO;
        object.iptables.min_sync_period = GoDuration::ZERO;
        object.nftables.sync_period = GoDuration::ZERO;
        object.nftables.min_sync_period = GoDuration::ZERO;
        object
    }

    /// The answer of `/configz`: the object under its group's name.
    pub fn configz(&self) -> serde_json::Value {
        serde_json::json!({ "kubeproxy.config.k8s.io": self.written() })
    }

    /// The object as YAML, which [`Config::load`] takes back (`--write-config-to`).
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_saphyr::to_string(&self.written())
            .map_err(|error| ConfigError::Encode(error.to_string()))
    }
}

fn node_name(name_override: &str, env: &impl Environment) -> Result<Arc<str>, ConfigError> {
    let name = match name_override {
        "" => env.host_name().map_err(ConfigError::HostName)?,
        name => name.to_owned(),
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() { Err(ConfigError::EmptyHostName) } else { Ok(name.into()) }
}

/// The entries of `clusterCIDR`.
fn cluster_cidrs(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split(',').collect() }
}

// === impl Host ===

impl Environment for Host {
    fn read(&self, path: &Path) -> io::Result<String> {
        input::read_text(path, MAX_BYTES)
    }

    fn host_name(&self) -> io::Result<String> {
        Ok(rustix::system::uname().nodename().to_string_lossy().into_owned())
    }
}
