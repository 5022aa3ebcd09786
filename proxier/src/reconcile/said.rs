//! What is said of services that do not get what they ask for: once, and in few words however many
//! they are.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use tracing::{info, warn};

use super::Notice;
use super::engine::Engine;
use super::reporter::Reporter;
use crate::cluster::ObjectKey;
use crate::dataplane::sets::{Member, SetRole};
use crate::dataplane::{Applied, Conflict, Contribution, FrontendKind, Need, OpError, Skipped};
use crate::text;

/// Addresses of one service that are named, and conflicts of one step that have a line of their own.
const NAMED: usize = 20;

/// What an Event names.
const TOLD: usize = 3;

impl Reporter {
    /// Counts, says and tells which addresses of a service are left out, where that has changed.
    pub(super) fn skipped(
        &mut self,
        key: &ObjectKey,
        before: Option<&Contribution>,
        now: Option<&Contribution>,
    ) {
        let skipped = |asked: Option<&Contribution>| -> Vec<Skipped> {
            asked.map(|asked| asked.skipped.clone()).unwrap_or_default()
        };
        let (before, now) = (skipped(before), skipped(now));
        if before == now {
            return;
        }
        for (list, counts) in [(&before, false), (&now, true)] {
            for kind in list.iter().map(|skipped| skipped.reason.kind()) {
                let count = self.status.refused.entry(kind).or_default();
                *count = if counts { *count + 1 } else { count.saturating_sub(1) };
            }
        }
        if now.is_empty() {
            return;
        }
        let skipped = text::few(&now, NAMED);
        warn!(service = %key, skipped, "not programmed");
        let told: Vec<_> = now.iter().filter(|skipped| skipped.reason.is_told()).collect();
        if !told.is_empty() {
            self.notices.send(Notice::Refused(key.clone(), text::few(told, TOLD)));
        }
    }

    /// Counts, says and tells what became of a service's annotations, where that has changed.
    pub(super) fn settings<'a>(
        &mut self,
        key: &ObjectKey,
        before: Option<&'a Contribution>,
        now: Option<&'a Contribution>,
    ) {
        let none = Applied::default();
        let applied =
            |asked: Option<&'a Contribution>| asked.and_then(|asked| asked.applied.as_deref());
        let before = applied(before).unwrap_or(&none);
        let now = applied(now).unwrap_or(&none);
        if before == now {
            return;
        }
        for (applied, counts) in [(before, false), (now, true)] {
            let change = |count: &mut usize, by: usize| {
                *count = if counts { *count + by } else { count.saturating_sub(by) };
            };
            let settings: BTreeSet<_> = applied.in_force.iter().map(|it| it.setting).collect();
            for setting in settings {
                change(self.status.settings.entry(setting).or_default(), 1);
            }
            change(&mut self.status.rejected_settings, applied.rejected.len());
        }
        for rejected in now.rejected.iter().filter(|it| !before.rejected.contains(it)) {
            let annotation = rejected.annotation.name();
            let (value, reason) = (&*rejected.value, &*rejected.reason);
            warn!(
                service = %key, annotation, value, reason,
                "an annotation cannot be used, the cluster-wide setting holds"
            );
            self.notices.send(Notice::Setting(key.clone(), rejected.to_string()));
        }
    }

    /// Says that a health check node port is a node port too, of this service or of another: the API
    /// server gives each number once, manifests need not.
    pub(super) fn shared_ports(
        &self,
        key: &ObjectKey,
        asked: Option<&Contribution>,
        engine: &Engine,
    ) {
        let Some(asked) = asked else { return };
        let has = |role: SetRole, family: Family, port: u16| {
            engine.desired().state().has_member(role.of(family), &Member::Port(port))
        };
        let health = asked.health.iter().flat_map(|health| {
            let families = health.local_endpoints.iter();
            families.map(|(family, _)| (SetRole::NodePortTcp, *family, health.port))
        });
        let node_ports = asked.frontends.iter().filter(|it| it.kind == FrontendKind::NodePort);
        let node_ports = node_ports.filter_map(|frontend| match frontend.key {
            VirtualServerKey::Address { port, protocol: Protocol::Tcp, .. } => {
                Some((SetRole::HealthCheckNodePort, frontend.key.family(), port))
            }
            _ => None,
        });
        let mut shared = health.chain(node_ports).filter(|it| has(it.0, it.1, it.2));
        if let Some((_, _, port)) = shared.next() {
            warn!(
                service = %key, port,
                "a health check node port is a node port, too: load balancers that ask there are \
                 answered by a service"
            );
            let text = format!("port {port} is a node port and a health check node port");
            self.notices.send(Notice::Refused(key.clone(), text));
        }
    }

    /// Names virtual servers that others have made, before anything is done about them.
    pub(super) fn foreign(foreign: &BTreeSet<VirtualServerKey>, stay: bool) {
        let (count, virtual_servers) = (foreign.len(), text::few(foreign, NAMED));
        if stay {
            info!(count, virtual_servers, "virtual servers that others have made stay as they are");
        } else {
            warn!(
                count,
                virtual_servers,
                "virtual servers are removed that no service asks for, and that no service proxy seems \
                 to have made (ipvs.excludeCIDRs keeps them)"
            );
        }
    }

    /// Says what has been released although the cluster was not known.
    pub(super) fn released(&mut self, released: &[(IpAddr, Need)]) {
        for (address, need) in released {
            warn!(
                %address, %need,
                "taken from the services before the cluster is known: this node needs it"
            );
            let text = format!("{address} was taken from the services: {need}");
            self.notices.send(Notice::Released(text));
        }
    }

    pub(super) fn rescue_failed(error: &OpError) {
        warn!(
            error = error.text,
            "cannot see whether services have an address that this node needs"
        );
    }

    /// Shows and says what has become of conflicts over these virtual servers: one line for each.
    pub(super) fn conflicts(&mut self, keys: &[VirtualServerKey], engine: &Engine) {
        let mut said = 0;
        // Asked before they are put in order: most steps have none at all.
        let known = !self.status.conflicts.is_empty();
        let contested = keys.iter().filter(|key| known || engine.desired().is_contested(key));
        for key in contested.collect::<BTreeSet<_>>() {
            let conflict = engine.desired().conflict(key);
            if !self.status.conflicts.put(key, conflict.clone()) {
                continue;
            }
            let Some(conflict) = conflict else { continue };
            said += 1;
            if said <= NAMED {
                say(&conflict);
            }
            self.notices.send(Notice::Conflict(conflict));
        }
        if said > NAMED {
            let more = said - NAMED;
            warn!(more, "more addresses and ports that several services claim: see the status");
        }
    }
}

fn say(conflict: &Conflict) {
    warn!(
        address = %conflict.key, winner = %conflict.winner, losers = conflict.losers_text(),
        "several services claim the same address and port: one of them has it"
    );
}
