//! `proxier trace`: what becomes of a packet on this node, in the kernel as it is or, with `--dry-run`, as it
//! would be programmed. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use ipnet::IpNet;
use netlink_ipvs::{Family, VirtualServerKey};
use serde_json::json;

use super::{diff, dry_run};
use crate::app::host::{self, Host as Found, facts};
use crate::app::wiring::feed;
use crate::app::{print_json, print_text};
use crate::args::{Args, Output, TraceArgs, TraceClient};
use crate::config::Config;
use crate::dataplane::Settings;
use crate::dataplane::firewall::{Backend, LocalDetector};
use crate::kernel::Kernel;
use crate::kernel::filter::Filter;
use crate::kernel::firewall::Firewall;
use crate::kernel::tables::Tables;
use crate::memory::Memory;
use crate::nftables::TABLE;
use crate::settings::Abilities;
use crate::text;
use crate::trace::{Followed, Host, Machine, Outcome, Packet, Routes, Sender};

/// The client is told that nobody is there.
const EXIT_REFUSED: u8 = 2;
/// It hears nothing.
const EXIT_DROPPED: u8 = 3;
/// No Service takes the packet.
const EXIT_NO_SERVICE: u8 = 4;

/// Exit status: 0 an endpoint is reached, then as above; 1 it is not known.
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    asked: &TraceArgs,
) -> anyhow::Result<ExitCode> {
    let node = text::name(&config.node_name).to_string();
    let (followed, backend, facts) = if args.own.dry_run {
        Box::pin(planned(args, config, asked)).await?
    } else {
        Box::pin(live(config, asked)).await?
    };
    if args.own.output == Output::Json {
        print_json(&as_json(&followed, asked, &node, backend, &facts))?;
    } else {
        print_text(&in_words(&followed, asked, &node, backend, &facts))?;
    }
    Ok(ExitCode::from(match followed.outcome {
        Outcome::Forwarded(_) => 0,
        Outcome::Rejected => EXIT_REFUSED,
        Outcome::Dropped => EXIT_DROPPED,
        Outcome::NotOurs => EXIT_NO_SERVICE,
    }))
}

type Answer = (Followed, Backend, Vec<String>);

/// In the state that the objects ask for.
async fn planned(args: &Args, config: Config, asked: &TraceArgs) -> anyhow::Result<Answer> {
    let backend = config.backend.unwrap_or_default();
    let abilities = Abilities { backend, ..Abilities::default() };
    let (reconciler, _source) = dry_run::complete(args, config, abilities, Memory::new()).await?;
    let settings = reconciler.settings().context("nothing was read")?;
    let addresses = feed::host_addresses(args)?.into_iter().collect();
    let host = Host { addresses, ..Host::default() };
    let pods = reconciler.cluster().node().map(|node| &*node.pod_cidrs).unwrap_or_default();
    let usual = || usual_interface(asked, settings, pods);
    let interface = asked.interface.clone().unwrap_or_else(usual);
    let machine = Machine::of_state(backend, reconciler.desired().state(), host);
    Ok((machine.follow(&packet(asked, &machine, interface, false)), backend, Vec::new()))
}

/// By which interface a client's packets come where nobody can be asked: pods' as they are recognised.
fn usual_interface(asked: &TraceArgs, settings: &Settings, pods: &[IpNet]) -> String {
    const OUTSIDE: &str = "eth0";
    let TraceClient::Address(client) = asked.client else { return String::new() };
    let pods = pods.iter().any(|net| net.contains(&client));
    let detector = settings.firewall.get(&Family::of(client)).map(|options| &options.detector);
    match detector.filter(|_| pods) {
        Some(LocalDetector::Bridge(name)) => name.clone(),
        Some(LocalDetector::InterfacePrefix(prefix)) => format!("{prefix}0"),
        _ => OUTSIDE.to_owned(),
    }
}

/// In the kernel as it is.
async fn live(mut config: Config, asked: &TraceArgs) -> anyhow::Result<Answer> {
    let mut tables = Tables::open().context("open netfilter")?;
    let family = Family::of(asked.place.address.ip());
    // What is in use, whatever this command was started with.
    if config.backend.is_none() && tables.has(TABLE, family)? {
        config.backend = Some(Backend::Nftables);
    }
    let found = Found::look(&config)?;
    let backend = found.filter.backend();
    let text = saved(&found.filter, family)?;
    let families = [family];
    let mut kernel = Kernel::open(found.ipvs, found.filter, families.to_vec())?;
    let state = diff::observe(&mut kernel, &families, &Arc::default(), BTreeMap::new()).await;
    let state = state.map_err(|error| anyhow!(error.text))?;
    let contents = tables.contents().context("read the tables of nftables")?;
    let rules = [(family, (text, contents))].into();
    let root = Path::new("/");
    let host = host_of(root)?;
    let interface = match (&asked.interface, asked.client) {
        (Some(name), _) => name.clone(),
        (None, TraceClient::Node) => String::new(),
        (None, TraceClient::Address(client)) => host.routes.to(client).with_context(|| {
            format!(
                "this node has no route to {client}: --interface says by which one its packets come in"
            )
        })?,
    };
    let bridged = is_bridged(root, &interface, family);
    let machine = Machine::of_rules(&rules, &state, host);
    let followed = machine.follow(&packet(asked, &machine, interface, bridged));
    Ok((followed, backend, facts::find(root, family == Family::Ipv6)))
}

