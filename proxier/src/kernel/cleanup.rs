//! Removes everything of ours from the kernel, and nothing else's.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dummy_iface::DummyInterface;
use netlink_ipvs::{Client, Command, Family, Protocol, VirtualServerKey};

use super::conntrack::Conntrack;
use super::firewall::{ErrorKind, Firewall};
use super::ipset::{IpsetClient, SetSpec};
use super::tables::Tables;
use crate::dataplane::INTERFACE;
use crate::dataplane::leftovers::{Leftover, NFTABLES_TABLE};
use crate::dataplane::sets::{Member, SetId, SetRole};
use crate::iptables::Scope;
use crate::nftables::{self, TABLE};
use crate::text::chain;
use crate::value::MarkRange;

/// What a clean-up did.
#[derive(Debug, Default)]
pub struct Report {
    /// What was removed, one line each.
    pub removed: Vec<String>,
    /// What is left because somebody else uses it or made it.
    pub kept: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

impl Report {
    fn note<T, E: std::error::Error>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.failed.push(format!("{what}: {}", chain(&error)))).ok()
    }
}

/// Removes our virtual servers, `kube-ipvs0`, our rules and what other modes of kube-proxy left,
/// and our sets. Each step goes on where another fails.
///
/// Ours are the virtual servers that our sets and `kube-ipvs0` know, and those by firewall mark with one of
/// these marks; every other one stays.
pub fn clean_up(ipvs: Option<&mut Client>, firewall: &mut Firewall, marks: MarkRange) -> Report {
    let mut report = Report::default();
    let interface = DummyInterface::find(INTERFACE);
    let interface = report.note("find kube-ipvs0", interface).flatten();
    let sets = IpsetClient::open();
    let mut sets = report.note("open ipset", sets);
    if let Some(ipvs) = ipvs {
        let known = Known::read(interface.as_ref(), sets.as_mut(), marks);
        virtual_servers(ipvs, &known, &mut report);
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        rules(firewall, family, &mut report);
    }
    tables(kube_proxy_table, &mut report);
    tables(own_table, &mut report);
    remove_interface(interface, &mut report);
    if let Some(sets) = &mut sets {
        destroy_sets(sets, &mut report);
    }
    report
}

/// Removes what is ours where our rules and sets are in nftables, and nothing of kube-proxy's; and the flows to
/// these services that IPVS has served, so that what comes of them still is seen by somebody.
pub fn leave(
    ipvs: &mut Client,
    places: &BTreeSet<(Protocol, SocketAddr)>,
    marks: MarkRange,
) -> Report {
    let mut report = Report::default();
    let interface = DummyInterface::find(INTERFACE);
    let interface = report.note("find kube-ipvs0", interface).flatten();
    let known = Known::read(interface.as_ref(), None, marks);
    virtual_servers(ipvs, &known, &mut report);
    flows(places, &mut report);
    remove_interface(interface, &mut report);
    tables(own_table, &mut report);
    report
}

/// Whether anything of ours, or of kube-proxy's IPVS mode, takes packets.
///
/// # Errors
/// If it cannot be read.
pub fn is_anything_ours() -> Result<bool, netlink_batch::Error> {
    // One of another kind is not ours.
    if DummyInterface::find(INTERFACE).is_ok_and(|found| found.is_some()) {
        return Ok(true);
    }
    let mut tables = Tables::open()?;
    Ok(tables.has(TABLE, Family::Ipv4)? || tables.has(TABLE, Family::Ipv6)?)
}

/// What tells our virtual servers from others.
#[derive(Default)]
struct Known {
    addresses: BTreeSet<std::net::IpAddr>,
    members: BTreeSet<(SetId, Member)>,
    marks: MarkRange,
}

impl Known {
    fn read(
        interface: Option<&DummyInterface>,
        sets: Option<&mut IpsetClient>,
        marks: MarkRange,
    ) -> Self {
        let mut known = Self { marks, ..Self::default() };
        if let Some(interface) = interface {
            known.addresses = interface.addresses().unwrap_or_default();
        }
        if let Some(sets) = sets {
            for set in SetId::all() {
                let content = sets.members(set.name()).unwrap_or_default();
                known.members.extend(content.members.into_iter().map(|member| (set, member)));
            }
        }
        if let Ok(mut client) = netlink_nftables::Client::open() {
            for set in SetId::all() {
                let table = nftables::table(set.family);
                let found = client.elements(&table, nftables::set_name(set.role));
                let elements = found.unwrap_or_default().into_iter();
                let members = elements.filter_map(|it| nftables::member(set, &it.element));
                known.members.extend(members.map(|member| (set, member)));
            }
        }
        known
    }

