//! One watch: read everything, follow the changes, and begin again where that fails.
//!
//! | the server | the watch |
//! | --- | --- |
//! | ends the stream | asks again from where it was |
//! | breaks the connection | backs off, makes sure that the server has not gone back in time, asks again from where it was |
//! | says 410, sends an older resource version, or twice what cannot be read | backs off, reads everything anew |
//! | refuses or never ends a streaming list | reads the list in pages |
//! | refuses anything else | backs off, at least as long as `Retry-After` says |

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::backoff::{Backoff, random};
use super::decode::{self, ApiStatus, Event, Page};
use super::failure::Failure;
use super::limit::Limit;
use super::lines::{self, Lines};
use super::resource::Resource;
use super::{Connection, Options, WatchStatus};
use crate::cluster::{Change, ObjectKey};
use crate::source::objects::Converter;

/// Failures in a row after which a position is given up, in case it is what fails.
const GIVE_UP_POSITION: u32 = 3;

/// How everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// `sendInitialEvents`: the server streams objects as it streams events.
    Streaming,
    /// Lists with `limit` and `continue`.
    Pages,
}

pub(super) struct Watch<'a, R, E> {
    connection: &'a Connection,
    options: &'a Options,
    converter: &'a Converter,
    changes: mpsc::Sender<E>,
    status: &'a WatchStatus,
    request: Request,
    labels: Option<String>,
    fields: Option<String>,

    strategy: Strategy,
    /// The resource version up to which everything was sent.
    position: Option<String>,
    /// The connection broke: the server may be another one now, with another past.
    doubtful: bool,
    rebuild_at: Instant,
    backoff: Backoff,
    /// The server has sent a bookmark on a quiet stream: it will again.
    sends_bookmarks: bool,
    /// Since when there is a working stream.
    working: Option<Instant>,
    warnings: Limit,
    faults: Limit,
    resource: std::marker::PhantomData<R>,
}

impl<'a, R: Resource, E: From<Change>> Watch<'a, R, E> {
    pub(super) fn new(
        connection: &'a Connection,
        options: &'a Options,
        converter: &'a Converter,
        changes: mpsc::Sender<E>,
        status: &'a WatchStatus,
    ) -> Self {
        let (labels, fields) = R::selectors(&options.node);
        let timing = &options.timing;
        let now = Instant::now();
        Self {
            connection,
            options,
            converter,
            changes,
            status,
            request: Request::new(R::PATH),
            labels,
            fields,
            strategy: Strategy::Streaming,
            position: None,
            doubtful: false,
            rebuild_at: now + timing.rebuild.mul_f64(0.9 + random() / 5.0),
            backoff: Backoff::new(timing.backoff_first, timing.backoff_most),
            sends_bookmarks: false,
            working: None,
            warnings: Limit::new(20, Duration::from_secs(5), now),
            faults: Limit::new(5, Duration::from_secs(30), now),
            resource: std::marker::PhantomData,
        }
    }

