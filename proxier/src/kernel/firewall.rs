//! Reads and changes the firewall rules with the host's iptables programs.
//!
//! The only place that starts processes. Each call blocks until the program has ended. A change takes a few
//! seconds at most for all its programs together, since the loop waits for it: what is not done by then
//! is killed and tried again with twice the time, up to [`Firewall::LIMIT`].

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netlink_ipvs::Family;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::geteuid;

pub use self::error::{Error, ErrorKind};
pub use self::tools::{Tools, Variant, Version};

use self::process::Finished;
use self::tools::{Evidence, Programs};
use crate::dataplane::firewall::Ruleset;
use crate::iptables::{self, Installed, Leftovers, Scope};

mod error;
mod process;
mod tools;

/// The firewall of this network namespace, both families.
///
/// A clone has the same programs and counts the same processes, and knows what was installed so far.
#[derive(Debug, Clone)]
pub struct Firewall {
    families: PerFamily,
    directories: Vec<PathBuf>,
    /// Other flavours of programs to try if these turn out not to work: `iptables-nft` reads empty
    /// tables from a kernel that has no such tables, and fails only when it shall write. Empty
    /// where something told which to use, and once rules are installed.
    others: VecDeque<Option<Variant>>,
    /// What was read back right after an installation, with the rules that were asked for: a version
    /// of iptables may print a rule in other words than we do.
    installed: BTreeMap<Family, (Ruleset, Ruleset)>,
    processes: Arc<AtomicU64>,
    patience: Duration,
    /// When the change that is under way has to be done.
    deadline: Option<Instant>,
}

/// The programs of each family, or why it cannot be used.
#[derive(Debug, Clone)]
struct PerFamily {
    ipv4: Result<Tools, Arc<Error>>,
    ipv6: Result<Tools, Arc<Error>>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What is installed of ours: equal to what was last installed exactly when nothing has
    /// changed since.
    pub ours: Option<Ruleset>,
    /// Whether kube-proxy's iptables mode has left anything that works and that we do not have.
    pub left_over: bool,
}

/// What became of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Installation {
    /// The kernel lacks the match `physdev`; the rules were installed without it, which for such a
    /// kernel is the same.
    pub without_physdev: bool,
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removal {
    /// Whether there was anything of ours.
    pub found: bool,
    /// Rules of others that lead to our chains, which are therefore empty but still there.
    pub foreign: Vec<String>,
}

impl Firewall {
    /// A program that runs longer is killed, whatever it does.
    pub const LIMIT: Duration = Duration::from_mins(1);

    /// How long a change may take at first, with all its programs: longer than they wait for the lock.
    pub const PATIENCE: Duration = Duration::from_secs(8);

    /// The environment variable that names the only directory to look for the programs in; the
    /// program's start reads it and passes it to [`Self::find`].
    pub const DIRECTORY_VARIABLE: &str = "PROXIER_IPTABLES_DIR";

    /// Looks for the programs, in `directory` or where distributions put them, and tries them. A
    /// family that cannot be used is not an error here: [`Self::tools`] says why.
    ///
    /// Where both implementations of iptables are installed, the one is taken that the kubelet
    /// marked, that holds our chains, or that holds more rules, as the ecosystem's wrapper scripts
    /// do; with no rules anywhere the host's default, and then whichever works.
    pub fn find(directory: Option<&Path>) -> Self {
        let directories: Vec<PathBuf> = match directory {
            Some(directory) => vec![directory.to_owned()],
            None => process::SEARCH_PATH.split(':').map(PathBuf::from).collect(),
        };
        let mut firewall = Self {
            families: PerFamily {
                ipv4: Err(Arc::new(Error::not_installed(Family::Ipv4, &directories))),
                ipv6: Err(Arc::new(Error::not_installed(Family::Ipv6, &directories))),
            },
            directories,
            others: VecDeque::new(),
            installed: BTreeMap::new(),
            processes: Arc::default(),
            patience: Self::PATIENCE,
            deadline: None,
        };
        firewall.others = firewall.candidates();
        while !firewall.families.any() {
            let Some(variant) = firewall.others.pop_front() else { break };
            let found = firewall.probe(variant);
            if found.any() {
                firewall.families = found;
                continue;
            }
            let refused = found.lacks_rights();
            firewall.families.explain(found);
            // Others may seem to work, but the rules of this host are not there.
            if refused {
                break;
            }
        }
        firewall
    }

    /// The programs of a family, or why it cannot be used on this host.
    pub fn tools(&self, family: Family) -> Result<&Tools, Arc<Error>> {
        match family {
            Family::Ipv4 => &self.families.ipv4,
            Family::Ipv6 => &self.families.ipv6,
        }
        .as_ref()
        .map_err(Arc::clone)
    }

    /// What is installed of ours. One process.
    pub fn observe(&self, family: Family) -> Result<Installed, Arc<Error>> {
        Ok(Installed::parse(family, &self.save_text(family)?))
    }

