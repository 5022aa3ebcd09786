//! `proxier explain`: reads the source once and says why.

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::dry_run;
use crate::args::Args;
use crate::config::Config;
use crate::explain::{Known, Subject, explain};
use crate::settings::Abilities;

#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(args: &Args, config: Config, what: &str) -> anyhow::Result<ExitCode> {
    let subject: Subject = what.parse()?;
    let (reconciler, _source) = dry_run::complete(args, config, Abilities::default()).await?;
    let settings = reconciler.settings().context("nothing was read")?;
    let known = Known { cluster: reconciler.cluster(), desired: reconciler.desired(), settings };
    match explain(&subject, known) {
        Ok(text) => {
            super::print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(nothing) => bail!("{nothing}"),
    }
}
