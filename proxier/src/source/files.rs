//! Manifests: Services, EndpointSlices, Endpoints and Nodes from files, folders or standard input.
//!
//! [`load`] reads them once, [`Manifests`] also follows them. A document or an object that cannot
//! be used costs only itself and is named in a [`Warning`]; kinds that are not needed are passed
//! over.

mod document;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod objects;
mod refresh;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use self::objects::{Content, Source};
pub use self::watch::Folders;
use self::world::World;
use super::objects::{Converter, Origin};
use super::{Change, Warning};

/// Largest file that is read.
const MAX_BYTES: u64 = 256 << 20;
/// The files of a folder that are manifests, as for kubectl.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What manifests say.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The complete content, the lists of it last; or, from a later read, the differences.
    pub changes: Vec<Change>,
    /// What was wrong with it.
    pub warnings: Vec<Warning>,
}

/// Why manifests cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("read manifests from {}", path.display())]
    Read {
        /// As it was given; `-` is standard input.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no notice of changed files.
    #[error("be told of changes to manifests (inotify)")]
    Notify(#[source] io::Error),
}

/// Reads manifests once. A path is a file, a folder (its `*.yaml`, `*.yml` and `*.json`, not those
/// of folders in it) or `-` for standard input. `node` is the name of this node; other nodes are
/// passed over.
///
/// The changes end with the three lists, so that a cluster that applies them is complete.
///
/// # Errors
/// A path that cannot be read. What is wrong inside a file is a warning.
pub fn load(paths: &[PathBuf], node: &str) -> Result<Loaded, Error> {
    Manifests::new(paths.to_vec(), node).read()
}

/// A set of paths and what was last read from them.
#[derive(Debug)]
pub struct Manifests {
    paths: Vec<PathBuf>,
    node: String,
    converter: Converter,
    files: BTreeMap<FileId, Content>,
    world: World,
    /// Files that are gone, and since when: one that is replaced may be missing for a moment.
    missing: BTreeMap<FileId, tokio::time::Instant>,
    /// Warnings that the last state of all files together gave.
    standing: BTreeSet<Warning>,
}

/// A file by the position of the path it was found under and its own path, which is the order in
/// which files override each other.
type FileId = (usize, PathBuf);

impl Manifests {
    /// Reads nothing yet.
    pub fn new(paths: Vec<PathBuf>, node: &str) -> Self {
        Self {
            paths,
            node: node.to_owned(),
            converter: Converter::new(Origin::Manifest),
            files: BTreeMap::new(),
            world: World::default(),
            missing: BTreeMap::new(),
            standing: BTreeSet::new(),
        }
    }

    /// Reads everything for the first time.
    ///
    /// # Errors
    /// A path that cannot be read.
    pub fn read(&mut self) -> Result<Loaded, Error> {
        let mut warnings = Vec::new();
        for (n, path) in self.paths.clone().into_iter().enumerate() {
            let failed = |source| Error::Read { path: path.clone(), source };
            let files = if path.as_os_str() == "-" {
                vec![path.clone()]
            } else if path.is_dir() {
                let files = manifests_of(&path).map_err(failed)?;
                if files.is_empty() {
                    warnings.push(Warning {
                        object: path.display().to_string(),
                        text: "no *.yaml, *.yml or *.json file in this folder".into(),
                    });
                }
                files
            } else {
                vec![path.clone()]
            };
            for file in files {
                let failed = |source| Error::Read { path: file.clone(), source };
                let content = self.content(&file, &read_file(&file).map_err(failed)?);
                self.files.insert((n, file), content);
            }
        }
        for content in self.files.values_mut() {
            warnings.append(&mut content.warnings);
        }
        let (world, standing) = World::merge(&self.files, |_| false, &self.node);
        warnings.extend(standing.iter().cloned());
        self.standing = standing.into_iter().collect();
        self.world = world;
        Ok(Loaded { changes: self.world.complete(), warnings })
    }

    fn content(&self, file: &Path, bytes: &[u8]) -> Content {
        let name = if file.as_os_str() == "-" {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        let source = Source::of(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Content { source, ..objects::read(&name, text, &self.converter) },
            Err(error) => {
                let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
                let text = format!("ignored: it is not UTF-8 text (line {line})");
                let warnings = vec![Warning { object: name, text }];
                Content { warnings, incomplete: true, source, ..Content::default() }
            }
        }
    }
}

/// The manifests directly in a folder, in the order of their names. Hidden ones (such as the
/// folders in which a ConfigMap keeps its versions) are passed over.
fn manifests_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if is_manifest(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)?
    } else {
        std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?
    };
    if read as u64 > MAX_BYTES {
        let text = format!("larger than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
