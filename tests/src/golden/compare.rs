//! Comparing two dumps, with differences that a person can read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};

use super::{Blocks, Chains, Dump};

/// A part of a dump that can be compared by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Virtual and real servers.
    Ipvs,
    /// `kube-ipvs0` and its addresses.
    Addresses,
    /// Sets and members.
    Sets,
    /// Rules of both families.
    Rules,
    /// Kernel settings.
    Sysctls,
    /// Health check answers.
    Health,
}

/// Chains whose rules kube-proxy writes in random order.
const UNORDERED: [&str; 1] = ["KUBE-IPVS-OUT-FILTER"];

// === impl Part ===

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ipvs, Self::Addresses, Self::Sets, Self::Rules, Self::Sysctls, Self::Health];
}

/// What differs in these parts, empty when nothing does. `-` is expected and missing, `+` is there
/// and not expected.
pub fn compare(expected: &Dump, actual: &Dump, parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Ipvs => blocks(&mut text, "virtual server", &expected.ipvs, &actual.ipvs),
            Part::Sets => blocks(&mut text, "set", &expected.sets, &actual.sets),
            Part::Addresses => {
                lines(&mut text, "kube-ipvs0", &expected.addresses, &actual.addresses);
            }
            Part::Rules => {
                chains(&mut text, "iptables nat", &expected.nat4, &actual.nat4);
                chains(&mut text, "iptables filter", &expected.filter4, &actual.filter4);
                chains(&mut text, "ip6tables nat", &expected.nat6, &actual.nat6);
                chains(&mut text, "ip6tables filter", &expected.filter6, &actual.filter6);
            }
            Part::Sysctls => map(&mut text, "sysctl", &expected.sysctls, &actual.sysctls),
            Part::Health => map(&mut text, "health", &expected.health, &actual.health),
        }
    }
    text
}

