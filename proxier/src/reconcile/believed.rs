//! What the kernel is believed to hold, and of which parts nobody knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use netlink_ipvs::{Family, VirtualServerKey};

use crate::dataplane::leftovers::Leftover;
use crate::dataplane::sets::SetId;
use crate::dataplane::{Part, Query, RulesState, Settings, State, Target, VirtualServerState};

/// Virtual servers that are read at once.
const AT_ONCE: usize = 64;

/// The state that the kernel is believed to be in.
#[derive(Debug, Default)]
pub(super) struct Believed {
    state: State,
    real_servers: usize,
    /// Parts of which nobody knows what they hold.
    unknown: BTreeSet<Part>,
    /// Parts that are to be read now.
    unread: BTreeSet<Part>,
}

impl Believed {
    /// Nothing is known of what these settings are about.
    pub(super) fn unread(settings: &Settings) -> Self {
        let families = &settings.families;
        let sets = SetId::all().filter(|set| families.contains(&set.family)).map(Part::Set);
        let rules = families.iter().map(|family| Part::Rules(*family));
        let sysctls = (!settings.sysctls.is_empty()).then_some(Part::Sysctls);
        let others = [Part::Interface, Part::VirtualServers].into_iter().chain(sysctls);
        Self { unknown: sets.chain(rules).chain(others).collect(), ..Self::default() }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Changes anything but virtual servers.
    pub(super) fn edit<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state)
    }

    /// Puts a virtual server in place of what was believed.
    pub(super) fn put(&mut self, key: VirtualServerKey, server: Option<Arc<VirtualServerState>>) {
        let count = |server: &Arc<VirtualServerState>| server.real_servers.len();
        self.real_servers += server.as_ref().map_or(0, count);
        let had = match server {
            Some(server) => self.state.virtual_servers.insert(key, server),
            None => self.state.virtual_servers.remove(&key),
        };
        self.real_servers -= had.as_ref().map_or(0, count);
    }

    /// Virtual servers that were found as they are wanted are kept once, not twice.
    pub(super) fn share(&mut self, desired: &State, keys: impl Iterator<Item = VirtualServerKey>) {
        for key in keys {
            if let Some(known) = self.state.virtual_servers.get_mut(&key)
                && let Some(wanted) = desired.virtual_servers.get(&key)
                && wanted == known
            {
                *known = Arc::clone(wanted);
            }
        }
    }

    /// How many virtual and real servers there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.state.virtual_servers.len(), self.real_servers)
    }

    /// The rules of a family.
    pub(super) fn rules(&self, family: Family) -> RulesState {
        let left = self.state.leftovers.iter().copied();
        RulesState {
            rules: self.state.firewall.get(&family).cloned(),
            leftovers: left.filter(|leftover| leftover.family() == family).collect(),
        }
    }

    /// Puts the rules of a family in place of what was believed.
    pub(super) fn put_rules(&mut self, family: Family, found: RulesState) {
        self.state.leftovers.retain(|leftover: &Leftover| leftover.family() != family);
        self.state.leftovers.extend(found.leftovers);
        match found.rules {
            Some(rules) => _ = self.state.firewall.insert(family, rules),
            None => _ = self.state.firewall.remove(&family),
        }
    }

    /// The part that has to be read before anything is done about a target.
    pub(super) fn unknown_part(&self, target: &Target) -> Option<Part> {
        if self.unknown.is_empty() {
            return None;
        }
        let part = target.part();
        let all = matches!(part, Part::VirtualServer(_)).then_some(Part::VirtualServers);
        all.into_iter().chain([part]).find(|part| self.unknown.contains(part))
    }

    pub(super) fn is_unknown(&self, part: Part) -> bool {
        self.unknown.contains(&part)
    }

    /// A part was read. Whether nobody knew before what it holds.
    pub(super) fn learnt(&mut self, part: Part) -> bool {
        self.unread.remove(&part);
        self.unknown.remove(&part)
    }

    /// Nobody knows any more what a part holds. It is read at once.
    pub(super) fn forget(&mut self, part: Part) {
        self.unknown.insert(part);
        self.unread.insert(part);
    }

    /// Nobody knows what a part holds, and it cannot be read now.
    pub(super) fn lose(&mut self, part: Part) {
        self.unknown.insert(part);
        self.unread.remove(&part);
    }

    /// A part is to be read now.
    pub(super) fn read(&mut self, part: Part) {
        self.unread.insert(part);
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The next thing to read, which is being read from now on.
    pub(super) fn next_unread(&mut self, settings: &Settings) -> Option<Query> {
        match self.unread.pop_first()? {
            Part::Sysctls => Some(Query::Sysctls(settings.sysctls.clone())),
            Part::Interface => Some(Query::Interface),
            Part::Set(set) => Some(Query::Set(set)),
            Part::VirtualServer(key) => {
                let mut keys = vec![key];
                while let Some(&part @ Part::VirtualServer(key)) = self.unread.first()
                    && keys.len() < AT_ONCE
                {
                    self.unread.remove(&part);
                    keys.push(key);
                }
                Some(Query::VirtualServers(keys))
            }
            // These take longer, and are read by the audit.
            Part::Rules(_) | Part::VirtualServers => None,
        }
    }
}
