//! What is told of a packet's way.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use netlink_ipvs::{Protocol, RealServer, RealServerKey, VirtualServerKey};
use serde::Serialize;

use super::{Outcome, Sender};
use crate::dataplane::VirtualServerState;
use crate::dataplane::firewall::Chain;
use crate::nftables::chain_name;
use crate::text;

/// Real servers that are named; more are counted.
const NAMED: usize = 8;

/// One step of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Where in the kernel.
    pub place: String,
    /// What happens there.
    pub text: String,
}

/// A packet's way and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// What becomes of it.
    pub outcome: Outcome,
    /// How it comes to that.
    pub steps: Vec<Step>,
    /// Rules on its way that could not be judged, each with the reason.
    pub doubts: Vec<Step>,
}

impl Followed {
    /// Whether the client is in none of a Service's source ranges.
    pub fn is_outside_source_ranges(&self) -> bool {
        let chain = Chain::SourceRanges;
        let last = self.steps.last().map(|step| step.text.as_str()).unwrap_or_default();
        last.contains(chain.name()) || last.contains(chain_name(chain))
    }
}

/// Steps as they are found out, if anybody wants to know.
pub(super) struct Story {
    is_told: bool,
    steps: Vec<Step>,
    doubts: Vec<Step>,
}

impl Story {
    pub(super) fn silent() -> Self {
        Self { is_told: false, steps: Vec::new(), doubts: Vec::new() }
    }

    pub(super) fn told() -> Self {
        Self { is_told: true, ..Self::silent() }
    }

    pub(super) fn end(self, outcome: Outcome) -> Followed {
        let Self { steps, doubts, .. } = self;
        Followed { outcome, steps, doubts }
    }

    pub(super) fn say(&mut self, place: &str, text: impl FnOnce() -> String) {
        if self.is_told {
            self.steps.push(Step { place: place.to_ascii_lowercase(), text: text() });
        }
    }

    /// Says something that only counts if more follows.
    pub(super) fn begin(&mut self, place: &str, text: impl FnOnce() -> String) -> usize {
        self.say(place, text);
        self.steps.len()
    }

    pub(super) fn forget_if_nothing_since(&mut self, before: usize) {
        if self.steps.len() == before {
            self.steps.pop();
        }
    }

    pub(super) fn doubt(&mut self, place: &str, rule: &dyn Fn() -> String, why: &str) {
        if self.is_told {
            let text = format!("{} ({why})", rule());
            let doubt = Step { place: place.to_ascii_lowercase(), text };
            if !self.doubts.contains(&doubt) {
                self.doubts.push(doubt);
            }
        }
    }

    pub(super) fn arrival(
        &mut self,
        from: &Sender,
        (to, port, protocol): (IpAddr, u16, Protocol),
        bridged: bool,
    ) {
        let key = VirtualServerKey::new(to, port, protocol);
        self.say("start", || match from {
            Sender::Node => format!("a process of this node connects to {key}"),
            Sender::Other { address, interface, .. } => {
                let how = if bridged { "the bridge " } else { "" };
                format!("{address} connects to {key}, and comes in by {how}{interface}")
            }
        });
    }

    pub(super) fn virtual_server(&mut self, key: &VirtualServerKey, server: &VirtualServerState) {
        self.say("IPVS", || {
            let scheduler = server.config.scheduler;
            let by = match key {
                VirtualServerKey::FirewallMark { .. } => format!("{key} (by the mark)"),
                VirtualServerKey::Address { .. } => key.to_string(),
            };
            let (used, closed): (Vec<RealServer>, Vec<RealServer>) =
                server.real_servers.iter().partition(|server| server.config.weight > 0);
            let mut out = if used.is_empty() {
                format!("virtual server {by} has no real server to choose: refused")
            } else {
                let names = text::few(used.iter().map(|server| server.key), NAMED);
                format!("virtual server {by}, {scheduler}, chooses one of {names}")
            };
            if !closed.is_empty() {
                let names = text::few(closed.iter().map(|server| server.key), NAMED);
                let _ = write!(out, "; with weight 0, for open connections only: {names}");
            }
            out
        });
    }

    /// What is told of one of several ways.
    pub(super) fn branch(&self) -> Self {
        Self { is_told: self.is_told, steps: Vec::new(), doubts: Vec::new() }
    }

    /// Tells the ways to real servers, those that are the same once.
    pub(super) fn join(&mut self, ways: Vec<(RealServerKey, Self)>) {
        let mut told: Vec<(Vec<RealServerKey>, Vec<Step>)> = Vec::new();
        for (server, way) in ways {
            match told.iter_mut().find(|(_, steps)| *steps == way.steps) {
                Some((servers, _)) => servers.push(server),
                None => told.push((vec![server], way.steps)),
            }
            for doubt in way.doubts {
                if !self.doubts.contains(&doubt) {
                    self.doubts.push(doubt);
                }
            }
        }
        for (servers, steps) in told {
            self.say("IPVS", || format!("to {}", text::few(servers, NAMED)));
            self.steps.extend(steps);
        }
    }

    pub(super) fn sees(&mut self, from: &Sender, masqueraded: bool) {
        self.say("pod", || match from {
            _ if masqueraded => "it sees an address of this node as the source".to_owned(),
            Sender::Node => "it sees the node as the source".to_owned(),
            Sender::Other { address, .. } => format!("it sees {address} as the source"),
        });
    }
}

/// Numbered steps, what could not be judged, and the end.
impl fmt::Display for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Step { place, text }) in self.steps.iter().enumerate() {
            writeln!(f, "{:3}. {place:12} {}", at + 1, text::line(text))?;
        }
        if !self.doubts.is_empty() {
            writeln!(f, "not judged, and taken as if they did not match:")?;
            for Step { place, text } in &self.doubts {
                writeln!(f, "     {place:12} {}", text::line(text))?;
            }
        }
        match &self.outcome {
            Outcome::Forwarded(servers) => {
                writeln!(f, "reached: {}", text::few(servers.keys(), NAMED))
            }
            Outcome::Rejected => writeln!(f, "refused: the client is told at once"),
            Outcome::Dropped => writeln!(f, "dropped: the client hears nothing and times out"),
            Outcome::NotOurs => writeln!(f, "no service: nothing of this proxy takes the packet"),
        }
    }
}
