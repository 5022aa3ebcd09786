//! What is done before the cluster is known. A former run, another version or kube-proxy may have bound
//! an address that this node needs to reach the API server: then no list can come, and nothing that
//! waits for lists would ever release it.
//!
//! So whatever is reserved and provably not a cluster IP is released at once. The proof is in the sets,
//! which kube-proxy keeps in the same way: an external or load balancer IP is a member of theirs, a
//! cluster IP of [`SetRole::ClusterIp`]. Nothing else is written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use tokio::time::Instant;

use super::effect::Effect;
use crate::dataplane::sets::{Member, SetId, SetRole};
use crate::dataplane::{
    Answer, Need, Op, OpError, Outcome, Plan, Query, Reserved, SetState, Settings,
};

/// Sets that say that an address is not a cluster IP.
const OUTSIDE: [SetRole; 3] =
    [SetRole::ExternalIp, SetRole::ExternalIpLocal, SetRole::LoadBalancer];
/// After a failure, until it is tried again.
const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);

/// What is known of reserved addresses in the kernel, and what is still to be asked.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    reserved: Reserved,
    queries: VecDeque<Query>,
    /// The first questions have been answered: whether there is anything to do at all.
    looked: bool,
    bound: BTreeSet<IpAddr>,
    servers: BTreeSet<VirtualServerKey>,
    sets: BTreeMap<SetId, SetState>,
    due: Option<Instant>,
    delay: Duration,
    /// What has been released, to be told.
    released: Vec<(IpAddr, Need)>,
}

impl Rescue {
    /// These addresses are reserved now.
    pub(super) fn reserve(&mut self, reserved: Reserved, now: Instant) {
        if self.reserved != reserved {
            *self = Self {
                due: (!reserved.is_empty()).then_some(now),
                released: std::mem::take(&mut self.released),
                reserved,
                ..Self::default()
            };
            self.begin();
        }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What has been released since this was last asked.
    pub(super) fn take_released(&mut self) -> Vec<(IpAddr, Need)> {
        std::mem::take(&mut self.released)
    }

    fn begin(&mut self) {
        self.looked = false;
        (self.bound, self.servers, self.sets) = Default::default();
        let ports = self.reserved.iter().flat_map(|(address, reservation)| {
            let key = move |port: &u16| VirtualServerKey::new(address, *port, Protocol::Tcp);
            reservation.ports.iter().map(key)
        });
        self.queries = [Query::Interface, Query::VirtualServers(ports.collect())].into();
    }

    /// The next thing to do.
    pub(super) fn next(&mut self, settings: &Settings, now: Instant) -> Option<Effect> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        if let Some(query) = self.queries.pop_front() {
            return Some(Effect::Read(query));
        }
        let suspects = self.suspects(settings);
        if !self.looked && !suspects.is_empty() {
            self.looked = true;
            let families: BTreeSet<Family> = suspects.iter().map(|ip| Family::of(*ip)).collect();
            let roles = OUTSIDE.into_iter().chain([SetRole::ClusterIp]);
            let sets = roles.flat_map(|role| families.iter().map(move |family| role.of(*family)));
            self.queries = sets.map(Query::Set).collect();
            self.queries.push_back(Query::List { begin: true });
            return self.queries.pop_front().map(Effect::Read);
        }
        self.due = None;
        let plan = self.plan(&suspects);
        (!plan.is_empty()).then_some(Effect::Write(plan))
    }

    /// Reserved addresses that services have taken. On an address of the node itself, these are ports.
    fn suspects(&self, settings: &Settings) -> BTreeSet<IpAddr> {
        let served = self.servers.iter().filter_map(address);
        let taken = self.bound.iter().copied().chain(served);
        taken
            .filter(|ip| self.reserved.get(*ip).is_some())
            .filter(|ip| settings.families.contains(&Family::of(*ip)))
            .collect()
    }

