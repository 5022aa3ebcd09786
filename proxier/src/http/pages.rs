//! The metrics server: metrics, the mode, the configuration, and pages for people.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderValue, LOCATION,
    REFERRER_POLICY,
};
use hyper::{Method, Request, StatusCode};
use tokio::time::Instant;

use super::body::Body;
use super::health::{JSON, Monitor};
use super::metrics::{Reading, Readings};
use super::page::{self, Page};
use super::query::Query;
use super::server::{Handler, Response, not_found, response, text};
use super::time::rfc3339;
use super::view::View;
use super::{Desk, Watch, Watches, metrics};
use crate::config::Config;
use crate::text as shown;

/// Answers at the metrics address.
pub(super) struct MetricsServer {
    monitor: Monitor,
    watches: Option<Watches>,
    desk: Desk,
    readings: Readings,
    /// The arguments of the process.
    arguments: Vec<String>,
}

const NOT_FOR_MACHINES: &str = "Warning: This endpoint is not meant to be machine parseable, has \
    no formatting compatibility guarantees and is for debugging purposes only.";

impl MetricsServer {
    pub(super) fn new(monitor: Monitor, watches: Option<Watches>, desk: Desk) -> Self {
        let arguments = std::env::args_os().skip(1);
        Self {
            monitor,
            watches,
            desk,
            readings: Readings::default(),
            arguments: arguments.map(|text| text.to_string_lossy().into_owned()).collect(),
        }
    }

    fn config(&self) -> Arc<Config> {
        self.monitor.current().config.clone()
    }

    fn paths(&self) -> Vec<&'static str> {
        let mut paths = vec!["/configz", "/healthz", "/healthz/ping", "/metrics", "/proxyMode"];
        paths.extend(["/status", "/status.json"]);
        paths.extend(self.config().flagz.then_some("/flagz"));
        paths.extend(self.config().statusz.then_some("/statusz"));
        paths.sort_unstable();
        paths
    }

    fn statusz(&self) -> String {
        let status = self.monitor.status();
        let up = self.monitor.started().elapsed().unwrap_or_default();
        let mut page = format!("\nproxier statusz\n{NOT_FOR_MACHINES}\n\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(page, "{name}: {}", shown::line(value));
        };
        line("Started", &rfc3339(self.monitor.started()));
        line("Up", &crate::value::GoDuration::from_secs(up.as_secs().cast_signed()));
        line("Version", &env!("CARGO_PKG_VERSION"));
        line("Paths", &self.paths().join(" "));
        line("Node", &self.config().node_name);
        line("Complete", &status.complete);
        line("Synced", &status.synced);
        line("Failing targets", &status.pending);
        line("Services", &status.services);
        line("Virtual servers", &status.virtual_servers);
        line("Real servers", &status.real_servers);
        line("Draining real servers", &status.draining.len());
        line("Conflicts", &status.conflicts.len());
        if let Some(refused) = &self.monitor.current().refused {
            line("Configuration refused", &refused.why);
        }
        for error in status.observe_error.iter().chain(status.errors.iter()) {
            line("Error", error);
        }
        page
    }

    fn flagz(&self) -> String {
        let mut page = format!("\nproxier flagz\n{NOT_FOR_MACHINES}\n\n");
        for argument in &self.arguments {
            let _ = writeln!(page, "{}", shown::line(argument));
        }
        page
    }
}

impl MetricsServer {
    fn watches(&self) -> Vec<Watch> {
        self.watches.as_ref().map(|watches| watches()).unwrap_or_default()
    }

