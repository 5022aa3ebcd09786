//! The rules against what kube-proxy 1.36.2 left in a kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use netlink_ipvs::Protocol;

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn read(directory: &Path, file: &str) -> String {
    let path = directory.join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every directory with a dump, and the configuration that was in force there.
fn dumps() -> Vec<(PathBuf, PathBuf)> {
    let mut out = Vec::new();
    for scenario in fs::read_dir(golden()).unwrap() {
        let scenario = scenario.unwrap().path();
        if !scenario.is_dir() {
            continue;
        }
        if scenario.join("iptables-nat.txt").exists() {
            out.push((scenario.clone(), scenario.join("config.yaml")));
        }
        let mut steps: Vec<PathBuf> =
            fs::read_dir(&scenario).unwrap().map(|entry| entry.unwrap().path()).collect();
        steps.sort();
        let mut config = scenario.join("config.yaml");
        for step in steps.into_iter().filter(|step| step.join("iptables-nat.txt").exists()) {
            if step.join("config.yaml").exists() {
                config = step.join("config.yaml");
            }
            out.push((step, config.clone()));
        }
    }
    out
}

/// What the firewall takes from a configuration.
fn options(family: Family, config: &str) -> FirewallOptions {
    let value = |key: &str| {
        config.lines().find_map(|line| line.trim().strip_prefix(key)).map(|v| v.trim().to_owned())
    };
    let of_family = |list: String| {
        list.split(',')
            .map(|net| net.parse::<IpNet>().unwrap())
            .find(|net| Family::of(net.addr()) == family)
            .map_or(LocalDetector::None, LocalDetector::Cidr)
    };
    let detector = match value("detectLocalMode:").as_deref() {
        // Of the node in that scenario.
        Some("NodeCIDR") => of_family("10.244.0.0/24".into()),
        Some("BridgeInterface") => LocalDetector::Bridge(value("bridgeInterface:").unwrap()),
        Some("InterfaceNamePrefix") => {
            LocalDetector::InterfacePrefix(value("interfaceNamePrefix:").unwrap())
        }
        _ => value("clusterCIDR:").map_or(LocalDetector::None, of_family),
    };
    FirewallOptions {
        masquerade_all: value("masqueradeAll:").as_deref() == Some("true"),
        masquerade_bit: value("masqueradeBit:").map_or(14, |bit| bit.parse().unwrap()),
        detector,
        ..FirewallOptions::default()
    }
}

/// The virtual servers of the drops that a dump has.
fn drops(filter: &str) -> BTreeSet<VirtualServerKey> {
    let of = |words: &[String], flag: &str| {
        words[words.iter().position(|word| word == flag).unwrap() + 1].clone()
    };
    save::lines(filter)
        .filter(|line| line.chain == Chain::IpvsOutFilter.name())
        .filter_map(|line| Some(save::words(line.spec?)))
        .map(|words| {
            let protocol = Protocol::from_number(of(&words, "--vproto").parse().unwrap());
            let address = of(&words, "--vaddr").parse().unwrap();
            VirtualServerKey::new(address, of(&words, "--vport").parse().unwrap(), protocol)
        })
        .collect()
}

/// Names of the sets without members.
fn empty_sets(ipset: &str) -> BTreeSet<&str> {
    let mut out = BTreeSet::new();
    let mut lines = ipset.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with(' ') && !lines.peek().is_some_and(|next| next.starts_with(' ')) {
            out.extend(line.split_whitespace().next());
        }
    }
    out
}

type Chains = BTreeMap<String, Vec<String>>;

/// Our chains and the jumps to them: of foreign chains and rules nothing is expected.
fn chains(table: Table, text: &str) -> Chains {
    let mut out = Chains::new();
    for line in text.lines() {
        if let Some(declaration) = line.strip_prefix(':') {
            let name = declaration.split_whitespace().next().unwrap();
            if is_own(table, name) || table.hooks().iter().any(|hook| hook.name() == name) {
                out.entry(name.to_owned()).or_default();
            }
        } else if let Some((chain, spec)) =
            line.strip_prefix("-A ").and_then(|rule| rule.split_once(' '))
        {
            let ours = is_own(table, chain)
                || table.chains().any(|own| spec.ends_with(&format!("-j {own}")));
            if ours {
                out.entry(chain.to_owned()).or_default().push(spec.to_owned());
            }
        }
    }
    out
}

fn is_own(table: Table, chain: &str) -> bool {
    Chain::by_name(table, chain).is_some()
}

fn without_empty(chains: &Chains, empty: &BTreeSet<&str>) -> Chains {
    let on_empty_set = |spec: &String| {
        let words = save::words(spec);
        let set = words.iter().position(|word| word == "--match-set").map(|i| words[i + 1].clone());
        set.is_some_and(|set| empty.contains(set.as_str()))
    };
    chains
        .iter()
        .map(|(name, rules)| {
            (name.clone(), rules.iter().filter(|rule| !on_empty_set(rule)).cloned().collect())
        })
        .collect()
}

/// Whether `part` is `whole` with some rules left out.
fn is_part(part: &[String], whole: &[String]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|rule| whole.any(|other| other == rule))
}

fn table_text(text: &str, table: Table) -> &str {
    let start = text.find(&format!("*{table}\n")).unwrap();
    let rest = &text[start..];
    &rest[..rest.find("COMMIT\n").unwrap()]
}

#[test]
fn every_scenario_has_kube_proxys_rules() {
    let mut compared = 0;
    for (dump, config) in dumps() {
        let config = fs::read_to_string(config).unwrap();
        let ipset = read(&dump, "ipset.txt");
        let empty = empty_sets(&ipset);
        for (family, tool) in [(Family::Ipv4, "iptables"), (Family::Ipv6, "ip6tables")] {
            let filter = read(&dump, &format!("{tool}-filter.txt"));
            let ours = ruleset(family, &options(family, &config), &drops(&filter));
            for table in [Table::Nat, Table::Filter] {
                let theirs = chains(table, &read(&dump, &format!("{tool}-{table}.txt")));
                let ours = chains(table, table_text(&save_text(&ours), table));
                let place = format!("{} {tool} {table}", dump.display());
                if !dump.ends_with("stale-jumps-and-order") {
                    assert_eq!(
                        without_empty(&ours, &empty),
                        without_empty(&theirs, &empty),
                        "{place}"
                    );
                }
                for (chain, rules) in theirs.iter().filter(|(chain, _)| ours.contains_key(*chain)) {
                    assert!(is_part(rules, &ours[chain]), "{place} {chain}: {rules:#?}");
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 4 * 63, "{compared} tables compared");
}
