//! What is questionable on this node, said once at the start. Changes nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Host, closed, facts};
use crate::config::Config;
use crate::config::node::{check_families, node_ips, questionable, unresolved};
use crate::dataplane::firewall::Backend;
use crate::reconcile::Status;
use crate::text::chain;

/// How long a TCP connection may be idle before this host's kernel asks the other end.
const KEEPALIVE: &str = "/proc/sys/net/ipv4/tcp_keepalive_time";

/// Looks at the host. What cannot be read is not questioned.
pub(in crate::app) fn host(config: &Config, host: &mut Host) {
    if config.firewall.accept_input && host.filter.backend() == Backend::Nftables {
        warn!(
            "--accept-input has no effect with the backend nftables: what another table drops stays \
             dropped; let services through in the rules that drop"
        );
    }
    for text in closed::find(config, host) {
        warn!("{text}");
    }
    let keepalive = fs::read_to_string(KEEPALIVE).ok();
    let keepalive = keepalive.and_then(|text| text.trim().parse().ok());
    match host.ipvs.timeouts() {
        Ok(timeouts) => {
            if let Some(text) = keepalive.and_then(|time| forgotten_idle(timeouts.tcp, time)) {
                warn!("{text}");
            }
        }
        Err(error) => debug!(error = chain(&error), "cannot read the IPVS timeouts"),
    }
}

/// What to say when IPVS forgets an idle TCP connection before its ends make sure that it is alive.
fn forgotten_idle(timeout: u32, keepalive: u32) -> Option<String> {
    (timeout < keepalive).then(|| {
        format!(
            "IPVS forgets TCP connections that are idle for {timeout} s, before keepalive asks for \
             them (net.ipv4.tcp_keepalive_time is {keepalive} s): they end with a reset; set \
             ipvs.tcpTimeout above it, or a shorter keepalive in the applications"
        )
    })
}

/// Looks at the configuration once the node object is known, or it is known that there is none.
/// Ends only when the configuration cannot work on this node.
pub(in crate::app) async fn node(
    config: Arc<Config>,
    dual_stack: bool,
    mut watched: watch::Receiver<Arc<Status>>,
) -> anyhow::Result<()> {
    let known = |status: &Arc<Status>| status.node_eligible.is_some() || status.complete;
    let known = watched.wait_for(known).await.map(|status| Arc::clone(&status));
    // Otherwise the loop has ended, and says why itself.
    let Ok(status) = known else { return std::future::pending().await };
    let ips = node_ips(config.bind_address, &status.node_addresses);
    if config.stand_alone {
        if let Some(text) = unresolved(&config, &ips) {
            warn!("{text}");
        }
    } else {
        if let Some(text) = ips.warning() {
            warn!("{text}");
        }
        for text in questionable(&config, &ips, &status.pod_cidrs) {
            warn!("{text}");
        }
    }
    let wrong = check_families(&config, &ips, &status.pod_cidrs, dual_stack);
    for text in wrong.context("check the configuration against this node")? {
        warn!("{text}");
    }
    // Only now it can be seen which families there are Services of.
    if watched.wait_for(|status| status.synced).await.is_ok() {
        for text in facts::find(Path::new("/"), facts::serves_ipv6(Path::new("/"))) {
            warn!("{text}");
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_are_forgotten_only_before_keepalive() {
        for (timeout, keepalive, forgotten) in
            [(900, 7200, true), (7199, 7200, true), (7200, 7200, false), (86400, 7200, false)]
        {
            let text = forgotten_idle(timeout, keepalive);
            assert_eq!(text.is_some(), forgotten, "{timeout} {keepalive}");
            assert!(text.is_none_or(|text| text.contains("ipvs.tcpTimeout")));
        }
    }
}
