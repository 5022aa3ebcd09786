//! What has to be in place before something may be reached: fail closed.
//!
//! | what | needs |
//! | --- | --- |
//! | an address on `kube-ipvs0` | our rules, its member in `KUBE-IPVS-IPS`, one of its virtual servers |
//! | real servers of a virtual server with source ranges | its member in `KUBE-LOAD-BALANCER-FW`, and none that lets others through |
//! | real servers of a virtual server that the node may not use | the rule that drops |
//!
//! A virtual server whose protection is known to be missing, and cannot be put in place now, has no
//! real servers: refusing everybody is better than letting in those who are shut out.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use netlink_ipvs::{Family, VirtualServerKey};

use super::{Needs, Planner, Planning, by_port, first_key};
use crate::dataplane::sets::{Member, SetId, SetRole};
use crate::dataplane::{Subject, Target};

/// Sets whose members decide who may reach something.
pub(super) const PROTECTING: [SetRole; 4] = [
    SetRole::LoadBalancerFw,
    SetRole::LoadBalancerSourceCidr,
    SetRole::LoadBalancerSourceIp,
    SetRole::IpvsIps,
];

/// How the protection of a virtual server stands.
pub(super) enum Protection {
    /// It needs none, or has it.
    InPlace,
    /// It will have it once these operations of the plan took place.
    Planned(Vec<Target>),
    /// Nobody knows.
    Unknown(Subject),
    /// It lacks it.
    Missing(Subject),
}

