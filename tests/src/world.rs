//! A topology with the daemon in `node-a` and a server in every pod.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use proxier::dataplane::firewall::Backend;
use serde_json::Value;

use crate::command::{output, program};
use crate::daemon::{Daemon, Scratch};
use crate::golden::blocks;
use crate::manifest;
use crate::nft;
use crate::topology::{Family, Topology};
use crate::traffic::{Place, Protocol, Server};

/// Where the servers in the pods listen.
pub const TCP: u16 = 8080;
/// As [`TCP`].
pub const UDP: u16 = 8053;
/// As [`TCP`].
pub const SCTP: u16 = 8777;

/// What `proxier trace` says.
#[derive(Debug)]
pub struct Traced {
    /// The document.
    pub json: Value,
    /// The exit status.
    pub status: Option<i32>,
}

impl Traced {
    /// `reached`, `refused`, `dropped` or `no service`.
    pub fn outcome(&self) -> &str {
        self.json["outcome"].as_str().unwrap_or_default()
    }

    /// The addresses of the real servers of which one answers, and whether each sees another source.
    pub fn endpoints(&self) -> BTreeMap<IpAddr, bool> {
        let all = self.json["endpoints"].as_array().into_iter().flatten();
        let of = |it: &Value| {
            let address: SocketAddr = it["address"].as_str()?.parse().ok()?;
            Some((address.ip(), it["masqueraded"].as_bool()?))
        };
        all.filter_map(of).collect()
    }
}

/// Everything that an end-to-end test needs; gone when dropped.
#[derive(Debug)]
pub struct World {
    /// The namespaces.
    pub topology: Topology,
    scratch: Scratch,
    daemon: Option<Daemon>,
    /// The one of the other node.
    elsewhere: Option<Daemon>,
    config: PathBuf,
    servers: BTreeMap<String, Server>,
    /// By what the daemon keeps its rules, if that is not for itself to find out.
    backend: Option<Backend>,
}

// === impl World ===

impl World {
    /// Builds the topology and starts a server in every pod, in both families, named as the pod.
    pub fn build(scheduler: &str) -> Result<Self> {
        let mut world = Self::build_with(Topology::build()?, &format!("scheduler: {scheduler}"))?;
        let pods = world.topology.pods().map(|pod| pod.namespace.name().to_owned());
        for pod in pods.collect::<Vec<_>>() {
            world.start_server(&pod, &pod)?;
        }
        Ok(world)
    }

    /// As [`World::build`], with a daemon that keeps its rules by this backend.
    pub fn build_by(backend: Backend, scheduler: &str) -> Result<Self> {
        Ok(Self::build(scheduler)?.with_backend(backend))
    }

