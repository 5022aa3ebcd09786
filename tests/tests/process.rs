//! The daemon as a process among others: one for each network namespace, a log that nobody reads, and an end
//! whatever hangs.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proxier_tests::command::{program, run};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::http::get;
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
fn without_a_cluster_what_another_program_made_stays_and_is_named() {
    const FOREIGN: [&str; 2] =
        ["-A -t 198.51.100.9:80 -s wrr", "-a -t 198.51.100.9:80 -r 198.51.100.10:8080 -m -w 7"];
    let files = Files::create();
    for line in FOREIGN {
        run("ipvsadm", line.split(' ')).unwrap();
    }
    let foreign = || {
        let all = run("ipvsadm-save", ["-n"]).unwrap();
        FOREIGN.iter().filter(|line| all.lines().any(|found| found == **line)).count()
    };
    assert_eq!(foreign(), 2);
    // At the start, and after a restart, when what is ours is known by its marks.
    for count in [1, 3] {
        files.services(count);
        let mut daemon = files.daemon("log");
        daemon.ready().unwrap();
        let log = daemon.log();
        assert!(log.contains("198.51.100.9:80"), "not named: {log}");
        assert_eq!((foreign(), virtual_servers()), (2, 2 + count as usize));
        // And what is ours goes.
        files.services(5);
        let all = || Ok((virtual_servers() == 2 + 5).then_some(()));
        daemon.wait(all, || run("ipvsadm-save", ["-n"]).unwrap()).unwrap();
        files.services(1);
        let gone = || Ok((virtual_servers() == 2 + 1).then_some(()));
        daemon.wait(gone, || run("ipvsadm-save", ["-n"]).unwrap()).unwrap();
        // It would be put back at once.
        let out = files.command().arg("cleanup").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("stop it first"), "{said}");
        assert_eq!(virtual_servers(), 2 + 1);
        daemon.stop().unwrap();
    }
    let out = files.command().arg("cleanup").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(foreign(), 2, "{}", String::from_utf8_lossy(&out.stdout));
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
    let hang = files.path("hang");
    for family in ["iptables", "ip6tables"] {
        for name in [family.to_owned(), format!("{family}-save"), format!("{family}-restore")] {
            let script = format!(
                "#!/bin/sh\n[ ! -e {} ] || exec sleep 3600\nexec /usr/sbin/xtables-legacy-multi {name} \"$@\"\n",
                hang.display()
            );
            let path = files.0.replace(&format!("bin/{name}"), script).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let config = fs::read_to_string(files.path("config")).unwrap();
    fs::write(files.path("config"), config + "ipvs: {syncPeriod: 1s}\n").unwrap();
    let command = || {
        let mut command = files.command();
        command.env("PROXIER_IPTABLES_DIR", files.path("bin"));
        command
    };

    // While it serves: an audit reads the rules.
    let mut daemon = Daemon::start_command(command(), &files.path("log")).unwrap();
    daemon.ready().unwrap();
    fs::write(&hang, "").unwrap();
    let pid = daemon.pid();
    let hangs = || Ok(hanging(pid));
    let program = daemon.wait(hangs, || "a program that hangs".to_owned()).unwrap();
    ends_before(&program, || drop(daemon.terminate()));

    // While it starts, where it does not look at anything else.
    let mut child = command().stdin(Stdio::null()).spawn().unwrap();
    let program = loop {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        if let Some(program) = hanging(child.id()) {
            break program;
        }
    };
    ends_before(&program, || {
        terminate(&child);
        child.wait().unwrap();
    });
}

/// A file system whose server never answers: whoever looks at anything of it waits for ever.
#[allow(clippy::zombie_processes, reason = "it ends with the namespace of the test")]
fn hang(folder: &Path) {
    let script = "modprobe fuse; exec 9<>/dev/fuse
        mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 hung \"$0\"
        exec sleep infinity <&9";
    Command::new("sh").args(["-ec", script]).arg(folder).spawn().unwrap();
    let hangs = format!("hung {} fuse", folder.display());
    while !fs::read_to_string("/proc/mounts").unwrap().contains(&hangs) {}
}

/// Whether a thread of a process waits for such a file system.
fn waits(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.any(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D')))
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_file_system_that_hangs_stops_nothing_but_what_is_on_it() {
    let files = Files::create();
    let hung = files.path("hung");
    fs::create_dir(&hung).unwrap();
    hang(&hung);
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
                      clusters: [{name: a, cluster: {server: 'https://192.0.2.7:6443'}}]\n\
                      contexts: [{name: a, context: {cluster: a, user: a}}]\n";
    let token = format!(
        "{kubeconfig}users: [{{name: a, user: {{tokenFile: {}/token}}}}]\n",
        hung.display()
    );
    let token = files.0.replace("kubeconfig", token).unwrap();

    // At the start there is nothing to go on with, but a signal ends it.
    let in_hung = hung.join("file");
    for (what, file) in [
        ("--config", &in_hung),
        ("--kubeconfig", &in_hung),
        ("--kubeconfig", &token),
        ("--manifests", &in_hung),
    ] {
        let mut command = Command::new(program("proxier").unwrap());
        command.arg(what).arg(file).args(["--hostname-override=node-a", "--proxy-mode=ipvs"]);
        let mut child = command.arg("--conntrack-max-per-core=0").spawn().unwrap();
        while !waits(child.id()) {
            assert!(child.try_wait().unwrap().is_none(), "{what} {}: it has ended", file.display());
        }
        terminate(&child);
        child.wait().unwrap();
    }

    // While it runs: the folder of the configuration hangs, and the file in it changes.
    let text = fs::read_to_string(files.path("config")).unwrap();
    let changing = files.0.replace("changing/config", &text).unwrap();
    let (folder, same) = (files.path("changing"), files.path("same"));
    fs::create_dir(&same).unwrap();
    run("mount", ["--bind".as_ref(), folder.as_os_str(), same.as_os_str()]).unwrap();
    let mut command = Command::new(program("proxier").unwrap());
    command.arg("--config").arg(&changing).arg("--manifests").arg(files.path("manifests"));
    command.args(["--node-address=192.0.2.1", "-v=2"]);
    let mut daemon = Daemon::start_command(command, &files.path("log")).unwrap();
    daemon.ready().unwrap();
    hang(&folder);
    fs::write(same.join("config"), format!("{text}ipvs: {{scheduler: lc}}\n")).unwrap();
    let pid = daemon.pid();
    daemon.wait(|| Ok(waits(pid).then_some(())), || "a thread that hangs".to_owned()).unwrap();
    let (head, _) = get("127.0.0.1:10256", "/healthz").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    files.services(3);
    let programmed = || Ok((virtual_servers() == 3).then_some(()));
    daemon.wait(programmed, || "the Services of a folder that does not hang".to_owned()).unwrap();
    drop(daemon.terminate());
}

/// Ends something, for which this program is not waited for.
fn ends_before(program: &Path, end: impl FnOnce()) {
    end();
    assert!(program.exists(), "the program was waited for, or killed after a minute");
}

fn terminate(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).unwrap();
}

/// The child of a process that hangs, by its place below `/proc`.
fn hanging(pid: u32) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: String = children.collect();
    children.split_whitespace().map(|child| PathBuf::from(format!("/proc/{child}"))).find(|place| {
        fs::read_to_string(place.join("comm")).is_ok_and(|name| name.trim() == "sleep")
    })
}
