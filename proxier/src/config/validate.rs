//! What a configuration object must fulfil. Paths and messages are kube-proxy's.

use std::fmt;

use super::file::KubeProxyConfiguration;
use super::gates;
use crate::value::{GoDuration, parse_cidr, parse_ip, split_host_port};

/// A field with a value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, by the name of its Go path: `KubeProxyConfiguration.BindAddress`.
    pub path: String,
    /// The value as Go prints it.
    pub value: String,
    /// What it must be.
    pub message: String,
    kind: &'static str,
}

/// All field errors of an object, printed as Kubernetes prints a list of errors: in brackets if
/// there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

/// Collects errors.
struct Check {
    errors: Vec<FieldError>,
}

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const POSITIVE: &str = "must be greater than 0";
const VALID_CIDR: &str = "must be a valid CIDR";

/// The minor version whose configuration this is (1.36), for `showHiddenMetricsForVersion`.
const PREVIOUS_MINOR: &str = "1.35";

/// Validates an object with its defaults filled in.
///
/// What kube-proxy checks in IPVS mode only is always checked, whatever `mode` says, because it is
/// always used.
pub(super) fn validate(object: &KubeProxyConfiguration) -> Vec<FieldError> {
    let mut check = Check { errors: Vec::new() };
    if let Err(message) = gates::check(&object.feature_gates) {
        let value = gates::go_map(&object.feature_gates);
        check.invalid("featureGates", value, message);
    }
    let bit = object.iptables.masquerade_bit.unwrap_or_default();
    check.range("KubeProxyIPTablesConfiguration.MasqueradeBit", bit, 0, 31);
    check.ipvs(object);
    check.conntrack(object);
    let oom_score_adj = object.oom_score_adj.unwrap_or_default();
    check.range("KubeProxyLinuxConfiguration.OOMScoreAdj", oom_score_adj, -1000, 1000);
    if !["", "iptables", "ipvs", "nftables"].contains(&object.mode.as_str()) {
        let modes = "must be iptables, ipvs, nftables or blank (blank means the best-available \
                     proxy [currently iptables])";
        check.invalid("Mode.ProxyMode", quoted(&object.mode), modes);
    }
    check.not_negative("ClientConnection.Burst", object.client_connection.burst);
    check.periods(object);
    if parse_ip(&object.bind_address).is_none() {
        let message = "not a valid textual representation of an IP address";
        check.invalid("BindAddress", quoted(&object.bind_address), message);
    }
    if !object.healthz_bind_address.is_empty() {
        check.host_port("HealthzBindAddress", &object.healthz_bind_address);
    }
    check.host_port("MetricsBindAddress", &object.metrics_bind_address);
    check.node_port_addresses(&object.node_port_addresses);
    check.hidden_metrics(&object.show_hidden_metrics_for_version);
    check.detect_local(object);
    if !["text", "json"].contains(&object.logging.format.as_str()) {
        check.errors.push(FieldError {
            path: "logging.format".to_owned(),
            value: quoted(&object.logging.format),
            message: "Unsupported log format".to_owned(),
            kind: "Invalid value",
        });
    }
    check.errors
}

// === impl Check ===

impl Check {
    fn push(&mut self, kind: &'static str, path: &str, value: String, message: String) {
        let path = format!("KubeProxyConfiguration.{path}");
        self.errors.push(FieldError { path, value, message, kind });
    }

    fn invalid(&mut self, path: &str, value: impl fmt::Display, message: impl Into<String>) {
        self.push("Invalid value", path, value.to_string(), message.into());
    }

    fn range(&mut self, path: &str, value: i32, least: i32, most: i32) {
        if !(least..=most).contains(&value) {
            self.invalid(path, value, format!("must be within the range [{least}, {most}]"));
        }
    }

    fn not_negative<T: fmt::Display + Default + PartialOrd>(&mut self, path: &str, value: T) {
        if value < T::default() {
            self.invalid(path, value, NOT_NEGATIVE);
        }
    }

    fn ipvs(&mut self, object: &KubeProxyConfiguration) {
        let ipvs = &object.ipvs;
        for (field, value) in [
            ("TCPTimeout", ipvs.tcp_timeout),
            ("TCPFinTimeout", ipvs.tcp_fin_timeout),
            ("UDPTimeout", ipvs.udp_timeout),
        ] {
            self.not_negative(&format!("KubeProxyIPVSConfiguration.{field}"), value);
        }
        for (i, cidr) in ipvs.exclude_cidrs.iter().enumerate() {
            if parse_cidr(cidr).is_none() {
                let path = format!("KubeProxyIPVSConfiguration.ExcludeCidrs[{i}]");
                self.invalid(&path, quoted(cidr), VALID_CIDR);
            }
        }
        // kube-proxy leaves this to its probe of the kernel; a name that no kernel can have need
        // not wait for that.
        let scheduler = &ipvs.scheduler;
        if !scheduler.is_empty()
            && let Err(error) = scheduler.parse::<netlink_ipvs::Scheduler>()
        {
            let path = "KubeProxyIPVSConfiguration.Scheduler";
            self.invalid(path, quoted(scheduler), error.to_string());
        }
    }

