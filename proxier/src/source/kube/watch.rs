//! One watch: read everything, follow the changes, and begin again where that fails.
//!
//! | the server | the watch |
//! | --- | --- |
//! | ends the stream | asks again from where it was |
//! | breaks the connection | makes sure that the server has not gone back in time, asks again from where it was |
//! | says 410 | reads everything anew, at once |
//! | sends an older resource version, or twice what cannot be read | reads everything anew |
//! | refuses or never ends a streaming list | reads the list in pages, at once, and does so for a day |
//! | sends a page that is too large | asks for smaller ones |
//! | refuses anything else | asks again, at the earliest when `Retry-After` says |
//!
//! How long it waits before it asks again is in [`super::backoff`].

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::backoff::{Backoff, random};
use super::bounds::{self, EMPTY_PAGES, Excess, Pace};
use super::decode::{self, Event};
use super::failure::{Class, Failure};
use super::limit::Limit;
use super::lines::Lines;
use super::outbox::Outbox;
use super::reading::{Reading, Way};
use super::resource::Resource;
use super::server::Server;
use super::{Connection, Options, WatchStatus};
use crate::cluster::{Change, ObjectKey};
use crate::source::objects::{Converter, Lenient, raw};

/// Lines that are taken in before what they say is sent.
const LINES: usize = 1024;

/// What was learned about an object.
enum Seen {
    Exists(Option<ObjectKey>),
    Gone(Option<ObjectKey>),
}

/// Failures in a row after which a position may be given up, in case it is what fails.
const GIVE_UP_POSITION: u32 = 3;

pub(super) struct Watch<'a, R, E> {
    connection: &'a Connection,
    options: &'a Options,
    converter: &'a Converter,
    sender: mpsc::Sender<E>,
    outbox: Outbox<E>,
    status: &'a WatchStatus,

    reading: Reading,
    page_size: u32,
    /// The resource version up to which everything was sent.
    position: Option<String>,
    /// The connection broke: the server may be another one now, with another past.
    doubtful: bool,
    rebuild_at: Instant,
    backoff: Backoff,
    /// When a position was last given up without a wait.
    hurried: Option<Instant>,
    /// The server has sent a bookmark on a quiet stream: it will again.
    sends_bookmarks: bool,
    /// Since when there is a working stream.
    working: Option<Instant>,
    warnings: Limit,
    faults: Limit,
    /// It was said that there is no object.
    said_absent: bool,
    resource: std::marker::PhantomData<R>,
}

impl<'a, R: Resource, E: From<Vec<Change>>> Watch<'a, R, E> {
    pub(super) fn new(
        connection: &'a Connection,
        options: &'a Options,
        converter: &'a Converter,
        sender: mpsc::Sender<E>,
        status: &'a WatchStatus,
    ) -> Self {
        let timing = &options.timing;
        let now = Instant::now();
        Self {
            connection,
            options,
            converter,
            outbox: Outbox::new(sender.clone()),
            sender,
            status,
            reading: Reading::new(),
            page_size: options.page_size,
            position: None,
            doubtful: false,
            rebuild_at: now + timing.rebuild.mul_f64(0.9 + random() / 5.0),
            backoff: Backoff::new(timing.backoff_first, timing.backoff_soon, timing.backoff_most),
            hurried: None,
            sends_bookmarks: false,
            working: None,
            warnings: Limit::new(20, Duration::from_secs(5), now),
            faults: Limit::new(5, Duration::from_secs(30), now),
            said_absent: false,
            resource: std::marker::PhantomData,
        }
    }

