//! Log lines as Kubernetes components write them with `--logging-format=json`: one object a line
//! with `ts` (milliseconds since 1970), `caller`, `msg`, `v` (not for errors), then the event's own
//! fields. `level` comes in addition. Texts are as in lines of text: what reads JSON may show them.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::text;

/// The format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json {
    now: fn() -> SystemTime,
}

/// The fields of an event, in its order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

// === impl Json ===

impl Default for Json {
    fn default() -> Self {
        Self { now: SystemTime::now }
    }
}

impl Json {
    #[cfg(test)]
    pub(super) fn at(now: fn() -> SystemTime) -> Self {
        Self { now }
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);

        let since = (self.now)().duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(out, "{{\"ts\":{}.{:03}", since.as_millis(), since.subsec_micros() % 1000)?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            let file = file.rsplit('/').next().unwrap_or(file);
            write!(out, ",\"caller\":{}", Value::from(format!("{file}:{line}")))?;
        }
        let (level, v) = match *metadata.level() {
            Level::ERROR => ("error", None),
            Level::WARN => ("warn", Some(0)),
            Level::INFO => ("info", Some(0)),
            Level::DEBUG => ("debug", Some(2)),
            Level::TRACE => ("trace", Some(4)),
        };
        write!(out, ",\"level\":\"{level}\",\"msg\":{}", Value::from(fields.message))?;
        if let Some(v) = v {
            write!(out, ",\"v\":{v}")?;
        }
        for (name, value) in fields.others {
            write!(out, ",{}:{value}", Value::from(name))?;
        }
        writeln!(out, "}}")
    }
}

// === impl Fields ===

impl Fields {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            "error" => "err",
            name => name,
        };
        self.others.push((name, value.into()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.message, "{}", text::line(format_args!("{value:?}")));
        } else {
            self.add(field, text::line(format_args!("{value:?}")).to_string());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let value = text::line(value).to_string();
        if field.name() == "message" {
            self.message = value;
        } else {
            self.add(field, value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    /// With all its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, text::chain(value));
    }
}
