//! Starts what sends events: a source of objects, the addresses of the host.

use std::net::IpAddr;

use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::args::Args;
use crate::config::Config;
use crate::dataplane::INTERFACE;
use crate::reconcile::Event;
use crate::source::{Warning, files};

/// Events that may wait for the loop. Sources wait when it is full.
pub(super) const QUEUE: usize = 4096;

pub(super) fn warn(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Starts the source of objects: manifests if there are any, else the API server.
pub(super) async fn objects(
    args: &Args,
    config: &Config,
    events: mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    if args.own.manifests.is_empty() {
        anyhow::bail!("give --manifests");
    }
    let mut manifests = files::Manifests::new(args.own.manifests.clone(), &config.node_name);
    let loaded = manifests.read()?;
    warn(&loaded.warnings);
    tokio::spawn(async move {
        for change in loaded.changes {
            if events.send(Event::Change(change)).await.is_err() {
                return;
            }
        }
        let _keep = (&manifests, events);
    });
    Ok(())
}

/// The addresses of the host's other interfaces: as given, or read from the host.
pub(super) fn host_addresses(args: &Args) -> anyhow::Result<Vec<IpAddr>> {
    if !args.own.node_addresses.is_empty() {
        return Ok(args.own.node_addresses.clone());
    }
    read_host_addresses().context("read the addresses of this host (--node-address gives them)")
}

/// The addresses of all interfaces but ours, without loopback and link-local IPv6 ones.
pub(super) fn read_host_addresses() -> Result<Vec<IpAddr>, dummy_iface::Error> {
    let all = dummy_iface::host_addresses()?;
    let others = all.into_iter().filter(|entry| entry.name != INTERFACE);
    let mut addresses: Vec<IpAddr> = others
        .map(|entry| entry.address)
        .filter(|address| match address {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
