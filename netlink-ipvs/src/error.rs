//! What went wrong, with which operation on which object.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::frame::Malformed;
use crate::{Command, VirtualServerKey};

/// An operation that failed.
///
/// Its text names the operation and the object (`add real server 10.0.0.7:8080 to
/// 10.96.0.10:80/tcp`); why is in [`source`](std::error::Error::source), as in a chain printed
/// with `anyhow`'s `{:#}`. What a caller needs to decide is [`Error::kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was to be added is there already (`EEXIST`).
    Exists,
    /// The virtual server (`ESRCH`) or real server (`ENOENT`) is not there.
    NotFound,
    /// Try again later (`EBUSY`, `EAGAIN`).
    Busy,
    /// `CAP_NET_ADMIN` is missing (`EPERM`, `EACCES`).
    NoPermission,
    /// The kernel has no IPVS, or not this scheduler, persistence engine, family or command.
    Unsupported,
    /// The kernel does not take these values (`EINVAL`, `ERANGE`).
    Invalid,
    /// The kernel's answer was lost (`ENOBUFS`, or none came in time): the command may or may
    /// not have been carried out. Read back before deciding.
    Uncertain,
    /// The table changed during every attempt to dump it.
    Interrupted,
    /// The socket, or a message that makes no sense.
    Io,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    operation: Operation,
    cause: Cause,
}

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    FindFamily,
    GetInfo,
    GetTimeouts,
    DumpVirtualServers,
    GetVirtualServer(VirtualServerKey),
    DumpRealServers(VirtualServerKey),
    Command(Command),
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The kernel refused; its extended acknowledgement's text.
    Refused(Errno, Option<Box<str>>),
    /// A system call failed.
    System(Errno),
    /// Replies were lost.
    Lost(Errno),
    /// Every attempt to dump was interrupted.
    Interrupted(u32),
    Malformed(&'static str),
}

impl Error {
    pub(crate) fn new(operation: Operation, cause: Cause) -> Self {
        Self(Box::new(Inner { operation, cause }))
    }

    /// Whether it may come of a family that has another id now.
    pub(crate) fn is_of_unknown_family(&self) -> bool {
        matches!(self.0.cause, Cause::Refused(Errno::NOENT, _))
    }

    /// Answers the caller's question.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// The error number, if the kernel or a system call gave one.
    pub fn errno(&self) -> Option<i32> {
        match self.0.cause {
            Cause::Refused(errno, _) | Cause::System(errno) | Cause::Lost(errno) => {
                Some(errno.raw_os_error())
            }
            Cause::Interrupted(_) | Cause::Malformed(_) => None,
        }
    }

    /// What the kernel said beside the number (extended acknowledgement).
    pub fn kernel_text(&self) -> Option<&str> {
        match &self.0.cause {
            Cause::Refused(_, text) => text.as_deref(),
            _ => None,
        }
    }

