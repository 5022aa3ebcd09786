//! One rule and its words.

use std::borrow::Cow;
use std::fmt::Write as _;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::save::{canonical, quoted, words};
use crate::dataplane::firewall::{Chain, Fields, Jump, Match, Rule, Table, Verdict};
use crate::dataplane::sets::{SetId, SetRole};

/// A jump without the `-A CHAIN`.
pub(super) fn jump_spec(jump: &Jump) -> String {
    format!("-m comment --comment {} -j {}", quoted(jump.comment), jump.to)
}

/// A rule without the `-A CHAIN`, as `iptables-save` of today prints it.
pub(super) fn spec(family: Family, rule: &Rule) -> String {
    let mut out = String::new();
    // What every packet has comes before what modules look at, and the comment is a module.
    for it in &rule.matches {
        header(family, it, &mut out);
    }
    if let Some(comment) = &rule.comment {
        let _ = write!(out, "-m comment --comment {} ", quoted(comment));
    }
    for it in &rule.matches {
        module(family, it, &mut out);
    }
    let _ = write!(out, "-j {}", target(family, rule.verdict));
    out
}

fn header(family: Family, it: &Match, out: &mut String) {
    let _ = match it {
        Match::Source(net) => write!(out, "-s {net} "),
        Match::NotSource(net) => write!(out, "! -s {net} "),
        Match::Interface(name) => write!(out, "-i {name} "),
        Match::NotInterface(name) => write!(out, "! -i {name} "),
        Match::Protocol(protocol) => write!(out, "-p {protocol} "),
        Match::EchoRequest => write!(out, "-p {} ", echo(family).0),
        _ => Ok(()),
    };
}

fn module(family: Family, it: &Match, out: &mut String) {
    let _ = match *it {
        Match::EchoRequest => write!(out, "{} ", echo(family).1),
        Match::Set(role, fields) => {
            write!(out, "-m set --match-set {} {} ", role.of(family), flags(fields))
        }
        Match::NotBridged => write!(out, "-m physdev ! --physdev-is-in "),
        Match::SourceLocal(true) => write!(out, "-m addrtype --src-type LOCAL "),
        Match::SourceLocal(false) => write!(out, "-m addrtype ! --src-type LOCAL "),
        Match::DestinationLocal => write!(out, "-m addrtype --dst-type LOCAL "),
        Match::Mark(bits, set) => {
            write!(out, "-m mark {}--mark {bits:#x}/{bits:#x} ", if set { "" } else { "! " })
        }
        Match::New => write!(out, "-m conntrack --ctstate NEW "),
        Match::Known => write!(out, "-m conntrack --ctstate RELATED,ESTABLISHED "),
        Match::VirtualServer(VirtualServerKey::Address { address, port, protocol }) => {
            write!(out, "-m ipvs --vproto {} --vaddr {address} --vport {port} ", protocol.number())
        }
        _ => Ok(()),
    };
}

/// Protocol, and match, of an echo request.
fn echo(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Ipv4 => ("icmp", "-m icmp --icmp-type 8"),
        Family::Ipv6 => ("ipv6-icmp", "-m icmp6 --icmpv6-type 128"),
    }
}

fn flags(fields: Fields) -> &'static str {
    match fields {
        Fields::Dst => "dst",
        Fields::Src => "src",
        Fields::DstDst => "dst,dst",
        Fields::SrcDst => "src,dst",
        Fields::DstDstSrc => "dst,dst,src",
    }
}

fn target(family: Family, verdict: Verdict) -> Cow<'static, str> {
    match verdict {
        Verdict::Accept => "ACCEPT".into(),
        Verdict::Drop => "DROP".into(),
        Verdict::Return => "RETURN".into(),
        Verdict::Jump(chain) => chain.name().into(),
        Verdict::SetMark(bits) => format!("MARK --set-xmark {bits:#x}/{bits:#x}").into(),
        Verdict::ToggleMark(bits) => format!("MARK --set-xmark {bits:#x}/0x0").into(),
        Verdict::MarkOf(role) => {
            format!("SET --map-set {} dst,dst --map-mark", role.of(family)).into()
        }
        Verdict::Masquerade { random_fully: true } => "MASQUERADE --random-fully".into(),
        Verdict::Masquerade { random_fully: false } => "MASQUERADE".into(),
        Verdict::Reject => match family {
            Family::Ipv4 => "REJECT --reject-with icmp-port-unreachable".into(),
            Family::Ipv6 => "REJECT --reject-with icmp6-port-unreachable".into(),
        },
    }
}

