//! The table of kube-proxy's nftables mode, made and read back with `nft`: in a network namespace of
//! this machine's kernel, because User-mode Linux has no nftables for IPv4 and IPv6.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;

use std::process::Command;

use netlink_batch::ErrorKind;
use netlink_ipvs::Family;
use proxier::kernel::nftables::Nftables;

const TEST: &str = "the_table_is_found_and_deleted_and_no_other";

/// What kube-proxy has in its table, as far as it matters here: a base chain, a map, a set.
const TABLE: &str = "{
    map services { type ipv4_addr . inet_proto . inet_service : verdict; }
    set nodeport-ips { type ipv4_addr; }
    chain nat-prerouting { type nat hook prerouting priority -100; policy accept; jump services; }
    chain services { ip daddr . meta l4proto . th dport vmap @services; }
}";

fn nft(script: &str) -> String {
    let output = Command::new("nft").arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn the_table_is_found_and_deleted_and_no_other() {
    own_namespace::in_namespace(TEST, &["--map-root-user"], found_and_deleted);
}

fn found_and_deleted() {
    let mut nftables = Nftables::open().unwrap();
    for family in [Family::Ipv4, Family::Ipv6] {
        assert!(!nftables.has_table(family).unwrap());
        let error = nftables.delete_table(family).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    nft(&format!("table ip kube-proxy {TABLE}"));
    nft("add table ip6 kube-proxy; add chain ip6 kube-proxy services");
    nft("add table ip other; add chain ip other services; add table inet kube-proxy");

    for family in [Family::Ipv4, Family::Ipv6] {
        assert!(nftables.has_table(family).unwrap());
        nftables.delete_table(family).unwrap();
        assert!(!nftables.has_table(family).unwrap());
        // The connection is good for more.
        assert!(nftables.delete_table(family).is_err());
        assert!(!nftables.has_table(family).unwrap());
    }
    assert_eq!(nft("list tables"), "table ip other\ntable inet kube-proxy\n");
}
