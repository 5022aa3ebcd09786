//! The dataplane in the kernel: IPVS, `kube-ipvs0`, sets, rules and UDP flows.
//!
//! A plan is carried out in its order; what stands together and goes to the same part of the kernel
//! goes in one batch.

pub mod cleanup;
pub mod conntrack;
pub mod firewall;
pub mod ipset;
mod ipvs;
pub mod nfnetlink;
pub mod nftables;
pub mod sysctl;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use dummy_iface::{AddressChange, DummyInterface, Ensured};
use futures_util::stream;
use netlink_ipvs::{Family, Protocol, RealServer, VirtualServerKey};

use self::conntrack::Conntrack;
use self::firewall::Firewall;
use self::ipset::{IpsetClient, SetSpec};
use self::ipvs::Ipvs;
use self::nftables::Nftables;
use crate::dataplane::firewall::Ruleset;
use crate::dataplane::leftovers::{Leftover, Scope};
use crate::dataplane::sets::SetId;
use crate::dataplane::{
    Connections, Dataplane, ForgottenFlows, INTERFACE, Listing, Look, Op, OpError, OpErrorKind,
    Outcome, Plan, RealServers, SetState, State, VirtualServerState,
};
use crate::text::chain;

/// The kernel of this network namespace.
#[derive(Debug)]
pub struct Kernel {
    ipvs: Ipvs,
    /// Absent until something is bound, or when somebody has deleted it.
    interface: Option<DummyInterface>,
    sets: IpsetClient,
    firewall: Firewall,
    conntrack: Option<Conntrack>,
    nftables: Nftables,
    families: Vec<Family>,
}

