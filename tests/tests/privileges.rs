//! The daemon as a user other than root, and with files of another user: what it can do at the start, it can do
//! after it has started itself again.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::command::{output, program, run};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::manifest;
use proxier_tests::netns::require_test_kernel;

/// A user that is not root, with no entry in any file.
const SOMEBODY: u32 = 4711;
const READY: &str = "ready: the kernel is as the cluster says";

/// The files of a daemon, and a copy of the program that everybody can run.
struct Files(Scratch);

impl Files {
    fn create() -> Self {
        require_test_kernel().unwrap();
        let scratch = Scratch::create().unwrap();
        let objects = [
            node("node-a", "192.0.2.1"),
            service("dev", "web", "10.96.0.1"),
            slice("dev", "web-1", "web", &["10.244.0.5"]),
        ];
        scratch.replace("manifests/objects.json", manifest::file(&objects)).unwrap();
        fs::copy(program("proxier").unwrap(), scratch.path().join("proxier")).unwrap();
        let files = Self(scratch);
        files.configure(10249);
        // Modules of the kernel need more than the daemon has.
        let mut init = Command::new(files.path("proxier"));
        output(init.arg("--init-only").arg("--config").arg(files.path("config"))).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// In place, so that it stays whose it is.
    fn configure(&self, port: u16) {
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
             hostnameOverride: node-a\nconntrack: {{maxPerCore: 0}}\nmetricsBindAddress: 127.0.0.1:{port}\n"
        );
        fs::write(self.path("config"), text).unwrap();
    }

    /// The daemon, started by `setpriv` with these arguments.
    fn daemon(&self, setpriv: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(setpriv).arg("--").arg(self.path("proxier"));
        command.arg("--config").arg(self.path("config"));
        command.arg("--manifests").arg(self.path("manifests"));
        command.args(["--node-address=192.0.2.1", "-v=2"]);
        command
    }

    /// Runs it until everything is programmed, makes it start itself again, and takes away what it made: it
    /// can still put all of it back.
    fn starts_twice(&self, daemon: Command) {
        let mut daemon = Daemon::start_command(daemon, &self.path("log")).unwrap();
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        let times = |text: &str, count| Ok((log().matches(text).count() == count).then_some(()));
        daemon.wait(|| times(READY, 1), || "ready".to_owned()).unwrap();
        assert!(run("ipvsadm-save", ["-n"]).unwrap().contains("10.244.0.5:8080"));
        assert!(run("iptables-save", [""; 0]).unwrap().contains("KUBE-SERVICES"));
        self.configure(10333);
        daemon.wait(|| times(READY, 2), || "ready again".to_owned()).unwrap();
        for (program, words) in [
            ("ipvsadm", &["-C"][..]),
            ("iptables", &["-t", "nat", "-F", "KUBE-SERVICES"]),
            ("ip", &["link", "delete", "kube-ipvs0"]),
        ] {
            run(program, words).unwrap();
        }
        self.configure(10334);
        daemon.wait(|| times(READY, 3), || "ready once more".to_owned()).unwrap();
        assert!(run("ipvsadm-save", ["-n"]).unwrap().contains("10.244.0.5:8080"));
        let rules = run("iptables-save", ["-t", "nat"]).unwrap();
        assert!(rules.contains("-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP"), "{rules}");
        daemon.stop().unwrap();
    }
}

/// The lock that `iptables-legacy` takes belongs to root.
fn lock(mode: u32) {
    let path = "/run/xtables.lock";
    fs::File::options().create(true).append(true).open(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_file_of_another_user_is_read_again_after_a_restart() {
    let files = Files::create();
    for name in ["config", "manifests/objects.json"] {
        chown(files.path(name), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let few = "--bounding-set=-all,+net_admin,+net_raw,+dac_read_search";
    files.starts_twice(files.daemon(&["--inh-caps=-all", few]));
    let log = fs::read_to_string(files.path("log")).unwrap();
    assert!(log.contains("DAC_READ_SEARCH is kept"), "{log}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn another_user_than_root_programs_everything_with_two_capabilities() {
    let files = Files::create();
    lock(0o666);
    let id = SOMEBODY.to_string();
    let user = ["--reuid", &id, "--regid=0", "--clear-groups"];
    let caps = ["--inh-caps=-all,+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"];
    files.starts_twice(files.daemon(&[&user[..], &caps].concat()));

    // The other way to get them: the program's file has them, as in an image.
    fs::remove_file(files.path("log")).unwrap();
    files.configure(10249);
    run("setcap", ["cap_net_admin,cap_net_raw=ep", files.path("proxier").to_str().unwrap()])
        .unwrap();
    files.starts_twice(files.daemon(&user));
    lock(0o600);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn another_user_than_root_is_told_what_it_lacks() {
    let files = Files::create();
    let id = SOMEBODY.to_string();
    let user = ["--reuid", &id, "--clear-groups"];
    let caps = ["--inh-caps=-all,+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"];
    let group = format!("--regid={id}");
    for (group, caps, mode, says) in [
        ("--regid=0", &caps[..], 0o600, "xtables.lock"),
        (&group, &caps, 0o666, "or in group 0"),
        (&group, &[], 0o666, "CAP_NET_ADMIN is needed"),
        // The lock is not what it lacks.
        (&group, &[], 0o600, "this process has no CAP_NET_ADMIN"),
    ] {
        lock(mode);
        let out = files.daemon(&[&user[..], &[group], caps].concat()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains(says), "no {says:?} in {text}");
    }
    lock(0o600);
}
