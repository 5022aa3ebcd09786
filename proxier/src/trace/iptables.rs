//! The text of `iptables-save` as rules.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Protocol, VirtualServerKey};

use super::rules::{Base, Effect, Evaluate, Rule, Rules, Verdict};
use super::{Flow, Machine};
use crate::dataplane::firewall::Hook;
use crate::dataplane::sets::{Member, SetId};
use crate::iptables::save;

/// The chains that the kernel calls, with their priorities (`NF_IP_PRI_*`).
const BASE: [(&str, Hook, i32); 16] = [
    ("raw PREROUTING", Hook::Prerouting, -300),
    ("raw OUTPUT", Hook::Output, -300),
    ("mangle PREROUTING", Hook::Prerouting, -150),
    ("mangle INPUT", Hook::Input, -150),
    ("mangle FORWARD", Hook::Forward, -150),
    ("mangle OUTPUT", Hook::Output, -150),
    ("mangle POSTROUTING", Hook::Postrouting, -150),
    ("nat PREROUTING", Hook::Prerouting, -100),
    ("nat OUTPUT", Hook::Output, -100),
    ("nat POSTROUTING", Hook::Postrouting, 100),
    ("filter INPUT", Hook::Input, 0),
    ("filter FORWARD", Hook::Forward, 0),
    ("filter OUTPUT", Hook::Output, 0),
    ("security INPUT", Hook::Input, 50),
    ("security FORWARD", Hook::Forward, 50),
    ("security OUTPUT", Hook::Output, 50),
];

/// A rule: all of what a packet has to be, each with whether it has to be that, and what comes of it.
#[derive(Debug)]
struct IptablesRule {
    matches: Vec<(bool, Match)>,
    target: Target,
}

#[derive(Debug)]
enum Match {
    Source(IpNet),
    Destination(IpNet),
    Input(String),
    Output(String),
    Protocol(String),
    SourcePorts(Vec<(u16, u16)>),
    Ports(Vec<(u16, u16)>),
    /// A member of a set. What is true is compared with the sender's.
    Member(SetId, Vec<bool>),
    SourceLocal,
    DestinationLocal,
    Bridged,
    /// The value of these bits.
    Mark(u32, u32),
    New,
    Known,
    /// Either of the two.
    Tracked,
    /// Only TCP, UDP and SCTP are followed, and only packets that conntrack takes.
    Never,
    Vip(IpNet),
    VipPort(u16),
    VipProtocol(u16),
    /// Something else, by its word.
    Unknown(String),
}

#[derive(Debug)]
enum Target {
    Effect(Effect),
    /// These bits are turned around after those are cleared.
    Mark {
        cleared: u32,
        turned: u32,
    },
    /// The mark becomes that of the member that is the destination and port, if there is one.
    MarkOf(SetId),
}

/// Adds what the text says.
pub(super) fn read(text: &str, rules: &mut Rules) {
    let lines = text.lines().scan("", |table, line| {
        if let Some(name) = line.strip_prefix('*') {
            *table = name.trim_end();
        }
        Some((*table, line))
    });
    let closed: Vec<String> = lines
        .filter_map(|(table, line)| {
            let (chain, policy) = line.strip_prefix(':')?.split_once(' ')?;
            policy.starts_with("DROP").then(|| format!("{table} {chain}"))
        })
        .collect();
    for line in save::lines(text) {
        let chain = format!("{} {}", line.table, line.chain);
        let of_chain = rules.chains.entry(chain).or_default();
        of_chain.extend(line.spec.map(|spec| rule(line.table, spec)));
    }
    rules.base.extend(BASE.iter().map(|(chain, hook, priority)| Base {
        hook: *hook,
        priority: *priority,
        is_nat: chain.starts_with("nat"),
        chain: (*chain).to_owned(),
        drops: closed.iter().any(|it| it == chain),
    }));
}

fn rule(table: &str, spec: &str) -> Rule {
    let mut words = save::words(spec).into_iter().peekable();
    let (mut matches, mut shown) = (Vec::new(), Vec::new());
    let (mut wanted, mut target) = (true, Target::Effect(Effect::Next));
    while let Some(word) = words.next() {
        let (it, said) = match word.as_str() {
            "!" => {
                wanted = false;
                shown.push(word);
                continue;
            }
            "-m" | "--comment" => {
                words.next();
                continue;
            }
            "-j" | "-g" => {
                let name = words.next().unwrap_or_default();
                let rest: Vec<String> = words.by_ref().collect();
                shown.extend([word.clone(), name.clone()]);
                shown.extend(rest.iter().cloned());
                target = self::target(table, &word, &name, &rest);
                break;
            }
            "--physdev-is-in" => (Match::Bridged, String::new()),
            option => {
                let is_argument = |next: &String| !next.starts_with('-') && next != "!";
                let argument = words.next_if(is_argument).unwrap_or_default();
                // Two arguments.
                let more = match option {
                    "--match-set" => words.next().unwrap_or_default(),
                    _ => String::new(),
                };
                let said = format!("{argument} {more}").trim_end().to_owned();
                (self::matches(option, &argument, &more), said)
            }
        };
        shown.push(word);
        shown.extend((!said.is_empty()).then_some(said));
        matches.push((wanted, it));
        wanted = true;
    }
    Rule { text: shown.join(" "), by: Box::new(IptablesRule { matches, target }) }
}