/// A part of the kernel that cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// IPVS.
    #[error("open IPVS")]
    Ipvs(#[source] netlink_ipvs::Error),
    /// The dummy interface.
    #[error("set up {INTERFACE}")]
    Interface(#[source] dummy_iface::Error),
    /// Sets.
    #[error("open ipset")]
    Sets(#[source] nfnetlink::Error),
    /// nftables.
    #[error("open nftables")]
    Nftables(#[source] nfnetlink::Error),
}

/// Which part of the kernel an operation goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Sets,
    Firewall,
    Members,
    Ipvs,
    Addresses,
    Flows,
    Leftovers,
}

impl Part {
    fn of(op: &Op) -> Self {
        match op {
            Op::CreateSet(..) | Op::GrowSet(..) => Self::Sets,
            Op::InstallFirewall(..) => Self::Firewall,
            Op::AddMember(..) | Op::RemoveMember(..) => Self::Members,
            Op::AddVirtualServer(..)
            | Op::SetVirtualServer(..)
            | Op::RemoveVirtualServer(..)
            | Op::AddRealServer(..)
            | Op::SetRealServer(..)
            | Op::RemoveRealServer(..) => Self::Ipvs,
            Op::Bind(..) | Op::Unbind(..) => Self::Addresses,
            Op::ForgetFlows(..) => Self::Flows,
            Op::RemoveLeftover(..) => Self::Leftovers,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sets => "sets",
            Self::Firewall => "firewall",
            Self::Members => "members",
            Self::Ipvs => "ipvs",
            Self::Addresses => "addresses",
            Self::Flows => "flows",
            Self::Leftovers => "leftovers",
        }
    }
}

// === impl Kernel ===

impl Kernel {
    /// Opens every part and changes nothing.
    pub async fn open(
        ipvs: netlink_ipvs::Client,
        firewall: Firewall,
        families: Vec<Family>,
    ) -> Result<Self, Error> {
        let interface = find_interface().await.map_err(Error::Interface)?;
        let sets = IpsetClient::open().map_err(Error::Sets)?;
        // Without it only the flows of removed UDP endpoints linger until they time out.
        let conntrack = Conntrack::open()
            .inspect_err(|error| tracing::warn!(error = chain(error), "no connection tracking"))
            .ok();
        let nftables = Nftables::open().map_err(Error::Nftables)?;
        let ipvs = Ipvs::new(ipvs);
        Ok(Self { ipvs, interface, sets, firewall, conntrack, nftables, families })
    }

    /// Processes started so far; only the firewall starts any.
    pub fn processes_started(&self) -> u64 {
        self.firewall.processes_started()
    }

    fn firewall_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::InstallFirewall(family, text) = op else { return Ok(()) };
        let installation = self
            .firewall
            .install(&Ruleset::parse(*family, text))
            .map_err(|error| retry(&*error))?;
        if installation.without_physdev {
            tracing::info!(%family, "the kernel has no match physdev, the rules do without it");
        }
        Ok(())
    }

    fn leftover_op(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::RemoveLeftover(leftover) = op else { return Ok(()) };
        let done: Result<(), Box<dyn StdError>> = match *leftover {
            Leftover::Iptables(family) => {
                let done = self.firewall.remove_leftovers(family, Scope::NotOurs);
                done.map(drop).map_err(Into::into)
            }
            Leftover::Nftables(family) => match self.nftables.delete_table(family) {
                Err(error) if error.kind() == nfnetlink::ErrorKind::NotFound => Ok(()),
                done => done.map_err(Into::into),
            },
        };
        done.map_err(|error| retry(&*error))?;
        tracing::info!("removed {leftover}");
        Ok(())
    }

    fn set_op(&mut self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::CreateSet(set, capacity) => self.create_set(&SetSpec::of(*set, *capacity)),
            Op::GrowSet(set, capacity) => {
                let remade = self.sets.remake(&SetSpec::of(*set, *capacity));
                remade.map_err(|error| retry(&error))
            }
            _ => Ok(()),
        }
    }

    /// Creates a set; one of the same name that is not what we need goes, unless rules of others
    /// refer to it.
    fn create_set(&mut self, set: &SetSpec<'_>) -> Result<(), OpError> {
        let failed = |error: &dyn StdError| retry(error);
        match self.sets.create(set) {
            Err(error) if error.kind() == nfnetlink::ErrorKind::Exists => {}
            result => return result.map_err(|error| failed(&error)),
        }
        match self.sets.destroy(set.name) {
            // Rules may refer to a set of any type, ours as well.
            Err(error) if error.kind() == nfnetlink::ErrorKind::Busy => {
                let found = self.firewall.look(set.family).map_err(|e| failed(&*e))?;
                let ours = found.ours.filter(|rules| self.only_refer_to(set.name, rules));
                self.recreate_without(&ours.ok_or_else(|| failed(&error))?, set)
            }
            Err(error) => Err(failed(&error)),
            Ok(()) => self.sets.create(set).map_err(|error| failed(&error)),
        }
    }

    /// Whether nothing else than these rules refers to a set.
    fn only_refer_to(&mut self, name: &str, rules: &str) -> bool {
        let ours = rules.matches(&format!("--match-set {name} ")).count();
        let headers = self.sets.list().unwrap_or_default();
        headers.iter().any(|set| set.name == name && set.references as usize == ours)
    }

    /// Makes a set anew that only our rules refer to: they go, and come back at once.
    fn recreate_without(&mut self, rules: &str, set: &SetSpec<'_>) -> Result<(), OpError> {
        tracing::warn!(
            set = set.name,
            "is of another type: the rules go for a moment, to replace it"
        );
        self.firewall.remove(set.family).map_err(|e| retry(&*e))?;
        let made = self.sets.destroy(set.name).and_then(|()| self.sets.create(set));
        let back = self.firewall.install(&Ruleset::parse(set.family, rules));
        made.map_err(|error| retry(&error))?;
        // Without them the next audit finds them missing.
        back.map(drop).map_err(|error| op_error(OpErrorKind::Surprise, &*error))
    }

    fn members(&mut self, ops: &[Op]) -> Vec<(usize, OpError)> {
        let changes = ops.iter().filter_map(|op| match op {
            Op::AddMember(set, member) => Some(ipset::Change::Add(set.name(), *member)),
            Op::RemoveMember(set, member) => Some(ipset::Change::Remove(set.name(), *member)),
            _ => None,
        });
        let report = self.sets.apply(changes);
        let mut failed: Vec<(usize, OpError)> = report
            .failed
            .into_iter()
            .map(|(at, error)| {
                let kind = match error.kind() {
                    nfnetlink::ErrorKind::NotFound => OpErrorKind::Surprise,
                    _ => OpErrorKind::Retry,
                };
                (at, op_error(kind, &error))
            })
            .collect();
        failed.extend(lost(report.uncertain));
        failed
    }

    /// Creates `kube-ipvs0` if it is not there.
    async fn ensure_interface(&mut self) -> Result<(), OpError> {
        if self.interface.is_none() {
            let (interface, ensured) =
                DummyInterface::ensure(INTERFACE).await.map_err(|error| retry(&error))?;
            if ensured == Ensured::Created {
                tracing::info!(interface = INTERFACE, "created");
            }
            self.interface = Some(interface);
        }
        Ok(())
    }

    async fn change_addresses(&mut self, ops: &[Op]) -> Vec<(usize, OpError)> {
        if let Err(error) = self.ensure_interface().await {
            return (0..ops.len()).map(|at| (at, error.clone())).collect();
        }
        let Some(interface) = &self.interface else { return Vec::new() };
        let changes = ops.iter().filter_map(|op| match op {
            Op::Bind(address) => Some(AddressChange::Add(*address)),
            Op::Unbind(address) => Some(AddressChange::Remove(*address)),
            _ => None,
        });
        let report = interface.apply(changes);
        let gone = report.failed.iter().any(|(_, e)| e.kind() == dummy_iface::ErrorKind::NotFound);
        let kind = |error: &dummy_iface::Error| match error.kind() {
            dummy_iface::ErrorKind::NotFound => OpErrorKind::Surprise,
            _ => OpErrorKind::Retry,
        };
        if gone {
            // Deleted under our hands; the next attempt makes it anew.
            self.interface = None;
        }
        let failed = report.failed.into_iter();
        let failed = failed.map(|(at, error)| (at, op_error(kind(&error), &error)));
        failed.chain(lost(report.uncertain)).collect()
    }

    /// Deletes the flows that lead to no real server of their virtual server, with one dump for
    /// each family.
    fn flows(&mut self, ops: &[Op], searches: &mut Vec<ForgottenFlows>) -> Vec<(usize, OpError)> {
        let Some(conntrack) = &mut self.conntrack else { return Vec::new() };
        let wanted: BTreeMap<SocketAddr, &RealServers> = ops
            .iter()
            .filter_map(|op| match op {
                Op::ForgetFlows(VirtualServerKey::Address { address, port, .. }, keep) => {
                    Some((SocketAddr::new(*address, *port), keep))
                }
                _ => None,
            })
            .collect();
        let families: BTreeSet<Family> = wanted.keys().map(|to| Family::of(to.ip())).collect();
        let mut failed = Vec::new();
        for family in families {
            let started = Instant::now();
            let mut stale = match conntrack.flows(family, Protocol::Udp) {
                Ok(found) => found.flows,
                Err(error) => {
                    let error = retry(&error);
                    let of_family =
                        |op: &Op| matches!(op, Op::ForgetFlows(key, _) if key.family() == family);
                    let ops = ops.iter().enumerate().filter(|(_, op)| of_family(op));
                    failed.extend(ops.map(|(at, _)| (at, error.clone())));
                    continue;
                }
            };
            stale.retain(|flow| flow.is_stale(&wanted));
            let mut deleted = 0;
            if !stale.is_empty() {
                let report = conntrack.delete(&stale);
                deleted = report.sent.saturating_sub(report.unchanged + report.failed.len());
                tracing::info!(
                    %family, deleted, failed = report.failed.len(), "deleted stale UDP flows"
                );
            }
            let (deleted, took) = (deleted as u64, started.elapsed());
            searches.push(ForgottenFlows { family, deleted, took });
        }
        failed
    }
}

