//! Reads and writes kernel settings, and says what it changed.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;

use crate::dataplane::sysctls::{self, KernelVersion, Sysctl};

/// The files of the kernel's settings.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
}

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As `sysctl` names it.
    pub name: String,
    /// The value before.
    pub from: String,
    /// The value now.
    pub to: String,
    /// What it is for.
    pub why: &'static str,
}

/// A setting as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// What it should be.
    pub setting: &'a Sysctl,
    /// What its file says, if it can be read.
    pub found: Option<String>,
}

impl Seen<'_> {
    /// Whether it is known to be another value than it should be.
    pub fn is_wrong(&self) -> bool {
        self.found.as_ref().is_some_and(|found| !self.setting.wanted.allows(found))
    }
}

/// What became of the settings.
#[derive(Debug, Default)]
pub struct Report {
    /// What was changed, in order.
    pub changes: Vec<Change>,
    /// What could not be set. After a required one nothing more was tried.
    pub failures: Vec<Error>,
}

/// A setting that is not as it should be and could not be set.
#[derive(Debug)]
pub struct Error {
    setting: Sysctl,
    /// The value that it has, if it could be read.
    found: Option<String>,
    source: io::Error,
}

/// The kernel does not say which version it is.
#[derive(Debug, thiserror::Error)]
#[error("read the kernel's version from {}", path.display())]
pub struct VersionError {
    path: PathBuf,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// `net.ipv4.ip_forward: 0 -> 1 (the node forwards packets)`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {} ({})", self.name, self.from, self.to, self.why)
    }
}

impl Report {
    /// The failure after which nothing more was tried, if there was one: forwarding would be wrong
    /// without that setting.
    pub fn fatal(&self) -> Option<&Error> {
        self.failures.iter().find(|error| error.is_fatal())
    }
}

impl Error {
    /// Whether forwarding would be wrong without this setting.
    pub const fn is_fatal(&self) -> bool {
        self.setting.required
    }

    /// What to do about it.
    fn way_out(&self) -> &'static str {
        let path = self.setting.path;
        if self.source.kind() == io::ErrorKind::NotFound {
            if path.contains("/vs/est_") {
                "the kernel has no such setting: it came with Linux 6.2"
            } else if path.ends_with("/vs/run_estimation") {
                "this kernel is too old to have such a setting"
            } else if path.contains("/ipv4/vs/") {
                "the kernel has no such setting: is the module ip_vs loaded, with support for \
                 connection tracking?"
            } else if path.contains("nf_conntrack") {
                "the kernel has no such setting: is the module nf_conntrack loaded?"
            } else {
                "the kernel has no such setting"
            }
        } else if path.ends_with("nf_conntrack_max") || path.ends_with("hashsize") {
            "it can be written in the initial network namespace only: set it on the host, or set \
             conntrack.maxPerCore to 0 to leave it as it is"
        } else if path.contains("kube-ipvs0") {
            "set it on the host (sysctl -w net.ipv6.conf.kube-ipvs0.disable_ipv6=0)"
        } else {
            "set it on the host, or run once with --init-only in a privileged init container"
        }
    }
}

/// The cause is in the source.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, wanted) = (self.setting.name(), self.setting.wanted.value());
        write!(f, "set {name} to {wanted} ({})", self.setting.why)?;
        if let Some(found) = &self.found {
            write!(f, ", it is {found}")?;
        }
        write!(f, ": {}", self.way_out())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Sysctls {
    /// Those of this system: of the network namespace of the thread that uses them.
    pub fn system() -> Self {
        Self::below(Path::new("/"))
    }

    /// Those below a directory that has `proc/sys` and `sys`.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The version of the running kernel.
    pub fn kernel_version(&self) -> Result<KernelVersion, VersionError> {
        let path = self.root.join("proc/sys/kernel/osrelease");
        let parsed = match fs::read_to_string(&path) {
            Ok(text) => text.parse().map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        parsed.map_err(|source| VersionError { path, source })
    }

    /// How many CPUs are online; where the kernel does not say, how many this process may use.
    pub fn cpus(&self) -> usize {
        fs::read_to_string(self.root.join("sys/devices/system/cpu/online"))
            .ok()
            .and_then(|text| count(text.trim()))
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }

    /// Brings the settings to their values, in order. What is right already is not written, so
    /// that it does not matter whether it could be.
    ///
    /// IPVS must have been opened before: its settings exist from then on.
    pub fn apply(&self, settings: &[Sysctl]) -> Report {
        let mut report = Report::default();
        for setting in settings {
            match self.set(setting) {
                Ok(change) => report.changes.extend(change),
                Err(error) => {
                    let fatal = error.is_fatal();
                    report.failures.push(error);
                    if fatal {
                        break;
                    }
                }
            }
        }
        report
    }

    /// The settings as they are now, in order: one short file each, nothing is written.
    pub fn look<'a>(&self, settings: &'a [Sysctl]) -> Vec<Seen<'a>> {
        let seen = |setting| Seen { setting, found: self.read(setting).ok() };
        settings.iter().map(seen).collect()
    }

    /// What the file of a setting says, without the line end.
    pub fn read(&self, setting: &Sysctl) -> io::Result<String> {
        Ok(fs::read_to_string(self.root.join(setting.path))?.trim_end().to_owned())
    }

    /// Writes a value to the file of a setting.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.root.join(path))?;
        file.write_all(value.as_bytes())
    }

    /// Whether a setting is there and can be written.
    pub fn can_write(&self, setting: &Sysctl) -> bool {
        OpenOptions::new().write(true).open(self.root.join(setting.path)).is_ok()
    }

    fn set(&self, setting: &Sysctl) -> Result<Option<Change>, Error> {
        let found = self.read(setting).ok();
        if found.as_ref().is_some_and(|found| setting.wanted.allows(found)) {
            return Ok(None);
        }
        let to = setting.wanted.value();
        match self.write(setting.path, &to) {
            Ok(()) => {
                let from = found.unwrap_or_else(|| "unreadable".to_owned());
                Ok(Some(Change { name: setting.name(), from, to, why: setting.why }))
            }
            Err(source) => Err(Error { setting: setting.clone(), found, source }),
        }
    }
}

/// Switches IPv6 on for `kube-ipvs0`, where it is off for new interfaces; why that cannot be done.
pub fn allow_ipv6() -> Option<String> {
    let settings = [sysctls::ipv6_of_interface()];
    let system = Sysctls::system();
    // Without IPv6 there is no such setting, and nothing to bind either.
    if !system.look(&settings).iter().any(Seen::is_wrong) {
        return None;
    }
    let report = system.apply(&settings);
    for change in &report.changes {
        tracing::info!("{change}");
    }
    report.failures.first().map(|error| crate::text::chain(error))
}

/// How many numbers a list such as `0-3,5` has.
fn count(ranges: &str) -> Option<usize> {
    ranges.split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(test)]
mod tests;
