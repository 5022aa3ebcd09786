//! The content of all files together, and the differences between two states of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::FileId;
use super::objects::{Content, Object};
use crate::cluster::{Change, ObjectKey, UNDATED};
use crate::source::Warning;
use crate::text;

/// Everything that the manifests say. The objects are those of the files.
#[derive(Debug, Default)]
pub(super) struct World {
    /// `Change::Service` or `Change::ServiceIgnored`.
    services: Objects,
    /// `Change::Slice`.
    slices: Objects,
    /// `Change::Node`.
    node: Option<Arc<Change>>,
    /// The weights of all nodes that have some.
    weights: BTreeMap<ObjectKey, u16>,
    /// Since which state each Service without a date is there, and the number of this state.
    arrived: BTreeMap<ObjectKey, i64>,
    state: i64,
}

type Objects = BTreeMap<ObjectKey, Arc<Change>>;

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

    /// Says which state was before: an undated Service that is in both has what it claims for longer
    /// than one that is new.
    pub(super) fn follow(&mut self, before: &Self) {
        self.state = before.state + 1;
        let undated = |object: &Change| match object {
            Change::Service(service) => service.created == UNDATED,
            _ => false,
        };
        let undated = self.services.iter().filter(|(_, object)| undated(object));
        let since = |key| before.arrived.get(key).copied().unwrap_or(self.state);
        self.arrived = undated.map(|(key, _)| (key.clone(), since(key))).collect();
    }

    /// An object as others are to know it.
    fn fact(&self, object: &Change) -> Change {
        let mut fact = object.clone();
        if let Change::Service(service) = &mut fact
            && let Some(since) = self.arrived.get(&service.key)
        {
            service.created += since;
        }
        fact
    }

    /// Slices that nothing can lead to.
    pub(super) fn slices_without_service(&self) -> Vec<Warning> {
        let warning = |(key, slice): (&ObjectKey, &Arc<Change>)| {
            let service = service_of(slice)?;
            let near = |it: &&ObjectKey| {
                it.namespace() == service.namespace()
                    && text::edits(service.name(), it.name()).is_some()
            };
            let meant = self.services.keys().find(near);
            let meant = meant.map(|it| format!(" (did you mean {it}?)")).unwrap_or_default();
            let text =
                format!("there is no Service {service}{meant}, so nothing leads to its endpoints");
            let is_there = self.services.contains_key(&service);
            (!is_there).then(|| Warning { object: format!("EndpointSlice {key}"), text })
        };
        self.slices.iter().filter_map(warning).collect()
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
        changes.extend(
            new.node
                .as_ref()
                .filter(|node| differs(self.node.as_ref(), node))
                .map(|node| new.fact(node)),
        );
        for (node, weight) in &new.weights {
            if self.weights.get(node) != Some(weight) {
                changes.push(Change::NodeWeight(node.clone(), Some(*weight)));
            }
        }
        let gone = self.weights.keys().filter(|node| !new.weights.contains_key(*node));
        changes.extend(gone.map(|node| Change::NodeWeight(node.clone(), None)));
        for (old, now) in [(&self.services, &new.services), (&self.slices, &new.slices)] {
            let others = now.iter().filter(|(key, object)| differs(old.get(*key), object));
            changes.extend(others.map(|(_, object)| new.fact(object)));
        }
        let gone = self.slices.keys().filter(|key| !new.slices.contains_key(*key));
        changes.extend(gone.cloned().map(Change::SliceGone));
        let gone = self.services.keys().filter(|key| !new.services.contains_key(*key));
        changes.extend(gone.cloned().map(Change::ServiceGone));
        changes
    }
}

/// Most objects are of files that were not read again.
fn differs(old: Option<&Arc<Change>>, new: &Arc<Change>) -> bool {
    old.is_none_or(|old| !Arc::ptr_eq(old, new) && old != new)
}

/// A file and the line in it.
type Place<'a> = (&'a Path, usize);

#[derive(Default)]
struct Merge<'a> {
    node: &'a str,
    world: World,
    /// The slices made of Endpoints, by the Service.
    legacy: BTreeMap<ObjectKey, &'a [Arc<Change>]>,
    /// Where each object was last seen.
    places: BTreeMap<(&'static str, ObjectKey), Place<'a>>,
    warnings: Vec<Warning>,
}

impl<'a> Merge<'a> {
    fn add(&mut self, object: &'a Object, place: Option<Place<'a>>) {
        let (kind, Some(key)) = object.identity() else { return };
        match object {
            Object::Fact(change) => {
                self.seen(kind, &key, place);
                match &**change {
                    Change::SliceGone(_) => {
                        self.world.slices.remove(&key);
                    }
                    Change::Slice(_) => {
                        self.world.slices.insert(key, Arc::clone(change));
                    }
                    _ => {
                        self.world.services.insert(key, Arc::clone(change));
                    }
                }
            }
            Object::Endpoints(slices) => {
                self.seen(kind, &key, place);
                self.legacy.insert(key, slices);
            }
            Object::Node(node) => {
                let Change::Node(of) = &**node else { return };
                match of.weight {
                    Some(weight) => _ = self.world.weights.insert(key.clone(), weight),
                    None => _ = self.world.weights.remove(&key),
                }
                if key.name() == self.node {
                    self.seen(kind, &key, place);
                    self.world.node = Some(Arc::clone(node));
                }
            }
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
        let slices = self.world.slices.values();
        let with_slices: BTreeSet<ObjectKey> =
            slices.filter_map(|slice| service_of(slice)).collect();
        for (service, slices) in self.legacy {
            if !with_slices.contains(&service) {
                for slice in slices {
                    if let Change::Slice(of) = &**slice {
                        self.world.slices.insert(of.key.clone(), Arc::clone(slice));
                    }
                }
            }
        }
        (self.world, self.warnings)
    }
}

fn service_of(slice: &Change) -> Option<ObjectKey> {
    let Change::Slice(slice) = slice else { return None };
    Some(slice.service.clone())
}
