//! Reads any bytes as a manifest.

use std::path::PathBuf;

use super::Manifests;
use super::world::World;
use crate::cluster::Change;

/// What a manifest of these bytes says, ended by the lists.
pub(crate) fn manifest(bytes: &[u8], node: &str) -> Vec<Change> {
    let mut manifests = Manifests::new(Vec::new(), node);
    let path = PathBuf::from("fuzz.yaml");
    let content = manifests.content(&path, bytes);
    manifests.files.insert((0, path), content);
    let (world, _) = World::merge(&manifests.files, |_| false, node);
    world.complete()
}
