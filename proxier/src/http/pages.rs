//! The metrics server: metrics, the mode, the configuration, and two pages for people.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};

use super::health::{JSON, Monitor};
use super::server::{Handler, Response, not_found, response, text};
use super::time::rfc3339;
use super::{Watches, metrics};
use crate::config::Config;

/// Answers at the metrics address.
pub(super) struct MetricsServer {
    config: Arc<Config>,
    monitor: Monitor,
    watches: Option<Watches>,
    started: SystemTime,
    /// The arguments of the process.
    arguments: Vec<String>,
}

const NOT_FOR_MACHINES: &str = "Warning: This endpoint is not meant to be machine parseable, has \
    no formatting compatibility guarantees and is for debugging purposes only.";

impl MetricsServer {
    pub(super) fn new(config: Arc<Config>, monitor: Monitor, watches: Option<Watches>) -> Self {
        let arguments = std::env::args_os().skip(1);
        Self {
            config,
            monitor,
            watches,
            started: SystemTime::now(),
            arguments: arguments.map(|text| text.to_string_lossy().into_owned()).collect(),
        }
    }

    fn paths(&self) -> Vec<&'static str> {
        let mut paths = vec!["/configz", "/healthz", "/healthz/ping", "/metrics", "/proxyMode"];
        paths.extend(self.config.flagz.then_some("/flagz"));
        paths.extend(self.config.statusz.then_some("/statusz"));
        paths.sort_unstable();
        paths
    }

    fn statusz(&self) -> String {
        let status = self.monitor.status();
        let up = self.started.elapsed().unwrap_or_default();
        let mut page = format!("\nproxier statusz\n{NOT_FOR_MACHINES}\n\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(page, "{name}: {value}");
        };
        line("Started", &rfc3339(self.started));
        line("Up", &crate::value::GoDuration::from_secs(up.as_secs().cast_signed()));
        line("Version", &env!("CARGO_PKG_VERSION"));
        line("Paths", &self.paths().join(" "));
        line("Node", &self.config.node_name);
        line("Complete", &status.complete);
        line("Synced", &status.synced);
        line("Failing targets", &status.pending);
        line("Services", &status.services);
        line("Virtual servers", &status.virtual_servers);
        line("Real servers", &status.real_servers);
        line("Draining real servers", &status.draining.len());
        line("Conflicts", &status.conflicts);
        for error in status.observe_error.iter().chain(&status.errors) {
            line("Error", error);
        }
        page
    }

    fn flagz(&self) -> String {
        let mut page = format!("\nproxier flagz\n{NOT_FOR_MACHINES}\n\n");
        page.extend(self.arguments.iter().flat_map(|argument| [argument, "\n"]));
        page
    }
}

impl Handler for MetricsServer {
    async fn answer(&self, request: &Request<Incoming>) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let fine = |body: String| text(StatusCode::OK, body);
        match request.uri().path() {
            "/healthz" | "/healthz/ping" => {
                let verbose = request.uri().query().is_some_and(|query| query.contains("verbose"));
                fine(if verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" }.to_owned())
            }
            "/metrics" => {
                let watches = self.watches.as_ref().map(|watches| watches()).unwrap_or_default();
                let body = metrics::render(&self.monitor, &watches);
                response(StatusCode::OK, metrics::CONTENT_TYPE, body)
            }
            "/proxyMode" => fine("ipvs".to_owned()),
            "/configz" => response(StatusCode::OK, JSON, self.config.configz().to_string()),
            "/statusz" if self.config.statusz => fine(self.statusz()),
            "/flagz" if self.config.flagz => fine(self.flagz()),
            _ => not_found(),
        }
    }
}
