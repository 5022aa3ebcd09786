//! `proxier report`: what a bug report needs, in one text. What cannot be had is there with its reason.
//!
//! Nothing here is a secret: no kubeconfig is read but to reach the API server, no environment, no arguments of other
//! processes. Names and addresses of Services, endpoints and nodes are in it.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use super::{diff, status, version};
use crate::app::host::counting;
use crate::app::print;
use crate::app::wiring::counters;
use crate::args::Args;
use crate::config::Config;
use crate::dataplane::{State, VirtualServerState};
use crate::http::Counted;
use crate::listing::{Measured, load_table, loads};
use crate::render::{self, Style};
use crate::text::{self, chain};

/// Bytes that are shown of a file of the host.
const MOST: usize = 64 * 1024;
/// No terminal looks at it.
const STYLE: Style = Style { width: usize::MAX, colour: false };

/// What of the host decides how IPVS works.
const FILES: [&str; 10] = [
    "proc/version",
    "etc/os-release",
    "proc/net/ip_vs_stats",
    "proc/sys/net/netfilter/nf_conntrack_count",
    "proc/sys/net/netfilter/nf_conntrack_max",
    "proc/sys/net/ipv4/ip_forward",
    "proc/sys/net/ipv4/ip_local_port_range",
    "proc/sys/net/ipv6/conf/all/forwarding",
    "proc/sys/net/bridge/bridge-nf-call-iptables",
    "proc/net/if_inet6",
];
/// Modules whose name begins so.
const MODULES: [&str; 8] =
    ["ip_vs", "ip_set", "nf_", "nft_", "xt_", "ip_tables", "br_netfilter", "dummy"];

/// Prints section after section, so that one that hangs does not cost those before it.
pub(in crate::app) fn run(args: &Args, config: Config) -> anyhow::Result<ExitCode> {
    let root = Path::new("/");
    let metrics = config.metrics_bind;
    section("report", Ok(about(&config)))?;
    section("proxier version", Ok(version::text()))?;
    let configuration = config.to_yaml().map_err(Into::into);
    section("configuration by the flags of this command", configuration)?;
    section("proxier status", status::ask(metrics, "/status.json").and_then(|it| pretty(&it)))?;
    section(
        "configuration of the daemon",
        status::ask(metrics, "/configz").and_then(|body| pretty(&body)),
    )?;
    section("metrics of the daemon", status::ask(metrics, "/metrics"))?;
    for file in FILES {
        section(&format!("/{file}"), read(&root.join(file)))?;
    }
    section("/proc/sys/net/ipv4/vs", settings(&root.join("proc/sys/net/ipv4/vs")))?;
    section("modules", read(&root.join("proc/modules")).map(|text| modules(&text)))?;
    let counted = counters::all().map_err(|error| anyhow!(error));
    let tables = counted.map(|counted| {
        let load = load_table(&loads(&measured(&counted), counting::is_on(root)), STYLE);
        (render::ipvsadm(&state(counted)), load)
    });
    let (servers, load) = match tables {
        Ok((servers, load)) => (Ok(servers), Ok(load)),
        Err(error) => (Err(anyhow!("{error:#}")), Err(error)),
    };
    section("ipvsadm-save -n", servers)?;
    section("connections and counters of IPVS", load)?;
    let difference = diff::for_report(args, config);
    section("proxier diff, and what was read of the kernel", difference)?;
    Ok(ExitCode::SUCCESS)
}

fn about(config: &Config) -> String {
    format!(
        "node {}, {:.0}\n\
         Names and addresses of Services, endpoints and nodes are in it; tokens, keys and kubeconfigs are not.\n\
         Add the log of the daemon: kubectl -n kube-system logs POD, or journalctl -u proxier.\n",
        text::name(&config.node_name),
        jiff::Timestamp::now()
    )
}

/// `==> NAME <==`, as `tail` has it, and below it the text or why there is none.
fn section(name: &str, text: anyhow::Result<String>) -> anyhow::Result<()> {
    let text = text.unwrap_or_else(|error| format!("not known: {}\n", chain(&*error)));
    let end = if text.ends_with('\n') { "" } else { "\n" };
    print(&format!("==> {name} <==\n{text}{end}\n"))
}

fn pretty(body: &str) -> anyhow::Result<String> {
    let json: Value = serde_json::from_str(body).context("read JSON")?;
    Ok(text::json(&format!("{json:#}")).into_owned())
}

/// A file of the host, as it may be shown.
fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned();
    let lines = start.lines().map(|line| format!("{}\n", text::line(line.replace('\t', " "))));
    Ok(lines.collect())
}

fn settings(folder: &Path) -> anyhow::Result<String> {
    let files = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut lines: Vec<String> = files
        .flatten()
        .map(|file| {
            let value = read(&file.path()).unwrap_or_else(|error| chain(&*error));
            format!("{} = {}\n", file.file_name().display(), value.trim())
        })
        .collect();
    lines.sort_unstable();
    Ok(lines.concat())
}

fn modules(text: &str) -> String {
    let ours = |line: &&str| MODULES.iter().any(|name| line.starts_with(name));
    text.lines().filter(ours).fold(String::new(), |all, line| all + line + "\n")
}

fn measured(counted: &[Counted]) -> Vec<Measured> {
    let of = |it: &Counted| Measured {
        service: None,
        server: it.server,
        real_servers: it.real_servers.clone(),
    };
    counted.iter().map(of).collect()
}

fn state(counted: Vec<Counted>) -> State {
    let of = |it: Counted| {
        let real_servers = it.real_servers.iter().map(|real| real.server).collect();
        let config = it.server.server.config;
        (it.server.server.key, Arc::new(VirtualServerState { config, real_servers }))
    };
    State { virtual_servers: counted.into_iter().map(of).collect(), ..State::default() }
}
