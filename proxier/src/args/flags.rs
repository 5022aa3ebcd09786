//! kube-proxy's flags, with its names; none has a default here, so that what was typed is known.

#![allow(clippy::doc_markdown, reason = "the comments are the help text")]

use std::path::PathBuf;

use super::parse;
use crate::value::GoDuration;

/// Heading of [`ConfigFlags`] in the help; it also tells them from the others.
pub(super) const CONFIG_HEADING: &str = "Flags of kube-proxy that --config replaces";
/// Heading of flags that are only accepted.
pub(super) const NO_EFFECT_HEADING: &str = "Flags without effect";

/// kube-proxy's flags that count beside a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Flags of kube-proxy")]
pub struct AlwaysFlags {
    /// Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the resolved configuration to this file and exit.
    #[arg(long, global = true, value_name = "FILE")]
    pub write_config_to: Option<PathBuf>,
    /// Remove everything from the kernel and exit.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub cleanup: bool,
    /// Do only what needs more privileges than running does, and exit.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub init_only: bool,
    /// Address of the API server, in place of the kubeconfig's.
    #[arg(long, global = true, value_name = "URL")]
    pub master: Option<String>,
    /// Name of this node, if it is not the host's.
    #[arg(long, global = true, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// Print the version and exit; with `--version=raw` the number alone.
    #[arg(long, global = true, value_name = "raw", value_parser = parse::version, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub version: Option<String>,
    /// Verbosity of the log: 0 real changes, 2 and more details, 4 every step, 6 the libraries too.
    #[arg(short = 'v', long = "v", global = true, value_name = "N")]
    pub verbosity: Option<u32>,
    /// Verbosity of single source files: PATTERN=N, comma-separated.
    #[arg(long, global = true, value_name = "PATTERN=N", value_delimiter = ',',
          value_parser = parse::vmodule)]
    pub vmodule: Vec<(String, u32)>,
    /// Form of log lines: text or json.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub logging_format: Option<String>,
    /// Longest time between flushes of the log.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub log_flush_frequency: Option<GoDuration>,
    /// Text log: errors to standard error, everything else to standard output.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub log_text_split_stream: Option<bool>,
    /// Text log: bytes to buffer with split streams.
    #[arg(long, global = true, value_name = "QUANTITY")]
    pub log_text_info_buffer_size: Option<String>,
    /// JSON log: errors to standard error, everything else to standard output.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub log_json_split_stream: Option<bool>,
    /// JSON log: bytes to buffer with split streams.
    #[arg(long, global = true, value_name = "QUANTITY")]
    pub log_json_info_buffer_size: Option<String>,
    /// Accepted and ignored.
    #[arg(long, global = true, value_name = "FILES", help_heading = NO_EFFECT_HEADING)]
    pub boot_id_file: Option<String>,
    /// Accepted and ignored.
    #[arg(long, global = true, value_name = "FILES", help_heading = NO_EFFECT_HEADING)]
    pub machine_id_file: Option<String>,
}

