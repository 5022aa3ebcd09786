//! What went wrong, with which operation on which object.

use std::fmt;

use netlink_batch::{ErrorKind, Failure};
use rustix::io::Errno;

use crate::{Command, VirtualServerKey};

/// An operation that failed.
///
/// Its text names the operation and the object (`add real server 10.0.0.7:8080 to
/// 10.96.0.10:80/tcp`); why is in [`source`](std::error::Error::source), as in a chain printed
/// with `anyhow`'s `{:#}`. What a caller needs to decide is [`Error::kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    operation: Operation,
    failure: Failure,
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
    DumpSyncDaemons,
    Command(Command),
}

impl Error {
    pub(crate) fn new(operation: Operation, failure: impl Into<Failure>) -> Self {
        Self(Box::new(Inner { operation, failure: failure.into() }))
    }

    /// Answers the caller's question.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// The error number, if the kernel or a system call gave one.
    pub fn errno(&self) -> Option<i32> {
        self.0.failure.code()
    }

    /// What the kernel said beside the number (extended acknowledgement).
    pub fn kernel_text(&self) -> Option<&str> {
        match &self.0.failure {
            Failure::Refused(refusal) => refusal.text.as_deref(),
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
            Operation::DumpSyncDaemons => f.write_str("read the synchronisation daemons"),
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
        // One number, two meanings: a virtual server refers to its scheduler, all else to entries
        // of the table.
        let means_support = matches!(
            self.operation,
            Operation::Command(Command::AddVirtualServer(_) | Command::SetVirtualServer(_))
                | Operation::FindFamily
        );
        if means_support && self.failure.is_refusal(Errno::NOENT) {
            return ErrorKind::Unsupported;
        }
        self.failure.kind()
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
            ) if self.failure.is_refusal(Errno::NOENT) => "there is no such real server",
            (K::NotFound, Operation::Command(Command::StartSync(_))) => {
                "there is no such interface, or it has no address of the group's family"
            }
            (K::NotFound, Operation::Command(Command::StopSync(_))) => "it does not run",
            (K::NotFound, _) => "there is no such virtual server",
            _ => return None,
        })
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(meaning) = self.meaning() {
            write!(f, "{meaning}: ")?;
        }
        self.failure.fmt(f)
    }
}

impl std::error::Error for Inner {}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use netlink_batch::Refusal;

    use super::*;
    use crate::{Family, Protocol, RealServerKey, Scheduler, VirtualServer, VirtualServerConfig};

    fn refused(command: Command, errno: Errno) -> Error {
        let refusal = Refusal { code: errno.raw_os_error(), text: None };
        Error::new(Operation::Command(command), refusal)
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
        let refusal = Refusal { code: Errno::INVAL.raw_os_error(), text };
        let error = Error::new(Operation::Command(add()), refusal);
        assert_eq!(error.kernel_text(), Some("Attribute failed policy validation"));
        assert_eq!(
            error.source().unwrap().to_string(),
            "Attribute failed policy validation: Invalid argument (os error 22)"
        );
    }
}
