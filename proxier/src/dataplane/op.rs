//! Operations on the kernel, and what each of them works on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, RealServer, RealServerKey, VirtualServerConfig, VirtualServerKey};

use super::firewall::Ruleset;
use super::leftovers::Leftover;
use super::sets::{ForeignMember, Member, SetId, SetRole};
use super::{ForeignAddress, RealServers};

/// The key of one thing in a [`State`](super::State). What others depend on comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A kernel setting, by the path of its file.
    Sysctl(&'static str),
    /// Whether `kube-ipvs0` is up.
    Link,
    /// A set as such.
    Set(SetId),
    /// The firewall rules of a family.
    Firewall(Family),
    /// A member of a set.
    Member(SetId, Member),
    /// Whatever members of a set are not ours.
    ForeignMembers(SetId),
    /// How long the members of a set stay that go unless they are renewed.
    Expiry(SetId),
    /// A virtual server. In a set of touched targets it stands for its real servers too.
    VirtualServer(VirtualServerKey),
    /// A real server of a virtual server.
    RealServer(VirtualServerKey, RealServerKey),
    /// UDP flows through a virtual server that lead to none of its real servers.
    Flows(VirtualServerKey),
    /// A host address on `kube-ipvs0`.
    Address(IpAddr),
    /// An address on `kube-ipvs0` that is not ours.
    ForeignAddress(ForeignAddress),
    /// What another mode of kube-proxy has left.
    Leftover(Leftover),
}

/// A part of the kernel that is read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The kernel settings.
    Sysctls,
    /// `kube-ipvs0`: its flags and addresses.
    Interface,
    /// A set with its members.
    Set(SetId),
    /// The firewall rules of a family, and what other modes have left there.
    Rules(Family),
    /// Which virtual servers there are.
    VirtualServers,
    /// One virtual server with its real servers.
    VirtualServer(VirtualServerKey),
}

/// What can fail, and is tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Reading a part.
    Part(Part),
    /// Bringing a target to what is wanted.
    Target(Target),
}

impl Target {
    /// The member by which the firewall knows an address on `kube-ipvs0`.
    pub(crate) fn ipvs_ip(address: IpAddr) -> Self {
        Self::Member(SetRole::IpvsIps.of(Family::of(address)), Member::Ip(address))
    }

    /// Where it is read.
    pub fn part(&self) -> Part {
        match self {
            Self::Sysctl(_) => Part::Sysctls,
            Self::Link | Self::Address(_) | Self::ForeignAddress(_) => Part::Interface,
            Self::Set(set)
            | Self::Member(set, _)
            | Self::ForeignMembers(set)
            | Self::Expiry(set) => Part::Set(*set),
            Self::Firewall(family) => Part::Rules(*family),
            Self::Leftover(leftover) => Part::Rules(leftover.family()),
            Self::VirtualServer(key) | Self::RealServer(key, _) | Self::Flows(key) => {
                Part::VirtualServer(*key)
            }
        }
    }

    /// The address of a service that it is about, if it is about one.
    pub fn address(&self) -> Option<IpAddr> {
        match *self {
            Self::Address(address) => Some(address),
            Self::Member(_, member) => member.address(),
            _ => match self.virtual_server()? {
                VirtualServerKey::Address { address, .. } => Some(address),
                VirtualServerKey::FirewallMark { .. } => None,
            },
        }
    }

