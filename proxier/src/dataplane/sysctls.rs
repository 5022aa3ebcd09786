//! The kernel settings that forwarding depends on, in one table: what, which value, why, on which
//! kernels, and whether it works without.

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

/// A kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, or 0.
    pub patch: u32,
}

impl KernelVersion {
    const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }
}

/// The text does not begin with a kernel version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not begin with a kernel version such as 6.1.0")]
pub struct ParseKernelVersionError(String);

/// From `/proc/sys/kernel/osrelease`: only the leading numbers count (`5.15.0-84-generic`).
impl FromStr for KernelVersion {
    type Err = ParseKernelVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = text[..end].split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        match (next(), next(), next()) {
            (Some(major), Some(minor), patch) => {
                Ok(Self { major, minor, patch: patch.unwrap_or(0) })
            }
            _ => Err(ParseKernelVersionError(text.trim().to_owned())),
        }
    }
}

/// What the settings depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SysctlOptions {
    /// Answer ARP only for addresses of the interface asked (`ipvs.strictARP`).
    pub strict_arp: bool,
    /// Connection tracking.
    pub conntrack: ConntrackOptions,
    /// Whether IPVS keeps rates of its virtual and real servers; none leaves it as it is. Costs a
    /// timer over all of them, on kernels before 6.2 in one go.
    pub run_estimation: Option<bool>,
    /// The CPUs that compute these rates, in the kernel's list format; none leaves it as it is.
    pub est_cpulist: Option<String>,
    /// The niceness of the threads that compute them, -20 to 19; none leaves it as it is.
    pub est_nice: Option<i8>,
    /// Connections wait for a removed real server to be put back, instead of being ended: for while
    /// somebody else may remove them all.
    pub keep_lost: bool,
}

/// `conntrack` of the configuration; nothing is written for a 0 or a false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConntrackOptions {
    /// Entries for each CPU.
    pub max_per_core: u32,
    /// Least number of entries, unless `max_per_core` is 0.
    pub min: u32,
    /// Idle time of established TCP connections; seconds count.
    pub tcp_established: Duration,
    /// Idle time of TCP connections in `CLOSE_WAIT`; seconds count.
    pub tcp_close_wait: Duration,
    /// Accept packets outside the TCP window.
    pub be_liberal: bool,
    /// Idle time of UDP flows in one direction; seconds count.
    pub udp: Duration,
    /// Idle time of UDP flows in both directions; seconds count.
    pub udp_stream: Duration,
}

impl ConntrackOptions {
    /// However many CPUs: kube-proxy's limit.
    const MOST_ENTRIES: u64 = 1 << 20;

    /// The size of the table, if it is to be set.
    fn entries(&self, cpus: usize) -> Option<u64> {
        if self.max_per_core == 0 {
            return None;
        }
        let scaled = u64::from(self.max_per_core).saturating_mul(cpus as u64);
        // The limit comes first: a larger minimum does not lift a value above it.
        Some(if scaled > Self::MOST_ENTRIES {
            Self::MOST_ENTRIES
        } else {
            scaled.max(u64::from(self.min))
        })
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its file, below `/`.
    pub path: &'static str,
    /// The value.
    pub wanted: Wanted,
    /// What it is for.
    pub why: &'static str,
    /// Whether forwarding would be wrong without.
    pub required: bool,
}

/// Which values are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    Exactly(String),
    /// This one or a larger one.
    AtLeast(u64),
}

impl Wanted {
    /// Whether what the file says is right.
    pub fn allows(&self, present: &str) -> bool {
        let present = present.trim();
        match self {
            Self::Exactly(wanted) => match (wanted.parse::<i64>(), present.parse::<i64>()) {
                (Ok(wanted), Ok(present)) => wanted == present,
                _ => wanted == present,
            },
            Self::AtLeast(least) => present.parse::<u64>().is_ok_and(|present| present >= *least),
        }
    }

    /// What is written where the present value is not right.
    pub fn value(&self) -> String {
        match self {
            Self::Exactly(value) => value.clone(),
            Self::AtLeast(least) => least.to_string(),
        }
    }
}

impl Sysctl {
    /// As `sysctl` names it.
    pub fn name(&self) -> String {
        name(self.path)
    }
}

/// The name of a setting as `sysctl` has it; what is not below `/proc/sys` goes by its path.
pub(crate) fn name(path: &str) -> String {
    match path.strip_prefix("proc/sys/") {
        Some(path) => path.replace('/', "."),
        None => format!("/{path}"),
    }
}

/// The settings for this kernel, in the order in which they are to be written.
pub fn wanted(options: &SysctlOptions, kernel: KernelVersion, cpus: usize) -> Vec<Sysctl> {
    let input = Input { options, conntrack: &options.conntrack, cpus };
    TABLE
        .iter()
        .filter(|row| row.since.is_none_or(|since| kernel >= since))
        .filter(|row| row.until.is_none_or(|until| kernel < until))
        .filter_map(|row| {
            let wanted = (row.wanted)(&input)?;
            Some(Sysctl { path: row.path, wanted, why: row.why, required: row.required })
        })
        .collect()
}

/// IPv6 on the interface of our own, which it does not have where it is switched off for new interfaces.
pub fn ipv6_of_interface() -> Sysctl {
    Sysctl {
        path: "proc/sys/net/ipv6/conf/kube-ipvs0/disable_ipv6",
        wanted: exactly(&0),
        why: "kube-ipvs0 takes the addresses of IPv6 Services",
        required: false,
    }
}

