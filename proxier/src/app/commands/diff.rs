//! `proxier diff`: what the running proxy would change now.

mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use netlink_ipvs::{Family, VirtualServerKey};
use serde_json::json;

use super::dry_run;
use crate::app::host::{Host, closed, facts, neighbours, sysctls};
use crate::app::{kernel_failure, print, print_json, print_text, report};
use crate::args::{Args, Output};
use crate::config::Config;
use crate::dataplane::firewall::Backend;
use crate::dataplane::sets::{SetId, SetRole};
use crate::dataplane::sysctls::Sysctl;
use crate::dataplane::{
    Answer, Dataplane as _, Desired, Drains, FrontendKind, Op, OpError, Plan, Planning, Query,
    SetState, Settings, State, Target, plan, unmarked,
};
use crate::kernel::Kernel;
use crate::memory::Memory;
use crate::nftables;
use crate::text::{self, chain};

/// The kernel could not be read.
const EXIT_UNKNOWN: u8 = 2;

/// Prints the operations that would bring the kernel to what is wanted. Exit status: 0 none, 1
/// some, 2 could not tell.
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(args: &Args, config: Config) -> ExitCode {
    let difference = async {
        let kept = sysctls::kept(&config)?;
        difference(args, config, kept).await
    };
    match difference.await {
        Ok(Difference { plan, lines, .. }) => {
            if let Err(error) = print(&text(&lines, args.own.output)) {
                report(&chain(&*error));
                return ExitCode::from(EXIT_UNKNOWN);
            }
            ExitCode::from(u8::from(!plan.is_empty()))
        }
        Err(error) => {
            report(&kernel_failure(&error));
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

/// For a bug report: what differs, and everything that was read to know it.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn for_report(args: &Args, config: Config) -> anyhow::Result<String> {
    let kept = sysctls::kept(&config)?;
    let found = Box::pin(difference(args, config, kept)).await?;
    let backend = found.backend;
    let mut out = text(&found.lines, Output::Table);
    let _ = writeln!(out, "\nfirewall backend {backend}");
    for fact in found.facts.iter().chain(&found.neighbours) {
        let _ = writeln!(out, "{}", text::line(fact));
    }
    out.push('\n');
    out.push_str(&dry_run::all(&found.observed, backend));
    Ok(out)
}

/// What differs, and what else was found on the way.
struct Difference {
    plan: Plan,
    /// What [`summary::doubts`] says.
    doubts: Vec<String>,
    /// Virtual servers that would be removed although no service proxy seems to have made them.
    foreign: Vec<String>,
    /// What is there now.
    observed: State,
    /// What it does, in words, each with a sign.
    lines: Vec<(char, String)>,
    /// What keeps rules and sets.
    backend: Backend,
    /// For which Services clients are told apart that were not.
    policies: Vec<String>,
    /// Where node ports would be opened, if that is more than one may expect.
    node_ports: Option<String>,
    /// What [`neighbours::find`] says.
    neighbours: Vec<String>,
    /// What [`facts::find`] and [`closed::find`] say.
    facts: Vec<String>,
}

/// With the kernel settings that are to be looked at.
async fn difference(
    args: &Args,
    config: Config,
    sysctls: Arc<[Sysctl]>,
) -> anyhow::Result<Difference> {
    let mut host = Host::look(&config)?;
    host.abilities.sysctls = sysctls;
    let strict_arp = config.sysctls.strict_arp;
    let closed = closed::find(&config, &host);
    let node_name = Arc::clone(&config.node_name);
    let mut kernel = Kernel::open(host.ipvs, host.filter, host.abilities.families.clone())?;
    let known = marks(&mut kernel, &host.abilities.families).await;
    let known = known.map_err(|error| anyhow!(error.text))?;
    // What was read once may not be read again.
    let sets = known.state.sets.clone();
    let complete = Box::pin(dry_run::complete(args, config, host.abilities, known));
    let (reconciler, source) = complete.await?;
    let doubts = source.api_servers().map(|servers| {
        let unknown = reconciler.cluster().node().is_none().then_some(&*node_name);
        summary::doubts(unknown, &servers, reconciler.desired())
    });
    let desired = reconciler.desired().state();
    let settings = reconciler.settings().ok_or_else(|| anyhow!("nothing was read"))?;
    let observed = observe(&mut kernel, &settings.families, &settings.sysctls, sets).await;
    let observed = observed.map_err(|error| anyhow!(error.text))?;
    // What drains is as it should be. For how long does not matter: none is ended here.
    let mut drains = Drains::new(Duration::ZERO);
    for (key, server) in &observed.virtual_servers {
        let (wanted, now) = (desired.virtual_servers.get(key), Instant::now());
        drains.update(key, reconciler.desired().protocol(key), wanted, Some(server), now);
    }
    let all: BTreeSet<Target> = desired.targets().chain(observed.targets()).collect();
    let unmarked = unmarked(&observed, desired, settings);
    let (foreign, taken) = if settings.keep_foreign {
        (unmarked, BTreeSet::new())
    } else {
        (BTreeSet::new(), unmarked)
    };
    let planning = Planning::new(desired, &observed, &drains, settings);
    let mut plan = plan(Planning { foreign: &foreign, ..planning }, &all);
    plan.ops.retain(|op| !matches!(op, Op::ForgetFlows(..)));
    let neighbours = neighbours::find(desired, strict_arp);
    let ipv6 = |key: &VirtualServerKey| key.family() == Family::Ipv6;
    let mut facts = facts::find(Path::new("/"), desired.virtual_servers.keys().any(ipv6));
    facts.extend(closed);
    let lines = plan.ops.iter().flat_map(|op| words(op, settings.backend, &observed)).collect();
    Ok(Difference {
        lines,
        doubts: doubts.unwrap_or_default(),
        foreign: taken.iter().map(ToString::to_string).collect(),
        backend: settings.backend,
        policies: policies(reconciler.desired(), &observed, settings),
        node_ports: summary::node_ports(&plan.ops, &desired.interface),
        observed,
        neighbours,
        facts,
        plan,
    })
}

/// A memory that knows which marks the kernel has: those that services have they keep.
async fn marks(kernel: &mut Kernel, families: &[Family]) -> Result<Memory, OpError> {
    let mut memory = Memory::new();
    for family in families {
        let set = SetRole::LocalMark.of(*family);
        if let Answer::Set(set, Some(found)) = kernel.read(&Query::Set(set)).await? {
            memory.state.sets.insert(set, found);
        }
    }
    Ok(memory)
}

/// Reads the whole kernel, or fails.
pub(super) async fn observe(
    kernel: &mut Kernel,
    families: &[Family],
    sysctls: &Arc<[Sysctl]>,
    sets: BTreeMap<SetId, SetState>,
) -> Result<State, OpError> {
    let mut state = State { sets, ..State::default() };
    let all = SetId::all().filter(|set| families.contains(&set.family));
    let parts = [Query::Sysctls(sysctls.clone()), Query::Interface];
    for query in parts.into_iter().chain(all.map(Query::Set)) {
        match kernel.read(&query).await? {
            Answer::Sysctls(found) => state.sysctls = found,
            Answer::Interface(found) => state.interface = found,
            Answer::Set(set, found) => state.sets.extend(found.map(|found| (set, found))),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    let mut begin = true;
    while let Answer::List(found) = kernel.read(&Query::List { begin }).await? {
        if found.is_empty() {
            break;
        }
        begin = false;
        keys.extend(found.into_iter().map(|(key, _)| key));
    }
    if let Answer::VirtualServers(found) = kernel.read(&Query::VirtualServers(keys)).await? {
        for (key, server) in found {
            state.virtual_servers.extend(server?.map(|server| (key, server)));
        }
    }
    for (family, found) in kernel.look_at_rules(families).await {
        let found = found?;
        state.firewall.extend(found.rules.map(|rules| (family, rules)));
        state.leftovers.extend(found.leftovers);
    }
    Ok(state)
}

/// `proxier migrate --check`: what taking over this node would change, before it is done. Exit
/// status as for [`run`].
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn check_migration(args: &Args, config: Config) -> ExitCode {
    match Box::pin(migration(args, config)).await {
        Ok(changes) => ExitCode::from(u8::from(changes)),
        Err(error) => {
            report(&kernel_failure(&error));
            ExitCode::from(EXIT_UNKNOWN)
        }
    }
}

/// Prints the report. Whether the dataplane would change.
async fn migration(args: &Args, config: Config) -> anyhow::Result<bool> {
    let settings = sysctls::changes(&config)?;
    let Difference {
        plan,
        lines,
        doubts,
        foreign,
        observed,
        backend,
        policies,
        node_ports,
        neighbours,
        facts,
        ..
    } = difference(args, config, Arc::default()).await?;
    let breaking = |op: &&Op| matches!(op, Op::RemoveRealServer(..) | Op::RemoveVirtualServer(..));
    let cut = plan.ops.iter().filter(breaking).count();
    let gone = plan.ops.iter().filter(|op| matches!(op, Op::RemoveVirtualServer(..))).count();
    let adopted = observed.virtual_servers.len() - gone;
    if args.own.output == Output::Json {
        let document = json!({
            "doubts": doubts,
            "adoptedVirtualServers": adopted,
            "firewall": backend.to_string(),
            "kernelSettings": settings,
            "localPolicies": policies,
            "foreignVirtualServers": foreign,
            "neighbours": neighbours,
            "host": facts,
            "removals": cut,
            "nodePorts": node_ports,
            "kinds": summary::kinds(&plan.ops)
                .into_iter()
                .map(|(count, kind)| json!({ "kind": kind, "count": count }))
                .collect::<Vec<_>>(),
            "changes": operations(&lines),
        });
        print_json(&document)?;
        return Ok(!plan.is_empty());
    }
    let mut out = String::new();
    let verb = if adopted == 1 { "is" } else { "are" };
    let servers = text::count(adopted, "virtual server");
    let _ = writeln!(out, "{servers} {verb} there and would be adopted.");
    let _ = writeln!(out, "Rules and sets would be kept by {backend} (--firewall).");
    for (title, lines) in [
        ("look at this before anything else", doubts),
        (
            "for clients of externalTrafficPolicy Local (--local-policy=kube-proxy leaves it as it is)",
            policies,
        ),
        (
            "virtual servers that would be removed, and that no service proxy seems to have made \
             (ipvs.excludeCIDRs keeps them)",
            foreign,
        ),
        ("kernel settings that would change", settings),
        ("node ports", node_ports.into_iter().collect()),
        ("wrong on this host, whoever serves", facts),
        ("known not to go well with service addresses on kube-ipvs0", neighbours),
    ] {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{title}:");
            for line in lines {
                let _ = writeln!(out, "  {}", text::line(line));
            }
        }
    }
    if plan.is_empty() {
        out.push_str("\nNothing in the dataplane would change.\n");
    } else {
        let _ = writeln!(
            out,
            "\n{} of the dataplane, {cut} of which {} virtual or real servers that no Service asks for:",
            text::count(plan.ops.len(), "change"),
            if cut == 1 { "removes" } else { "remove" }
        );
        for (count, kind) in summary::kinds(&plan.ops) {
            let _ = writeln!(out, "  {kind}: {count}");
        }
        let _ = write!(out, "\n{}", text(&lines, Output::Table));
    }
    print_text(&out)?;
    Ok(!plan.is_empty())
}

/// What changes for clients of Services with externalTrafficPolicy Local, a line each.
fn policies(desired: &Desired, observed: &State, settings: &Settings) -> Vec<String> {
    let mut out = BTreeSet::new();
    for (service, asked) in desired.contributions() {
        let members = asked
            .frontends
            .iter()
            .flat_map(|frontend| frontend.members.iter().map(move |it| (frontend, it)));
        for (frontend, (set, member)) in members {
            out.extend(match set.role {
                _ if observed.has_member(*set, member) => None,
                SetRole::LocalMark if frontend.kind == FrontendKind::NodePort => Some(format!(
                    "{service}: this node would reach endpoints of other nodes too, through node ports"
                )),
                SetRole::LocalMark => Some(format!(
                    "{service}: pods and this node would reach endpoints of other nodes too"
                )),
                SetRole::LocalClosed if settings.refuses_outside(set.family) => Some(format!(
                    "{service}: clients outside the cluster would be refused, for lack of an endpoint \
                     on this node"
                )),
                _ => None,
            });
        }
    }
    out.into_iter().collect()
}

/// What an operation does: to tables of nftables as one would tell `nft`.
fn words(op: &Op, backend: Backend, there: &State) -> Vec<(char, String)> {
    let rules = match op {
        Op::InstallFirewall(family, _) => there.firewall.get(family),
        _ => None,
    };
    let commands = match backend {
        Backend::Iptables => None,
        Backend::Nftables => nftables::commands(op, rules),
    };
    let Some(commands) = commands else { return vec![(sign(op), op.to_string())] };
    let sign = |line: &str| match line.split(' ').next() {
        Some("add") => '+',
        Some("delete") => '-',
        _ => '~',
    };
    commands.into_iter().map(|line| (sign(&line), line)).collect()
}

fn operations(lines: &[(char, String)]) -> Vec<&str> {
    lines.iter().map(|(_, line)| line.as_str()).collect()
}

fn text(lines: &[(char, String)], output: Output) -> String {
    if output == Output::Json {
        let ops = operations(lines);
        let document = json!({ "same": ops.is_empty(), "changes": ops });
        return format!("{}\n", text::json(&format!("{document:#}")));
    }
    if lines.is_empty() {
        return "the kernel is as the cluster says\n".to_owned();
    }
    let colours = dry_run::style().colour;
    lines.iter().fold(String::new(), |mut out, (sign, line)| {
        let colour = match sign {
            _ if !colours => "",
            '+' => "\x1b[32m",
            '-' => "\x1b[31m",
            _ => "\x1b[33m",
        };
        let end = if colours { "\x1b[0m" } else { "" };
        let _ = writeln!(out, "{colour}{sign} {}{end}", text::line(line));
        out
    })
}

fn sign(op: &Op) -> char {
    match op {
        Op::CreateSet(..)
        | Op::AddMember(..)
        | Op::AddVirtualServer(..)
        | Op::AddRealServer(..)
        | Op::Bind(..) => '+',
        Op::GrowSet(..)
        | Op::SetSysctl(..)
        | Op::TakeLinkDown
        | Op::InstallFirewall(..)
        | Op::SetVirtualServer(..)
        | Op::SetRealServer(..)
        | Op::RenewMembers(..)
        | Op::ForgetFlows(..) => '~',
        Op::Unbind(..)
        | Op::RemoveRealServer(..)
        | Op::RemoveVirtualServer(..)
        | Op::RemoveMember(..)
        | Op::RemoveForeignMembers(..)
        | Op::RemoveForeignAddress(..)
        | Op::RemoveLeftover(..) => '-',
    }
}