fn matches(option: &str, argument: &str, more: &str) -> Match {
    let known = match option {
        "-s" => network(argument).map(Match::Source),
        "-d" => network(argument).map(Match::Destination),
        "-i" => Some(Match::Input(argument.to_owned())),
        "-o" => Some(Match::Output(argument.to_owned())),
        "-p" => Some(Match::Protocol(argument.to_owned())),
        "--dport" | "--dports" => ports(argument).map(Match::Ports),
        "--sport" | "--sports" => ports(argument).map(Match::SourcePorts),
        "--match-set" => SetId::by_name(argument)
            .map(|set| Match::Member(set, more.split(',').map(|flag| flag == "src").collect())),
        "--src-type" if argument == "LOCAL" => Some(Match::SourceLocal),
        "--dst-type" if argument == "LOCAL" => Some(Match::DestinationLocal),
        "--icmp-type" | "--icmpv6-type" => Some(Match::Never),
        "--mark" => value_and_mask(argument).map(|(value, mask)| Match::Mark(value, mask)),
        "--ctstate" | "--state" => state(argument),
        "--vaddr" => network(argument).map(Match::Vip),
        "--vport" => argument.parse().ok().map(Match::VipPort),
        "--vproto" => argument.parse().ok().map(Match::VipProtocol),
        _ => None,
    };
    known.unwrap_or_else(|| Match::Unknown(format!("{option} {argument}").trim_end().to_owned()))
}

fn state(list: &str) -> Option<Match> {
    let has = |state| list.split(',').any(|it| it == state);
    match (has("NEW"), has("ESTABLISHED")) {
        (true, true) => Some(Match::Tracked),
        (true, false) => Some(Match::New),
        (false, true) => Some(Match::Known),
        (false, false) if has("SNAT") || has("DNAT") => None,
        (false, false) => Some(Match::Never),
    }
}

fn target(table: &str, how: &str, name: &str, rest: &[String]) -> Target {
    let after = |option: &str| {
        let at = rest.iter().position(|word| word == option)?;
        rest.get(at + 1).map(String::as_str)
    };
    Target::Effect(match name {
        "ACCEPT" => Effect::End(Verdict::Accept),
        "DROP" => Effect::End(Verdict::Drop),
        "REJECT" => Effect::End(Verdict::Reject),
        "MASQUERADE" | "SNAT" => Effect::End(Verdict::Masquerade),
        "DNAT" | "REDIRECT" | "TPROXY" | "NETMAP" => Effect::End(Verdict::Translate),
        "RETURN" => Effect::Return,
        "MARK" => match after("--set-xmark").and_then(value_and_mask) {
            Some((turned, cleared)) => return Target::Mark { cleared, turned },
            None => Effect::Doubt("MARK".to_owned()),
        },
        "SET" => match after("--map-set") {
            Some(set) => match SetId::by_name(set) {
                Some(set) => return Target::MarkOf(set),
                None => Effect::Doubt(format!("SET {set}")),
            },
            None => Effect::Next,
        },
        "LOG" | "NFLOG" | "ULOG" | "TRACE" | "TCPMSS" | "CHECKSUM" | "CLASSIFY" | "DSCP"
        | "TOS" | "AUDIT" | "CT" | "" => Effect::Next,
        "CONNMARK" | "NFQUEUE" | "NOTRACK" | "BPF" => Effect::Doubt(name.to_owned()),
        chain if how == "-g" => Effect::Goto(format!("{table} {chain}")),
        chain => Effect::Jump(format!("{table} {chain}")),
    })
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

/// `80`, `80,443`, `30000:32767`
fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let range = |text: &str| match text.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    };
    text.split(',').map(range).collect()
}

fn value_and_mask(text: &str) -> Option<(u32, u32)> {
    let bits = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    Some((bits(value)?, bits(mask)?))
}

impl Evaluate for IptablesRule {
    fn is_plain(&self) -> bool {
        self.matches.is_empty()
    }

