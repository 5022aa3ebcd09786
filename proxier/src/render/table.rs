//! The desired state as a table for people.

use std::fmt::Write as _;

use netlink_ipvs::{Flags, RealServer};

use super::scheduler_flags;
use crate::cluster::ObjectKey;
use crate::dataplane::{Desired, Frontend};
use crate::text;

/// How the table is to look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns of the terminal; where there is none there is no limit.
    pub width: usize,
    /// Whether to emphasise with ANSI escapes.
    pub colour: bool,
}

const HEADERS: [&str; 4] = ["SERVICE", "FRONTEND", "VIRTUAL SERVER", "SCHEDULER"];
const LAST: &str = "REAL SERVERS";
const GAP: usize = 2;
/// Longer lines are hard to read, whatever there is room for.
const WIDEST: usize = 160;

/// One line for each virtual server, grouped by service; real servers are wrapped to the width.
pub fn table(desired: &Desired, style: Style) -> String {
    let mut services: Vec<(&ObjectKey, Vec<&Frontend>)> = desired
        .contributions()
        .map(|(key, contribution)| {
            let owned = |frontend: &&Frontend| {
                desired.owner(&frontend.key).is_some_and(|(owner, _)| owner == key)
            };
            (key, contribution.frontends.iter().filter(owned).collect())
        })
        .collect();
    services.sort_unstable_by_key(|(key, _)| *key);

    let mut rows: Vec<([String; 4], Vec<String>)> = Vec::new();
    for (key, frontends) in &services {
        let mut last = String::new();
        for frontend in frontends {
            let mut name = key.to_string();
            if !frontend.port.is_empty() {
                let _ = write!(name, ":{}", text::name(&frontend.port));
            }
            let shown = if name == last { String::new() } else { name.clone() };
            last = name;
            let servers = real_servers(&frontend.server.real_servers);
            let cells =
                [shown, frontend.kind.to_string(), frontend.key.to_string(), mode(frontend)];
            rows.push((cells, servers));
        }
    }

    let mut widths = HEADERS.map(str::len);
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.len());
        }
    }
    let indent: usize = widths.iter().map(|width| width + GAP).sum();
    // Where the terminal is too narrow for a useful last column, real servers get lines below.
    let width = style.width.min(WIDEST);
    let below = width < indent + LAST.len() + 10;
    let mut out = String::new();
    let (bold, dim, plain) =
        if style.colour { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let _ = write!(out, "{bold}");
    for (header, width) in HEADERS.iter().zip(widths) {
        let _ = write!(out, "{header:width$}{:GAP$}", "");
    }
    let _ = writeln!(out, "{LAST}{plain}");
    for (cells, servers) in rows {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}{:GAP$}", "");
        }
        if servers.is_empty() {
            let _ = writeln!(out, "{line}{dim}none: refused{plain}");
            continue;
        }
        let (margin, mut at) = if below { (GAP * 2, GAP * 2) } else { (indent, indent) };
        if below {
            let _ = write!(out, "{}\n{:margin$}", line.trim_end(), "");
        } else {
            out.push_str(&line);
        }
        for (i, server) in servers.iter().enumerate() {
            if i > 0 && at + server.len() + 1 > width {
                let _ = write!(out, "\n{:margin$}", "");
                at = margin;
            } else if i > 0 {
                out.push(' ');
                at += 1;
            }
            out.push_str(server);
            at += server.len();
        }
        out.push('\n');
    }
    let state = desired.state();
    let real: usize = state.virtual_servers.values().map(|server| server.real_servers.len()).sum();
    let _ = writeln!(
        out,
        "\n{}, {}, {}, {} on kube-ipvs0",
        text::count(services.len(), "service"),
        text::count(state.virtual_servers.len(), "virtual server"),
        text::count(real, "real server"),
        if state.interface.addresses.len() == 1 {
            "1 address".to_owned()
        } else {
            format!("{} addresses", state.interface.addresses.len())
        },
    );
    for conflict in desired.conflicts() {
        let (key, winner, losers) = (conflict.key, &conflict.winner, conflict.losers_text());
        let _ = writeln!(out, "conflict: {key} goes to {winner}, not to {losers}");
    }
    for (service, _) in services {
        let applied = desired.contribution(service).and_then(|asked| asked.applied.as_deref());
        let Some(applied) = applied else { continue };
        for setting in &applied.in_force {
            let _ = writeln!(out, "setting: {service}: {}", text::line(setting));
        }
        for rejected in &applied.rejected {
            let _ = writeln!(out, "setting: {service}: {}", text::line(rejected));
        }
    }
    out
}

/// With their weights where these say something: `10.244.1.7:8080*3`.
fn real_servers(of: &[RealServer]) -> Vec<String> {
    let plain = of.iter().all(|server| server.config.weight == 1);
    let text = |server: &RealServer| match server.config.weight {
        _ if plain => server.key.to_string(),
        weight => format!("{}*{weight}", server.key),
    };
    of.iter().map(text).collect()
}

/// `rr`, `mh mh-port`, `rr sticky 3h`.
fn mode(frontend: &Frontend) -> String {
    let config = &frontend.server.config;
    let mut out = config.scheduler.to_string();
    for flag in scheduler_flags(config) {
        let _ = write!(out, " {flag}");
    }
    if config.flags.contains(Flags::ONE_PACKET) {
        out.push_str(" one-packet");
    }
    if let Some(most) = frontend.server.real_servers.first().map(|it| it.config.upper_threshold)
        && most > 0
    {
        let _ = write!(out, " max {most}");
    }
    if config.flags.contains(Flags::PERSISTENT) {
        let _ = write!(out, " sticky {}", seconds(config.timeout));
    }
    out
}

fn seconds(seconds: u32) -> String {
    match seconds {
        s if s >= 3600 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}
