//! A daemon that cannot read the kernel costs little, says so, and recovers by itself.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proxier_tests::daemon::Scratch;
use proxier_tests::disturbed::{cluster, has_rules, metric, sh};
use proxier_tests::figure;
use proxier_tests::http::get;
use proxier_tests::live::Live;
use proxier_tests::wait;

use super::programs::Programs;

/// Short, so that health tells soon; every audit reads everything, and so fails once more.
const PERIOD: &[&str] = &["--ipvs-sync-period=10s", "--ipvs-min-sync-period=0s"];
const MINUTE: Duration = Duration::from_mins(1);
const HEALTH: &str = "127.0.0.1:10256";
/// What a daemon says once.
const READY: &str = "ready: ";

/// Clock ticks of a process so far.
fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = text.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    // utime and stime; the first field here is the third.
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

fn healthy() -> bool {
    get(HEALTH, "/healthz").is_ok_and(|(head, _)| head.contains(" 200 "))
}

/// What a minute costs: processes and steps, which are bounded here, and processor time.
fn a_minute(live: &Live, programs: &Programs, what: &str) {
    let cost = || (programs.started(), metric("proxier_steps_total"), ticks(live.pid().unwrap()));
    let (before, began) = (cost(), Instant::now());
    // What is looked at is that time passes.
    std::thread::sleep(MINUTE);
    let (after, took) = (cost(), began.elapsed().as_secs_f64());
    let (processes, steps) = (after.0 - before.0, after.1 - before.1);
    let hertz: f64 = sh("getconf CLK_TCK").trim().parse().unwrap();
    let ticks = u32::try_from(after.2 - before.2).unwrap();
    let share = f64::from(ticks) / hertz / took * 100.0;
    figure(&format!(
        "{what}: {processes} processes and {steps} steps in {took:.0} s, {share:.2} % of a processor"
    ));
    assert!(processes <= 30, "{processes} processes in {took} s");
    assert!(steps <= 60, "{steps} steps in {took} s");
}

/// Until health says so, through a minute in which little is done, and after the cause has ended.
fn survives(live: &mut Live, programs: &Programs, what: &str, mend: impl FnOnce(u32)) {
    let wanted = live.dry_run().unwrap();
    a_minute(live, programs, what);
    live.until("bad health", |_, _| !healthy()).unwrap();
    let began = Instant::now();
    mend(live.pid().unwrap());
    live.until_as("everything", &wanted).unwrap();
    live.until("the rules", |_, _| has_rules()).unwrap();
    live.until("good health", |_, _| healthy()).unwrap();
    figure(&format!(
        "{what}: well {:.1} s after the cause has ended",
        began.elapsed().as_secs_f64()
    ));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn rules_that_cannot_be_read_cost_little_at_the_start() {
    let mut live = cluster();
    let programs = Programs::install();
    programs.fail("-save");
    let command = programs.daemon(&live, PERIOD);
    live.start_command(command).unwrap();
    live.until("a failure", |log, _| log.contains(Programs::ERROR)).unwrap();
    survives(&mut live, &programs, "rules unreadable from the start", |_| programs.mend());
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn rules_that_cannot_be_read_any_more_cost_little() {
    let mut live = cluster();
    let programs = Programs::install();
    let command = programs.daemon(&live, PERIOD);
    live.start_command(command).unwrap();
    live.converge("everything").unwrap();
    programs.fail("-save");
    sh("iptables -t nat -F KUBE-SERVICES");
    live.until("a failure", |log, _| log.contains(Programs::ERROR)).unwrap();
    survives(&mut live, &programs, "rules unreadable while it runs", |_| programs.mend());
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn without_file_descriptors_it_costs_little() {
    let mut live = cluster();
    let programs = Programs::install();
    let command = programs.daemon(&live, PERIOD);
    live.start_command(command).unwrap();
    live.converge("everything").unwrap();
    live.until("the rules", |_, _| has_rules()).unwrap();
    let pid = live.pid().unwrap();
    let limit = |files: &str| sh(&format!("prlimit --pid {pid} --nofile={files}:1048576"));
    // Enough for an answer of the health server, too few to start a program.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    limit(&(open + 2).to_string());
    sh("ipvsadm -C; ip link del kube-ipvs0; iptables -t nat -F KUBE-SERVICES");
    live.until("a failure", |log, _| log.contains("Too many open files")).unwrap();
    survives(&mut live, &programs, "no file descriptors", |_| _ = limit("1024"));
}

/// From the start: whoever cannot begin says so and ends; whoever can begin but not work waits.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_start_with_few_file_descriptors_ends_or_costs_little() {
    const WINDOW: Duration = Duration::from_secs(15);
    const ERROR: &str = "Too many open files";
    let live = cluster();
    let (programs, scratch) = (Programs::install(), Scratch::create().unwrap());
    let (mut ended, mut waiting) = (Vec::new(), Vec::new());
    for files in (16_u32..).step_by(2) {
        let daemon = programs.daemon(&live, PERIOD);
        let path = scratch.path().join(files.to_string());
        let log = || fs::read_to_string(&path).unwrap_or_default();
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}")).arg(daemon.get_program()).args(daemon.get_args());
        for (name, value) in daemon.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let output = fs::File::create(&path).unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(output).spawn().unwrap();
        let mut ask = |question: &dyn Fn(&str) -> bool| {
            let answer = || Ok(question(&log()).then_some(()));
            wait::until(&mut child, Duration::from_millis(100), answer, log).unwrap();
        };
        ask(&|log| log.contains(ERROR) || log.contains(READY));
        let (processes, before) = (programs.started(), Instant::now());
        ask(&|log| log.contains(READY) || before.elapsed() >= WINDOW);
        let status = child.try_wait().unwrap();
        let is_ready = log().contains(READY);
        let _ = child.kill();
        child.wait().unwrap();
        match status {
            _ if is_ready => break,
            Some(status) => {
                assert!(status.code() == Some(1) && log().contains(ERROR), "{files}: {}", log());
                ended.push(files);
            }
            None => {
                let processes = programs.started() - processes;
                assert!(processes <= 15, "{files}: {processes} processes in 15 s: {}", log());
                waiting.push((files, processes));
            }
        }
    }
    assert!(!ended.is_empty() && !waiting.is_empty(), "{ended:?} {waiting:?}");
    figure(&format!(
        "few file descriptors at the start: ended with {ended:?}, waiting with {:?}, {} processes in 15 s at most",
        waiting.iter().map(|(files, _)| files).collect::<Vec<_>>(),
        waiting.iter().map(|(_, processes)| processes).max().unwrap(),
    ));
}
