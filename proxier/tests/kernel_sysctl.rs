//! Kernel settings in a real kernel. `tests/run` gives every test a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::error::Error as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use proxier::dataplane::sysctls::{ConntrackOptions, SysctlOptions, wanted};
use proxier::kernel::sysctl::Sysctls;

fn system() -> Sysctls {
    assert!(
        std::env::var_os("PROXIER_TEST_KERNEL").is_some(),
        "this test changes the kernel's network: run it with tests/run"
    );
    // Asking for IPVS makes its settings.
    assert!(Command::new("ipvsadm").arg("-Ln").status().unwrap().success());
    Sysctls::system()
}

fn sysctl(name: &str) -> String {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn settings_are_written_once() {
    let system = system();
    fs::write("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0").unwrap();
    let options = SysctlOptions {
        strict_arp: true,
        conntrack: ConntrackOptions {
            tcp_established: Duration::from_hours(2),
            be_liberal: true,
            ..ConntrackOptions::default()
        },
        run_estimation: Some(false),
        ..SysctlOptions::default()
    };
    let settings = wanted(&options, system.kernel_version().unwrap(), system.cpus());
    let report = system.apply(&settings);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let reuse = report.changes.iter().find(|c| c.name.ends_with("conn_reuse_mode")).unwrap();
    assert_eq!((reuse.from.as_str(), reuse.to.as_str()), ("0", "1"));
    for (name, value) in [
        ("net.netfilter.nf_conntrack_tcp_timeout_established", "7200"),
        ("net.netfilter.nf_conntrack_tcp_be_liberal", "1"),
        ("net.ipv4.vs.conntrack", "1"),
        ("net.ipv4.vs.conn_reuse_mode", "1"),
        ("net.ipv4.vs.expire_nodest_conn", "1"),
        ("net.ipv4.vs.expire_quiescent_template", "1"),
        ("net.ipv4.vs.run_estimation", "0"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_announce", "2"),
    ] {
        assert_eq!(sysctl(name), value, "{name}");
    }
    assert!(system.apply(&settings).changes.is_empty());
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn the_size_of_the_connection_table_is_the_hosts() {
    let system = system();
    let present: u32 = sysctl("net.netfilter.nf_conntrack_max").parse().unwrap();
    let apply = |min| {
        let conntrack = ConntrackOptions { max_per_core: 1, min, ..ConntrackOptions::default() };
        let options = SysctlOptions { conntrack, ..SysctlOptions::default() };
        system.apply(&wanted(&options, system.kernel_version().unwrap(), 1))
    };
    assert!(apply(present).fatal().is_none());
    // What a namespace shows is the host's value: it cannot be written there.
    let report = apply(present + 1);
    let error = report.fatal().unwrap();
    assert!(error.to_string().contains("conntrack.maxPerCore to 0"), "{error}");
    assert!(error.source().is_some());
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn a_setting_that_cannot_be_written_matters_only_when_it_is_wrong() {
    let system = system();
    let settings = wanted(&SysctlOptions::default(), system.kernel_version().unwrap(), 1);
    assert!(system.apply(&settings).failures.is_empty());
    let mount = |options: &str| {
        let status = Command::new("mount").args(["-o", options, "/proc/sys", "/proc/sys"]).status();
        assert!(status.unwrap().success(), "mount -o {options}");
    };
    fs::write("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0").unwrap();
    mount("bind");
    mount("remount,bind,ro");
    let report = system.apply(&settings);
    // This one is not required.
    assert!(report.fatal().is_none());
    assert_eq!(report.failures.len(), 1);
    assert!(report.failures[0].to_string().contains("conn_reuse_mode to 1"));
    assert!(report.failures[0].to_string().contains("--init-only"));
}
