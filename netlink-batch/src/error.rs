//! What can go wrong.

use std::error::Error as StdError;
use std::{fmt, io};

use rustix::io::Errno;

use crate::Malformed;

/// The kernel's refusal of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive; from 4096 on it is one of the family's own.
    pub code: i32,
    /// The kernel's sentence about it (extended acknowledgement).
    pub text: Option<Box<str>>,
}

/// Why an exchange with the kernel gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The kernel refused.
    Refused(Refusal),
    /// A system call failed with this error number; nothing was carried out.
    System(i32),
    /// The answer was lost: whether it was carried out is unknown.
    Lost(i32),
    /// The list changed during so many attempts to read it.
    Interrupted(u32),
    /// An answer makes no sense.
    Malformed(Malformed),
}

/// What a failure means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was to be made is there already.
    Exists,
    /// What was asked for is not there.
    NotFound,
    /// It is in use, or the kernel has no time: try again later.
    Busy,
    /// There is no room for more.
    Full,
    /// What is there is of another kind than asked for.
    WrongKind,
    /// The process lacks `CAP_NET_ADMIN`.
    NoPermission,
    /// The kernel cannot do it.
    Unsupported,
    /// The kernel, or a crate on its behalf, does not take these values.
    Invalid,
    /// The answer was lost: it may or may not have been carried out. Read back before deciding.
    Uncertain,
    /// The list changed during every attempt to read it.
    Interrupted,
    /// The socket, or an answer that makes no sense.
    Io,
}

/// A failed operation.
///
/// Its text names the operation and the object; why is in [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    operation: String,
    kind: ErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// What it means for the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Without a cause beside the operation's text.
    pub fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        Self { operation: operation.into(), kind, source: None }
    }

    /// With a cause.
    pub fn with_source(
        kind: ErrorKind,
        operation: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self { operation: operation.into(), kind, source: Some(Box::new(source)) }
    }

    /// Of a failure, with the meaning that it has for most families.
    pub fn failed(operation: impl Into<String>, failure: impl Into<Failure>) -> Self {
        let failure = failure.into();
        Self::with_source(failure.kind(), operation, failure)
    }
}

impl Failure {
    /// The meaning that it has for most families.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(Refusal { code, .. }) | Self::System(code) => of_number(*code),
            Self::Lost(_) => ErrorKind::Uncertain,
            Self::Interrupted(_) => ErrorKind::Interrupted,
            Self::Malformed(_) => ErrorKind::Io,
        }
    }

    /// The error number, if the kernel or a system call gave one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused(Refusal { code, .. }) | Self::System(code) | Self::Lost(code) => {
                Some(*code)
            }
            Self::Interrupted(_) | Self::Malformed(_) => None,
        }
    }

    /// Whether the kernel refused with this error number.
    pub fn is_refusal(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.is(errno))
    }
}

impl Refusal {
    /// Whether it has this error number.
    pub fn is(&self, errno: Errno) -> bool {
        self.code == errno.raw_os_error()
    }
}

fn of_number(code: i32) -> ErrorKind {
    // `Errno` takes no others.
    if !(1..4096).contains(&code) {
        return ErrorKind::Io;
    }
    match Errno::from_raw_os_error(code) {
        Errno::EXIST => ErrorKind::Exists,
        Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NXIO | Errno::ADDRNOTAVAIL => {
            ErrorKind::NotFound
        }
        Errno::BUSY | Errno::AGAIN => ErrorKind::Busy,
        Errno::PERM | Errno::ACCESS => ErrorKind::NoPermission,
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::NOSYS => {
            ErrorKind::Unsupported
        }
        Errno::INVAL | Errno::RANGE => ErrorKind::Invalid,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            write!(f, "{text}: ")?;
        }
        match self.code {
            1..=4095 => os_text(self.code).fmt(f),
            code => write!(f, "error {code} of the subsystem"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::System(code) => os_text(*code).fmt(f),
            Self::Lost(code) => write!(
                f,
                "the kernel's answer was lost, the change may or may not have been made: {}",
                os_text(*code)
            ),
            Self::Interrupted(attempts) => {
                write!(f, "the list changed during each of {attempts} attempts to read it")
            }
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl StdError for Refusal {}
impl StdError for Failure {}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Of a system call.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::System(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()))
    }
}

fn os_text(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_operation_and_the_source_says_why() {
        let refusal = Refusal { code: Errno::NODEV.raw_os_error(), text: Some("no link".into()) };
        let error = Error::failed("add address 10.0.0.1/32", refusal);
        assert_eq!(error.to_string(), "add address 10.0.0.1/32");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let source = error.source().map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("no link: No such device (os error 19)"));
        let error = Error::failed("x", Refusal { code: 4103, text: None });
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("error 4103 of the subsystem")
        );
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn failures_keep_their_meaning() {
        let permission = io::Error::from_raw_os_error(Errno::PERM.raw_os_error());
        assert_eq!(Failure::from(permission).kind(), ErrorKind::NoPermission);
        assert_eq!(Failure::from(io::Error::other("odd")).kind(), ErrorKind::Io);
        assert_eq!(Failure::Lost(105).kind(), ErrorKind::Uncertain);
        assert_eq!(Failure::Interrupted(8).kind(), ErrorKind::Interrupted);
        assert_eq!(Failure::from(Malformed("x")).kind(), ErrorKind::Io);
    }
}