/// A rule of one of our chains as it was read, in the usual spelling if it is none of ours.
pub(super) fn read(family: Family, table: Table, text: &str) -> Result<Rule, String> {
    let usual = canonical(text);
    match understand(family, table, &usual) {
        // Nothing was misunderstood that says the same again.
        Some(rule) if canonical(&spec(family, &rule)) == usual => Ok(rule),
        _ => Err(usual),
    }
}

/// What these words can only mean, if they are a rule of ours.
fn understand(family: Family, table: Table, spec: &str) -> Option<Rule> {
    let words = words(spec);
    let mut words = words.iter().map(String::as_str);
    let (mut comment, mut matches, mut verdict, mut not) = (None, Vec::new(), None, false);
    let mut server = (None, None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next();
        let it = match word {
            "!" => {
                not = true;
                continue;
            }
            // What these say follows from the rest of a rule of ours.
            "-m" | "--reject-with" | "--icmp-type" | "--icmpv6-type" => {
                value();
                continue;
            }
            "--random-fully" => {
                verdict = Some(Verdict::Masquerade { random_fully: true });
                continue;
            }
            "--comment" => {
                comment = Some(Cow::Owned(value()?.to_owned()));
                continue;
            }
            "-j" => {
                verdict = Some(understand_target(table, value()?)?);
                continue;
            }
            "--set-xmark" => {
                let (bits, mask) = value()?.split_once('/')?;
                let bits = bits_of(bits)?;
                verdict = Some(match mask {
                    "0x0" => Verdict::ToggleMark(bits),
                    _ => Verdict::SetMark(bits),
                });
                continue;
            }
            "--map-set" => {
                let role = SetId::by_name(value()?).filter(|set| set.family == family)?.role;
                value();
                verdict = Some(Verdict::MarkOf(role));
                continue;
            }
            "--map-mark" => continue,
            "--vproto" => {
                server.0 = Some(Protocol::from_number(value()?.parse().ok()?));
                continue;
            }
            "--vaddr" => {
                server.1 = Some(value()?.parse().ok()?);
                continue;
            }
            "--vport" => {
                server.2 = Some(value()?.parse().ok()?);
                let key = VirtualServerKey::new(server.1?, server.2?, server.0?);
                Match::VirtualServer(key)
            }
            "-s" if not => Match::NotSource(value()?.parse().ok()?),
            "-s" => Match::Source(value()?.parse().ok()?),
            "-i" if not => Match::NotInterface(value()?.to_owned()),
            "-i" => Match::Interface(value()?.to_owned()),
            "-p" => match value()? {
                "tcp" => Match::Protocol(Protocol::Tcp),
                "udp" => Match::Protocol(Protocol::Udp),
                "sctp" => Match::Protocol(Protocol::Sctp),
                _ => Match::EchoRequest,
            },
            "--match-set" => {
                let role = SetId::by_name(value()?).filter(|set| set.family == family)?.role;
                let flags_read = value()?;
                Match::Set(
                    role,
                    Fields::ALL.into_iter().find(|fields| flags(*fields) == flags_read)?,
                )
            }
            "--physdev-is-in" => Match::NotBridged,
            "--src-type" => Match::SourceLocal((value()? == "LOCAL") != not),
            "--dst-type" => {
                value();
                Match::DestinationLocal
            }
            "--mark" => Match::Mark(bits_of(value()?.split_once('/')?.0)?, !not),
            "--ctstate" if value()? == "NEW" => Match::New,
            "--ctstate" => Match::Known,
            _ => return None,
        };
        matches.push(it);
        not = false;
    }
    Some(Rule { comment, matches, verdict: verdict? })
}

fn understand_target(table: Table, name: &str) -> Option<Verdict> {
    Some(match name {
        "ACCEPT" => Verdict::Accept,
        "DROP" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "REJECT" => Verdict::Reject,
        "MASQUERADE" => Verdict::Masquerade { random_fully: false },
        "MARK" => Verdict::SetMark(0),
        // Which set follows.
        "SET" => Verdict::MarkOf(SetRole::LocalMark),
        name => Verdict::Jump(Chain::by_name(table, name)?),
    })
}

fn bits_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
