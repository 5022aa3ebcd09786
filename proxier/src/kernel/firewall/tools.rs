//! Which iptables programs this host has, and which of them its rules live with.

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};

use netlink_ipvs::Family;

use crate::iptables::{Installed, save};

/// The two implementations of iptables. Their rules live in different parts of the kernel: a node
/// whose parts use both filters every packet twice, in an order nobody chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// The kernel's own tables of xtables.
    Legacy,
    /// Translated for `nf_tables`.
    Nft,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Legacy => "legacy",
            Self::Nft => "nf_tables",
        })
    }
}

/// A version of iptables, such as 1.8.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, or 0.
    pub patch: u32,
}

impl Version {
    /// Since then `MASQUERADE` takes `--random-fully` and `iptables-restore` waits for the lock.
    const RANDOM_FULLY: Self = Self { major: 1, minor: 6, patch: 2 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The programs of one family that are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// `iptables` or `ip6tables`, perhaps with `-legacy` or `-nft`.
    pub(super) main: PathBuf,
    pub(super) save: PathBuf,
    pub(super) restore: PathBuf,
    /// Which implementation.
    pub variant: Variant,
    /// Its version.
    pub version: Version,
}

impl Tools {
    /// Whether `MASQUERADE` takes `--random-fully`.
    pub fn random_fully(&self) -> bool {
        self.version >= Version::RANDOM_FULLY
    }

    /// The arguments that make the restoring program wait for the lock.
    pub(super) fn wait(&self) -> &'static [&'static str] {
        if self.version >= Version::RANDOM_FULLY { &["-w", "5"] } else { &[] }
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.main.display(), self.version, self.variant)
    }
}

/// The three programs of one family and flavour, before anything is known about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) main: PathBuf,
    pub(super) save: PathBuf,
    pub(super) restore: PathBuf,
}

impl Programs {
    /// Looks for `iptables`, `iptables-legacy` or `iptables-nft` with its companions, all in one
    /// directory.
    pub(super) fn find(
        directories: &[PathBuf],
        family: Family,
        variant: Option<Variant>,
    ) -> Option<Self> {
        let base = match family {
            Family::Ipv4 => "iptables",
            Family::Ipv6 => "ip6tables",
        };
        let base = match variant {
            None => base.to_owned(),
            Some(Variant::Legacy) => format!("{base}-legacy"),
            Some(Variant::Nft) => format!("{base}-nft"),
        };
        directories.iter().find_map(|directory| {
            let of = |suffix: &str| -> Option<PathBuf> {
                Some(directory.join(format!("{base}{suffix}"))).filter(|path| is_program(path))
            };
            Some(Self { main: of("")?, save: of("-save")?, restore: of("-restore")? })
        })
    }

    pub(super) fn with(self, (version, variant): (Version, Variant)) -> Tools {
        let Self { main, save, restore } = self;
        Tools { main, save, restore, variant, version }
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// From the output of `iptables --version`: `iptables v1.8.9 (nf_tables)`; before 1.8 there was one
/// implementation and nothing in brackets.
pub(super) fn parse_version(text: &str) -> Option<(Version, Variant)> {
    let mut words = text.split_whitespace().skip(1);
    let mut numbers = words.next()?.strip_prefix('v')?.split('.').map(|number| {
        let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        number[..end].parse().ok()
    });
    let major = numbers.next()??;
    let minor = numbers.next()??;
    let patch = numbers.next().flatten().unwrap_or(0);
    let variant =
        if words.any(|word| word == "(nf_tables)") { Variant::Nft } else { Variant::Legacy };
    Some((Version { major, minor, patch }, variant))
}

/// What speaks for one implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Evidence {
    /// The kubelet left its mark there: that is what the mark is for.
    pub(super) kubelet: bool,
    /// Our chains, or kube-proxy's, are there.
    ours: bool,
    /// Rules of anyone.
    rules: usize,
}

impl Evidence {
    /// From everything that its `iptables-save` prints.
    pub(super) fn of(save_text: &str) -> Self {
        let mut out =
            Self { ours: !Installed::parse(Family::Ipv4, save_text).is_empty(), ..Self::default() };
        for line in save::lines(save_text) {
            out.rules += usize::from(line.spec.is_some());
            out.kubelet |= line.table == "mangle"
                && matches!(line.chain, "KUBE-IPTABLES-HINT" | "KUBE-KUBELET-CANARY");
        }
        out
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            kubelet: self.kubelet || other.kubelet,
            ours: self.ours || other.ours,
            rules: self.rules + other.rules,
        }
    }
}

/// The implementation that this host uses, if anything tells. With the kubelet's marks in both it
/// is `nf_tables`: the others can be left over from before a change to it.
pub(super) fn choose(nft: Evidence, legacy: impl FnOnce() -> Evidence) -> Option<Variant> {
    if nft.kubelet {
        return Some(Variant::Nft);
    }
    let legacy = legacy();
    let of = |evidence: Evidence| (evidence.kubelet, evidence.ours, evidence.rules);
    match of(nft).cmp(&of(legacy)) {
        Ordering::Greater => Some(Variant::Nft),
        Ordering::Less => Some(Variant::Legacy),
        Ordering::Equal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_iptables_prints_them() {
        let version = |major, minor, patch| Version { major, minor, patch };
        for (text, expected) in [
            ("iptables v1.8.9 (nf_tables)\n", Some((version(1, 8, 9), Variant::Nft))),
            ("ip6tables v1.8.10 (legacy)\n", Some((version(1, 8, 10), Variant::Legacy))),
            ("iptables v1.4.21\n", Some((version(1, 4, 21), Variant::Legacy))),
            ("iptables v1.6\n", Some((version(1, 6, 0), Variant::Legacy))),
            ("BusyBox\n", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
        let tools = |version| Tools {
            main: PathBuf::new(),
            save: PathBuf::new(),
            restore: PathBuf::new(),
            variant: Variant::Legacy,
            version,
        };
        assert!(tools(version(1, 6, 2)).random_fully());
        assert!(!tools(version(1, 6, 1)).random_fully());
        assert!(tools(version(1, 6, 1)).wait().is_empty());
    }

    #[test]
    fn the_kubelet_then_our_chains_then_the_number_of_rules_decide() {
        let hint = Evidence::of("*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n");
        let canary = Evidence::of("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n");
        let ours = Evidence::of("*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n");
        let rules = Evidence::of("*filter\n-A INPUT -j DROP\n-A INPUT -j DROP\nCOMMIT\n");
        let none = Evidence::of("");
        let choose = |legacy, nft| choose(nft, || legacy);
        assert_eq!(choose(none, none), None);
        assert_eq!(choose(rules, rules), None);
        assert_eq!(choose(none, rules), Some(Variant::Nft));
        assert_eq!(choose(rules, none), Some(Variant::Legacy));
        assert_eq!(choose(ours, rules), Some(Variant::Legacy));
        assert_eq!(choose(ours.and(rules), hint), Some(Variant::Nft));
        assert_eq!(choose(canary, ours), Some(Variant::Legacy));
        assert_eq!(choose(canary, hint), Some(Variant::Nft));
        assert_eq!(Evidence::of("*nat\n:KUBE-IPTABLES-HINT - [0:0]\n"), none);
    }
}
