//! The text of `nft list table` as rules, with the sets that it has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;

use super::Flow;
use super::rules::{
    Base, Hook, Marks, Match, Matches, Rule, Rules, Target, Verdict, bits, parsed, words,
};

/// A part of a packet that is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Source,
    Destination,
    Protocol,
    Port,
}

/// A set with its elements.
#[derive(Debug)]
pub(super) struct Set {
    types: Vec<String>,
    /// Elements have networks.
    interval: bool,
    elements: Vec<Vec<Part>>,
    /// Of a map, in the order of the elements.
    marks: Vec<u32>,
}

#[derive(Debug)]
enum Part {
    Address(IpNet),
    Protocol(String),
    Port(u16),
}

impl Set {
    /// Whether these fields of a packet are an element.
    pub(super) fn has(&self, fields: &[Field], flow: &Flow) -> bool {
        self.find(fields, flow).is_some()
    }

    /// The mark of destination, protocol and port of a packet.
    pub(super) fn mark(&self, flow: &Flow) -> Option<u32> {
        let at = self.find(&[Field::Destination, Field::Protocol, Field::Port], flow)?;
        Some(self.marks[at])
    }

    fn find(&self, fields: &[Field], flow: &Flow) -> Option<usize> {
        let is = |field: &Field, part: &Part| match (field, part) {
            (Field::Source, Part::Address(net)) => net.contains(&flow.source),
            (Field::Destination, Part::Address(net)) => net.contains(&flow.destination),
            (Field::Protocol, Part::Protocol(name)) => flow.protocol.to_string() == *name,
            (Field::Port, Part::Port(port)) => flow.port == *port,
            other => panic!("{other:?} are compared"),
        };
        self.elements
            .iter()
            .position(|element| fields.iter().zip(element).all(|(field, part)| is(field, part)))
    }

    fn element(&self, text: &str) -> Vec<Part> {
        let parts: Vec<&str> = text.split(" . ").collect();
        assert_eq!(parts.len(), self.types.len(), "{text} in a set of {:?}", self.types);
        let part = |(kind, text): (&String, &&str)| match kind.as_str() {
            "inet_proto" => Part::Protocol((*text).to_owned()),
            "inet_service" => Part::Port(parsed(text)),
            kind => {
                let net = if self.interval { network(text) } else { parsed::<IpAddr>(text).into() };
                assert_eq!(net.addr().is_ipv4(), kind == "ipv4_addr", "{text} as {kind}");
                Part::Address(net)
            }
        };
        self.types.iter().zip(&parts).map(part).collect()
    }
}

/// A network, or one address.
fn network(text: &str) -> IpNet {
    if text.contains('/') { parsed(text) } else { parsed::<IpAddr>(text).into() }
}

/// # Panics
/// On what it does not know: a rule that is passed over would be a lie.
pub(super) fn parse(text: &str) -> Rules {
    let mut table = Table::default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["table", family, _, "{"] => family.clone_into(&mut table.family),
            ["set" | "map", name, "{"] => table.read_set(name, &mut lines),
            ["chain", name, "{"] => table.read_chain(name, &mut lines),
            ["comment", _] | ["}"] => {}
            _ => panic!("{line} in a table"),
        }
    }
    Rules::new(table.base, table.chains)
}

#[derive(Default)]
struct Table {
    family: String,
    sets: HashMap<String, Rc<Set>>,
    base: Vec<Base>,
    chains: HashMap<String, Vec<Rule>>,
}

