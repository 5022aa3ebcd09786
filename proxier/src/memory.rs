//! A dataplane without a kernel: as strict as the kernel, and able to fail on command.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{
    Family, Forwarding, RealServer, RealServerConfig, RealServerKey, VirtualServerConfig,
    VirtualServerKey,
};

use crate::dataplane::sets::{Member, SetId};
use crate::dataplane::{
    Answer, Connections, Counted, Dataplane, Execution, Look, Op, OpError, OpErrorKind, Outcome,
    Plan, Query, RealServers, RulesState, SetState, State, VirtualServerState,
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
    /// How often the virtual servers were listed.
    pub observed: usize,
    /// Of how many virtual servers the real servers were read by themselves.
    pub read: usize,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Whether reading fails.
    pub blind: bool,
    /// What is still to come of a list.
    pub listing: Vec<(VirtualServerKey, VirtualServerConfig)>,
    /// The virtual server whose real servers are being changed. A list that is shared can only be
    /// made anew, which for each of thousands of operations would be quadratic.
    pub editing: Option<(VirtualServerKey, BTreeMap<RealServerKey, RealServerConfig>)>,
}

impl Memory {
    /// An empty kernel.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries out one operation.
    pub fn run(&mut self, op: &Op) -> Result<(), OpError> {
        let done = self.run_next(op);
        self.end_editing();
        done
    }

    /// Carries out one operation of several.
    fn run_next(&mut self, op: &Op) -> Result<(), OpError> {
        if let Some(kind) = self.fault.as_mut().and_then(|fault| fault(op)) {
            return Err(OpError { kind, text: "injected fault".to_owned() });
        }
        let done = match op {
            Op::AddRealServer(..) | Op::SetRealServer(..) | Op::RemoveRealServer(..) => {
                self.change_real_servers(op)
            }
            _ => {
                self.end_editing();
                change(&mut self.state, op)
            }
        };
        done.map_err(|text| OpError { kind: OpErrorKind::Unknown, text: format!("{op}: {text}") })?;
        self.done.push(op.clone());
        Ok(())
    }

    fn change_real_servers(&mut self, op: &Op) -> Refused {
        match op {
            Op::AddRealServer(key, server) => {
                let tunnel = matches!(server.config.forwarding, Forwarding::Tunnel(_));
                if !tunnel && Family::of(server.key.address) != key.family() {
                    return Err("the real server is of another family".to_owned());
                }
                match self.edit(key)?.entry(server.key) {
                    Entry::Occupied(_) => return Err("exists".to_owned()),
                    Entry::Vacant(place) => _ = place.insert(server.config),
                }
            }
            Op::SetRealServer(key, server) => {
                *self.edit(key)?.get_mut(&server.key).ok_or("not found")? = server.config;
            }
            Op::RemoveRealServer(key, server) => found(self.edit(key)?.remove(server).is_some())?,
            _ => {}
        }
        Ok(())
    }

