//! Reads any bytes as what an API server sends.

use futures_util::FutureExt as _;
use kube::client::Body;

use super::decode::{self, Event};
use super::lines::Lines;
use super::outbox::Outbox;
use super::resource::{Resource, Services, Slices, ThisNode};
use crate::cluster::Change;
use crate::source::objects::{Converter, Origin};

/// The changes in a watch of these bytes, read as one of each kind, ended by the lists.
pub(crate) fn watches(bytes: &[u8]) -> Vec<Change> {
    let converter = Converter::new(Origin::Api);
    let mut changes = Vec::new();
    watch::<Services>(bytes, &converter, &mut changes);
    watch::<Slices>(bytes, &converter, &mut changes);
    watch::<ThisNode>(bytes, &converter, &mut changes);
    changes
}

/// Those of the changes for whose objects there is room.
pub(crate) fn with_room(changes: impl Iterator<Item = Change>, most: u64) -> Vec<Change> {
    let (sender, _) = tokio::sync::mpsc::channel::<Vec<Change>>(1);
    let mut outbox = Outbox::new(sender, most);
    changes.for_each(|change| _ = outbox.push(change, 0));
    outbox.pending
}

fn watch<R: Resource>(bytes: &[u8], converter: &Converter, changes: &mut Vec<Change>) {
    let mut lines = Lines::new(Body::from(bytes.to_vec()));
    let mut keys = Vec::new();
    // The body is there: nothing waits.
    while let Some(Ok(Some(line))) = lines.next().now_or_never() {
        match decode::event::<R::Raw>(line) {
            Ok(Event::Put(raw)) => {
                let metadata = R::metadata(&raw).get();
                keys.extend(metadata.and_then(|m| converter.key(R::KIND, m).ok()));
                changes.extend(R::convert(converter, raw).changes);
            }
            Ok(Event::Gone(raw)) => {
                let metadata = R::metadata(&raw).get();
                let key = metadata.and_then(|m| converter.key(R::KIND, m).ok());
                changes.extend(key.and_then(R::gone));
            }
            Ok(Event::Huge { .. } | Event::Bookmark { .. }) => {}
            Err(failure) => drop(failure.to_string()),
        }
    }
    if let Ok(page) = decode::page(bytes) {
        for item in page.items {
            let Ok(Event::Put(raw)) = decode::item::<R::Raw>(item) else { continue };
            let metadata = R::metadata(&raw).get();
            keys.extend(metadata.and_then(|m| converter.key(R::KIND, m).ok()));
            changes.extend(R::convert(converter, raw).changes);
        }
    }
    changes.push(R::listed(keys));
}
