//! What zero values in the configuration object mean.

use super::file::{API_VERSION, KIND, KubeProxyConfiguration};
use crate::value::{GoDuration, parse_ip, with_port};

/// Port of the health server.
pub(super) const HEALTHZ_PORT: u16 = 10256;
/// Port of the metrics server.
pub(super) const METRICS_PORT: u16 = 10249;
/// Requests a second to the API server.
pub(super) const QPS: f32 = 5.0;
/// Requests at once to the API server.
pub(super) const BURST: i32 = 10;
/// Bit of the packet mark that asks for masquerading (mark 0x4000).
const MASQUERADE_BIT: i32 = 14;
/// Keeps the kernel from killing the node's proxy first.
const OOM_SCORE_ADJ: i32 = -999;

const SYNC_PERIOD: GoDuration = GoDuration::from_secs(30);
const MIN_SYNC_PERIOD: GoDuration = GoDuration::from_secs(1);
const CONFIG_SYNC_PERIOD: GoDuration = GoDuration::from_secs(15 * 60);

/// Fills in every default. Twice is the same as once.
pub(super) fn apply(object: &mut KubeProxyConfiguration) {
    API_VERSION.clone_into(&mut object.api_version);
    KIND.clone_into(&mut object.kind);
    addresses(object);

    text(&mut object.mode, "iptables");
    text(&mut object.detect_local_mode, "ClusterCIDR");
    text(&mut object.logging.format, "text");
    default_to(&mut object.logging.flush_frequency, GoDuration::from_secs(5));
    default_to(&mut object.config_sync_period, CONFIG_SYNC_PERIOD);
    object.oom_score_adj.get_or_insert(OOM_SCORE_ADJ);

    let client = &mut object.client_connection;
    text(&mut client.content_type, "application/vnd.kubernetes.protobuf");
    if client.qps == 0.0 {
        client.qps = QPS;
    }
    if client.burst == 0 {
        client.burst = BURST;
    }

    let iptables = &mut object.iptables;
    iptables.masquerade_bit.get_or_insert(MASQUERADE_BIT);
    iptables.localhost_node_ports.get_or_insert(true);
    default_to(&mut iptables.sync_period, SYNC_PERIOD);
    default_to(&mut iptables.min_sync_period, MIN_SYNC_PERIOD);

    // minSyncPeriod stays 0 here: a file without it asks for no delay at all.
    default_to(&mut object.ipvs.sync_period, SYNC_PERIOD);

    let nftables = &mut object.nftables;
    nftables.masquerade_bit.get_or_insert(MASQUERADE_BIT);
    default_to(&mut nftables.sync_period, SYNC_PERIOD);
    default_to(&mut nftables.min_sync_period, MIN_SYNC_PERIOD);

    let conntrack = &mut object.conntrack;
    conntrack.max_per_core.get_or_insert(32 * 1024);
    conntrack.min.get_or_insert(128 * 1024);
    conntrack.tcp_established_timeout.get_or_insert(GoDuration::from_secs(24 * 3600));
    conntrack.tcp_close_wait_timeout.get_or_insert(GoDuration::from_secs(3600));
}

/// The health and metrics servers listen in the family of the bind address.
fn addresses(object: &mut KubeProxyConfiguration) {
    text(&mut object.bind_address, "0.0.0.0");
    let ipv4 = parse_ip(&object.bind_address).is_some_and(|ip| ip.is_ipv4());
    let (everywhere, loopback) = if ipv4 { ("0.0.0.0", "127.0.0.1") } else { ("::", "::1") };
    for (address, default, port) in [
        (&mut object.healthz_bind_address, everywhere, HEALTHZ_PORT),
        (&mut object.metrics_bind_address, loopback, METRICS_PORT),
    ] {
        text(address, default);
        *address = with_port(address, port);
    }
}

fn text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

fn default_to(field: &mut GoDuration, default: GoDuration) {
    *field = field.or(default);
}