    /// The virtual server that it belongs to.
    pub fn virtual_server(&self) -> Option<VirtualServerKey> {
        match self {
            Self::VirtualServer(key) | Self::RealServer(key, _) | Self::Flows(key) => Some(*key),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(path) => write!(f, "setting {}", super::sysctls::name(path)),
            Self::Link => write!(f, "link {}", super::INTERFACE),
            Self::Set(set) => write!(f, "set {set}"),
            Self::Firewall(family) => write!(f, "{family} firewall rules"),
            Self::Member(set, member) => write!(f, "{member} in set {set}"),
            Self::ForeignMembers(set) => write!(f, "foreign members of set {set}"),
            Self::Expiry(set) => write!(f, "expiry of the members of set {set}"),
            Self::VirtualServer(key) => write!(f, "virtual server {key}"),
            Self::RealServer(key, server) => write!(f, "real server {server} of {key}"),
            Self::Flows(key) => write!(f, "UDP flows of {key}"),
            Self::Address(address) => write!(f, "address {address}"),
            Self::ForeignAddress(foreign) => write!(f, "address {foreign} on {}", super::INTERFACE),
            Self::Leftover(leftover) => leftover.fmt(f),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctls => f.write_str("the kernel settings"),
            Self::Interface => f.write_str(super::INTERFACE),
            Self::Set(set) => write!(f, "set {set}"),
            Self::Rules(family) => write!(f, "{family} firewall rules"),
            Self::VirtualServers => f.write_str("the list of virtual servers"),
            Self::VirtualServer(key) => write!(f, "virtual server {key}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part) => write!(f, "read {part}"),
            Self::Target(target) => target.fmt(f),
        }
    }
}

/// One operation on the kernel. Each is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write a kernel setting.
    SetSysctl(&'static str, Arc<str>),
    /// Take `kube-ipvs0` down.
    TakeLinkDown,
    /// Create an empty set of this capacity.
    CreateSet(SetId, u32),
    /// Give a set more capacity without a moment in which it lacks members.
    GrowSet(SetId, u32),
    /// Put the rules of a family in place.
    InstallFirewall(Family, Ruleset),
    /// Add a member.
    AddMember(SetId, Member),
    /// Add a virtual server.
    AddVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// Change a virtual server in place; its connections and real servers stay.
    SetVirtualServer(VirtualServerKey, VirtualServerConfig),
    /// Add a real server.
    AddRealServer(VirtualServerKey, RealServer),
    /// Change a real server in place.
    SetRealServer(VirtualServerKey, RealServer),
    /// Add a host address to `kube-ipvs0`.
    Bind(IpAddr),
    /// Remove a host address from `kube-ipvs0`.
    Unbind(IpAddr),
    /// Remove an address that is not ours from `kube-ipvs0`.
    RemoveForeignAddress(ForeignAddress),
    /// Remove a real server.
    RemoveRealServer(VirtualServerKey, RealServerKey),
    /// Remove a virtual server with its real servers.
    RemoveVirtualServer(VirtualServerKey),
    /// Remove a member.
    RemoveMember(SetId, Member),
    /// Remove members that are not ours.
    RemoveForeignMembers(SetId, Arc<[ForeignMember]>),
    /// Let these members of a set stay for another while ([`EXPIRY`](super::split::EXPIRY)); what has
    /// gone of them is added again.
    RenewMembers(SetId, Arc<[Member]>),
    /// Delete the UDP flows through a virtual server that lead to none of these real servers.
    ForgetFlows(VirtualServerKey, RealServers),
    /// Remove what another mode of kube-proxy has left.
    RemoveLeftover(Leftover),
}

impl Op {
    /// What it works on.
    pub fn target(&self) -> Target {
        match self {
            Self::SetSysctl(path, _) => Target::Sysctl(path),
            Self::TakeLinkDown => Target::Link,
            Self::CreateSet(set, _) | Self::GrowSet(set, _) => Target::Set(*set),
            Self::InstallFirewall(family, _) => Target::Firewall(*family),
            Self::AddMember(set, member) | Self::RemoveMember(set, member) => {
                Target::Member(*set, *member)
            }
            Self::RemoveForeignMembers(set, _) => Target::ForeignMembers(*set),
            Self::RenewMembers(set, _) => Target::Expiry(*set),
            Self::AddVirtualServer(key, _)
            | Self::SetVirtualServer(key, _)
            | Self::RemoveVirtualServer(key) => Target::VirtualServer(*key),
            Self::AddRealServer(key, server) | Self::SetRealServer(key, server) => {
                Target::RealServer(*key, server.key)
            }
            Self::RemoveRealServer(key, server) => Target::RealServer(*key, *server),
            Self::ForgetFlows(key, _) => Target::Flows(*key),
            Self::Bind(address) | Self::Unbind(address) => Target::Address(*address),
            Self::RemoveForeignAddress(foreign) => Target::ForeignAddress(*foreign),
            Self::RemoveLeftover(leftover) => Target::Leftover(*leftover),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetSysctl(path, value) => {
                write!(f, "set {} to {value}", super::sysctls::name(path))
            }
            Self::TakeLinkDown => write!(f, "take {} down", super::INTERFACE),
            Self::CreateSet(set, _) => write!(f, "create set {set}"),
            Self::GrowSet(set, capacity) => write!(f, "grow set {set} to {capacity} members"),
            Self::InstallFirewall(family, _) => write!(f, "install {family} firewall rules"),
            Self::AddMember(set, member) => write!(f, "add {member} to set {set}"),
            Self::AddVirtualServer(key, config) => {
                write!(f, "add virtual server {key} {}", config.scheduler)
            }
            Self::SetVirtualServer(key, config) => {
                write!(f, "change virtual server {key} to {}", config.scheduler)
            }
            Self::AddRealServer(key, server) => {
                write!(
                    f,
                    "add real server {} to {key}, weight {}",
                    server.key, server.config.weight
                )
            }
            Self::SetRealServer(key, server) => {
                write!(
                    f,
                    "set real server {} of {key} to weight {}",
                    server.key, server.config.weight
                )
            }
            Self::Bind(address) => write!(f, "bind {address}"),
            Self::Unbind(address) => write!(f, "unbind {address}"),
            Self::RemoveForeignAddress(foreign) => {
                write!(f, "remove address {foreign} from {}", super::INTERFACE)
            }
            Self::RemoveRealServer(key, server) => {
                write!(f, "remove real server {server} of {key}")
            }
            Self::RemoveVirtualServer(key) => write!(f, "remove virtual server {key}"),
            Self::RemoveMember(set, member) => write!(f, "remove {member} from set {set}"),
            Self::RemoveForeignMembers(set, members) => {
                let texts: Vec<_> = members.iter().map(ToString::to_string).collect();
                write!(f, "remove foreign members from set {set}: {}", texts.join(", "))
            }
            Self::RenewMembers(set, members) => {
                write!(f, "renew {} members of set {set}", members.len())
            }
            Self::ForgetFlows(key, _) => write!(f, "delete stale UDP flows of {key}"),
            Self::RemoveLeftover(leftover) => write!(f, "remove {leftover}"),
        }
    }
}