impl Table {
    fn read_set<'a>(&mut self, name: &str, lines: &mut impl Iterator<Item = &'a str>) {
        let (types, elements, marks) = (Vec::new(), Vec::new(), Vec::new());
        let mut set = Set { types, interval: false, elements, marks };
        let mut is_open = false;
        for line in lines {
            let elements = if is_open { Some(line) } else { line.strip_prefix("elements = { ") };
            if let Some(elements) = elements {
                let all = elements.strip_suffix(" }");
                is_open = all.is_none();
                let several = all.unwrap_or(elements).trim_end_matches(',').split(", ");
                for text in several {
                    let (key, mark) = text.split_once(" : ").unwrap_or((text, ""));
                    set.elements.push(set.element(key));
                    set.marks.extend((!mark.is_empty()).then(|| bits(mark)));
                }
            } else if let Some(types) = line.strip_prefix("type ") {
                let key = types.strip_suffix(" : mark").unwrap_or(types);
                set.types = key.split(" . ").map(str::to_owned).collect();
            } else if line == "flags interval" {
                set.interval = true;
            } else if line == "}" {
                break;
            } else {
                let known = ["comment ", "timeout "];
                assert!(known.iter().any(|it| line.starts_with(it)), "{line} in a set");
            }
        }
        assert!(self.sets.insert(name.to_owned(), Rc::new(set)).is_none(), "two sets {name}");
    }

    fn read_chain<'a>(&mut self, name: &str, lines: &mut impl Iterator<Item = &'a str>) {
        let mut rules = Vec::new();
        for line in lines.take_while(|line| *line != "}") {
            let words = words(line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match words[..] {
                ["comment", _] => {}
                ["type", kind, "hook", hook, "priority", priority, "policy", "accept;"] => {
                    self.base.push(base(name, kind, hook, priority));
                }
                _ => rules.push(self.rule(&words)),
            }
        }
        assert!(self.chains.insert(name.to_owned(), rules).is_none(), "two chains {name}");
    }

    fn rule(&self, mut words: &[&str]) -> Rule {
        let all = words;
        let mut matches = Vec::new();
        let target = loop {
            if let Some((target, rest)) = self.target(words) {
                assert!(matches!(rest, [] | ["comment", _]), "{rest:?} at the end of a rule");
                break target;
            }
            let (more, rest) =
                self.matches(words).unwrap_or_else(|| panic!("{words:?} in {all:?}"));
            matches.extend(more);
            words = rest;
        };
        Rule { matches, target }
    }

    fn target<'w, 't>(&self, words: &'w [&'t str]) -> Option<(Target, &'w [&'t str])> {
        let ["meta", "mark", "set", ip, "daddr", rest @ ..] = words else { return target(words) };
        let [".", "meta", "l4proto", ".", "th", "dport", "map", name, rest @ ..] = rest else {
            return None;
        };
        assert_eq!(*ip, self.family);
        let map = self.sets.get(name.strip_prefix('@')?).unwrap_or_else(|| panic!("no map {name}"));
        Some((Target::MarkOf(Marks::Map(Rc::clone(map))), rest))
    }

    /// The first match of a rule, and the words after it.
    fn matches<'w, 't>(&self, words: &'w [&'t str]) -> Option<(Matches, &'w [&'t str])> {
        let (wanted, it, rest) = match words {
            ["iifname", name, rest @ ..] if *name != "!=" => {
                (true, Match::Interface((*name).into()), rest)
            }
            ["iifname", "!=", name, rest @ ..] => (false, Match::Interface((*name).into()), rest),
            ["icmp" | "icmpv6", "type", "echo-request", rest @ ..] => (true, Match::Ping, rest),
            ["fib", side, "type", "!=", "local", rest @ ..] => (false, local(side)?, rest),
            ["fib", side, "type", "local", rest @ ..] => (true, local(side)?, rest),
            ["meta", "mark", "&", mask, how @ ("==" | "!="), value, rest @ ..] => {
                (*how == "==", Match::Mark(bits(value), bits(mask)), rest)
            }
            ["ct", "state", "new", rest @ ..] => (true, Match::New, rest),
            ["ct", "state", "established,related", rest @ ..] => (true, Match::Known, rest),
            _ => return self.key(words),
        };
        Some((vec![(wanted, it)], rest))
    }

    /// Fields of a packet, and with what they are compared.
    fn key<'w, 't>(&self, mut words: &'w [&'t str]) -> Option<(Matches, &'w [&'t str])> {
        let (mut matches, mut fields) = (Vec::new(), Vec::new());
        loop {
            let [header, name, rest @ ..] = words else { return None };
            fields.push(match (*header, *name) {
                (ip, "saddr") if ip == self.family => Field::Source,
                (ip, "daddr") if ip == self.family => Field::Destination,
                ("meta", "l4proto") => Field::Protocol,
                ("th", "dport") => Field::Port,
                // A header that only packets of this protocol have.
                (protocol @ ("tcp" | "udp" | "sctp"), "dport") => {
                    matches.push((true, Match::Protocol(protocol.to_owned())));
                    Field::Port
                }
                _ => return None,
            });
            let [".", more @ ..] = rest else {
                words = rest;
                break;
            };
            words = more;
        }
        let (wanted, words) = match words {
            ["!=", rest @ ..] => (false, rest),
            _ => (true, words),
        };
        let [value, rest @ ..] = words else { return None };
        let it = match value.strip_prefix('@') {
            Some(set) => self.element(fields, set),
            None if fields == [Field::Source] => Match::Source(network(value)),
            None => return None,
        };
        matches.push((wanted, it));
        Some((matches, rest))
    }

    fn element(&self, fields: Vec<Field>, name: &str) -> Match {
        let set = self.sets.get(name).unwrap_or_else(|| panic!("no set {name}"));
        let kinds = fields.iter().map(|field| match (field, self.family.as_str()) {
            (Field::Protocol, _) => "inet_proto",
            (Field::Port, _) => "inet_service",
            (_, "ip") => "ipv4_addr",
            _ => "ipv6_addr",
        });
        assert!(kinds.eq(set.types.iter().map(String::as_str)), "{fields:?} are no key of {name}");
        Match::Element(fields, Rc::clone(set))
    }
}