    /// The command that failed, if it was one.
    pub fn command(&self) -> Option<&Command> {
        match &self.0.operation {
            Operation::Command(command) => Some(command),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.operation {
            Operation::Open => f.write_str("open a netlink socket"),
            Operation::FindFamily => f.write_str("find IPVS in the kernel"),
            Operation::GetInfo => f.write_str("read the IPVS version"),
            Operation::GetTimeouts => f.write_str("read the connection timeouts"),
            Operation::DumpVirtualServers => f.write_str("read the virtual servers"),
            Operation::GetVirtualServer(key) => write!(f, "read virtual server {key}"),
            Operation::DumpRealServers(key) => write!(f, "read the real servers of {key}"),
            Operation::Command(command) => command.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

impl Inner {
    fn kind(&self) -> ErrorKind {
        let errno = match self.cause {
            Cause::Refused(errno, _) | Cause::System(errno) => errno,
            Cause::Lost(_) => return ErrorKind::Uncertain,
            Cause::Interrupted(_) => return ErrorKind::Interrupted,
            Cause::Malformed(_) => return ErrorKind::Io,
        };
        match (errno, self.operation) {
            // One number, two meanings: a virtual server refers to its scheduler, all else to
            // entries of the table.
            (
                Errno::NOENT,
                Operation::Command(Command::AddVirtualServer(_) | Command::SetVirtualServer(_))
                | Operation::FindFamily,
            ) => ErrorKind::Unsupported,
            (Errno::EXIST, _) => ErrorKind::Exists,
            (Errno::NOENT | Errno::SRCH, _) => ErrorKind::NotFound,
            (Errno::BUSY | Errno::AGAIN, _) => ErrorKind::Busy,
            (Errno::PERM | Errno::ACCESS, _) => ErrorKind::NoPermission,
            (Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NOSYS, _) => {
                ErrorKind::Unsupported
            }
            (Errno::INVAL | Errno::RANGE, _) => ErrorKind::Invalid,
            _ => ErrorKind::Io,
        }
    }

    /// What the error number means for this operation, and what can be done.
    fn meaning(&self) -> Option<&'static str> {
        use ErrorKind as K;
        Some(match (self.kind(), self.operation) {
            (K::Unsupported, Operation::FindFamily) => {
                "the kernel has no IPVS: load its module (modprobe ip_vs) or use a kernel \
                 with CONFIG_IP_VS"
            }
            (
                K::Unsupported,
                Operation::Command(
                    Command::AddVirtualServer(server) | Command::SetVirtualServer(server),
                ),
            ) if server.config.persistence_engine.is_some() => {
                "the kernel has no such scheduler or persistence engine"
            }
            (K::Unsupported, Operation::Command(_)) => {
                "the kernel has no such scheduler or feature"
            }
            (K::NoPermission, _) => "CAP_NET_ADMIN is needed",
            (K::Exists, _) => "it exists",
            (
                K::NotFound,
                Operation::Command(Command::DeleteRealServer(..) | Command::SetRealServer(..)),
            ) if self.errno() == Some(Errno::NOENT) => "there is no such real server",
            (K::NotFound, _) => "there is no such virtual server",
            _ => return None,
        })
    }

    fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Refused(errno, _) | Cause::System(errno) | Cause::Lost(errno) => Some(errno),
            Cause::Interrupted(_) | Cause::Malformed(_) => None,
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(meaning) = self.meaning() {
            write!(f, "{meaning}: ")?;
        }
        match &self.cause {
            Cause::Refused(errno, Some(text)) => write!(f, "{text}: {}", os_text(*errno)),
            Cause::Refused(errno, None) | Cause::System(errno) => os_text(*errno).fmt(f),
            Cause::Lost(errno) => write!(
                f,
                "the kernel's answer was lost, the change may or may not have been made: {}",
                os_text(*errno)
            ),
            Cause::Interrupted(attempts) => {
                write!(f, "the table changed during each of {attempts} attempts")
            }
            Cause::Malformed(what) => Malformed(what).fmt(f),
        }
    }
}

impl std::error::Error for Inner {}

fn os_text(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::{Family, Protocol, RealServerKey, Scheduler, VirtualServer, VirtualServerConfig};

    fn refused(command: Command, errno: Errno) -> Error {
        Error::new(Operation::Command(command), Cause::Refused(errno, None))
    }

    fn key() -> VirtualServerKey {
        VirtualServerKey::new("10.96.0.10".parse().unwrap(), 80, Protocol::Tcp)
    }

    fn add() -> Command {
        let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
        Command::AddVirtualServer(VirtualServer { key: key(), config })
    }

    fn delete_real() -> Command {
        let real = RealServerKey::new("10.0.0.7".parse().unwrap(), 8080);
        Command::DeleteRealServer(key(), real)
    }

    #[test]
    fn one_number_means_different_things() {
        for (command, errno, kind) in [
            (add(), Errno::EXIST, ErrorKind::Exists),
            (add(), Errno::NOENT, ErrorKind::Unsupported),
            (delete_real(), Errno::NOENT, ErrorKind::NotFound),
            (delete_real(), Errno::SRCH, ErrorKind::NotFound),
            (add(), Errno::PERM, ErrorKind::NoPermission),
            (add(), Errno::INVAL, ErrorKind::Invalid),
            (add(), Errno::BUSY, ErrorKind::Busy),
            (add(), Errno::NOMEM, ErrorKind::Io),
        ] {
            assert_eq!(refused(command, errno).kind(), kind, "{command} {errno:?}");
        }
    }

    #[test]
    fn the_text_names_operation_and_object_and_the_source_says_why() {
        let error = refused(delete_real(), Errno::NOENT);
        assert_eq!(error.to_string(), "delete real server 10.0.0.7:8080 of 10.96.0.10:80/tcp");
        assert_eq!(
            error.source().unwrap().to_string(),
            "there is no such real server: No such file or directory (os error 2)"
        );
        let error = refused(delete_real(), Errno::SRCH);
        assert_eq!(
            error.source().unwrap().to_string(),
            "there is no such virtual server: No such process (os error 3)"
        );
    }

    #[test]
    fn the_kernels_own_text_is_kept() {
        let text = Some("Attribute failed policy validation".into());
        let error = Error::new(Operation::Command(add()), Cause::Refused(Errno::INVAL, text));
        assert_eq!(error.kernel_text(), Some("Attribute failed policy validation"));
        assert_eq!(
            error.source().unwrap().to_string(),
            "Attribute failed policy validation: Invalid argument (os error 22)"
        );
    }
}
