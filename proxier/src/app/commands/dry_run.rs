//! `--dry-run`: the loop over a dataplane in memory, printed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netlink_ipvs::Family;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::app::host::{memory_limit, needs, sysctls};
use crate::app::print;
use crate::app::wiring::feed;
use crate::args::{Args, Output};
use crate::config::Config;
use crate::config::node::{node_ips, unresolved};
use crate::dataplane::firewall::Backend;
use crate::dataplane::{Desired, State};
use crate::memory::Memory;
use crate::reconcile::{Event, Reconciler, Resolver, Timing};
use crate::render::{self, Style};
use crate::settings::{Abilities, settings};
use crate::source::kube::{Contact, Contacts};
use crate::text;

/// Prints the first complete state; with `watch`, every operation after it.
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    watch: bool,
) -> anyhow::Result<ExitCode> {
    let sysctls = sysctls::text(&config)?;
    let output = args.own.output;
    let backend = backend(output, config.backend)?;
    let abilities = Abilities { backend, ..Abilities::default() };
    let (mut reconciler, mut source) = complete(args, config, abilities, Memory::new()).await?;
    print(&render(reconciler.desired(), output, backend, &sysctls))?;
    if args.own.strict {
        let services = reconciler.cluster().services().len();
        if source.warnings > 0 || services == 0 {
            anyhow::bail!(
                "--strict: {}, and {} about what was read (above)",
                text::count(services, "Service"),
                text::count(source.warnings, "warning")
            );
        }
    }
    if !watch {
        return Ok(ExitCode::SUCCESS);
    }
    reconciler.dataplane().done.clear();
    while let Some(event) = source.next().await {
        reconciler.take(event);
        reconciler.step().await;
        for op in std::mem::take(&mut reconciler.dataplane().done) {
            print(&format!("{}\n", text::line(op)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The backend of which an output shows something: the one that is asked for, else the usual one, as
/// no kernel is asked what works.
fn backend(output: Output, choice: Option<Backend>) -> anyhow::Result<Backend> {
    let shown = match output {
        Output::Ipset | Output::Iptables | Output::Ip6tables => Some(Backend::Iptables),
        Output::Nftables => Some(Backend::Nftables),
        _ => None,
    };
    match (shown, choice) {
        (Some(shown), Some(choice)) if shown != choice => anyhow::bail!(
            "this output shows what the backend {shown} keeps, and --firewall={choice} asks for \
             another: leave one of the two out"
        ),
        _ => Ok(shown.or(choice).unwrap_or_default()),
    }
}

/// What still comes after the first complete state.
pub(in crate::app) struct Source {
    events: mpsc::Receiver<Event>,
    /// About what was read.
    warnings: usize,
    /// Where the API server was found; `None` if manifests are read.
    contacts: Option<Contacts>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

impl Source {
    /// Waits for what changes; nothing once the source has ended.
    pub(in crate::app) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Where the API server is; `None` if manifests are read.
    pub(in crate::app) fn api_servers(&self) -> Option<BTreeSet<SocketAddr>> {
        let contacts = self.contacts.as_ref()?.follow();
        let servers = contacts
            .borrow()
            .iter()
            .filter_map(|contact| match contact {
                Contact::Server(address) => Some(*address),
                Contact::NameServer(_) => None,
            })
            .collect();
        Some(servers)
    }
}

/// Reads the source until it is complete, into a loop over memory, which may hold something already. Who
/// waits for an answer is told when none comes; why is in the warnings of the watches.
pub(in crate::app) async fn complete(
    args: &Args,
    config: Config,
    mut abilities: Abilities,
    memory: Memory,
) -> anyhow::Result<(Reconciler<Memory>, Source)> {
    abilities.memory = memory_limit::of_cgroup();
    let (sender, mut events) = mpsc::channel(feed::QUEUE);
    let host = feed::host_addresses(args)?;
    // Addresses that are given are of another host, whose routes are not known.
    let needs = args.own.node_addresses.is_empty().then(needs::of_host).transpose();
    let needs = needs.context("read the default routes of this host")?;
    let mut tasks = JoinSet::new();
    let source = feed::Source::find(args, &config).await?;
    let mut hopeless = Box::pin(source.hopeless());
    let warnings = source.warnings();
    let contacts = source.connection().map(|connection| connection.contacts);
    tasks.spawn(source.run(sender, None));
    let timing = Timing {
        sync_period: FOR_EVER,
        min_sync_period: Duration::ZERO,
        drain_timeout: Duration::ZERO,
        drain_check: FOR_EVER,
    };
    let config = Arc::new(config);
    let resolver = {
        let config = Arc::clone(&config);
        Resolver::new(move |node, host| settings(&config, &abilities, node, host))
    };
    let (mut reconciler, status) = Reconciler::new(memory, resolver, timing);
    if let Some(needs) = needs {
        reconciler.take(needs);
    }
    reconciler.take(Event::HostAddresses(host));
    while !status.borrow().complete {
        let event = tokio::select! {
            biased;
            event = tokio::time::timeout(PATIENCE, events.recv()) => event,
            reason = &mut hopeless => return Err(reason),
        };
        let Ok(event) = event else {
            anyhow::bail!(
                "the API server has sent nothing for {} s, and not yet everything: the warnings above \
                 say why; --kubeconfig or --master may lead to another",
                PATIENCE.as_secs()
            );
        };
        let Some(event) = event else {
            while let Some(ended) = tasks.join_next().await {
                ended.context("read the source")??;
            }
            anyhow::bail!("the source ended before everything was read");
        };
        reconciler.take(event);
        reconciler.step().await;
    }
    let node = reconciler.cluster().node();
    let addresses = node.map(|node| &*node.addresses).unwrap_or_default();
    if let Some(text) = unresolved(&config, &node_ips(config.bind_address, addresses)) {
        tracing::warn!("{text}");
    }
    Ok((reconciler, Source { events, warnings, contacts, _tasks: tasks }))
}

/// How long nothing new may come before everything has been read.
const PATIENCE: Duration = Duration::from_mins(1);

/// Longer than any program runs.
const FOR_EVER: Duration = Duration::from_hours(24 * 365);

/// The desired state in one of the output formats.
fn render(desired: &Desired, output: Output, backend: Backend, sysctls: &str) -> String {
    let state = desired.state();
    match output {
        // Those of `get` are refused with the arguments.
        Output::Table | Output::Wide | Output::Name | Output::Yaml => {
            render::table(desired, style())
        }
        Output::Json => {
            format!("{}\n", text::json(&format!("{:#}", render::json::desired(desired))))
        }
        Output::Ipvsadm => render::ipvsadm(state),
        Output::Addresses => render::addresses(state),
        Output::Ipset => render::ipset(state),
        Output::Iptables => render::firewall(state, Family::Ipv4),
        Output::Ip6tables => render::firewall(state, Family::Ipv6),
        Output::Nftables => render::nftables(state),
        Output::Sysctls => sysctls.to_owned(),
        Output::All => format!("{}# sysctl\n{sysctls}", all(state, backend)),
    }
}

/// A state as each of the tools shows its part of it, below the name of the tool.
pub(super) fn all(state: &State, backend: Backend) -> String {
    let mut parts = vec![
        ("ipvsadm-save -n", render::ipvsadm(state)),
        ("ip addr show kube-ipvs0", render::addresses(state)),
    ];
    match backend {
        Backend::Iptables => parts.extend([
            ("ipset save", render::ipset(state)),
            ("iptables-save", render::firewall(state, Family::Ipv4)),
            ("ip6tables-save", render::firewall(state, Family::Ipv6)),
        ]),
        Backend::Nftables => parts.push(("nft list table", render::nftables(state))),
    }
    parts.into_iter().fold(String::new(), |mut out, (tool, text)| {
        let _ = write!(out, "# {tool}\n{text}");
        out
    })
}

/// As the terminal on standard output wants it: colours only there, and where nobody asks for none.
pub(in crate::app) fn style() -> Style {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    Style { width: terminal_width(), colour }
}

/// Columns of the terminal on standard output; a pipe has room for everything.
fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Host;

    #[test]
    fn an_output_shows_what_its_backend_keeps() {
        use Backend::{Iptables, Nftables};
        for (output, choice, shown) in [
            (Output::Table, None, Some(Iptables)),
            (Output::All, Some(Nftables), Some(Nftables)),
            (Output::Nftables, None, Some(Nftables)),
            (Output::Nftables, Some(Iptables), None),
            (Output::Ipset, Some(Iptables), Some(Iptables)),
            (Output::Ip6tables, Some(Nftables), None),
        ] {
            assert_eq!(backend(output, choice).ok(), shown, "{output:?} {choice:?}");
        }
    }

    /// What somebody is told who asks this server, and after how long.
    async fn asked(server: &str) -> (String, Duration) {
        let line = format!(
            "proxier --dry-run --proxy-mode=ipvs --hostname-override=a --node-address=192.0.2.1 \
             --master={server}"
        );
        let args = Args::parse_from(line.split_whitespace()).unwrap();
        let config = Config::load(&args, &Host).unwrap();
        let start = tokio::time::Instant::now();
        let failed =
            complete(&args, config, Abilities::default(), Memory::new()).await.err().unwrap();
        (failed.to_string(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_server_that_is_not_there_is_told_soon() {
        let (said, after) = asked("http://127.0.0.1:1").await;
        assert!(said.starts_with("the API server http://127.0.0.1:1/ cannot be read: "), "{said}");
        assert!(said.contains("Connection refused"), "{said}");
        assert!(after <= Duration::from_secs(5), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_server_that_says_nothing_is_told_that() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (said, after) = asked(&format!("http://{}", silent.local_addr().unwrap())).await;
        assert!(said.contains("nothing for 60 s"), "{said}");
        assert_eq!(after.as_secs(), 60);
    }
}