    /// What is installed of ours, and whether iptables mode has left anything. One process.
    pub fn look(&self, family: Family) -> Result<Found, Arc<Error>> {
        let text = self.save_text(family)?;
        let left_over = Leftovers::find(&text, Scope::NotOurs).is_active();
        let installed = Installed::parse(family, &text);
        if installed.is_empty() {
            return Ok(Found { ours: None, left_over });
        }
        let found = installed.rules();
        let ours = match self.installed.get(&family) {
            Some((printed, asked)) if printed == found => asked,
            _ => found,
        };
        Ok(Found { ours: Some(ours.clone()), left_over })
    }

    /// Removes what iptables mode has left; whether there was anything. One or two processes.
    pub fn remove_leftovers(&mut self, family: Family, scope: Scope) -> Result<bool, Arc<Error>> {
        self.within_patience(|firewall| {
            let leftovers = Leftovers::find(&firewall.save_text(family)?, scope);
            if leftovers.is_empty() {
                return Ok(false);
            }
            firewall.restore(
                family,
                "remove rules of iptables mode",
                &leftovers.removal_input(),
            )?;
            Ok(true)
        })
    }

    /// Puts the rules in place, whatever is there, and reads them back. Three processes.
    ///
    /// Both tables are changed in one run, each at once: there is no moment without rules.
    pub fn install(&mut self, rules: &Ruleset) -> Result<Installation, Arc<Error>> {
        self.within_patience(|firewall| firewall.install_now(rules))
    }

    fn install_now(&mut self, rules: &Ruleset) -> Result<Installation, Arc<Error>> {
        let family = rules.family();
        let installation = match self.write(rules) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.write_otherwise(rules).ok_or(error)?
            }
            result => result?,
        };
        self.others.clear();
        let printed = self.observe(family)?.rules().clone();
        self.installed.insert(family, (printed, rules.clone()));
        Ok(installation)
    }

    fn write(&self, rules: &Ruleset) -> Result<Installation, Arc<Error>> {
        const OPERATION: &str = "install firewall rules";
        let family = rules.family();
        let before = self.observe(family)?;
        let Err(error) = self.restore(family, OPERATION, &iptables::restore_input(rules, &before))
        else {
            return Ok(Installation::default());
        };
        if error.kind() == ErrorKind::Unsupported
            && let Some(plain) = rules.without_physdev()
            && self.restore(family, OPERATION, &iptables::restore_input(&plain, &before)).is_ok()
        {
            return Ok(Installation { without_physdev: true });
        }
        Err(error)
    }

    /// With the first of the other programs that work, from then on.
    fn write_otherwise(&mut self, rules: &Ruleset) -> Option<Installation> {
        let first = self.families.clone();
        while let Some(variant) = self.others.pop_front() {
            self.families = self.probe(variant);
            if let Ok(installation) = self.write(rules) {
                return Some(installation);
            }
        }
        self.families = first;
        None
    }

    /// Removes our jumps and chains. One or two processes.
    pub fn remove(&mut self, family: Family) -> Result<Removal, Arc<Error>> {
        self.within_patience(|firewall| firewall.remove_now(family))
    }

    fn remove_now(&mut self, family: Family) -> Result<Removal, Arc<Error>> {
        let installed = self.observe(family)?;
        self.installed.remove(&family);
        let input = installed.removal_input();
        if !input.is_empty() {
            self.restore(family, "remove firewall rules", &input)?;
        }
        Ok(Removal {
            found: !installed.is_empty(),
            foreign: installed.foreign_references().collect(),
        })
    }

    /// Everything that `iptables-save` prints, of all tables. One process.
    pub fn save_text(&self, family: Family) -> Result<String, Arc<Error>> {
        let tools = self.tools(family)?;
        Ok(self.run(family, "read firewall rules", &tools.save, &[], "")?.stdout)
    }

    /// Runs `iptables-restore --noflush` on this input. One process.
    pub fn restore(
        &self,
        family: Family,
        operation: &'static str,
        input: &str,
    ) -> Result<(), Arc<Error>> {
        let tools = self.tools(family)?;
        let args = [tools.wait(), &["--noflush"]].concat();
        self.run(family, operation, &tools.restore, &args, input).map(drop)
    }

    /// How many processes were started since [`Self::find`] began.
    pub fn processes_started(&self) -> u64 {
        self.processes.load(Ordering::Relaxed)
    }

    /// The flavours to try, best first; `None` stands for the programs without a suffix.
    fn candidates(&self) -> VecDeque<Option<Variant>> {
        let installed =
            |variant| Programs::find(&self.directories, Family::Ipv4, Some(variant)).is_some();
        if installed(Variant::Legacy) && installed(Variant::Nft) {
            let nft = self.evidence(Variant::Nft);
            if let Some(variant) = tools::choose(nft, || self.evidence(Variant::Legacy)) {
                return [Some(variant)].into();
            }
        }
        [None, Some(Variant::Nft), Some(Variant::Legacy)].into()
    }

    /// What both families' rules say about one implementation. A program that fails has no rules.
    fn evidence(&self, variant: Variant) -> Evidence {
        let mut sum = Evidence::default();
        for family in [Family::Ipv4, Family::Ipv6] {
            if let Some(programs) = Programs::find(&self.directories, family, Some(variant))
                && let Ok(saved) = self.run(family, "look for rules", &programs.save, &[], "")
            {
                sum = sum.and(Evidence::of(&saved.stdout));
            }
            if sum.kubelet {
                break;
            }
        }
        sum
    }

    fn probe(&self, variant: Option<Variant>) -> PerFamily {
        // IPv6 can be a module that the kernel loads when someone asks for it.
        let _ = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None);
        PerFamily {
            ipv4: self.probe_family(Family::Ipv4, variant),
            ipv6: match ipv6_off() {
                Some(why) => Err(Arc::new(Error::family_off(Family::Ipv6, why))),
                None => self.probe_family(Family::Ipv6, variant),
            },
        }
    }

    /// Whether these programs can read the nat table of a family, which is what kube-proxy asks.
    fn probe_family(&self, family: Family, variant: Option<Variant>) -> Result<Tools, Arc<Error>> {
        const OPERATION: &str = "try the firewall";
        let Some(programs) = Programs::find(&self.directories, family, variant) else {
            return Err(Arc::new(Error::not_installed(family, &self.directories)));
        };
        let finished = self.run(family, OPERATION, &programs.main, &["--version"], "")?;
        let Some(version) = tools::parse_version(&finished.stdout) else {
            return Err(Arc::new(Error::unknown_version(family, &programs.main, &finished.stdout)));
        };
        let tools = programs.with(version);
        let args = [tools.wait(), &["-t", "nat", "-S", "POSTROUTING"]].concat();
        match self.run(family, OPERATION, &tools.main, &args, "") {
            // Who waits for the lock can use the rules; what is to be done with them is tried again.
            Err(error) if error.kind() != ErrorKind::Lock => return Err(error),
            _ => {}
        }
        // Capabilities are not all that the legacy flavour needs: it opens files of root, one to read the rules
        // and one to lock them.
        if !geteuid().is_root() {
            self.run(family, OPERATION, &tools.save, &[], "")?;
            let args = [tools.wait(), &["--noflush", "--test"]].concat();
            match self.run(family, OPERATION, &tools.restore, &args, "*nat\nCOMMIT\n") {
                Err(error) if error.kind() != ErrorKind::Lock => return Err(error),
                _ => {}
            }
        }
        Ok(tools)
    }

    /// Makes a change in the time that there is for all its programs. A host that is too slow for it gets twice
    /// as much the next time.
    fn within_patience<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, Arc<Error>>,
    ) -> Result<T, Arc<Error>> {
        self.deadline = Some(Instant::now() + self.patience);
        let result = change(self);
        self.deadline = None;
        match &result {
            Ok(_) => self.patience = Self::PATIENCE,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                self.patience = (self.patience * 2).min(Self::LIMIT);
            }
            Err(_) => {}
        }
        result
    }

    fn run(
        &self,
        family: Family,
        operation: &'static str,
        program: &Path,
        args: &[&str],
        input: &str,
    ) -> Result<Finished, Arc<Error>> {
        self.processes.fetch_add(1, Ordering::Relaxed);
        let left = |end: Instant| end.saturating_duration_since(Instant::now());
        let finished = process::run(program, args, input, self.deadline.map_or(Self::LIMIT, left))
            .map_err(|source| Error::not_run(family, operation, program, source))?;
        if finished.status.success() {
            Ok(finished)
        } else {
            Err(Arc::new(Error::refused(family, operation, program, &finished, input)))
        }
    }
}

