//! externalTrafficPolicy Local, for clients outside the cluster only.
//!
//! A virtual server has one list of real servers, so kube-proxy's IPVS mode sends everybody to the same
//! endpoints: those on this node, or all where there is none. Kubernetes says it otherwise: clients
//! outside reach endpoints on this node or nobody, and keep their address; pods and the node reach all.
//!
//! The virtual server of the address stays as kube-proxy has it. Beside it stands one by firewall mark
//! with all endpoints, and packets of clients inside get its mark ([`Chain::LocalMark`]). Where there is
//! no endpoint on this node, clients outside are refused ([`Chain::ProxyFirewall`]). Whatever fails in
//! this, a mark that somebody else changes or a member that is not renewed, what is left is what
//! kube-proxy does.
//!
//! [`Chain::LocalMark`]: super::firewall::Chain::LocalMark
//! [`Chain::ProxyFirewall`]: super::firewall::Chain::ProxyFirewall

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::sets::{Member, SetRole};
use super::{Contribution, Frontend, FrontendKind, Refusal, Skipped, State, VirtualServerState};
use crate::cluster::ObjectKey;
use crate::value::MarkRange;

/// How long the kernel keeps a member of the sets of the split that nobody renews: the time after which
/// a kube-proxy that was started in our place is alone.
pub const EXPIRY: Duration = Duration::from_mins(5);

/// How externalTrafficPolicy Local is programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalPolicy {
    /// For clients outside the cluster.
    #[default]
    Split,
    /// As kube-proxy's IPVS mode does, for all clients alike.
    KubeProxy,
}

/// What clients inside the cluster have of a service port in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Name of the service port.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Family of its addresses.
    pub family: Family,
    /// The virtual server with all endpoints.
    pub server: Arc<VirtualServerState>,
    /// The frontends of the port outside, by their numbers.
    pub frontends: Vec<usize>,
    /// A Local policy gives clients outside other endpoints, or the same as long as all are on this node.
    pub is_led: bool,
}

/// A service port by name; its frontends of both families share a mark.
type Port = (Arc<str>, Protocol);

/// Who has which mark.
#[derive(Debug, Default)]
pub struct Marks {
    known: HashMap<ObjectKey, Vec<(Port, u32)>>,
    taken: BTreeSet<u32>,
    /// What the kernel had at the start, by address and port.
    found: BTreeMap<(IpAddr, Protocol, u16), u32>,
    /// How many of the range nobody had yet, counted from the first.
    used: u32,
    /// Given back, the first one first: none is used again while another is free, since connections and
    /// affinities may still be those of its former service.
    returned: VecDeque<u32>,
}

impl Marks {
    /// Takes in which marks the kernel has, so that after a restart each frontend has the one that it had.
    pub fn adopt(&mut self, range: MarkRange, found: &State) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let set = found.sets.get(&SetRole::LocalMark.of(family));
            for member in set.into_iter().flat_map(|set| &set.members) {
                if let Member::Marked(address, protocol, port, mark) = *member
                    && range.contains(mark)
                {
                    self.found.insert((address, protocol, port), mark);
                    self.taken.insert(mark);
                }
            }
        }
    }

    /// Every service has been computed: what the kernel had and nobody asks for is free.
    pub fn adopted(&mut self) {
        // Whoever got one has taken it from there.
        let left: BTreeSet<u32> = std::mem::take(&mut self.found).into_values().collect();
        for mark in left {
            self.give_back(mark);
        }
    }

    /// Gives each service port that needs one a mark, and makes a frontend of what clients inside have. A
    /// port keeps its mark as long as it has frontends outside: taking it away would end connections.
    /// Where no mark is free, a port stays as kube-proxy has it, and is named in the result.
    pub fn assign(
        &mut self,
        range: MarkRange,
        service: &ObjectKey,
        asked: Option<&mut Contribution>,
    ) {
        let known = self.known.remove(service).unwrap_or_default();
        let mut kept: Vec<(Port, u32)> = Vec::new();
        if let Some(asked) = asked {
            for inside in asked.inside.take().map(|inside| *inside).unwrap_or_default() {
                let port = (inside.port.clone(), inside.protocol);
                let has = kept.iter().chain(&known).find(|(of, _)| *of == port);
                let has = has.map(|(_, mark)| *mark);
                let has = has.or_else(|| self.had(asked, &inside.frontends));
                let new = |marks: &mut Self| inside.is_led.then(|| marks.free(range)).flatten();
                let Some(mark) = has.or_else(|| new(self)) else {
                    asked.skipped.extend(without_mark(asked, &inside));
                    continue;
                };
                if !kept.iter().any(|(of, _)| *of == port) {
                    kept.push((port, mark));
                }
                add(asked, inside, mark);
            }
        }
        for (_, mark) in known.iter().filter(|gone| !kept.contains(gone)) {
            self.give_back(*mark);
        }
        if !kept.is_empty() {
            self.known.insert(service.clone(), kept);
        }
    }

    fn give_back(&mut self, mark: u32) {
        self.taken.remove(&mark);
        self.returned.push_back(mark);
    }

    /// The mark that one of these frontends had in the kernel.
    fn had(&mut self, of: &Contribution, frontends: &[usize]) -> Option<u32> {
        let keys = frontends.iter().filter_map(|at| of.frontends.get(*at));
        let mut places = keys.filter_map(|frontend| match frontend.key {
            VirtualServerKey::Address { address, port, protocol } => {
                Some((address, protocol, port))
            }
            VirtualServerKey::FirewallMark { .. } => None,
        });
        let mark = places.find_map(|place| self.found.get(&place).copied())?;
        // Its other frontends had it too; nobody else gets it.
        self.found.retain(|_, other| *other != mark);
        Some(mark)
    }

    /// One that nobody had; if there is none, the one that was given back first.
    fn free(&mut self, range: MarkRange) -> Option<u32> {
        while let Some(mark) = range.at(self.used) {
            self.used += 1;
            if self.taken.insert(mark) {
                return Some(mark);
            }
        }
        let mark = self.returned.pop_front()?;
        self.taken.insert(mark);
        Some(mark)
    }
}

/// What is not had if there is no mark for it.
fn without_mark(asked: &Contribution, inside: &Inside) -> Option<Skipped> {
    let first = asked.frontends.get(*inside.frontends.first()?).filter(|_| inside.is_led)?;
    match first.key {
        VirtualServerKey::Address { address, port, .. } => Some(Skipped {
            address,
            port: Some(port),
            kind: FrontendKind::Inside,
            reason: Refusal::NoMark,
        }),
        VirtualServerKey::FirewallMark { .. } => None,
    }
}

/// The virtual server by mark, and at each frontend the member that leads to it.
fn add(asked: &mut Contribution, inside: Inside, mark: u32) {
    let family = inside.family;
    for at in inside.frontends {
        let Some(frontend) = asked.frontends.get_mut(at) else { continue };
        if let VirtualServerKey::Address { address, port, protocol } = frontend.key {
            let member = Member::Marked(address, protocol, port, mark);
            frontend.members.push((SetRole::LocalMark.of(family), member));
        }
    }
    asked.frontends.push(Frontend {
        key: VirtualServerKey::FirewallMark { mark, family },
        kind: FrontendKind::Inside,
        port: inside.port,
        server: inside.server,
        bind: false,
        drop_from_node: false,
        members: Vec::new(),
    });
}

#[cfg(test)]
mod tests;
