//! An explanation for people.

use std::fmt;

use super::NAMED;
use super::account::{
    Explanation, FamilyAccount, Found, FrontendAccount, PortAccount, ServiceAccount,
};
use crate::text;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Found { what, service, role } in &self.found {
            writeln!(f, "{what} belongs to {service} ({role})")?;
        }
        for (i, service) in self.services.iter().enumerate() {
            if i > 0 || !self.found.is_empty() {
                writeln!(f)?;
            }
            service.fmt(f)?;
        }
        for held in &self.held_back {
            writeln!(f, "\nnot programmed by the running proxy: {held}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {}", self.key())?;
        if self.internal_traffic_policy_local {
            f.write_str(", internalTrafficPolicy Local")?;
        }
        if self.external_traffic_policy_local {
            f.write_str(", externalTrafficPolicy Local")?;
        }
        if let Some(seconds) = self.sticky_seconds {
            write!(f, ", clients stick for {seconds} s")?;
        }
        writeln!(f)?;
        for it in &self.settings {
            writeln!(f, "  {} {}, by annotation {}", it.setting, it.value, it.annotation)?;
        }
        for rejected in &self.rejected_settings {
            writeln!(f, "  annotation {rejected}")?;
        }
        for port in &self.ports {
            port.fmt(f)?;
        }
        for skipped in self.skipped.iter().take(NAMED) {
            writeln!(f, "\n{} is not programmed: {}", skipped.what, skipped.reason)?;
        }
        if self.skipped.len() > NAMED {
            let more = self.skipped.len() - NAMED;
            writeln!(f, "\nand {more} more addresses are not programmed")?;
        }
        if let Some(health) = &self.health_check {
            let counts = health.local_endpoints.iter();
            let counts: Vec<String> =
                counts.map(|it| format!("{} ({})", it.count, it.family)).collect();
            writeln!(
                f,
                "\nhealth check node port {}: local ready endpoints {}",
                health.port,
                counts.join(", ")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for PortAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, protocol, families, .. } = self;
        let gap = if name.is_empty() { "" } else { " " };
        writeln!(f, "\nport{gap}{name} {port}/{protocol}")?;
        families.iter().try_for_each(|family| family.fmt(f))
    }
}

impl fmt::Display for FamilyAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {} endpoints, seen from node {}:", self.family, self.node)?;
        if let Some(reason) = &self.no_endpoints {
            writeln!(f, "    none: {reason}")?;
        }
        for endpoint in &self.endpoints {
            let node = endpoint.node.as_deref().unwrap_or("no node");
            writeln!(f, "    {} on {node}: {}", endpoint.address, endpoint.verdict)?;
        }
        for note in &self.notes {
            writeln!(f, "    {note}")?;
        }
        if let Some(reason) = &self.no_node_port {
            writeln!(f, "  {reason}")?;
        }
        self.frontends.iter().try_for_each(|frontend| frontend.fmt(f))?;
        match &self.inside {
            Some(inside) => writeln!(
                f,
                "  this node, and pods but at node ports, through any of these but the cluster IP: {}",
                named(&inside.real_servers)
            ),
            None => Ok(()),
        }
    }
}

/// The first of them, and how many more there are.
fn named(servers: &[String]) -> String {
    let first = servers.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" ");
    text::and_more(&first, servers.len().saturating_sub(NAMED))
}

impl fmt::Display for FrontendAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, virtual_server, scheduler, .. } = self;
        write!(f, "  {kind} {virtual_server}, {scheduler}: ")?;
        if let Some(winner) = &self.taken_by {
            return writeln!(
                f,
                "taken by {winner} (cluster IPs and node ports before others, then the older, then by name)"
            );
        }
        if self.real_servers.is_empty() {
            writeln!(f, "no real server, connections are refused")?;
        } else {
            writeln!(f, "{}", named(&self.real_servers))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "    {note}"))
    }
}