    /// Follows the cluster until the receiver is gone.
    pub(super) async fn run(mut self) {
        let sender = self.sender.clone();
        let follow = async {
            loop {
                let Err(failure) = self.session().await;
                self.outbox.discard();
                if matches!(failure, Failure::Receiver) {
                    return;
                }
                let wait = self.failed(&failure);
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = sender.closed() => {}
        }
    }

    /// Learns from a failure. Returns how long to wait.
    fn failed(&mut self, failure: &Failure) -> Duration {
        let timing = &self.options.timing;
        if self.working.take().is_some_and(|since| since.elapsed() >= timing.healthy) {
            self.backoff.reset();
        }
        let text = failure.to_string();
        self.status.fail(text.clone(), failure.is_lasting());
        let listing = self.position.is_none();
        match failure {
            Failure::Gone(_) => {
                self.position = None;
                // The server is there. But one that says so of every position gets no list each time.
                let hurried = self.hurried.is_some_and(|at| at.elapsed() < timing.healthy);
                if !listing && !hurried {
                    self.hurried = Some(Instant::now());
                    tracing::info!(kind = R::KIND, "{text}; reading everything anew");
                    return Duration::ZERO;
                }
            }
            Failure::WentBack { .. } => self.position = None,
            Failure::NoStreaming(_) => {
                self.reading.refused();
                tracing::info!(kind = R::KIND, "{text}; reading the list in pages");
                return Duration::ZERO;
            }
            Failure::Excess(Excess::Page | Excess::Items) if self.page_size > 1 => {
                self.page_size = (self.page_size / 4).max(1);
                let size = self.page_size;
                tracing::info!(kind = R::KIND, "{text}; asking for {size} objects in a page");
                return Duration::ZERO;
            }
            Failure::Lost(_) | Failure::Unreachable(_) | Failure::Stalled(_) => {
                self.doubtful = true;
            }
            Failure::Garbage(_) | Failure::Excess(_) if self.backoff.failures() > 0 => {
                self.position = None;
            }
            _ => {}
        }
        let class = failure.class(listing);
        if self.backoff.failures() >= GIVE_UP_POSITION
            && failure.trusts_position().is_some_and(|time| self.backoff.lasted(class) >= time)
        {
            self.position = None;
        }
        if listing && class != Class::Unreachable {
            self.reading.failed(self.backoff.failures() >= 2);
        }
        let wait = self.backoff.next(class, failure.retry_after(), random());
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

    /// Everything that uses one client.
    async fn session(&mut self) -> Result<Infallible, Failure> {
        let server = Server::connect(self.connection, self.options).await?;
        if self.doubtful && self.position.is_some() {
            self.check_past(&server).await?;
        }
        loop {
            let timing = &self.options.timing;
            if Instant::now() >= self.rebuild_at {
                self.rebuild_at = Instant::now() + timing.rebuild.mul_f64(0.9 + random() / 5.0);
                self.position = None;
                self.page_size = self.options.page_size;
                tracing::debug!(kind = R::KIND, "reading everything anew, as is done now and then");
            }
            let mut lines = match (self.position.clone(), self.reading.way()) {
                (Some(position), _) => server.watch(Some(&position)).await?,
                (None, Way::Streaming) => self.stream(&server).await?,
                (None, Way::Pages) => {
                    let position = self.pages(&server).await?;
                    server.watch(Some(&position)).await?
                }
            };
            let opened = Instant::now();
            self.works();
            self.follow(&mut lines).await?;
            self.status.disconnect();
            // A server that ends every watch at once must not be asked in a tight loop.
            if opened.elapsed() < timing.shortest && Instant::now() < self.rebuild_at {
                return Err(Failure::TooShort(opened.elapsed()));
            }
            if self.working.is_some_and(|since| since.elapsed() >= timing.healthy) {
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
            let Ok(line) = timeout_at(limit.min(self.rebuild_at), lines.next()).await else {
                if Instant::now() >= self.rebuild_at {
                    return Ok(());
                }
                return Err(Failure::Stalled(patience));
            };
            let Some(line) = line? else { return Ok(()) };
            let read = self.take(line);
            let ended = match read {
                Ok(()) => self.read_on(lines).await,
                Err(failure) => Some(Err(failure)),
            };
            self.outbox.flush().await?;
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Takes in what else is there to be read: it belongs to the same event. Returns how the stream
    /// has ended, if it has.
    async fn read_on(&mut self, lines: &mut Lines) -> Option<Result<(), Failure>> {
        for _ in 0..LINES {
            if self.outbox.is_full() {
                break;
            }
            let read = match lines.ready().await? {
                Ok(Some(line)) => self.take(line),
                Ok(None) => return Some(Ok(())),
                Err(failure) => Err(failure),
            };
            if read.is_err() {
                return Some(read);
            }
        }
        None
    }

    /// Takes in a line of a stream.
    fn take(&mut self, line: &[u8]) -> Result<(), Failure> {
        self.status.hear();
        let event = decode::event::<R::Raw>(line)?;
        let version = match &event {
            Event::Put(raw) | Event::Gone(raw) => decode::resource_version(R::metadata(raw)),
            Event::Huge { metadata, .. } => decode::resource_version(metadata),
            Event::Bookmark { resource_version, .. } => {
                self.sends_bookmarks = true;
                Some(&**resource_version)
            }
        };
        let version = self.advance(version)?;
        self.object(event, line.len());
        self.position = Some(version);
        Ok(())
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
    async fn check_past(&mut self, server: &Server<'_, R>) -> Result<(), Failure> {
        let body = server.page(1, None).await?;
        self.status.hear();
        self.advance(Some(&decode::page(&body)?.resource_version))?;
        self.doubtful = false;
        Ok(())
    }

    /// Reads everything as a stream of events; returns the stream, to be followed from there.
    async fn stream(&mut self, server: &Server<'_, R>) -> Result<Lines, Failure> {
        let mut lines = server.watch(None).await.map_err(no_streaming)?;
        let patience = self.options.timing.initial;
        let pace = Pace::new(patience);
        let mut keys = HashSet::new();
        self.outbox.begin_list();
        loop {
            let received = lines.received();
            let line = timeout_at(pace.deadline(received), lines.next()).await;
            let line = line.map_err(|_| {
                Failure::NoStreaming(format!("no end of the list, {}", pace.missed(received)))
            })??;
            let Some(line) = line else {
                return Err(Failure::Garbage(
                    "the end of a stream before its initial events".into(),
                ));
            };
            self.status.hear();
            match decode::event::<R::Raw>(line).map_err(no_streaming)? {
                Event::Bookmark { resource_version, initial_end: true } => {
                    self.listed(keys, resource_version).await?;
                    return Ok(lines);
                }
                Event::Bookmark { initial_end: false, .. } => {
                    return Err(Failure::NoStreaming(
                        "a bookmark before the initial events".into(),
                    ));
                }
                event => match self.object(event, line.len()) {
                    Seen::Exists(key) => keys.extend(key),
                    Seen::Gone(Some(key)) => drop(keys.remove(&key)),
                    Seen::Gone(None) => {}
                },
            }
            bounds::check_count(keys.len())?;
            self.outbox.relieve().await?;
        }
    }

    /// Reads everything in pages; returns the resource version to watch from.
    async fn pages(&mut self, server: &Server<'_, R>) -> Result<String, Failure> {
        let mut keys = HashSet::new();
        let mut next: Option<String> = None;
        let mut empty = 0;
        self.outbox.begin_list();
        loop {
            let body = server.page(self.page_size, next.as_deref()).await?;
            self.status.hear();
            let page = decode::page(&body)?;
            empty = if page.items.is_empty() { empty + 1 } else { 0 };
            for item in page.items {
                if let Seen::Exists(key) = self.object(decode::item(item)?, item.get().len()) {
                    keys.extend(key);
                }
                self.outbox.relieve().await?;
            }
            bounds::check_count(keys.len())?;
            if page.next.is_empty() {
                self.listed(keys, page.resource_version.clone()).await?;
                return Ok(page.resource_version);
            }
            if next.as_ref() == Some(&page.next) {
                return Err(Failure::Garbage("the same page of a list again".into()));
            }
            if empty >= EMPTY_PAGES {
                return Err(Failure::Excess(Excess::EmptyPages));
            }
            next = Some(page.next);
        }
    }

    /// Takes in what an event that so many bytes describe says of an object.
    fn object(&mut self, event: Event<R::Raw>, bytes: usize) -> Seen {
        match event {
            Event::Put(raw) => Seen::Exists(self.put(raw, bytes)),
            Event::Gone(raw) => Seen::Gone(self.gone(R::metadata(&raw))),
            Event::Huge { metadata, gone: true } => Seen::Gone(self.gone(&metadata)),
            Event::Huge { metadata, gone: false } => Seen::Exists(self.huge(&metadata)),
            Event::Bookmark { .. } => Seen::Gone(None),
        }
    }

    /// Takes in an object that so many bytes describe; returns its key.
    fn put(&mut self, raw: R::Raw, bytes: usize) -> Option<ObjectKey> {
        self.status.event();
        if std::mem::take(&mut self.said_absent) {
            tracing::info!("{} {} exists now", R::KIND, self.options.node);
        }
        let metadata = R::metadata(&raw).get();
        let key = metadata.and_then(|metadata| self.converter.key(R::KIND, metadata).ok());
        let converted = R::convert(self.converter, raw);
        for warning in converted.warnings {
            self.warn(&warning);
        }
        for change in converted.changes {
            self.outbox.push(change, bytes);
        }
        key
    }

    /// Takes in an object of which only this was read; returns its key. What is known of it stays.
    fn huge(&mut self, metadata: &Lenient<raw::Metadata>) -> Option<ObjectKey> {
        self.status.event();
        let key = self.converter.key(R::KIND, metadata.get()?);
        match &key {
            Ok(key) => self.warn(&format_args!(
                "{} {key}: it has more than {} list entries and is not read; what was known of it stays",
                R::KIND,
                bounds::ENTRIES
            )),
            Err(warning) => self.warn(warning),
        }
        key.ok()
    }

    fn warn(&mut self, warning: &dyn fmt::Display) {
        self.status.warned(1);
        if let Some(suppressed) = self.warnings.allow(Instant::now()) {
            tracing::warn!(suppressed, "{warning}");
        }
    }

    /// Takes in that an object is gone; returns its key.
    fn gone(&mut self, metadata: &Lenient<raw::Metadata>) -> Option<ObjectKey> {
        self.status.event();
        let key = self.converter.key(R::KIND, metadata.get()?).ok()?;
        if let Some(change) = R::gone(key.clone()) {
            self.outbox.push(change, 0);
        }
        self.say_absent();
        Some(key)
    }

    /// Everything has been read.
    async fn listed(&mut self, keys: HashSet<ObjectKey>, position: String) -> Result<(), Failure> {
        if keys.is_empty() {
            self.say_absent();
        }
        let listed = R::listed(keys.iter().cloned().collect());
        self.outbox.listed(listed, |key| keys.contains(key)).await?;
        self.position = Some(position);
        self.reading.listed();
        self.status.listed();
        Ok(())
    }

    /// Says once that the object is missing without which something does not work.
    fn say_absent(&mut self) {
        if let Some(text) = R::absent(self.options)
            && !std::mem::replace(&mut self.said_absent, true)
        {
            tracing::warn!("{text}");
        }
    }
}

/// A refusal of a streaming list, unless it is one of whatever is asked for.
fn no_streaming(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { code: 401 | 403 | 429, .. } => failure,
        Failure::Refused { .. } | Failure::Gone(_) => Failure::NoStreaming(failure.to_string()),
        other => other,
    }
}

/// Whether one resource version is before another. Those that are no numbers cannot be compared.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
