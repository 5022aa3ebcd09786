//! The daemon in the test kernel with exactly what `daemonset.yaml` gives it: capabilities, a root that is
//! read-only, its mounts, no new privileges, the runtime's default system call filter.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use proxier_tests::command::{output, program, run};
use proxier_tests::daemon::{KernelWide, Scratch};
use proxier_tests::golden::{Part, Scenario, compare, ignore_rules_of_empty_sets, observe};
use proxier_tests::netns::require_test_kernel;
use proxier_tests::wait::{Waited, until};
use rustix::thread::CapabilitySet;

use super::{arguments, daemon_set, only, pod, seccomp};

/// Virtual and real servers, addresses, sets, rules of two tables, and a rule with the `ipvs` match.
const SCENARIO: &str = "lb_source_ranges";
const NODE: &str = "node-a";
const PARTS: [Part; 4] = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];
/// Kubernetes' default for a process of root: what a container has that drops nothing.
const ALL: &str = "ALL";

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_daemon_programs_a_scenario_with_what_the_manifest_gives() {
    let node = Node::prepare();
    let manifest = daemon_set();
    let pod = pod(&manifest);
    node.init(pod);

    let container = only(&pod.containers);
    let mut daemon = node.start(pod, container, &capabilities(container));
    daemon.wait("the state of the golden", || node.difference().is_empty());
    daemon.is_confined(&capabilities(container));
    // What it finds questionable on the host is not about its rights.
    let log = daemon.log();
    let warned = log.lines().find(|line| line.contains("WARN") && !line.contains("host::checks"));
    assert_eq!(warned, None, "{log}");
    let set = log.lines().find(|line| line.contains("net.ipv4") && !line.contains("host::checks"));
    assert_eq!(set, None, "it set what was set:\n{log}");
}

/// Nothing in the manifest is there without need: with one capability less, something fails.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn each_capability_of_the_manifest_is_needed() {
    let node = Node::prepare();
    let manifest = daemon_set();
    let pod = pod(&manifest);
    node.init(pod);

    let container = only(&pod.containers);
    let all = capabilities(container);
    assert!(!all.is_empty());
    for left_out in &all {
        let rest: Vec<_> = all.iter().filter(|name| *name != left_out).cloned().collect();
        let mut daemon = node.start(pod, container, &rest);
        let status = daemon.child.wait().unwrap();
        println!("without {left_out}: {status}\n{}", daemon.log());
        assert!(!status.success());
        let says = match left_out.as_str() {
            "NET_ADMIN" => "CAP_NET_ADMIN is needed",
            _ => "Permission denied (you must be root)",
        };
        assert!(daemon.log().contains(says), "without {left_out}:\n{}", daemon.log());
    }
}

/// The network of a scenario, the files of a pod, and what is expected.
struct Node {
    scenario: Scenario,
    scratch: Scratch,
    _kernel_wide: KernelWide,
}

/// A container's process. Killed when dropped.
struct Running {
    child: Child,
    log: std::path::PathBuf,
}

// === impl Node ===

impl Node {
    fn prepare() -> Self {
        require_test_kernel().unwrap();
        let kernel_wide = KernelWide::shared().unwrap();
        let scenario = Scenario::load(SCENARIO).unwrap();
        for line in &scenario.setup {
            run("sh", ["-euc", line]).unwrap();
        }
        let scratch = Scratch::create().unwrap();
        let step = only(&scenario.steps);
        scratch.replace("config/config.conf", fs::read(&step.config).unwrap()).unwrap();
        scratch.replace("objects/objects.yaml", fs::read(&step.objects).unwrap()).unwrap();
        for (at, filter) in seccomp::filters().iter().enumerate() {
            scratch.replace(&format!("filter-{at}"), filter).unwrap();
        }
        // As hostPath's FileOrCreate does.
        fs::File::options().create(true).append(true).open("/run/xtables.lock").unwrap();
        Self { scenario, scratch, _kernel_wide: kernel_wide }
    }

    /// Runs the pod's init container to its end.
    fn init(&self, pod: &PodSpec) {
        let container = only(pod.init_containers.as_ref().unwrap());
        let mut command = self.command(pod, container, &[ALL.to_owned()]);
        println!("{}", output(&mut command).unwrap());
    }

    fn start(&self, pod: &PodSpec, container: &Container, capabilities: &[String]) -> Running {
        let log = self.scratch.path().join(format!("log-{}", capabilities.join("-")));
        let file = fs::File::create(&log).unwrap();
        let mut command = self.command(pod, container, capabilities);
        // What the manifest's kubeconfig would lead to comes from a folder here.
        command.args(["--manifests", "/var/lib/objects"]);
        // What is compared is what kube-proxy has left.
        command.arg("--local-policy=kube-proxy");
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Running { child: command.process_group(0).spawn().unwrap(), log }
    }

