//! Why a service does not get something that it asks for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use netlink_ipvs::Protocol;

use super::{FrontendKind, Need, Over, Settings};
use crate::cluster::{Special, Use};

/// Something that was asked for and is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The address that was asked for.
    pub address: IpAddr,
    /// The port, where others of the address are had.
    pub port: Option<u16>,
    /// What it was to be.
    pub kind: FrontendKind,
    /// Why not.
    pub reason: Refusal,
}

impl Skipped {
    /// What was asked for, without the reason: `external IP 192.0.2.1`.
    pub fn what(&self) -> String {
        let Self { address, kind, .. } = self;
        match self.port {
            Some(port) => format!("{kind} {address} port {port}"),
            None => format!("{kind} {address}"),
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what(), self.reason)
    }
}

/// Why it is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// External IPs are switched off.
    GateOff,
    /// No service can have such an address.
    Address(Special),
    /// This node needs the address.
    Reserved(Need),
    /// This node needs the port of its own address.
    ReservedPort(Need),
    /// This program listens there itself.
    OwnPort,
    /// There is not the memory for it.
    OverBudget(Over),
    /// No firewall mark is left for clients inside the cluster.
    NoMark,
}

impl Refusal {
    /// The kinds under which refusals are counted.
    pub const KINDS: [&str; 6] = ["gate", "address", "reserved", "port", "budget", "mark"];

    /// Its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::GateOff => "gate",
            Self::Address(_) => "address",
            Self::Reserved(_) => "reserved",
            Self::ReservedPort(_) | Self::OwnPort => "port",
            Self::OverBudget(_) => "budget",
            Self::NoMark => "mark",
        }
    }

    /// Whether an Event tells of it: it is about what others need, and not about how this node is
    /// configured.
    pub fn is_told(self) -> bool {
        Self::is_told_kind(self.kind())
    }

    /// The same of a kind.
    pub fn is_told_kind(kind: &str) -> bool {
        ![Self::GateOff, Self::NoMark].iter().any(|refusal| refusal.kind() == kind)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALLOW: &str = "--allow-reserved-ips lets services have it all the same";
        match self {
            Self::GateOff => f.write_str("the feature gate AllowServiceExternalIPs is off"),
            Self::Address(special) => write!(f, "it is {special}"),
            Self::Reserved(need) => write!(f, "{need}; {ALLOW}"),
            Self::ReservedPort(need) => write!(f, "{need}, on this node itself; {ALLOW}"),
            Self::NoMark => f.write_str(
                "no firewall mark is left, so clients inside the cluster reach endpoints on this node \
                 only; --local-policy-marks may name more",
            ),
            Self::OwnPort => f.write_str("this program answers there itself (health or metrics)"),
            Self::OverBudget(over) => {
                let who = match over {
                    Over::Service => "the service asks for more memory than one service may have",
                    Over::Namespace => {
                        "the services of this namespace ask for more memory than those of one \
                         namespace may have, and this is one of the newest"
                    }
                    Over::Node => {
                        "all services ask for more memory than this node has for them, and this is \
                         one of the newest of a namespace that asks for much"
                    }
                };
                write!(
                    f,
                    "{who}: give it fewer ports, addresses, source ranges or endpoints, or proxier \
                     more memory (--memory-limit)"
                )
            }
        }
    }
}

/// Why a service cannot have an address at all, if so.
pub(super) fn refuse(address: IpAddr, kind: FrontendKind, settings: &Settings) -> Option<Refusal> {
    if kind == FrontendKind::ExternalIp && !settings.external_ips {
        return Some(Refusal::GateOff);
    }
    let used = match kind {
        FrontendKind::ClusterIp => Use::ClusterIp,
        _ => Use::Frontend,
    };
    if let Some(special) = Special::of(address, used) {
        return Some(Refusal::Address(special));
    }
    // The API server gave it, so it is none that somebody has chosen to do harm.
    if kind == FrontendKind::ClusterIp || settings.host_addresses.contains(&address) {
        return None;
    }
    settings.reserved.get(address).map(|reservation| Refusal::Reserved(reservation.need))
}

/// Why a service cannot have a port of an address of the node, if so.
pub(super) fn refuse_port(
    address: IpAddr,
    (port, protocol): (u16, Protocol),
    kind: FrontendKind,
    settings: &Settings,
) -> Option<Refusal> {
    if kind == FrontendKind::ClusterIp {
        return None;
    }
    let is_ours = |socket: &SocketAddr| {
        socket.port() == port && (socket.ip().is_unspecified() || socket.ip() == address)
    };
    let own = kind == FrontendKind::NodePort || settings.host_addresses.contains(&address);
    if own && protocol == Protocol::Tcp && settings.own_sockets.iter().any(is_ours) {
        return Some(Refusal::OwnPort);
    }
    let reservation = settings.reserved.get(address)?;
    reservation.ports.contains(&port).then_some(Refusal::ReservedPort(reservation.need))
}
