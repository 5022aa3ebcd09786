//! The content of all files together, and the differences between two states of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::FileId;
use super::objects::{Content, Object};
use crate::cluster::{Change, EndpointSlice, Node, ObjectKey};
use crate::source::Warning;

/// Everything that the manifests say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct World {
    /// `Change::Service` or `Change::ServiceIgnored`.
    services: BTreeMap<ObjectKey, Change>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    node: Option<Node>,
}

impl World {
    /// Puts files together, in order. Of an object that is there twice the last one counts. A file
    /// that `is_missing` keeps its place, but no object is called a duplicate of one in it: it may
    /// just have got another name.
    pub(super) fn merge(
        files: &BTreeMap<FileId, Content>,
        is_missing: impl Fn(&FileId) -> bool,
        node: &str,
    ) -> (Self, Vec<Warning>) {
        let mut merge = Merge { node, ..Merge::default() };
        for (id, content) in files {
            let file = (!is_missing(id)).then_some(&*id.1);
            for (line, object) in &content.objects {
                merge.add(object, file.map(|file| (file, *line)));
            }
        }
        merge.finish()
    }

    /// The facts from nothing to this state, ended by the lists.
    pub(super) fn complete(&self) -> Vec<Change> {
        let mut changes = Self::default().differences(self);
        changes.push(Change::ServicesListed(self.services.keys().cloned().collect()));
        changes.push(Change::SlicesListed(self.slices.keys().cloned().collect()));
        changes.push(Change::NodeListed);
        changes
    }

    /// The facts from this state to another one. What appears comes before what goes, so that a
    /// service that moves from one file's object to another's is not without endpoints.
    pub(super) fn differences(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(node) = &new.node
            && self.node.as_ref() != Some(node)
        {
            changes.push(Change::Node(node.clone()));
        }
        for (key, service) in &new.services {
            if self.services.get(key) != Some(service) {
                changes.push(service.clone());
            }
        }
        for (key, slice) in &new.slices {
            if self.slices.get(key) != Some(slice) {
                changes.push(Change::Slice(slice.clone()));
            }
        }
        let gone = self.slices.keys().filter(|key| !new.slices.contains_key(*key));
        changes.extend(gone.cloned().map(Change::SliceGone));
        let gone = self.services.keys().filter(|key| !new.services.contains_key(*key));
        changes.extend(gone.cloned().map(Change::ServiceGone));
        changes
    }
}

/// A file and the line in it.
type Place<'a> = (&'a Path, usize);

#[derive(Default)]
struct Merge<'a> {
    node: &'a str,
    world: World,
    legacy: BTreeMap<ObjectKey, EndpointSlice>,
    /// Where each object was last seen.
    places: BTreeMap<(&'static str, ObjectKey), Place<'a>>,
    warnings: Vec<Warning>,
}

impl<'a> Merge<'a> {
    fn add(&mut self, object: &Object, place: Option<Place<'a>>) {
        match object {
            Object::Fact(change) => match change {
                Change::Service(service) => {
                    self.seen("Service", &service.key, place);
                    self.world.services.insert(service.key.clone(), change.clone());
                }
                Change::ServiceIgnored(key, _) => {
                    self.seen("Service", key, place);
                    self.world.services.insert(key.clone(), change.clone());
                }
                Change::Slice(slice) => {
                    self.seen("EndpointSlice", &slice.key, place);
                    self.world.slices.insert(slice.key.clone(), slice.clone());
                }
                Change::SliceGone(key) => {
                    self.seen("EndpointSlice", key, place);
                    self.world.slices.remove(key);
                }
                _ => {}
            },
            Object::Endpoints(slices) => {
                let slices = slices.iter().filter_map(|change| match change {
                    Change::Slice(slice) => Some(slice),
                    _ => None,
                });
                let mut services = BTreeSet::new();
                for slice in slices.clone() {
                    services.insert(service_of(slice));
                }
                for service in services {
                    self.seen("Endpoints", &service, place);
                    self.legacy.retain(|_, slice| service_of(slice) != service);
                }
                self.legacy.extend(slices.map(|slice| (slice.key.clone(), slice.clone())));
            }
            Object::Node(Change::Node(node)) if *node.name == *self.node => {
                self.seen("Node", &ObjectKey::new("", Arc::clone(&node.name)), place);
                self.world.node = Some(node.clone());
            }
            Object::Node(_) => {}
        }
    }

    fn seen(&mut self, kind: &'static str, key: &ObjectKey, place: Option<Place<'a>>) {
        let Some((file, line)) = place else { return };
        if let Some((before, at)) = self.places.insert((kind, key.clone()), (file, line)) {
            let before = before.display();
            self.warnings.push(Warning {
                object: format!("{kind} {key} ({}, line {line})", file.display()),
                text: format!(
                    "it is also in {before}, line {at}; this one counts, remove one of them"
                ),
            });
        }
    }

    fn finish(mut self) -> (World, Vec<Warning>) {
        let with_slices: BTreeSet<ObjectKey> = self.world.slices.values().map(service_of).collect();
        for (key, slice) in self.legacy {
            if !with_slices.contains(&service_of(&slice)) {
                self.world.slices.insert(key, slice);
            }
        }
        (self.world, self.warnings)
    }
}

fn service_of(slice: &EndpointSlice) -> ObjectKey {
    ObjectKey { namespace: Arc::clone(&slice.key.namespace), name: Arc::clone(&slice.service) }
}