impl Dataplane for Kernel {
    async fn observe(&mut self) -> Result<State, OpError> {
        let mut state = self.look_at_rules().await?;
        state.virtual_servers = self.ipvs.observe()?;
        self.ipvs.fill(&mut state.virtual_servers)?;
        state.addresses = self.addresses().await?;
        state.sets = self.sets().await?;
        Ok(state)
    }

    async fn addresses(&mut self) -> Result<BTreeSet<IpAddr>, OpError> {
        self.interface = find_interface().await.map_err(|error| retry(&error))?;
        let Some(interface) = &self.interface else { return Ok(BTreeSet::new()) };
        let mut addresses = interface.addresses().map_err(|error| retry(&error))?;
        addresses.retain(|address| self.families.contains(&Family::of(*address)));
        Ok(addresses)
    }

    async fn sets(&mut self) -> Result<BTreeMap<SetId, SetState>, OpError> {
        let mut out = BTreeMap::new();
        for header in self.sets.list().map_err(|error| retry(&error))? {
            let Some(set) = SetId::by_name(&header.name) else { continue };
            // One of another kind is as good as none; creating ours deals with it.
            if !self.families.contains(&set.family) || !SetSpec::of(set, 0).matches(&header) {
                continue;
            }
            let members = self.sets.members(set.name()).map_err(|error| retry(&error))?.members;
            let capacity = header.capacity.unwrap_or(SetId::DEFAULT_CAPACITY);
            out.insert(set, SetState { capacity, members });
        }
        Ok(out)
    }

