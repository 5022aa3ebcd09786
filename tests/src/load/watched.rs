//! The daemon under load: what it says of itself, and what the system says of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::http::{METRICS, get};

/// A daemon and where its log is.
pub struct Watched {
    /// The process.
    pub daemon: Daemon,
}

/// Samples of `/metrics`, by name and labels as they are written there.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Watched {
    /// Asks until the metrics are as they should be.
    pub fn wait(&mut self, what: &str, good: impl Fn(&Metrics) -> bool) -> Result<Metrics> {
        // Seldom: on the one processor every look takes time from what is measured.
        let seldom = Duration::from_millis(500);
        let question = || Ok(Metrics::read().ok().filter(&good));
        let explain = || format!("{what}: {:?}", Metrics::read());
        self.daemon.wait_asking_every(seldom, question, explain)
    }

    /// Waits until it has programmed so many services.
    pub fn until_synced(&mut self, services: u32) -> Result<Metrics> {
        self.wait("synced", |metrics| {
            metrics.get("proxier_synced") > 0.5
                && metrics.get("proxier_services") >= f64::from(services)
        })
    }

    /// Resident memory in KiB: now, that of it that is no file, and the most there ever was.
    pub fn memory(&self) -> Result<Value> {
        let status = self.proc("status")?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number.with_context(|| format!("{name} in {status}"))?.parse()?)
        };
        Ok(json!({
            "resident_kib": field("VmRSS:")?,
            "anonymous_kib": field("RssAnon:")?,
            "most_kib": field("VmHWM:")?,
        }))
    }

    /// Processor time used so far, user and system, in seconds; in steps of 10 ms.
    pub fn cpu(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> =
            stat.rsplit_once(") ").context("stat")?.1.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    /// Counts the daemon's system calls and netlink messages from now on.
    pub fn trace(&self) -> Result<Tracer> {
        let file = PathBuf::from(format!("/dev/shm/trace-{}", self.daemon.pid()));
        let mut strace = Command::new("strace")
            .args(["-f", "-v", "-s", "64", "-o"])
            .arg(&file)
            .args(["-p", &self.daemon.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .context("start strace")?;
        attached(&mut strace)?;
        Ok(Tracer { strace, file })
    }

    fn proc(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.daemon.pid());
        fs::read_to_string(&path).with_context(|| path)
    }
}

/// strace on the daemon.
pub struct Tracer {
    strace: Child,
    file: PathBuf,
}

impl Tracer {
    /// What was counted.
    pub fn end(mut self) -> Result<Trace> {
        kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(&self.file)?;
        fs::remove_file(&self.file)?;
        Ok(Trace::read(&text))
    }
}

/// strace says on its standard error when it has attached to every thread.
fn attached(strace: &mut Child) -> Result<()> {
    let mut said = Vec::new();
    let pipe = strace.stderr.as_mut().context("strace's standard error")?;
    let mut byte = [0];
    while !String::from_utf8_lossy(&said).contains("attached") {
        ensure!(pipe.read(&mut byte)? == 1, "strace: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    Ok(())
}

/// What a daemon did.
#[derive(Debug, Default)]
pub struct Trace {
    /// System calls of all threads.
    pub calls: usize,
    /// Messages sent to the kernel over netlink.
    pub messages: usize,
    /// Netlink sends and receives.
    pub netlink_calls: usize,
}

impl Trace {
    fn read(text: &str) -> Self {
        let mut trace = Self::default();
        for line in text.lines() {
            let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
            // The second half of a call that another thread interrupted, signals, ends.
            if call.starts_with('<') || call.starts_with('-') || call.starts_with('+') {
                continue;
            }
            trace.calls += 1;
            let netlink = call.contains("nlmsg_len=") || call.contains("AF_NETLINK");
            trace.netlink_calls += usize::from(netlink);
            if call.starts_with("sendto(") || call.starts_with("sendmsg(") {
                trace.messages += call.matches("nlmsg_len=").count();
            }
        }
        trace
    }
}

impl Metrics {
    /// Asks the daemon.
    pub fn read() -> Result<Self> {
        let (_, answer) = get(METRICS, "/metrics")?;
        let samples = answer.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        Ok(Self(samples.filter_map(|(name, v)| Some((name.to_owned(), v.parse().ok()?))).collect()))
    }

    /// One sample; 0 where there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// All samples of a name added up, whatever their labels, that have this among them.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of_name = |key: &str| {
            key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains(label))
        };
        self.0
            .iter()
            .filter(|(key, _)| of_name(key))
            .map(|(_, value)| value)
            .fold(0.0, |sum, v| sum + v)
    }

    /// Operations that changed the kernel.
    pub fn writes(&self) -> f64 {
        let operations = "proxier_operations_total";
        let done = |label: &str| self.sum(operations, label);
        done("result=\"done\"")
            - self.get("proxier_operations_total{kind=\"flows\",result=\"done\"}")
    }
}

/// Processes and threads that were started since the system booted.
pub fn forks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("processes "));
    Ok(line.context("/proc/stat")?.parse()?)
}
