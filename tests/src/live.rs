//! A cluster that is one test API server on loopback, and `proxier` fed by it.

use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::apiserver::ApiServer;
use crate::command::{output, program};
use crate::daemon::{Daemon, Scratch};
use crate::golden::{Dump, Part, blocks, ipset_save, observe};

/// The node that the daemon runs on, and its only address besides loopback.
pub const NODE: &str = "node-a";
/// As [`NODE`].
pub const NODE_ADDRESS: &str = "192.0.2.1";

/// What of the kernel follows from the objects and changes with them.
const PARTS: [Part; 3] = [Part::Ipvs, Part::Addresses, Part::Sets];

/// An API server, a kubeconfig that leads to it, and perhaps a daemon that watches it.
///
/// The server works in a thread of its own, so tests need not be asynchronous.
#[derive(Debug)]
pub struct Live {
    /// The server; what it can do, it does at once.
    pub server: ApiServer,
    runtime: Arc<Runtime>,
    /// Dropped, it ends the server's thread.
    _end: oneshot::Sender<()>,
    scratch: Scratch,
    daemon: Option<Daemon>,
}

// === impl Live ===

impl Live {
    /// Starts a server without objects.
    pub fn start() -> Result<Self> {
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        let (end, ended) = oneshot::channel::<()>();
        let serving = Arc::clone(&runtime);
        thread::spawn(move || serving.block_on(ended));
        let server = runtime.block_on(ApiServer::start()).context("listen on loopback")?;
        let scratch = Scratch::create()?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server.url()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        });
        scratch.replace("kubeconfig", kubeconfig.to_string())?;
        Ok(Self { server, runtime, _end: end, scratch, daemon: None })
    }

    /// The server is gone: connections break, new ones are refused.
    pub fn stop_server(&mut self) {
        self.runtime.block_on(self.server.stop());
    }

    /// The server is back, with what is stored.
    pub fn resume_server(&mut self) -> Result<()> {
        self.runtime.block_on(self.server.resume()).context("listen again")
    }

    /// A `proxier` with the arguments that lead to the server, and more.
    pub fn proxier(&self, more: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("proxier")?);
        command.args(self.arguments()).args(more);
        Ok(command)
    }

    /// Starts the daemon in the caller's network namespace, in place of the one that runs: that one
    /// is killed. It logs every single operation.
    pub fn start_daemon(&mut self, more: &[&str]) -> Result<()> {
        self.start_daemon_quietly(&[&["--v=2"], more].concat())
    }

    /// As [`Live::start_daemon`], without the operations in the log.
    pub fn start_daemon_quietly(&mut self, more: &[&str]) -> Result<()> {
        let mut command = self.proxier(more)?;
        command.arg("--conntrack-max-per-core=0");
        self.start_command(command)
    }

    /// Kills the daemon.
    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// As [`Live::start_daemon`], with a command made from [`Live::proxier`].
    pub fn start_command(&mut self, command: Command) -> Result<()> {
        self.daemon = None;
        self.daemon = Some(Daemon::start_command(command, &self.scratch.path().join("log"))?);
        Ok(())
    }

    /// Waits until `condition` holds of the daemon's log and of what the kernel has of ours.
    pub fn until(&mut self, what: &str, condition: impl Fn(&str, &Dump) -> bool) -> Result<Dump> {
        let daemon = self.daemon.as_mut().context("a daemon that runs")?;
        let log = self.scratch.path().join("log");
        daemon.wait(
            || {
                // The log first: what it says has happened is in the kernel that is read after it.
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                let kernel = kernel()?;
                Ok(condition(&log, &kernel).then_some(kernel))
            },
            || format!("{what} wanted, but:\n{:#?}", kernel().unwrap_or_default().ipvs),
        )
    }

    /// Waits until virtual servers, addresses and sets of the kernel are as a dry run said.
    pub fn until_as(&mut self, what: &str, wanted: &Dump) -> Result<Dump> {
        self.until(what, |_, kernel| same(kernel, wanted))
            .with_context(|| format!("wanted:\n{:#?}", wanted.ipvs))
    }

    /// The daemon's process number.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.daemon.as_ref().context("a daemon that runs")?.pid())
    }

    /// Waits until the daemon has run into all faults; a dry run before that might meet them instead.
    pub fn until_faults_happened(&mut self) -> Result<()> {
        let daemon = self.daemon.as_mut().context("a daemon that runs")?;
        let server = &self.server;
        let explain = || format!("{} faults more to happen", server.pending_faults());
        daemon.wait(|| Ok((server.pending_faults() == 0).then_some(())), explain)
    }

    /// Waits until the kernel is exactly what a dry run against the server prints.
    pub fn converge(&mut self, what: &str) -> Result<Dump> {
        let wanted = self.dry_run()?;
        self.until_as(what, &wanted)
    }

    /// What a dry run against the server says of virtual servers, addresses and sets.
    pub fn dry_run(&self) -> Result<Dump> {
        let print = |format| output(&mut self.proxier(&["--dry-run", "-o", format])?);
        Ok(Dump {
            ipvs: blocks(&print("ipvsadm")?),
            addresses: print("addresses")?.lines().map(str::to_owned).collect(),
            sets: ipset_save(&print("ipset")?),
            ..Dump::default()
        })
    }

    /// Runs `proxier diff` and returns its exit status and what it printed.
    pub fn diff(&self, more: &[&str]) -> Result<(i32, String)> {
        let mut command = self.proxier(more)?;
        let Output { status, stdout, stderr } = command.arg("diff").output().context("diff")?;
        let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
        Ok((status.code().context("an end by itself")?, text.into_owned()))
    }

    /// The operations that were carried out so far, by all daemons of this value, in their order.
    pub fn operations(&self) -> Result<Vec<String>> {
        let log = self.log();
        ensure!(log.contains("done op="), "no operations in the log:\n{log}");
        let operations = log.lines().filter_map(|line| line.split_once("done op="));
        Ok(operations.map(|(_, operation)| operation.to_owned()).collect())
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// What leads `proxier` to the server.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let kubeconfig = self.scratch.path().join("kubeconfig").display().to_string();
        ["--kubeconfig", &kubeconfig, "--hostname-override", NODE, "--proxy-mode=ipvs"]
            .map(str::to_owned)
            .into_iter()
            .chain(["--node-address".to_owned(), NODE_ADDRESS.to_owned()])
            .collect()
    }
}

fn same(kernel: &Dump, wanted: &Dump) -> bool {
    let mut addresses = kernel.addresses.clone();
    addresses.retain(|line| !line.starts_with("link "));
    kernel.ipvs == wanted.ipvs && addresses == wanted.addresses && kernel.sets == wanted.sets
}

/// Virtual servers, addresses and sets, read back with the operators' tools.
pub fn kernel() -> Result<Dump> {
    observe(None, &Dump::default(), &PARTS)
}
