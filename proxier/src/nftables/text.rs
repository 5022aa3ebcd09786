//! Our table as `nft list table` prints it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::names::{self, Place, WAY, chain_name, set_name};
use crate::dataplane::firewall::{
    Chain, Entry, Fields, Hook, JUMPS, Match, Rule, Ruleset, Table, Verdict,
};
use crate::dataplane::sets::{Member, SetId, SetRole, SetType};
use crate::dataplane::{Op, State};

/// What `nft list table` prints of the table of a family, members in order; nothing if there is
/// none.
pub fn table_text(state: &State, family: Family) -> String {
    let Some(rules) = state.firewall.get(&family) else { return String::new() };
    let ip = ip(family);
    let mut out = String::new();
    let comment = super::new_table(family).comment.unwrap_or_default();
    let _ = writeln!(out, "table {ip} {} {{\n\tcomment \"{comment}\"", names::TABLE);
    for role in SetRole::ALL {
        let Some(set) = state.sets.get(&role.of(family)) else { continue };
        let new = super::new_set(role.of(family));
        let elements = set.members.iter().map(element);
        push_set(&mut out, &new, &elements.collect::<Vec<_>>());
    }
    let refused = rules.dropped().iter().filter_map(refused_text);
    push_set(&mut out, &super::new_refused_set(family), &refused.collect::<Vec<_>>());
    let there = |place: &&Place| match place {
        Place::Base(table, hook) => {
            super::jumps(*table, *hook).any(|jump| super::wanted(rules, jump.to))
        }
        Place::Ours(chain) => super::wanted(rules, *chain),
    };
    for (at, place) in WAY.iter().filter(there).enumerate() {
        if at > 0 {
            out.push('\n');
        }
        match place {
            Place::Base(table, hook) => push_base(&mut out, rules, *table, *hook),
            Place::Ours(chain) => push_chain(&mut out, family, rules, *chain),
        }
    }
    out.push_str("}\n");
    out
}

/// What an operation does to the table, as one would tell `nft`, with what is there of the rules. `None` if it
/// is not about the table.
pub fn commands(op: &Op, there: Option<&Ruleset>) -> Option<Vec<String>> {
    let of = |set: SetId| format!("{} {} {}", ip(set.family), names::TABLE, set_name(set.role));
    Some(match op {
        Op::CreateSet(set, _) => vec![format!("add set {}", of(*set))],
        Op::AddMember(set, member) => {
            vec![format!("add element {} {{ {} }}", of(*set), element(member))]
        }
        Op::RemoveMember(set, member) => {
            vec![format!("delete element {} {{ {} }}", of(*set), element(member))]
        }
        Op::RenewMembers(set, _) => vec![format!("renew elements of set {}", of(*set))],
        Op::RemoveForeignMembers(set, members) => {
            let line = |member| format!("delete element {} {{ {member} }}", of(*set));
            members.iter().map(line).collect()
        }
        Op::InstallFirewall(_, rules) => rules_difference(there, rules),
        _ => return None,
    })
}

/// The rules that are missing, and those that are too many.
fn rules_difference(there: Option<&Ruleset>, wanted: &Ruleset) -> Vec<String> {
    let table = format!("{} {}", ip(wanted.family()), names::TABLE);
    let Some(there) = there else { return vec![format!("add table {table}")] };
    let (old, new) = (rule_lines(there), rule_lines(wanted));
    let missing = |from: &BTreeSet<String>, of: &BTreeSet<String>, verb: &str| -> Vec<String> {
        let lines = of.difference(from);
        lines.map(|line| format!("{verb} {line}")).collect()
    };
    let mut out = missing(&new, &old, "delete");
    out.append(&mut missing(&old, &new, "add"));
    if out.is_empty() {
        // The order, or something that has no words here.
        out.push(format!("replace the rules of table {table}"));
    }
    out
}

