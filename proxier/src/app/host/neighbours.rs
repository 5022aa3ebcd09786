//! Who else on this node is known to be disturbed by addresses on `kube-ipvs0`, or to disturb
//! them: as far as it can be seen from here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

use dummy_iface::InterfaceAddress;

use crate::dataplane::sets::{Member, SetRole};
use crate::dataplane::{INTERFACE, State};

const ARP_IGNORE: &str = "/proc/sys/net/ipv4/conf/all/arp_ignore";

/// Programs, by the first 15 letters of their name, and what is known of them.
const PROGRAMS: [(&str, &str); 7] = [
    (
        "keepalived",
        "virtual servers of its own outside ipvs.excludeCIDRs are removed; addresses that it moves \
         between nodes must be none of a Service's, or `ipMode: Proxy`",
    ),
    ("bird", ANNOUNCES),
    ("bird6", ANNOUNCES),
    ("zebra", ANNOUNCES),
    ("gobgpd", ANNOUNCES),
    (
        "kube-router",
        "its service proxy programs IPVS as well: run it with --run-service-proxy=false",
    ),
    ("kube-vip", "its IPVS load balancer is removed unless ipvs.excludeCIDRs names its addresses"),
];

/// The interface that `NodeLocal DNSCache` makes.
const NODE_LOCAL_DNS: &str = "nodelocaldns";

const ANNOUNCES: &str = "where it takes in the routes or addresses of all interfaces it announces \
                         every service address: leave kube-ipvs0 out";

/// What is found on this host, one sentence each. `strict_arp` is whether the proxy will see to
/// ARP itself.
pub(in crate::app) fn find(desired: &State, strict_arp: bool) -> Vec<String> {
    let arp_ignore = fs::read_to_string(ARP_IGNORE).ok();
    let answers_all = !strict_arp && arp_ignore.is_some_and(|text| text.trim() == "0");
    // A host that cannot be listed has been reported by then.
    let host = dummy_iface::host_addresses().unwrap_or_default();
    said(desired, &host, answers_all, &programs())
}

/// The names of all processes that can be seen.
fn programs() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

