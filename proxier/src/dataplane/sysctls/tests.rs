use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

const MODERN: KernelVersion = KernelVersion::new(6, 1);

/// kube-proxy's defaults.
fn defaults() -> SysctlOptions {
    SysctlOptions {
        conntrack: ConntrackOptions {
            max_per_core: 32768,
            min: 131_072,
            tcp_established: Duration::from_hours(24),
            tcp_close_wait: Duration::from_hours(1),
            ..ConntrackOptions::default()
        },
        ..SysctlOptions::default()
    }
}

fn values(options: &SysctlOptions, kernel: KernelVersion, cpus: usize) -> BTreeMap<String, String> {
    wanted(options, kernel, cpus).iter().map(|s| (s.name(), s.wanted.value())).collect()
}

/// Acceptance row L70.
#[test]
fn the_table_of_connections_grows_with_the_cpus() {
    for (max_per_core, min, cpus, expected) in [
        (0, 123_456, 4, None),
        (67_890, 0, 4, Some("271560")),
        (67_890, 0, 16, Some("1048576")),
        (1, 123_456, 4, Some("123456")),
        (32_768, 131_072, 2, Some("131072")),
        (32_768, 131_072, 512, Some("1048576")),
        (32_768, 2_000_000, 2, Some("2000000")),
        (32_768, 2_000_000, 512, Some("1048576")),
    ] {
        let conntrack = ConntrackOptions { max_per_core, min, ..ConntrackOptions::default() };
        let options = SysctlOptions { conntrack, ..SysctlOptions::default() };
        let values = values(&options, MODERN, cpus);
        let max = values.get("net.netfilter.nf_conntrack_max").map(String::as_str);
        assert_eq!(max, expected, "{max_per_core} {min} {cpus}");
        let buckets = values.get("/sys/module/nf_conntrack/parameters/hashsize");
        let quarter = expected.map(|max| (max.parse::<u64>().unwrap() / 4).to_string());
        assert_eq!(buckets, quarter.as_ref());
    }
}

/// Acceptance row L70.
#[test]
fn timeouts_are_written_only_when_given() {
    let written = |conntrack| {
        let options = SysctlOptions { conntrack, ..SysctlOptions::default() };
        let all = values(&options, MODERN, 1);
        all.into_iter().filter(|(name, _)| name.contains("nf_conntrack")).collect::<Vec<_>>()
    };
    assert_eq!(written(ConntrackOptions::default()), []);
    let one = Duration::from_millis(1999);
    let none = ConntrackOptions::default();
    for (options, name) in [
        (ConntrackOptions { tcp_established: one, ..none }, "tcp_timeout_established"),
        (ConntrackOptions { tcp_close_wait: one, ..none }, "tcp_timeout_close_wait"),
        (ConntrackOptions { be_liberal: true, ..none }, "tcp_be_liberal"),
        (ConntrackOptions { udp: one, ..none }, "udp_timeout"),
        (ConntrackOptions { udp_stream: one, ..none }, "udp_timeout_stream"),
    ] {
        let name = format!("net.netfilter.nf_conntrack_{name}");
        assert_eq!(written(options), [(name, "1".to_owned())]);
    }
}

#[test]
fn port_reuse_depends_on_the_kernel() {
    for (kernel, expected) in [
        ("3.10.0-1160.el7.x86_64", None),
        ("4.0.9", None),
        ("4.1.0", Some("0")),
        ("5.8.18-300.fc33", Some("0")),
        ("5.9.0", Some("1")),
        ("6.12.0-rc1", Some("1")),
    ] {
        let values = values(&SysctlOptions::default(), kernel.parse().unwrap(), 1);
        assert_eq!(values.get("net.ipv4.vs.conn_reuse_mode").map(String::as_str), expected);
    }
}

#[test]
fn kernel_versions_as_uname_prints_them() {
    let version = |text: &str| {
        text.parse::<KernelVersion>()
            .map(|KernelVersion { major, minor, patch }| (major, minor, patch))
    };
    assert_eq!(version("5.15.0-84-generic\n"), Ok((5, 15, 0)));
    assert_eq!(version("6.1+"), Ok((6, 1, 0)));
    assert_eq!(version("4.18.0.305"), Ok((4, 18, 0)));
    for wrong in ["", "linux", "6", "6-rc1", "6.x"] {
        assert!(version(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_estimator_is_left_alone_unless_asked() {
    assert!(
        values(&defaults(), MODERN, 1)
            .keys()
            .all(|name| !name.contains("vs.est_") && !name.contains("estimation"))
    );
    let options = SysctlOptions {
        run_estimation: Some(false),
        est_cpulist: Some("0-1".into()),
        est_nice: Some(-5),
        ..SysctlOptions::default()
    };
    let settings = wanted(&options, MODERN, 1);
    let of = |name: &str| settings.iter().find(|s| s.path.ends_with(name)).unwrap();
    assert_eq!(of("vs/run_estimation").wanted.value(), "0");
    assert_eq!(of("vs/est_cpulist").wanted.value(), "0-1");
    assert_eq!(of("vs/est_nice").wanted.value(), "-5");
    assert!(!of("vs/est_nice").required);
}

#[test]
fn values_are_compared_as_what_they_are() {
    assert!(Wanted::Exactly("1".into()).allows("1\n"));
    assert!(Wanted::Exactly("0-3".into()).allows("0-3\n"));
    assert!(!Wanted::Exactly("1".into()).allows("10"));
    assert!(!Wanted::Exactly("1".into()).allows(""));
    assert!(Wanted::AtLeast(9).allows("10\n"));
    assert!(!Wanted::AtLeast(10).allows("9"));
}

/// What kube-proxy changed in the recorded scenarios is what we ask for, with the values that it
/// left; what else we ask for was so already.
#[test]
fn recorded_scenarios_have_these_values() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let read = |scenario: &str, file: &str| -> BTreeMap<String, String> {
        let text = fs::read_to_string(golden.join(scenario).join(file)).unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(" = ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        // IPVS's timeouts are not sysctls.
        text.lines().map(pair).filter(|(name, _)| name.starts_with("net.")).collect()
    };
    let strict_arp = SysctlOptions { strict_arp: true, ..defaults() };
    let seconds = Duration::from_secs;
    let conntrack = ConntrackOptions {
        max_per_core: 100_000,
        min: 150_000,
        tcp_established: Duration::from_hours(2),
        tcp_close_wait: Duration::from_mins(10),
        udp: seconds(45),
        udp_stream: seconds(200),
        be_liberal: true,
    };
    let conntrack = SysctlOptions { conntrack, ..SysctlOptions::default() };
    for (scenario, options) in [
        ("clusterip-tcp", defaults()),
        ("strict-arp-timeouts", strict_arp),
        ("conntrack-settings", conntrack),
    ] {
        let (mut present, after) =
            (read(scenario, "sysctls-before.txt"), read(scenario, "sysctls.txt"));
        for line in text(&wanted(&options, MODERN, 2)).lines() {
            let (name, value) = line.split_once(" = ").unwrap();
            present.insert(name.to_owned(), value.to_owned());
        }
        assert_eq!(present, after, "{scenario}");
    }
}
