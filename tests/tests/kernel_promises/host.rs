//! A host that is small, or whose modules are loaded anew.

use proxier_tests::apiserver::object::service;
use proxier_tests::disturbed::{
    AUDITS, NO_AUDIT, behind_its_back, cluster, counted_beyond, has_rules, metric, programmed, sh,
};
use proxier_tests::figure;
use proxier_tests::netns::require_test_kernel;
use proxier_tests::small_buffers::SmallBuffers;

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn everything_is_programmed_with_the_smallest_buffers() {
    require_test_kernel().unwrap();
    let _small = SmallBuffers::set();
    let mut live = cluster();
    // More than fit into one message of the smallest buffers.
    for n in 1..=100 {
        live.server.put(service("dev", &format!("more-{n}"), &format!("10.96.1.{n}")));
    }
    live.start_daemon(AUDITS).unwrap();
    let wanted = live.dry_run().unwrap();
    live.until_as("everything", &wanted).unwrap();
    live.until("the rules", |_, _| has_rules()).unwrap();
    let drift = metric("proxier_drift_total");
    behind_its_back(&live, "ipvsadm -C; ip link del kube-ipvs0; ipset flush KUBE-CLUSTER-IP");
    live.until_as("everything again", &wanted).unwrap();
    counted_beyond(&mut live, "what was lost", drift);
    figure(&format!("{} virtual servers with buffers of 4,608 bytes", wanted.ipvs.len()));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_module_that_is_loaded_again_is_programmed_again() {
    let (mut live, wanted) = programmed(AUDITS);
    // Whatever uses it goes first; a namespace of before may take a moment to go.
    let unload = r#"
        ipvsadm -C
        users() { awk '$1 == "ip_vs" { gsub(/[,-]/, " ", $4); print $4 }' /proc/modules; }
        unload() { for user in $(users); do rmmod "$user" || return 1; done; rmmod ip_vs; }
        until unload 2>/dev/null; do sleep 0.1; done"#;
    let reload = &format!("{unload}\nmodprobe ip_vs");
    for times in 1..=2 {
        let before = metric("proxier_drift_total");
        behind_its_back(&live, reload);
        live.until_as("what the module forgot", &wanted).unwrap();
        counted_beyond(&mut live, "what the module forgot", before);
        // The module comes with its own values of the settings.
        live.until("the module's settings", |_, _| {
            sh("sysctl -n net.ipv4.vs.conntrack").trim() == "1"
        })
        .unwrap();
        live.server.put(service("dev", "late", &format!("10.96.0.{}", 30 + times)));
        live.converge("a Service more").unwrap();
        live.server.delete("services", "dev", "late");
        live.until_as("as before", &wanted).unwrap();
    }
    // Gone altogether: a Service that comes meanwhile makes the kernel load it.
    behind_its_back(&live, unload);
    live.until_as("without the module", &wanted).unwrap();
    // One whose audits are an hour apart finds out when it has something to do.
    live.start_daemon(NO_AUDIT).unwrap();
    live.until("another daemon", |log, _| log.matches("ready: ").count() >= 2).unwrap();
    behind_its_back(&live, reload);
    live.server.put(service("dev", "late", "10.96.0.40"));
    live.until("the new Service", |_, kernel| {
        kernel.ipvs.keys().any(|server| server.contains("10.96.0.40:80"))
    })
    .unwrap();
    figure("4 times removed, 3 of them loaded again: programmed again");
}
