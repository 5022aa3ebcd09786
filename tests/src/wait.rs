//! Waiting for what a process does.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What became of waiting.
#[derive(Debug)]
pub enum Waited<T> {
    /// The answer.
    Reached(T),
    /// The process has ended before.
    Ended(ExitStatus),
    /// Neither in this time.
    Late,
}

/// Asks until `question` answers with something other than none, the process ends or the time is up.
///
/// Neither IPVS nor sets tell anybody of changes, so it asks again and again: the process gets the
/// processor for `between`, or as long as the question took, but its end is noticed at once.
pub fn until<T>(
    child: &mut Child,
    limit: Duration,
    between: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<Waited<T>> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("follow a process")?;
    let deadline = Instant::now() + limit;
    loop {
        let asked = Instant::now();
        if let Some(answer) = question()? {
            return Ok(Waited::Reached(answer));
        }
        if let Some(status) = child.try_wait().context("look after a process")? {
            return Ok(Waited::Ended(status));
        }
        if Instant::now() > deadline {
            return Ok(Waited::Late);
        }
        let pause = asked.elapsed().max(between).try_into().context("a time")?;
        poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&pause))
            .context("wait for a process")?;
    }
}
