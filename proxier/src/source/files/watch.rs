//! Being told of changed files.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::refresh::Touched;
use super::{Change, Error, Loaded, Manifests};
use crate::input;

/// How often a folder that is gone is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// How long to wait for the second half of a rename. The kernel reports both in one system call, so
/// one that does not come is of a file that was moved out of sight.
const PAIR: Duration = Duration::from_millis(20);

/// Complete writes and replacements; not each write, for a file is of no use before it is closed.
const EVENTS: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

impl Manifests {
    /// Follows the files after [`read`](Self::read) and sends the differences, until the receiver
    /// is dropped. All differences that were found together are sent together. What is wrong with a
    /// file is logged; what it said before stays in force.
    ///
    /// # Errors
    /// The system gives no notice of changed files.
    pub async fn watch<E: From<Vec<Change>>>(
        mut self,
        changes: mpsc::Sender<E>,
    ) -> Result<(), Error> {
        let mut folders = Folders::open(&self.paths).await.map_err(Error::Notify)?;
        // What has changed since the files were read.
        let mut touched = Some(Touched::All);
        loop {
            if let Some(touched) = touched {
                let now = Instant::now();
                let read = input::aside(move || {
                    let loaded = self.refresh(&touched, now);
                    (self, loaded)
                });
                let (manifests, Loaded { changes: differences, warnings }) =
                    read.await.map_err(Error::Notify)?;
                self = manifests;
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                if !differences.is_empty() && changes.send(differences.into()).await.is_err() {
                    return Ok(());
                }
            }
            let next_look = self.next_look();
            let look = async {
                match next_look {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            touched = tokio::select! {
                waited = folders.wait() => {
                    let told = waited.map_err(Error::Notify)?;
                    let news = input::aside(move || {
                        let news = folders.collect(told);
                        (folders, news)
                    });
                    let (same, news) = news.await.map_err(Error::Notify)?;
                    folders = same;
                    news.map_err(Error::Notify)?
                }
                () = look => Some(Touched::nothing()),
                () = changes.closed() => return Ok(()),
            };
        }
    }
}

/// The folders in which files are, and notice of what happens there.
#[derive(Debug)]
pub struct Folders {
    notify: AsyncFd<OwnedFd>,
    places: Vec<Folder>,
    news: News,
}

/// What was reported and not yet passed on.
#[derive(Debug, Default)]
struct News {
    files: BTreeSet<PathBuf>,
    /// Anything may have changed.
    all: bool,
    /// Renames of which only the first half was reported, by their cookies.
    halves: BTreeSet<u32>,
}

#[derive(Debug)]
struct Folder {
    /// What the files in it begin with; nothing for files of the current folder.
    path: PathBuf,
    /// Watch descriptor, while the folder is there.
    watch: Option<i32>,
}

impl Folders {
    /// Notice of these files, and of all in these folders.
    ///
    /// # Errors
    /// The system gives no notice of changed files.
    pub async fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe to call; a descriptor that nothing else owns or \
                      closes keeps what that one asks to be promised"
        )]
        let notify = AsyncFd::new(notify)?;
        let paths = paths.to_vec();
        input::aside(move || {
            let parent = |path: &PathBuf| path.parent().map(Path::to_owned).unwrap_or_default();
            let paths: BTreeSet<PathBuf> = paths
                .iter()
                .filter(|path| path.as_os_str() != "-")
                .map(|path| if path.is_dir() { path.clone() } else { parent(path) })
                .collect();
            let places = paths.into_iter().map(|path| Folder { path, watch: None }).collect();
            let mut this = Self { notify, places, news: News::default() };
            this.watch_all();
            this
        })
        .await
    }

    /// Watches the folders that are not watched; returns whether there was one that now is.
    fn watch_all(&mut self) -> bool {
        let mut found = false;
        for folder in self.places.iter_mut().filter(|folder| folder.watch.is_none()) {
            let here = folder.path.as_os_str().is_empty();
            let path = if here { Path::new(".") } else { &folder.path };
            folder.watch = inotify::add_watch(&self.notify, path, EVENTS).ok();
            found |= folder.watch.is_some();
        }
        found
    }

    /// Waits until something may have changed.
    ///
    /// # Errors
    /// The system gives no notice any more.
    pub async fn changed(mut self) -> io::Result<Self> {
        loop {
            let told = self.wait().await?;
            let (this, news) = input::aside(move || {
                let news = self.collect(told);
                (self, news)
            })
            .await?;
            self = this;
            if news?.is_some() {
                return Ok(self);
            }
        }
    }

    /// Waits until there is something to [`collect`](Self::collect): whether something was reported.
    async fn wait(&self) -> io::Result<bool> {
        let lost = self.places.iter().any(|folder| folder.watch.is_none());
        let patience = match () {
            () if !self.news.halves.is_empty() => PAIR,
            () if lost => RETRY,
            () => Duration::MAX,
        };
        match tokio::time::timeout(patience, self.notify.readable()).await {
            // Everything that waits is read by who collects, so that the next readiness is news.
            Ok(ready) => ready.map(|mut ready| ready.clear_ready()).map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// What may have changed. `told` is what [`wait`](Self::wait) has returned.
    fn collect(&mut self, told: bool) -> io::Result<Option<Touched>> {
        if told {
            self.drain()?;
        } else {
            self.news.halves.clear();
            self.news.all |= self.watch_all();
        }
        if self.news.all {
            self.watch_all();
        }
        Ok(self.news.take())
    }

    /// Reads the events that wait.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.notify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let events = event.events();
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.news = News { all: true, ..News::default() };
                continue;
            }
            let watch = event.wd();
            let Some(folder) = self.places.iter_mut().find(|f| f.watch == Some(watch)) else {
                continue;
            };
            if events.intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF)
            {
                // Another folder may get the name; this one is nobody's any more.
                if events.contains(ReadFlags::MOVE_SELF) {
                    let _ = inotify::remove_watch(&self.notify, watch);
                }
                folder.watch = None;
                self.news.all = true;
                continue;
            }
            let Some(name) = event.file_name() else { continue };
            let file = folder.path.join(OsStr::from_bytes(name.to_bytes()));
            self.news.add(file, events, event.cookie());
        }
    }
}

impl News {
    fn add(&mut self, file: PathBuf, events: ReadFlags, cookie: u32) {
        if events.contains(ReadFlags::MOVED_FROM) {
            self.halves.insert(cookie);
        } else if events.contains(ReadFlags::MOVED_TO) {
            self.halves.remove(&cookie);
        }
        if !events.contains(ReadFlags::CREATE) || is_complete(&file) {
            self.files.insert(file);
        }
    }

    /// What may have changed, unless more of the same rename is to come.
    fn take(&mut self) -> Option<Touched> {
        if !self.halves.is_empty() {
            return None;
        }
        let Self { files, all, .. } = std::mem::take(self);
        if all { Some(Touched::All) } else { (!files.is_empty()).then_some(Touched::Some(files)) }
    }
}

/// Whether a name that has just appeared is more than a file that somebody begins to write: links
/// never see a write.
fn is_complete(file: &Path) -> bool {
    file.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}

#[cfg(test)]
mod tests;
