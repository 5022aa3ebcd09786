//! The daemon as a process among others: one for each network namespace, a log that nobody reads, and an end
//! whatever hangs.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proxier_tests::command::{program, run};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::manifest::{self, Service};
use proxier_tests::netns::require_test_kernel;
use proxier_tests::traffic::Protocol;
use rustix::process::{Pid, Signal, kill_process};

struct Files(Scratch);

impl Files {
    fn create() -> Self {
        require_test_kernel().unwrap();
        let files = Self(Scratch::create().unwrap());
        files.services(1);
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
                    hostnameOverride: node-a\nconntrack: {maxPerCore: 0}\n";
        files.0.replace("config", text).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn services(&self, count: u32) {
        let services: Vec<_> = (1..=count)
            .map(|n| {
                let address = format!("10.96.{}.{}", n / 250, n % 250 + 1);
                let service = Service::new(&format!("web-{n}"), &[&address]);
                service.port(Protocol::Tcp, 80, 8080).document()
            })
            .collect();
        self.0.replace("manifests/objects.json", manifest::file(&services)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("proxier").unwrap());
        command.arg("--config").arg(self.path("config"));
        command.arg("--manifests").arg(self.path("manifests"));
        command.args(["--node-address=192.0.2.1", "-v=2"]);
        command
    }

    fn daemon(&self, log: &str) -> Daemon {
        Daemon::start_command(self.command(), &self.path(log)).unwrap()
    }
}

fn virtual_servers() -> usize {
    run("ipvsadm-save", ["-n"]).unwrap().lines().count()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_second_daemon_says_who_runs_and_ends_or_follows() {
    let files = Files::create();
    let mut first = files.daemon("first");
    first.ready().unwrap();

    // It ends by itself, and has changed nothing.
    let mut other = files.command();
    let out = other.args(["--ipvs-scheduler=lc"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{text}");
    let who = format!("another proxier, process {}, programs", first.pid());
    assert!(text.contains(&who), "{text}");

    // What only looks may do so meanwhile.
    for more in [&["--dry-run"][..], &["diff"]] {
        let out = files.command().args(more).output().unwrap();
        assert!(out.status.success(), "{more:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    // As in an update: the next one is there before the last one has ended.
    let mut second = files.daemon("second");
    let waits = || Ok(second.log().contains("is still running here").then_some(()));
    first.wait(waits, || "a second one that waits".to_owned()).unwrap();
    first.stop().unwrap();
    second.ready().unwrap();
    second.stop().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_log_that_nobody_reads_stops_nothing() {
    let files = Files::create();
    let mut command = files.command();
    let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    // Some hundred bytes for each of several operations: more than a pipe and the queue hold.
    let many = 1000;
    files.services(many);
    while virtual_servers() != many as usize {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
    }
    // Now somebody does.
    let mut said = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).map(|_| text)
    });
    terminate(&child);
    assert!(child.wait().unwrap().success());
    let text = reader.join().unwrap().unwrap();
    assert!(text.contains("lines of the log were lost"), "{text}");

    // The end does not wait for a reader either.
    files.services(1);
    let mut child = files.command().stderr(Stdio::piped()).spawn().unwrap();
    while virtual_servers() != 1 {}
    files.services(many);
    while virtual_servers() != many as usize {}
    terminate(&child);
    child.wait().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_signal_ends_it_whatever_hangs() {
    let files = Files::create();
    // A file that never ends to be opened.
    let mut daemon = files.daemon("log");
    daemon.ready().unwrap();
    run("mkfifo", [files.path("fifo")]).unwrap();
    // In one step: a file that is missing for a moment is read as missing.
    fs::rename(files.path("fifo"), files.path("config")).unwrap();
    let pid = daemon.pid();
    let hangs = || Ok(waits_for(pid, "wait_for_partner").then_some(()));
    daemon.wait(hangs, || "a daemon that hangs in its configuration".to_owned()).unwrap();
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
    while Path::new(&format!("/proc/{pid}/exe")).exists() {}
    drop(daemon);

    // The same at the start, as the first process of a container.
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--"]).arg(program("proxier").unwrap());
    let mut unshare = unshare.arg("--config").arg(files.path("config")).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let first = || fs::read_to_string(&children).ok()?.trim().parse::<u32>().ok();
    let pid = loop {
        match first() {
            Some(pid) if waits_for(pid, "wait_for_partner") => break pid,
            _ => assert!(unshare.try_wait().unwrap().is_none(), "it has ended"),
        }
    };
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
    unshare.wait().unwrap();
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

/// Whether a thread of a process is in this function of the kernel.
fn waits_for(pid: u32, function: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut places = tasks.map(|task| fs::read_to_string(task.path().join("stack")));
    places.any(|place| place.is_ok_and(|place| place.contains(function)))
}
