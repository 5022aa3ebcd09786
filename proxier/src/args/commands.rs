//! What the program does instead of running the proxy, and what its help shows of each command.
//!
//! Every command takes every flag of the proxy, so that those of the daemon can be put behind it; its help shows
//! those that matter to it.

#![allow(clippy::doc_markdown, reason = "the comments are the help text")]

use std::time::Duration;

use clap::{CommandFactory as _, Subcommand, ValueEnum};

use super::trace::{TraceClient, TracePlace};
use super::{Args, Output, parse};
use crate::text;
use crate::value::GoDuration;

/// What to do instead of running the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Show what would change in the live kernel: exit status 0 nothing, 1 something, 2 unknown.
    #[command(after_help = "Examples:
  proxier diff --config=/var/lib/kube-proxy/config.conf
  proxier diff --manifests objects.yaml -o json")]
    Diff,
    /// Say why Services look as they do on this node: which endpoints are used, which are not, and why.
    #[command(after_help = "Examples:
  proxier explain shop/web                 a Service; also: svc/web -n shop, web -n shop
  proxier explain shop/web:http            one port of it
  proxier explain 10.96.0.10:53/udp        who answers there
  proxier explain 10.244.1.7               the Services of a pod
  proxier explain 30080                    whose node port it is
  proxier explain shop/web 30080 -o json   several at once, for programs")]
    Explain(ExplainArgs),
    /// List Services, endpoints or virtual servers as they are on this node, those with a problem first.
    #[command(after_help = "Examples:
  proxier get svc -A                   every Service: its endpoints here, elsewhere and unused
  proxier get endpoints -n shop        where each one is, and whether it is used
  proxier get ep web -n shop -o wide   of one Service, with zones and reasons
  proxier get vs 10.96.0.10            the virtual servers of an address
  proxier get svc -A -o name           names for explain; also -o json, -o yaml")]
    Get(GetArgs),
    /// Follow the first packet of a connection through this node's rules, sets and virtual servers, step by
    /// step: exit status 0 an endpoint is reached, 2 refused, 3 dropped, 4 not taken by a Service, 1 not known.
    #[command(after_help = "Examples:
  proxier trace 192.168.1.100 203.0.113.66:8765     a client outside, in the kernel as it is
  proxier trace 10.244.0.7 10.96.0.10:53/udp        a pod
  proxier trace node [fd00:10:96::a]:443            this node, or a pod that has its address
  proxier trace --dry-run --manifests objects.yaml 192.168.1.100 192.168.1.10:30080
  proxier trace 192.168.1.100 203.0.113.66:8765 -o json")]
    Trace(TraceArgs),
    /// Show what goes through Services and endpoints now: connections and bytes a second, the busiest first.
    #[command(after_help = "Examples:
  proxier top                until Ctrl-C, in a terminal
  proxier top --once -n shop
  proxier top -o json        with sums since each virtual server was made")]
    Top(TopArgs),
    /// Show what the running proxy of this node knows: exit status 0 in sync, 2 in sync but something
    /// needs attention, 1 anything else.
    #[command(after_help = "Examples:
  proxier status
  proxier status --watch
  proxier status --wait=in-sync --timeout 2m && kubectl uncordon node-1
  proxier status -o json --metrics-bind-address=192.168.1.10:10249")]
    Status(StatusArgs),
    /// Show what taking over this node from kube-proxy would change: exit status as for diff.
    #[command(after_help = "Examples:
  proxier migrate --check --config=/var/lib/kube-proxy/config.conf")]
    Migrate {
        /// Only look; the taking over itself is what the running proxy does.
        #[arg(long, required = true)]
        check: bool,
    },
    /// Print what a bug report needs: version, configuration, status, metrics, kernel and host. No token,
    /// key or kubeconfig is in it; names and addresses of Services, endpoints and nodes are.
    #[command(after_help = "Examples:
  proxier report >proxier-report.txt
  kubectl -n kube-system exec POD -- proxier report --config=/var/lib/kube-proxy/config.conf >proxier-report.txt")]
    Report,
    /// Print the version, the commit and what this program was built with.
    #[command(after_help = "Examples:
  proxier version
  proxier version -o json")]
    Version,
    /// Print what a shell needs to complete commands and flags.
    #[command(after_help = "Examples:
  proxier completion bash >/etc/bash_completion.d/proxier
  proxier completion zsh >/usr/share/zsh/site-functions/_proxier
  proxier completion fish >/usr/share/fish/vendor_completions.d/proxier.fish
  source <(proxier completion bash)      for this shell only")]
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Remove everything from the kernel that this proxy or kube-proxy put there.
    #[command(after_help = "Examples:
  proxier cleanup            when no proxy runs on this node any more")]
    Cleanup,
    /// Run as the proxy until kube-proxy in another mode, started beside it, has every Service and no
    /// connection is left here; then remove everything of this proxy and end.
    #[command(after_help = "Examples:
  proxier hand-over --to nftables --config=/var/lib/kube-proxy/config.conf")]
    HandOver {
        /// The mode of that kube-proxy.
        #[arg(long, value_name = "MODE", value_enum)]
        to: HandOverMode,
    },
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ExplainArgs {
    /// NAME, svc/NAME, NAMESPACE/NAME (each with :PORT if wanted), ADDRESS or ADDRESS:PORT of a Service or a
    /// pod, or a node port; ports with /protocol if wanted.
    #[arg(required = true, value_name = "WHAT")]
    pub what: Vec<String>,
    /// Namespace of names that say none.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// What is to be listed.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct GetArgs {
    /// What to list.
    #[arg(value_name = "KIND", value_enum)]
    pub kind: GetKind,
    /// Of these Services only: a name, an address or a node port, as for explain.
    #[arg(value_name = "WHAT")]
    pub what: Vec<String>,
    /// Of this namespace (default: default).
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "what"])]
    pub all_namespaces: bool,
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GetKind {
    /// Services.
    #[value(aliases = ["service", "svc"])]
    Services,
    /// Endpoints of Services.
    #[value(aliases = ["endpoint", "ep"])]
    Endpoints,
    /// Virtual servers.
    #[value(aliases = ["virtual-server", "vs"])]
    VirtualServers,
}