    fn conntrack(&mut self, object: &KubeProxyConfiguration) {
        let conntrack = &object.conntrack;
        let path =
            |field| format!("KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration.{field}");
        for (field, value) in [("MaxPerCore", conntrack.max_per_core), ("Min", conntrack.min)] {
            self.not_negative(&path(field), value.unwrap_or_default());
        }
        for (field, value) in [
            ("TCPEstablishedTimeout", conntrack.tcp_established_timeout.unwrap_or_default()),
            ("TCPCloseWaitTimeout", conntrack.tcp_close_wait_timeout.unwrap_or_default()),
            ("UDPTimeout", conntrack.udp_timeout),
            ("UDPStreamTimeout", conntrack.udp_stream_timeout),
        ] {
            self.not_negative(&path(field), value);
        }
    }

    fn periods(&mut self, object: &KubeProxyConfiguration) {
        let (sync, min) = (object.ipvs.sync_period, object.ipvs.min_sync_period);
        for (field, value) in
            [("ConfigSyncPeriod", object.config_sync_period), ("SyncPeriod", sync)]
        {
            if value <= GoDuration::ZERO {
                self.invalid(field, value, POSITIVE);
            }
        }
        self.not_negative("MinSyncPeriod", min);
        if min > sync {
            let message =
                "must be greater than or equal to KubeProxyConfiguration.MinSyncPeriod".to_owned();
            self.invalid("SyncPeriod", min, message);
        }
    }

    fn host_port(&mut self, path: &str, address: &str) {
        let Some((host, port)) = split_host_port(address) else {
            return self.invalid(path, quoted(address), "must be IP:port");
        };
        if parse_ip(host).is_none() {
            self.invalid(path, quoted(host), "must be a valid IP");
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            self.invalid(path, quoted(port), "must be a valid port");
        }
    }

    fn node_port_addresses(&mut self, entries: &[String]) {
        if entries.len() == 1 && entries[0] == super::PRIMARY {
            return;
        }
        for (i, entry) in entries.iter().enumerate() {
            let message = if entry == super::PRIMARY {
                "can't use both 'primary' and CIDRs"
            } else if parse_cidr(entry).is_none() {
                VALID_CIDR
            } else {
                continue;
            };
            self.invalid(&format!("NodePortAddresses[{i}]"), quoted(entry), message);
        }
    }

    fn hidden_metrics(&mut self, version: &str) {
        if version.is_empty() || version == PREVIOUS_MINOR {
            return;
        }
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let message = match version.split_once('.') {
            Some((major, minor)) if number(major) && number(minor) => format!(
                "must be omitted or have the value '{PREVIOUS_MINOR}': only the previous minor \
                 version is allowed"
            ),
            _ => format!("must be a version such as '{PREVIOUS_MINOR}'"),
        };
        self.invalid("ShowHiddenMetricsForVersion", quoted(version), message);
    }

    fn detect_local(&mut self, object: &KubeProxyConfiguration) {
        let detect = &object.detect_local;
        let (field, value) = match object.detect_local_mode.as_str() {
            "" | "ClusterCIDR" => return self.cluster_cidrs(&object.cluster_cidr),
            "NodeCIDR" => return,
            "BridgeInterface" => ("InterfaceName", &detect.bridge_interface),
            "InterfaceNamePrefix" => ("InterfacePrefix", &detect.interface_name_prefix),
            unknown => {
                let modes = "supported values: \"ClusterCIDR\", \"NodeCIDR\", \
                             \"BridgeInterface\", \"InterfaceNamePrefix\", \"\"";
                return self.push(
                    "Unsupported value",
                    "DetectLocalMode",
                    quoted(unknown),
                    modes.to_owned(),
                );
            }
        };
        if value.is_empty() {
            let path = format!("DetectLocalConfiguration.{field}");
            self.invalid(&path, quoted(""), "must not be empty");
        }
    }

    fn cluster_cidrs(&mut self, text: &str) {
        let entries = super::cluster_cidrs(text);
        let parsed: Vec<_> = entries.iter().map(|entry| parse_cidr(entry)).collect();
        let path = "DetectLocalConfiguration.ClusterCIDRs";
        for (i, _) in parsed.iter().enumerate().filter(|(_, cidr)| cidr.is_none()) {
            let message = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";
            self.invalid(&format!("{path}[{i}]"), quoted(entries[i]), message);
        }
        let one_family = match parsed[..] {
            [Some(a), Some(b)] => a.addr().is_ipv4() == b.addr().is_ipv4(),
            _ => false,
        };
        if entries.len() > 2 || one_family {
            let list: Vec<_> = entries.iter().map(|entry| quoted(entry)).collect();
            let message = "must be a either a single CIDR or dual-stack pair of CIDRs \
                           (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]";
            self.invalid(path, format_args!("[]string{{{}}}", list.join(", ")), message);
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: {}", self.path, self.kind, self.value, self.message)
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        match list.as_slice() {
            [one] => f.write_str(one),
            list => write!(f, "[{}]", list.join(", ")),
        }
    }
}
