//! Every golden scenario in the test kernel: the running daemon brings it to what kube-proxy left, step
//! by step, as the usual tools see it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use proxier_tests::command::{output, run};
use proxier_tests::daemon::{Daemon, KernelWide, Scratch};
use proxier_tests::golden::{
    Part, Scenario, Step, Sysctls, compare, ignore_rules_of_empty_sets, observe,
};
use proxier_tests::netns::{ip, require_test_kernel};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// Where the suite keeps the namespace that the test kernel started with.
const INITIAL_NAMESPACE: &str = "/run/initial-netns";

macro_rules! tests {
    ($($name:ident,)*) => {
        $(
            #[test]
            #[ignore = "needs a kernel with IPVS: tests/vm/run"]
            fn $name() {
                replay(stringify!($name)).unwrap();
            }
        )*
    };
}
proxier_tests::for_each_scenario!(tests);

/// Starts a daemon that does as kube-proxy, whose tables are what is compared.
fn start(config: &Path, manifests: &Path, log: &Path, alone: bool) -> Result<Daemon> {
    let words: [&OsStr; 5] = [
        "--local-policy=kube-proxy".as_ref(),
        "--config".as_ref(),
        config.as_ref(),
        "--manifests".as_ref(),
        manifests.as_ref(),
    ];
    if alone { Daemon::start_alone(None, words, log) } else { Daemon::start_with(None, words, log) }
}

/// Runs a scenario's steps.
fn replay(name: &str) -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load(name)?;
    if scenario.initial_namespace && Path::new(INITIAL_NAMESPACE).exists() && !entered()? {
        return enter_initial_namespace(name);
    }
    // One scenario changes what the whole kernel has only once.
    let initial = scenario.initial_namespace;
    let _kernel_wide = if initial { None } else { Some(KernelWide::shared()?) };
    let _conntrack_max = if initial { Some(ConntrackMax::note()?) } else { None };
    // So that their settings exist before the daemon asks for them.
    run("modprobe", ["-a", "ip_vs", "nf_conntrack", "nf_conntrack_netlink"])?;
    set_up(&scenario)?;
    let first = scenario.steps.first().context("a scenario has a step")?;
    let sysctls = Sysctls::note(first.expected.sysctls.keys())?;

    let scratch = Scratch::create()?;
    let manifests = scratch.path().join("manifests");
    let log = scratch.path().join("log");
    let mut running: Option<Daemon> = None;
    for step in &scenario.steps {
        if let Some(script) = &step.run_before {
            run_before(script)?;
        }
        if step.restart {
            running.take().context("a daemon to restart")?.stop()?;
        }
        if let Some(script) = &step.prepare {
            output(Command::new("bash").arg("-eu").arg(script))?;
            if scenario.name == "exclude-cidrs" {
                output(Command::new("bash").args(["-euc", MARK]))?;
            }
        }
        scratch.replace("manifests/objects.yaml", fs::read(&step.objects)?)?;
        let daemon = match &mut running {
            Some(daemon) => daemon,
            None => running.insert(start(&step.config, &manifests, &log, initial)?),
        };
        reach(daemon, step, &sysctls).with_context(|| {
            format!("{}: {}\nstep {}", scenario.name, scenario.covers, step.name)
        })?;
    }
    running.context("a daemon")?.stop()
}

/// Without a cluster, virtual servers that others have made stay (`dataplane/foreign.rs`). Their address
/// on `kube-ipvs0` marks these as what a former run has left, which goes unless it is excluded.
const MARK: &str = "ip link add kube-ipvs0 type dummy
    for server in 203.0.113.100 203.0.113.200; do ip address add $server/32 dev kube-ipvs0; done";

