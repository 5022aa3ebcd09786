//! Network namespaces of the test kernel, made and entered with `ip` and `nsenter`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::{feed, output, run};

/// A network namespace of the test kernel, by its name in `ip netns`.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

/// Fails unless this runs in a kernel that is there for tests: they create links, rules and virtual
/// servers, and must never do so on somebody's machine. `tests/vm/run` says that it is one.
pub fn require_test_kernel() -> Result<()> {
    ensure!(
        std::env::var_os("PROXIER_TEST_KERNEL").is_some(),
        "this test changes the kernel's network: run it with tests/run or tests/vm/run"
    );
    Ok(())
}

/// Runs `ip` commands (without the leading `ip`), one a line, in the caller's namespace: one process
/// for all of them.
pub fn ip(commands: &str) -> Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), commands)
}

/// Makes the link of the node, with its address in most tests, in the caller's namespace.
pub fn node_link() -> Result<()> {
    ip("link add node0 type dummy\nlink set node0 up\naddr add 192.168.50.10/24 dev node0")
}

// === impl Namespace ===

impl Namespace {
    /// The namespace of this name, which somebody else made.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Its name, as in `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in this namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs a shell script in this namespace and returns what it prints.
    pub fn sh(&self, script: &str) -> Result<String> {
        output(self.command("sh").args(["-euc", script]))
    }

    /// Runs `ip` commands (without the leading `ip`), one a line, in this namespace.
    pub fn ip(&self, commands: &str) -> Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), commands)
            .with_context(|| format!("in namespace {}", self.name))
    }

    /// What `ip -j ARGUMENTS` prints in this namespace.
    pub fn ip_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = run("ip", [&["-n", &self.name, "-j"], arguments].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("parse the output of ip {}", arguments.join(" ")))
    }

    /// Sets kernel settings of this namespace, such as `net/ipv4/ip_forward`.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        let line = |(key, value): &(&str, &str)| format!("echo {value} >/proc/sys/{key}");
        self.sh(&settings.iter().map(line).collect::<Vec<_>>().join("\n")).map(drop)
    }
}
