//! What all services together ask for: claims by owner, and who wins where two want the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map, hash_map};
use std::net::IpAddr;
use std::sync::Arc;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::firewall::{Backend, Ruleset};
use super::sets::{SetId, SetRole};
use super::split::LocalPolicy;
use super::sysctls::Sysctl;
use super::{Contribution, Frontend, SetState, Settings, State, Target};
use crate::cluster::ObjectKey;
use crate::text;

/// The service behind a claim, in the order in which claims win: one that the API server has
/// allocated, then the oldest, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// An external IP or a VIP: whoever may write a Service may claim any address so. It must not
    /// take a cluster IP or a node port from the service that was given it.
    pub written: bool,
    /// `metadata.creationTimestamp` as seconds since 1970.
    pub created: i64,
    /// The service.
    pub service: ObjectKey,
    /// Where it is among the frontends of the service.
    at: u32,
}

/// A virtual server that more than one service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What they ask for.
    pub key: VirtualServerKey,
    /// Who has it.
    pub winner: ObjectKey,
    /// Who does not: the first of them, in the order in which they would win.
    pub losers: Vec<ObjectKey>,
    /// How many more there are.
    pub more: usize,
}

impl Conflict {
    /// Losers that are named.
    const NAMED: usize = 10;

    /// `a/b, c/d and 3 more`.
    pub fn losers_text(&self) -> String {
        text::and_more(&text::few(&self.losers, Self::NAMED), self.more)
    }
}

/// The desired state, kept up to date by difference.
#[derive(Debug, Default)]
pub struct Desired {
    state: State,
    /// With the time of creation.
    contributions: HashMap<ObjectKey, (i64, Arc<Contribution>)>,
    /// Claims beyond the first, in winning order; a key that one service claims is not here.
    contested: HashMap<VirtualServerKey, BTreeSet<Owner>>,
    claims: HashMap<VirtualServerKey, Owner>,
    drops: BTreeSet<VirtualServerKey>,
    /// How often something is asked for beyond the first time.
    repeated: HashMap<Target, u32>,
}

impl Desired {
    /// A desired state in which the sets exist, and nothing else.
    pub fn new(settings: &Settings) -> Self {
        let mut desired = Self::default();
        desired.want_sets(settings, &mut BTreeSet::new());
        desired
    }

    /// Adds the sets that are not there yet. None is ever removed: rules may refer to it.
    pub fn want_sets(&mut self, settings: &Settings, touched: &mut BTreeSet<Target>) {
        let split = settings.local_policy == LocalPolicy::Split;
        let capacity = match settings.backend {
            Backend::Iptables => SetId::DEFAULT_CAPACITY,
            Backend::Nftables => SetState::UNLIMITED,
        };
        let own = SetId::all().filter(|set| settings.families.contains(&set.family));
        for set in own.filter(|set| split || !set.role.is_of_split()) {
            if let btree_map::Entry::Vacant(place) = self.state.sets.entry(set) {
                place.insert(SetState { capacity, ..SetState::default() });
                touched.insert(Target::Set(set));
            }
        }
    }

    /// Makes room for so many more services.
    pub fn reserve(&mut self, services: usize) {
        self.contributions.reserve(services);
        self.claims.reserve(services);
    }

    /// Packs the trees, which are two thirds full after much was put in.
    pub fn pack(&mut self) {
        let State { virtual_servers, interface, sets, .. } = &mut self.state;
        *virtual_servers = std::mem::take(virtual_servers).into_iter().collect();
        interface.addresses = std::mem::take(&mut interface.addresses).into_iter().collect();
        for set in sets.values_mut() {
            set.members = std::mem::take(&mut set.members).into_iter().collect();
        }
    }

    /// Everything that should be there.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Virtual servers that the node itself may not use.
    pub fn drops(&self) -> &BTreeSet<VirtualServerKey> {
        &self.drops
    }

