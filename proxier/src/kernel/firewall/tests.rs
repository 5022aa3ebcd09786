use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::dataplane::firewall::{FirewallOptions, ruleset};
use crate::iptables::{restore_input, save_text};

/// A directory with programs that are not iptables.
struct Fake(PathBuf);

impl Fake {
    fn new(flavours: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("proxier-iptables-{}-{number}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        // Linked, not written: a program that is still open for writing somewhere cannot be run.
        let program =
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernel/firewall/testdata/fake-iptables");
        for flavour in flavours {
            for name in ["", "-save", "-restore"] {
                for base in ["iptables", "ip6tables"] {
                    let name = format!("{base}{flavour}{name}");
                    symlink(program, directory.join(name)).unwrap();
                }
            }
        }
        let fake = Self(directory);
        fake.set("version", "iptables v1.8.9 (nf_tables)");
        fake.set("saved", "");
        fake
    }

    fn set(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    fn get(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn find(&self) -> Firewall {
        Firewall::find(Some(&self.0))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rules() -> Ruleset {
    ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new())
}

#[test]
fn without_programs_the_error_says_what_to_install() {
    let fake = Fake::new(&[]);
    let error = fake.find().tools(Family::Ipv4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotInstalled);
    assert!(error.to_string().contains("(package iptables)"), "{error}");
}

#[test]
fn programs_that_do_not_work_are_no_programs() {
    let fake = Fake::new(&[""]);
    fake.set("broken", "");
    let error = fake.find().tools(Family::Ipv4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPermission);
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_lock_that_is_held_makes_no_programs_unusable() {
    let fake = Fake::new(&[""]);
    fake.set("locked", "");
    let mut firewall = fake.find();
    let error = firewall.install(&rules()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lock, "{error}");
    fs::remove_file(fake.0.join("locked")).unwrap();
    fake.set("after", &save_text(&rules()));
    firewall.install(&rules()).unwrap();
}

#[test]
fn the_default_is_taken_where_nothing_tells() {
    let fake = Fake::new(&["", "-legacy", "-nft"]);
    let firewall = fake.find();
    let tools = firewall.tools(Family::Ipv4).unwrap();
    assert_eq!(tools.main, fake.0.join("iptables"));
    assert_eq!((tools.variant, tools.version.minor), (Variant::Nft, 8));
}

#[test]
fn programs_that_cannot_write_give_way_to_others() {
    let fake = Fake::new(&["", "-legacy", "-nft"]);
    fake.set("after", &save_text(&rules()));
    fake.set("refuse-iptables-restore", "*nat");
    fake.set("refuse-iptables-nft-restore", "*nat");
    let mut firewall = fake.find();
    firewall.install(&rules()).unwrap();
    let tools = firewall.tools(Family::Ipv4).unwrap();
    assert_eq!(tools.main, fake.0.join("iptables-legacy"));

    // Now something tells which programs to use.
    fake.set("saved-iptables-nft-save", &save_text(&rules()));
    fake.set("saved", "");
    let error = fake.find().install(&rules()).unwrap_err();
    assert!(error.to_string().contains("iptables-nft-restore"), "{error}");
}

#[test]
fn what_is_installed_is_read_back_and_known_again() {
    let fake = Fake::new(&[""]);
    // A version that prints a rule in other words.
    fake.set("after", &save_text(&rules()).replace("--set-xmark 0x4000/0x0", "--toggle 0x4000"));
    let mut firewall = fake.find();
    assert_eq!(firewall.look(Family::Ipv4).unwrap().ours, None);
    let started = firewall.processes_started();
    assert_eq!(firewall.install(&rules()).unwrap(), Installation::default());
    assert_eq!(firewall.processes_started() - started, 3);
    assert_eq!(fake.get("arguments"), "-w 5 --noflush\n");
    assert_eq!(fake.get("input"), restore_input(&rules(), &Installed::parse(Family::Ipv4, "")));

    assert_eq!(firewall.look(Family::Ipv4).unwrap().ours, Some(rules()));
    fake.set("saved", &fake.get("saved").replace("-j DROP", "-j ACCEPT"));
    assert_ne!(firewall.look(Family::Ipv4).unwrap().ours, Some(rules()));
}

#[test]
fn a_restart_knows_rules_that_iptables_prints_in_other_words() {
    let fake = Fake::new(&[""]);
    let printed = save_text(&rules());
    let printed = printed
        .replace("--set-xmark 0x4000/0x0", "--xor-mark 0x4000")
        .replace("--set-xmark 0x4000/0x4000", "--or-mark 0x4000")
        .replace("-m mark ! --mark 0x4000/0x4000", "-m mark --mark ! 16384/16384")
        .replace(
            "-m conntrack --ctstate RELATED,ESTABLISHED",
            "-m state --state ESTABLISHED,RELATED",
        )
        .replace("-p sctp", "-p 132");
    assert_ne!(printed, save_text(&rules()));
    fake.set("saved", &printed);
    assert_eq!(fake.find().look(Family::Ipv4).unwrap().ours, Some(rules()));
    // One that says something else is not the same.
    fake.set("saved", &printed.replacen("--or-mark", "--xor-mark", 1));
    assert_ne!(fake.find().look(Family::Ipv4).unwrap().ours, Some(rules()));
}

#[test]
fn a_change_is_given_up_after_a_while_and_a_slow_host_gets_more_time() {
    let fake = Fake::new(&[""]);
    fake.set("after", &save_text(&rules()));
    let mut firewall = fake.find();
    firewall.patience = Duration::ZERO;
    let error = firewall.install(&rules()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    firewall.patience = Firewall::LIMIT;
    fake.set("locked", "");
    assert_eq!(firewall.install(&rules()).unwrap_err().kind(), ErrorKind::Lock);
    assert_eq!(firewall.patience, Firewall::LIMIT, "the lock is no slow host");
    fs::remove_file(fake.0.join("locked")).unwrap();
    firewall.install(&rules()).unwrap();
    assert_eq!(firewall.patience, Firewall::PATIENCE);
    let late = || {
        Err(Arc::new(Error::not_run(
            Family::Ipv4,
            "try",
            Path::new("iptables"),
            std::io::ErrorKind::TimedOut.into(),
        )))
    };
    for seconds in [16, 32, 60, 60] {
        firewall.within_patience(|_| -> Result<(), _> { late() }).unwrap_err();
        assert_eq!(firewall.patience, Duration::from_secs(seconds));
    }
    assert_eq!(firewall.deadline, None);
}

#[test]
fn a_kernel_without_physdev_gets_the_rules_without_it() {
    let fake = Fake::new(&[""]);
    fake.set("refuse", "physdev");
    fake.set("after", &save_text(&rules().without_physdev().unwrap()));
    let mut firewall = fake.find();
    assert!(firewall.install(&rules()).unwrap().without_physdev);
    assert!(!fake.get("input").contains("physdev"));
    assert_eq!(firewall.look(Family::Ipv4).unwrap().ours, Some(rules()));
}

#[test]
fn a_rule_that_the_kernel_refuses_is_shown() {
    let fake = Fake::new(&[""]);
    fake.set("refuse", "KUBE-LOOP-BACK");
    let error = fake.find().install(&rules()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("--match-set KUBE-LOOP-BACK dst,dst,src"), "{error}");
}

#[test]
fn removal_runs_nothing_where_nothing_is() {
    let fake = Fake::new(&[""]);
    fake.set("after", "");
    let mut firewall = fake.find();
    let started = firewall.processes_started();
    assert_eq!(firewall.remove(Family::Ipv4).unwrap(), Removal::default());
    assert_eq!(firewall.processes_started() - started, 1);

    fake.set("saved", &save_text(&rules()));
    assert!(firewall.remove(Family::Ipv4).unwrap().found);
    assert_eq!(
        fake.get("input"),
        Installed::parse(Family::Ipv4, &save_text(&rules())).removal_input()
    );
}

#[test]
fn ipv6_is_off_where_the_kernel_says_so() {
    let proc = Fake::new(&[]);
    assert!(ipv6_off_in(&proc.0).unwrap().contains("if_inet6"));
    fs::create_dir_all(proc.0.join("sys/net/ipv6/conf/all")).unwrap();
    fs::create_dir(proc.0.join("net")).unwrap();
    proc.set("net/if_inet6", "");
    assert_eq!(ipv6_off_in(&proc.0), None);
    proc.set("sys/net/ipv6/conf/all/disable_ipv6", "1\n");
    assert!(ipv6_off_in(&proc.0).unwrap().contains("disable_ipv6"));
}
