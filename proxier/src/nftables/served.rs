//! What kube-proxy's nftables mode has in place, by its own names.

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use netlink_nftables::{Chain, ChainKind, ElementEntry, Hook, TableKey};

use super::{element, nft_family};
use crate::dataplane::hand_over::Served;
use crate::dataplane::leftovers::NFTABLES_TABLE;

/// Maps by address, protocol and port: of services with endpoints and without.
const BY_ADDRESS: [&str; 2] = ["service-ips", "no-endpoint-services"];
/// Maps by protocol and port.
const BY_PORT: [&str; 2] = ["service-nodeports", "no-endpoint-nodeports"];

/// The maps in which services are known.
pub fn served_maps() -> impl Iterator<Item = &'static str> {
    BY_ADDRESS.into_iter().chain(BY_PORT)
}

/// The table of a family.
pub fn kube_proxy_table(family: Family) -> TableKey {
    TableKey::new(nft_family(family), NFTABLES_TABLE)
}

/// Whether packets from outside and of this node come to these chains.
pub fn is_reached(chains: &[Chain]) -> bool {
    let has = |hook: Hook| {
        let bases = chains.iter().filter_map(|chain| chain.base.as_ref());
        bases.clone().any(|base| base.kind == ChainKind::Nat && base.hook == hook)
    };
    has(Hook::Prerouting) && has(Hook::Output)
}

/// Notes the elements of one of the maps. What is not understood is passed over.
pub fn note_served(family: Family, map: &str, elements: &[ElementEntry], served: &mut Served) {
    let keys = elements.iter().map(|entry| entry.element.key.as_bytes());
    if BY_ADDRESS.contains(&map) {
        served.addresses.extend(keys.filter_map(|key| frontend(family, key)));
    } else {
        served.node_ports.extend(keys.filter_map(node_port));
    }
}

fn frontend(family: Family, key: &[u8]) -> Option<VirtualServerKey> {
    let (address, rest) = element::address(family, key)?;
    let (protocol, port) = node_port(rest)?;
    Some(VirtualServerKey::new(address, port, protocol))
}

fn node_port(key: &[u8]) -> Option<(Protocol, u16)> {
    let (protocol, port, _) = element::protocol_and_port(key)?;
    Some((protocol, port))
}
