//! The golden scenarios under `tests/golden`: what kube-proxy left in a kernel, to compare with.
//!
//! [`Scenario::load`] reads one; [`Dump`] is the content of a kernel (or of a dry run) in a form that
//! can be compared; [`compare()`] says what differs, for people.

mod compare;
mod dry_run;
mod dump;
mod live;
mod put;
mod scenario;

pub use compare::{Part, compare, ignore_rules_of_empty_sets};
pub use dry_run::dry_run;
pub use dump::{Blocks, Chains, Dump, Health, blocks, ipset_save, iptables_save};
pub use live::{Sysctls, observe};
pub use put::put;
pub use scenario::{Scenario, Step, root};

/// Calls a macro with the name of every scenario, dashes written as underscores.
///
/// So each scenario is a test of its own, in every file that runs them. That none is missing is
/// itself tested, in `tests/golden_dry_run.rs`.
#[macro_export]
macro_rules! for_each_scenario {
    ($call:ident) => {
        $call! {
            clusterip_sctp,
            clusterip_tcp,
            clusterip_udp_dns,
            conntrack_settings,
            detect_local_bridge,
            detect_local_interface_prefix,
            detect_local_node_cidr,
            dual_stack_service,
            etp_local_no_local_endpoints,
            etp_local_with_local_endpoints,
            exclude_cidrs,
            externalip_is_node_ip,
            externalips_cluster,
            externalips_etp_local,
            hints_same_node,
            hints_zone_all,
            hints_zone_partial,
            host_network_endpoints,
            ignored_services,
            ipv6_service,
            itp_local_no_local,
            itp_local_with_local,
            lb_no_nodeports,
            lb_no_nodeports_etp_local,
            lb_source_ranges,
            lb_source_ranges_any,
            lb_source_ranges_with_node,
            loadbalancer_ipmode,
            loadbalancer_vip,
            masquerade_all,
            masquerade_bit,
            multiport_named_targets,
            no_cluster_cidr,
            no_endpoints,
            nodeport_all_addresses,
            nodeport_cidr_list,
            nodeport_primary,
            nodeport_sctp_etp_local,
            nodeport_tcp_udp_same_port,
            not_ready_endpoints,
            restart_other_scheduler,
            same_vip_many_ports,
            scheduler_default,
            scheduler_lc,
            scheduler_mh,
            scheduler_wrr,
            session_affinity_custom_timeout,
            session_affinity_default,
            slices_merged_with_duplicates,
            stale_jumps_and_order,
            stale_state,
            strict_arp_timeouts,
            terminating_fallback_cluster,
            terminating_fallback_etp_local,
            three_protocols_one_vip,
            update_affinity_toggled,
            update_endpoint_removed_and_back,
            update_etp_toggled,
            update_graceful_expires,
            update_nodeport_changed,
            update_service_deleted,
            update_service_port_changed,
            volume_60_services,
        }
    };
}
