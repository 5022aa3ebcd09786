//! The daemon under test, as a process.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::program;
use crate::netns::Namespace;
use crate::wait::{Waited, until};

/// A folder of its own for one test, removed with it. It is in memory: who watches a folder of the host
/// from inside the test kernel is told of nothing.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

/// Held while a daemon runs: shared, so that many can, or alone by the one that changes settings which the
/// whole kernel has only once.
#[derive(Debug)]
pub struct KernelWide {
    _lock: File,
}

/// A running `proxier` that programs the kernel. Killed (SIGKILL) when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// How much was in the log before.
    log_start: usize,
    _kernel_wide: Option<KernelWide>,
}

// === impl Scratch ===

impl Scratch {
    /// Creates an empty folder.
    pub fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        loop {
            // Process numbers repeat: tests run in process namespaces of their own.
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("proxier-test-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("create {}", path.display()));
                }
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file in one step, so that a reader never sees half of it.
    pub fn replace(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let (path, new) =
            (self.path.join(name), self.path.join(format!(".new-{}", name.replace('/', "-"))));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        fs::write(&new, content).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("rename to {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

// === impl KernelWide ===

impl KernelWide {
    /// Waits until no other test holds it alone.
    pub fn shared() -> Result<Self> {
        let lock = Self::open()?;
        lock.lock_shared().context("wait for the test that changes the whole kernel")?;
        Ok(Self { _lock: lock })
    }

    /// Waits until no other test holds it.
    pub fn alone() -> Result<Self> {
        let lock = Self::open()?;
        lock.lock().context("wait for the tests that run a daemon")?;
        Ok(Self { _lock: lock })
    }

    fn open() -> Result<File> {
        let path = "/run/lock/proxier-tests";
        File::options().create(true).append(true).open(path).with_context(|| format!("open {path}"))
    }
}

// === impl Daemon ===

impl Daemon {
    /// Starts the daemon in a namespace, or in the caller's own, when no test holds the kernel alone.
    /// What it logs goes to `log`, after what is there.
    pub fn start(
        namespace: Option<&Namespace>,
        config: &Path,
        manifests: &Path,
        log: &Path,
    ) -> Result<Self> {
        let words = [Path::new("--config"), config, Path::new("--manifests"), manifests];
        Self::start_with(namespace, words, log)
    }

    /// As [`Daemon::start`], with any arguments.
    pub fn start_with<I: AsRef<OsStr>>(
        namespace: Option<&Namespace>,
        arguments: impl IntoIterator<Item = I>,
        log: &Path,
    ) -> Result<Self> {
        Self::start_program(&program("proxier")?, namespace, arguments, log)
    }

    /// As [`Daemon::start_with`], from a copy of the program.
    pub fn start_program<I: AsRef<OsStr>>(
        proxier: &Path,
        namespace: Option<&Namespace>,
        arguments: impl IntoIterator<Item = I>,
        log: &Path,
    ) -> Result<Self> {
        let shared = KernelWide::shared()?;
        Self::run(proxier, namespace, arguments, log, Some(shared))
    }

    /// As [`Daemon::start_with`], for a test that holds [`KernelWide`] itself.
    pub fn start_alone<I: AsRef<OsStr>>(
        namespace: Option<&Namespace>,
        arguments: impl IntoIterator<Item = I>,
        log: &Path,
    ) -> Result<Self> {
        Self::run(&program("proxier")?, namespace, arguments, log, None)
    }

    fn run<I: AsRef<OsStr>>(
        proxier: &Path,
        namespace: Option<&Namespace>,
        arguments: impl IntoIterator<Item = I>,
        log: &Path,
        kernel_wide: Option<KernelWide>,
    ) -> Result<Self> {
        let mut command =
            namespace.map_or_else(|| Command::new(proxier), |inside| inside.command(proxier));
        command.args(arguments);
        Self::spawn(command, log, kernel_wide)
    }

    /// As [`Daemon::start`], with a command of one's own.
    pub fn start_command(command: Command, log: &Path) -> Result<Self> {
        let shared = KernelWide::shared()?;
        Self::spawn(command, log, Some(shared))
    }

    fn spawn(mut command: Command, log: &Path, kernel_wide: Option<KernelWide>) -> Result<Self> {
        let log_start = fs::read(log).map_or(0, |text| text.len());
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share the log")?)
            .stderr(file)
            .spawn()
            .context("start proxier")?;
        Ok(Self { child, log: log.to_owned(), log_start, _kernel_wide: kernel_wide })
    }

    /// Asks until `question` answers with something other than none, and returns that.
    ///
    /// When the daemon has ended, the error has what `explain` says and the end of the daemon's log.
    pub fn wait<T>(
        &mut self,
        question: impl FnMut() -> Result<Option<T>>,
        explain: impl Fn() -> String,
    ) -> Result<T> {
        self.wait_asking_every(Duration::from_millis(50), question, explain)
    }

    /// As [`wait`](Self::wait), with another time between two questions.
    pub fn wait_asking_every<T>(
        &mut self,
        between: Duration,
        question: impl FnMut() -> Result<Option<T>>,
        explain: impl Fn() -> String,
    ) -> Result<T> {
        let log = self.log.clone();
        let missing = || format!("{}\nproxier's log ends with:\n{}", explain(), end_of(&log));
        match until(&mut self.child, between, question, missing)? {
            Waited::Reached(answer) => Ok(answer),
            Waited::Ended(status) => {
                bail!("proxier ended with {status} before {}", missing())
            }
        }
    }

    /// Waits until it says that the kernel is as the cluster says.
    pub fn ready(&mut self) -> Result<()> {
        let (log, start) = (self.log.clone(), self.log_start);
        let says = || {
            let text = fs::read(&log).context("read the log")?;
            let mine = String::from_utf8_lossy(text.get(start..).unwrap_or_default());
            Ok(mine.contains("ready: the kernel is as the cluster says").then_some(()))
        };
        self.wait(says, || "ready".to_owned())
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits until it has ended; fails if it does not end well.
    pub fn stop(mut self) -> Result<()> {
        self.terminate()
    }

    /// As [`stop`](Self::stop), of one that somebody else has.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).context("send SIGTERM to proxier")?;
        let status = self.child.wait().context("wait for proxier")?;
        if !status.success() {
            bail!(
                "proxier ended with {status} after SIGTERM; its log ends with:\n{}",
                self.log_end()
            );
        }
        Ok(())
    }

    /// Waits until it has ended by itself; fails if it does not end well.
    pub fn ended(mut self) -> Result<()> {
        let status = self.child.wait().context("wait for proxier")?;
        if !status.success() {
            bail!("proxier ended with {status}; its log ends with:\n{}", self.log_end());
        }
        Ok(())
    }

    /// Where its log is.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Its log, and that of those before it that wrote to the same file.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        end_of(&self.log)
    }
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