/// To which mode of kube-proxy a node is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HandOverMode {
    /// nftables mode.
    Nftables,
    /// iptables mode.
    Iptables,
}

/// Which packet is followed.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TraceArgs {
    /// Who connects: an address, such as a pod's, or `node`.
    #[arg(value_name = "CLIENT")]
    pub client: TraceClient,
    /// Where to: ADDRESS:PORT, with /protocol if it is not TCP.
    #[arg(value_name = "ADDRESS:PORT")]
    pub place: TracePlace,
    /// The interface by which the packet comes in (default: by which this node reaches the client).
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
}

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct TopArgs {
    /// Of this namespace (default: of all, and virtual servers of no Service).
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Print everything once, as is done where standard output is no terminal.
    #[arg(long)]
    pub once: bool,
}

/// For which status is waited.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct StatusArgs {
    /// Wait until the kernel is as wanted, then print the state in a line.
    #[arg(long, value_name = "STATE", value_enum)]
    pub wait: Option<WaitFor>,
    /// With --wait: exit with status 1 after this time (default 60s).
    #[arg(long, value_name = "DURATION", value_parser = parse::not_negative)]
    pub timeout: Option<GoDuration>,
}

impl StatusArgs {
    /// How long to wait.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(Duration::from_mins(1), GoDuration::unsigned)
    }
}

/// A state that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// In sync, whether or not something needs attention.
    InSync,
}

/// A shell that completes words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash with bash-completion.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// The name under which [`outputs`] has a dry run, which is no command.
pub(super) const DRY_RUN: &str = "--dry-run";

/// Flags that say where Services are read from, and what of them is this node's.
const SOURCE: &[&str] =
    &["config", "kubeconfig", "master", "hostname-override", "manifests", "node-address"];

impl Command {
    /// As it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Diff => "diff",
            Self::Explain(_) => "explain",
            Self::Get(_) => "get",
            Self::Top(_) => "top",
            Self::Trace(_) => "trace",
            Self::Status(_) => "status",
            Self::Report => "report",
            Self::Version => "version",
            Self::Completion { .. } => "completion",
            Self::Migrate { .. } => "migrate",
            Self::Cleanup => "cleanup",
            Self::HandOver { .. } => "hand-over",
        }
    }
}

/// Flags of the proxy that the help of a command shows.
fn flags(command: &str) -> Vec<&'static str> {
    let more: &[&str] = match command {
        "diff" | "migrate" => &["firewall", "output"],
        "report" => &["metrics-bind-address", "firewall"],
        "explain" | "get" | "top" => &["output"],
        "trace" => &["firewall", "dry-run", "output"],
        "version" => return vec!["output"],
        "status" => return vec!["config", "metrics-bind-address", "watch", "output"],
        "hand-over" => &["drain-timeout"],
        _ => return Vec::new(),
    };
    [SOURCE, more].concat()
}

/// What a command, or a dry run, can print; the first is the usual form.
pub(super) fn outputs(command: Option<&str>) -> Vec<Output> {
    use Output::{Json, Name, Table, Wide, Yaml};
    let all = || Output::value_variants().iter().copied();
    match command {
        Some(DRY_RUN) => all().filter(|it| !matches!(it, Yaml | Wide | Name)).collect(),
        Some("get") => vec![Table, Wide, Json, Yaml, Name],
        Some("diff" | "explain" | "top" | "trace" | "status" | "version" | "migrate") => {
            vec![Table, Json]
        }
        _ => vec![Table],
    }
}

/// The command line as it is read: a command takes every flag of the proxy.
pub fn command_line() -> clap::Command {
    let whole = Args::command();
    let flags: Vec<clap::Arg> = whole.get_arguments().cloned().collect();
    whole.mut_subcommands(|command| {
        let shown = shown_flags(command.get_name(), &flags);
        let is_shown = |flag: &clap::Arg| shown.iter().any(|it| it.get_id() == flag.get_id());
        let hidden: Vec<_> =
            flags.iter().filter(|flag| !is_shown(flag)).map(|it| it.clone().hide(true)).collect();
        command.args(shown).args(hidden)
    })
}

/// The command line as it is shown: of each command, the flags that matter to it.
pub fn shown() -> clap::Command {
    let whole = Args::command().mut_args(|flag| flag.global(false));
    let flags: Vec<clap::Arg> = whole.get_arguments().cloned().collect();
    whole.mut_subcommands(|command| {
        let shown = shown_flags(command.get_name(), &flags);
        command.args(shown)
    })
}

/// What a shell needs to complete what is typed.
pub fn completion(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(generator, &mut shown(), "proxier", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn shown_flags(command: &str, all: &[clap::Arg]) -> Vec<clap::Arg> {
    let names = flags(command);
    let shown = all.iter().filter(|flag| flag.get_long().is_some_and(|it| names.contains(&it)));
    let own = |flag: &clap::Arg| match flag.get_id().as_str() {
        "output" => flag.clone().hide_possible_values(true).help(format!(
            "How to print: {}",
            text::any_of(outputs(Some(command)).iter().map(|it| it.name()))
        )),
        _ => flag.clone(),
    };
    shown.map(own).map(|flag| flag.help_heading("Flags of the proxy")).collect()
}

impl Output {
    /// As it is typed.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
