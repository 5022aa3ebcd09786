//! The text of `iptables-save` as rules.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_ipvs::Protocol;
use proxier::dataplane::sets::{Member, SetId};

use super::Flow;
use super::rules::{Base, Hook, Marks, Match, Rule, Rules, Target, Verdict, bits, parsed, words};

/// The chains that the kernel calls, with their priorities.
const BASE: [(&str, Hook, i32); 8] = [
    ("mangle PREROUTING", Hook::Prerouting, -150),
    ("mangle OUTPUT", Hook::Output, -150),
    ("nat PREROUTING", Hook::Prerouting, -100),
    ("nat OUTPUT", Hook::Output, -100),
    ("nat POSTROUTING", Hook::Postrouting, 100),
    ("filter INPUT", Hook::Input, 0),
    ("filter FORWARD", Hook::Forward, 0),
    ("filter OUTPUT", Hook::Output, 0),
];

/// # Panics
/// On what it does not know: a rule that is passed over would be a lie.
pub(super) fn parse(text: &str) -> Rules {
    let mut chains: HashMap<String, Vec<Rule>> = HashMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().unwrap_or_default();
            chains.entry(format!("{table} {name}")).or_default();
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let chain = format!("{table} {}", words[0]);
            chains.entry(chain).or_default().push(rule(table, &words[1..]));
        }
    }
    let base = BASE.map(|(chain, hook, priority)| Base {
        hook,
        priority,
        is_nat: chain.starts_with("nat"),
        chain: chain.to_owned(),
    });
    Rules::new(base.into(), chains)
}

fn rule(table: &str, words: &[String]) -> Rule {
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
            "--random-fully" | "--map-mark" => continue,
            "-s" => Match::Source(parsed(argument())),
            "-i" => Match::Interface(argument().to_owned()),
            "-p" => Match::Protocol(argument().to_owned()),
            "--match-set" => {
                let name = argument();
                let set = SetId::by_name(name).unwrap_or_else(|| panic!("no set {name}"));
                Match::Member(set, argument().split(',').map(|flag| flag == "src").collect())
            }
            "--src-type" | "--dst-type" => {
                assert_eq!(argument(), "LOCAL");
                if word == "--src-type" { Match::SourceLocal } else { Match::DestinationLocal }
            }
            "--icmp-type" | "--icmpv6-type" => {
                argument();
                Match::Ping
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
            "--map-set" => {
                let name = argument();
                assert_eq!(argument(), "dst,dst");
                let set = SetId::by_name(name).unwrap_or_else(|| panic!("no set {name}"));
                target = Some(Target::MarkOf(Marks::Set(set)));
                continue;
            }
            "--set-xmark" => {
                let (turned, cleared) = value_and_mask(argument());
                target = Some(Target::Mark { cleared, turned });
                continue;
            }
            "-j" => {
                target = match argument() {
                    "MARK" | "SET" => None,
                    "RETURN" => Some(Target::Return),
                    "ACCEPT" => Some(Target::End(Verdict::Accept)),
                    "DROP" => Some(Target::End(Verdict::Drop)),
                    "REJECT" => Some(Target::End(Verdict::Reject)),
                    "MASQUERADE" => Some(Target::End(Verdict::Masquerade)),
                    chain => Some(Target::Chain(format!("{table} {chain}"))),
                };
                continue;
            }
            other => panic!("{other} in a rule"),
        };
        matches.push((wanted, it));
        wanted = true;
    }
    Rule { matches, target: target.unwrap_or_else(|| panic!("a rule without a target")) }
}

fn value_and_mask(text: &str) -> (u32, u32) {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    (bits(value), bits(mask))
}

/// Whether a packet is the member; `sources` says which parts are compared with the sender's.
pub(super) fn in_member(member: &Member, sources: &[bool], flow: &Flow) -> bool {
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
