//! `proxier explain`: reads the source once and says why; where a proxy runs, what that holds back, too.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use super::{dry_run, status};
use crate::app::print;
use crate::args::Args;
use crate::config::Config;
use crate::explain::{Known, Subject, addresses, explain};
use crate::memory::Memory;
use crate::settings::Abilities;

#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    what: &str,
) -> anyhow::Result<ExitCode> {
    let subject: Subject = what.parse()?;
    let metrics = config.metrics_bind;
    let (reconciler, _source) =
        dry_run::complete(args, config, Abilities::default(), Memory::new()).await?;
    let settings = reconciler.settings().context("nothing was read")?;
    let known = Known { cluster: reconciler.cluster(), desired: reconciler.desired(), settings };
    let addresses = addresses(&subject, known.desired);
    match explain(&subject, known) {
        Ok(mut text) => {
            for held in status::held_back(metrics, &addresses) {
                let _ = writeln!(text, "\nnot programmed by the running proxy: {held}");
            }
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(nothing) => bail!("{nothing}"),
    }
}