/// The settings as `sysctl` prints them, by name; those outside `/proc/sys` are left out.
pub fn text(settings: &[Sysctl]) -> String {
    let mut lines: Vec<String> = settings
        .iter()
        .filter(|setting| setting.path.starts_with("proc/sys/"))
        .map(|setting| format!("{} = {}", setting.name(), setting.wanted.value()))
        .collect();
    lines.sort_unstable();
    let mut out = String::new();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    out
}

/// What a row may look at.
struct Input<'a> {
    options: &'a SysctlOptions,
    conntrack: &'a ConntrackOptions,
    cpus: usize,
}

struct Row {
    path: &'static str,
    /// None where the configuration leaves it alone.
    wanted: fn(&Input<'_>) -> Option<Wanted>,
    why: &'static str,
    /// The first kernel on which this row holds.
    since: Option<KernelVersion>,
    /// The first kernel on which it no longer does.
    until: Option<KernelVersion>,
    required: bool,
}

impl Row {
    const fn new(
        path: &'static str,
        why: &'static str,
        wanted: fn(&Input<'_>) -> Option<Wanted>,
    ) -> Self {
        Self { path, wanted, why, since: None, until: None, required: true }
    }

    const fn since(mut self, major: u32, minor: u32) -> Self {
        self.since = Some(KernelVersion::new(major, minor));
        self
    }

    const fn until(mut self, major: u32, minor: u32) -> Self {
        self.until = Some(KernelVersion::new(major, minor));
        self
    }

    const fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}

fn exactly(value: &impl ToString) -> Wanted {
    Wanted::Exactly(value.to_string())
}

fn seconds(duration: Duration) -> Option<Wanted> {
    (!duration.is_zero()).then(|| exactly(&duration.as_secs()))
}

/// Since 5.9 a reused client port no longer waits a second for connection tracking.
const PORT_REUSE_FIXED: (u32, u32) = (5, 9);

const TABLE: [Row; 18] = [
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_max",
        "how many connections the node can track",
        |input| input.conntrack.entries(input.cpus).map(|entries| exactly(&entries)),
    ),
    Row::new(
        "sys/module/nf_conntrack/parameters/hashsize",
        "buckets for that many tracked connections; with fewer, finding one takes longer",
        |input| input.conntrack.entries(input.cpus).map(|entries| Wanted::AtLeast(entries / 4)),
    )
    .optional(),
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
        "idle TCP connections through services stay known that long",
        |input| seconds(input.conntrack.tcp_established),
    ),
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
        "half-closed TCP connections through services stay known that long",
        |input| seconds(input.conntrack.tcp_close_wait),
    ),
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
        "packets outside the TCP window are not refused",
        |input| input.conntrack.be_liberal.then(|| exactly(&1)),
    ),
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_udp_timeout",
        "UDP flows without an answer stay known that long",
        |input| seconds(input.conntrack.udp),
    ),
    Row::new(
        "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
        "UDP flows in both directions stay known that long",
        |input| seconds(input.conntrack.udp_stream),
    ),
    Row::new("proc/sys/net/ipv4/vs/conntrack", "what IPVS forwards can be masqueraded", |_| {
        Some(exactly(&1))
    }),
    Row::new(
        "proc/sys/net/ipv4/vs/conn_reuse_mode",
        "a reused client port does not wait a second on this kernel; with 0 it may reach a real \
         server of weight 0",
        |_| Some(exactly(&0)),
    )
    .since(4, 1)
    .until(PORT_REUSE_FIXED.0, PORT_REUSE_FIXED.1),
    // kube-proxy leaves a 0 there that was set for an older kernel.
    Row::new(
        "proc/sys/net/ipv4/vs/conn_reuse_mode",
        "a reused client port is scheduled anew, so that it does not reach a real server of \
         weight 0",
        |_| Some(exactly(&1)),
    )
    .since(PORT_REUSE_FIXED.0, PORT_REUSE_FIXED.1)
    .optional(),
    Row::new(
        "proc/sys/net/ipv4/vs/expire_nodest_conn",
        "clients of a removed real server learn at once; not while this node is handed over",
        |input| Some(exactly(&u8::from(!input.options.keep_lost))),
    ),
    Row::new(
        "proc/sys/net/ipv4/vs/expire_quiescent_template",
        "session affinity does not hold on to a real server of weight 0",
        |_| Some(exactly(&1)),
    ),
    Row::new("proc/sys/net/ipv4/ip_forward", "the node forwards packets", |_| Some(exactly(&1))),
    Row::new(
        "proc/sys/net/ipv4/conf/all/arp_ignore",
        "ARP is answered for addresses of the interface asked only, not for kube-ipvs0",
        |input| input.options.strict_arp.then(|| exactly(&1)),
    ),
    Row::new(
        "proc/sys/net/ipv4/conf/all/arp_announce",
        "ARP requests carry an address of the interface they leave by, not of kube-ipvs0",
        |input| input.options.strict_arp.then(|| exactly(&2)),
    ),
    Row::new(
        "proc/sys/net/ipv4/vs/run_estimation",
        "IPVS keeps rates of its servers, or not",
        |input| input.options.run_estimation.map(|on| exactly(&u8::from(on))),
    )
    .optional(),
    Row::new("proc/sys/net/ipv4/vs/est_cpulist", "the CPUs that compute these rates", |input| {
        input.options.est_cpulist.as_ref().map(exactly)
    })
    .optional(),
    Row::new(
        "proc/sys/net/ipv4/vs/est_nice",
        "the niceness of the threads that compute these rates",
        |input| input.options.est_nice.map(|nice| exactly(&nice)),
    )
    .optional(),
];

#[cfg(test)]
mod tests;
