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
//! | has more of one namespace than there is room for | leaves it out, reads everything anew once there is room |
//! | refuses anything else | asks again, at the earliest when `Retry-After` says |
//!
//! How long it waits before it asks again is in [`super::backoff`].

mod list;
mod objects;

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::backoff::{Backoff, random};
use super::bounds::Excess;
use super::decode::{self, Event};
use super::failure::{Class, Failure};
use super::limit::Limit;
use super::lines::Lines;
use super::outbox::Outbox;
use super::reading::{Reading, Way};
use super::resource::Resource;
use super::server::Server;
use super::{Connection, Options, WatchStatus};
use crate::cluster::Change;
use crate::source::objects::Converter;

/// Lines that are taken in before what they say is sent.
const LINES: usize = 1024;

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
    /// When everything was last read.
    listed: Instant,
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
            outbox: Outbox::new(sender.clone(), options.memory / R::SHARE),
            sender,
            status,
            reading: Reading::new(),
            page_size: options.page_size,
            position: None,
            doubtful: false,
            rebuild_at: now + timing.rebuild.mul_f64(0.9 + random() / 5.0),
            listed: now,
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
            if self.outbox.has_room() {
                self.rebuild_at = self.rebuild_at.min(self.listed + timing.again);
            }
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
}

/// Whether one resource version is before another. Those that are no numbers cannot be compared.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
