//! Starting the program `traffic` in a network namespace.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::server::READY;
use super::{Load, Place, Report, Took};
use crate::command::{output, program};
use crate::netns::Namespace;

/// A server that runs in a namespace until this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

/// A client in a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    namespace: &'a Namespace,
}

/// A client that is asked for reports while it runs.
#[derive(Debug)]
struct Asked {
    child: Child,
    questions: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

/// Connections (or flows of datagrams) that a client holds open; closed when dropped.
#[derive(Debug)]
pub struct Held {
    client: Asked,
    /// What the first answers were.
    pub opened: Report,
}

/// New connections that a client makes at an even pace; it ends when this is dropped.
#[derive(Debug)]
pub struct Rate {
    client: Asked,
}

// === impl Server ===

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(namespace: &Namespace, name: &str, places: &[Place]) -> Result<Self> {
        let mut command = namespace.command(program("traffic")?);
        command.args(["serve", name]).args(places.iter().map(Place::to_string));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start server {name}"))?;
        let stdout = child.stdout.take().context("output of the server")?;
        // Killed on every way out.
        let server = Self { child };
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .with_context(|| format!("wait for server {name}"))?;
        ensure!(line.trim() == READY, "server {name} in {} did not start", namespace.name());
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Client ===

impl<'a> Client<'a> {
    /// A client in this namespace.
    pub fn new(namespace: &'a Namespace) -> Self {
        Self { namespace }
    }

    /// Connects (or sends) one after the other.
    pub fn connect(self, load: &Load) -> Result<Report> {
        report(&output(&mut self.command("connect", load, &[])?)?)
    }

    /// How long connections to these places take, so many to each.
    pub fn time(self, rounds: u32, places: &[Place]) -> Result<Vec<Took>> {
        let mut command = self.namespace.command(program("traffic")?);
        command.args(["time", &rounds.to_string()]).args(places.iter().map(Place::to_string));
        let text = output(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("parse {text:?}"))
    }

    /// What becomes of a ping: `answered`, or the failure as in [`Report::errors`].
    pub fn ping(self, address: IpAddr) -> Result<String> {
        // What the namespace must allow, and is the same for both families.
        self.namespace.sysctls(&[("net/ipv4/ping_group_range", "'0 0'")])?;
        let mut command = self.namespace.command(program("traffic")?);
        Ok(output(command.arg("ping").arg(address.to_string()))?.trim().to_owned())
    }

    /// Starts to make new connections at an even pace of so many a second.
    pub fn rate(self, load: &Load, per_second: u32) -> Result<Rate> {
        let options = ["--per-second", &per_second.to_string()];
        Ok(Rate { client: Asked::start(self.command("rate", load, &options)?)? })
    }

    /// Opens connections and keeps them.
    pub fn hold(self, load: &Load) -> Result<Held> {
        let mut client = Asked::start(self.command("hold", load, &[])?)?;
        let opened = client.next()?;
        Ok(Held { client, opened })
    }

    fn command(self, mode: &str, load: &Load, options: &[&str]) -> Result<Command> {
        let mut command = self.namespace.command(program("traffic")?);
        command.arg(mode).arg(load.to.to_string()).args(["--times", &load.times.to_string()]);
        command.args(["--timeout", &load.timeout.to_string()]).args(options);
        if let Some(source) = load.source {
            command.args(["--source", &source.to_string()]);
        }
        if load.one_socket {
            command.arg("--one-socket");
        }
        Ok(command)
    }
}

// === impl Held ===

impl Held {
    /// Asks every open connection once more.
    pub fn ask(&mut self) -> Result<Report> {
        self.client.ask()
    }
}

// === impl Rate ===

impl Rate {
    /// What came of the connections so far; waits until one more has ended.
    pub fn so_far(&mut self) -> Result<Report> {
        self.client.ask()
    }

    /// Waits until what came of the connections is `enough`; fails with the first that fails. Each
    /// round has one more that was answered or has failed, so this goes on only as long as connections do.
    pub fn until(&mut self, enough: impl Fn(&Report) -> bool) -> Result<Report> {
        loop {
            let report = self.so_far()?;
            ensure!(report.failed() == 0, "{report:?}");
            if enough(&report) {
                return Ok(report);
            }
        }
    }

    /// Waits for those under way and makes no more.
    pub fn end(mut self) -> Result<Report> {
        self.client.questions = None;
        self.client.next()
    }

    /// Waits until as many were made as were asked for.
    pub fn finish(mut self) -> Result<Report> {
        self.client.next()
    }
}

// === impl Asked ===

impl Asked {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the client")?;
        let (questions, stdout) = (child.stdin.take(), child.stdout.take());
        let reports = BufReader::new(stdout.context("output of the client")?);
        Ok(Self { child, questions, reports })
    }

    fn ask(&mut self) -> Result<Report> {
        let pipe = self.questions.as_mut().context("the client's input")?;
        pipe.write_all(b"\n").context("ask the client")?;
        self.next()
    }

    fn next(&mut self) -> Result<Report> {
        let mut line = String::new();
        self.reports.read_line(&mut line).context("read the client's report")?;
        report(&line)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The end of its input lets it close its connections in order.
        self.questions = None;
        let _ = self.child.wait();
    }
}

fn report(text: &str) -> Result<Report> {
    serde_json::from_str(text).with_context(|| format!("parse the client's report {text:?}"))
}
