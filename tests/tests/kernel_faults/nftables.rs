//! What others do to our tables of nftables: repaired because the kernel tells of it, and read back with
//! `nft`.

use std::collections::BTreeMap;

use netlink_nftables::Client;
use proxier_tests::apiserver::object::{service, slice};
use proxier_tests::command::output;
use proxier_tests::disturbed::{
    AUDITS, Background, NO_AUDIT, behind_its_back, cluster, counted_beyond, metric, sh,
};
use proxier_tests::live::Live;
use proxier_tests::nft::blocks;
use serde_json::json;

type Blocks = BTreeMap<String, Vec<String>>;

const NFTABLES: &str = "--firewall=nftables";

/// A cluster with source ranges, too, which leave the node out.
fn guarded() -> Live {
    let live = cluster();
    let mut guarded = service("dev", "guarded", "10.96.0.3");
    guarded["spec"]["type"] = "LoadBalancer".into();
    guarded["spec"]["loadBalancerSourceRanges"] = json!(["198.51.100.0/25"]);
    guarded["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.3", "ipMode": "VIP"}]}});
    live.server.put_all([guarded, slice("dev", "guarded-1", "guarded", &["10.244.0.5"])]);
    live
}

/// What `nft` should print of our tables.
fn wanted(live: &Live) -> Blocks {
    let mut command = live.proxier(&[NFTABLES, "--dry-run", "-o", "nftables"]).unwrap();
    blocks(&output(&mut command).unwrap())
}

/// What `nft` prints of our tables; nothing while one is missing.
fn found() -> Blocks {
    blocks(&sh("nft list table ip proxier && nft list table ip6 proxier || true"))
}

fn until_right(live: &mut Live, what: &str) {
    let right = wanted(live);
    let until = live.until(what, |_, _| found() == right);
    until.unwrap_or_else(|error| panic!("{error:#}\n{}", difference(&found(), &right)));
}

fn difference(found: &Blocks, right: &Blocks) -> String {
    let differs = right.iter().filter(|(name, lines)| found.get(*name) != Some(lines));
    format!("{:#?}", differs.map(|(name, lines)| (lines, found.get(name))).collect::<Vec<_>>())
}

fn generation() -> u32 {
    Client::open().unwrap().generation().unwrap()
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn what_others_do_to_the_table_is_repaired_when_the_kernel_tells_of_it() {
    repaired(&[
        "nft delete table ip proxier",
        "nft flush ruleset",
        "nft delete rule ip proxier masquerading handle $(nft -a list chain ip proxier masquerading |
             sed -n 's/.*hairpin.* # handle //p')",
        "nft insert rule ip6 proxier services accept",
        "nft add rule ip proxier restricted counter accept",
        "nft add chain ip proxier mine '{ type filter hook input priority -200; policy accept; }'
         nft add rule ip proxier mine tcp dport 1 drop",
    ]);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn what_others_do_to_the_sets_is_repaired_when_the_kernel_tells_of_it() {
    repaired(&[
        "nft add element ip proxier cluster-ips '{ 10.96.0.77 . tcp . 80 }'",
        "nft delete element ip proxier cluster-ips '{ 10.96.0.1 . tcp . 80 }'",
        "nft delete element ip proxier cluster-ips '{ 10.96.0.1 . tcp . 80 }'
         nft add element ip proxier cluster-ips '{ 10.96.0.1 . tcp . 80 comment \"mine\" }'",
        "nft add element ip proxier source-ranges \
             '{ 203.0.113.3 . tcp . 80 . 10.0.0.1-10.0.0.5, 203.0.113.3 . tcp . 80 . 192.0.2.0/24 }'",
        "nft flush set ip proxier refused-to-node",
        "nft add element ip proxier refused-to-node '{ 10.96.0.1 . 10.96.0.2 . tcp . 80 }'",
        // Sets of another shape, to which rules refer.
        "nft flush chain ip proxier masquerading
         nft delete set ip proxier hairpin
         nft add set ip proxier hairpin '{ type ipv4_addr; }'
         nft add rule ip proxier masquerading ip saddr @hairpin masquerade",
        "nft flush chain ip proxier node-out
         nft delete set ip proxier refused-to-node
         nft add set ip proxier refused-to-node '{ type ipv4_addr; }'
         nft add rule ip proxier node-out ip daddr @refused-to-node drop",
        // A set more, and a map that leads to a chain.
        "nft add set ip proxier mine '{ type ipv4_addr; }'",
        "nft add chain ip proxier theirs
         nft add map ip proxier lead '{ type ipv4_addr : verdict; }'
         nft add element ip proxier lead '{ 192.0.2.9 : jump theirs }'
         nft add rule ip proxier services ip saddr vmap @lead",
        // Ten thousand changes at once.
        "{ echo 'add element ip proxier cluster-ips {'
           seq -f '10.97.%.0f.1 . tcp . 80,' 0 255; echo '}'; } >/dev/shm/add
         sed s/add/delete/ /dev/shm/add >/dev/shm/delete
         for n in $(seq 20); do nft -f /dev/shm/add; nft -f /dev/shm/delete; done
         nft -f /dev/shm/add",
    ]);
}

