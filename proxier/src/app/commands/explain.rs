//! `proxier explain`: reads the source once and says why; where a proxy runs, what that holds back, too.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::{dry_run, status};
use crate::app::{print_json, print_text, report};
use crate::args::{Args, ExplainArgs, Output};
use crate::config::Config;
use crate::explain::{Explanation, Known, Subject, explain};
use crate::memory::Memory;
use crate::settings::Abilities;
use crate::text;

/// Exit status 1 if any of them cannot be explained.
#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(
    args: &Args,
    config: Config,
    asked: &ExplainArgs,
) -> anyhow::Result<ExitCode> {
    let mut subjects = Vec::new();
    for text in &asked.what {
        subjects.push((text, Subject::parse(text, asked.namespace.as_deref())?));
    }
    let metrics = config.metrics_bind;
    let (reconciler, _source) =
        dry_run::complete(args, config, Abilities::default(), Memory::new()).await?;
    let settings = reconciler.settings().context("nothing was read")?;
    let known = Known { cluster: reconciler.cluster(), desired: reconciler.desired(), settings };
    let held = status::held_back(metrics);
    let mut answers = Vec::new();
    for (text, subject) in &subjects {
        let answer = explain(subject, known).map(|mut answer| {
            let addresses = answer.addresses();
            let of = held.iter().filter(|held| addresses.contains(&held.address));
            answer.held_back = of.map(|held| held.text.clone()).collect();
            answer
        });
        answers.push((text.as_str(), answer));
    }
    if args.own.output == Output::Json {
        let all: Vec<_> = answers.iter().map(|(text, answer)| as_json(text, answer)).collect();
        print_json(
            &json!({ "node": text::name(&settings.place.node).to_string(), "explanations": all }),
        )?;
    } else {
        for (i, (_, answer)) in answers.iter().enumerate() {
            match answer {
                Ok(answer) => print_text(&format!("{}{answer}", if i > 0 { "\n" } else { "" }))?,
                Err(nothing) => report(nothing),
            }
        }
    }
    Ok(ExitCode::from(u8::from(answers.iter().any(|(_, answer)| answer.is_err()))))
}

fn as_json(asked: &str, answer: &Result<Explanation, String>) -> serde_json::Value {
    let mut json = match answer {
        Ok(answer) => json!(answer),
        Err(nothing) => json!({ "error": nothing }),
    };
    json["asked"] = json!(asked);
    json
}
