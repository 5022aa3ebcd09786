//! The configuration file changes while the daemon runs, over a real kernel (acceptance row L46).

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::command::run;
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::http::get;
use proxier_tests::manifest;
use proxier_tests::netns::require_test_kernel;
use serde_json::Value;

const REFUSED: &str = "the configuration file has changed and cannot be used";
const READY: &str = "ready: the kernel is as the cluster says";

/// A daemon with one Service of two endpoints, and its configuration file.
struct World {
    scratch: Scratch,
    config: PathBuf,
    daemon: Daemon,
}

fn config(body: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
         hostnameOverride: node-a\nconntrack: {{maxPerCore: 0}}\n{body}\n"
    )
}

impl World {
    /// Starts it; `place` puts the file where it is read.
    fn start(place: impl FnOnce(&Scratch, &str) -> PathBuf) -> Self {
        require_test_kernel().unwrap();
        let scratch = Scratch::create().unwrap();
        let objects = [
            node("node-a", "192.0.2.1"),
            service("dev", "web", "10.96.0.1"),
            slice("dev", "web-1", "web", &["10.244.0.5", "10.244.0.6"]),
        ];
        scratch.replace("manifests/objects.json", manifest::file(&objects)).unwrap();
        let config = place(&scratch, &config("ipvs: {scheduler: rr}"));
        let daemon = Daemon::start_with(
            None,
            [
                "--config".as_ref(),
                config.as_os_str(),
                "--manifests".as_ref(),
                scratch.path().join("manifests").as_os_str(),
                "--node-address=192.0.2.1".as_ref(),
                "-v=2".as_ref(),
            ],
            &scratch.path().join("log"),
        );
        let mut world = Self { scratch, config, daemon: daemon.unwrap() };
        world.until("ready", |log| log.contains(READY));
        world
    }

    /// Waits until the log says so.
    fn until(&mut self, what: &str, condition: impl Fn(&str) -> bool) {
        let path = self.scratch.path().join("log");
        let said = || condition(&std::fs::read_to_string(&path).unwrap()).then_some(());
        self.daemon.wait(|| Ok(said()), || what.to_owned()).unwrap();
    }

