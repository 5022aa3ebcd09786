//! `status --watch` and `status --wait`: the status again and again.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{ask, exit_status, state, text};
use crate::app::commands::dry_run::style;
use crate::app::screen::Screen;
use crate::app::{input, print};
use crate::args::Output;
use crate::http::State;
use crate::render::{Style, wrapped};
use crate::text as shown;
use crate::text::chain;

/// How often a status is read that is watched.
const WATCH: Duration = Duration::from_secs(2);
/// The same where somebody waits for it.
const WAIT: Duration = Duration::from_millis(500);

/// Shows the status until it is interrupted: in a terminal on a screen of its own, elsewhere whenever something
/// else than times has changed.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn watch(metrics: SocketAddr, output: Output) -> anyhow::Result<ExitCode> {
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("wait for signals")?;
    let table = output != Output::Json;
    let screen = (table && std::io::stdout().is_terminal()).then(Screen::open).transpose()?;
    let mut last = None;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = ticks.tick() => {}
        }
        let status = read(metrics).await;
        let plain = Style { colour: false, ..style() };
        let lines = match &status {
            Ok(status) if table => text(status, plain),
            Ok(status) => format!("{}\n", shown::json(&status.to_string())),
            Err(error) if table => format!("{}\n", chain(&**error)),
            Err(error) => {
                format!("{}\n", shown::json(&json!({ "error": chain(&**error) }).to_string()))
            }
        };
        if let Some(screen) = &screen {
            let lines = wrapped(&lines, plain.width);
            screen.draw(&lines.lines().map(str::to_owned).collect::<Vec<_>>())?;
            continue;
        }
        let now = status.map(|status| without_times(&status)).ok();
        if last.as_ref() != Some(&now) {
            print(&lines)?;
            last = Some(now);
        }
    }
}

/// Waits until the kernel is as it is wanted.
///
/// # Errors
/// It is not after this time; the last reason is said.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn wait(metrics: SocketAddr, most: Duration) -> anyhow::Result<ExitCode> {
    let end = Instant::now() + most;
    let mut last = "nothing answered yet".to_owned();
    loop {
        match timeout_at(end, read(metrics)).await {
            Ok(Ok(status)) => {
                let words = state(&status).to_owned();
                if let Some(State::InSync | State::NeedsAttention) = State::by_words(&words) {
                    print(&format!("{}\n", shown::line(&words)))?;
                    return Ok(exit_status(&status));
                }
                last = shown::line(&words).to_string();
            }
            Ok(Err(error)) => last = chain(&*error),
            Err(_) => {}
        }
        if Instant::now() + WAIT >= end {
            bail!("not in sync after {} s: {last}", most.as_secs());
        }
        tokio::time::sleep(WAIT).await;
    }
}

/// On a thread of its own: the daemon may hang.
async fn read(metrics: SocketAddr) -> anyhow::Result<Value> {
    let body = input::aside(move || ask(metrics, "/status.json?q=%00")).await??;
    serde_json::from_str(&body).context("read the status")
}

/// What does not change by itself.
fn without_times(status: &Value) -> Value {
    match status {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| *name != "time" && !name.to_lowercase().contains("seconds"))
            .map(|(name, value)| (name.clone(), without_times(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_with_time_is_no_change() {
        let status = |up: u32, state: &str| {
            json!({"time": up, "upSeconds": up, "state": state,
                   "watches": [{"silentSeconds": up, "connected": true}]})
        };
        assert_eq!(without_times(&status(1, "in sync")), without_times(&status(2, "in sync")));
        assert_ne!(without_times(&status(1, "in sync")), without_times(&status(1, "unhealthy")));
    }
}
