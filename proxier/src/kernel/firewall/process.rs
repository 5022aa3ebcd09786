//! Runs one of the iptables programs to its end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, set_capabilities,
};

/// Where programs and the kernel's module loader are looked for.
pub(super) const SEARCH_PATH: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin";

/// How long a program that was killed may take to end. One that hangs in the kernel is left to its thread.
const DYING: Duration = Duration::from_secs(1);

/// What became of a program that ran to its end.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a program with `input` on its standard input, in a clean environment. Past `limit` it is
/// killed and the error is [`io::ErrorKind::TimedOut`].
///
/// Input and output are files in memory: however much a program writes before it reads, neither
/// side waits for the other.
pub(super) fn run(
    program: &Path,
    args: &[&str],
    input: &str,
    limit: Duration,
) -> io::Result<Finished> {
    let mut stdin = memory("stdin")?;
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    let (stdout, stderr) = (memory("stdout")?, memory("stderr")?);
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?));
    let status = wait(command, limit)?;
    Ok(Finished { status, stdout: content(stdout)?, stderr: content(stderr)? })
}

/// Lets the programs that this thread starts have its capabilities, whoever the user is, but for the one with
/// which only this program reads files.
fn keep_for_children() -> io::Result<()> {
    let had = capabilities(None)?.permitted;
    let keep = had - CapabilitySet::DAC_READ_SEARCH;
    // All that can be inherited: what is no longer in the bounding set cannot.
    let bounded = |capability| capability_is_in_bounding_set(capability).unwrap_or(false);
    let inheritable: CapabilitySet = keep.iter().filter(|one| bounded(*one)).collect();
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable })?;
    for capability in inheritable.iter() {
        match configure_capability_in_ambient_set(capability, true) {
            // Forbidden by securebits. Root does without; the programs of others say what they lack.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn memory(name: &str) -> io::Result<File> {
    // Hardened hosts refuse files in memory that could be run; kernels before 6.3 do not know how
    // to ask for others.
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name, MemfdFlags::CLOEXEC))?;
    Ok(File::from(file))
}

/// Everything in the file; the program moved the offset that it shares with us.
fn content(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts a child and waits for its end, for no longer than `limit`.
fn wait(mut command: Command, limit: Duration) -> io::Result<ExitStatus> {
    let (started, start) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    // A thread of its own, since a child has the capabilities of the thread that starts it.
    thread::Builder::new().name("iptables".into()).spawn(move || {
        let child = keep_for_children().and_then(|()| command.spawn());
        let pid = child.as_ref().ok().map(Pid::from_child);
        // The caller waits for both.
        let _ = started.send(child);
        let Some(pid) = pid else { return };
        // Looks without collecting the child: until `child.wait()` its id cannot become that of
        // another process, so the kill below meets nobody else.
        let until = |options| {
            while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
        };
        until(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        if ended.send(()).is_err() {
            // Nobody waits any more.
            until(WaitIdOptions::EXITED);
        }
    })?;
    let mut child: Child = start.recv().map_err(io::Error::other)??;
    if end.recv_timeout(limit).is_ok() {
        return child.wait();
    }
    child.kill()?;
    let mut text = format!("killed after {:.1} seconds", limit.as_secs_f32());
    if end.recv_timeout(DYING).is_ok() {
        child.wait()?;
    } else {
        text += ", and hangs in the kernel";
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn input_output_and_status_are_kept() {
        // Writes more than a pipe holds before it reads its input.
        let script = "head -c 300000 /dev/zero; cat; echo \"$LC_ALL $HOME\" >&2; exit 3";
        let finished =
            run(Path::new("/bin/sh"), &["-c", script], &"x".repeat(200_000), LONG).unwrap();
        assert_eq!(finished.stdout.len(), 500_000);
        assert!(finished.stdout.ends_with('x'));
        assert_eq!(finished.stderr, "C \n");
        assert_eq!(finished.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error =
            run(Path::new("/bin/sh"), &["-c", "exec sleep 3600"], "", Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
