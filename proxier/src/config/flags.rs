//! From flags to the configuration object.

use super::file::{KubeProxyConfiguration, VModuleItem};
use super::{ConfigError, defaults};
use crate::args::{AlwaysFlags, ConfigFlags};
use crate::value::{GoDuration, with_port};

/// kube-proxy inherits this for IPVS from its iptables flags; in a file the default is 0.
const MIN_SYNC_PERIOD: GoDuration = GoDuration::from_secs(1);

/// The object that the flags describe when there is no file.
pub(super) fn object(flags: &ConfigFlags) -> KubeProxyConfiguration {
    let mut object = KubeProxyConfiguration::default();
    defaults::apply(&mut object);
    let gates = flags.feature_gates.iter().filter(|(name, _)| !name.is_empty());
    object.feature_gates = gates.cloned().collect();
    set(&mut object.mode, flags.proxy_mode.as_ref());
    set(&mut object.enable_profiling, flags.profiling.as_ref());
    set(
        &mut object.show_hidden_metrics_for_version,
        flags.show_hidden_metrics_for_version.as_ref(),
    );
    set(&mut object.config_sync_period, flags.config_sync_period.as_ref());
    object.oom_score_adj = flags.oom_score_adj.or(object.oom_score_adj);
    client(flags, &mut object);
    servers(flags, &mut object);
    modes(flags, &mut object);
    traffic(flags, &mut object);
    conntrack(flags, &mut object);
    object
}

/// Applies the flags that count beside a file too.
pub(super) fn always(
    flags: &AlwaysFlags,
    object: &mut KubeProxyConfiguration,
) -> Result<(), ConfigError> {
    if let Some(name) = flags.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            return Err(ConfigError::EmptyHostnameOverride);
        }
        object.hostname_override = name;
    }
    let logging = &mut object.logging;
    set(&mut logging.verbosity, flags.verbosity.as_ref());
    set(&mut logging.format, flags.logging_format.as_ref());
    set(&mut logging.flush_frequency, flags.log_flush_frequency.as_ref());
    let given = flags.vmodule.iter().filter(|(pattern, _)| !pattern.is_empty());
    let items = given.map(|(file_pattern, verbosity)| VModuleItem {
        file_pattern: file_pattern.clone(),
        verbosity: *verbosity,
    });
    logging.vmodule.splice(0..0, items);
    let (text, json) = (&mut logging.options.text, &mut logging.options.json);
    set(&mut text.split_stream, flags.log_text_split_stream.as_ref());
    set(&mut json.split_stream, flags.log_json_split_stream.as_ref());
    set(&mut text.info_buffer_size.0, flags.log_text_info_buffer_size.as_ref());
    set(&mut json.info_buffer_size.0, flags.log_json_info_buffer_size.as_ref());
    Ok(())
}

fn client(flags: &ConfigFlags, object: &mut KubeProxyConfiguration) {
    let client = &mut object.client_connection;
    set(&mut client.kubeconfig, flags.kubeconfig.as_ref());
    set(&mut client.content_type, flags.kube_api_content_type.as_ref());
    set(&mut client.qps, flags.kube_api_qps.as_ref());
    set(&mut client.burst, flags.kube_api_burst.as_ref());
}

fn servers(flags: &ConfigFlags, object: &mut KubeProxyConfiguration) {
    set_text(&mut object.bind_address, flags.bind_address.as_ref());
    set(&mut object.bind_address_hard_fail, flags.bind_address_hard_fail.as_ref());
    for (address, flag, port, default) in [
        (
            &mut object.healthz_bind_address,
            &flags.healthz_bind_address,
            flags.healthz_port,
            defaults::HEALTHZ_PORT,
        ),
        (
            &mut object.metrics_bind_address,
            &flags.metrics_bind_address,
            flags.metrics_port,
            defaults::METRICS_PORT,
        ),
    ] {
        set_text(address, flag.as_ref());
        *address = match port.unwrap_or(default) {
            0 => String::new(),
            port => with_port(address, port),
        };
    }
}

fn modes(flags: &ConfigFlags, object: &mut KubeProxyConfiguration) {
    let iptables = &mut object.iptables;
    iptables.masquerade_bit = flags.iptables_masquerade_bit.or(iptables.masquerade_bit);
    iptables.localhost_node_ports =
        flags.iptables_localhost_nodeports.or(iptables.localhost_node_ports);
    set(&mut iptables.masquerade_all, flags.masquerade_all.as_ref());

    let ipvs = &mut object.ipvs;
    set(&mut ipvs.sync_period, flags.ipvs_sync_period.or(flags.iptables_sync_period).as_ref());
    ipvs.min_sync_period =
        flags.ipvs_min_sync_period.or(flags.iptables_min_sync_period).unwrap_or(MIN_SYNC_PERIOD);
    set(&mut ipvs.scheduler, flags.ipvs_scheduler.as_ref());
    ipvs.exclude_cidrs = list(&flags.ipvs_exclude_cidrs);
    set(&mut ipvs.strict_arp, flags.ipvs_strict_arp.as_ref());
    set(&mut ipvs.tcp_timeout, flags.ipvs_tcp_timeout.as_ref());
    set(&mut ipvs.tcp_fin_timeout, flags.ipvs_tcpfin_timeout.as_ref());
    set(&mut ipvs.udp_timeout, flags.ipvs_udp_timeout.as_ref());
}

fn traffic(flags: &ConfigFlags, object: &mut KubeProxyConfiguration) {
    set_text(&mut object.detect_local_mode, flags.detect_local_mode.as_ref());
    set(&mut object.detect_local.bridge_interface, flags.pod_bridge_interface.as_ref());
    set(&mut object.detect_local.interface_name_prefix, flags.pod_interface_name_prefix.as_ref());
    set(&mut object.cluster_cidr, flags.cluster_cidr.as_ref());
    object.node_port_addresses = list(&flags.nodeport_addresses);
}

fn conntrack(flags: &ConfigFlags, object: &mut KubeProxyConfiguration) {
    let conntrack = &mut object.conntrack;
    conntrack.max_per_core = flags.conntrack_max_per_core.or(conntrack.max_per_core);
    conntrack.min = flags.conntrack_min.or(conntrack.min);
    conntrack.tcp_established_timeout =
        flags.conntrack_tcp_timeout_established.or(conntrack.tcp_established_timeout);
    conntrack.tcp_close_wait_timeout =
        flags.conntrack_tcp_timeout_close_wait.or(conntrack.tcp_close_wait_timeout);
    set(&mut conntrack.tcp_be_liberal, flags.conntrack_tcp_be_liberal.as_ref());
    set(&mut conntrack.udp_timeout, flags.conntrack_udp_timeout.as_ref());
    set(&mut conntrack.udp_stream_timeout, flags.conntrack_udp_timeout_stream.as_ref());
}

fn set<T: Clone>(field: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        field.clone_from(value);
    }
}

/// An empty text keeps the default, as with kube-proxy.
fn set_text(field: &mut String, flag: Option<&String>) {
    set(field, flag.filter(|text| !text.is_empty()));
}

fn list(given: &[String]) -> Vec<String> {
    given.iter().filter(|entry| !entry.is_empty()).cloned().collect()
}