    async fn metrics(&self) -> Response {
        let status = self.monitor.status();
        let out = metrics::render(&self.monitor, &status, &self.watches());
        let config = self.config();
        let body = if self.desk.has_table() && config.service_metrics.any() {
            let (readings, asked) = (self.readings.clone(), Instant::now());
            let lease = self.desk.work(move |table, _| {
                let read = |table| Reading::new(&status, &config.service_metrics, table);
                readings.take(asked, || table.map(read).unwrap_or_default())
            });
            match lease.await {
                Ok(lease) => Body::Pieces(Box::new(metrics::with_services(out, lease))),
                Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error),
            }
        } else {
            out.into_string().into()
        };
        response(StatusCode::OK, metrics::CONTENT_TYPE, body)
    }

    /// What is made of a view, where making it may take its time.
    async fn view<T: Send + 'static>(
        &self,
        query: Option<&str>,
        show: impl FnOnce(&View) -> T + Send + 'static,
    ) -> Result<T, Response> {
        let query = Query::parse(query.unwrap_or_default());
        let (monitor, watches) = (self.monitor.clone(), self.watches());
        let made = self.desk.work(move |table, totals| {
            show(&View::new(&monitor, &watches, (table, totals), query))
        });
        made.await.map_err(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error))
    }

    async fn status_json(&self, query: Option<&str>) -> Result<Response, Response> {
        let json = |view: &View| serde_json::to_string(view).unwrap_or_default();
        let json = self.view(query, move |view| shown::json(&json(view)).into_owned()).await?;
        Ok(response(StatusCode::OK, JSON, json))
    }

    async fn status(&self, query: Option<&str>) -> Result<Response, Response> {
        let Page { html, policy } = self.view(query, page::render).await?;
        let mut page = response(StatusCode::OK, "text/html; charset=utf-8", html);
        let headers = page.headers_mut();
        // Letters, digits and quotes.
        if let Ok(policy) = HeaderValue::from_str(&policy) {
            headers.insert(CONTENT_SECURITY_POLICY, policy);
        }
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(page)
    }
}

/// Whether somebody asks for this node by a name that can be its own. A page of somebody else in a browser on the
/// node, or beside a forwarded port, can give its own name another address and so come here with it: it would
/// then read what is meant for operators. Such names have dots.
fn is_own_name(request: &Request<Incoming>, node: &str) -> bool {
    let Some(host) = request.headers().get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let is_address =
        |text: &str| text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok();
    let (name, _) = host.rsplit_once(':').unwrap_or((host, ""));
    is_address(host)
        || is_address(name.trim_start_matches('[').trim_end_matches(']'))
        || !name.contains('.')
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.eq_ignore_ascii_case(node)
}

/// Whether a browser asks.
fn wants_html(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn see_status() -> Response {
    let mut answer = text(StatusCode::SEE_OTHER, "see /status\n");
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static("/status"));
    answer
}

impl Handler for MetricsServer {
    async fn answer(&self, request: &Request<Incoming>) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        let fine = |body: String| text(StatusCode::OK, body);
        let query = request.uri().query();
        let path = request.uri().path();
        let is_for_people =
            path == "/" || path.starts_with("/status") || path == "/configz" || path == "/flagz";
        if is_for_people && !is_own_name(request, &self.config().node_name) {
            let why = "421: ask for this page by an address, localhost or the name of the node\n";
            return text(StatusCode::MISDIRECTED_REQUEST, why);
        }
        match path {
            "/healthz" | "/healthz/ping" => {
                let verbose = query.is_some_and(|query| query.contains("verbose"));
                fine(if verbose { "[+]ping ok\nhealthz check passed\n" } else { "ok" }.to_owned())
            }
            "/metrics" => self.metrics().await,
            "/" if wants_html(request) => see_status(),
            "/status" => self.status(query).await.unwrap_or_else(|failure| failure),
            "/status.json" => self.status_json(query).await.unwrap_or_else(|failure| failure),
            "/proxyMode" => fine("ipvs".to_owned()),
            "/configz" => {
                let configz = self.config().configz().to_string();
                response(StatusCode::OK, JSON, shown::json(&configz).into_owned())
            }
            "/statusz" if self.config().statusz => fine(self.statusz()),
            "/flagz" if self.config().flagz => fine(self.flagz()),
            _ => not_found(),
        }
    }
}