    /// The same with a daemon that keeps its rules by this backend.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// A topology without servers, and a daemon to be started with these fields of `ipvs` in its
    /// configuration.
    pub fn build_with(topology: Topology, ipvs: &str) -> Result<Self> {
        let scratch = Scratch::create()?;
        let node = topology.node().host.namespace.name();
        let config = scratch.replace(
            "config.yaml",
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n\
                 kind: KubeProxyConfiguration\n\
                 mode: ipvs\n\
                 hostnameOverride: {node}\n\
                 clusterCIDR: 10.244.0.0/16,fd00:10:244::/48\n\
                 ipvs: {{{ipvs}}}\n"
            ),
        )?;
        Ok(Self {
            topology,
            scratch,
            daemon: None,
            elsewhere: None,
            config,
            servers: BTreeMap::new(),
            backend: None,
        })
    }

    /// Starts a server in a pod, in both families; `name` is how it answers. Replaces the pod's last.
    pub fn start_server(&mut self, pod: &str, name: &str) -> Result<()> {
        self.stop_server(pod);
        let (host, _) = self.topology.pod(pod);
        let ports = [(Protocol::Tcp, TCP), (Protocol::Udp, UDP), (Protocol::Sctp, SCTP)];
        let places = [Family::V4, Family::V6].map(|family| {
            ports.map(|(protocol, port)| Place::new(protocol, host.address(family), port))
        });
        let server = Server::start(&host.namespace, name, places.as_flattened())?;
        self.servers.insert(pod.to_owned(), server);
        Ok(())
    }

    /// Ends a pod's server: the kernel refuses in its place.
    pub fn stop_server(&mut self, pod: &str) {
        self.servers.remove(pod);
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
        self.write(objects)?;
        self.start()?;
        let node = &self.topology.node().host.namespace;
        let daemon = self.daemon.as_mut().context("a daemon that runs")?;
        let state = || node.sh("ipvsadm -S -n; ip -o addr show dev kube-ipvs0 2>/dev/null || true");
        daemon.wait(
            || Ok(reached(&state()?).then_some(())),
            || format!("{wanted} wanted, but:\n{}", state().unwrap_or_default()),
        )
    }

    /// Replaces the objects that the daemon reads.
    pub fn write(&self, objects: &[Value]) -> Result<()> {
        let nodes = self.topology.nodes.iter().map(manifest::node);
        let documents: Vec<Value> = nodes.chain(objects.iter().cloned()).collect();
        self.scratch.replace("manifests/objects.json", manifest::file(&documents)).map(drop)
    }

    /// Starts the daemon if it does not run.
    pub fn start(&mut self) -> Result<()> {
        if self.daemon.is_none() {
            self.start_with(&[])?;
        }
        Ok(())
    }

    fn start_with(&mut self, flags: &[&str]) -> Result<()> {
        let (words, log) = (self.words(flags), self.scratch.path().join("log"));
        let node = &self.topology.node().host.namespace;
        self.daemon = Some(Daemon::start_with(Some(node), words, &log)?);
        Ok(())
    }

    /// Starts the daemon anew over the same objects, with these flags as well, and waits until it says
    /// that the kernel is as wanted.
    pub fn restart(&mut self, flags: &[&str]) -> Result<()> {
        self.stop()?;
        self.start_with(flags)?;
        self.ready()
    }

    /// Starts a daemon in the other node as well, over the same objects, and waits until it says that all is
    /// well.
    pub fn start_elsewhere(&mut self) -> Result<()> {
        let node = &self.topology.nodes[1].host.namespace;
        let words = self.words(&[&format!("--hostname-override={}", node.name())]);
        let log = self.scratch.path().join("log-elsewhere");
        let mut daemon = Daemon::start_with(Some(node), words, &log)?;
        daemon.ready()?;
        self.elsewhere = Some(daemon);
        Ok(())
    }

    /// Asks until `reached` says so; `explain` says what is there instead.
    pub fn wait(
        &mut self,
        reached: impl Fn(&Topology) -> Result<bool>,
        explain: impl Fn(&Topology) -> String,
    ) -> Result<()> {
        let (topology, daemon) = (&self.topology, self.daemon.as_mut());
        let daemon = daemon.context("a daemon that runs")?;
        daemon.wait(|| Ok(reached(topology)?.then_some(())), || explain(topology))
    }

    /// What `proxier diff` with these flags prints; nothing if the kernel is as wanted.
    pub fn diff(&self, flags: &[&str]) -> Result<String> {
        let output = self.proxier(flags)?.arg("diff").output().context("run diff")?;
        if output.status.success() {
            return Ok(String::new());
        }
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Waits until the daemon has nothing left to do, and reads its rules and sets back with the tools of
    /// its backend: fails unless they are there, and nothing is of the other backend.
    pub fn reads_back(&mut self) -> Result<()> {
        self.ready()?;
        let node = &self.topology.node().host.namespace;
        if self.backend != Some(Backend::Nftables) {
            let rules = node.sh("iptables-save; ip6tables-save")?;
            ensure!(rules.matches("-A KUBE-SERVICES ").count() > 2, "{rules}");
            return Ok(());
        }
        let wanted = output(self.proxier(&["--dry-run", "-o", "nftables"])?.stdin(Stdio::null()))?;
        let found = node.sh("nft list ruleset")?;
        ensure!(nft::lines(&found) == nft::lines(&wanted), "found:\n{found}\nwanted:\n{wanted}");
        Ok(())
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    fn words(&self, flags: &[&str]) -> Vec<OsString> {
        let manifests = self.scratch.path().join("manifests");
        let mut words: Vec<OsString> = vec!["--config".into(), self.config.clone().into()];
        words.extend(["--manifests".into(), manifests.into()]);
        words.extend(self.backend.map(|backend| format!("--firewall={backend}").into()));
        words.extend(flags.iter().map(Into::into));
        words
    }

    /// Starts the daemon if it does not run, and waits until it says that all is well.
    pub fn ready(&mut self) -> Result<()> {
        self.start()?;
        self.daemon.as_mut().context("a daemon that runs")?.ready()
    }

    /// Stops the daemon, which leaves the kernel as it is.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("a daemon that runs")?.stop()
    }

    /// A `proxier` on the node, with what the daemon is started with and these flags.
    pub fn proxier(&self, flags: &[&str]) -> Result<Command> {
        let mut command = self.on_the_node();
        command.arg(program("proxier")?).args(self.words(flags));
        Ok(command)
    }

    /// Runs a shell script in a terminal of the node; its `proxier` takes words before those flags.
    pub fn terminal(&self, script: &str) -> Result<Command> {
        let script = format!(r#"proxier() {{ "$PROXIER" "$@" $FLAGS; }}; {script}"#);
        let mut command = self.on_the_node();
        command.args(["script", "-q", "-e", "-c", &script, "/dev/null"]);
        command.env("SHELL", "/bin/sh").env("PROXIER", program("proxier")?);
        command.env("FLAGS", self.words(&[]).join(OsStr::new(" ")));
        Ok(command)
    }

    /// Runs what is added to it on the node.
    fn on_the_node(&self) -> Command {
        // It looks there which links are bridges; what is mounted is of the first namespace.
        let with_sys = r#"mount -t sysfs sysfs /sys && exec "$@""#;
        let mut command = self.topology.node().host.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", with_sys, "sh"]);
        command
    }

    /// What `proxier trace` says of a client's packet.
    pub fn trace(&self, client: &str, to: Place) -> Result<Traced> {
        let place = format!("{}/{}", to.address, to.protocol);
        let mut command = self.proxier(&["trace", client, &place, "-o", "json"])?;
        let output = command.output().context("run trace")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&said).with_context(|| {
            format!("{client} to {place}: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        Ok(Traced { json, status: output.status.code() })
    }

    /// The process number of the daemon, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Kills the daemon with SIGKILL, wherever it is.
    pub fn kill(&mut self) {
        self.daemon = None;
    }
}
