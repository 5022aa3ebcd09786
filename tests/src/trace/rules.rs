//! iptables rules as iptables evaluates them, from the text of `iptables-save`.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Protocol, VirtualServerKey};
use proxier::dataplane::sets::{Member, SetId};

use super::{Flow, Machine};

/// What ends the walk through a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject,
    Masquerade,
}

/// The rules of one family.
pub(super) struct Rules(HashMap<(String, String), Vec<Rule>>);

struct Rule {
    matches: Vec<(bool, Match)>,
    target: Target,
}

enum Match {
    Source(IpNet),
    Interface(String),
    Protocol(String),
    Set(SetId, Vec<bool>),
    SourceLocal,
    DestinationLocal,
    Bridged,
    Mark(u32, u32),
    New,
    Known,
    Vip(IpAddr),
    VipPort(u16),
    VipProtocol(u16),
}

enum Target {
    Chain(String),
    Return,
    Mark(u32, u32),
    End(Verdict),
}

impl Rules {
    /// # Panics
    /// On what it does not know: a rule that is passed over would be a lie.
    pub(super) fn parse(text: &str) -> Self {
        let mut rules: HashMap<(String, String), Vec<Rule>> = HashMap::new();
        let mut table = String::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if let Some(rest) = line.strip_prefix("-A ") {
                let words = words(rest);
                let key = (table.clone(), words[0].clone());
                rules.entry(key).or_default().push(Rule::parse(&words[1..]));
            }
        }
        Self(rules)
    }

    pub(super) fn run(
        &self,
        table: &'static str,
        chain: &str,
        flow: &mut Flow,
        machine: &Machine<'_>,
    ) -> Option<Verdict> {
        for rule in self.0.get(&(table.to_owned(), chain.to_owned())).into_iter().flatten() {
            if !rule.matches.iter().all(|(wanted, it)| it.is(flow, machine) == *wanted) {
                continue;
            }
            match &rule.target {
                Target::Chain(chain) => {
                    if let Some(verdict) = self.run(table, chain, flow, machine) {
                        return Some(verdict);
                    }
                }
                Target::Return => return None,
                Target::Mark(value, mask) => flow.mark = (flow.mark & !mask) ^ value,
                Target::End(verdict) => return Some(*verdict),
            }
        }
        None
    }
}

/// Words as a shell splits them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

impl Rule {
    fn parse(words: &[String]) -> Self {
        let mut words = words.iter().map(String::as_str);
        let (mut matches, mut target, mut wanted) = (Vec::new(), None, true);
        while let Some(word) = words.next() {
            if word == "!" {
                wanted = false;
                continue;
            }
            let mut argument = || words.next().unwrap_or_else(|| panic!("{word} says nothing"));
            let it = match word {
                "-m" | "--comment" | "--reject-with" => {
                    argument();
                    continue;
                }
                "--random-fully" => continue,
                "-s" => Match::Source(parsed(argument())),
                "-i" => Match::Interface(argument().to_owned()),
                "-p" => Match::Protocol(argument().to_owned()),
                "--match-set" => {
                    let name = argument();
                    let set = SetId::by_name(name).unwrap_or_else(|| panic!("no set {name}"));
                    Match::Set(set, argument().split(',').map(|flag| flag == "src").collect())
                }
                "--src-type" | "--dst-type" => {
                    assert_eq!(argument(), "LOCAL");
                    if word == "--src-type" { Match::SourceLocal } else { Match::DestinationLocal }
                }
                "--physdev-is-in" => Match::Bridged,
                "--mark" => {
                    let (value, mask) = value_and_mask(argument());
                    Match::Mark(value, mask)
                }
                "--ctstate" => match argument() {
                    "NEW" => Match::New,
                    "RELATED,ESTABLISHED" => Match::Known,
                    other => panic!("state {other}"),
                },
                "--vaddr" => Match::Vip(parsed(argument())),
                "--vport" => Match::VipPort(parsed(argument())),
                "--vproto" => Match::VipProtocol(parsed(argument())),
                "--set-xmark" => {
                    let (value, mask) = value_and_mask(argument());
                    target = Some(Target::Mark(value, mask));
                    continue;
                }
                "-j" => {
                    target = match argument() {
                        "MARK" => None,
                        "RETURN" => Some(Target::Return),
                        "ACCEPT" => Some(Target::End(Verdict::Accept)),
                        "DROP" => Some(Target::End(Verdict::Drop)),
                        "REJECT" => Some(Target::End(Verdict::Reject)),
                        "MASQUERADE" => Some(Target::End(Verdict::Masquerade)),
                        chain => Some(Target::Chain(chain.to_owned())),
                    };
                    continue;
                }
                other => panic!("{other} in a rule"),
            };
            matches.push((wanted, it));
            wanted = true;
        }
        Self { matches, target: target.unwrap_or_else(|| panic!("a rule without a target")) }
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} in a rule"))
}

fn value_and_mask(text: &str) -> (u32, u32) {
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or_else(|| panic!("{text} is no mark"));
        u32::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text} is no mark"))
    };
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    (number(value), number(mask))
}

impl Match {
    fn is(&self, flow: &Flow, machine: &Machine<'_>) -> bool {
        match self {
            Self::Source(net) => net.contains(&flow.source),
            Self::Interface(name) => match name.strip_suffix('+') {
                Some(prefix) => flow.interface.starts_with(prefix),
                None => flow.interface == name,
            },
            Self::Protocol(name) => flow.protocol.to_string() == *name,
            Self::Set(set, sources) => {
                let members = machine.state.sets.get(set).map(|set| &set.members);
                members.into_iter().flatten().any(|member| in_member(member, sources, flow))
            }
            Self::SourceLocal => machine.is_local(flow.source),
            Self::DestinationLocal => machine.is_local(flow.destination),
            Self::Bridged => flow.bridged,
            Self::Mark(value, mask) => flow.mark & mask == *value,
            // Only first packets are walked.
            Self::New => true,
            Self::Known => false,
            Self::Vip(address) => matches!(
                flow.taken_by,
                Some(VirtualServerKey::Address { address: vip, .. }) if vip == *address
            ),
            Self::VipPort(port) => matches!(
                flow.taken_by,
                Some(VirtualServerKey::Address { port: vport, .. }) if vport == *port
            ),
            Self::VipProtocol(number) => matches!(
                flow.taken_by,
                Some(VirtualServerKey::Address { protocol, .. })
                    if protocol.number() == *number
            ),
        }
    }
}

/// Whether a packet is the member; `sources` says which parts are compared with the sender's.
fn in_member(member: &Member, sources: &[bool], flow: &Flow) -> bool {
    let address = |at: usize| if sources[at] { flow.source } else { flow.destination };
    let ports = |at: usize, port: u16| {
        assert!(!sources[at], "nobody knows the source port");
        port == flow.port
    };
    let first = |ip: &IpAddr, protocol: &Protocol, port: u16| {
        *ip == address(0) && *protocol == flow.protocol && ports(1, port)
    };
    match member {
        Member::Ip(ip) => *ip == address(0),
        Member::IpPort(ip, protocol, port) => first(ip, protocol, *port),
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