    fn plan(&self, suspects: &BTreeSet<IpAddr>) -> Plan {
        let release = suspects.iter().filter(|address| self.may_be_released(**address));
        let release: BTreeSet<IpAddr> = release.copied().collect();
        let unbind = release.intersection(&self.bound).map(|address| Op::Unbind(*address));
        let servers = self.servers.iter().filter(|key| {
            address(key).is_some_and(|ip| {
                // On an address of the node itself, other ports do no harm.
                release.contains(&ip) && (self.bound.contains(&ip) || self.needs(key))
            })
        });
        let remove = servers.map(|key| Op::RemoveVirtualServer(*key));
        Plan { ops: unbind.chain(remove).collect(), ..Plan::default() }
    }

    fn needs(&self, key: &VirtualServerKey) -> bool {
        let VirtualServerKey::Address { address, port, .. } = key else { return false };
        self.reserved.get(*address).is_some_and(|known| known.ports.contains(port))
    }

    /// A cluster IP must stay: a pod, or a node whose kubeconfig names it, reaches the API server by it.
    fn may_be_released(&self, address: IpAddr) -> bool {
        let family = Family::of(address);
        let members = |role: SetRole| {
            self.sets.get(&role.of(family)).into_iter().flat_map(|set| &set.members)
        };
        let has = |role| {
            members(role).any(|member| matches!(member, Member::IpPort(ip, ..) if *ip == address))
        };
        if has(SetRole::ClusterIp) {
            return false;
        }
        // Sets that somebody has emptied prove nothing; but an address without any virtual server
        // leads nowhere, and is of no use to anybody.
        let credible = members(SetRole::ClusterIp).next().is_some();
        let served = self.servers.iter().any(|key| self::address(key) == Some(address));
        (credible && OUTSIDE.into_iter().any(has)) || !served
    }

    /// Takes in the answer to a question.
    pub(super) fn answered(
        &mut self,
        answer: Result<Answer, OpError>,
        now: Instant,
    ) -> Result<(), OpError> {
        match answer {
            Ok(Answer::Interface(found)) => self.bound = found.addresses,
            Ok(Answer::Set(set, found)) => self.sets.extend(found.map(|found| (set, found))),
            Ok(Answer::VirtualServers(found)) => {
                for (key, found) in found {
                    match found {
                        Ok(Some(_)) => _ = self.servers.insert(key),
                        Ok(None) => {}
                        Err(error) => return self.failed(error, now),
                    }
                }
            }
            Ok(Answer::List(found)) if !found.is_empty() => {
                let reserved = |key: &VirtualServerKey| {
                    address(key).is_some_and(|ip| self.reserved.get(ip).is_some())
                };
                let keys = found.into_iter().map(|(key, _)| key).filter(reserved);
                let keys: Vec<_> = keys.collect();
                self.servers.extend(keys);
                self.queries.push_back(Query::List { begin: false });
            }
            Ok(_) => {}
            Err(error) => return self.failed(error, now),
        }
        Ok(())
    }

    fn failed(&mut self, error: OpError, now: Instant) -> Result<(), OpError> {
        self.delay = (self.delay * 2).clamp(FIRST, MOST);
        self.due = Some(now + self.delay);
        self.begin();
        Err(error)
    }

    /// Takes in what became of a plan.
    pub(super) fn written(&mut self, plan: &Plan, outcome: &Outcome, now: Instant) {
        let done = plan.ops.iter().enumerate().filter(|(at, _)| !outcome.missed.contains_key(at));
        let addresses: BTreeSet<IpAddr> = done
            .filter_map(|(_, op)| match op {
                Op::Unbind(ip) => Some(*ip),
                Op::RemoveVirtualServer(key) => address(key),
                _ => None,
            })
            .collect();
        let need = |ip: IpAddr| Some((ip, self.reserved.get(ip)?.need));
        self.released.extend(addresses.into_iter().filter_map(need));
        if !outcome.missed.is_empty() {
            self.delay = (self.delay * 2).clamp(FIRST, MOST);
            self.due = Some(now + self.delay);
            self.begin();
        }
    }
}

fn address(key: &VirtualServerKey) -> Option<IpAddr> {
    match key {
        VirtualServerKey::Address { address, .. } => Some(*address),
        VirtualServerKey::FirewallMark { .. } => None,
    }
}