    fn is_ours(&self, key: &VirtualServerKey) -> bool {
        let (address, port, protocol) = match *key {
            VirtualServerKey::Address { address, port, protocol } => (address, port, protocol),
            VirtualServerKey::FirewallMark { mark, .. } => return self.marks.contains(mark),
        };
        let has =
            |role: SetRole, member: Member| self.members.contains(&(role.of(key.family()), member));
        let by_port = Member::IpPort(address, protocol, port);
        let node_port = match protocol {
            Protocol::Tcp => has(SetRole::NodePortTcp, Member::Port(port)),
            Protocol::Udp => has(SetRole::NodePortUdp, Member::Port(port)),
            Protocol::Sctp | Protocol::Other(_) => has(SetRole::NodePortSctp, by_port),
        };
        node_port
            || self.addresses.contains(&address)
            || [
                SetRole::ClusterIp,
                SetRole::ExternalIp,
                SetRole::ExternalIpLocal,
                SetRole::LoadBalancer,
            ]
            .into_iter()
            .any(|role| has(role, by_port))
    }
}

fn virtual_servers(ipvs: &mut Client, known: &Known, report: &mut Report) {
    let listed = ipvs.virtual_servers();
    let Some(entries) = report.note("list virtual servers", listed) else { return };
    let (ours, others): (Vec<_>, Vec<_>) =
        entries.iter().map(|entry| entry.server.key).partition(|key| known.is_ours(key));
    report.kept.extend(others.iter().map(|key| format!("virtual server {key}: not ours")));
    let outcome = ipvs.execute(ours.iter().map(|key| Command::DeleteVirtualServer(*key)));
    for (_, error) in &outcome.failed {
        report.failed.push(chain(error));
    }
    let uncertain: usize = outcome.uncertain.iter().map(ExactSizeIterator::len).sum();
    if uncertain > 0 {
        let text = "the kernel's answer was lost, clean up again";
        report.failed.push(format!("{uncertain} virtual servers: {text}"));
    }
    let removed = ours.len() - outcome.failed.len() - uncertain;
    if removed > 0 {
        report.removed.push(format!("{removed} virtual servers"));
    }
}

fn rules(firewall: &mut Firewall, family: Family, report: &mut Report) {
    let what = format!("{family} firewall rules");
    // A family that this host does not use has no rules. Without programs nobody can tell: where no
    // set is there to which rules refer, there are none.
    if let Err(error) = firewall.tools(family) {
        if error.kind() == ErrorKind::NotInstalled && has_sets(family) {
            report.failed.push(format!("{what}: {}", chain(&*error)));
        }
        return;
    }
    match firewall.remove(family) {
        Ok(removal) => {
            if removal.found {
                report.removed.push(what.clone());
            }
            let kept = removal.foreign.into_iter();
            report.kept.extend(kept.map(|rule| format!("a chain of ours that {rule} leads to")));
        }
        Err(error) => report.failed.push(format!("{what}: {}", chain(&*error))),
    }
    let what = Leftover::Iptables(family).to_string();
    match firewall.remove_leftovers(family, Scope::All) {
        Ok(true) => report.removed.push(what),
        Ok(false) => {}
        Err(error) => report.failed.push(format!("{what}: {}", chain(&*error))),
    }
}

/// Whether a set of a family is there.
fn has_sets(family: Family) -> bool {
    let headers = IpsetClient::open().and_then(|mut sets| sets.list()).unwrap_or_default();
    let ours = |name: &str| SetId::by_name(name).is_some_and(|set| set.family == family);
    headers.iter().any(|header| ours(&header.name))
}

fn remove_interface(interface: Option<DummyInterface>, report: &mut Report) {
    if let Some(interface) = interface {
        let deleted = interface.delete();
        if report.note("delete kube-ipvs0", deleted).is_some() {
            report.removed.push(format!("interface {INTERFACE}"));
        }
    }
}

fn kube_proxy_table(family: Family) -> (&'static str, Leftover) {
    (NFTABLES_TABLE, Leftover::Nftables(family))
}

fn own_table(family: Family) -> (&'static str, Leftover) {
    (TABLE, Leftover::OwnTable(family))
}