    fn evaluate(&self, flow: &mut Flow, machine: &Machine<'_>) -> Effect {
        let mut doubt = None;
        for (wanted, it) in &self.matches {
            match it.is(flow, machine) {
                Some(is) if is != *wanted => return Effect::None,
                Some(_) => {}
                None => doubt = doubt.or_else(|| Some(it.name())),
            }
        }
        let harmless = matches!(self.target, Target::Effect(Effect::Next));
        if let Some(doubt) = doubt.filter(|_| !harmless) {
            return Effect::Doubt(doubt);
        }
        let mark = match &self.target {
            Target::Effect(effect) => return effect.clone(),
            Target::Mark { cleared, turned } => (flow.mark & !cleared) ^ turned,
            Target::MarkOf(set) => match mark_of(*set, flow, machine) {
                Some(mark) => mark,
                None => return Effect::Next,
            },
        };
        flow.mark = mark;
        Effect::Marked
    }
}

fn mark_of(set: SetId, flow: &Flow, machine: &Machine<'_>) -> Option<u32> {
    let members = machine.state.sets.get(&set).map(|set| &set.members);
    members.into_iter().flatten().find_map(|member| match member {
        Member::Marked(.., mark) if in_member(member, &[false, false], flow) => Some(*mark),
        _ => None,
    })
}

impl Match {
    /// What could not be judged.
    fn name(&self) -> String {
        match self {
            Self::Unknown(word) => word.clone(),
            Self::Input(name) => format!("-i {name}"),
            Self::Output(name) => format!("-o {name}"),
            other => format!("{other:?}"),
        }
    }

    /// Whether a packet is so, if that is known.
    fn is(&self, flow: &Flow, machine: &Machine<'_>) -> Option<bool> {
        let taken_by = match flow.taken_by {
            Some(VirtualServerKey::Address { address, port, protocol }) => {
                Some((address, port, protocol.number()))
            }
            _ => None,
        };
        let in_ranges = |ranges: &[(u16, u16)], port: u16| {
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
        };
        Some(match self {
            Self::Source(net) => net.contains(&flow.source),
            Self::Destination(net) => net.contains(&flow.destination),
            Self::Input(name) => is_named(flow.input.as_deref()?, name),
            Self::Output(name) => is_named(flow.output.as_deref()?, name),
            Self::Protocol(name) => is_protocol(flow.protocol, name),
            Self::SourcePorts(ranges) => in_ranges(ranges, flow.source_port),
            Self::Ports(ranges) => in_ranges(ranges, flow.port),
            Self::Member(set, sources) => {
                let members = machine.state.sets.get(set).map(|set| &set.members);
                members.into_iter().flatten().any(|member| in_member(member, sources, flow))
            }
            Self::SourceLocal => machine.is_local(flow.source),
            Self::DestinationLocal => machine.is_local(flow.destination),
            Self::Bridged => flow.bridged,
            Self::Mark(value, mask) => flow.mark & mask == *value,
            Self::New => !flow.is_answer,
            Self::Known => flow.is_answer,
            Self::Tracked => true,
            Self::Never => false,
            Self::Vip(net) => taken_by.is_some_and(|(address, ..)| net.contains(&address)),
            Self::VipPort(vport) => taken_by.is_some_and(|(_, port, _)| port == *vport),
            Self::VipProtocol(number) => taken_by.is_some_and(|(.., it)| it == *number),
            Self::Unknown(_) => return None,
        })
    }
}

fn is_named(interface: &str, name: &str) -> bool {
    match name.strip_suffix('+') {
        Some(prefix) => interface.starts_with(prefix),
        None => interface == name,
    }
}

fn is_protocol(protocol: Protocol, name: &str) -> bool {
    name == "all" || protocol.to_string() == name || protocol.number().to_string() == name
}

/// Whether a packet is the member; `sources` says which parts are compared with the sender's.
fn in_member(member: &Member, sources: &[bool], flow: &Flow) -> bool {
    let is_source = |at: usize| sources.get(at).copied().unwrap_or_default();
    let address = |at: usize| if is_source(at) { flow.source } else { flow.destination };
    let ports = |at: usize, port: u16| {
        let of = if is_source(at) { flow.source_port } else { flow.port };
        of == port
    };
    let first = |ip: &IpAddr, protocol: &Protocol, port: u16| {
        *ip == address(0) && *protocol == flow.protocol && ports(1, port)
    };
    match member {
        Member::Ip(ip) => *ip == address(0),
        Member::IpPort(ip, protocol, port) | Member::Marked(ip, protocol, port, _) => {
            first(ip, protocol, *port)
        }
        Member::IpPortIp(ip, protocol, port, other) => {
            first(ip, protocol, *port) && *other == address(2)
        }
        Member::IpPortNet(ip, protocol, port, net) => {
            first(ip, protocol, *port) && net.contains(&address(2))
        }
        // The kernel looks no other protocol up in a bitmap of ports.
        Member::Port(port) => flow.protocol != Protocol::Sctp && ports(0, *port),
    }
}
