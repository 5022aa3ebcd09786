//! What an event says of an object, on its way to the outbox.

use std::fmt;

use tokio::time::Instant;

use super::super::bounds;
use super::super::decode::Event;
use super::super::outbox::Known;
use super::super::resource::Resource;
use super::Watch;
use crate::cluster::{Change, ObjectKey};
use crate::source::objects::{Lenient, raw};

/// What was learned about an object.
pub(super) enum Seen {
    Exists(Option<ObjectKey>),
    Gone(Option<ObjectKey>),
}

impl<R: Resource, E: From<Vec<Change>>> Watch<'_, R, E> {
    /// Takes in what an event that so many bytes describe says of an object.
    pub(super) fn object(&mut self, event: Event<R::Raw>, bytes: usize) -> Seen {
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
        let mut known = Known::No;
        for change in converted.changes {
            known = self.outbox.push(change, bytes);
        }
        let key = key.filter(|_| known != Known::No)?;
        if known == Known::LeftOut {
            self.warn(&format_args!(
                "{} {key} is left out: the objects of this namespace need more memory than those of \
                 one namespace may (--memory-limit)",
                R::KIND,
            ));
            return None;
        }
        Some(key)
    }

    /// Takes in an object of which only this was read; returns its key. What is known of it stays.
    fn huge(&mut self, metadata: &Lenient<raw::Metadata>) -> Option<ObjectKey> {
        self.status.event();
        let key = self.converter.key(R::KIND, metadata.get().unwrap_or(&raw::Metadata::default()));
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

    /// Says once that the object is missing without which something does not work.
    pub(super) fn say_absent(&mut self) {
        if let Some(text) = R::absent(self.options)
            && !std::mem::replace(&mut self.said_absent, true)
        {
            tracing::warn!("{text}");
        }
    }
}
