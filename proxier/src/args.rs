//! The command line, exactly as typed: ours, and all of kube-proxy's flags with its spelling.
//!
//! As with kube-proxy, dashes and underscores are the same in a flag's name, a switch takes a value
//! only after `=` (`--cleanup`, `--cleanup=true`), and of a flag given twice the last one counts,
//! unless it is a list. What the flags mean together is decided in [`crate::config`].

mod commands;
mod flags;
mod parse;
mod trace;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{FromArgMatches, Parser, ValueEnum};
use ipnet::IpNet;

pub use commands::{
    Command, ExplainArgs, GetArgs, GetKind, HandOverMode, Shell, StatusArgs, TopArgs, TraceArgs,
    WaitFor, command_line, completion, shown,
};
pub use flags::{AlwaysFlags, ConfigFlags};
pub use trace::{TraceClient, TracePlace};

use crate::text;
use crate::value::{GoDuration, MarkRange};

/// A Kubernetes service proxy that programs IPVS, in place of kube-proxy.
///
/// Without a command it is the node's service proxy and takes the arguments of a kube-proxy
/// DaemonSet unchanged.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(
    name = "proxier",
    args_override_self = true,
    disable_version_flag = true,
    disable_help_subcommand = true
)]
pub struct Args {
    /// What to do instead of running the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of proxier's own.
    #[command(flatten)]
    pub own: OwnFlags,
    /// kube-proxy's flags that count beside a configuration file.
    #[command(flatten)]
    pub always: AlwaysFlags,
    /// kube-proxy's flags that a configuration file replaces.
    #[command(flatten)]
    pub without_config: ConfigFlags,
    /// Names of given flags that a configuration file replaces.
    #[arg(skip)]
    pub ignored_with_config: Vec<String>,
    /// Names of given flags that never have an effect.
    #[arg(skip)]
    pub without_effect: Vec<String>,
}

/// Flags of proxier's own.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Flags of proxier")]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct OwnFlags {
    /// Compute and print what the kernel should hold, write nothing, and exit.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub dry_run: bool,
    /// With --dry-run and status: keep running and print every change.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub watch: bool,
    /// With --dry-run: end with status 1 if something of the manifests was ignored or has unknown
    /// fields, an EndpointSlice has no Service, or no Service is there.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub strict: bool,
    /// Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard
    /// input instead of a cluster (repeatable; folders are watched).
    #[arg(long, global = true, value_name = "PATH")]
    pub manifests: Vec<PathBuf>,
    /// An address this node has on its other interfaces (repeatable; default: read from the host).
    #[arg(long = "node-address", global = true, value_name = "IP", value_delimiter = ',',
          value_parser = parse::ip)]
    pub node_addresses: Vec<IpAddr>,
    /// How to print.
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum,
          default_value_t = Output::Table)]
    pub output: Output,
    /// What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it
    /// works and else nftables.
    #[arg(long, global = true, value_name = "BACKEND", value_enum,
          default_value_t = FirewallChoice::Auto)]
    pub firewall: FirewallChoice,
    /// What externalTrafficPolicy Local means: for clients outside the cluster only, as Kubernetes says
    /// it, or for all clients alike, as in kube-proxy's IPVS mode.
    #[arg(long, global = true, value_name = "POLICY", value_enum,
          default_value_t = LocalPolicyChoice::Split)]
    pub local_policy: LocalPolicyChoice,
    /// The firewall marks by which clients inside the cluster are led to all endpoints: bits that all
    /// have, and bits that are ours. They must not be those of anybody else on this node.
    #[arg(long, global = true, value_name = "VALUE/MASK", default_value_t = MarkRange::default())]
    pub local_policy_marks: MarkRange,
    /// Heed the annotation proxier.io/weight of Nodes, which needs a watch of the metadata of all Nodes.
    /// Those in manifests are heeded anyway.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub node_weights: bool,
    /// How long a removed real server may keep its open connections; 0 cuts them at once.
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse::not_negative,
          default_value = "15m")]
    pub drain_timeout: GoDuration,
    /// Let service addresses answer pings, which kube-proxy refuses.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub answer_ping: bool,
    /// Accept packets to services in the INPUT chain of iptables, for hosts that drop there what no
    /// rule accepts. Node ports are accepted on every address of the node. Without effect where
    /// nftables is the backend.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub accept_input: bool,
    /// Apply loadBalancerSourceRanges to a Service's node ports and external IPs too.
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true)]
    pub source_ranges_everywhere: bool,
    /// Let external and load balancer IPs of Services be addresses that this node needs to reach its
    /// API server (comma-separated). They are never bound otherwise.
    #[arg(long, global = true, value_name = "CIDR", value_delimiter = ',',
          value_parser = parse::cidr)]
    pub allow_reserved_ips: Vec<IpNet>,
    /// Memory that this process may have, in MiB; what Services ask for beyond it is left out
    /// (default: the limit of the control group, or 2048).
    #[arg(long, global = true, value_name = "MIB", value_parser = clap::value_parser!(u32).range(64..))]
    pub memory_limit: Option<u32>,
    /// Whether IPVS keeps counters and rates of its servers, which costs processor time and on kernels
    /// before 6.2 latency (default: as the kernel is).
    #[arg(long, global = true, value_name = "BOOL", value_parser = parse::boolean,
          num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipvs_run_estimation: Option<bool>,
    /// The CPUs that compute these rates, such as 0-3,5 (Linux 6.2; default: as the kernel is).
    #[arg(long, global = true, value_name = "CPUS", value_parser = parse::cpu_list)]
    pub ipvs_est_cpulist: Option<String>,
    /// The niceness of the threads that compute them (Linux 6.2; default: as the kernel is).
    #[arg(long, global = true, value_name = "-20..19", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(-20..=19))]
    pub ipvs_est_nice: Option<i8>,
    /// Show the kernel's counters of each service and endpoint among the metrics, for these
    /// namespaces or * for all. They cost two system calls for each virtual server in each scrape,
    /// and eight time series for each endpoint.
    #[arg(long, global = true, value_name = "NAMESPACE", value_delimiter = ',')]
    pub service_metrics: Vec<String>,
}

