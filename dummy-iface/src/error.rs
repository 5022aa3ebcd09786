//! What can go wrong, in the words of the caller's question.

use std::error::Error as StdError;
use std::{fmt, io};

use rustix::io::Errno;

/// A failed operation on an interface or its addresses.
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
    /// It is there already (`EEXIST`).
    Exists,
    /// The interface or address is not there (`ENODEV`, `EADDRNOTAVAIL`).
    NotFound,
    /// The process lacks `CAP_NET_ADMIN` (`EPERM`).
    NoPermission,
    /// The kernel cannot do it: no dummy module, no IPv6, or IPv6 disabled.
    Unsupported,
    /// An interface of that name exists and is not a dummy interface.
    WrongKind,
    /// The kernel or this crate refuses the request as malformed.
    Invalid,
    /// The kernel's tables kept changing while they were read (`NLM_F_DUMP_INTR`).
    Busy,
    /// No answer in time; whether it was done is unknown.
    Timeout,
    /// Anything else.
    Io,
}

/// The kernel's refusal: an error number and, if it gave one, a sentence (extended ack).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) message: Option<Box<str>>,
}

impl Error {
    /// What this error means for the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        Self { operation: operation.into(), kind, source: None }
    }

    pub(crate) fn refused(operation: impl Into<String>, refusal: Refusal) -> Self {
        Self {
            operation: operation.into(),
            kind: ErrorKind::of(refusal.errno),
            source: Some(Box::new(refusal)),
        }
    }

    pub(crate) fn io(operation: impl Into<String>, error: io::Error) -> Self {
        let kind = match Errno::from_io_error(&error) {
            Some(errno) => ErrorKind::of(errno),
            None if error.kind() == io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            None => ErrorKind::Io,
        };
        Self { operation: operation.into(), kind, source: Some(Box::new(error)) }
    }

    pub(crate) fn link(operation: impl Into<String>, error: rtnetlink::Error) -> Self {
        match &error {
            rtnetlink::Error::NetlinkError(refused) => {
                Self::refused(operation, Refusal::new(refused.raw_code()))
            }
            _ => Self {
                operation: operation.into(),
                kind: ErrorKind::Io,
                source: Some(Box::new(error)),
            },
        }
    }
}

impl ErrorKind {
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::EXIST => Self::Exists,
            Errno::NODEV | Errno::ADDRNOTAVAIL | Errno::NOENT | Errno::NXIO => Self::NotFound,
            Errno::PERM => Self::NoPermission,
            // ACCESS is the answer for an IPv6 address where disable_ipv6 is set.
            Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::ACCESS => {
                Self::Unsupported
            }
            Errno::INVAL | Errno::RANGE => Self::Invalid,
            Errno::BUSY => Self::Busy,
            Errno::AGAIN | Errno::TIMEDOUT => Self::Timeout,
            _ => Self::Io,
        }
    }
}

impl Refusal {
    /// From the negative error number of a netlink message.
    pub(crate) fn new(code: i32) -> Self {
        // What is outside this range is no error number, and `Errno` refuses it.
        let errno = match code.saturating_neg() {
            number @ 1..4096 => Errno::from_raw_os_error(number),
            _ => Errno::IO,
        };
        Self { errno, message: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{} ({message})", self.errno),
            None => self.errno.fmt(f),
        }
    }
}

impl StdError for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_operation_and_the_cause_is_the_source() {
        let error = Error::refused(
            "add address 10.0.0.1/32",
            Refusal { errno: Errno::NODEV, message: Some("no such device".into()) },
        );
        assert_eq!(error.to_string(), "add address 10.0.0.1/32");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let cause = error.source().unwrap().to_string();
        assert!(cause.ends_with("(no such device)"), "{cause}");
    }

    #[test]
    fn io_errors_keep_their_meaning() {
        let error = Error::io("x", io::Error::from_raw_os_error(Errno::PERM.raw_os_error()));
        assert_eq!(error.kind(), ErrorKind::NoPermission);
        let error = Error::io("x", io::Error::new(io::ErrorKind::InvalidData, "odd"));
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