impl PerFamily {
    fn any(&self) -> bool {
        self.ipv4.is_ok() || self.ipv6.is_ok()
    }

    /// Whether this process may not use the programs, rather than that they do not work on this host.
    fn lacks_rights(&self) -> bool {
        let rights = |kind| matches!(kind, ErrorKind::NoPermission | ErrorKind::LockFile);
        self.ipv4.as_ref().is_err_and(|error| rights(error.kind()))
    }

    /// Takes over why nothing works, where so far the programs were only missing: why the likeliest
    /// ones failed says more.
    fn explain(&mut self, other: Self) {
        for (kept, new) in [(&mut self.ipv4, other.ipv4), (&mut self.ipv6, other.ipv6)] {
            if matches!(kept, Err(error) if error.kind() == ErrorKind::NotInstalled) {
                *kept = new;
            }
        }
    }
}

/// Why this host has no IPv6, if so.
pub fn ipv6_off() -> Option<&'static str> {
    ipv6_off_in(Path::new("/proc"))
}

fn ipv6_off_in(proc: &Path) -> Option<&'static str> {
    if !proc.join("net/if_inet6").exists() {
        return Some("the kernel has no IPv6 (/proc/net/if_inet6 is missing)");
    }
    let disabled = fs::read_to_string(proc.join("sys/net/ipv6/conf/all/disable_ipv6"));
    disabled
        .is_ok_and(|text| text.trim() == "1")
        .then_some("IPv6 is disabled (net.ipv6.conf.all.disable_ipv6 = 1)")
}

#[cfg(test)]
mod tests;
