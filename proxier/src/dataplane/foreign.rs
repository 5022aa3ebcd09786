//! Virtual servers that others have made.
//!
//! No file says what we made: what the kernel holds of ours does, after a restart or an upgrade as well. A
//! virtual server is made after its set member and removed before it, and kube-proxy does the same.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::sets::{Member, SetRole};
use super::{Settings, State};

/// Sets in which an address and a port make a virtual server known.
const BY_ADDRESS: [SetRole; 4] =
    [SetRole::ClusterIp, SetRole::ExternalIp, SetRole::ExternalIpLocal, SetRole::LoadBalancer];

/// The virtual servers that nobody asks for, that would be ours to remove, and that carry no mark of a
/// service proxy.
pub fn unmarked(found: &State, wanted: &State, settings: &Settings) -> BTreeSet<VirtualServerKey> {
    let keys = found.virtual_servers.keys().filter(|key| {
        !wanted.virtual_servers.contains_key(key)
            && settings.owns(key)
            && !is_marked(key, found, settings)
    });
    keys.copied().collect()
}

/// Whether a virtual server was made by a service proxy, going by what else is there: a member of a set of
/// ours names its address and port, or its port where the address is the node's; or its address is on
/// `kube-ipvs0`, where nobody else puts one.
pub fn is_marked(key: &VirtualServerKey, found: &State, settings: &Settings) -> bool {
    let (address, port, protocol) = match *key {
        VirtualServerKey::Address { address, port, protocol } => (address, port, protocol),
        VirtualServerKey::FirewallMark { mark, family } => {
            let set = found.sets.get(&SetRole::LocalMark.of(family));
            let leads_there =
                |member: &Member| matches!(member, Member::Marked(.., to) if *to == mark);
            return set.is_some_and(|set| set.members.iter().any(leads_there));
        }
    };
    let family = Family::of(address);
    let member = Member::IpPort(address, protocol, port);
    let named = |role: SetRole, member: &Member| found.has_member(role.of(family), member);
    found.interface.addresses.contains(&address)
        || BY_ADDRESS.into_iter().any(|role| named(role, &member))
        || (is_of_node(address, settings)
            && match protocol {
                Protocol::Tcp => named(SetRole::NodePortTcp, &Member::Port(port)),
                Protocol::Udp => named(SetRole::NodePortUdp, &Member::Port(port)),
                Protocol::Sctp | Protocol::Other(_) => named(SetRole::NodePortSctp, &member),
            })
}

fn is_of_node(address: IpAddr, settings: &Settings) -> bool {
    address.is_loopback()
        || settings.host_addresses.contains(&address)
        || settings.node_port_addresses.contains(&address)
}

#[cfg(test)]
mod tests {
    use netlink_ipvs::{Scheduler, VirtualServerConfig};

    use super::*;
    use crate::builders::*;
    use crate::dataplane::{RealServers, VirtualServerState};

    fn kernel(keys: &[&str]) -> State {
        let mut state = State::default();
        for key in keys.iter().map(|key| virtual_server(key)) {
            let config = VirtualServerConfig::new(Scheduler::RR, key.family());
            let real_servers = RealServers::from([]);
            state.virtual_servers.insert(key, VirtualServerState { config, real_servers }.into());
        }
        state
    }

    fn with(mut state: State, role: SetRole, member: Member) -> State {
        state.sets.entry(role.of(Family::Ipv4)).or_default().members.insert(member);
        state
    }

    #[test]
    fn a_mark_is_a_set_member_or_an_address_of_ours() {
        let key = "203.0.113.7:80/tcp";
        let (address, plain) = (ip("203.0.113.7"), kernel(&[key]));
        let of = |state: &State| unmarked(state, &State::default(), &settings()).len();
        assert_eq!(of(&plain), 1);
        for role in BY_ADDRESS {
            let same = Member::IpPort(address, Protocol::Tcp, 80);
            assert_eq!(of(&with(plain.clone(), role, same)), 0, "{role:?}");
            for other in [
                Member::IpPort(address, Protocol::Udp, 80),
                Member::IpPort(address, Protocol::Tcp, 81),
                Member::IpPort(ip("203.0.113.8"), Protocol::Tcp, 80),
            ] {
                assert_eq!(of(&with(plain.clone(), role, other)), 1, "{role:?} {other}");
            }
        }
        let mut bound = plain.clone();
        bound.interface.addresses.insert(address);
        assert_eq!(of(&bound), 0);
        // What somebody asks for, or what is excluded, is no question.
        assert!(unmarked(&plain, &plain, &settings()).is_empty());
        let exclude_cidrs = vec!["203.0.113.0/24".parse().unwrap()];
        let excluding = Settings { exclude_cidrs, ..settings() };
        assert!(unmarked(&plain, &State::default(), &excluding).is_empty());
    }

    #[test]
    fn a_node_port_is_known_by_its_port_on_addresses_of_the_node() {
        let found =
            kernel(&["192.0.2.1:30080/tcp", "203.0.113.7:30080/tcp", "192.0.2.1:30080/udp"]);
        let found = with(found, SetRole::NodePortTcp, Member::Port(30080));
        let left = unmarked(&found, &State::default(), &settings());
        let wanted = ["203.0.113.7:30080/tcp", "192.0.2.1:30080/udp"].map(virtual_server);
        assert_eq!(left, wanted.into());
    }
}
