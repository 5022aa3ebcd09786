//! Hosts that are set up in ways that break Services, and what the daemon does about it.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use proxier_tests::command::{output, program, run};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::golden;
use proxier_tests::netns::{ip, require_test_kernel};

/// A daemon of a dual-stack Service with these arguments, and its files.
struct World {
    scratch: Scratch,
    daemon: Daemon,
}

impl World {
    fn start(arguments: &[&str]) -> Self {
        Self::start_after(arguments, |_| ())
    }

    /// With something done before to a command with its files.
    fn start_after(arguments: &[&str], before: impl FnOnce(&mut Command)) -> Self {
        require_test_kernel().unwrap();
        let scratch = Scratch::create().unwrap();
        let objects = golden::root().join("dual-stack-service/objects.yaml");
        scratch.replace("manifests/objects.yaml", fs::read(objects).unwrap()).unwrap();
        let config = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
                      hostnameOverride: node-a\nclusterCIDR: 10.244.0.0/16,fd00:10:244::/56\n\
                      conntrack: {maxPerCore: 0}\nmetricsBindAddress: 127.0.0.1:10251\n";
        scratch.replace("config", config).unwrap();
        let path = |name: &str| scratch.path().join(name);
        let command = || {
            let mut command = Command::new(program("proxier").unwrap());
            command.arg("--config").arg(path("config")).arg("--manifests").arg(path("manifests"));
            command
        };
        before(&mut command());
        let mut command = command();
        command.args(arguments);
        let daemon = Daemon::start_command(command, &path("log")).unwrap();
        Self { scratch, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn logs(&mut self, text: &str) {
        let log = self.path("log");
        let says = || Ok(fs::read_to_string(&log)?.contains(text).then_some(()));
        self.daemon.wait(says, || text.to_owned()).unwrap();
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn ipv6_works_where_it_is_off_for_new_interfaces_and_missing_forwarding_is_named() {
    let set = |name: &str, value: &str| {
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
    };
    require_test_kernel().unwrap();
    set("default/disable_ipv6", "1");
    set("all/forwarding", "0");
    let mut world = World::start(&["-v=2"]);
    world.daemon.ready().unwrap();
    let bound = run("ip", ["-6", "-o", "address", "show", "dev", "kube-ipvs0"]).unwrap();
    assert!(bound.contains("fd00:10:96::4201"), "{bound}");
    world.logs("net.ipv6.conf.kube-ipvs0.disable_ipv6: 1 -> 0");
    world.logs("sysctl -w net.ipv6.conf.all.forwarding=1");

    // The same is said before, to somebody who asks.
    let mut check = Command::new(program("proxier").unwrap());
    check.args(["migrate", "--check", "--config"]).arg(world.path("config"));
    let out = check.arg("--manifests").arg(world.path("manifests")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("sysctl -w net.ipv6.conf.all.forwarding=1"), "{text}");
    world.daemon.stop().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_status_does_not_need_the_file_that_is_broken() {
    let mut world = World::start(&[]);
    world.daemon.ready().unwrap();
    let text = fs::read_to_string(world.path("config")).unwrap();
    fs::write(world.path("config"), format!("{text}mode: [\n")).unwrap();
    world.logs("the configuration file has changed and cannot be used");
    let mut status = Command::new(program("proxier").unwrap());
    let out = status.args(["status", "--config"]).arg(world.path("config")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("in sync, needs attention") && text.contains("cannot be used"),
        "{out:?}"
    );
    assert!(String::from_utf8_lossy(&out.stderr).contains("is not used"), "{out:?}");
    assert_eq!(out.status.code(), Some(2));
    world.daemon.stop().unwrap();
}

/// The daemon's container may not write settings: what it needs is made by the step before.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn init_only_makes_ipv6_work_where_it_is_off_for_new_interfaces() {
    require_test_kernel().unwrap();
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let mut world = World::start_after(&[], |init| {
        output(init.arg("--init-only")).unwrap();
        let off = fs::read_to_string("/proc/sys/net/ipv6/conf/kube-ipvs0/disable_ipv6").unwrap();
        assert_eq!(off.trim(), "0");
        let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
        run("sh", ["-c", read_only]).unwrap();
    });
    world.daemon.ready().unwrap();
    let bound = run("ip", ["-6", "-o", "address", "show", "dev", "kube-ipvs0"]).unwrap();
    assert!(bound.contains("fd00:10:96::4201"), "{bound}");
    world.daemon.stop().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn bridges_whose_frames_pass_the_firewall_by_are_named() {
    const COMMAND: &str = "sysctl -w net.bridge.bridge-nf-call-iptables=1";
    require_test_kernel().unwrap();
    run("modprobe", ["br_netfilter"]).unwrap();
    // The one that is there shows the interfaces of another namespace.
    run("mount", ["-t", "sysfs", "sysfs", "/sys"]).unwrap();
    ip("link add cni0 type bridge\nlink add veth0 type veth peer name veth1\nlink set veth0 master cni0")
        .unwrap();
    let set = |value| fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", value).unwrap();
    set("0");
    let mut world = World::start(&[]);
    world.daemon.ready().unwrap();
    world.logs(COMMAND);
    world.logs("cni0");
    let check = || {
        let mut check = Command::new(program("proxier").unwrap());
        check.args(["migrate", "--check", "--config"]).arg(world.path("config"));
        let out = check.arg("--manifests").arg(world.path("manifests")).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(check().contains(COMMAND), "{}", check());
    set("1");
    assert!(!check().contains("bridge-nf-call-iptables"), "{}", check());
    world.daemon.stop().unwrap();
}