fn tables(of: fn(Family) -> (&'static str, Leftover), report: &mut Report) {
    let opened = report.note("open nftables", Tables::open());
    let Some(mut tables) = opened else { return };
    for (family, (name, what)) in [Family::Ipv4, Family::Ipv6].map(|family| (family, of(family))) {
        match tables.has(name, family) {
            Ok(false) => {}
            Ok(true) => {
                let deleted = tables.delete(name, family);
                if report.note(&format!("delete the {what}"), deleted).is_some() {
                    report.removed.push(what.to_string());
                }
            }
            Err(error) => report.failed.push(chain(&error)),
        }
    }
}

/// A flow whose destination no rule translates, and IPVS no longer serves, stays known as long as its client
/// sends: without its entry its next packet is like the first of another.
fn flows(places: &BTreeSet<(Protocol, SocketAddr)>, report: &mut Report) {
    let Some(mut conntrack) = report.note("open connection tracking", Conntrack::open()) else {
        return;
    };
    let mut deleted = 0;
    for family in [Family::Ipv4, Family::Ipv6] {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let found = conntrack.flows(family, protocol);
            let Some(found) = report.note("read flows", found) else { continue };
            let mut left = found.flows;
            left.retain(|flow| {
                !flow.translated && places.contains(&(protocol, flow.original.destination))
            });
            let outcome = conntrack.delete(&left);
            report.failed.extend(outcome.failed.iter().map(|(_, error)| chain(error)));
            deleted += left.len() - outcome.failed.len();
        }
    }
    if deleted > 0 {
        report.removed.push(format!("{deleted} flows through virtual servers"));
    }
}

fn destroy_sets(sets: &mut IpsetClient, report: &mut Report) {
    let mut removed = 0;
    for set in SetId::all() {
        match sets.destroy(SetSpec::of(set, 0).name) {
            Ok(()) => removed += 1,
            Err(error) if error.kind() == netlink_batch::ErrorKind::NotFound => {}
            Err(error) if error.kind() == netlink_batch::ErrorKind::Busy => {
                report.kept.push(format!("set {set}: rules of others refer to it"));
            }
            Err(error) => report.failed.push(chain(&error)),
        }
    }
    if removed > 0 {
        report.removed.push(format!("{removed} sets"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
        VirtualServerKey::new(address.parse().unwrap(), port, protocol)
    }

    #[test]
    fn only_what_our_sets_and_interface_know_is_ours() {
        use Protocol::{Sctp, Tcp, Udp};
        let by_port = |role: SetRole, address: &str, protocol| {
            let address: std::net::IpAddr = address.parse().unwrap();
            (role.of(Family::of(address)), Member::IpPort(address, protocol, 80))
        };
        let known = Known {
            addresses: ["10.96.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into(),
            members: [
                // Not on the interface, because they are addresses of the node.
                by_port(SetRole::ExternalIp, "192.0.2.1", Tcp),
                by_port(SetRole::ExternalIpLocal, "192.0.2.2", Udp),
                by_port(SetRole::LoadBalancer, "2001:db8::1", Tcp),
                by_port(SetRole::NodePortSctp, "192.0.2.1", Sctp),
                (SetRole::NodePortTcp.of(Family::Ipv4), Member::Port(30080)),
                (SetRole::NodePortUdp.of(Family::Ipv6), Member::Port(30053)),
            ]
            .into(),
            marks: MarkRange::default(),
        };
        for (key, ours) in [
            (server("10.96.0.1", 1, Tcp), true),
            (server("fd00::1", 1, Udp), true),
            (server("192.0.2.1", 80, Tcp), true),
            (server("192.0.2.1", 81, Tcp), false),
            (server("192.0.2.1", 80, Udp), false),
            (server("192.0.2.2", 80, Udp), true),
            (server("2001:db8::1", 80, Tcp), true),
            (server("192.0.2.1", 80, Sctp), true),
            (server("192.0.2.2", 80, Sctp), false),
            (server("192.0.2.9", 30080, Tcp), true),
            (server("192.0.2.9", 30080, Udp), false),
            (server("2001:db8::9", 30080, Tcp), false),
            (server("2001:db8::9", 30053, Udp), true),
            (server("198.51.100.1", 80, Tcp), false),
            (VirtualServerKey::FirewallMark { mark: 1, family: Family::Ipv4 }, false),
            (VirtualServerKey::FirewallMark { mark: 0x1001, family: Family::Ipv6 }, true),
        ] {
            assert_eq!(known.is_ours(&key), ours, "{key}");
        }
        assert!(!Known::default().is_ours(&server("10.96.0.1", 1, Tcp)));
    }
}
