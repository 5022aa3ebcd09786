//! Errors of the netfilter subsystems, in the words of the caller's question.

use std::error::Error as StdError;
use std::{fmt, io};

use rustix::io::Errno;

/// A failed operation on a set or on flows.
///
/// Its text names the operation and the object; what the kernel answered is in
/// [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    operation: String,
    kind: ErrorKind,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What an [`Error`] means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is there already.
    Exists,
    /// There is no such set, member or flow.
    NotFound,
    /// A set is in use, by a rule or another set.
    Busy,
    /// A set holds as many members as it was made for, or the kernel as many sets.
    Full,
    /// Two sets have different types, or a member does not fit a set's type.
    Mismatch,
    /// The process lacks `CAP_NET_ADMIN`.
    NoPermission,
    /// The kernel lacks the subsystem, a set type or its protocol version.
    Unsupported,
    /// The kernel or this program refuses the request as malformed.
    Invalid,
    /// No answer in time; whether it was done is unknown.
    Timeout,
    /// Anything else, including answers that cannot be understood.
    Io,
}

/// The kernel's refusal of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A positive error number; from 4096 on the subsystem's own.
    pub(crate) code: i32,
    /// The kernel's sentence about it (extended ack).
    pub(crate) message: Option<Box<str>>,
}

/// Why an exchange with the kernel gave no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel said no.
    Refused(Refusal),
    /// There was no usable answer.
    Io(io::Error),
}

impl Error {
    /// What this error means for the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        Self { operation: operation.into(), kind, source: None }
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        operation: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self { operation: operation.into(), kind, source: Some(Box::new(source)) }
    }

    pub(crate) fn io(operation: impl Into<String>, error: io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(code) => ErrorKind::of_errno(code),
            None => ErrorKind::Io,
        };
        Self::with_source(kind, operation, error)
    }
}

impl ErrorKind {
    /// The meaning of an error number of the system.
    pub(crate) fn of_errno(code: i32) -> Self {
        const fn is(code: i32, errno: Errno) -> bool {
            code == errno.raw_os_error()
        }
        match code {
            _ if is(code, Errno::EXIST) => Self::Exists,
            _ if is(code, Errno::NOENT) => Self::NotFound,
            _ if is(code, Errno::BUSY) => Self::Busy,
            _ if is(code, Errno::PERM) || is(code, Errno::ACCESS) => Self::NoPermission,
            _ if is(code, Errno::OPNOTSUPP)
                || is(code, Errno::PROTONOSUPPORT)
                || is(code, Errno::AFNOSUPPORT) =>
            {
                Self::Unsupported
            }
            _ if is(code, Errno::INVAL) || is(code, Errno::RANGE) => Self::Invalid,
            _ if is(code, Errno::AGAIN) || is(code, Errno::TIMEDOUT) => Self::Timeout,
            _ => Self::Io,
        }
    }
}

impl Refusal {
    pub(crate) fn is_permission(&self) -> bool {
        self.code == Errno::PERM.raw_os_error()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            1..4096 => io::Error::from_raw_os_error(self.code).fmt(f)?,
            code => write!(f, "error {code} of the subsystem")?,
        }
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

impl StdError for Refusal {}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
