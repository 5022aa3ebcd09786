//! What can go wrong with iptables, told from its words.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use netlink_ipvs::Family;

use super::process::Finished;

/// How many lines of what a program said are shown: the first tell what is wrong.
const SHOWN: usize = 3;

/// Why the firewall of a family could not be read or changed.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    family: Family,
    operation: &'static str,
    detail: String,
    source: Option<io::Error>,
}

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The programs are not there.
    NotInstalled,
    /// This host does not use the family.
    FamilyOff,
    /// Another program holds the lock of xtables: try again.
    Lock,
    /// The file of the lock of xtables cannot be written.
    LockFile,
    /// `CAP_NET_ADMIN` in the user namespace that owns the network namespace is missing.
    NoPermission,
    /// The kernel lacks a table, match, target or set.
    Unsupported,
    /// The program did not end in time and was killed.
    TimedOut,
    /// Anything else.
    Failed,
}

impl Error {
    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The family that it is about.
    pub const fn family(&self) -> Family {
        self.family
    }

    pub(super) fn not_installed(family: Family, directories: &[PathBuf]) -> Self {
        let looked: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        let what = match family {
            Family::Ipv4 => "iptables",
            Family::Ipv6 => "ip6tables",
        };
        Self {
            kind: ErrorKind::NotInstalled,
            family,
            operation: "find the firewall programs",
            detail: format!(
                "no {what}, {what}-save and {what}-restore (package iptables) in {}",
                looked.join(", ")
            ),
            source: None,
        }
    }

    pub(super) fn family_off(family: Family, why: &str) -> Self {
        Self {
            kind: ErrorKind::FamilyOff,
            family,
            operation: "look whether this host uses the family",
            detail: why.to_owned(),
            source: None,
        }
    }