/// kube-proxy's flags that a configuration file replaces.
#[derive(Debug, Clone, PartialEq, clap::Args)]
#[command(next_help_heading = CONFIG_HEADING)]
pub struct ConfigFlags {
    /// How to reach the API server; default: the service account of the pod.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Feature gates: NAME=BOOL, comma-separated.
    #[arg(long, global = true, value_name = "NAME=BOOL", value_delimiter = ',',
          value_parser = parse::gate)]
    pub feature_gates: Vec<(String, bool)>,
    /// Encoding of requests.
    #[arg(long, global = true, value_name = "TYPE")]
    pub kube_api_content_type: Option<String>,
    /// Requests a second to the API server.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub kube_api_qps: Option<f32>,
    /// Requests at once to the API server.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub kube_api_burst: Option<i32>,
    /// The node's IP, if specific; nothing is bound to it.
    #[arg(long, global = true, value_name = "IP")]
    pub bind_address: Option<String>,
    /// Where the health server listens.
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub healthz_bind_address: Option<String>,
    /// Where the metrics server listens.
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub metrics_bind_address: Option<String>,
    /// Port of the health server if its address has none; 0 switches it off (deprecated).
    #[arg(long, global = true, value_name = "PORT")]
    pub healthz_port: Option<u16>,
    /// Port of the metrics server if its address has none (deprecated).
    #[arg(long, global = true, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// End when one of the two servers cannot listen.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub bind_address_hard_fail: Option<bool>,
    /// Go profiles on the metrics server.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub profiling: Option<bool>,
    /// Show metrics hidden since this version.
    #[arg(long, global = true, value_name = "VERSION")]
    pub show_hidden_metrics_for_version: Option<String>,
    /// iptables, ipvs or nftables; proxier always runs IPVS.
    #[arg(long, global = true, value_name = "MODE")]
    pub proxy_mode: Option<String>,
    /// Bit of the packet mark that asks for masquerading.
    #[arg(long, global = true, value_name = "BIT", allow_negative_numbers = true)]
    pub iptables_masquerade_bit: Option<i32>,
    /// Masquerade all traffic to service addresses.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub masquerade_all: Option<bool>,
    /// Node ports on loopback addresses.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub iptables_localhost_nodeports: Option<bool>,
    /// As --ipvs-sync-period, which goes before.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub iptables_sync_period: Option<GoDuration>,
    /// As --ipvs-min-sync-period, which goes before.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub iptables_min_sync_period: Option<GoDuration>,
    /// How often everything is checked against the kernel.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub ipvs_sync_period: Option<GoDuration>,
    /// How long changes are collected after a sync.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub ipvs_min_sync_period: Option<GoDuration>,
    /// Scheduler of all virtual servers: rr, wrr, lc, wlc, sh, mh and others.
    #[arg(long, global = true, value_name = "NAME")]
    pub ipvs_scheduler: Option<String>,
    /// Where foreign virtual servers are left alone (comma-separated).
    #[arg(long, global = true, value_name = "CIDR", value_delimiter = ',')]
    pub ipvs_exclude_cidrs: Vec<String>,
    /// Answer ARP only for the addresses of the interface asked.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub ipvs_strict_arp: Option<bool>,
    /// Idle time of TCP connections; 0 leaves the kernel's.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub ipvs_tcp_timeout: Option<GoDuration>,
    /// Idle time of TCP connections after a FIN; 0 leaves the kernel's.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub ipvs_tcpfin_timeout: Option<GoDuration>,
    /// Idle time of UDP; 0 leaves the kernel's.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub ipvs_udp_timeout: Option<GoDuration>,
    /// ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, global = true, value_name = "MODE")]
    pub detect_local_mode: Option<String>,
    /// The bridge that pods are attached to, with BridgeInterface.
    #[arg(long, global = true, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,
    /// What the names of the pods' interfaces begin with, with InterfaceNamePrefix.
    #[arg(long, global = true, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,
    /// The pods' addresses: one CIDR, or one of each family with a comma between.
    #[arg(long, global = true, value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// Where node ports listen: CIDRs (comma-separated), or primary alone.
    #[arg(long, global = true, value_name = "CIDR", value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// oom_score_adj of the process, -1000 to 1000.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,
    /// Connection tracking entries for each CPU; 0 leaves the kernel's limit.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub conntrack_max_per_core: Option<i32>,
    /// Least number of connection tracking entries.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub conntrack_min: Option<i32>,
    /// Idle time of established TCP connections in connection tracking.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub conntrack_tcp_timeout_established: Option<GoDuration>,
    /// Idle time of TCP connections in CLOSE_WAIT in connection tracking.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Accept packets outside the TCP window in connection tracking.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub conntrack_tcp_be_liberal: Option<bool>,
    /// Idle time of one-way UDP flows in connection tracking.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub conntrack_udp_timeout: Option<GoDuration>,
    /// Idle time of two-way UDP flows in connection tracking.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub conntrack_udp_timeout_stream: Option<GoDuration>,
    /// How often the watches list everything again.
    #[arg(long, global = true, value_name = "DURATION", allow_hyphen_values = true)]
    pub config_sync_period: Option<GoDuration>,
}
