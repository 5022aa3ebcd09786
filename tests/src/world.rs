//! A topology with the daemon in `node-a` and a server in every pod.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::{Daemon, Scratch};
use crate::golden::blocks;
use crate::manifest;
use crate::topology::{Family, Topology};
use crate::traffic::{Place, Protocol, Server};

/// How long the daemon may take to program a handful of Services in a slow kernel.
const LIMIT: Duration = Duration::from_mins(1);

/// Where the servers in the pods listen.
pub const TCP: u16 = 8080;
/// As [`TCP`].
pub const UDP: u16 = 8053;
/// As [`TCP`].
pub const SCTP: u16 = 8777;

/// Everything that an end-to-end test needs; gone when dropped.
#[derive(Debug)]
pub struct World {
    /// The namespaces.
    pub topology: Topology,
    scratch: Scratch,
    daemon: Option<Daemon>,
    config: PathBuf,
    _servers: Vec<Server>,
}

// === impl World ===

impl World {
    /// Builds the topology and starts a server in every pod, in both families, named as the pod.
    pub fn build(scheduler: &str) -> Result<Self> {
        let topology = Topology::build()?;
        let scratch = Scratch::create()?;
        let config = scratch.replace(
            "config.yaml",
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
                 kind: KubeProxyConfiguration\n\
                 mode: ipvs\n\
                 hostnameOverride: node-a\n\
                 clusterCIDR: 10.244.0.0/16,fd00:10:244::/48\n\
                 ipvs:\n  scheduler: {scheduler}\n"
            ),
        )?;
        let mut servers = Vec::new();
        for pod in topology.pods() {
            let ports = [(Protocol::Tcp, TCP), (Protocol::Udp, UDP), (Protocol::Sctp, SCTP)];
            let places = [Family::V4, Family::V6].map(|family| {
                ports.map(|(protocol, port)| Place::new(protocol, pod.address(family), port))
            });
            servers.push(Server::start(
                &pod.namespace,
                pod.namespace.name(),
                places.as_flattened(),
            )?);
        }
        Ok(Self { topology, scratch, daemon: None, config, _servers: servers })
    }

    /// Hands the daemon these objects, starting it if it does not run, and waits until the kernel has
    /// exactly so many real servers, and every address in `bound` is on `kube-ipvs0`.
    pub fn apply(&mut self, objects: &[Value], real_servers: usize, bound: &[&str]) -> Result<()> {
        let wanted = format!("{real_servers} real servers and {bound:?}");
        self.apply_until(objects, &wanted, |text| {
            let (rules, addresses): (Vec<_>, Vec<_>) =
                text.lines().partition(|line| line.starts_with('-'));
            let found: usize = blocks(&rules.join("\n")).values().map(Vec::len).sum();
            let has = |address: &&str| {
                addresses.iter().any(|line| line.contains(&format!(" {address}/")))
            };
            found == real_servers && bound.iter().all(has)
        })
    }

    /// As [`World::apply`], but waits until `reached` says so of what `ipvsadm -S -n` and
    /// `ip -o addr show dev kube-ipvs0` print; `wanted` says what that is.
    pub fn apply_until(
        &mut self,
        objects: &[Value],
        wanted: &str,
        reached: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let nodes = self.topology.nodes.iter().map(manifest::node);
        let documents: Vec<Value> = nodes.chain(objects.iter().cloned()).collect();
        self.scratch.replace("manifests/objects.json", manifest::file(&documents))?;
        let node = &self.topology.node().host.namespace;
        let daemon = match &mut self.daemon {
            Some(daemon) => daemon,
            None => self.daemon.insert(Daemon::start(
                Some(node),
                &self.config,
                &self.scratch.path().join("manifests"),
                &self.scratch.path().join("log"),
            )?),
        };
        let state = || node.sh("ipvsadm -S -n; ip -o addr show dev kube-ipvs0 2>/dev/null || true");
        daemon.wait(
            LIMIT,
            || Ok(reached(&state()?).then_some(())),
            || format!("{wanted} wanted, but:\n{}", state().unwrap_or_default()),
        )
    }

    /// Stops the daemon, which leaves the kernel as it is.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("a daemon that runs")?.stop()
    }
}