    /// Waits until the kernel has this scheduler, with both real servers.
    fn scheduler(&mut self, name: &str) {
        let wanted = format!(
            "-A -t 10.96.0.1:80 -s {name}\n\
             -a -t 10.96.0.1:80 -r 10.244.0.5:8080 -m -w 1\n\
             -a -t 10.96.0.1:80 -r 10.244.0.6:8080 -m -w 1"
        );
        let saved = || {
            let text = run("ipvsadm-save", ["-n"]).unwrap();
            let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        let same = || Ok((saved() == wanted).then_some(()));
        self.daemon.wait(same, || format!("{wanted}\nwanted, but\n{}", saved())).unwrap();
    }

    fn write(&self, body: &str) {
        // In place, as an editor may do.
        std::fs::write(&self.config, config(body)).unwrap();
    }

    /// Operations that took something away.
    fn removals(&self) -> Vec<String> {
        let log = self.daemon.log();
        let operations = log.lines().filter_map(|line| line.split_once("done op="));
        operations
            .map(|(_, operation)| operation.to_owned())
            .filter(|operation| ["remove", "unbind"].iter().any(|word| operation.starts_with(word)))
            .collect()
    }
}

fn in_scratch(scratch: &Scratch, text: &str) -> PathBuf {
    scratch.replace("config/config.conf", text).unwrap()
}

fn status(port: u16) -> Option<Value> {
    let (_, body) = get(("127.0.0.1", port), "/status.json").ok()?;
    serde_json::from_str(&body).ok()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_scheduler_is_changed_live_and_a_file_that_cannot_be_used_is_kept_out() {
    let mut world = World::start(in_scratch);
    let pid = world.daemon.pid();
    world.scheduler("rr");
    world.write("ipvs: {scheduler: wrr, syncPeriod: 5s}");
    world.scheduler("wrr");
    world.until("said", |log| {
        log.contains(
            "the configuration file has changed fields=\"ipvs.scheduler, ipvs.syncPeriod\"",
        )
    });

    // Said once each, although the file is touched again and again.
    for (n, body) in ["ipvs: {scheduler: 7", "oomScoreAdj: 5000", "ipvs: {scheduler: nonsense}"]
        .into_iter()
        .enumerate()
    {
        world.write(body);
        world.until(body, |log| log.matches(REFUSED).count() == n + 1);
        world.write(body);
        let status = status(10249).unwrap();
        assert!(is_refused(&status), "{status}");
    }
    world.scheduler("wrr");

    world.write("ipvs: {scheduler: lc, syncPeriod: 5s}\nlogging: {verbosity: 2}");
    world.scheduler("lc");
    assert!(!is_refused(&status(10249).unwrap()));
    let log = world.daemon.log();
    assert_eq!(log.matches(REFUSED).count(), 3, "{log}");
    assert!(log.contains("the kernel has no IPVS scheduler nonsense"), "{log}");
    assert_eq!(log.matches(READY).count(), 1, "it was never started again");
    assert_eq!((world.daemon.pid(), world.removals()), (pid, vec![]));
}

/// Whether the status says that the configuration file cannot be used.
fn is_refused(status: &Value) -> bool {
    let attention = status["attention"].as_array();
    attention.is_some_and(|all| all.iter().any(|one| one["kind"] == "configuration"))
}

/// As the kubelet changes the files of a ConfigMap: they are links to `..data/NAME`, and `..data` is
/// a link that is exchanged.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_config_map_that_is_exchanged_is_noticed() {
    let mut world = World::start(|scratch, text| {
        scratch.replace("config/..1/config.conf", text).unwrap();
        let folder = scratch.path().join("config");
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/config.conf", folder.join("config.conf")).unwrap();
        folder.join("config.conf")
    });
    let folder = world.scratch.path().join("config");
    // More than once: what is watched must be what is there now.
    for (version, scheduler) in [(2, "wrr"), (3, "sh"), (4, "lc")] {
        let text = config(&format!("ipvs: {{scheduler: {scheduler}}}"));
        world.scratch.replace(&format!("config/..{version}/config.conf"), text).unwrap();
        symlink(format!("..{version}"), folder.join("..new")).unwrap();
        std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        std::fs::remove_dir_all(folder.join(format!("..{}", version - 1))).unwrap();
        world.scheduler(scheduler);
    }
    assert_eq!(world.removals(), [""; 0]);
    assert!(!world.daemon.log().contains(REFUSED), "{}", world.daemon.log());
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_cannot_be_changed_live_starts_the_same_process_again() {
    let mut world = World::start(in_scratch);
    let pid = world.daemon.pid();
    let table = run("ipvsadm-save", ["-n"]).unwrap();
    world.write("ipvs: {scheduler: rr}\nmetricsBindAddress: 127.0.0.1:10333");
    let answers = || Ok(status(10333).filter(|status| status["synced"] == true));
    world.daemon.wait(answers, || "an answer at the new address".to_owned()).unwrap();
    assert!(status(10249).is_none(), "nobody is left at the old address");
    assert_eq!(world.daemon.log().matches(READY).count(), 2, "{}", world.daemon.log());
    assert_eq!(world.daemon.pid(), pid);
    assert_eq!((run("ipvsadm-save", ["-n"]).unwrap(), world.removals()), (table, vec![]));
    world.daemon.stop().unwrap();
}

/// In place of the configuration: a pipe that nobody writes to, a device without an end, a folder, a file
/// that is too large. Health is answered, the program goes on, and a signal ends it.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_is_no_file_is_kept_out_and_holds_nothing_up() {
    let mut world = World::start(in_scratch);
    let next = world.scratch.path().join("config/next");
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("it is a pipe, not a file", &|| drop(run("mkfifo", [&next]).unwrap())),
        ("it is a device, not a file", &|| symlink("/dev/zero", &next).unwrap()),
        ("it is a folder, not a file", &|| symlink("/", &next).unwrap()),
        ("it is larger than 1 MiB", &|| std::fs::write(&next, vec![b' '; (1 << 20) + 1]).unwrap()),
    ];
    for (n, (why, make)) in kinds.into_iter().enumerate() {
        make();
        std::fs::rename(&next, &world.config).unwrap();
        world.until(why, |log| log.matches(REFUSED).count() == n + 1 && log.contains(why));
        let (head, _) = get(("127.0.0.1", 10256), "/healthz").unwrap();
        assert!(head.contains(" 200 "), "{why}: {head}");
    }
    world.scratch.replace("config/config.conf", config("ipvs: {scheduler: lc}")).unwrap();
    world.scheduler("lc");
    run("mkfifo", [&next]).unwrap();
    std::fs::rename(&next, &world.config).unwrap();
    // The log does not repeat itself; the status says so.
    let refused = || Ok(status(10249).filter(is_refused));
    world.daemon.wait(refused, || "a pipe again".to_owned()).unwrap();
    world.daemon.stop().unwrap();
}

/// A timeout that no kernel takes is shortened to what this one takes, and the program runs.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn an_ipvs_timeout_beyond_the_kernels_limit_is_shortened() {
    let mut world = World::start(in_scratch);
    world.write("ipvs: {scheduler: lc, tcpTimeout: 999999h, udpTimeout: 77s}");
    world.scheduler("lc");
    let log = world.daemon.log();
    let (_, rest) =
        log.split_once("ipvs.tcpTimeout 3599996400 s is longer than this kernel takes: ").unwrap();
    let longest: u32 = rest.split(' ').next().unwrap().parse().unwrap();
    let timeouts = run("ipvsadm", ["-L", "--timeout"]).unwrap();
    assert!(timeouts.contains(&format!("{longest} 120 77")), "{longest}: {timeouts}");
    // One more is refused.
    assert!(run("ipvsadm", ["--set", &(longest + 1).to_string(), "0", "0"]).is_err());
    assert!(!log.contains(REFUSED), "{log}");
}