fn base(name: &str, kind: &str, hook: &str, priority: &str) -> Base {
    let hook = match hook {
        "prerouting" => Hook::Prerouting,
        "input" => Hook::Input,
        "forward" => Hook::Forward,
        "output" => Hook::Output,
        "postrouting" => Hook::Postrouting,
        _ => panic!("hook {hook}"),
    };
    let priority = match priority.trim_end_matches(';') {
        "mangle" => -150,
        "dstnat" => -100,
        "filter" => 0,
        "srcnat" => 100,
        number => parsed(number),
    };
    assert!(matches!(kind, "nat" | "filter"), "type {kind}");
    Base { hook, priority, is_nat: kind == "nat", chain: name.to_owned() }
}

fn local(side: &str) -> Option<Match> {
    match side {
        "saddr" => Some(Match::SourceLocal),
        "daddr" => Some(Match::DestinationLocal),
        _ => None,
    }
}

/// What a rule does, if nothing else comes before it, and the words after that.
fn target<'w, 't>(words: &'w [&'t str]) -> Option<(Target, &'w [&'t str])> {
    Some(match words {
        ["accept", rest @ ..] => (Target::End(Verdict::Accept), rest),
        ["drop", rest @ ..] => (Target::End(Verdict::Drop), rest),
        ["reject", rest @ ..] => (Target::End(Verdict::Reject), rest),
        ["masquerade", "fully-random", rest @ ..] | ["masquerade", rest @ ..] => {
            (Target::End(Verdict::Masquerade), rest)
        }
        ["return", rest @ ..] => (Target::Return, rest),
        ["jump", chain, rest @ ..] => (Target::Chain((*chain).to_owned()), rest),
        ["meta", "mark", "set", "meta", "mark", how @ ("|" | "^"), mask, rest @ ..] => {
            let turned = bits(mask);
            (Target::Mark { cleared: if *how == "|" { turned } else { 0 }, turned }, rest)
        }
        _ => return None,
    })
}