    /// What differs from the golden.
    fn difference(&self) -> String {
        let mut expected = only(&self.scenario.steps).expected.clone();
        let mut actual = observe(None, &expected, &PARTS).unwrap();
        ignore_rules_of_empty_sets(&mut expected, &mut actual);
        compare(&expected, &actual, &PARTS)
    }

    /// The container as a runtime starts it, in this network namespace.
    fn command(&self, pod: &PodSpec, container: &Container, capabilities: &[String]) -> Command {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let privileged = security.privileged == Some(true);
        let mut words: Vec<String> = Vec::new();
        let mut word = |text: &[&str]| words.extend(text.iter().map(|&word| word.to_owned()));
        word(&["--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
        if privileged {
            word(&["--bind", "/sys", "/sys"]);
        } else {
            word(&["--ro-bind", "/proc/sys", "/proc/sys"]);
        }
        // The places that an image would have.
        word(&["--tmpfs", "/var/lib", "--dir", "/var/lib/kube-proxy", "--dir", "/var/lib/objects"]);
        word(&["--ro-bind", &self.path("objects"), "/var/lib/objects"]);
        for mount in container.volume_mounts.iter().flatten() {
            let how = if mount.read_only == Some(true) { "--ro-bind" } else { "--bind" };
            let volumes = pod.volumes.as_ref().unwrap();
            let volume = volumes.iter().find(|volume| volume.name == mount.name).unwrap();
            let from = match (&volume.host_path, &volume.config_map) {
                (Some(host), None) => host.path.clone(),
                (None, Some(_)) => self.path("config"),
                _ => panic!("volume {} is of a kind that this test does not know", volume.name),
            };
            word(&[how, &from, &mount.mount_path]);
        }
        word(&["--remount-ro", "/var/lib"]);
        word(&["--cap-drop", "ALL"]);
        for name in capabilities {
            let name = if name == ALL { ALL.to_owned() } else { format!("CAP_{name}") };
            word(&["--cap-add", &name]);
        }
        let profile = pod.security_context.as_ref().unwrap().seccomp_profile.as_ref().unwrap();
        assert_eq!(profile.type_, "RuntimeDefault");
        if !privileged {
            word(&["--add-seccomp-fd", "8", "--add-seccomp-fd", "9"]);
        }
        // Both flavours of iptables are on this machine, and one in the kernel.
        let path = std::env::var("PATH").unwrap();
        let iptables = path.split(':').find(|folder| Path::new(folder).join("iptables").exists());
        word(&["--setenv", "PROXIER_IPTABLES_DIR", iptables.unwrap()]);
        word(&[program("proxier").unwrap().to_str().unwrap()]);
        words.extend(arguments(container, NODE));

        let mut command = Command::new("sh");
        command.args(["-euc", "exec bwrap \"$@\" 8<\"$FILTER_0\" 9<\"$FILTER_1\"", "sh"]);
        command.env("FILTER_0", self.path("filter-0")).env("FILTER_1", self.path("filter-1"));
        command.args(words);
        command
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).to_str().unwrap().to_owned()
    }
}

fn capabilities(container: &Container) -> Vec<String> {
    let capabilities = container.security_context.as_ref().unwrap().capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&[ALL.to_owned()][..]));
    capabilities.add.clone().unwrap()
}

// === impl Running ===

impl Running {
    fn wait(&mut self, what: &str, reached: impl Fn() -> bool) {
        let question = || Ok(reached().then_some(()));
        let between = Duration::from_millis(100);
        let waited = until(&mut self.child, between, question, || what.to_owned()).unwrap();
        assert!(matches!(waited, Waited::Reached(())), "no {what}: {waited:?}\n{}", self.log());
    }

    /// That the kernel says so too.
    fn is_confined(&self, allowed: &[String]) {
        let place = format!("/proc/{}", self.daemon());
        let status = fs::read_to_string(format!("{place}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        let bits = |name: &String| CapabilitySet::from_name(name).unwrap();
        let wanted: CapabilitySet = allowed.iter().map(bits).collect();
        // With no new privileges, these are also the most that a program started from there can have.
        for set in ["CapPrm:", "CapEff:"] {
            assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), wanted.bits(), "{set}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
        let mounts = fs::read_to_string(format!("{place}/mountinfo")).unwrap();
        let writable: Vec<_> = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words[5].split(',').any(|option| option == "rw"))
            .map(|words| words[4].to_owned())
            .filter(|path| !path.starts_with("/dev") && path != "/proc")
            .collect();
        assert_eq!(writable, ["/run/xtables.lock"]);
    }

    /// The process of the daemon: bwrap waits for it.
    fn daemon(&self) -> u32 {
        let bwrap = self.child.id();
        let children = fs::read_to_string(format!("/proc/{bwrap}/task/{bwrap}/children")).unwrap();
        let child = children.trim().parse().unwrap();
        let program = fs::read_link(format!("/proc/{child}/exe")).unwrap();
        assert!(program.ends_with("proxier"), "{}", program.display());
        child
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
