//! What somebody else put into our sets, and sets of our names that somebody else made.

use std::time::Instant;

use proxier_tests::apiserver::object::{service, slice};
use proxier_tests::disturbed::{
    AUDITS, behind_its_back, cluster, counted_beyond, metric, programmed, rules, sh,
};
use proxier_tests::figure;

/// Members that no Service asks for: of other protocols, negated, and of a kind that could be ours.
const FOREIGN: [(&str, &str); 7] = [
    ("KUBE-CLUSTER-IP", "10.0.0.1,icmp:8/0"),
    ("KUBE-6-CLUSTER-IP", "fd00::1,icmpv6:128/0"),
    ("KUBE-LOOP-BACK", "10.0.0.1,udplite:80,10.0.0.2"),
    ("KUBE-LOAD-BALANCER-SOURCE-CIDR", "10.0.0.1,tcp:80,10.1.0.0/16 nomatch"),
    ("KUBE-6-LOAD-BALANCER-SOURCE-CID", "fd00::1,tcp:80,fd00:1::/64 nomatch"),
    ("KUBE-IPVS-IPS", "192.0.2.77"),
    ("KUBE-NODE-PORT-TCP", "31999"),
];

fn add((set, member): (&str, &str)) -> String {
    format!("ipset add {set} {member}\n")
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_foreign_member_is_repaired_and_stops_nothing_while_it_runs() {
    let (mut live, mut wanted) = programmed(AUDITS);
    let mut drift = metric("proxier_drift_total");
    for (n, member) in FOREIGN.into_iter().enumerate() {
        // What is asked for at the same time is done as if nothing else had happened.
        live.server.put(slice("dev", "other-1", "other", &[&format!("10.244.1.{n}")]));
        wanted = live.dry_run().unwrap();
        behind_its_back(&live, &add(member));
        live.until_as(member.1, &wanted).unwrap();
        drift = counted_beyond(&mut live, member.1, drift);
    }
    behind_its_back(&live, &FOREIGN.map(add).concat());
    live.until_as("all of them at once", &wanted).unwrap();
    counted_beyond(&mut live, "all of them at once", drift);
    figure(&format!("{} foreign members, each alone and all together: repaired", FOREIGN.len()));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_foreign_member_is_repaired_and_stops_nothing_at_a_start() {
    let (mut live, wanted) = programmed(AUDITS);
    let mut times = Vec::new();
    for foreign in [String::new(), FOREIGN.map(add).concat()] {
        live.stop_daemon();
        sh(&format!("{foreign} ipvsadm -C; ip link del kube-ipvs0"));
        let began = Instant::now();
        live.start_daemon(AUDITS).unwrap();
        live.until("virtual servers", |_, kernel| kernel.ipvs == wanted.ipvs).unwrap();
        times.push(began.elapsed().as_secs_f64());
        live.until_as("everything else", &wanted).unwrap();
    }
    figure(&format!(
        "virtual servers after a start: {:.1} s, over {} foreign members {:.1} s",
        times[0],
        FOREIGN.len(),
        times[1]
    ));
}

/// Sets of our names as somebody else might make them.
const OTHERS: [(&str, &str); 6] = [
    ("KUBE-LOOP-BACK", "hash:ip,port,ip counters"),
    ("KUBE-CLUSTER-IP", "hash:ip,port timeout 100"),
    ("KUBE-EXTERNAL-IP", "hash:net"),
    ("KUBE-NODE-PORT-TCP", "bitmap:port range 1-100"),
    ("KUBE-6-CLUSTER-IP", "hash:ip,port"),
    ("KUBE-6-LOOP-BACK", "hash:ip,port,ip family inet6 comment"),
];

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_set_of_another_make_is_replaced_at_a_start() {
    let mut live = cluster();
    let wanted = live.dry_run().unwrap();
    for (set, kind) in OTHERS {
        sh(&format!("ipset create {set} {kind}"));
    }
    sh(
        "ipset add KUBE-LOOP-BACK 10.0.0.1,tcp:80,10.0.0.1; ipset add KUBE-CLUSTER-IP 10.0.0.1,tcp:80",
    );
    live.start_daemon(AUDITS).unwrap();
    live.until_as("sets of our make", &wanted).unwrap();
    figure(&format!("{} sets of another make before a start: replaced", OTHERS.len()));
}

/// Of the same type, with an extension, in the place of one that our rules refer to.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_set_with_an_extension_is_replaced_under_our_rules() {
    let (mut live, wanted) = programmed(AUDITS);
    let (right, mut drift) = (rules(), metric("proxier_drift_total"));
    for (set, kind) in [
        ("KUBE-LOOP-BACK", "hash:ip,port,ip counters"),
        ("KUBE-CLUSTER-IP", "hash:ip,port timeout 1000"),
        ("KUBE-6-CLUSTER-IP", "hash:ip,port family inet6 comment"),
    ] {
        let exchange =
            format!("ipset create OTHER {kind}; ipset swap OTHER {set}; ipset destroy OTHER");
        behind_its_back(&live, &exchange);
        live.until_as(set, &wanted).unwrap();
        live.until(set, |_, _| rules() == right).unwrap();
        drift = counted_beyond(&mut live, set, drift);
        // And found so by the next daemon.
        live.stop_daemon();
        sh(&exchange);
        live.start_daemon(AUDITS).unwrap();
        live.until_as(set, &wanted).unwrap();
        live.until(set, |_, _| rules() == right).unwrap();
        drift = drift.min(metric("proxier_drift_total"));
    }
    live.server.put(service("dev", "late", "10.96.0.9"));
    live.converge("a Service more").unwrap();
}