    /// The real servers of a virtual server, to be changed.
    fn edit(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<&mut BTreeMap<RealServerKey, RealServerConfig>, String> {
        if self.editing.as_ref().is_none_or(|(edited, _)| edited != key) {
            self.end_editing();
            let known = self.state.virtual_servers.get(key).ok_or("no such virtual server")?;
            let servers = known.real_servers.iter().map(|server| (server.key, server.config));
            self.editing = Some((*key, servers.collect()));
        }
        self.editing.as_mut().map(|(_, servers)| servers).ok_or_else(String::new)
    }

    fn end_editing(&mut self) {
        let Some((key, servers)) = self.editing.take() else { return };
        if let Some(known) = self.state.virtual_servers.get_mut(&key) {
            let servers = servers.into_iter().map(|(key, config)| RealServer { key, config });
            Arc::make_mut(known).real_servers = servers.collect();
        }
    }
}

/// Why the kernel would refuse an operation.
type Refused = Result<(), String>;

fn found(there: bool) -> Refused {
    if there { Ok(()) } else { Err("not found".to_owned()) }
}

fn change_sets(state: &mut State, op: &Op) -> Refused {
    if let Op::CreateSet(set, capacity) = op {
        if state.sets.contains_key(set) {
            return Err("exists".to_owned());
        }
        state.sets.insert(*set, SetState { capacity: *capacity, ..SetState::default() });
        return Ok(());
    }
    let (Op::GrowSet(set, _)
    | Op::AddMember(set, _)
    | Op::RemoveMember(set, _)
    | Op::RenewMembers(set, _)
    | Op::RemoveForeignMembers(set, _)) = op
    else {
        return Ok(());
    };
    let known = state.sets.get_mut(set).ok_or("no such set")?;
    match op {
        Op::GrowSet(_, capacity) if known.members.len() > *capacity as usize => {
            Err("its members do not fit".to_owned())
        }
        Op::GrowSet(_, capacity) => {
            known.capacity = *capacity;
            Ok(())
        }
        Op::AddMember(_, member) => Ok(add_member(known, *set, *member)?),
        Op::RemoveMember(_, member) => found(known.members.remove(member)),
        Op::RemoveForeignMembers(_, members) => {
            found(members.iter().all(|member| known.foreign.remove(member)))
        }
        _ => Ok(()),
    }
}

/// Changes anything but real servers.
fn change(state: &mut State, op: &Op) -> Refused {
    match op {
        Op::CreateSet(..)
        | Op::GrowSet(..)
        | Op::AddMember(..)
        | Op::RemoveMember(..)
        | Op::RenewMembers(..)
        | Op::RemoveForeignMembers(..) => change_sets(state, op)?,
        Op::AddVirtualServer(key, config) => {
            let Entry::Vacant(place) = state.virtual_servers.entry(*key) else {
                return Err("exists".to_owned());
            };
            let real_servers = RealServers::default();
            place.insert(VirtualServerState { config: *config, real_servers }.into());
        }
        Op::SetVirtualServer(key, config) => {
            let known = state.virtual_servers.get_mut(key).ok_or("not found")?;
            Arc::make_mut(known).config = *config;
        }
        Op::RemoveVirtualServer(key) => {
            state.virtual_servers.remove(key).ok_or("not found")?;
        }
        Op::InstallFirewall(family, rules) => {
            let missing = SetId::all()
                .filter(|set| set.family == *family)
                .filter(|set| !set.role.is_of_split() || rules.references(set.role) > 0)
                .find(|set| !state.sets.contains_key(set));
            if let Some(set) = missing {
                return Err(format!("set {set} does not exist"));
            }
            state.firewall.insert(*family, rules.clone());
        }
        Op::Bind(address) if !state.interface.addresses.insert(*address) => {
            return Err("exists".to_owned());
        }
        Op::Unbind(address) => found(state.interface.addresses.remove(address))?,
        Op::RemoveForeignAddress(foreign) => found(state.interface.foreign.remove(foreign))?,
        Op::RemoveLeftover(leftover) => found(state.leftovers.remove(leftover))?,
        Op::TakeLinkDown => {
            state.interface.up = false;
            state.interface.addresses.retain(IpAddr::is_ipv4);
        }
        Op::SetSysctl(path, value) => _ = state.sysctls.insert(path, value.clone()),
        _ => {}
    }
    Ok(())
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

/// Where nothing takes time there need be no clock.
async fn sleep(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn blind() -> OpError {
    OpError { kind: OpErrorKind::Failed, text: "injected fault".to_owned() }
}

impl Memory {
    fn answer(&mut self, query: &Query) -> Answer {
        /// Virtual servers in a piece of a list.
        const PIECE: usize = 16;
        match query {
            Query::Sysctls(settings) => {
                let found = |path: &&str| self.state.sysctls.get(path).cloned();
                let paths = settings.iter().map(|setting| setting.path);
                Answer::Sysctls(paths.filter_map(|path| Some((path, found(&path)?))).collect())
            }
            Query::Interface => Answer::Interface(self.state.interface.clone()),
            Query::Set(set) => Answer::Set(*set, self.state.sets.get(set).cloned()),
            Query::List { begin } => {
                if *begin {
                    self.observed += 1;
                    let servers = self.state.virtual_servers.iter();
                    self.listing = servers.map(|(key, server)| (*key, server.config)).collect();
                }
                let piece = self.listing.len().min(PIECE);
                Answer::List(self.listing.drain(..piece).collect())
            }
            Query::VirtualServers(keys) => {
                let known = |key: &VirtualServerKey| self.state.virtual_servers.get(key).cloned();
                Answer::VirtualServers(keys.iter().map(|key| (*key, Ok(known(key)))).collect())
            }
            Query::RealServers(keys) => {
                self.read += keys.len();
                let counted = keys.iter().map(|key| (*key, Ok(self.counted(key)))).collect();
                Answer::RealServers(counted)
            }
        }
    }

    fn counted(&self, key: &VirtualServerKey) -> Counted {
        let known = self.state.virtual_servers.get(key).into_iter();
        let servers = known.flat_map(|known| known.real_servers.iter());
        let count = |server: &RealServer| self.connections.get(&(*key, server.key)).copied();
        servers.map(|server| (*server, count(server).unwrap_or_default())).collect()
    }

    /// The rules of a family.
    fn rules(&self, family: Family) -> RulesState {
        let left = self.state.leftovers.iter().copied();
        RulesState {
            rules: self.state.firewall.get(&family).cloned(),
            leftovers: left.filter(|leftover| leftover.family() == family).collect(),
        }
    }
}

impl Dataplane for Memory {
    async fn read(&mut self, query: &Query) -> Result<Answer, OpError> {
        sleep(self.reading).await;
        if self.blind { Err(blind()) } else { Ok(self.answer(query)) }
    }

    fn look_at_rules(&mut self, families: &[Family]) -> Look {
        let read = |family: &Family| {
            (*family, if self.blind { Err(blind()) } else { Ok(self.rules(*family)) })
        };
        let found = families.iter().map(read).collect();
        let reading = self.reading;
        Box::pin(async move {
            sleep(reading).await;
            found
        })
    }

    async fn write(&mut self, plan: &Plan) -> Outcome {
        let mut execution = Execution::new(plan);
        self.done.reserve(plan.ops.len());
        for (index, op) in plan.ops.iter().enumerate() {
            if execution.may_begin(index)
                && let Err(error) = self.run_next(op)
            {
                execution.failed(index, error);
            }
        }
        self.end_editing();
        execution.outcome
    }
}

#[cfg(test)]
mod tests;