impl Planner<'_> {
    pub(super) fn protection(&self, key: &VirtualServerKey) -> Protection {
        let mut planned = Vec::new();
        let mut unknown = None;
        let drop = self.lacks_drop(key).then_some(Target::Firewall(key.family()));
        for target in self.wrong_members(key).into_iter().chain(drop) {
            if self.planned.contains(&target) {
                planned.push(target);
                continue;
            }
            // Until ours are there, rules of others protect what is there.
            let by_others = matches!(target, Target::Firewall(of) if self.rules_come_last(of));
            match (self.from.waits)(&target) {
                Some(part @ Subject::Part(_)) => unknown = Some(part),
                waits if by_others => unknown = Some(waits.unwrap_or(Subject::Target(target))),
                waits => return Protection::Missing(waits.unwrap_or(Subject::Target(target))),
            }
        }
        match (unknown, planned.is_empty()) {
            (Some(part), _) => Protection::Unknown(part),
            (None, false) => Protection::Planned(planned),
            (None, true) => Protection::InPlace,
        }
    }

    /// The members by which source ranges hold for a virtual server, those that are not as wanted.
    fn wrong_members(&self, key: &VirtualServerKey) -> Vec<Target> {
        let Planning { desired, believed, .. } = self.from;
        let &VirtualServerKey::Address { address, port, protocol } = key else { return Vec::new() };
        let closing = SetRole::LoadBalancerFw.of(key.family());
        let member = Member::IpPort(address, protocol, port);
        if !desired.has_member(closing, &member) {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        if !believed.has_member(closing, &member) {
            wrong.push(Target::Member(closing, member));
        }
        let any = IpAddr::from([0, 0, 0, 0]);
        for (role, lowest) in [
            (
                SetRole::LoadBalancerSourceCidr,
                Member::IpPortNet(address, protocol, port, IpNet::V4(Ipv4Net::default())),
            ),
            (SetRole::LoadBalancerSourceIp, Member::IpPortIp(address, protocol, port, any)),
        ] {
            let set = role.of(key.family());
            let known = believed.sets.get(&set).into_iter();
            let own = known.flat_map(|known| known.members.range(lowest..));
            let own = own.take_while(|member| by_port(member) == Some(*key));
            let surplus = own.filter(|member| !desired.has_member(set, member));
            wrong.extend(surplus.map(|member| Target::Member(set, *member)));
        }
        wrong
    }

    /// Whether the rule is missing that keeps the node from a virtual server.
    fn lacks_drop(&self, key: &VirtualServerKey) -> bool {
        let Planning { desired, believed, .. } = self.from;
        let family = key.family();
        let wanted = desired.firewall.get(&family).filter(|rules| rules.drops(key));
        // While rules of iptables mode take the packets, ours come last.
        let Some(wanted) = wanted.filter(|_| !self.is_taken_over(family)) else { return false };
        let there = believed.firewall.get(&family);
        !there.is_some_and(|there| there.drops(key) && there.has_base_of(wanted))
    }

    /// The rules of a family, and whether they are there, whichever drops they have.
    pub(super) fn rules_there(&self, family: Family) -> (Target, bool) {
        let Planning { desired, believed, .. } = self.from;
        let there = match (desired.firewall.get(&family), believed.firewall.get(&family)) {
            (Some(wanted), Some(there)) => there.has_base_of(wanted),
            (Some(_), None) => false,
            (None, _) => true,
        };
        (Target::Firewall(family), there)
    }

    /// What a bind needs of this plan; or what it waits for, if that is not part of it.
    pub(super) fn bind_needs(&self, address: IpAddr) -> Result<Needs, Subject> {
        let Planning { desired, believed, waits, .. } = self.from;
        let family = Family::of(address);
        let (rules, there) = self.rules_there(family);
        let member = Target::ipvs_ip(address);
        let (set, ip) = (SetRole::IpvsIps.of(family), Member::Ip(address));
        let closed = believed.has_member(set, &ip) || !desired.has_member(set, &ip);
        let there = there || self.is_taken_over(family);
        let mut needs = self.needs([(rules, there), (member, closed)])?;
        let served = |key: &&VirtualServerKey| matches!(key, VirtualServerKey::Address { address: of, .. } if *of == address);
        let from = desired.virtual_servers.range(first_key(address)..);
        let mut keys = from.map(|(key, _)| key).take_while(served).peekable();
        let first = keys.peek().map(|key| Target::VirtualServer(**key));
        let mut any = Vec::new();
        for key in keys {
            if believed.virtual_servers.contains_key(key) {
                return Ok(needs);
            }
            let target = Target::VirtualServer(*key);
            any.extend(self.planned.contains(&target).then_some(target));
        }
        match first {
            Some(target) if any.is_empty() => {
                Err(waits(&target).unwrap_or(Subject::Target(target)))
            }
            _ => {
                needs.any = any.into();
                Ok(needs)
            }
        }
    }

    /// Whether a member lets somebody through an address that stays closed to others.
    pub(super) fn narrows(&self, set: SetId, member: &Member) -> bool {
        let Planning { desired, .. } = self.from;
        if !matches!(set.role, SetRole::LoadBalancerSourceCidr | SetRole::LoadBalancerSourceIp) {
            return false;
        }
        let closing = SetRole::LoadBalancerFw.of(set.family);
        by_port(member).is_some_and(|key| match key {
            VirtualServerKey::Address { address, port, protocol } => {
                desired.has_member(closing, &Member::IpPort(address, protocol, port))
            }
            VirtualServerKey::FirewallMark { .. } => false,
        })
    }
}

/// What has to be gone before this member may go, since the member closes it.
pub(super) fn closed_by(set: SetId, member: &Member) -> Option<Target> {
    match (set.role, member) {
        (SetRole::IpvsIps, Member::Ip(address)) => Some(Target::Address(*address)),
        (SetRole::LoadBalancerFw, member) => by_port(member).map(Target::VirtualServer),
        _ => None,
    }
}

/// The virtual server whose protection a target is part of, if it is of one.
pub(crate) fn protects(target: &Target) -> Option<VirtualServerKey> {
    match target {
        Target::Member(set, member) if PROTECTING.contains(&set.role) => by_port(member),
        _ => None,
    }
}
