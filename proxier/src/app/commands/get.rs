//! `proxier get`: lists what there is on this node, read once from the source.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;

use super::{dry_run, status};
use crate::app::host::marks::Marks;
use crate::app::{print, print_json, report};
use crate::args::{Args, GetArgs, GetKind, Output};
use crate::config::Config;
use crate::explain::{self, Known, ServiceAccount, Subject};
use crate::listing::{self, Row, names, problems_first, table};
use crate::memory::Memory;
use crate::settings::Abilities;
use crate::text;

#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    asked: &GetArgs,
) -> anyhow::Result<ExitCode> {
    let metrics = config.metrics_bind;
    let marks = match asked.kind {
        GetKind::VirtualServers => Marks::open(&config),
        GetKind::Services | GetKind::Endpoints => None,
    };
    let marked = match marks {
        Some(mut marks) => marks.read().await.map_err(|error| anyhow!(error.text))?,
        None => BTreeMap::new(),
    };
    let (reconciler, _source) =
        dry_run::complete(args, config, Abilities::default(), Memory::new()).await?;
    let settings = reconciler.settings().context("nothing was read")?;
    let known = Known { cluster: reconciler.cluster(), desired: reconciler.desired(), settings };
    let services = services(asked, known)?;
    let held = status::held_back(metrics);
    let output = args.own.output;
    let node = text::name(&settings.place.node).to_string();
    // As in kubectl: one namespace is known to whoever asked for it.
    let namespaced = asked.all_namespaces || !asked.what.is_empty();
    let form = Form { node, output, namespaced };
    match asked.kind {
        GetKind::Services => show(listing::services(&services, &held), &form)?,
        GetKind::Endpoints => show(listing::endpoints(&services), &form)?,
        GetKind::VirtualServers => {
            show(listing::virtual_servers(&services, &held, &marked), &form)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that are asked for.
fn services(asked: &GetArgs, known: Known<'_>) -> anyhow::Result<Vec<ServiceAccount>> {
    if !asked.what.is_empty() {
        let mut found = Vec::new();
        for text in &asked.what {
            let subject = Subject::parse(text, asked.namespace.as_deref())?;
            let answer = explain::explain(&subject, known).map_err(|none| anyhow!(none))?;
            if answer.services.is_empty() {
                // An address that several have.
                let owners: BTreeSet<&str> = answer.found.iter().map(|it| &*it.service).collect();
                for owner in owners {
                    let of = explain::explain(&Subject::parse(owner, None)?, known);
                    found.extend(of.map_err(|none| anyhow!(none))?.services);
                }
            }
            found.extend(answer.services);
        }
        return Ok(found);
    }
    if asked.all_namespaces {
        return Ok(explain::services(None, known));
    }
    let namespace = asked.namespace.as_deref().unwrap_or(Subject::NAMESPACE);
    let found = explain::services(Some(namespace), known);
    let all = known.cluster.services().len();
    if found.is_empty() && all > 0 {
        let meant = explain::namespace(namespace, known.cluster);
        let namespace = text::name(namespace);
        let none = format!("no Service is in namespace {namespace}{meant}; -A lists all {all}");
        // The default namespace is often empty; one that was named is not.
        if asked.namespace.is_some() {
            bail!(none);
        }
        report(&none);
    }
    Ok(found)
}

/// How rows are shown.
struct Form {
    node: String,
    output: Output,
    /// Whether a table says of which namespace each row is.
    namespaced: bool,
}

fn show<R: Row>(rows: Vec<R>, form: &Form) -> anyhow::Result<()> {
    let rows = problems_first(rows);
    let document = || json!({ "node": form.node, (R::NAME): rows });
    match form.output {
        Output::Json => print_json(&document()),
        Output::Yaml => {
            let yaml = serde_saphyr::to_string(&document()).context("write YAML")?;
            print(&yaml)
        }
        Output::Name => print(&names(&rows)),
        output => {
            let wide = output == Output::Wide;
            print(&table(&rows, form.namespaced, wide, dry_run::style()))
        }
    }
}