/// Every rule, and every element of the virtual servers that the node may not use, with its place.
fn rule_lines(rules: &Ruleset) -> BTreeSet<String> {
    let family = rules.family();
    let table = format!("{} {}", ip(family), names::TABLE);
    let mut out = BTreeSet::new();
    for chain in Chain::ALL {
        for entry in rules.chain(chain).unwrap_or_default() {
            let text = match entry {
                Entry::Ours(rule) => rule_text(family, rule),
                Entry::Foreign(text) => text.to_string(),
            };
            out.insert(format!("rule {table} {} {text}", chain_name(chain)));
        }
    }
    for (index, jump) in JUMPS.iter().enumerate() {
        let base = names::base_name(jump.to.table(), jump.from);
        let line = format!("rule {table} {base} jump {}", chain_name(jump.to));
        out.extend(rules.has_jump(index).then_some(line));
    }
    let refused = rules.dropped().iter().filter_map(refused_text);
    out.extend(refused.map(|it| format!("element {table} {} {{ {it} }}", names::REFUSED)));
    out
}

fn refused_text(key: &VirtualServerKey) -> Option<String> {
    match *key {
        VirtualServerKey::Address { address, port, protocol } => {
            Some(format!("{address} . {address} . {protocol} . {port}"))
        }
        VirtualServerKey::FirewallMark { .. } => None,
    }
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

fn push_set(out: &mut String, set: &netlink_nftables::Set, elements: &[String]) {
    use netlink_nftables::{DataType, SetFlags};
    let kinds = set.key.iter().map(|part| match part {
        DataType::Ipv4Addr => "ipv4_addr",
        DataType::Ipv6Addr => "ipv6_addr",
        DataType::InetProto => "inet_proto",
        _ => "inet_service",
    });
    let kinds: Vec<_> = kinds.collect();
    let kinds = kinds.join(" . ");
    let _ = match set.data {
        Some(_) => writeln!(out, "\tmap {} {{\n\t\ttype {kinds} : mark", set.name),
        None => writeln!(out, "\tset {} {{\n\t\ttype {kinds}", set.name),
    };
    if set.flags.contains(SetFlags::INTERVAL) {
        out.push_str("\t\tflags interval\n");
    }
    if let Some(timeout) = set.timeout {
        let _ = writeln!(out, "\t\ttimeout {}m", timeout.as_secs() / 60);
    }
    if let Some(comment) = &set.comment {
        let _ = writeln!(out, "\t\tcomment \"{comment}\"");
    }
    if !elements.is_empty() {
        // As many in a line as nft puts there.
        let several = match set.key.as_slice() {
            [DataType::InetService] => 5,
            [DataType::Ipv4Addr] => 2,
            _ => 1,
        };
        let lines: Vec<String> = elements.chunks(several).map(|some| some.join(", ")).collect();
        let _ = writeln!(out, "\t\telements = {{ {} }}", lines.join(",\n\t\t\t     "));
    }
    out.push_str("\t}\n\n");
}

fn element(member: &Member) -> String {
    match member {
        Member::Ip(address) => address.to_string(),
        Member::Port(port) => port.to_string(),
        Member::IpPort(address, protocol, port) | Member::Marked(address, protocol, port, 0) => {
            format!("{address} . {protocol} . {port}")
        }
        Member::Marked(address, protocol, port, mark) => {
            format!("{address} . {protocol} . {port} : {mark:#010x}")
        }
        Member::IpPortIp(address, protocol, port, second) => {
            format!("{address} . {protocol} . {port} . {second}")
        }
        Member::IpPortNet(address, protocol, port, net) => {
            format!("{address} . {protocol} . {port} . {}", network(net))
        }
    }
}

/// A network; one address has no length.
fn network(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn push_base(out: &mut String, rules: &Ruleset, table: Table, hook: Hook) {
    let priority = match (table, hook) {
        (Table::Nat, Hook::Postrouting) => "srcnat",
        (Table::Nat, Hook::Output) => "-100",
        (Table::Nat, _) => "dstnat",
        (Table::Mangle, _) | (Table::Filter, Hook::Output) => "mangle",
        (Table::Filter, _) => "filter",
    };
    let name = names::base_name(table, hook);
    let hook_name = hook.name().to_ascii_lowercase();
    let kind = if table == Table::Nat { "nat" } else { "filter" };
    let _ = writeln!(
        out,
        "\tchain {name} {{\n\t\ttype {kind} hook {hook_name} priority {priority}; policy accept;"
    );
    for jump in super::jumps(table, hook) {
        let there = JUMPS.iter().position(|it| it == jump);
        if there.is_some_and(|index| rules.has_jump(index)) {
            let _ = writeln!(out, "\t\tjump {} comment \"{}\"", chain_name(jump.to), jump.comment);
        }
    }
    out.push_str("\t}\n");
}

fn push_chain(out: &mut String, family: Family, rules: &Ruleset, chain: Chain) {
    let Some(entries) = rules.chain(chain) else { return };
    let _ =
        writeln!(out, "\tchain {} {{\n\t\tcomment \"{}\"", chain_name(chain), names::about(chain));
    for entry in entries {
        let text = match entry {
            Entry::Ours(rule) => rule_text(family, rule),
            Entry::Foreign(text) => text.to_string(),
        };
        let _ = writeln!(out, "\t\t{text}");
    }
    if chain == Chain::IpvsOutFilter {
        let ip = ip(family);
        let _ = writeln!(
            out,
            "\t\t{ip} saddr . {ip} daddr . meta l4proto . th dport @{} drop",
            names::REFUSED
        );
    }
    out.push_str("\t}\n");
}

/// A rule in nft's words.
pub(super) fn rule_text(family: Family, rule: &Rule) -> String {
    let ip = ip(family);
    let mut words = Vec::new();
    let mut protocol: Option<Protocol> = None;
    for it in &rule.matches {
        words.push(match it {
            Match::Source(net) => format!("{ip} saddr {}", network(net)),
            Match::NotSource(net) => format!("{ip} saddr != {}", network(net)),
            Match::Interface(name) => format!("iifname \"{}\"", name.replace('+', "*")),
            Match::NotInterface(name) => {
                format!("iifname != \"{}\"", name.replace('+', "*"))
            }
            // nft says it with the port.
            Match::Protocol(of) => {
                protocol = Some(*of);
                continue;
            }
            Match::EchoRequest => match family {
                Family::Ipv4 => "icmp type echo-request".to_owned(),
                Family::Ipv6 => "icmpv6 type echo-request".to_owned(),
            },
            Match::Set(set, fields) => {
                let port = protocol.map_or_else(|| "th".to_owned(), |it| it.to_string());
                let key = match (fields, set.set_type()) {
                    (Fields::Dst, SetType::BitmapPort) => format!("{port} dport"),
                    (Fields::Dst, _) => format!("{ip} daddr"),
                    (Fields::Src, _) => format!("{ip} saddr"),
                    (Fields::DstDst, _) => format!("{ip} daddr . meta l4proto . th dport"),
                    (Fields::SrcDst, _) => format!("{ip} saddr . meta l4proto . th dport"),
                    (Fields::DstDstSrc, _) => {
                        format!("{ip} daddr . meta l4proto . th dport . {ip} saddr")
                    }
                };
                format!("{key} @{}", set_name(*set))
            }
            Match::SourceLocal(true) => "fib saddr type local".to_owned(),
            Match::SourceLocal(false) => "fib saddr type != local".to_owned(),
            Match::DestinationLocal => "fib daddr type local".to_owned(),
            Match::Mark(bits, set) => {
                let how = if *set { "==" } else { "!=" };
                format!("meta mark & {bits:#010x} {how} {bits:#010x}")
            }
            Match::New => "ct state new".to_owned(),
            Match::Known => "ct state established,related".to_owned(),
            Match::NotBridged | Match::VirtualServer(_) => continue,
        });
    }
    words.push(match rule.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Reject => "reject".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", chain_name(chain)),
        Verdict::SetMark(bits) => format!("meta mark set meta mark | {bits:#010x}"),
        Verdict::ToggleMark(bits) => format!("meta mark set meta mark ^ {bits:#010x}"),
        Verdict::MarkOf(of) => {
            format!("meta mark set {ip} daddr . meta l4proto . th dport map @{}", set_name(of))
        }
        Verdict::Masquerade { random_fully: true } => "masquerade fully-random".to_owned(),
        Verdict::Masquerade { random_fully: false } => "masquerade".to_owned(),
    });
    words.extend(rule.comment.iter().map(|comment| format!("comment \"{comment}\"")));
    words.join(" ")
}