/// What is to keep rules and sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FirewallChoice {
    /// iptables where its programs and ipset work, else nftables.
    #[default]
    Auto,
    /// iptables and ipset.
    Iptables,
    /// One table of nftables for each family; no program is started.
    Nftables,
}

/// What externalTrafficPolicy Local is to mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LocalPolicyChoice {
    /// Clients outside the cluster reach endpoints on this node only, and pods and the node reach all.
    #[default]
    Split,
    /// All clients reach endpoints on this node; where there is none, all endpoints.
    KubeProxy,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Table,
    /// JSON.
    Json,
    /// YAML (get).
    Yaml,
    /// The table with more columns (get).
    Wide,
    /// Names alone, one a line (get).
    Name,
    /// Virtual and real servers as `ipvsadm-save -n` prints them.
    Ipvsadm,
    /// Addresses of kube-ipvs0 as `ip addr` prints them.
    Addresses,
    /// Sets as `ipset save` prints them.
    Ipset,
    /// IPv4 rules as `iptables-save` prints them.
    Iptables,
    /// IPv6 rules as `ip6tables-save` prints them.
    Ip6tables,
    /// The tables of the backend nftables as `nft list table` prints them.
    Nftables,
    /// Kernel settings as `sysctl` prints them.
    Sysctls,
    /// All of them, one after the other.
    All,
}

/// What the arguments ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `--version`: print it; the number alone with `raw`.
    Version {
        /// `--version=raw`
        raw: bool,
    },
    /// `report`
    Report,
    /// `version`: print what this program was built with.
    Build,
    /// `completion`: print what a shell needs.
    Completion(Shell),
    /// `--write-config-to`: write the resolved configuration and exit.
    WriteConfig(PathBuf),
    /// `--cleanup` or `cleanup`: remove everything from the kernel and exit.
    Cleanup,
    /// `--init-only`: do what needs more privileges and exit.
    InitOnly,
    /// `--dry-run`: print what the kernel should hold.
    DryRun {
        /// Whether to go on and print changes.
        watch: bool,
    },
    /// `diff`
    Diff,
    /// `explain`
    Explain(ExplainArgs),
    /// `get`
    Get(GetArgs),
    /// `top`
    Top(TopArgs),
    /// `trace`
    Trace(TraceArgs),
    /// `status`
    Status(StatusArgs),
    /// `migrate --check`
    MigrateCheck,
    /// `hand-over`: run the proxy until another one has everything.
    HandOver,
    /// Run the proxy.
    Run,
}

/// The arguments cannot be used, or ask for nothing but help.
#[derive(Debug)]
pub struct ArgsError {
    text: String,
    exit_status: u8,
}

// === impl Args ===

