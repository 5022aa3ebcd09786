//! The dataplane in the kernel: IPVS, `kube-ipvs0`, sets, rules, settings and UDP flows.

#[cfg(test)]
mod captures;
pub mod cleanup;
pub mod conntrack;
pub mod filter;
pub mod firewall;
pub mod ipset;
mod ipvs;
pub mod successor;
pub mod sysctl;
pub mod tables;
mod write;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;

use dummy_iface::{AssignedAddress, DummyInterface};
use netlink_ipvs::Family;

use self::conntrack::Conntrack;
use self::filter::{Filter, Found};
use self::ipvs::{Ipvs, Listing};
use self::sysctl::Sysctls;
use crate::dataplane::sysctls::Sysctl;
use crate::dataplane::{
    Answer, Dataplane, ForeignAddress, INTERFACE, InterfaceState, Look, OpError, OpErrorKind,
    Outcome, Plan, Query,
};
use crate::text::chain;

/// The kernel of this network namespace.
#[derive(Debug)]
pub struct Kernel {
    ipvs: Ipvs,
    /// Absent until something is bound, or when somebody has deleted it.
    interface: Option<DummyInterface>,
    filter: Filter,
    conntrack: Option<Conntrack>,
    sysctls: Sysctls,
    families: Vec<Family>,
    /// The list of virtual servers that is being read.
    listing: Option<Listing>,
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
}

impl Kernel {
    /// Opens every part and changes nothing.
    pub fn open(
        ipvs: netlink_ipvs::Client,
        filter: Filter,
        families: Vec<Family>,
    ) -> Result<Self, Error> {
        let interface = find_interface().map_err(Error::Interface)?;
        // Without it only the flows of removed UDP endpoints linger until they time out.
        let conntrack = Conntrack::open()
            .inspect_err(|error| tracing::warn!(error = chain(error), "no connection tracking"))
            .ok();
        let ipvs = Ipvs::new(ipvs);
        Ok(Self {
            ipvs,
            interface,
            filter,
            conntrack,
            sysctls: Sysctls::system(),
            families,
            listing: None,
        })
    }

    /// Processes started so far; only the programs of iptables are any.
    pub fn processes_started(&self) -> u64 {
        self.filter.processes_started()
    }

    fn sysctls(&self, settings: &[Sysctl]) -> Result<BTreeMap<&'static str, Arc<str>>, OpError> {
        let mut out = BTreeMap::new();
        for setting in settings {
            match self.sysctls.read(setting) {
                Ok(found) => {
                    let good = setting.wanted.allows(&found);
                    let value = if good { setting.wanted.value() } else { found };
                    out.insert(setting.path, value.into());
                }
                // A module that has it was unloaded.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let text = format!("read {}: {error}", setting.name());
                    return Err(OpError { kind: OpErrorKind::Failed, text });
                }
            }
        }
        Ok(out)
    }

    fn interface(&mut self) -> Result<InterfaceState, OpError> {
        self.interface = find_interface().map_err(|error| failed(&error))?;
        let Some(interface) = &self.interface else { return Ok(InterfaceState::default()) };
        let found = interface.observe().map_err(|error| failed(&error))?;
        let mut out = InterfaceState { up: found.up, ..InterfaceState::default() };
        for assigned in found.addresses {
            let AssignedAddress { address, prefix_len, peer } = assigned;
            if !self.families.contains(&Family::of(address)) {
                continue;
            }
            match assigned.as_host() {
                Some(address) => _ = out.addresses.insert(address),
                None => _ = out.foreign.insert(ForeignAddress { address, prefix_len, peer }),
            }
        }
        Ok(out)
    }

    fn list(&mut self, begin: bool) -> Result<Answer, OpError> {
        if begin {
            self.listing = Some(Listing::begin()?);
        }
        let next = self.listing.as_mut().map_or_else(|| Ok(Vec::new()), Listing::next);
        if next.as_ref().map_or(true, Vec::is_empty) {
            self.listing = None;
        }
        next.map(Answer::List)
    }
}

impl Dataplane for Kernel {
    async fn read(&mut self, query: &Query) -> Result<Answer, OpError> {
        Ok(match query {
            Query::Sysctls(settings) => Answer::Sysctls(self.sysctls(settings)?),
            Query::Interface => Answer::Interface(self.interface()?),
            Query::Set(set) => match self.filter.set(*set)? {
                Found::State(state) => Answer::Set(*set, state),
                Found::Unchanged => Answer::Unchanged(*set),
            },
            Query::List { begin } => self.list(*begin)?,
            Query::VirtualServers(keys) => Answer::VirtualServers(self.ipvs.virtual_servers(keys)),
            Query::RealServers(keys) => Answer::RealServers(self.ipvs.real_servers(keys)),
        })
    }

    fn look_at_rules(&mut self, families: &[Family]) -> Look {
        self.filter.look(families)
    }

    async fn write(&mut self, plan: &Plan) -> Outcome {
        self.carry_out(plan)
    }
}

/// Our interface. One of another kind in its place is as good as none: what needs an address bound
/// fails and says so, the rest goes on.
fn find_interface() -> Result<Option<DummyInterface>, dummy_iface::Error> {
    match DummyInterface::find(INTERFACE) {
        Err(error) if error.kind() == dummy_iface::ErrorKind::WrongKind => Ok(None),
        result => result,
    }
}

/// A failure after which the kernel is as it was.
fn failed(error: &dyn StdError) -> OpError {
    op_error(OpErrorKind::Failed, error)
}

fn op_error(kind: OpErrorKind, error: &dyn StdError) -> OpError {
    OpError { kind, text: chain(error) }
}
