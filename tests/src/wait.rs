//! Waiting for what a process does.
//!
//! Waiting has no limit of its own: how long something takes says more about the machine than about the
//! program. It ends with the answer, or with the process. A test that waits for ever is killed by whoever
//! runs it (`tests/vm/suite`), so what it waits for is written down meanwhile.

use std::io::Write as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// After so many questions without an answer, and twice as many and so on, a line says what is missing.
const PATIENT: u64 = 256;

/// The outcome of waiting.
#[derive(Debug)]
pub enum Waited<T> {
    /// The answer.
    Reached(T),
    /// The process ended before.
    Ended(ExitStatus),
}

/// Asks until `question` answers with something other than none, or the process ends. `explain` says what is
/// there instead.
///
/// Neither IPVS nor sets tell anybody of changes, so it asks again and again: the process gets the
/// processor for `between`, or as long as the question took, but its end is noticed at once.
pub fn until<T>(
    child: &mut Child,
    between: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
    explain: impl Fn() -> String,
) -> Result<Waited<T>> {
    let pid = Pid::from_child(child);
    let end = pidfd_open(pid, PidfdFlags::empty()).context("follow a process")?;
    for asked in 1_u64.. {
        let started = Instant::now();
        if let Some(answer) = question()? {
            return Ok(Waited::Reached(answer));
        }
        if let Some(status) = child.try_wait().context("look after a process")? {
            return Ok(Waited::Ended(status));
        }
        if asked >= PATIENT && asked.is_power_of_two() {
            say(&format!("asked {asked} times, still waiting for {}", explain()));
        }
        let pause = started.elapsed().max(between).try_into().context("a time")?;
        poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&pause))
            .context("wait for a process")?;
    }
    unreachable!("a loop without an end")
}

/// Writes a line past the test harness, which keeps what a test prints until the test has ended.
pub fn say(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_answer_may_take_many_questions_and_a_process_that_ends_is_noticed() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut asked = 0;
        let question = || {
            asked += 1;
            Ok((asked > PATIENT).then_some("answer"))
        };
        let answer = until(&mut child, Duration::ZERO, question, || "an answer".to_owned());
        assert!(matches!(answer.unwrap(), Waited::Reached("answer")));
        drop(child.stdin.take());
        let never = || Ok(None::<()>);
        let ended = until(&mut child, Duration::from_millis(1), never, || "nothing".to_owned());
        assert!(matches!(ended.unwrap(), Waited::Ended(status) if status.success()));
    }
}
