//! Why a transaction was not carried out.

use std::error::Error as StdError;
use std::fmt;

use netlink_batch::{ErrorKind, Failure, Refusal};
use rustix::io::Errno;

/// A transaction that was not carried out, or of which that is not known.
///
/// Its text names the first request that was refused; why is in
/// [`source`](std::error::Error::source).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub(crate) requests: Vec<RefusedRequest>,
    pub(crate) failure: Failure,
}

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRequest {
    /// Its place in the transaction, from 0.
    pub index: usize,
    /// What it was to do: `add rule to ip proxy prerouting`.
    pub what: String,
    /// Why it was refused.
    pub refusal: Refusal,
}

impl Refused {
    /// Every request that was refused, in order. The kernel goes on after the first one, so that a
    /// later one may be refused only for what the first one did not do. Empty if all of them failed
    /// together: they were not sent, the generation was another one, or the answer was lost. The
    /// end may be missing where hundreds were refused.
    pub fn requests(&self) -> &[RefusedRequest] {
        &self.requests
    }

    /// Why: what is about all requests, or the first refusal.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// What it means for the caller.
    pub fn kind(&self) -> ErrorKind {
        // A set is full: here it has nothing to do with files.
        if self.failure.is_refusal(Errno::NFILE) {
            return ErrorKind::Full;
        }
        self.failure.kind()
    }

    /// Whether it may have been carried out all the same, because the answer was lost: read back
    /// before deciding.
    pub fn is_uncertain(&self) -> bool {
        self.kind() == ErrorKind::Uncertain
    }

    /// Whether the generation was not the one that was asked for (`ERESTART`): somebody has changed
    /// something since it was read.
    pub fn is_outdated(&self) -> bool {
        self.failure.is_refusal(Errno::RESTART)
    }

    /// Whether it was longer than the send buffer may be (`EMSGSIZE`). Only with `CAP_NET_ADMIN` in
    /// the first user namespace it may be as long as needed; otherwise about twice
    /// `net.core.wmem_max`.
    pub fn is_too_long(&self) -> bool {
        self.failure.code() == Some(Errno::MSGSIZE.raw_os_error())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.requests.as_slice() {
            [] => f.write_str("commit a transaction of nftables"),
            [only] => f.write_str(&only.what),
            [first, others @ ..] => write!(f, "{} (and {} more)", first.what, others.len()),
        }
    }
}

impl StdError for Refused {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.failure)
    }
}
