//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::reconcile::Histogram;
use crate::text;

/// The media type of the format.
pub(in crate::http) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric's values mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

/// The labels of a sample, as they are written between braces.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Labels(String);

/// Metrics as text.
#[derive(Debug, Default)]
pub(in crate::http) struct Text(String);

// === impl Metric ===

impl Metric {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    pub(super) const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help }
    }
}

// === impl Labels ===

impl Labels {
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// One label.
    pub(super) fn one(name: &str, value: impl Display) -> Self {
        Self::none().and(name, value)
    }

    /// Another label after these.
    pub(super) fn and(mut self, name: &str, value: impl Display) -> Self {
        let value = text::name(value);
        let value =
            value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(self.0, "{comma}{name}=\"{value}\"");
        self
    }
}

impl Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}

// === impl Text ===

impl Text {
    /// A metric and its samples; nothing at all if there are none.
    pub(super) fn samples<V: Display>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        debug_assert_ne!(metric.kind, Kind::Histogram, "{}", metric.name);
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(metric);
        }
        for (labels, value) in samples {
            self.line(metric.name, "", &labels, value);
        }
    }

    /// A metric with one sample without labels.
    pub(super) fn value(&mut self, metric: &Metric, value: impl Display) {
        self.samples(metric, [(Labels::none(), value)]);
    }

    /// A metric and its histograms; nothing at all if there are none.
    pub(super) fn histograms<'a>(
        &mut self,
        metric: &Metric,
        histograms: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        let mut histograms = histograms.into_iter().peekable();
        if histograms.peek().is_some() {
            self.head(metric);
        }
        for (labels, histogram) in histograms {
            for (bound, count) in histogram.buckets() {
                self.line(metric.name, "_bucket", &labels.clone().and("le", bound), count);
            }
            let all = histogram.count();
            self.line(metric.name, "_bucket", &labels.clone().and("le", "+Inf"), all);
            self.line(metric.name, "_sum", &labels, histogram.sum());
            self.line(metric.name, "_count", &labels, all);
        }
    }

    /// One sample of a metric whose head is there.
    pub(super) fn sample(&mut self, metric: &Metric, labels: &Labels, value: impl Display) {
        self.line(metric.name, "", labels, value);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::http) fn into_string(self) -> String {
        self.0
    }

    /// What a metric is, in front of its samples.
    pub(super) fn head(&mut self, metric: &Metric) {
        let Metric { name, help, kind } = metric;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &Labels, value: impl Display) {
        let _ = writeln!(self.0, "{name}{suffix}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped_and_nothing_is_said_of_metrics_without_samples() {
        let metric = Metric::gauge("name", "help");
        let mut text = Text::default();
        text.samples(&metric, Vec::<(Labels, u8)>::new());
        text.samples(&metric, [(Labels::one("a", "q\"b\\n\n").and("c", "\u{1b}[2J"), 0.25)]);
        text.value(&metric, 1e21);
        assert_eq!(
            text.into_string(),
            "# HELP name help\n# TYPE name gauge\nname{a=\"q\\\"b\\\\n\\\\n\",c=\"\\\\u{1b}[2J\"} 0.25\n\
             # HELP name help\n# TYPE name gauge\nname 1000000000000000000000\n"
        );
    }
}
