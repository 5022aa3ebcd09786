//! Names that the kernel holds in 16 bytes, closing zero included.

use std::fmt;
use std::str::FromStr;

use netlink_batch::Malformed;

/// Up to 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Name {
    const MAX: usize = 15;

    /// Of at most [`Self::MAX`] bytes.
    const fn fixed(name: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut i = 0;
        while i < name.len() {
            bytes[i] = name[i];
            i += 1;
        }
        Self { bytes, len: name.len() as u8 }
    }

    /// An attribute's value, up to its closing zero.
    fn of_kernel(value: &[u8], what: &'static str) -> Result<Self, Malformed> {
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        if end > Self::MAX {
            Err(Malformed(what))
        } else {
            Ok(Self::fixed(&value[..end]))
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(self.as_bytes()))
    }
}

/// The text is no name of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseNameError {
    text: String,
    what: &'static str,
}

macro_rules! names {
    ($( $(#[$doc:meta])* $name:ident: $kind:literal, $rule:literal, $allowed:expr; )*) => { $(
        $(#[$doc])*
        ///
        /// Every name that the kernel gives is kept as it is; parsing a text is stricter.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Name);

        impl $name {
            /// The longest name in bytes.
            pub const MAX: usize = Name::MAX;

            /// The name as the kernel has it. `Display` shows what is not UTF-8 as `\u{fffd}`.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            pub(crate) fn of_kernel(value: &[u8]) -> Result<Self, Malformed> {
                Name::of_kernel(value, $kind).map(Self)
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let allowed: fn(u8) -> bool = $allowed;
                if (1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) {
                    return Ok(Self(Name::fixed(text.as_bytes())));
                }
                Err(ParseNameError { text: text.to_owned(), what: concat!("a ", $kind, ": it takes ", $rule) })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0.to_string())
            }
        }
    )* };
}

names! {
    /// How a virtual server distributes connections (`ipvsadm -s`): the kernel's name of it. The
    /// kernel loads the module `ip_vs_NAME` when the name is first used.
    Scheduler: "scheduler name", "1 to 15 letters, digits, '-' or '_'", in_module_names;
    /// What a persistent connection is recognised by instead of the client's address
    /// (`ipvsadm --pe`), such as `sip`. The kernel loads the module `ip_vs_pe_NAME`.
    PersistenceEngine: "persistence engine name", "1 to 15 letters, digits, '-' or '_'",
        in_module_names;
    /// Name of a network interface.
    InterfaceName: "interface name", "1 to 15 bytes without '/', ':' and white space",
        |byte| !matches!(byte, b'/' | b':' | 0) && !byte.is_ascii_whitespace();
}

const fn in_module_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

impl PersistenceEngine {
    /// The Call-ID of SIP messages over UDP.
    pub const SIP: Self = Self(Name::fixed(b"sip"));
}

impl Scheduler {
    /// Round robin.
    pub const RR: Self = Self::fixed("rr");
    /// Weighted round robin.
    pub const WRR: Self = Self::fixed("wrr");
    /// Least connections.
    pub const LC: Self = Self::fixed("lc");
    /// Weighted least connections.
    pub const WLC: Self = Self::fixed("wlc");
    /// Locality-based least connections.
    pub const LBLC: Self = Self::fixed("lblc");
    /// Locality-based least connections with replication.
    pub const LBLCR: Self = Self::fixed("lblcr");
    /// Destination hashing.
    pub const DH: Self = Self::fixed("dh");
    /// Source hashing.
    pub const SH: Self = Self::fixed("sh");
    /// Shortest expected delay.
    pub const SED: Self = Self::fixed("sed");
    /// Never queue.
    pub const NQ: Self = Self::fixed("nq");
    /// Weighted fail-over.
    pub const FO: Self = Self::fixed("fo");
    /// Weighted overflow.
    pub const OVF: Self = Self::fixed("ovf");
    /// Maglev hashing.
    pub const MH: Self = Self::fixed("mh");
    /// The better of two real servers picked at random by weight.
    pub const TWOS: Self = Self::fixed("twos");
    /// No scheduler: the virtual server takes no connections.
    pub const NONE: Self = Self::fixed("none");

    const fn fixed(name: &str) -> Self {
        Self(Name::fixed(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_checked_and_a_name_of_the_kernel_is_kept() {
        assert_eq!("rr".parse(), Ok(Scheduler::RR));
        for text in ["", "sixteen-letters-", "r r", "r/r", "rr\0"] {
            let error = text.parse::<Scheduler>().unwrap_err().to_string();
            assert!(error.contains("is not a scheduler name: it takes 1 to 15"), "{error}");
        }
        assert!("eth0.5@x".parse::<InterfaceName>().is_ok());
        assert!("a b".parse::<InterfaceName>().is_err());

        let odd = Scheduler::of_kernel(b"a.b \xff\0rest").unwrap();
        assert_eq!(odd.as_bytes(), b"a.b \xff");
        assert_eq!(odd.to_string(), "a.b \u{fffd}");
        assert_eq!(format!("{odd:?}"), "Scheduler(\"a.b \u{fffd}\")");
        assert_eq!(format!("{:<4}|", Scheduler::RR), "rr  |");
        assert_eq!(Scheduler::of_kernel(&[b'x'; 15]).unwrap().as_bytes().len(), 15);
        assert_eq!(Scheduler::of_kernel(&[b'x'; 16]), Err(Malformed("scheduler name")));
    }
}
