//! What the kernel should hold, and how to get there. Pure: no I/O, no clock, no logging.
//!
//! [`State`] is the one shape for everything: what one service asks for adds up to the desired
//! state, observing the kernel gives one, and so does the fake. [`plan()`] turns the difference of
//! two into ordered operations.

mod access;
mod budget;
mod contribution;
mod desired;
mod drain;
pub mod firewall;
mod foreign;
mod frontend;
pub mod hand_over;
pub mod leftovers;
mod op;
mod plan;
mod refusal;
mod reserved;
pub mod sets;
mod slow_start;
pub mod split;
mod state;
pub mod sysctls;
mod tuning;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Family, Scheduler, VirtualServerKey};

pub use access::{
    Answer, Connections, Counted, Dataplane, Execution, Fate, ForgottenFlows, FoundServer, Look,
    OpError, OpErrorKind, Outcome, Query,
};
pub use budget::{Budget, Limits, Over, cost};
pub use contribution::{Contribution, Health, NoLocal, contribution, left_out};
pub use desired::{Conflict, Desired, Owner};
pub use drain::{Drains, Finished};
pub use foreign::{is_marked, unmarked};
pub use frontend::{Frontend, FrontendKind};
pub use op::{Op, Part, Subject, Target};
pub(crate) use plan::protects;
pub use plan::{Needs, Plan, Planning, plan};
pub use refusal::{Refusal, Skipped};
pub use reserved::{Need, Origin, Reservation, Reserved};
pub use slow_start::SlowStarts;
pub(crate) use state::set_differences;
pub use state::{
    ForeignAddress, InterfaceState, RealServers, RulesState, SetState, State, VirtualServerState,
};
pub use tuning::{Applied, InForce, Module, flag_names};

use crate::cluster::NodeWeights;
use crate::cluster::topology::Place;
use crate::value::MarkRange;

/// The name of the dummy interface that carries the virtual addresses.
pub const INTERFACE: &str = "kube-ipvs0";

/// What is the same for every service of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// This node's name and zone.
    pub place: Place,
    /// Families that this node serves.
    pub families: Vec<Family>,
    /// Scheduler of every virtual server, unless its Service says otherwise.
    pub scheduler: Scheduler,
    /// Weights that Nodes give their endpoints.
    pub node_weights: Arc<NodeWeights>,
    /// What the kernel was found not to have.
    pub missing_modules: BTreeSet<Module>,
    /// Virtual servers on these addresses are never removed.
    pub exclude_cidrs: Vec<IpNet>,
    /// Whether `spec.externalIPs` is honoured (feature gate `AllowServiceExternalIPs`).
    pub external_ips: bool,
    /// Whether a service's source ranges hold for its node ports and external IPs too.
    pub source_ranges_everywhere: bool,
    /// The node's addresses on its other interfaces: a VIP that is one of them is not bound.
    pub host_addresses: BTreeSet<IpAddr>,
    /// The addresses that node ports listen on.
    pub node_port_addresses: BTreeSet<IpAddr>,
    /// The node's own address of each family, by which source ranges decide whether the node
    /// itself may use a VIP.
    pub node_ips: Vec<IpAddr>,
    /// By what rules and sets are kept.
    pub backend: firewall::Backend,
    /// How externalTrafficPolicy Local is programmed.
    pub local_policy: split::LocalPolicy,
    /// Firewall marks that are ours.
    pub marks: MarkRange,
    /// What the firewall rules depend on, for each family.
    pub firewall: BTreeMap<Family, firewall::FirewallOptions>,
    /// To whom this node is being handed over.
    pub successor: Option<hand_over::Successor>,
    /// Kernel settings that are kept at their values.
    pub sysctls: Arc<[sysctls::Sysctl]>,
    /// Virtual servers that others have made stay.
    pub keep_foreign: bool,
    /// What services may cost.
    pub limits: Limits,
    /// Where this program listens: on all addresses of the node if the address is unspecified.
    pub own_sockets: Vec<SocketAddr>,
    /// Addresses that services may have although they are reserved.
    pub allow_reserved: Vec<IpNet>,
    /// Addresses that this node needs for itself.
    pub reserved: Reserved,
}

impl Settings {
    /// Whether a virtual server may be removed when no service asks for it.
    ///
    /// Every address virtual server of an active family is taken to be ours, as kube-proxy does,
    /// but for excluded addresses. Of those by firewall mark the ones with a mark of our range are.
    pub fn owns(&self, key: &VirtualServerKey) -> bool {
        match key {
            VirtualServerKey::FirewallMark { mark, family } => {
                self.families.contains(family) && self.marks.contains(*mark)
            }
            VirtualServerKey::Address { address, .. } => {
                self.families.contains(&Family::of(*address))
                    && !self.exclude_cidrs.iter().any(|net| net.contains(address))
            }
        }
    }

    /// Whether clients outside the cluster are told from others in a family.
    fn splits(&self, family: Family) -> bool {
        let options = self.firewall.get(&family);
        options.is_some_and(|of| of.split.is_some())
    }

    /// Whether clients outside are refused where a Local policy leaves them without an endpoint: where pods
    /// cannot be told from them, nobody is.
    pub fn refuses_outside(&self, family: Family) -> bool {
        let detector = self.firewall.get(&family).map(|options| &options.detector);
        self.splits(family) && detector != Some(&firewall::LocalDetector::None)
    }

    fn node_ip(&self, family: Family) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}
