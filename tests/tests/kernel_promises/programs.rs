//! Programs of iptables that fail: nothing new is bound while the rules that protect it are missing.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use proxier_tests::apiserver::object::service;
use proxier_tests::daemon::Scratch;
use proxier_tests::disturbed::{
    AUDITS, behind_its_back, cluster, has_rules, metric, rules, samples, sh,
};
use proxier_tests::figure;
use proxier_tests::golden::Dump;
use proxier_tests::live::Live;

/// A folder of iptables programs that count their starts, and fail on command.
pub(super) struct Programs {
    scratch: Scratch,
}

impl Programs {
    /// What they say when they fail.
    pub(super) const ERROR: &str = "no luck today";

    pub(super) fn install() -> Self {
        let scratch = Scratch::create().unwrap();
        let folder = scratch.path().display();
        for family in ["iptables", "ip6tables"] {
            for kind in ["", "-save", "-restore"] {
                let name = format!("{family}{kind}");
                // The daemon tries them at its start, before it gives up privileges: not to fail there.
                let script = format!(
                    "#!/bin/sh\necho {name} >>{folder}/started\n\
                     if [ -e {folder}/fail{kind} ]; then\n\
                     while read -r key value; do\n\
                     [ \"$key $value\" != 'NoNewPrivs: 1' ] || {{ echo '{}' >&2; exit 1; }}\n\
                     done </proc/self/status\nfi\n\
                     exec /usr/sbin/xtables-legacy-multi {name} \"$@\"\n",
                    Self::ERROR
                );
                let path = scratch.replace(&name, script).unwrap();
                sh(&format!("chmod +x {}", path.display()));
            }
        }
        Self { scratch }
    }

    /// Those of this kind (`-save`, `-restore`) fail from now on.
    pub(super) fn fail(&self, kind: &str) {
        fs::write(self.scratch.path().join(format!("fail{kind}")), "").unwrap();
    }

    /// All work again.
    pub(super) fn mend(&self) {
        sh(&format!("rm -f {}/fail*", self.scratch.path().display()));
    }

    /// How many were started so far.
    pub(super) fn started(&self) -> usize {
        let text = fs::read_to_string(self.scratch.path().join("started")).unwrap_or_default();
        text.lines().count()
    }

    /// A daemon that uses them.
    pub(super) fn daemon(&self, live: &Live, arguments: &[&str]) -> Command {
        let more = [&["--conntrack-max-per-core=0"], arguments].concat();
        let mut command = live.proxier(&more).unwrap();
        command.env("PROXIER_IPTABLES_DIR", self.scratch.path());
        command
    }
}

/// How often the rules of IPv4 could not be installed.
fn failures() -> u64 {
    let found = samples("kubeproxy_sync_proxy_rules_iptables_restore_failures_total");
    let ipv4 = found.iter().find(|(labels, _)| labels.contains("IPv4"));
    ipv4.map_or(0, |(_, count)| *count)
}

fn bound(kernel: &Dump) -> BTreeSet<&String> {
    kernel.addresses.iter().filter(|line| !line.starts_with("link ")).collect()
}

/// What `proxier status` prints, and its exit status.
pub(super) fn status(live: &Live) -> (Option<i32>, String) {
    let output = live.proxier(&[]).unwrap().arg("status").output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn while_rules_cannot_be_installed_nothing_new_is_bound() {
    let mut live = cluster();
    let programs = Programs::install();
    programs.fail("-restore");
    let command = programs.daemon(&live, AUDITS);
    live.start_command(command).unwrap();
    let wanted = live.dry_run().unwrap();
    live.until("all but the rules", |log, kernel| {
        kernel.ipvs == wanted.ipvs && log.contains(Programs::ERROR)
    })
    .unwrap();
    live.until("another try", |_, _| failures() > 1).unwrap();
    let kernel = proxier_tests::live::kernel().unwrap();
    assert_eq!(bound(&kernel), BTreeSet::new());
    assert!(!rules().contains("KUBE-"), "{}", rules());
    let (code, text) = status(&live);
    assert_eq!(code, Some(1), "{text}");
    let held = "address 10.96.0.1 waits for IPv4 firewall rules";
    assert!(
        text.lines().any(|line| line.starts_with("held back ") && line.ends_with(held)),
        "{text}"
    );
    assert!(metric("proxier_held_back") > 0);
    // An Event tells of it after a sync period, with the next step.
    while !live
        .server
        .events()
        .iter()
        .any(|event| event.body["reason"] == "HeldBack" && event.body["regarding"]["name"] == "web")
    {
        let tries = failures();
        live.until("one more try", |_, _| failures() > tries).unwrap();
    }
    programs.mend();
    live.until_as("everything", &wanted).unwrap();
    assert_eq!(metric("proxier_held_back"), 0);
    live.until("the rules", |_, _| has_rules()).unwrap();

    // While it runs: what is bound stays, what is new waits.
    let right = rules();
    programs.fail("-restore");
    behind_its_back(&live, "iptables -t nat -F; iptables -F");
    let before = failures();
    live.until("a try", |_, _| failures() > before).unwrap();
    live.server.put(service("dev", "late", "10.96.0.9"));
    let later = live.dry_run().unwrap();
    live.until("the new virtual server, and tries", |_, kernel| {
        kernel.ipvs == later.ipvs && failures() > before + 2
    })
    .unwrap();
    let kernel = proxier_tests::live::kernel().unwrap();
    assert_eq!(bound(&kernel), bound(&wanted));
    programs.mend();
    live.until_as("the new one, too", &later).unwrap();
    live.until("the rules", |_, _| rules() == right).unwrap();
    figure("iptables-restore that fails, at the start and while it runs: bound meanwhile: 0");
}
