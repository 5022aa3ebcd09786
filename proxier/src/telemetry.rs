//! What is logged, and how: verbosity as kube-proxy's `-v` has it, lines of text or JSON.
//!
//! | `-v` | this program | libraries |
//! | --- | --- | --- |
//! | 0, 1 | `info`: one line for each real change | `warn` |
//! | 2, 3 | `debug`: details of it | `warn` |
//! | 4, 5 | `trace`: every step | `info` |
//! | 6, 7 | `trace` | `debug` |
//! | 8 and more | `trace` | `trace` |
//!
//! Lines are written by a thread of their own. When nobody reads them, they are counted instead.
//!
//! A warning or an error that comes again and again is written once in a while, with a count.
//!
//! `--vmodule` sets another verbosity for single source files, whatever crate they belong to.

mod fields;
mod json;
mod queue;
mod repeats;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogFormat, Logging};
use queue::Queue;
pub(crate) use queue::{flush, powerless_thread};
use repeats::{Limited, OF_THE_DAEMON};

/// Crates whose events are ours.
const OWN: [&str; 3] = ["proxier", "netlink_ipvs", "dummy_iface"];

/// Says at every start that it looks for a cluster in the environment.
const MUTED: &str = "kube_client::client::builder";

type Filter = FilterFn<Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>>;

/// Changes what is logged while the program runs.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<Filter, Registry>);

/// Counts the warnings of a command that were not written.
#[derive(Debug)]
pub struct Quiet(repeats::Counted);

/// Logging cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the log")]
pub struct TelemetryError {
    action: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Logs to standard error from now on. Fails if the process has a log already.
pub fn init(logging: &Logging) -> Result<LogHandle, TelemetryError> {
    let colour = io::stderr().is_terminal();
    let queue = Queue::start(logging.format)
        .map_err(|source| TelemetryError { action: "open", source: source.into() })?;
    let (subscriber, handle) = subscriber(logging, queue, colour);
    subscriber
        .try_init()
        .map_err(|source| TelemetryError { action: "open", source: source.into() })?;
    Ok(handle)
}

/// For commands that print a result: only what is wrong goes to standard error, without times.
pub fn init_quiet() -> Result<Quiet, TelemetryError> {
    let (subscriber, quiet) = quiet(io::stderr, io::stderr().is_terminal());
    subscriber
        .try_init()
        .map_err(|source| TelemetryError { action: "open", source: source.into() })?;
    Ok(quiet)
}

// === impl LogHandle ===

impl LogHandle {
    /// Applies another verbosity. The format stays what it was.
    pub fn apply(&self, logging: &Logging) -> Result<(), TelemetryError> {
        self.0
            .reload(filter(logging))
            .map_err(|source| TelemetryError { action: "change", source: source.into() })
    }
}

// === impl Quiet ===

impl Quiet {
    /// What to say at the end of the command, if something was left out.
    pub fn left_out(&self) -> Option<String> {
        let count = self.0.left_out();
        (count > 0).then(|| format!("{count} more warnings like those above were left out"))
    }
}

fn quiet<W>(writer: W, colour: bool) -> (impl Subscriber + Send + Sync + 'static, Quiet)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let format = tracing_subscriber::fmt::format().with_target(false).without_time();
    let format = Limited::new(format, false, repeats::OF_A_COMMAND);
    let quiet = Quiet(format.counted());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colour)
        .fmt_fields(fields::fields())
        .event_format(format)
        .with_filter(LevelFilter::WARN);
    (tracing_subscriber::registry().with(lines), quiet)
}

fn subscriber<W>(
    logging: &Logging,
    writer: W,
    colour: bool,
) -> (impl Subscriber + Send + Sync + 'static, LogHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(logging));
    let subscriber =
        tracing_subscriber::registry().with(filter).with(lines(logging.format, writer, colour));
    (subscriber, LogHandle(handle))
}

fn lines<S, W>(format: LogFormat, writer: W, colour: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).fmt_fields(fields::fields());
    match format {
        LogFormat::Text => {
            let format = Limited::new(tracing_subscriber::fmt::format(), false, OF_THE_DAEMON);
            lines.with_ansi(colour).event_format(format).boxed()
        }
        LogFormat::Json => {
            let format = Limited::new(json::Json::default(), true, OF_THE_DAEMON);
            lines.event_format(format).boxed()
        }
    }
}

fn filter(logging: &Logging) -> Filter {
    let logging = logging.clone();
    FilterFn::new(Box::new(move |metadata| {
        *metadata.level() <= most(&logging, metadata.target(), metadata.file())
    }))
}

/// The most detailed level that is logged for events of a target in a source file.
fn most(logging: &Logging, target: &str, file: Option<&str>) -> LevelFilter {
    let of_file = file.and_then(|file| {
        let items = logging.vmodule.iter();
        items.filter(|(pattern, _)| names(pattern, file)).map(|(_, verbosity)| *verbosity).next()
    });
    if target == MUTED && of_file.is_none() {
        return LevelFilter::OFF;
    }
    let verbosity = of_file.unwrap_or(logging.verbosity);
    let own = target.split("::").next().is_some_and(|name| OWN.contains(&name));
    let level = match (own, verbosity) {
        (true, 0..=1) | (false, 4..=5) => Level::INFO,
        (true, 2..=3) | (false, 6..=7) => Level::DEBUG,
        (true, _) | (false, 8..) => Level::TRACE,
        (false, _) => Level::WARN,
    };
    level.into()
}

/// Whether a pattern names a source file: by its name without extension, or by its whole path if
/// the pattern has a slash.
fn names(pattern: &str, file: &str) -> bool {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let name =
        if pattern.contains('/') { path } else { path.rsplit('/').next().unwrap_or_default() };
    glob(pattern.as_bytes(), name.as_bytes())
}

/// `*` is any text, `?` any one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ([b'?', pattern @ ..], [_, text @ ..]) => glob(pattern, text),
        ([a, pattern @ ..], [b, text @ ..]) => a == b && glob(pattern, text),
        _ => false,
    }
}
