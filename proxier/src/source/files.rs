//! Manifests: Services, EndpointSlices, Endpoints and Nodes from files, folders or standard input.
//!
//! [`load`] reads them once, [`Manifests`] also follows them. A document or an object that cannot
//! be used costs only itself and is named in a [`Warning`]; kinds that are not needed are passed
//! over.

mod document;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lint;
mod objects;
mod refresh;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use self::objects::{Content, Source};
pub use self::watch::Folders;
use self::world::World;
use super::objects::{Converter, Origin};
use super::{Change, Warning};
use crate::input;

/// Largest file that is read, and the largest sum of all of them: some 150,000 endpoints as kubectl
/// writes them, and four times as many.
const MAX_BYTES: u64 = 64 << 20;
const MAX_TOTAL: u64 = 256 << 20;
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
    /// Somebody checks these manifests, and wants to hear more.
    checked: bool,
    converter: Converter,
    files: BTreeMap<FileId, Content>,
    /// How large they are together.
    bytes: u64,
    world: World,
    /// Files that are gone, and since when: one that is replaced may be missing for a moment.
    missing: BTreeMap<FileId, tokio::time::Instant>,
    /// Warnings that the last state of all files together gave.
    standing: BTreeSet<Warning>,
    /// Paths that cannot be read now, or not as a whole, with the reason.
    broken: BTreeMap<FileId, String>,
    /// The same for others: the first of them, as one line.
    told: tokio::sync::watch::Sender<Option<String>>,
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
            checked: false,
            converter: Converter::new(Origin::Manifest),
            files: BTreeMap::new(),
            bytes: 0,
            world: World::default(),
            missing: BTreeMap::new(),
            standing: BTreeSet::new(),
            broken: BTreeMap::new(),
            told: tokio::sync::watch::Sender::new(None),
        }
    }

    /// Why not all of what the files say is in force, as long as it is so.
    pub fn broken(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.told.subscribe()
    }

    /// Notes whether a file is as it should be.
    fn note(&mut self, id: &FileId, why: Option<String>) {
        match why {
            Some(why) => self.broken.insert(id.clone(), why),
            None => self.broken.remove(id),
        };
    }

    /// Tells others what was noted.
    fn tell(&mut self) {
        let first = self.broken.iter().next();
        let more = match self.broken.len() {
            0 | 1 => String::new(),
            all => format!(" (and {} more)", all - 1),
        };
        let text = first.map(|((_, path), why)| format!("{}: {why}{more}", path.display()));
        self.told.send_if_modified(|told| {
            let differs = *told != text;
            *told = text;
            differs
        });
    }

    /// The same for somebody who checks manifests: fields that Kubernetes does not know, kinds that are almost
    /// those that are read, and EndpointSlices without their Service are warnings, too.
    pub fn checked(paths: Vec<PathBuf>, node: &str) -> Self {
        Self { checked: true, ..Self::new(paths, node) }
    }

    /// Reads everything for the first time. A file of a folder that cannot be read is left out with a
    /// warning, and so is every file that is too large.
    ///
    /// # Errors
    /// A path that cannot be read.
    pub fn read(&mut self) -> Result<Loaded, Error> {
        let mut warnings = Vec::new();
        for (n, path) in self.paths.clone().into_iter().enumerate() {
            let files = if path.as_os_str() != "-" && path.is_dir() {
                let files = manifests_of(&path)
                    .map_err(|source| Error::Read { path: path.clone(), source })?;
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
                let id = (n, file);
                let bytes = match read_file(&id.1, self.room(&id)) {
                    Ok(bytes) => bytes,
                    // Replaced at this moment: the first refresh finds it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && id.1 != path => {
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::FileTooLarge || id.1 != path => {
                        let text = format!("it is left out: {error}");
                        self.note(&id, Some(text.clone()));
                        warnings.push(Warning { object: id.1.display().to_string(), text });
                        continue;
                    }
                    Err(source) => return Err(Error::Read { path, source }),
                };
                let content = self.content(&id.1, &bytes);
                self.note(&id, content.why_incomplete());
                self.put(id, content);
            }
        }
        for content in self.files.values_mut() {
            warnings.append(&mut content.warnings);
        }
        let (mut world, standing) = World::merge(&self.files, |_| false, &self.node);
        warnings.extend(standing.iter().cloned());
        self.standing = standing.into_iter().collect();
        world.follow(&self.world);
        self.world = world;
        if self.checked {
            warnings.extend(self.world.slices_without_service());
        }
        self.tell();
        Ok(Loaded { changes: self.world.complete(), warnings })
    }

    /// How large a file may be beside the others.
    fn room(&self, id: &FileId) -> u64 {
        let own = self.files.get(id).map_or(0, |content| content.source.bytes());
        MAX_TOTAL.saturating_sub(self.bytes - own)
    }

    fn put(&mut self, id: FileId, content: Content) {
        self.bytes += content.source.bytes();
        self.files.insert(id, content);
    }

    fn remove(&mut self, id: &FileId) -> Option<Content> {
        let content = self.files.remove(id)?;
        self.bytes -= content.source.bytes();
        Some(content)
    }

    fn content(&self, file: &Path, bytes: &[u8]) -> Content {
        let name = if file.as_os_str() == "-" {
            "standard input".to_owned()
        } else {
            file.display().to_string()
        };
        let source = Source::of(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                Content { source, ..objects::read(&name, text, &self.converter, self.checked) }
            }
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

/// Reads a file of at most `most` bytes, and of no more than any file may have.
fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let limit = most.min(MAX_BYTES);
    let bytes = match path.to_str() {
        Some("-") => input::read_stdin(limit),
        _ => input::read(path, limit),
    };
    bytes.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge if most < MAX_BYTES => io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "all manifests together are larger than {} MiB; leave out what is no Service, \
                 EndpointSlice or Node",
                MAX_TOTAL >> 20
            ),
        ),
        io::ErrorKind::FileTooLarge => {
            let text = format!("{error}; split it into several files");
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests;