    /// Whether any service has an external IP.
    pub fn has_external_ips(&self) -> bool {
        let roles = [SetRole::ExternalIp, SetRole::ExternalIpLocal];
        let sets = self.state.sets.iter().filter(|(set, _)| roles.contains(&set.role));
        sets.into_iter().any(|(_, content)| !content.members.is_empty())
    }

    /// What a service asks for.
    pub fn contribution(&self, service: &ObjectKey) -> Option<&Arc<Contribution>> {
        self.contributions.get(service).map(|(_, contribution)| contribution)
    }

    /// Every service that asks for something, in no order.
    pub fn contributions(&self) -> impl Iterator<Item = (&ObjectKey, &Contribution)> {
        self.contributions.iter().map(|(key, (_, contribution))| (key, &**contribution))
    }

    /// The service that has a virtual server, and the frontend that it is.
    pub fn owner(&self, key: &VirtualServerKey) -> Option<(&ObjectKey, &Frontend)> {
        let Owner { service, at, .. } = self.claims.get(key)?;
        let (_, contribution) = self.contributions.get(service)?;
        Some((service, contribution.frontends.get(*at as usize)?))
    }

    /// The protocol of a virtual server's clients; of one by firewall mark that of its service port.
    pub fn protocol(&self, key: &VirtualServerKey) -> Option<Protocol> {
        let of = |key: &VirtualServerKey| match key {
            VirtualServerKey::Address { protocol, .. } => Some(*protocol),
            VirtualServerKey::FirewallMark { .. } => None,
        };
        of(key).or_else(|| {
            let (service, frontend) = self.owner(key)?;
            let all = self.contribution(service)?.frontends.iter();
            all.filter(|other| other.port == frontend.port).find_map(|other| of(&other.key))
        })
    }

    /// The virtual servers of an address, in order.
    pub fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &VirtualServerKey> {
        let first = VirtualServerKey::new(address, 0, Protocol::Tcp);
        let from = self.state.virtual_servers.range(first..);
        from.map(|(key, _)| key).take_while(
            move |key| matches!(key, VirtualServerKey::Address { address: of, .. } if *of == address),
        )
    }