    pub(super) fn not_run(
        family: Family,
        operation: &'static str,
        program: &Path,
        source: io::Error,
    ) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::NotFound => ErrorKind::NotInstalled,
            io::ErrorKind::PermissionDenied => ErrorKind::NoPermission,
            _ => ErrorKind::Failed,
        };
        let detail = format!("run {}", program.display());
        Self { kind, family, operation, detail, source: Some(source) }
    }

    pub(super) fn unknown_version(family: Family, program: &Path, said: &str) -> Self {
        Self {
            kind: ErrorKind::Failed,
            family,
            operation: "find the firewall programs",
            detail: format!("{} --version printed {:?}", program.display(), said.trim()),
            source: None,
        }
    }

    /// The program said no. `input` is what it read.
    pub(super) fn refused(
        family: Family,
        operation: &'static str,
        program: &Path,
        finished: &Finished,
        input: &str,
    ) -> Self {
        let said = finished.stderr.trim();
        let kind = kind_of(finished.status.code(), said);
        let mut detail = format!("{} ended with {}", program.display(), finished.status);
        if !said.is_empty() {
            detail.push_str(": ");
            let lines: Vec<_> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            detail.push_str(&lines[..lines.len().min(SHOWN)].join("; "));
            if lines.len() > SHOWN {
                detail.push_str("; ...");
            }
        }
        if let Some((number, line)) = failing_line(said, input) {
            if line == "COMMIT" {
                let table = input
                    .lines()
                    .take(number)
                    .filter_map(|line| line.strip_prefix('*'))
                    .last()
                    .unwrap_or("?");
                let _ = write!(detail, " (the kernel refused table {table} as a whole)");
            } else {
                let _ = write!(detail, " (line {number} is `{line}`)");
            }
        }
        detail.push_str(match kind {
            ErrorKind::Lock => ": another program is changing the rules; this is tried again",
            ErrorKind::LockFile => {
                ": the file must be writable: mount /run/xtables.lock from the host, as kube-proxy does"
            }
            ErrorKind::NoPermission if said.contains(TABLE_NAMES) => {
                ": the legacy flavour of iptables reads a file there that belongs to root: run as root, \
                 or in group 0 (runAsGroup: 0)"
            }
            ErrorKind::NoPermission => ": CAP_NET_ADMIN is needed in this network namespace",
            ErrorKind::Unsupported => {
                ": the kernel lacks a table, match, target or set that the rules need, or its \
                 module cannot be loaded from here (mount /lib/modules, or load it on the host)"
            }
            _ => "",
        });
        Self { kind, family, operation, detail, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.operation, self.family, self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// What `iptables-save` of the legacy flavour says when it cannot find out which tables there are.
const TABLE_NAMES: &str = "Failed to list table names";

/// iptables tells its failures apart in words only; these have been the same since 1.4.
fn kind_of(code: Option<i32>, said: &str) -> ErrorKind {
    /// Exit status `RESOURCE_PROBLEM`.
    const RESOURCE: i32 = 4;
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if code == Some(RESOURCE) && says(&["open lock file"]) {
        ErrorKind::LockFile
    } else if code == Some(RESOURCE) && says(&["xtables lock", "xtables.lock"]) {
        ErrorKind::Lock
    } else if says(&["Permission denied", "you must be root", "Operation not permitted"]) {
        ErrorKind::NoPermission
    } else if says(&[
        "No such file or directory",
        "No chain/target/match by that name",
        "Table does not exist",
        "not supported",
        "missing kernel module",
        "Couldn't load match",
        "Couldn't load target",
        "doesn't exist",
        "Protocol not available",
        "Module ",
    ]) {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Failed
    }
}

/// The line of the input that the program names, counted from 1.
fn failing_line<'a>(said: &str, input: &'a str) -> Option<(usize, &'a str)> {
    let number: usize = said.match_indices("line").find_map(|(at, word)| {
        let digits = said[at + word.len()..].trim_start_matches([':', ' ']);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    })?;
    Some((number, input.lines().nth(number.checked_sub(1)?)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    /// What iptables 1.8.9 says, with its exit status.
    #[test]
    fn the_words_of_iptables_are_understood() {
        for (code, said, kind) in [
            (
                4,
                "Another app is currently holding the xtables lock; still 4s 0us time ahead to have a chance to grab the lock...",
                ErrorKind::Lock,
            ),
            (
                4,
                "Fatal: can't open lock file /run/xtables.lock: Permission denied",
                ErrorKind::LockFile,
            ),
            (
                4,
                "iptables-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
                ErrorKind::NoPermission,
            ),
            (
                3,
                "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Permission denied (you must be root)",
                ErrorKind::NoPermission,
            ),
            (
                3,
                "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
                ErrorKind::Unsupported,
            ),
            (
                1,
                "iptables v1.8.9 (nf_tables): TABLE_ADD failed (Operation not supported): table nat",
                ErrorKind::Unsupported,
            ),
            (
                2,
                "iptables-restore v1.8.9 (legacy): Set KUBE-X doesn't exist.\n\nError occurred at line: 3",
                ErrorKind::Unsupported,
            ),
            (
                2,
                "iptables-restore v1.8.9 (legacy): unknown option \"--foo\"\nError occurred at line: 3",
                ErrorKind::Failed,
            ),
        ] {
            assert_eq!(kind_of(Some(code), said), kind, "{said}");
        }
    }

    #[test]
    fn the_failing_line_is_shown() {
        let error = |said: &str| {
            let finished = Finished {
                status: ExitStatus::from_raw(1 << 8),
                stdout: String::new(),
                stderr: said.into(),
            };
            let input = "*nat\n:A - [0:0]\n-A A -j B\nCOMMIT\n";
            Error::refused(Family::Ipv4, "install rules", Path::new("/x"), &finished, input)
                .to_string()
        };
        let text = error("x: \nline 3: RULE_APPEND failed (No such file or directory): rule in A");
        assert!(text.contains("(line 3 is `-A A -j B`)"), "{text}");
        assert!(error("Error occurred at line: 2").contains("(line 2 is `:A - [0:0]`)"));
        assert!(error("iptables-restore: line 4 failed").contains("refused table nat as a whole"));
        assert!(!error("line 99 failed").contains("line 99 is"));
    }
}
