use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::dataplane::sysctls::Wanted;

/// A directory with files like the kernel's.
struct Fake(PathBuf);

impl Fake {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root =
            std::env::temp_dir().join(format!("proxier-sysctl-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn sysctls(&self) -> Sysctls {
        Sysctls::below(&self.0)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn setting(path: &'static str, value: &str, required: bool) -> Sysctl {
    Sysctl { path, wanted: Wanted::Exactly(value.into()), why: "because", required }
}

const FORWARD: &str = "proc/sys/net/ipv4/ip_forward";
const NODEST: &str = "proc/sys/net/ipv4/vs/expire_nodest_conn";

#[test]
fn only_what_differs_is_written_and_told() {
    let fake = Fake::new(&[(FORWARD, "0\n"), (NODEST, "1\n")]);
    let settings = [setting(FORWARD, "1", true), setting(NODEST, "1", true)];
    let report = fake.sysctls().apply(&settings);
    assert!(report.failures.is_empty());
    let told: Vec<String> = report.changes.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["net.ipv4.ip_forward: 0 -> 1 (because)"]);
    assert_eq!(fake.get(FORWARD), "1\n");
    // With its line end: not written again.
    assert_eq!(fake.get(NODEST), "1\n");
    assert!(fake.sysctls().apply(&settings).changes.is_empty());
}

/// Acceptance row L70.
#[test]
fn the_first_required_setting_that_fails_ends_it() {
    let fake = Fake::new(&[(FORWARD, "0\n")]);
    let missing = setting(NODEST, "1", true);
    let report = fake.sysctls().apply(&[missing, setting(FORWARD, "1", true)]);
    let error = report.fatal().unwrap();
    assert_eq!(
        error.to_string(),
        "set net.ipv4.vs.expire_nodest_conn to 1 (because): the kernel has no such setting: is \
         the module ip_vs loaded, with support for connection tracking?"
    );
    assert!(std::error::Error::source(error).is_some());
    assert_eq!(fake.get(FORWARD), "0\n");
}

#[test]
fn the_others_go_on() {
    // A directory can be neither read nor written.
    let fake = Fake::new(&[(FORWARD, "0\n"), ("proc/sys/net/ipv4/vs/est_nice/x", "")]);
    let optional = setting("proc/sys/net/ipv4/vs/est_nice", "5", false);
    let report = fake.sysctls().apply(&[optional, setting(FORWARD, "1", true)]);
    assert!(report.fatal().is_none());
    assert_eq!((report.failures.len(), report.changes.len()), (1, 1));
    assert!(report.failures[0].to_string().contains("--init-only"), "{}", report.failures[0]);
}

#[test]
fn the_kernel_tells_its_version_and_cpus() {
    let fake = Fake::new(&[
        ("proc/sys/kernel/osrelease", "5.15.0-84-generic\n"),
        ("sys/devices/system/cpu/online", "0-3,5,8-9\n"),
    ]);
    assert_eq!(fake.sysctls().kernel_version().unwrap(), "5.15.0".parse().unwrap());
    assert_eq!(fake.sysctls().cpus(), 7);
    let nothing = Fake::new(&[]);
    assert!(nothing.sysctls().kernel_version().is_err());
    assert!(nothing.sysctls().cpus() >= 1);
    assert_eq!(count(""), None);
    assert_eq!(count("3-1"), None);
}