/// Each of these is repaired without an audit, and counted.
fn repaired(faults: &[&str]) {
    let mut live = guarded();
    live.start_daemon(&[NO_AUDIT, &[NFTABLES]].concat()).unwrap();
    until_right(&mut live, "everything");
    live.until("ready", |log, _| log.contains("ready: ")).unwrap();
    let mut drift = metric("proxier_drift_total");
    for fault in faults {
        behind_its_back(&live, fault);
        eprintln!("{fault}");
        until_right(&mut live, fault);
        drift = counted_beyond(&mut live, fault, drift);
    }
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn changes_get_through_while_others_change_nftables_all_the_time() {
    let mut live = guarded();
    live.start_daemon(&[NO_AUDIT, &[NFTABLES]].concat()).unwrap();
    until_right(&mut live, "everything");
    sh("nft add table ip others; nft add set ip others noise '{ type inet_service; }'");
    let noise = Background::start(
        "while :; do printf 'flush set ip others noise; add element ip others noise { %s }\n' 1 2 3; done |
             nft -i >/dev/null 2>&1",
    );
    for last in 20..30 {
        let name = format!("late-{last}");
        live.server.put(service("dev", &name, &format!("10.96.0.{last}")));
        live.server.put(slice("dev", &format!("{name}-1"), &name, &["10.244.0.9"]));
    }
    let before = generation();
    until_right(&mut live, "ten Services");
    behind_its_back(&live, "nft delete table ip proxier");
    until_right(&mut live, "the table is back");
    assert!(generation() > before + 100, "nobody changed anything");
    drop(noise);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn a_change_gets_through_whatever_others_put_in_its_way() {
    let mut live = guarded();
    live.start_daemon(&[AUDITS, &[NFTABLES]].concat()).unwrap();
    until_right(&mut live, "everything");
    let ends = [10, 11, 12];
    for (fault, last) in [
        "nft flush table ip proxier; nft delete set ip proxier cluster-ips",
        "nft delete table ip proxier",
        "nft add element ip proxier cluster-ips '{ 10.96.0.12 . tcp . 80 }'",
    ]
    .into_iter()
    .zip(ends)
    {
        eprintln!("{fault}");
        // In the way of what is written next.
        behind_its_back(&live, fault);
        live.server.put(service("dev", &format!("late-{last}"), &format!("10.96.0.{last}")));
        live.server.put(slice(
            "dev",
            &format!("late-{last}"),
            &format!("late-{last}"),
            &["10.244.0.9"],
        ));
        until_right(&mut live, fault);
    }
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn a_restart_over_right_tables_writes_nothing() {
    let mut live = guarded();
    sh("nft add table ip others; nft add chain ip others theirs");
    live.start_daemon(&[AUDITS, &[NFTABLES]].concat()).unwrap();
    until_right(&mut live, "everything");
    live.until("ready", |log, _| log.contains("ready: ")).unwrap();
    for restart in 2..4 {
        let (before, operations) = (generation(), live.operations().unwrap().len());
        live.start_daemon(&[AUDITS, &[NFTABLES]].concat()).unwrap();
        live.until("ready again", |log, _| log.matches("ready: ").count() == restart).unwrap();
        assert_eq!((generation(), live.operations().unwrap().len()), (before, operations));
        until_right(&mut live, "the same");
    }
    assert!(sh("nft list tables").contains("table ip others"));
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn each_backend_removes_what_the_other_has_left() {
    let mut live = guarded();
    let servers = || sh("ipvsadm-save -n");
    let mut before = None;
    for (at, backend) in ["--firewall=iptables", NFTABLES, "--firewall=iptables"].iter().enumerate()
    {
        live.start_daemon(&[AUDITS, &[backend]].concat()).unwrap();
        live.until("ready", |log, _| log.matches("ready: ").count() == at + 1).unwrap();
        let left = if *backend == NFTABLES {
            "iptables-save; ip6tables-save; ipset list -n"
        } else {
            "nft list tables | sed -n 's/^table ip6* proxier$/KUBE/p'"
        };
        live.until("the other backend's is gone", |_, _| !sh(left).contains("KUBE")).unwrap();
        let now = servers();
        assert!(now.contains("-A") && *before.get_or_insert_with(|| now.clone()) == now, "{now}");
    }
}
