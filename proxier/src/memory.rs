//! A dataplane without a kernel: as strict as the kernel, and able to fail on command.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use netlink_ipvs::{Family, Forwarding, RealServer, RealServerKey, VirtualServerKey};

use crate::dataplane::sets::{Member, SetId};
use crate::dataplane::{
    Connections, Dataplane, Listing, Look, Op, OpError, OpErrorKind, Outcome, Plan, RealServers,
    SetState, State, VirtualServerState,
};

/// Decides whether an operation fails, and how.
pub type Fault = Box<dyn FnMut(&Op) -> Option<OpErrorKind> + Send>;

/// The content of a kernel, in memory. What the kernel refuses, it refuses: adding what exists,
/// changing or removing what does not.
#[derive(Default)]
pub struct Memory {
    /// What it holds.
    pub state: State,
    /// Connections of real servers; none unless said here.
    pub connections: HashMap<(VirtualServerKey, RealServerKey), Connections>,
    /// Every operation that took place, in order.
    pub done: Vec<Op>,
    /// How long it takes to read anything.
    pub reading: Duration,
    /// How often everything was observed.
    pub observed: usize,
    /// Of how many virtual servers the real servers were read by themselves.
    pub read: usize,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Whether observing fails.
    pub blind: bool,
}

impl Memory {
    /// An empty kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out one operation.
    pub fn run(&mut self, op: &Op) -> Result<(), OpError> {
        if let Some(kind) = self.fault.as_mut().and_then(|fault| fault(op)) {
            return Err(OpError { kind, text: "injected fault".to_owned() });
        }
        let surprise =
            |text: &str| OpError { kind: OpErrorKind::Surprise, text: format!("{op}: {text}") };
        let state = &mut self.state;
        match op {
            Op::CreateSet(set, capacity) => {
                if state.sets.contains_key(set) {
                    return Err(surprise("exists"));
                }
                state.sets.insert(*set, SetState { capacity: *capacity, ..SetState::default() });
            }
            Op::GrowSet(set, capacity) => {
                let known = state.sets.get_mut(set).ok_or_else(|| surprise("no such set"))?;
                if known.members.len() > *capacity as usize {
                    return Err(surprise("its members do not fit"));
                }
                known.capacity = *capacity;
            }
            Op::RemoveLeftover(leftover) => {
                if !state.leftovers.remove(leftover) {
                    return Err(surprise("not found"));
                }
            }
            Op::InstallFirewall(family, rules) => {
                let missing = SetId::all()
                    .filter(|set| set.family == *family)
                    .find(|set| !state.sets.contains_key(set));
                if let Some(set) = missing {
                    return Err(surprise(&format!("set {set} does not exist")));
                }
                state.firewall.insert(*family, rules.clone());
            }
            Op::AddMember(set, member) => {
                let known = state.sets.get_mut(set).ok_or_else(|| surprise("no such set"))?;
                add_member(known, *set, *member).map_err(surprise)?;
            }
            Op::RemoveMember(set, member) => {
                let known = state.sets.get_mut(set).ok_or_else(|| surprise("no such set"))?;
                if !known.members.remove(member) {
                    return Err(surprise("not found"));
                }
            }
            Op::AddVirtualServer(key, config) => {
                if state.virtual_servers.contains_key(key) {
                    return Err(surprise("exists"));
                }
                let real_servers = RealServers::from([]);
                let server = VirtualServerState { config: *config, real_servers };
                state.virtual_servers.insert(*key, server);
            }
            Op::SetVirtualServer(key, config) => {
                let known = state.virtual_servers.get_mut(key);
                known.ok_or_else(|| surprise("not found"))?.config = *config;
            }
            Op::RemoveVirtualServer(key) => {
                state.virtual_servers.remove(key).ok_or_else(|| surprise("not found"))?;
            }
            Op::AddRealServer(key, server) => {
                let tunnel = matches!(server.config.forwarding, Forwarding::Tunnel(_));
                if !tunnel && Family::of(server.key.address) != key.family() {
                    return Err(surprise("the real server is of another family"));
                }
                let add = |servers: &mut Vec<RealServer>, at: Result<usize, usize>| {
                    at.err().map(|at| servers.insert(at, *server))
                };
                edit(state, key, &server.key, add)
                    .ok_or_else(|| surprise("exists, or its virtual server does not"))?;
            }
            Op::SetRealServer(key, server) => {
                let set = |servers: &mut Vec<RealServer>, at: Result<usize, usize>| {
                    at.ok().map(|at| servers[at] = *server)
                };
                edit(state, key, &server.key, set).ok_or_else(|| surprise("not found"))?;
            }
            Op::RemoveRealServer(key, server) => {
                let remove = |servers: &mut Vec<RealServer>, at: Result<usize, usize>| {
                    at.ok().map(|at| {
                        servers.remove(at);
                    })
                };
                edit(state, key, server, remove).ok_or_else(|| surprise("not found"))?;
            }
            Op::Bind(address) => {
                if !state.addresses.insert(*address) {
                    return Err(surprise("exists"));
                }
            }
            Op::Unbind(address) => {
                if !state.addresses.remove(address) {
                    return Err(surprise("not found"));
                }
            }
            Op::ForgetFlows(..) => {}
        }
        self.done.push(op.clone());
        Ok(())
    }
}

