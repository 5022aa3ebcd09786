//! Fields that are accepted and have no meaning here, with the reason.

use super::defaults;
use super::file::KubeProxyConfiguration;

const WINDOWS: &str = "it is for Windows nodes";
const NFTABLES: &str = "it is for nftables mode, and IPVS takes this from iptables.* and ipvs.*";
const JSON_ONLY: &str = "the API is spoken in JSON";
const UNBUFFERED: &str = "log lines are written to stderr at once";

/// One sentence for each field that says something else than its default and is not used.
pub(super) fn warnings(object: &KubeProxyConfiguration) -> Vec<String> {
    let mut default = KubeProxyConfiguration::default();
    defaults::apply(&mut default);
    let (given, normal) = (object, &default);
    let (windows, nftables) = (&given.winkernel, &given.nftables);
    let (iptables, client) = (&given.iptables, &given.client_connection);
    let options = &given.logging.options;
    let content_type = client.content_type == normal.client_connection.content_type
        || is_json(&client.content_type);

    [
        (windows.network_name.is_empty(), "winkernel.networkName", WINDOWS),
        (windows.source_vip.is_empty(), "winkernel.sourceVip", WINDOWS),
        (!windows.enable_dsr, "winkernel.enableDSR", WINDOWS),
        (windows.root_hns_endpoint_name.is_empty(), "winkernel.rootHnsEndpointName", WINDOWS),
        (!windows.forward_health_check_vip, "winkernel.forwardHealthCheckVip", WINDOWS),
        (!given.windows_run_as_service, "windowsRunAsService", WINDOWS),
        (
            nftables.masquerade_bit == normal.nftables.masquerade_bit,
            "nftables.masqueradeBit",
            NFTABLES,
        ),
        (!nftables.masquerade_all, "nftables.masqueradeAll", NFTABLES),
        (nftables.sync_period == normal.nftables.sync_period, "nftables.syncPeriod", NFTABLES),
        (
            nftables.min_sync_period == normal.nftables.min_sync_period,
            "nftables.minSyncPeriod",
            NFTABLES,
        ),
        (
            iptables.sync_period == normal.iptables.sync_period,
            "iptables.syncPeriod",
            "IPVS takes it from ipvs.syncPeriod",
        ),
        (
            iptables.min_sync_period == normal.iptables.min_sync_period,
            "iptables.minSyncPeriod",
            "IPVS takes it from ipvs.minSyncPeriod",
        ),
        (
            iptables.localhost_node_ports == normal.iptables.localhost_node_ports,
            "iptables.localhostNodePorts",
            "with IPVS node ports never answer on loopback addresses",
        ),
        (
            given.config_sync_period == normal.config_sync_period,
            "configSyncPeriod",
            "watches are resumed and checked against the server, nothing is handed out again",
        ),
        (
            given.port_range.is_empty(),
            "portRange",
            "it belonged to the userspace mode, which is gone",
        ),
        (!given.enable_profiling, "enableProfiling", "there are no Go profiles to serve"),
        (
            given.show_hidden_metrics_for_version.is_empty(),
            "showHiddenMetricsForVersion",
            "no metric is hidden",
        ),
        (content_type, "clientConnection.contentType", JSON_ONLY),
        (
            client.accept_content_types.is_empty() || is_json(&client.accept_content_types),
            "clientConnection.acceptContentTypes",
            JSON_ONLY,
        ),
        (
            given.logging.flush_frequency == normal.logging.flush_frequency,
            "logging.flushFrequency",
            UNBUFFERED,
        ),
        (!options.text.split_stream, "logging.options.text.splitStream", UNBUFFERED),
        (!options.json.split_stream, "logging.options.json.splitStream", UNBUFFERED),
        (
            options.text.info_buffer_size == normal.logging.options.text.info_buffer_size,
            "logging.options.text.infoBufferSize",
            UNBUFFERED,
        ),
        (
            options.json.info_buffer_size == normal.logging.options.json.info_buffer_size,
            "logging.options.json.infoBufferSize",
            UNBUFFERED,
        ),
    ]
    .into_iter()
    .filter(|(unset, ..)| !unset)
    .map(|(_, field, reason)| format!("{field} has no effect: {reason}"))
    .collect()
}

fn is_json(types: &str) -> bool {
    types
        .split(',')
        .any(|one| one.split(';').next().is_some_and(|t| t.trim() == "application/json"))
}