    /// Follows the cluster until the receiver is gone.
    pub(super) async fn run(mut self) {
        loop {
            let Err(failure) = self.session().await;
            if matches!(failure, Failure::Receiver) {
                return;
            }
            let wait = self.failed(&failure);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changes.closed() => return,
            }
        }
    }

    /// Learns from a failure. Returns how long to wait.
    fn failed(&mut self, failure: &Failure) -> Duration {
        let timing = &self.options.timing;
        if self.working.take().is_some_and(|since| since.elapsed() >= timing.healthy) {
            self.backoff.reset();
        }
        let text = failure.to_string();
        self.status.fail(text.clone());
        match failure {
            Failure::Gone(_) | Failure::WentBack { .. } => self.position = None,
            Failure::NoStreaming(_) => {
                self.strategy = Strategy::Pages;
                tracing::info!(kind = R::KIND, "{text}; reading the list in pages");
                return Duration::ZERO;
            }
            Failure::Lost(_) | Failure::Stalled(_) => self.doubtful = true,
            Failure::Garbage(_) if self.backoff.failures() > 0 => self.position = None,
            _ => {}
        }
        if matches!(failure, Failure::Refused { .. } | Failure::TooShort(_))
            && self.backoff.failures() >= GIVE_UP_POSITION
        {
            self.position = None;
        }
        // One of the two ways may work where the other one does not.
        if self.position.is_none() && self.backoff.failures() >= 2 {
            self.strategy = match self.strategy {
                Strategy::Streaming => Strategy::Pages,
                Strategy::Pages => Strategy::Streaming,
            };
        }
        let wait = self.backoff.next(failure.retry_after(), random());
        // The first failure after something that worked, then now and then.
        if self.backoff.failures() == 1 || self.faults.allow(Instant::now()).is_some() {
            tracing::warn!(
                kind = R::KIND,
                failures = self.backoff.failures(),
                "the watch failed, the last complete state is kept; next attempt in {wait:.1?}: {text}"
            );
        }
        wait
    }

    /// The stream works.
    fn works(&mut self) {
        if self.working.is_none() {
            self.working = Some(Instant::now());
            if self.backoff.failures() > 0 {
                let failures = self.backoff.failures();
                tracing::info!(kind = R::KIND, failures, "the watch works again");
            }
        }
        self.doubtful = false;
        self.status.connect();
    }

    /// Everything that uses one client. A new one after each failure reads certificates, tokens
    /// and names anew.
    async fn session(&mut self) -> Result<Infallible, Failure> {
        let client = self.connection.client().await;
        let client = client.map_err(|error| Failure::Lost(anyhow::Error::new(error)))?;
        if self.doubtful && self.position.is_some() {
            self.check_past(&client).await?;
        }
        loop {
            let timing = &self.options.timing;
            if Instant::now() >= self.rebuild_at {
                self.rebuild_at = Instant::now() + timing.rebuild.mul_f64(0.9 + random() / 5.0);
                self.position = None;
                self.strategy = Strategy::Streaming;
                tracing::debug!(kind = R::KIND, "reading everything anew, as is done now and then");
            }
            let shortest = timing.shortest;
            let mut lines = match (&self.position, self.strategy) {
                (Some(position), _) => {
                    let position = position.clone();
                    self.open(&client, &position, false).await?
                }
                (None, Strategy::Streaming) => self.stream(&client).await?,
                (None, Strategy::Pages) => {
                    let position = self.pages(&client).await?;
                    self.open(&client, &position, false).await?
                }
            };
            let opened = Instant::now();
            self.works();
            self.follow(&mut lines).await?;
            self.status.disconnect();
            // A server that ends every watch at once must not be asked in a tight loop.
            if opened.elapsed() < shortest && Instant::now() < self.rebuild_at {
                return Err(Failure::TooShort(opened.elapsed()));
            }
            if self.working.is_some_and(|since| since.elapsed() >= self.options.timing.healthy) {
                self.backoff.reset();
            }
        }
    }

    /// Follows a stream until the server ends it, or until it is time to read everything anew.
    async fn follow(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        let timing = &self.options.timing;
        let longest = timing.watch + timing.answer;
        loop {
            let patience =
                if self.sends_bookmarks { timing.bookmarks.min(longest) } else { longest };
            let limit = Instant::now() + patience;
            let line = tokio::select! {
                line = timeout_at(limit.min(self.rebuild_at), lines.next()) => line,
                () = self.changes.closed() => return Err(Failure::Receiver),
            };
            let Ok(line) = line else {
                if Instant::now() >= self.rebuild_at {
                    return Ok(());
                }
                return Err(Failure::Stalled(patience));
            };
            let Some(line) = line? else { return Ok(()) };
            self.status.hear();
            match decode::event::<R::Raw>(line)? {
                Event::Put(raw) => {
                    let version = self.advance(decode::resource_version(R::metadata(&raw)))?;
                    self.put(raw).await?;
                    self.position = Some(version);
                }
                Event::Gone(raw) => {
                    let version = self.advance(decode::resource_version(R::metadata(&raw)))?;
                    self.gone(&raw).await?;
                    self.position = Some(version);
                }
                Event::Bookmark { resource_version, .. } => {
                    self.sends_bookmarks = true;
                    self.position = Some(self.advance(Some(&resource_version))?);
                }
            }
        }
    }

    /// Checks that the server goes forward. Resource versions of one kind are comparable and rise
    /// along a watch (KEP-5504); one that falls is an older event that came late, or a database
    /// that was restored. In both cases only reading everything anew gives the truth.
    fn advance(&self, to: Option<&str>) -> Result<String, Failure> {
        let Some(to) = to else {
            return Err(Failure::Garbage("an object without a resource version".into()));
        };
        match &self.position {
            Some(from) if is_older(to, from) => {
                Err(Failure::WentBack { from: from.clone(), to: to.to_owned() })
            }
            _ => Ok(to.to_owned()),
        }
    }

    /// Asks how far the server is. One that is behind this watch would accept its position and
    /// then say nothing until it has caught up.
    async fn check_past(&mut self, client: &Client) -> Result<(), Failure> {
        let parameters = ListParams { limit: Some(1), ..self.list_parameters() };
        let page = self.page(client, &parameters).await?;
        self.advance(Some(&page.resource_version))?;
        self.doubtful = false;
        Ok(())
    }

    /// Reads everything as a stream of events; returns the stream, to be followed from there.
    async fn stream(&mut self, client: &Client) -> Result<Lines, Failure> {
        let mut lines = self.open(client, "", true).await.map_err(|failure| match failure {
            Failure::Refused { code: code @ (400 | 422), text, .. } => {
                Failure::NoStreaming(format!("the server refused with {code}: {text}"))
            }
            other => other,
        })?;
        let patience = self.options.timing.initial;
        let mut keys = HashSet::new();
        loop {
            let line = timeout(patience, lines.next()).await.map_err(|_| {
                Failure::NoStreaming(format!("no end of the initial events for {patience:?}"))
            })??;
            let Some(line) = line else {
                return Err(Failure::Garbage(
                    "the end of a stream before its initial events".into(),
                ));
            };
            self.status.hear();
            match decode::event::<R::Raw>(line)? {
                Event::Put(raw) => keys.extend(self.put(raw).await?),
                Event::Gone(raw) => {
                    if let Some(key) = self.gone(&raw).await? {
                        keys.remove(&key);
                    }
                }
                Event::Bookmark { resource_version, initial_end: true } => {
                    self.listed(keys, resource_version).await?;
                    return Ok(lines);
                }
                Event::Bookmark { initial_end: false, .. } => {
                    return Err(Failure::NoStreaming(
                        "a bookmark before the initial events".into(),
                    ));
                }
            }
        }
    }

    /// Reads everything in pages; returns the resource version to watch from.
    async fn pages(&mut self, client: &Client) -> Result<String, Failure> {
        let mut keys = HashSet::new();
        let mut parameters = self.list_parameters();
        loop {
            let page = self.page(client, &parameters).await?;
            for raw in page.items {
                keys.extend(self.put(raw).await?);
            }
            if page.next.is_empty() {
                self.listed(keys, page.resource_version.clone()).await?;
                return Ok(page.resource_version);
            }
            if parameters.continue_token.as_ref() == Some(&page.next) {
                return Err(Failure::Garbage("the same page of a list again".into()));
            }
            parameters.continue_token = Some(page.next);
        }
    }

    fn list_parameters(&self) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(self.options.page_size),
            ..ListParams::default()
        }
    }

    async fn page(
        &self,
        client: &Client,
        parameters: &ListParams,
    ) -> Result<Page<R::Raw>, Failure> {
        let request = self.request.list(parameters).map_err(anyhow::Error::new);
        let body = self.ask(client, request.map_err(Failure::Lost)?).await?;
        let body = lines::whole(body, self.options.timing.answer).await?;
        self.status.hear();
        decode::page(&body)
    }

    /// Opens a watch.
    async fn open(&self, client: &Client, from: &str, initial: bool) -> Result<Lines, Failure> {
        let seconds = self.options.timing.watch.mul_f64(0.9 + random() / 10.0).as_secs();
        let parameters = WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX)),
            bookmarks: true,
            send_initial_events: initial,
        };
        let request = self.request.watch(&parameters, from).map_err(anyhow::Error::new);
        Ok(Lines::new(self.ask(client, request.map_err(Failure::Lost)?).await?))
    }

    /// Sends a request; returns the body of an answer of success.
    async fn ask(
        &self,
        client: &Client,
        request: hyper::Request<Vec<u8>>,
    ) -> Result<Body, Failure> {
        let patience = self.options.timing.answer;
        self.options.rate.turn().await;
        let answer = tokio::select! {
            answer = timeout(patience, client.send(request.map(Body::from))) => answer,
            () = self.changes.closed() => return Err(Failure::Receiver),
        };
        let answer = answer.map_err(|_| Failure::Stalled(patience))?.map_err(|error| {
            Failure::Lost(anyhow::Error::new(error).context("reach the API server"))
        })?;
        if answer.status() == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let code = answer.status().as_u16();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| Some(Duration::from_secs(value.to_str().ok()?.trim().parse().ok()?)));
        let body = lines::whole(answer.into_body(), patience).await.unwrap_or_default();
        let mut status = ApiStatus::parse(&body);
        status.code = code;
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
            text.trim().clone_into(&mut status.message);
        }
        Err(Failure::from_status(status, retry_after))
    }

    /// Sends an object; returns its key.
    async fn put(&mut self, raw: R::Raw) -> Result<Option<ObjectKey>, Failure> {
        self.status.event();
        let key = match R::metadata(&raw).get() {
            Some(metadata) => self.converter.key(R::KIND, metadata).ok(),
            None => None,
        };
        let converted = R::convert(self.converter, raw);
        self.status.warned(converted.warnings.len());
        for warning in converted.warnings {
            if let Some(suppressed) = self.warnings.allow(Instant::now()) {
                tracing::warn!(suppressed, "{warning}");
            }
        }
        for change in converted.changes {
            self.send(change).await?;
        }
        Ok(key)
    }

    /// Sends that an object is gone; returns its key.
    async fn gone(&mut self, raw: &R::Raw) -> Result<Option<ObjectKey>, Failure> {
        self.status.event();
        let Some(metadata) = R::metadata(raw).get() else { return Ok(None) };
        let Ok(key) = self.converter.key(R::KIND, metadata) else { return Ok(None) };
        if let Some(change) = R::gone(key.clone()) {
            self.send(change).await?;
        }
        Ok(Some(key))
    }

    /// Everything has been read.
    async fn listed(&mut self, keys: HashSet<ObjectKey>, position: String) -> Result<(), Failure> {
        self.send(R::listed(keys.into_iter().collect())).await?;
        self.position = Some(position);
        self.status.listed();
        Ok(())
    }

    async fn send(&self, change: Change) -> Result<(), Failure> {
        self.changes.send(change.into()).await.map_err(|_| Failure::Receiver)
    }
}

/// Whether one resource version is before another. Those that are no numbers cannot be compared.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
