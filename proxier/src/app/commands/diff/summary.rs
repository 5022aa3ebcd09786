//! What a plan does, by kind, and what of it somebody may not expect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_ipvs::VirtualServerKey;

use crate::dataplane::{InterfaceState, Op};

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

#[cfg(test)]
mod tests {
    use netlink_ipvs::{Family, Protocol, RealServerKey, Scheduler, VirtualServerConfig};

    use super::*;
    use crate::builders::ip;

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
}
