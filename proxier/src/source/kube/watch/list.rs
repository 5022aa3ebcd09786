//! Reading everything: as a stream, or in pages.

use std::collections::HashSet;

use tokio::time::{Instant, timeout_at};

use super::super::bounds::{self, EMPTY_PAGES, Excess};
use super::super::decode::{self, Event};
use super::super::failure::Failure;
use super::super::lines::Lines;
use super::super::pace::Pace;
use super::super::resource::Resource;
use super::super::server::Server;
use super::Watch;
use super::objects::Seen;
use crate::cluster::{Change, ObjectKey};

impl<R: Resource, E: From<Vec<Change>>> Watch<'_, R, E> {
    /// Reads everything as a stream of events; returns the stream, to be followed from there.
    pub(super) async fn stream(&mut self, server: &Server<'_, R>) -> Result<Lines, Failure> {
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
            bounds::check_count(keys.len()).map_err(Failure::Excess)?;
            self.outbox.relieve().await?;
        }
    }

    /// Reads everything in pages; returns the resource version to watch from.
    pub(super) async fn pages(&mut self, server: &Server<'_, R>) -> Result<String, Failure> {
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
            bounds::check_count(keys.len()).map_err(Failure::Excess)?;
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

    /// Everything has been read.
    async fn listed(&mut self, keys: HashSet<ObjectKey>, position: String) -> Result<(), Failure> {
        if keys.is_empty() {
            self.say_absent();
        }
        let listed = R::listed(keys.iter().cloned().collect());
        self.outbox.listed(listed, &keys).await?;
        self.position = Some(position);
        self.listed = Instant::now();
        for (namespace, count) in self.outbox.left_out() {
            let (kind, namespace) = (R::KIND, crate::text::name(namespace));
            tracing::warn!(kind, %namespace, count, "objects of a namespace are left out for lack of memory");
        }
        self.reading.listed();
        self.status.listed();
        Ok(())
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
