//! One shape, measured.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Shape, objects};
use crate::apiserver::Prepared;
use crate::apiserver::object::{service, slice};
use crate::live::Live;
use crate::load::objects::Size;

/// Others on the same node.
const INNOCENT: Size = Size { services: 2000, endpoints: 3 };

/// More than this is enough to know, in KiB.
const ENOUGH: u64 = 2 << 20;

/// How often the peak is looked at.
const BETWEEN: Duration = Duration::from_millis(100);

/// What a shape costs.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Most resident memory that the process has had, in KiB.
    pub peak: u64,
    /// Objects of the tenant.
    pub objects: usize,
    /// How long it took from the start to the last change.
    pub took: Duration,
    /// It did not end in time, or not below a bound.
    pub given_up: bool,
}

/// A dry run that is fed, and that is ended with the value.
struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures a shape: everything is listed, and then changes in the way of the shape. `MiB` is the limit
/// that the process is given. What takes longer than `patience` is given up.
pub fn measure(shape: &Shape, mebibytes: u32, patience: Duration) -> Result<Cost> {
    let live = Live::start()?;
    let innocent = std::iter::once(Size::node()).chain(INNOCENT.objects());
    innocent.for_each(|object| live.server.put(object));
    let first = objects::of_tenant(shape, 0);
    let count = first.len();
    for object in &first {
        live.server.put(object.clone());
    }
    let begin = Instant::now();
    let limit = format!("--memory-limit={mebibytes}");
    // What is printed first is short so.
    let words = ["--dry-run", "--watch", "-o", "sysctls", &limit];
    let mut command = live.proxier(&words)?;
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("start proxier")?;
    let lines = BufReader::new(child.stdout.take().context("standard output")?).lines();
    let mut run = Run { child, lines };
    let guard = Guard::over(run.child.id(), patience);
    let done = run.follow(&live, shape, first);
    let (peak, given_up) = guard.end();
    if !given_up {
        done?;
    }
    Ok(Cost { peak, objects: count, took: begin.elapsed(), given_up })
}

impl Run {
    fn follow(&mut self, live: &Live, shape: &Shape, first: Vec<Prepared>) -> Result<()> {
        // The whole list was read before this.
        self.until("net.", "net.")?;
        self.mark(live, 1)?;
        let change = shape.get("change");
        if change == 0 {
            return Ok(());
        }
        let next = objects::of_tenant(shape, 1);
        if change == 2 {
            // Only the tenant's: the others' names are not these.
            for object in &first {
                live.server.remove(object);
            }
            self.mark(live, 2)?;
        }
        if change == 3 {
            live.server.disconnect();
        }
        for object in next {
            live.server.put(object);
        }
        if change == 3 {
            live.server.compact();
            live.server.disconnect();
        }
        self.mark(live, 3)?;
        for object in first {
            live.server.put(object);
        }
        self.mark(live, 4)
    }

    /// Something that an innocent Service asks for is programmed: all that was sent before is through.
    fn mark(&mut self, live: &Live, n: u8) -> Result<()> {
        let (vip, pod) = (format!("10.95.0.{n}"), format!("10.95.1.{n}"));
        let name = format!("mark-{n}");
        live.server.put(service("innocent", &name, &vip));
        live.server.put(slice("innocent", &name, &name, &[&pod]));
        self.until(&format!("add virtual server {vip}:80"), &format!("add real server {pod}:8080"))
    }

    /// Reads on until both were printed.
    fn until(&mut self, one: &str, other: &str) -> Result<()> {
        let (mut seen_one, mut seen_other) = (false, false);
        while !(seen_one && seen_other) {
            let line = self.lines.next().context("the end of proxier")??;
            seen_one |= line.starts_with(one);
            seen_other |= line.starts_with(other);
        }
        Ok(())
    }
}

/// Follows how much memory a process has, and kills it where that is more than enough.
struct Guard {
    /// Dropped when it has ended.
    ended: Sender<()>,
    thread: thread::JoinHandle<(u64, bool)>,
}

impl Guard {
    fn over(pid: u32, patience: Duration) -> Self {
        let (ended, end) = mpsc::channel();
        let begin = Instant::now();
        let thread = thread::spawn(move || {
            let mut most = 0;
            loop {
                most = peak(pid).unwrap_or(0).max(most);
                if most > ENOUGH || begin.elapsed() > patience {
                    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
                    if let Some(pid) = pid {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                    return (most, true);
                }
                if end.recv_timeout(BETWEEN) != Err(RecvTimeoutError::Timeout) {
                    return (peak(pid).unwrap_or(0).max(most), false);
                }
            }
        });
        Self { ended, thread }
    }

    /// The peak, and whether the process was killed.
    fn end(self) -> (u64, bool) {
        drop(self.ended);
        self.thread.join().unwrap_or_default()
    }
}

/// Most memory that a process has had, in KiB.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let number = line.split_whitespace().next().context("a number")?.parse()?;
    ensure!(number > 0, "no memory");
    Ok(number)
}
