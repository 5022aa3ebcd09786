//! A scenario's files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::Deserialize;

use super::Dump;

/// One scenario: a node, a configuration, and one or more states of the cluster.
#[derive(Debug)]
pub struct Scenario {
    /// Its folder's name.
    pub name: String,
    /// What it shows, in one line.
    pub covers: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The node's addresses, except those of `lo`.
    pub node_addresses: Vec<IpAddr>,
    /// `ip` commands that give the node its links and addresses.
    pub setup: Vec<String>,
    /// It was recorded in the namespace that the kernel starts with, where all sysctls are writable.
    pub initial_namespace: bool,
    /// Health check addresses besides the node's own, as URLs.
    pub health: Vec<String>,
    /// The states of the cluster, in order.
    pub steps: Vec<Step>,
}

/// One state of the cluster and what the node's kernel then held.
#[derive(Debug)]
pub struct Step {
    /// Its folder's name; of a scenario with one step, the scenario's.
    pub name: String,
    /// The configuration that this step's daemon was started with.
    pub config: PathBuf,
    /// The wanted state of the cluster: what is not in it was deleted.
    pub objects: PathBuf,
    /// A script that is run while the daemon is down.
    pub prepare: Option<PathBuf>,
    /// A script that is run before the objects change, with the daemon running.
    pub run_before: Option<PathBuf>,
    /// The daemon was restarted for this step.
    pub restart: bool,
    /// The dumps.
    pub expected: Dump,
    /// Sysctls before the first step, one `key = value` a line.
    pub sysctls_before: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct ScenarioFile {
    covers: String,
    #[serde(default)]
    health: Vec<String>,
    #[serde(default)]
    steps: Vec<StepFile>,
}

#[derive(Deserialize)]
struct StepFile {
    dir: String,
    #[serde(default)]
    restart: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeFile {
    network_namespace: String,
    links: Vec<LinkFile>,
    setup: Vec<String>,
}

#[derive(Deserialize)]
struct LinkFile {
    name: String,
    addresses: Vec<String>,
}

/// The folder of all scenarios.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

// === impl Scenario ===

impl Scenario {
    /// Reads a scenario; underscores in `name` stand for dashes.
    pub fn load(name: &str) -> Result<Self> {
        let name = name.replace('_', "-");
        let folder = root().join(&name);
        let scenario: ScenarioFile = yaml(&folder.join("scenario.yaml"))?;
        let node: NodeFile = yaml(&folder.join("node.yaml"))?;
        let sysctls_before = sysctls(&text(&folder.join("sysctls-before.txt"))?);

        let mut node_addresses = Vec::new();
        for written in
            node.links.iter().filter(|link| link.name != "lo").flat_map(|link| &link.addresses)
        {
            let network: IpNet =
                written.parse().with_context(|| format!("address {written} of {name}"))?;
            node_addresses.push(network.addr());
        }
        let only = StepFile { dir: String::new(), restart: false };
        let files = if scenario.steps.is_empty() { vec![only] } else { scenario.steps };
        let mut config = folder.join("config.yaml");
        let mut steps = Vec::new();
        for file in files {
            let place = if file.dir.is_empty() { folder.clone() } else { folder.join(&file.dir) };
            config = existing(place.join("config.yaml")).unwrap_or(config);
            steps.push(Step {
                name: if file.dir.is_empty() { name.clone() } else { file.dir },
                config: config.clone(),
                objects: place.join("objects.yaml"),
                prepare: existing(place.join("prepare.sh")),
                run_before: existing(place.join("run-before.sh")),
                restart: file.restart,
                expected: Dump::load(&place)?,
                sysctls_before: sysctls_before.clone(),
            });
        }
        Ok(Self {
            name,
            covers: scenario.covers,
            folder,
            node_addresses,
            setup: node.setup,
            initial_namespace: node.network_namespace.starts_with("initial"),
            health: scenario.health,
            steps,
        })
    }
}

/// The lines of a `sysctls.txt`, split at ` = `.
pub(super) fn sysctls(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

/// A file's text.
pub(super) fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn yaml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    serde_saphyr::from_str(&text(path)?).with_context(|| format!("parse {}", path.display()))
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}
