//! The program: its commands, the host it runs on, and the wiring of sources, loop and servers.
//! Nothing else knows concrete types.

mod commands;
mod host;
mod screen;
mod wiring;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use self::commands::{
    cleanup, daemon, diff, dry_run, explain, get, report, status, top, trace, version,
};
use self::host::privileges;
use self::wiring::ending;
use crate::args::{Action, Args, ArgsError, completion};
use crate::config::{Config, ConfigError, Host};
use crate::input;
use crate::render;
use crate::source::kube::Error as ConnectionError;
use crate::telemetry::{self, LogHandle};
use crate::text::{self, chain};

/// The command line or the configuration cannot be used (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Says what is wrong with the arguments, or how they are meant.
pub fn usage(error: &ArgsError) -> ExitCode {
    let status = error.exit_status();
    // Nobody is left to tell if this fails.
    let _ = if status == 0 {
        write!(std::io::stdout(), "{error}")
    } else {
        write!(std::io::stderr(), "{error}")
    };
    ExitCode::from(status)
}

/// Does what the arguments ask for. Errors are printed, once, with their causes.
pub fn run(args: &Args) -> ExitCode {
    let result = act(args);
    telemetry::flush();
    match result {
        Ok(code) => code,
        Err(error) => {
            let kernel = needs_kernel(args);
            report(&if kernel { kernel_failure(&error) } else { chain(&*error) });
            ExitCode::from(if is_usage(&error) { EXIT_USAGE } else { 1 })
        }
    }
}

/// Whether the kernel is read or written, which takes privileges.
fn needs_kernel(args: &Args) -> bool {
    match args.action() {
        Action::Run | Action::HandOver | Action::InitOnly | Action::Cleanup | Action::Top(_) => {
            true
        }
        Action::Trace(_) => !args.own.dry_run,
        _ => false,
    }
}

/// Why something that needs the kernel has failed. Without `NET_ADMIN` the first thing that fails is often
/// something else.
fn kernel_failure(error: &anyhow::Error) -> String {
    let text = chain(&**error);
    if is_usage(error) || text.contains("CAP_NET_ADMIN") || privileges::may_program() {
        return text;
    }
    format!("{text}; this process has no CAP_NET_ADMIN: run it as root")
}

/// A configuration or a kubeconfig that cannot be used.
fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || matches!(cause.downcast_ref(), Some(ConnectionError::Kubeconfig { .. }))
    })
}

fn act(args: &Args) -> anyhow::Result<ExitCode> {
    let action = args.action();
    match action {
        Action::Version { raw } => {
            let prefix = if raw { "" } else { "proxier v" };
            print(&format!("{prefix}{}\n", version::VERSION))?;
            return Ok(ExitCode::SUCCESS);
        }
        Action::Build => return version::run(args.own.output),
        Action::Completion(shell) => {
            print(&completion(shell))?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    if matches!(action, Action::Run | Action::HandOver) {
        // Before anything is read that could hang.
        ending::guard()?;
    }
    let config = match input::waited(|| Config::load(args, &Host)) {
        // The daemon that runs has another one.
        Err(error) if let Action::Status(asked) = &action => {
            return status::without(args, asked, error);
        }
        config => config?,
    };
    if matches!(action, Action::Run | Action::HandOver | Action::InitOnly) {
        let log = telemetry::init(&config.logging)?;
        return carry_out(action, args, config, Some(log));
    }
    let quiet = telemetry::init_quiet()?;
    let result = carry_out(action, args, config, None);
    if let Some(text) = quiet.left_out() {
        report(&text);
    }
    result
}

fn carry_out(
    action: Action,
    args: &Args,
    config: Config,
    log: Option<LogHandle>,
) -> anyhow::Result<ExitCode> {
    if action.uses_whole_configuration() {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
    }
    match action {
        Action::Version { .. } | Action::Build | Action::Completion(_) => {
            unreachable!("answered above")
        }
        Action::WriteConfig(path) => {
            let text = config.to_yaml()?;
            std::fs::write(&path, text)
                .with_context(|| format!("write the configuration to {}", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::DryRun { watch } => dry_run::run(args, config, watch),
        Action::InitOnly => daemon::init_only(&config),
        Action::Run | Action::HandOver => daemon::run(args, config, log.context("a log")?),
        Action::Diff => Ok(diff::run(args, config)),
        Action::Cleanup => cleanup::run(args),
        Action::Explain(asked) => explain::run(args, config, &asked),
        Action::Get(asked) => get::run(args, config, &asked),
        Action::Report => report::run(args, config),
        Action::Top(asked) => top::run(args, config, &asked),
        Action::Trace(asked) => trace::run(args, config, &asked),
        Action::MigrateCheck => Ok(diff::check_migration(args, config)),
        Action::Status(asked) => status::run(args, &config, &asked),
    }
}

/// Prints to standard output; a reader that has gone away is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints text for people: in a terminal, what is too wide for it goes on below.
fn print_text(text: &str) -> anyhow::Result<()> {
    print(&render::wrapped(text, dry_run::style().width))
}

/// Prints a JSON document, in which every character may be shown.
fn print_json(document: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{}\n", text::json(&format!("{document:#}"))))
}

/// One line on standard error.
fn report(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "proxier: {}", text::line(text));
}
