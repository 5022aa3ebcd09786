//! The daemon on a host that lacks something: one clear message, the exit status, and nothing done.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use proxier_tests::command::{output, program, run};
use proxier_tests::daemon::Scratch;
use proxier_tests::manifest::{self, Service};
use proxier_tests::netns::require_test_kernel;
use proxier_tests::traffic::Protocol;

/// How the kernel loads modules by itself.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

/// One service, so that there would be something to program.
fn manifests(scratch: &Scratch) -> Result<()> {
    let service = Service::new("web", &["10.96.0.10"]).port(Protocol::Tcp, 80, 8080);
    scratch.replace("manifests/objects.json", manifest::file(&[service.document()]))?;
    Ok(())
}

/// Everything that the daemon could have left.
fn kernel() -> Result<String> {
    // ipvsadm loads the module that one test does without.
    let script = "[ ! -d /sys/module/ip_vs ] || ipvsadm-save -n
        ipset save; ip -o link | cut -d: -f2
        for program in iptables ip6tables; do $program-legacy-save | grep KUBE; done
        cat /proc/sys/net/ipv4/conf/all/arp_ignore /proc/sys/net/ipv4/ip_forward";
    output(Command::new("bash").args(["-uc", script]))
}

/// Runs `proxier`, behind `wrapper` if there is one, which must end with this exit status, say this in its
/// one error, and leave the kernel as it was.
fn refuses<S: AsRef<OsStr>>(
    wrapper: &[&str],
    arguments: impl IntoIterator<Item = S>,
    variable: Option<(&str, &Path)>,
    status: i32,
    says: &[&str],
) -> Result<()> {
    let before = kernel()?;
    let proxier = program("proxier")?;
    let mut command = match wrapper.split_first() {
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(proxier);
            command
        }
        None => Command::new(proxier),
    };
    let out = command.args(arguments).envs(variable).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    // Log lines, then the error, which may show the place in a file.
    let (_, error) = text.split_once("proxier: ").unwrap_or_default();
    ensure!(out.status.code() == Some(status), "{:?} instead of {status}: {text}", out.status);
    for part in says {
        ensure!(error.contains(part), "no {part:?} in the error of:\n{text}");
    }
    ensure!(text.matches("proxier: ").count() == 1 && !text.contains("panicked"), "{text}");
    let after = kernel()?;
    ensure!(after == before, "something was left:\n{after}\nbefore:\n{before}");
    Ok(())
}

fn with_manifests(scratch: &Scratch, more: &[&str]) -> Vec<String> {
    let folder = scratch.path().join("manifests").display().to_string();
    let words = ["--manifests", &folder, "--hostname-override", "node-a", "--v", "0"];
    words.iter().chain(more).map(ToString::to_string).collect()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_scheduler_that_is_none() {
    fn test() -> Result<()> {
        require_test_kernel()?;
        let scratch = Scratch::create()?;
        manifests(&scratch)?;
        let arguments = with_manifests(&scratch, &["--ipvs-scheduler", "fastest"]);
        let says = ["the kernel has no IPVS scheduler fastest", "ip_vs_fastest"];
        refuses(&[], arguments, None, 1, &says)?;
        let arguments = with_manifests(&scratch, &["--ipvs-scheduler", "a-name-of-17-chars"]);
        refuses(&[], arguments, None, 64, &["Scheduler", "a-name-of-17-chars"])
    }
    test().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_permission() {
    fn test() -> Result<()> {
        require_test_kernel()?;
        let scratch = Scratch::create()?;
        manifests(&scratch)?;
        let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"];
        refuses(&without, with_manifests(&scratch, &[]), None, 1, &["NET_ADMIN"])
    }
    test().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_iptables() {
    fn test() -> Result<()> {
        require_test_kernel()?;
        let scratch = Scratch::create()?;
        manifests(&scratch)?;
        let empty = scratch.path().join("empty");
        fs::create_dir(&empty)?;
        let variable = Some(("PROXIER_IPTABLES_DIR", &*empty));
        refuses(
            &[],
            with_manifests(&scratch, &[]),
            variable,
            1,
            &["IPv4 cannot be served", "iptables"],
        )
    }
    test().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_ip_vs() {
    fn test() -> Result<()> {
        require_test_kernel()?;
        let scratch = Scratch::create()?;
        manifests(&scratch)?;
        // Nothing uses it between two tests; without modprobe the kernel cannot load it again.
        let modprobe = fs::read_to_string(MODPROBE)?;
        let unload =
            "for module in xt_ipvs $(cd /sys/module && ls -d ip_vs_* 2>/dev/null) ip_vs; do
            [ ! -d /sys/module/$module ] || rmmod $module; done";
        output(Command::new("bash").args(["-euc", unload]))?;
        fs::write(MODPROBE, "/bin/false")?;
        let result = refuses(&[], with_manifests(&scratch, &[]), None, 1, &["modprobe ip_vs"]);
        fs::write(MODPROBE, modprobe)?;
        run("modprobe", ["ip_vs"])?;
        result
    }
    test().unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_kubeconfig_that_is_none() {
    fn test() -> Result<()> {
        require_test_kernel()?;
        let scratch = Scratch::create()?;
        let words = |path: &Path| {
            ["--kubeconfig".into(), path.display().to_string(), "--hostname-override=a".into()]
        };
        let missing = scratch.path().join("missing");
        refuses(&[], words(&missing), None, 64, &["watch the cluster", "missing"])?;
        let garbage = scratch.replace("garbage", "clusters: [")?;
        refuses(&[], words(&garbage), None, 64, &["watch the cluster", "garbage"])?;
        let file = "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n";
        let contextless = scratch.replace("contextless", file)?;
        refuses(&[], words(&contextless), None, 64, &["watch the cluster", "nowhere"])
    }
    test().unwrap();
}