fn said(
    desired: &State,
    host: &[InterfaceAddress],
    answers_all: bool,
    programs: &BTreeSet<String>,
) -> Vec<String> {
    use SetRole::{ClusterIp, ExternalIp, ExternalIpLocal, LoadBalancer};
    let of = |roles: &[SetRole]| -> BTreeSet<IpAddr> {
        let sets = desired.sets.iter().filter(|(set, _)| roles.contains(&set.role));
        let members = sets.flat_map(|(_, state)| &state.members);
        let address = |member: &Member| match member {
            Member::IpPort(address, ..) => Some(*address),
            _ => None,
        };
        members.filter_map(address).collect()
    };
    let mut out = Vec::new();
    let others = host.iter().filter(|entry| entry.name != INTERFACE);
    let names: BTreeMap<IpAddr, &str> =
        others.map(|entry| (entry.address, entry.name.as_str())).collect();
    for address in of(&[ClusterIp, ExternalIp, ExternalIpLocal, LoadBalancer]) {
        if let Some(name @ &NODE_LOCAL_DNS) = names.get(&address) {
            out.push(format!(
                "node-local DNS listens on {address} ({name}), which is a Service's address: IPVS takes the \
                 queries, past the cache; take the address out of its -localip, and run the kubelet with \
                 --cluster-dns=169.254.20.10 (or what remains there)"
            ));
        } else if let Some(name) = names.get(&address) {
            out.push(format!(
                "{address} is a Service's address and on {name}: connections to the Service's ports \
                 are taken from the processes of this node"
            ));
        }
    }
    let outside = of(&[ExternalIp, ExternalIpLocal, LoadBalancer]);
    let bound = outside
        .iter()
        .filter(|ip| ip.is_ipv4() && desired.interface.addresses.contains(ip))
        .count();
    if answers_all && bound > 0 {
        out.push(format!(
            "this node answers ARP for {bound} external and load balancer addresses on every link \
             (net.ipv4.conf.all.arp_ignore is 0): with MetalLB or kube-vip in layer 2 set \
             ipvs.strictARP"
        ));
    }
    for (program, text) in PROGRAMS {
        if programs.contains(program) {
            out.push(format!("{program} runs here: {text}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{InterfaceState, SetState};
    use netlink_ipvs::{Family, Protocol};

    fn entry(name: &str, address: &str) -> InterfaceAddress {
        let address = address.parse().unwrap();
        InterfaceAddress { interface: 1, name: name.to_owned(), address, prefix_len: 24 }
    }

    fn desired(role: SetRole, address: &str, bound: bool) -> State {
        let address: IpAddr = address.parse().unwrap();
        let members = [Member::IpPort(address, Protocol::Tcp, 80)].into();
        let set = SetState { members, ..SetState::default() };
        State {
            sets: [(role.of(Family::of(address)), set)].into(),
            interface: InterfaceState {
                addresses: bound.then_some(address).into_iter().collect(),
                ..InterfaceState::default()
            },
            ..State::default()
        }
    }

    fn lines(desired: &State, host: &[InterfaceAddress], answers: bool) -> String {
        said(desired, host, answers, &BTreeSet::new()).join("\n")
    }

    #[test]
    fn an_address_of_another_interface_is_told() {
        for role in [SetRole::ClusterIp, SetRole::ExternalIp, SetRole::LoadBalancer] {
            let vip = desired(role, "2001:db8::7", false);
            let text = lines(&vip, &[entry("eth0", "2001:db8::7")], true);
            assert!(text.contains("2001:db8::7 is a Service's address and on eth0"), "{text}");
            assert_eq!(lines(&vip, &[entry("eth0", "2001:db8::8")], true), "");
            assert_eq!(lines(&vip, &[entry(INTERFACE, "2001:db8::7")], true), "");
        }
        // Node ports are addresses of the node.
        let node_port = desired(SetRole::NodePortSctp, "192.0.2.1", false);
        assert_eq!(lines(&node_port, &[entry("eth0", "192.0.2.1")], true), "");
    }

    #[test]
    fn node_local_dns_on_the_address_of_the_dns_service_is_told() {
        let dns = desired(SetRole::ClusterIp, "10.96.0.10", false);
        let text = lines(&dns, &[entry("nodelocaldns", "10.96.0.10")], true);
        assert!(text.contains("past the cache") && text.contains("--cluster-dns="), "{text}");
        assert_eq!(lines(&dns, &[entry("nodelocaldns", "169.254.20.10")], true), "");
    }

    #[test]
    fn arp_matters_for_bound_addresses_of_the_outside() {
        for (role, address, bound, answers, told) in [
            (SetRole::LoadBalancer, "203.0.113.7", true, true, true),
            (SetRole::ExternalIpLocal, "203.0.113.7", true, true, true),
            (SetRole::LoadBalancer, "203.0.113.7", true, false, false),
            (SetRole::LoadBalancer, "203.0.113.7", false, true, false),
            (SetRole::ClusterIp, "10.96.0.1", true, true, false),
            (SetRole::LoadBalancer, "2001:db8::7", true, true, false),
        ] {
            let text = lines(&desired(role, address, bound), &[], answers);
            assert_eq!(text.contains("ipvs.strictARP"), told, "{role:?} {address}: {text}");
        }
    }

    #[test]
    fn programs_are_told_by_name() {
        let programs = ["keepalived", "sh", "birdcage"].map(str::to_owned).into();
        let told = said(&State::default(), &[], false, &programs);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("keepalived runs here: "), "{told:?}");
        let longest = PROGRAMS.iter().map(|(name, _)| name.len()).max();
        assert!(longest < Some(16), "the kernel cuts names after 15 letters");
    }
}