/// The rules of iptables, where its programs are; where they are not, the kernel's list has to do.
fn saved(filter: &Filter, family: Family) -> anyhow::Result<Option<String>> {
    let text = match filter {
        Filter::Iptables(filter) => filter.save_text(family),
        Filter::Nftables(_) => {
            let programs = Firewall::find(host::iptables_directory().as_deref());
            if programs.tools(family).is_err() {
                return Ok(None);
            }
            programs.save_text(family)
        }
    };
    text.map(Some).context("read the rules of iptables")
}

/// A client that has an address of the node is the node.
fn packet(asked: &TraceArgs, machine: &Machine<'_>, interface: String, bridged: bool) -> Packet {
    let from = match asked.client {
        TraceClient::Address(address) if !machine.is_local(address) => {
            Sender::Other { address, interface, bridged }
        }
        _ => Sender::Node,
    };
    let place = asked.place;
    Packet {
        from,
        destination: place.address.ip(),
        port: place.address.port(),
        protocol: place.protocol,
    }
}

fn host_of(root: &Path) -> anyhow::Result<Host> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let addresses: BTreeSet<IpAddr> = dummy_iface::host_addresses()
        .context("read the addresses of this host")?
        .into_iter()
        .filter(|entry| entry.name != crate::dataplane::INTERFACE)
        .map(|entry| entry.address)
        .collect();
    let settings = [
        (Family::Ipv4, "proc/sys/net/ipv4/ip_forward"),
        (Family::Ipv6, "proc/sys/net/ipv6/conf/all/forwarding"),
    ];
    let off = settings.into_iter().filter(|(_, path)| read(path).trim() == "0");
    Ok(Host {
        addresses,
        forwards_not: off.map(|(family, _)| family).collect(),
        conntrack_full: facts::conntrack(root).filter(facts::Tracked::is_full).map(|it| it.most),
        strict_interfaces: facts::strict_interfaces(root),
        routes: Routes::read(&read("proc/net/route"), &read("proc/net/ipv6_route")),
    })
}

/// Whether the frames of this interface pass the firewall as those of a bridge.
fn is_bridged(root: &Path, interface: &str, family: Family) -> bool {
    let setting = match family {
        Family::Ipv4 => "proc/sys/net/bridge/bridge-nf-call-iptables",
        Family::Ipv6 => "proc/sys/net/bridge/bridge-nf-call-ip6tables",
    };
    let called = fs::read_to_string(root.join(setting)).is_ok_and(|text| text.trim() == "1");
    called && root.join("sys/class/net").join(interface).join("bridge").is_dir()
}

fn key(asked: &TraceArgs) -> VirtualServerKey {
    let place = asked.place;
    VirtualServerKey::new(place.address.ip(), place.address.port(), place.protocol)
}

/// What to ask next.
fn then(followed: &Followed, asked: &TraceArgs) -> Option<String> {
    let key = key(asked);
    match followed.outcome {
        Outcome::Forwarded(_) => None,
        Outcome::Rejected => Some(format!("`proxier explain {key}` says why")),
        Outcome::Dropped => followed
            .is_outside_source_ranges()
            .then(|| format!("`proxier explain {key}` says from which sources it may be asked")),
        Outcome::NotOurs => Some(format!(
            "`proxier explain {key}` says whether a Service has it, `proxier diff` whether something of it \
             is missing in the kernel"
        )),
    }
}

fn in_words(
    followed: &Followed,
    asked: &TraceArgs,
    node: &str,
    backend: Backend,
    facts: &[String],
) -> String {
    let mut out = format!("on {node}, rules by {backend}\n{followed}");
    if let Some(then) = then(followed, asked) {
        let _ = writeln!(out, "then: {then}");
    }
    for fact in facts {
        let _ = writeln!(out, "this host: {}", text::line(fact));
    }
    out
}

fn as_json(
    followed: &Followed,
    asked: &TraceArgs,
    node: &str,
    backend: Backend,
    facts: &[String],
) -> serde_json::Value {
    let endpoints: Vec<_> = match &followed.outcome {
        Outcome::Forwarded(servers) => servers
            .iter()
            .map(|(server, masqueraded)| {
                json!({ "address": server.to_string(), "masqueraded": masqueraded })
            })
            .collect(),
        _ => Vec::new(),
    };
    let client = match asked.client {
        TraceClient::Node => "node".to_owned(),
        TraceClient::Address(address) => address.to_string(),
    };
    json!({
        "node": node,
        "backend": backend.to_string(),
        "client": client,
        "destination": key(asked).to_string(),
        "outcome": followed.outcome.name(),
        "endpoints": endpoints,
        "steps": followed.steps,
        "notJudged": followed.doubts,
        "host": facts,
        "then": then(followed, asked),
    })
}
