//! What the kernel's refusals mean for interfaces and their addresses.

use netlink_batch::{Error, ErrorKind, Failure};
use rustix::io::Errno;

/// Of a failed exchange.
pub(crate) fn failed(operation: impl Into<String>, failure: impl Into<Failure>) -> Error {
    let failure = failure.into();
    // The answer for an IPv6 address where disable_ipv6 is set.
    let unsupported = failure.is_refusal(Errno::ACCESS);
    let kind = if unsupported { ErrorKind::Unsupported } else { failure.kind() };
    Error::with_source(kind, operation, failure)
}

#[cfg(test)]
mod tests {
    use netlink_batch::Refusal;

    use super::*;

    #[test]
    fn a_refusal_means_what_the_operation_was_about() {
        let refused = |errno: Errno| Refusal { code: errno.raw_os_error(), text: None };
        for (errno, kind) in [
            (Errno::ACCESS, ErrorKind::Unsupported),
            (Errno::PERM, ErrorKind::NoPermission),
            (Errno::NODEV, ErrorKind::NotFound),
            (Errno::ADDRNOTAVAIL, ErrorKind::NotFound),
        ] {
            assert_eq!(failed("x", refused(errno)).kind(), kind, "{errno}");
        }
    }
}