    /// Virtual servers that more than one service asks for, in order.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> =
            self.contested.keys().filter_map(|key| self.conflict(key)).collect();
        conflicts.sort_unstable_by_key(|conflict| conflict.key);
        conflicts
    }

    /// The conflict over one virtual server, if there is one.
    pub fn conflict(&self, key: &VirtualServerKey) -> Option<Conflict> {
        let losers = self.contested.get(key)?;
        Some(Conflict {
            key: *key,
            winner: self.claims.get(key)?.service.clone(),
            losers: losers.iter().take(Conflict::NAMED).map(|it| it.service.clone()).collect(),
            more: losers.len().saturating_sub(Conflict::NAMED),
        })
    }

    /// Whether more than one service asks for a virtual server.
    pub fn is_contested(&self, key: &VirtualServerKey) -> bool {
        self.contested.contains_key(key)
    }

    /// Puts the rules of a family in place of what was wanted before.
    pub fn set_firewall(&mut self, family: Family, rules: Ruleset, touched: &mut BTreeSet<Target>) {
        if self.state.firewall.get(&family) != Some(&rules) {
            self.state.firewall.insert(family, rules);
            touched.insert(Target::Firewall(family));
        }
    }

    /// Puts kernel settings in place of those that were wanted before.
    pub fn set_sysctls(&mut self, sysctls: &[Sysctl], touched: &mut BTreeSet<Target>) {
        let value = |setting: &Sysctl| (setting.path, Arc::from(setting.wanted.value()));
        self.state.sysctls = sysctls.iter().map(value).collect();
        touched.extend(sysctls.iter().map(|setting| Target::Sysctl(setting.path)));
    }

    /// Replaces what a service asks for; `None` is a service that is gone. Adds what has changed
    /// to `touched`; whether [`Self::drops`] changed is the result.
    pub fn set(
        &mut self,
        service: &ObjectKey,
        contribution: Option<(i64, Contribution)>,
        touched: &mut BTreeSet<Target>,
    ) -> bool {
        let shared = contribution.map(|(created, new)| (created, Arc::new(new)));
        self.set_shared(service, shared, touched)
    }

    /// As [`Self::set`], with what others have too.
    pub fn set_shared(
        &mut self,
        service: &ObjectKey,
        contribution: Option<(i64, Arc<Contribution>)>,
        touched: &mut BTreeSet<Target>,
    ) -> bool {
        let known = self.contributions.get(service);
        if known == contribution.as_ref() {
            return false;
        }
        let created = contribution.as_ref().map(|(created, _)| *created);
        let old = known.map(|(_, contribution)| Arc::clone(contribution));
        let new = contribution.as_ref().map(|(_, contribution)| Arc::clone(contribution));
        let (before, after) = (places(old.as_deref()), places(new.as_deref()));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
        let had: Vec<_> =
            keys.iter().map(|key| self.winner(key, service, (&before, old.as_ref()))).collect();

        let old_created = match contribution {
            Some(new) => self.contributions.insert(service.clone(), new),
            None => self.contributions.remove(service),
        };
        let old_created = old_created.map(|(created, _)| created);
        let owner = |created, of: &Contribution, at: u32| Owner {
            written: of.frontends.get(at as usize).is_some_and(|it| it.kind.is_written()),
            created,
            service: service.clone(),
            at,
        };
        if let (Some(created), Some(old)) = (old_created, &old) {
            for (key, at) in &before {
                self.unclaim(key, &owner(created, old, *at));
            }
        }
        if let (Some(created), Some(new)) = (created, &new) {
            for (key, at) in &after {
                self.claim(key, owner(created, new, *at));
            }
        }
        let winners: Vec<(Option<Place>, Option<Place>)> = keys
            .iter()
            .zip(had)
            .map(|(key, had)| (had, self.winner(key, service, (&after, new.as_ref()))))
            .filter(|(had, has)| frontend(had.as_ref()) != frontend(has.as_ref()))
            .collect();

        // First all that is new, then all that is gone: what both ask for is never let go, and not
        // touched.
        let mut drops_changed = false;
        for frontend in winners.iter().filter_map(|(_, has)| frontend(has.as_ref())) {
            drops_changed |= self.put(frontend, touched);
        }
        for (set, member) in new.iter().flat_map(|contribution| &contribution.members) {
            self.add(Target::Member(*set, *member), touched);
        }
        for (had, has) in &winners {
            if let Some(had) = frontend(had.as_ref()) {
                drops_changed |= self.take(had, frontend(has.as_ref()), touched);
            }
        }
        for (set, member) in old.iter().flat_map(|contribution| &contribution.members) {
            self.remove(Target::Member(*set, *member), touched);
        }
        drops_changed
    }

    /// Where the frontend is that has `key` now; those of `service` are `own`.
    fn winner(
        &self,
        key: &VirtualServerKey,
        service: &ObjectKey,
        (own, contribution): (&BTreeMap<VirtualServerKey, u32>, Option<&Arc<Contribution>>),
    ) -> Option<Place> {
        let winner = self.claims.get(key)?;
        if winner.service == *service {
            return Some((Arc::clone(contribution?), *own.get(key)?));
        }
        let (_, contribution) = self.contributions.get(&winner.service)?;
        Some((Arc::clone(contribution), winner.at))
    }

    fn claim(&mut self, key: &VirtualServerKey, owner: Owner) {
        let winner = match self.claims.entry(*key) {
            hash_map::Entry::Occupied(winner) => winner.into_mut(),
            hash_map::Entry::Vacant(free) => {
                free.insert(owner);
                return;
            }
        };
        let mut loser = owner;
        if loser < *winner {
            std::mem::swap(&mut loser, winner);
        }
        self.contested.entry(*key).or_default().insert(loser);
    }

    fn unclaim(&mut self, key: &VirtualServerKey, owner: &Owner) {
        let losers = self.contested.get_mut(key);
        if self.claims.get(key) == Some(owner) {
            match losers.and_then(BTreeSet::pop_first) {
                Some(next) => _ = self.claims.insert(*key, next),
                None => _ = self.claims.remove(key),
            }
        } else if let Some(losers) = losers {
            losers.remove(owner);
        }
        if self.contested.get(key).is_some_and(BTreeSet::is_empty) {
            self.contested.remove(key);
        }
    }

    /// Puts in a frontend and what goes with it, beside what it replaces. Whether the drops changed
    /// is the result.
    fn put(&mut self, frontend: &Frontend, touched: &mut BTreeSet<Target>) -> bool {
        let place = self.state.virtual_servers.entry(frontend.key);
        if !matches!(&place, btree_map::Entry::Occupied(known) if *known.get() == frontend.server) {
            touched.insert(Target::VirtualServer(frontend.key));
            place.insert_entry(Arc::clone(&frontend.server));
        }
        for target in frontend.targets() {
            self.add(target, touched);
        }
        frontend.drop_from_node && self.drops.insert(frontend.key)
    }

    /// Takes away what went with a frontend, and its virtual server if nothing replaces it.
    fn take(
        &mut self,
        frontend: &Frontend,
        replaced_by: Option<&Frontend>,
        touched: &mut BTreeSet<Target>,
    ) -> bool {
        for target in frontend.targets() {
            self.remove(target, touched);
        }
        if replaced_by.is_none() {
            self.state.virtual_servers.remove(&frontend.key);
            touched.insert(Target::VirtualServer(frontend.key));
        }
        let still_dropped = replaced_by.is_some_and(|frontend| frontend.drop_from_node);
        frontend.drop_from_node && !still_dropped && self.drops.remove(&frontend.key)
    }

    fn add(&mut self, target: Target, touched: &mut BTreeSet<Target>) {
        let new = match target {
            Target::Member(set, member) => {
                let state = self.state.sets.entry(set).or_default();
                let new = state.members.insert(member);
                if new && state.members.len() > state.capacity as usize {
                    state.capacity = state.capacity.saturating_mul(2);
                    touched.insert(Target::Set(set));
                }
                new
            }
            Target::Address(address) => self.state.interface.addresses.insert(address),
            _ => return,
        };
        if !new {
            *self.repeated.entry(target).or_default() += 1;
            return;
        }
        touched.insert(target);
        if let Target::Address(address) = target {
            self.add(Target::ipvs_ip(address), touched);
        }
    }

    fn remove(&mut self, target: Target, touched: &mut BTreeSet<Target>) {
        if let Some(count) = self.repeated.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.repeated.remove(&target);
            }
            return;
        }
        match target {
            Target::Member(set, member) => {
                if let Some(state) = self.state.sets.get_mut(&set) {
                    state.members.remove(&member);
                }
            }
            Target::Address(address) => {
                self.state.interface.addresses.remove(&address);
                self.remove(Target::ipvs_ip(address), touched);
            }
            _ => return,
        }
        touched.insert(target);
    }
}

/// A frontend of a contribution, by its number.
type Place = (Arc<Contribution>, u32);

fn frontend(place: Option<&Place>) -> Option<&Frontend> {
    let (contribution, at) = place?;
    contribution.frontends.get(*at as usize)
}

/// The numbers of its frontends.
fn places(of: Option<&Contribution>) -> BTreeMap<VirtualServerKey, u32> {
    let frontends = of.into_iter().flat_map(|contribution| &contribution.frontends);
    frontends.zip(0..).map(|(frontend, at)| (frontend.key, at)).collect()
}

#[cfg(test)]
mod tests;