fn add_member(known: &mut SetState, set: SetId, member: Member) -> Result<(), &'static str> {
    if !member.fits(set) {
        return Err("the set is of another type or family");
    }
    if known.members.len() >= known.capacity as usize {
        return Err("the set is full");
    }
    if known.members.insert(member) { Ok(()) } else { Err("exists") }
}

/// Edits the real servers of a virtual server at the place of one of them; `None` when there is no
/// such virtual server or the edit does not fit.
fn edit(
    state: &mut State,
    key: &VirtualServerKey,
    server: &RealServerKey,
    change: impl FnOnce(&mut Vec<RealServer>, Result<usize, usize>) -> Option<()>,
) -> Option<()> {
    let known = state.virtual_servers.get_mut(key)?;
    let mut servers = known.real_servers.to_vec();
    let at = servers.binary_search_by_key(server, |known| known.key);
    change(&mut servers, at)?;
    known.real_servers = servers.into();
    Some(())
}

/// Where nothing takes time there need be no clock.
async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn blind() -> OpError {
    OpError { kind: OpErrorKind::Retry, text: "injected fault".to_owned() }
}

impl Dataplane for Memory {
    async fn observe(&mut self) -> Result<State, OpError> {
        self.observed += 1;
        if self.blind {
            return Err(blind());
        }
        Ok(self.state.clone())
    }

    async fn addresses(&mut self) -> Result<BTreeSet<IpAddr>, OpError> {
        sleep(self.reading).await;
        if self.blind { Err(blind()) } else { Ok(self.state.addresses.clone()) }
    }

    async fn sets(&mut self) -> Result<BTreeMap<SetId, SetState>, OpError> {
        sleep(self.reading).await;
        if self.blind { Err(blind()) } else { Ok(self.state.sets.clone()) }
    }

    /// As they are now: what changes until a piece is taken is not in it.
    fn list_virtual_servers(&mut self) -> Result<Listing, OpError> {
        const PIECE: usize = 16;
        if self.blind {
            return Err(blind());
        }
        self.observed += 1;
        let servers = self.state.virtual_servers.iter();
        let servers: Vec<_> = servers.map(|(key, server)| (*key, server.config)).collect();
        let pieces: Vec<_> = servers.chunks(PIECE).map(|piece| Ok(piece.to_vec())).collect();
        let reading = self.reading;
        Ok(Box::pin(stream::iter(pieces).then(move |piece| async move {
            sleep(reading).await;
            piece
        })))
    }

    fn look_at_rules(&mut self) -> Look {
        let read = if self.blind { Err(blind()) } else { Ok(self.state.rules()) };
        let reading = self.reading;
        Box::pin(async move {
            sleep(reading).await;
            read
        })
    }

    async fn observe_virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerState>, OpError> {
        sleep(self.reading).await;
        let known =
            |key: &VirtualServerKey| Some((*key, self.state.virtual_servers.get(key)?.clone()));
        Ok(keys.iter().filter_map(known).collect())
    }

    async fn real_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<Vec<(VirtualServerKey, RealServer, Connections)>, OpError> {
        sleep(self.reading).await;
        self.read += keys.len();
        let mut out = Vec::new();
        for key in keys {
            let Some(known) = self.state.virtual_servers.get(key) else { continue };
            out.extend(known.real_servers.iter().map(|server| {
                let connections = self.connections.get(&(*key, server.key));
                (*key, *server, connections.copied().unwrap_or_default())
            }));
        }
        Ok(out)
    }

    async fn apply(&mut self, plan: &Plan) -> Outcome {
        let mut outcome = Outcome::default();
        for (index, op) in plan.ops.iter().enumerate() {
            if let Err(error) = self.run(op) {
                outcome.failed.push((index, error));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