/// Waits until everything equals the golden dump.
fn reach(daemon: &mut Daemon, step: &Step, sysctls: &Sysctls) -> Result<()> {
    let mut expected = step.expected.clone();
    expected.sysctls = sysctls.expect(&expected.sysctls, &step.sysctls_before);
    scale_conntrack_max(&mut expected.sysctls)?;
    let expected = &expected;
    let difference = |parts: &[Part]| -> Result<String> {
        let mut actual = observe(None, expected, parts)?;
        let mut expected = expected.clone();
        ignore_rules_of_empty_sets(&mut expected, &mut actual);
        Ok(compare(&expected, &actual, parts))
    };
    let last = std::cell::RefCell::new(String::new());
    daemon.wait(
        || {
            // Part by part: a look at one that differs is a look that the others are spared.
            for part in Part::ALL {
                let text = difference(&[part])?;
                if !text.is_empty() {
                    last.replace(text);
                    return Ok(None);
                }
            }
            Ok(Some(()))
        },
        || {
            difference(&Part::ALL)
                .unwrap_or_else(|error| format!("{}\nthen {error:#}", last.borrow()))
        },
    )
}

/// The recording machine had two processors; the daemon multiplies by those of this kernel.
fn scale_conntrack_max(sysctls: &mut BTreeMap<String, String>) -> Result<()> {
    // conntrack-settings: maxPerCore 100000, min 150000.
    let per_core = 100_000;
    let (recorded, minimum) = ((2 * per_core).to_string(), 150_000);
    if let Some(value) =
        sysctls.get_mut("net.netfilter.nf_conntrack_max").filter(|value| **value == recorded)
    {
        let processors =
            std::thread::available_parallelism().context("count the processors")?.get();
        *value = (processors * per_core).max(minimum).to_string();
    }
    Ok(())
}

/// The size of the connection table: put back when dropped, and nobody else's meanwhile.
struct ConntrackMax {
    value: String,
    _alone: KernelWide,
}

impl ConntrackMax {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    fn note() -> Result<Self> {
        let alone = KernelWide::alone()?;
        let value = fs::read_to_string(Self::PATH).context("read nf_conntrack_max")?;
        Ok(Self { value, _alone: alone })
    }
}

impl Drop for ConntrackMax {
    fn drop(&mut self) {
        // Where this fails, every later test says so.
        let _ = fs::write(Self::PATH, &self.value);
    }
}

/// Gives the node its links and addresses.
fn set_up(scenario: &Scenario) -> Result<()> {
    if scenario.initial_namespace {
        ip("link add eth0 type dummy\nlink set eth0 up\naddr add 10.0.2.15/24 dev eth0")?;
    }
    for line in &scenario.setup {
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some("ip"), "set-up command {line:?} is not of ip");
        run("ip", words)?;
    }
    Ok(())
}

/// Runs the commands of a `run-before.sh`.
fn run_before(script: &Path) -> Result<()> {
    for line in fs::read_to_string(script)?.lines() {
        let line = line.split('#').next().unwrap_or_default();
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["open-connections", address, port, count] => {
                let to = SocketAddr::new(address.parse()?, port.parse()?);
                for _ in 0..count.parse()? {
                    send_syn(to)?;
                }
            }
            _ => bail!("unknown command {line:?} in {}", script.display()),
        }
    }
    Ok(())
}

/// Sends the first packet of a connection, which nobody answers, and no other.
fn send_syn(to: SocketAddr) -> Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&socket, &to) {
        // The packet is out: it passes IPVS within the call.
        Err(rustix::io::Errno::INPROGRESS) => Ok(()),
        other => bail!("connect to {to} was expected to be in progress: {other:?}"),
    }
}

/// Whether this process is in the namespace that the kernel started with.
fn entered() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let inode =
        |path| fs::metadata(path).map(|file| file.ino()).with_context(|| format!("look at {path}"));
    Ok(inode(INITIAL_NAMESPACE)? == inode("/proc/self/ns/net")?)
}

/// Runs this test once more, in the namespace that the kernel started with, where settings of the
/// whole kernel can be written.
fn enter_initial_namespace(name: &str) -> Result<()> {
    let me = std::env::current_exe().context("find this executable")?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={INITIAL_NAMESPACE}")).arg("--").arg(me);
    output(command.args(["--ignored", "--exact", name, "--nocapture"])).map(drop)
}
