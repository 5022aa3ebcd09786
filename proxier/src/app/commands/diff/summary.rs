//! What a plan does, by kind, and what of it somebody may not expect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use netlink_ipvs::{Protocol, VirtualServerKey};

use crate::dataplane::{Desired, InterfaceState, Op};

/// Kinds of operations in the order in which they should be read: what takes something away first.
const KINDS: [&str; 15] = [
    "virtual servers removed, with their connections",
    "real servers removed, with their connections",
    "addresses removed from kube-ipvs0",
    "members of sets removed",
    "leftovers of other modes of kube-proxy removed",
    "kernel settings",
    "rule sets replaced",
    "virtual servers changed in place",
    "real servers changed in place",
    "virtual servers added",
    "real servers added",
    "addresses bound to kube-ipvs0",
    "sets created or enlarged",
    "members of sets added",
    "other changes",
];

fn kind(op: &Op) -> usize {
    match op {
        Op::RemoveVirtualServer(..) => 0,
        Op::RemoveRealServer(..) => 1,
        Op::Unbind(..) | Op::RemoveForeignAddress(..) => 2,
        Op::RemoveMember(..) | Op::RemoveForeignMembers(..) => 3,
        Op::RemoveLeftover(..) => 4,
        Op::SetSysctl(..) => 5,
        Op::InstallFirewall(..) => 6,
        Op::SetVirtualServer(..) => 7,
        Op::SetRealServer(..) => 8,
        Op::AddVirtualServer(..) => 9,
        Op::AddRealServer(..) => 10,
        Op::Bind(..) => 11,
        Op::CreateSet(..) | Op::GrowSet(..) => 12,
        Op::AddMember(..) => 13,
        Op::TakeLinkDown | Op::RenewMembers(..) | Op::ForgetFlows(..) => 14,
    }
}

/// How many operations there are of each kind that there is.
pub(super) fn kinds(ops: &[Op]) -> Vec<(usize, &'static str)> {
    let mut counts = BTreeMap::new();
    for op in ops {
        *counts.entry(kind(op)).or_insert(0) += 1;
    }
    counts.into_iter().filter_map(|(at, count)| Some((count, *KINDS.get(at)?))).collect()
}

/// Several addresses of the node on which node ports would be opened. kube-proxy in nftables mode opens them
/// on one.
pub(super) fn node_ports(ops: &[Op], wanted: &InterfaceState) -> Option<String> {
    let opened = ops.iter().filter_map(|op| match op {
        Op::AddVirtualServer(VirtualServerKey::Address { address, .. }, _) => Some(*address),
        _ => None,
    });
    let of_node: BTreeSet<IpAddr> =
        opened.filter(|address| !wanted.addresses.contains(address)).collect();
    let several = |is: fn(&IpAddr) -> bool| of_node.iter().filter(|it| is(it)).count() > 1;
    (several(IpAddr::is_ipv4) || several(IpAddr::is_ipv6)).then(|| {
        format!(
            "node ports would be opened on {} addresses of this node: {}; \
             `nodePortAddresses: [primary]` leaves one of each family, as in nftables mode",
            of_node.len(),
            crate::text::few(&of_node, 10)
        )
    })
}

/// Why a report may be wrong, or a take-over go wrong later: the API server has no Node of this name, or is
/// reached through a Service.
pub(super) fn doubts(
    unknown_node: Option<&str>,
    api_servers: &BTreeSet<SocketAddr>,
    desired: &Desired,
) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(name) = unknown_node {
        out.push(format!(
            "the API server has no Node {name:?}: this report takes every endpoint for one of another \
             node; give the name that `kubectl get nodes` shows with --hostname-override"
        ));
    }
    for server in api_servers {
        let key = VirtualServerKey::new(server.ip(), server.port(), Protocol::Tcp);
        if let Some((service, frontend)) = desired.owner(&key) {
            out.push(format!(
                "the API server is reached at {server}, the {} of {service}: after a reboot of this node \
                 nothing answers there until a service proxy has read the cluster; name another address \
                 in the kubeconfig",
                frontend.kind
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use netlink_ipvs::{Family, RealServerKey, Scheduler, VirtualServerConfig};

    use super::*;
    use crate::builders::{ServiceExt as _, ip, service, settings};
    use crate::dataplane::contribution;

    fn add(address: &str) -> Op {
        let key = VirtualServerKey::new(ip(address), 30080, Protocol::Tcp);
        let scheduler: Result<Scheduler, _> = "rr".parse();
        assert!(scheduler.is_ok());
        let scheduler = scheduler.unwrap_or_else(|_| unreachable!("checked above"));
        Op::AddVirtualServer(key, VirtualServerConfig::new(scheduler, Family::Ipv4))
    }

    #[test]
    fn what_is_taken_away_comes_first() {
        let key = VirtualServerKey::new(ip("10.96.0.1"), 80, Protocol::Tcp);
        let gone = Op::RemoveRealServer(key, RealServerKey::new(ip("10.244.0.5"), 80));
        let ops = [add("10.96.0.2"), Op::Bind(ip("10.96.0.2")), gone, add("10.96.0.3")];
        assert_eq!(
            kinds(&ops),
            [
                (1, "real servers removed, with their connections"),
                (2, "virtual servers added"),
                (1, "addresses bound to kube-ipvs0")
            ]
        );
    }

    #[test]
    fn node_ports_on_several_addresses_are_told() {
        let bound = InterfaceState { addresses: [ip("10.96.0.1")].into(), ..Default::default() };
        let said = |addresses: &[&str]| {
            let ops: Vec<Op> = addresses.iter().map(|address| add(address)).collect();
            node_ports(&ops, &bound)
        };
        assert_eq!(said(&["10.96.0.1", "192.0.2.1", "fd00::1"]), None);
        let text = said(&["10.96.0.1", "192.0.2.1", "192.0.2.2"]).unwrap_or_default();
        assert!(text.contains("on 2 addresses of this node: 192.0.2.1, 192.0.2.2;"), "{text}");
    }

    #[test]
    fn an_unknown_node_and_an_api_server_behind_a_service_come_first() {
        let settings = settings();
        let mut desired = Desired::new(&settings);
        let api = service("kubernetes").cluster_ip("10.96.0.1").port(443);
        let asked = contribution(&api, &[].iter(), &settings);
        desired.set(&api.key, Some((api.created, asked)), &mut BTreeSet::new());
        let at = |server: &str| -> BTreeSet<SocketAddr> { server.parse().into_iter().collect() };
        let said = |node, server: &str| doubts(node, &at(server), &desired).join("\n");
        assert_eq!(said(None, "192.0.2.9:6443"), "");
        // Another port of a service's address is nobody's.
        assert_eq!(said(None, "10.96.0.1:6443"), "");
        let text = said(None, "10.96.0.1:443");
        assert!(
            text.starts_with(
                "the API server is reached at 10.96.0.1:443, the cluster IP of default/kubernetes: "
            ),
            "{text}"
        );
        let text = said(Some("worker-l"), "192.0.2.9:6443");
        assert!(text.starts_with("the API server has no Node \"worker-l\": "), "{text}");
    }
}
