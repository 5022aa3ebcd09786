//! The same traffic with the backend nftables: in QEMU, whose kernel has it for both families.

use proxier::dataplane::firewall::Backend;

use super::firewall;

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn every_frontend_carries_every_protocol_in_both_families() {
    firewall::every_frontend_carries_every_protocol_in_both_families(Backend::Nftables);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn pods_and_the_node_use_cluster_ips() {
    firewall::pods_and_the_node_use_cluster_ips(Backend::Nftables);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn external_traffic_policy_local_keeps_the_client_address_and_the_node() {
    firewall::external_traffic_policy_local_keeps_the_client_address_and_the_node(
        Backend::Nftables,
    );
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn a_pod_reaches_itself_through_its_service() {
    firewall::a_pod_reaches_itself_through_its_service(Backend::Nftables);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn a_port_that_no_service_has_is_refused() {
    firewall::a_port_that_no_service_has_is_refused(Backend::Nftables);
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn source_ranges_let_nobody_else_in_nor_the_node() {
    firewall::source_ranges_let_nobody_else_in_nor_the_node(Backend::Nftables);
}