    fn list_virtual_servers(&mut self) -> Result<Listing, OpError> {
        Ok(Box::pin(stream::iter(ipvs::list()?)))
    }

    fn look_at_rules(&mut self) -> Look {
        let families = self.families.clone();
        let tables = families.iter().map(|family| self.nftables.has_table(*family));
        let tables: Vec<_> = tables.collect();
        let firewall = self.firewall.clone();
        let look = tokio::task::spawn_blocking(move || {
            let mut state = State::default();
            for (family, table) in families.into_iter().zip(tables) {
                let found = firewall.look(family).map_err(|error| retry(&*error))?;
                state.firewall.extend(found.ours.map(|text| (family, text)));
                state.leftovers.extend(found.left_over.then_some(Leftover::Iptables(family)));
                let table = table.map_err(|error| retry(&error))?;
                state.leftovers.extend(table.then_some(Leftover::Nftables(family)));
            }
            Ok(state)
        });
        Box::pin(async move { look.await.unwrap_or_else(|error| Err(retry(&error))) })
    }

    async fn observe_virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerState>, OpError> {
        self.ipvs.observe_some(keys)
    }

    async fn real_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<Vec<(VirtualServerKey, RealServer, Connections)>, OpError> {
        self.ipvs.real_servers(keys)
    }

    async fn apply(&mut self, plan: &Plan) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(error) = self.ensure_interface().await {
            tracing::warn!(error = error.text, "no {INTERFACE}");
        }
        let mut start = 0;
        while let Some(first) = plan.ops.get(start) {
            let part = Part::of(first);
            let same = plan.ops[start..].iter().take_while(|op| Part::of(op) == part).count();
            let ops = &plan.ops[start..start + same];
            let began = Instant::now();
            let one_by_one = |run: &mut dyn FnMut(&Op) -> Result<(), OpError>| {
                let results = ops.iter().enumerate().map(|(at, op)| (at, run(op)));
                results.filter_map(|(at, result)| Some((at, result.err()?))).collect()
            };
            let failed: Vec<(usize, OpError)> = match part {
                Part::Sets => one_by_one(&mut |op| self.set_op(op)),
                Part::Firewall => one_by_one(&mut |op| self.firewall_op(op)),
                Part::Members => self.members(ops),
                Part::Ipvs => self.ipvs.execute(ops),
                Part::Addresses => self.change_addresses(ops).await,
                Part::Flows => self.flows(ops, &mut outcome.flows),
                Part::Leftovers => one_by_one(&mut |op| self.leftover_op(op)),
            };
            *outcome.took.entry(part.name()).or_default() += began.elapsed();
            outcome.failed.extend(failed.into_iter().map(|(at, error)| (start + at, error)));
            start += same;
        }
        outcome
    }
}

/// Our interface. One of another kind in its place is as good as none: what needs an address bound
/// fails and says so, the rest goes on.
async fn find_interface() -> Result<Option<DummyInterface>, dummy_iface::Error> {
    match DummyInterface::find(INTERFACE).await {
        Err(error) if error.kind() == dummy_iface::ErrorKind::WrongKind => Ok(None),
        result => result,
    }
}

/// Operations of which nobody knows whether they took place.
fn lost(uncertain: Vec<Range<usize>>) -> impl Iterator<Item = (usize, OpError)> {
    let text = "the kernel's answer was lost";
    let error = move || OpError { kind: OpErrorKind::Surprise, text: text.to_owned() };
    uncertain.into_iter().flatten().map(move |at| (at, error()))
}

fn retry(error: &dyn StdError) -> OpError {
    op_error(OpErrorKind::Retry, error)
}

fn op_error(kind: OpErrorKind, error: &dyn StdError) -> OpError {
    OpError { kind, text: chain(error) }
}