impl Args {
    /// Reads arguments; the first one is the program's name.
    pub fn parse_from<I>(arguments: I) -> Result<Self, ArgsError>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        Self::read(arguments.iter().cloned()).map_err(|error| {
            // The error quotes arguments: those that may be shown are wrong in the same way.
            let shown = arguments.iter().map(|it| text::line(it.display()).to_string().into());
            ArgsError::new(&Self::read(shown).err().unwrap_or(error))
        })
    }

    fn read(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command_line();
        let matches =
            command.try_get_matches_from_mut(arguments.enumerate().map(|(i, argument)| {
                if i == 0 { argument } else { parse::with_dashes(argument) }
            }))?;
        let mut args = Self::from_arg_matches(&matches)?;

        let given = |heading: &str| {
            let belongs = |arg: &&clap::Arg| arg.get_help_heading() == Some(heading);
            let typed = |arg: &&clap::Arg| {
                matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
            };
            let flags = command.get_arguments().filter(belongs).filter(typed);
            flags.filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
        };
        args.ignored_with_config = given(flags::CONFIG_HEADING);
        args.without_effect = given(flags::NO_EFFECT_HEADING);
        args.check(&mut command)?;
        Ok(args)
    }

    fn check(&self, command: &mut clap::Command) -> Result<(), clap::Error> {
        let mut wrong =
            |text: &str| Err(command.error(clap::error::ErrorKind::ArgumentConflict, text));
        let status = matches!(self.command, Some(Command::Status(_)));
        if self.own.watch && !self.own.dry_run && !status {
            return wrong("--watch goes with --dry-run or status");
        }
        if let Some(Command::Status(status)) = &self.command
            && (self.own.watch && status.wait.is_some()
                || status.timeout.is_some() && status.wait.is_none())
        {
            return wrong("--timeout goes with --wait, and --wait not with --watch");
        }
        if self.own.strict && !self.own.dry_run {
            return wrong("--strict goes with --dry-run");
        }
        if self.own.dry_run && (self.always.cleanup || self.always.init_only) {
            return wrong("--dry-run goes with neither --cleanup nor --init-only");
        }
        let dry = self.own.dry_run && !matches!(self.command, Some(Command::Trace(_)));
        if self.command.is_some() && (dry || self.always.init_only) {
            return wrong("a command goes with neither --dry-run (but trace) nor --init-only");
        }
        if let Some(Command::Trace(TraceArgs {
            client: TraceClient::Address(client), place, ..
        })) = &self.command
            && client.is_ipv4() != place.address.is_ipv4()
        {
            return wrong(
                "the client and the address are of two families: both IPv4, or both IPv6",
            );
        }
        let name = self.command.as_ref().map(Command::name);
        let outputs = commands::outputs(name.or(self.own.dry_run.then_some(commands::DRY_RUN)));
        if !outputs.contains(&self.own.output) {
            let given = self.own.output.name();
            let names = text::any_of(outputs.iter().map(|output| output.name()));
            return wrong(&match name {
                Some(name) => {
                    format!("-o {given} does not apply here: proxier {name} prints {names}")
                }
                None => {
                    format!("-o {given} does not apply here: it goes with --dry-run or a command")
                }
            });
        }
        Ok(())
    }

    /// What the arguments ask for; where they ask for several things, kube-proxy's order.
    pub fn action(&self) -> Action {
        if let Some(form) = &self.always.version
            && form != "false"
        {
            return Action::Version { raw: form == "raw" };
        }
        if let Some(path) = &self.always.write_config_to {
            return Action::WriteConfig(path.clone());
        }
        match &self.command {
            Some(Command::Diff) => Action::Diff,
            Some(Command::Explain(explain)) => Action::Explain(explain.clone()),
            Some(Command::Get(get)) => Action::Get(get.clone()),
            Some(Command::Top(top)) => Action::Top(top.clone()),
            Some(Command::Trace(trace)) => Action::Trace(trace.clone()),
            Some(Command::Status(status)) => Action::Status(status.clone()),
            Some(Command::Report) => Action::Report,
            Some(Command::Version) => Action::Build,
            Some(Command::Completion { shell }) => Action::Completion(*shell),
            Some(Command::Migrate { .. }) => Action::MigrateCheck,
            Some(Command::Cleanup) => Action::Cleanup,
            Some(Command::HandOver { .. }) => Action::HandOver,
            None if self.always.cleanup => Action::Cleanup,
            None if self.always.init_only => Action::InitOnly,
            None if self.own.dry_run => Action::DryRun { watch: self.own.watch },
            None => Action::Run,
        }
    }
}

// === impl Action ===

impl Action {
    /// Whether what is questionable about the configuration is to be said. Whoever asks about a Service or the
    /// daemon gets an answer to that; the daemon's log and `diff` have the rest.
    pub fn uses_whole_configuration(&self) -> bool {
        !matches!(
            self,
            Self::Explain(_)
                | Self::Get(_)
                | Self::Top(_)
                | Self::Trace(_)
                | Self::Status(_)
                | Self::Cleanup
        )
    }
}

// === impl ArgsError ===

impl ArgsError {
    fn new(error: &clap::Error) -> Self {
        let rendered = error.render().to_string();
        let text = rendered
            .lines()
            .fold(String::new(), |all, line| all + &text::line(line).to_string() + "\n");
        Self { text, exit_status: if error.use_stderr() { 64 } else { 0 } }
    }

    /// Exit status: 0 if help was asked for, 64 (`EX_USAGE`) if the arguments are wrong.
    pub fn exit_status(&self) -> u8 {
        self.exit_status
    }
}

/// The help, or what is wrong and how it is meant. Ends with a line break.
impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ArgsError {}
