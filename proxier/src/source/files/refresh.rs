//! Reading again what may have changed.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::objects::{Content, Source};
use super::world::World;
use super::{FileId, Loaded, Manifests, Warning, manifests_of, read_file};

/// How long a file may be missing before its objects are gone: an editor that replaces a file may
/// move the old one away first.
pub(super) const MISSING: Duration = Duration::from_secs(1);

/// What has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    /// Everything.
    All,
    /// These files, and those that are symbolic links: what they lead to may be another file now.
    Some(BTreeSet<PathBuf>),
}

impl Touched {
    pub(super) fn nothing() -> Self {
        Self::Some(BTreeSet::new())
    }

    fn includes(&self, file: &Path) -> bool {
        match self {
            Self::All => true,
            Self::Some(files) => files.contains(file) || file.is_symlink(),
        }
    }
}

impl Manifests {
    /// Reads what was touched; returns the differences. What cannot be read keeps its last state.
    pub(super) fn refresh(&mut self, touched: &Touched, now: Instant) -> Loaded {
        let mut warnings = Vec::new();
        let mut present = HashSet::new();
        for (n, path) in self.paths.clone().into_iter().enumerate() {
            match self.present(n, &path) {
                Ok(files) => {
                    // Whether a file by itself is as it should be says whoever reads it.
                    let id = (n, path);
                    if !files.contains(&id) {
                        self.note(&id, None);
                    }
                    present.extend(files);
                }
                Err(error) => {
                    present.extend(self.files.keys().filter(|(of, _)| *of == n).cloned());
                    let object = path.display().to_string();
                    let text = format!("cannot be listed, what it said is kept: {error}");
                    self.note(&(n, path), Some(text.clone()));
                    warnings.push(Warning { object, text });
                }
            }
        }
        for id in &present {
            self.missing.remove(id);
            if touched.includes(&id.1) && id.1.as_os_str() != "-" {
                self.reread(id, &mut warnings);
            }
        }
        let gone: Vec<FileId> =
            self.files.keys().filter(|id| !present.contains(*id)).cloned().collect();
        for id in gone {
            let since = *self.missing.entry(id.clone()).or_insert(now);
            if now.saturating_duration_since(since) >= MISSING {
                self.missing.remove(&id);
                self.note(&id, None);
                self.remove(&id);
            }
        }

        let (mut world, standing) =
            World::merge(&self.files, |id| self.missing.contains_key(id), &self.node);
        let standing: BTreeSet<Warning> = standing.into_iter().collect();
        warnings.extend(standing.difference(&self.standing).cloned());
        self.standing = standing;
        world.follow(&self.world);
        // Also those that were never read, and are gone.
        self.broken.retain(|id, _| {
            present.contains(id) || self.files.contains_key(id) || id.1 == self.paths[id.0]
        });
        self.tell();
        let changes = self.world.differences(&world);
        self.world = world;
        Loaded { changes, warnings }
    }

    /// When a file that is missing now will have been missing for long enough.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.missing.values().min().map(|since| *since + MISSING)
    }

    /// The files that a path stands for. A single file is there or not, which is no error.
    fn present(&self, n: usize, path: &Path) -> io::Result<Vec<FileId>> {
        if path.as_os_str() == "-" {
            return Ok(vec![(n, path.to_owned())]);
        }
        // A folder that has vanished must not turn into a missing file.
        let was_folder = self.files.keys().any(|(of, file)| *of == n && file != path);
        let files = match path.metadata() {
            Ok(metadata) if metadata.is_dir() => manifests_of(path)?,
            Ok(_) => vec![path.to_owned()],
            Err(error) if was_folder => return Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(files.into_iter().map(|file| (n, file)).collect())
    }

    /// Reads one file. One that is broken, or empty where it was not, is likely to be half
    /// written: what it said before stays in force beside what can be read of it.
    fn reread(&mut self, id: &FileId, warnings: &mut Vec<Warning>) {
        let kept = |text: String| Warning { object: id.1.display().to_string(), text };
        let bytes = match read_file(&id.1, self.room(id)) {
            Ok(bytes) => bytes,
            // Gone since it was listed: the next event says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let text = format!("cannot be read, what it said is kept: {error}");
                self.note(id, Some(text.clone()));
                warnings.push(kept(text));
                return;
            }
        };
        let source = Source::of(&bytes);
        let before = self.files.get(id);
        if let Some(before) = before.filter(|content| content.source == source) {
            if !before.incomplete {
                self.note(id, None);
            }
            return;
        }
        let mut content = self.content(&id.1, &bytes);
        self.note(id, content.why_incomplete());
        warnings.append(&mut content.warnings);
        let before = self.remove(id).unwrap_or_default();
        let suspect = content.incomplete || source.bytes() == 0;
        if suspect && keep(&mut content, before) {
            warnings.push(kept(
                "it is incomplete: objects that it no longer has are kept until it is whole \
                 (delete the file to remove all of them)"
                    .into(),
            ));
        }
        self.put(id.clone(), content);
    }
}

/// Adds the objects that a text had before and does not have now; returns whether there are any.
fn keep(content: &mut Content, before: Content) -> bool {
    let now: HashSet<_> = content.objects.iter().map(|(_, object)| object.identity()).collect();
    let mut kept: Vec<_> = before
        .objects
        .into_iter()
        .filter(|(_, object)| !now.contains(&object.identity()))
        .collect();
    let any = !kept.is_empty();
    kept.append(&mut content.objects);
    content.objects = kept;
    any
}