/// Removes rules that match a set which is empty in `expected`, from both dumps: such a rule may be
/// there or not, nothing passes it.
pub fn ignore_rules_of_empty_sets(expected: &mut Dump, actual: &mut Dump) {
    let empty: BTreeSet<String> = expected
        .sets
        .iter()
        .filter(|(_, members)| members.is_empty())
        .filter_map(|(head, _)| head.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    for dump in [expected, actual] {
        for table in [&mut dump.nat4, &mut dump.filter4, &mut dump.nat6, &mut dump.filter6] {
            for rules in table.0.values_mut() {
                rules.retain(|rule| set_of(rule).is_none_or(|set| !empty.contains(set)));
            }
        }
    }
}

/// The set that a rule matches.
fn set_of(rule: &str) -> Option<&str> {
    rule.split_whitespace().skip_while(|word| *word != "--match-set").nth(1)
}

fn blocks(text: &mut String, what: &str, expected: &Blocks, actual: &Blocks) {
    // A changed head (another scheduler, say) shows as one missing and one unexpected block.
    for head in expected.keys().chain(actual.keys()).collect::<BTreeSet<_>>() {
        match (expected.get(head), actual.get(head)) {
            (Some(members), None) => {
                section(text, &format!("missing {what}: {head}"), members, &[]);
            }
            (None, Some(members)) => {
                section(text, &format!("unexpected {what}: {head}"), &[], members);
            }
            (Some(wanted), Some(found)) => section(text, head, wanted, found),
            (None, None) => {}
        }
    }
}

fn lines(text: &mut String, what: &str, expected: &BTreeSet<String>, actual: &BTreeSet<String>) {
    let sequence = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    section(text, what, &sequence(expected), &sequence(actual));
}

fn map(
    text: &mut String,
    what: &str,
    expected: &BTreeMap<String, String>,
    actual: &BTreeMap<String, String>,
) {
    for key in expected.keys().chain(actual.keys()).collect::<BTreeSet<_>>() {
        let (wanted, found) = (expected.get(key), actual.get(key));
        if wanted != found {
            append(text, format_args!("{what} {key}"));
            let show = |text: &mut String, sign, value: Option<&String>| {
                for line in value.map_or("(none)", String::as_str).lines() {
                    append(text, format_args!("    {sign} {line}"));
                }
            };
            show(text, '-', wanted);
            show(text, '+', found);
        }
    }
}

fn chains(text: &mut String, table: &str, expected: &Chains, actual: &Chains) {
    for name in expected.0.keys().chain(actual.0.keys()).collect::<BTreeSet<_>>() {
        let head = format!("{table}, chain {name}");
        match (expected.0.get(name), actual.0.get(name)) {
            // A built-in chain without a jump is the same as none.
            (Some(rules), None) if name.starts_with("KUBE-") => {
                section(text, &format!("missing: {head}"), rules, &[]);
            }
            (None, Some(rules)) if name.starts_with("KUBE-") => {
                section(text, &format!("unexpected: {head}"), &[], rules);
            }
            (wanted, found) => {
                let (mut wanted, mut found) =
                    (wanted.cloned().unwrap_or_default(), found.cloned().unwrap_or_default());
                if UNORDERED.contains(&name.as_str()) {
                    wanted.sort();
                    found.sort();
                }
                section(text, &head, &wanted, &found);
            }
        }
    }
}

/// Writes a headline and the differing lines, or nothing if both are equal.
fn section(text: &mut String, head: &str, expected: &[String], actual: &[String]) {
    let announced = head.starts_with("missing") || head.starts_with("unexpected");
    if expected == actual && !announced {
        return;
    }
    append(text, format_args!("{head}"));
    let (missing, unexpected) = (without(expected, actual), without(actual, expected));
    list(text, '-', &missing);
    list(text, '+', &unexpected);
    if missing.is_empty() && unexpected.is_empty() && !announced {
        append(text, format_args!("    the same in another order; expected and found:"));
        list(text, '-', expected);
        list(text, '+', actual);
    }
}

fn list(text: &mut String, sign: char, lines: &[String]) {
    for line in lines {
        append(text, format_args!("    {sign} {line}"));
    }
}

/// `left` without what `right` has, counting duplicates.
fn without(left: &[String], right: &[String]) -> Vec<String> {
    let mut rest: Vec<&String> = right.iter().collect();
    let mut only = Vec::new();
    for line in left {
        match rest.iter().position(|other| *other == line) {
            Some(place) => drop(rest.swap_remove(place)),
            None => only.push(line.clone()),
        }
    }
    only
}

fn append(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{blocks, ipset_save};

    fn rules(text: &str) -> Chains {
        Chains::parse(text)
    }

    #[test]
    fn equal_dumps_have_no_difference() {
        let dump = Dump { ipvs: blocks("-A -t 10.0.0.1:80 -s rr\n"), ..Dump::default() };
        assert_eq!(compare(&dump, &dump.clone(), &Part::ALL), "");
    }

    #[test]
    fn a_missing_and_an_unexpected_real_server_are_named() {
        let dump = |port| Dump {
            ipvs: blocks(&format!(
                "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:{port} -m -w 1\n"
            )),
            ..Dump::default()
        };
        let text = compare(&dump(1), &dump(2), &[Part::Ipvs]);
        assert_eq!(
            text,
            "-A -t 10.0.0.1:80 -s rr\n    - -a -t 10.0.0.1:80 -r 10.1.0.1:1 -m -w 1\n    \
             + -a -t 10.0.0.1:80 -r 10.1.0.1:2 -m -w 1\n"
        );
    }

    #[test]
    fn an_empty_virtual_server_too_many_is_a_difference() {
        let dump = Dump { ipvs: blocks("-A -t 10.0.0.1:80 -s rr\n"), ..Dump::default() };
        assert_eq!(
            compare(&Dump::default(), &dump, &[Part::Ipvs]),
            "unexpected virtual server: -A -t 10.0.0.1:80 -s rr\n"
        );
        assert_eq!(
            compare(&dump, &Dump::default(), &[Part::Ipvs]),
            "missing virtual server: -A -t 10.0.0.1:80 -s rr\n"
        );
    }

    #[test]
    fn the_order_of_rules_matters_except_where_it_is_random() {
        let dump = |chain: &str, order: [&str; 2]| Dump {
            nat4: rules(&format!("-A {chain} -j {}\n-A {chain} -j {}\n", order[0], order[1])),
            ..Dump::default()
        };
        let differs = |chain| {
            !compare(&dump(chain, ["A", "B"]), &dump(chain, ["B", "A"]), &[Part::Rules]).is_empty()
        };
        assert!(differs("KUBE-SERVICES"));
        assert!(!differs("KUBE-IPVS-OUT-FILTER"));
    }

    #[test]
    fn a_rule_may_be_missing_only_if_its_set_is_empty() {
        let sets = ipset_save("create EMPTY hash:ip\ncreate FULL hash:ip\nadd FULL 10.0.0.1\n");
        let with = rules(
            ":KUBE-X -\n-A KUBE-X -m set --match-set EMPTY dst -j RETURN\n-A KUBE-X -m set --match-set FULL dst -j RETURN\n",
        );
        let mut expected = Dump { sets: sets.clone(), nat4: with.clone(), ..Dump::default() };
        let mut actual = Dump {
            sets: sets.clone(),
            nat4: rules(":KUBE-X -\n-A KUBE-X -m set --match-set FULL dst -j RETURN\n"),
            ..Dump::default()
        };
        ignore_rules_of_empty_sets(&mut expected, &mut actual);
        assert_eq!(compare(&expected, &actual, &Part::ALL), "");

        let mut expected = Dump { sets: sets.clone(), nat4: with, ..Dump::default() };
        let mut actual = Dump { sets, nat4: rules(":KUBE-X -\n"), ..Dump::default() };
        ignore_rules_of_empty_sets(&mut expected, &mut actual);
        assert!(compare(&expected, &actual, &Part::ALL).contains("FULL"));
    }

    #[test]
    fn duplicates_are_counted() {
        let line = |n: usize| vec!["x".to_owned(); n];
        assert_eq!(without(&line(3), &line(1)), line(2));
    }
}
