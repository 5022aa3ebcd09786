//! ipset's own error numbers (`enum ipset_errno`, `ip_set_hash.h`, `ip_set_bitmap.h`).

use std::error::Error as StdError;
use std::fmt;

use netlink_batch::{Error, ErrorKind, Failure, Refusal};

const PROTOCOL: i32 = 4097;
const FIND_TYPE: i32 = 4098;
const MAX_SETS: i32 = 4099;
const BUSY: i32 = 4100;
const EXIST_SETNAME2: i32 = 4101;
const TYPE_MISMATCH: i32 = 4102;
pub(super) const EXIST: i32 = 4103;
const INVALID_CIDR: i32 = 4104;
const INVALID_NETMASK: i32 = 4105;
const INVALID_FAMILY: i32 = 4106;
const TIMEOUT: i32 = 4107;
const REFERENCED: i32 = 4108;
const IPADDR_IPV4: i32 = 4109;
const IPADDR_IPV6: i32 = 4110;
const COUNTER: i32 = 4111;
const COMMENT: i32 = 4112;
const INVALID_MARKMASK: i32 = 4113;
const SKBINFO: i32 = 4114;
// From here on the numbers depend on the type of the set.
const HASH_FULL_OR_BITMAP_RANGE: i32 = 4352;
const HASH_ELEM_OR_BITMAP_RANGE_SIZE: i32 = 4353;
const INVALID_PROTO: i32 = 4354;
const MISSING_PROTO: i32 = 4355;
const HASH_RANGE_UNSUPPORTED: i32 = 4356;
const HASH_RANGE: i32 = 4357;

/// What a command was about, as far as its error numbers depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// A set.
    Set,
    /// A second set's name: of a swap it must be there, of a rename it must not.
    Swap,
    /// See `Swap`.
    Rename,
    /// A member of a hash.
    HashMember,
    /// A member of a bitmap.
    BitmapMember,
}

/// ipset's explanation of an error number.
#[derive(Debug)]
struct Explained(&'static str, i32);

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ipset error {})", self.0, self.1)
    }
}

impl StdError for Explained {}

fn explain(code: i32, about: About) -> Option<(ErrorKind, &'static str)> {
    use ErrorKind::{Busy, Exists, Full, Invalid, NotFound, Unsupported, WrongKind};
    Some(match (code, about) {
        (PROTOCOL, About::HashMember | About::BitmapMember) => {
            (WrongKind, "the member does not fit the set's type and family")
        }
        (PROTOCOL, _) => (Unsupported, "the kernel does not accept this message"),
        (FIND_TYPE, _) => (Unsupported, "the kernel has no such set type (module missing?)"),
        (MAX_SETS, _) => (Full, "the kernel holds as many sets as it can"),
        (BUSY | REFERENCED, _) => (Busy, "the set is in use by a rule or another set"),
        (EXIST_SETNAME2, About::Swap) => (NotFound, "there is no second set"),
        (EXIST_SETNAME2, _) => (Exists, "a set of the new name exists"),
        (TYPE_MISMATCH, _) => (WrongKind, "the sets have different types"),
        (EXIST, About::HashMember | About::BitmapMember) => {
            (Exists, "the member is there already, or not there to be removed")
        }
        (EXIST, _) => (Exists, "a set of this name exists with other options"),
        (INVALID_CIDR, _) => (Invalid, "the prefix length is out of range"),
        (INVALID_NETMASK, _) => (Invalid, "the netmask is invalid"),
        (INVALID_FAMILY, _) => (Invalid, "the set type does not have this address family"),
        (TIMEOUT, _) => (Invalid, "the set was made without timeouts"),
        (IPADDR_IPV4, _) => (WrongKind, "an IPv4 address is wanted"),
        (IPADDR_IPV6, _) => (WrongKind, "an IPv6 address is wanted"),
        (COUNTER, _) => (Invalid, "the set was made without counters"),
        (COMMENT, _) => (Invalid, "the set was made without comments"),
        (INVALID_MARKMASK, _) => (Invalid, "the mark mask is invalid"),
        (SKBINFO, _) => (Invalid, "the set was made without packet marks"),
        (HASH_FULL_OR_BITMAP_RANGE, About::HashMember) => (Full, "the set is full"),
        (HASH_FULL_OR_BITMAP_RANGE, About::BitmapMember) => {
            (WrongKind, "the port is outside of the set's range")
        }
        (HASH_ELEM_OR_BITMAP_RANGE_SIZE, About::HashMember) => {
            (Invalid, "an all-zero member is not possible")
        }
        (INVALID_PROTO, _) => (Invalid, "the set type does not take this protocol"),
        (MISSING_PROTO, _) => (Invalid, "the protocol is missing"),
        (HASH_RANGE_UNSUPPORTED | HASH_RANGE, _) => (Invalid, "the range is invalid"),
        _ => return None,
    })
}

pub(super) fn failed(operation: impl Into<String>, failure: Failure, about: About) -> Error {
    if let Failure::Refused(Refusal { code, .. }) = failure
        && let Some((kind, text)) = explain(code, about)
    {
        return Error::with_source(kind, operation, Explained(text, code));
    }
    Error::failed(operation, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: i32, about: About) -> ErrorKind {
        failed("x", Refusal { code, text: None }.into(), about).kind()
    }

    #[test]
    fn a_number_means_what_the_command_was_about() {
        assert_eq!(kind(EXIST, About::HashMember), ErrorKind::Exists);
        assert_eq!(kind(4352, About::HashMember), ErrorKind::Full);
        assert_eq!(kind(4352, About::BitmapMember), ErrorKind::WrongKind);
        assert_eq!(kind(EXIST_SETNAME2, About::Swap), ErrorKind::NotFound);
        assert_eq!(kind(EXIST_SETNAME2, About::Rename), ErrorKind::Exists);
        assert_eq!(kind(2, About::Set), ErrorKind::NotFound);
        assert_eq!(kind(1, About::Set), ErrorKind::NoPermission);
        assert_eq!(kind(9999, About::Set), ErrorKind::Io);
    }

    #[test]
    fn the_cause_is_readable() {
        let error = failed(
            "add 10.0.0.1 to set KUBE-IPVS-IPS",
            Refusal { code: 4352, text: None }.into(),
            About::HashMember,
        );
        assert_eq!(error.to_string(), "add 10.0.0.1 to set KUBE-IPVS-IPS");
        assert_eq!(error.source().unwrap().to_string(), "the set is full (ipset error 4352)");
    }
}
