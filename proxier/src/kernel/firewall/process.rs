//! Runs one of the iptables programs to its end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// Where programs and the kernel's module loader are looked for.
pub(super) const SEARCH_PATH: &str = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin";

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
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::from(stdout.try_clone()?))
        .stderr(Stdio::from(stderr.try_clone()?))
        .spawn()?;
    let status = wait(child, limit)?;
    Ok(Finished { status, stdout: content(stdout)?, stderr: content(stderr)? })
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

/// Waits for the end of a child, for no longer than `limit`.
fn wait(mut child: Child, limit: Duration) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    // Looks without collecting the child: until `child.wait()` its id cannot become that of
    // another process, so the kill below meets nobody else.
    thread::Builder::new().name("iptables".into()).spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
        let _ = ended.send(());
    })?;
    if end.recv_timeout(limit).is_ok() {
        return child.wait();
    }
    child.kill()?;
    child.wait()?;
    let text = format!("killed after {} seconds", limit.as_secs());
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
