//! `proxier top`: what goes through Services and endpoints now, by the kernel's counters.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use netlink_ipvs::VirtualServerKey;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::dry_run::{self, Source};
use crate::app::host::counting;
use crate::app::host::marks::Marks;
use crate::app::screen::Screen;
use crate::app::wiring::counters;
use crate::app::{print, print_json, report};
use crate::args::{Args, Output, TopArgs};
use crate::config::Config;
use crate::http::NOT_COUNTED;
use crate::listing::{Measured, ServiceLoad, load_table, loads, total};
use crate::memory::Memory;
use crate::reconcile::Reconciler;
use crate::render::Style;
use crate::settings::Abilities;
use crate::text::{self, chain};

/// As often as the kernel estimates rates.
const PERIOD: Duration = Duration::from_secs(2);

/// Once, or in a terminal until it is interrupted.
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    asked: &TopArgs,
) -> anyhow::Result<ExitCode> {
    let mut marks = Marks::open(&config);
    let mut names = Names::read(args, config).await;
    let json = args.own.output == Output::Json;
    if asked.once || json || !std::io::stdout().is_terminal() {
        let counts = counting::is_on(Path::new("/"));
        names.marked(marks.as_mut()).await?;
        let services = names.services(asked, counts)?;
        if json {
            print_json(&json!({ "counted": counts, "services": services }))?;
        } else {
            for note in notes(counts, &names) {
                report(&note);
            }
            print(&load_table(&services, dry_run::style()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let screen = Screen::open()?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = ticks.tick() => {
                let counts = counting::is_on(Path::new("/"));
                names.marked(marks.as_mut()).await?;
                let services = names.services(asked, counts)?;
                screen.draw(&lines(&notes(counts, &names), &services))?;
            }
            () = names.follow() => {}
        }
    }
}

/// What is to be known about the figures.
fn notes(counts: bool, names: &Names) -> Vec<String> {
    let unnamed = names.source.as_ref().err().map(|why| format!("Services are not named: {why}"));
    let off = (!counts).then(|| NOT_COUNTED.to_owned());
    unnamed.into_iter().chain(off).collect()
}

/// Whose the virtual servers are, kept up to date; without an answer of the source they are still counted.
struct Names {
    source: Result<Box<(Reconciler<Memory>, Source)>, String>,
    /// An address of each virtual server by mark.
    marked: BTreeMap<VirtualServerKey, VirtualServerKey>,
}

impl Names {
    async fn read(args: &Args, config: Config) -> Self {
        let read = dry_run::complete(args, config, Abilities::default(), Memory::new()).await;
        let source = read.map(Box::new).map_err(|error| chain(&*error));
        Self { source, marked: BTreeMap::new() }
    }

    /// Takes in which marks there are now.
    async fn marked(&mut self, marks: Option<&mut Marks>) -> anyhow::Result<()> {
        if let Some(marks) = marks {
            let read = marks.read().await;
            self.marked =
                read.map_err(|error| anyhow!("read the firewall marks: {}", error.text))?;
        }
        Ok(())
    }

    /// Takes in one change, or waits for ever.
    async fn follow(&mut self) {
        if let Ok(source) = &mut self.source {
            let (reconciler, source) = &mut **source;
            if let Some(event) = source.next().await {
                reconciler.take(event);
                reconciler.step().await;
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    fn of(&self, key: &VirtualServerKey) -> Option<(String, String)> {
        let key = match key {
            VirtualServerKey::FirewallMark { .. } => self.marked.get(key)?,
            VirtualServerKey::Address { .. } => key,
        };
        let (reconciler, _) = &**self.source.as_ref().ok()?;
        let (owner, _) = reconciler.desired().owner(key)?;
        let shown = |name: &str| text::name(name).to_string();
        Some((shown(owner.namespace()), shown(owner.name())))
    }

    /// What goes through those that are asked for.
    fn services(&self, asked: &TopArgs, counts: bool) -> anyhow::Result<Vec<ServiceLoad>> {
        let read =
            counters::all().map_err(|error| anyhow!("read the counters of IPVS: {error}"))?;
        let measured: Vec<Measured> = read
            .into_iter()
            .map(|it| Measured {
                service: self.of(&it.server.server.key),
                server: it.server,
                real_servers: it.real_servers,
            })
            .collect();
        let mut services = loads(&measured, counts);
        if asked.namespace.is_some() {
            services.retain(|service| service.namespace == asked.namespace);
        }
        Ok(services)
    }
}

/// A screen of it.
fn lines(notes: &[String], services: &[ServiceLoad]) -> Vec<String> {
    let style = Style { colour: false, ..dry_run::style() };
    let mut lines = vec![format!("{} (Ctrl-C ends)", total(services))];
    lines.extend(notes.iter().map(|note| text::line(note).to_string()));
    lines.push(String::new());
    lines.extend(load_table(services, style).lines().map(str::to_owned));
    lines
}
