//! The examples in a kernel without `ip_set` and `x_tables`, with a daemon as in an image of one file: no
//! program but itself, an empty PATH, a root that is read-only, one capability.

use std::fs;
use std::process::Command;

use proxier_tests::command::{output, program};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::netns::{Namespace, require_test_kernel};
use proxier_tests::nft;

use super::{CONFIG, build, cases, examples, serve};

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn with_nftables_alone_all_of_them_work_and_no_program_is_started() {
    require_test_kernel().unwrap();
    let scratch = Scratch::create().unwrap();
    let _kernel = Kernel::without_tables(&scratch);
    let topology = build();
    let _servers = serve(&topology);
    let node = &topology.node().host.namespace;
    let log = scratch.path().join("log");
    let mut daemon = Daemon::start_command(confined(node, &scratch), &log).unwrap();
    daemon.ready().unwrap();
    let said = daemon.log();
    let choice = said.lines().find(|line| line.contains("kept in tables of nftables"));
    let choice = choice.unwrap_or_else(|| panic!("another backend:\n{said}"));
    assert!(choice.contains("iptables does not work here") && choice.contains("why="), "{choice}");
    for case in cases() {
        case.check(&topology);
    }

    // What others break, and what changes.
    let mut until_as_computed = |what: &str| {
        let right = nft::blocks(&dry_run(node, &scratch));
        let found = || node.sh("nft list ruleset").map(|text| nft::blocks(&text));
        let explain = || format!("{what}: {:#?} instead of {right:#?}", found());
        daemon.wait(|| Ok((found()? == right).then_some(())), explain).unwrap();
        eprintln!("{what}");
    };
    until_as_computed("the tables");
    node.sh("nft delete table ip proxier").unwrap();
    until_as_computed("the table is back");
    fs::remove_file(scratch.path().join("objects/hello-service.yaml")).unwrap();
    until_as_computed("the members of a Service are gone");
    assert!(!node.sh("ipvsadm-save -n").unwrap().contains("10.101.173.15"));

    let trace = fs::read_to_string(scratch.path().join("trace")).unwrap();
    let (_, after) = trace.split_once("execve(\"/proxier\"").expect("the start of the daemon");
    let started: Vec<_> = after.lines().skip(1).filter(|line| line.contains("exec")).collect();
    assert_eq!(started, [""; 0], "it started programs");
}

/// A daemon that has its own file, the libraries that it is linked to, and nothing else. What it starts is
/// written to `trace`.
fn confined(node: &Namespace, scratch: &Scratch) -> Command {
    let config = scratch.replace("config.yaml", CONFIG).unwrap();
    for entry in fs::read_dir(examples()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        scratch.replace(&format!("objects/{name}"), fs::read(&path).unwrap()).unwrap();
    }
    // As the init container does: it may write to /proc/sys, the daemon may not.
    let proxier = program("proxier").unwrap();
    output(node.command(&proxier).arg("--init-only").arg("--config").arg(&config)).unwrap();

    let libraries = output(Command::new("ldd").arg(&proxier)).unwrap();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    let mut command = node.command("strace");
    // -D: the daemon is the child that is waited for, and strace is not.
    command
        .args(["-D", "-f", "-e", "trace=execve,execveat", "-o"])
        .arg(scratch.path().join("trace"));
    command.args(["bwrap", "--die-with-parent", "--clearenv", "--setenv", "PATH", ""]);
    for library in libraries {
        command.args(["--ro-bind", library, library]);
    }
    command.arg("--ro-bind").arg(&proxier).arg("/proxier");
    command.arg("--ro-bind").arg(&config).arg("/config.yaml");
    command.arg("--ro-bind").arg(scratch.path().join("objects")).arg("/objects");
    command.args([
        "--proc",
        "/proc",
        "--ro-bind",
        "/proc/sys",
        "/proc/sys",
        "--ro-bind",
        "/sys",
        "/sys",
    ]);
    command.args(["--remount-ro", "/"]);
    command.args(["--cap-drop", "ALL", "--cap-add", "CAP_NET_ADMIN"]);
    command.args(["/proxier", "--config", "/config.yaml", "--manifests", "/objects"]);
    command
}

/// What the tables should be.
fn dry_run(node: &Namespace, scratch: &Scratch) -> String {
    let mut command = node.command(program("proxier").unwrap());
    command.args(["--dry-run", "-o", "nftables", "--config"]);
    command.arg(scratch.path().join("config.yaml"));
    command.arg("--manifests").arg(scratch.path().join("objects"));
    output(&mut command).unwrap()
}

/// The kernel, of which some modules are missing until this is dropped.
struct Kernel {
    modprobe: String,
}

impl Kernel {
    const MODPROBE: &str = "/proc/sys/kernel/modprobe";

    /// As distributions build it that have left iptables and ipset behind.
    fn without_tables(scratch: &Scratch) -> Self {
        let all =
            "find /lib/modules/$(uname -r)/kernel/net -name '*.ko*' | sed 's,.*/,,; s/[.].*//'";
        let these = "grep -E '^(ip_set|xt_|x_tables|ip6?_tables|ip6?t_|ip6?table_|arp_tables|arptable_|ebt|nft_compat)'";
        let install = "sed 's,.*,install & /bin/false,'";
        let rules =
            output(Command::new("bash").args(["-c", &format!("{all} | {these} | {install}")]));
        let rules = rules.unwrap();
        assert!(rules.contains("install ip_set /bin/false"), "{rules}");
        scratch.replace("modprobe.d/none.conf", rules).unwrap();
        let folder = scratch.path().join("modprobe.d");
        let script = format!("#!/bin/sh\nexec /sbin/modprobe -C {} \"$@\"\n", folder.display());
        let script = scratch.replace("modprobe", script).unwrap();
        output(Command::new("chmod").arg("+x").arg(&script)).unwrap();
        let kernel = Self { modprobe: fs::read_to_string(Self::MODPROBE).unwrap() };
        fs::write(Self::MODPROBE, script.to_str().unwrap()).unwrap();
        // Those that tests before have used, in the order of their dependencies: namespaces that are being
        // cleaned up may still hold some.
        let unload = format!(
            "while lsmod | cut -d' ' -f1 | {these} >/dev/null; do
                 rmmod $(lsmod | awk '$3 == 0 {{ print $1 }}' | {these}) || sleep 0.1
             done 2>/dev/null
             ! ipset list && ! iptables-legacy -L"
        );
        output(Command::new("bash").args(["-uc", &unload])).unwrap();
        kernel
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        fs::write(Self::MODPROBE, &self.modprobe).unwrap();
    }
}
