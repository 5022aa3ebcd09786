//! Running other programs, with errors that say which and why.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command to its end and returns what it printed.
///
/// Fails when it cannot be started or its exit status is not zero; the error has the command line
/// and what it wrote to its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", line(command)))?;
    if !status.success() {
        bail!("{}: {status}: {}", line(command), String::from_utf8_lossy(&stderr).trim());
    }
    String::from_utf8(stdout).with_context(|| format!("output of {}", line(command)))
}

/// Runs a program with arguments, as [`output`] does.
pub fn run<I: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = I>,
) -> Result<String> {
    output(Command::new(program).args(arguments))
}

/// Runs a command to its end with `input` on its standard input; fails like [`output`].
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", line(command)))?;
    // Dropping the pipe tells the command that this was all. A command that ends before it has read
    // everything says why itself.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let Output { status, stderr, .. } =
        child.wait_with_output().with_context(|| format!("wait for {}", line(command)))?;
    if !status.success() {
        bail!(
            "{}: {status}: {}\ninput was:\n{input}",
            line(command),
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    written.transpose().with_context(|| format!("write to {}", line(command)))?;
    Ok(())
}

/// Where a program of this workspace is: beside the test executables, in the profile's folder.
///
/// `PROXIER_BIN_DIR` names another folder. `cargo test` builds the programs of the packages that it
/// tests; `cargo build --workspace --bins` builds all of them.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = if let Some(folder) = std::env::var_os("PROXIER_BIN_DIR") {
        PathBuf::from(folder)
    } else {
        let me = std::env::current_exe().context("find this executable")?;
        let folder = me.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
        folder.map(PathBuf::from).context("find the folder of this executable")?
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!("{} is not built: cargo build --workspace --bins", path.display());
    }
    Ok(path)
}

/// The command line, for error texts.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
