//! The rules, the texts for iptables-restore, and what is found in the output of iptables-save.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::*;
use crate::dataplane::firewall::{FirewallOptions, LocalDetector, ruleset};

mod scenarios;

#[test]
fn restore_declares_the_chains_in_kube_proxys_order() {
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    let input = restore_input(&rules, &Installed::parse(Family::Ipv4, ""));
    let declared: Vec<&str> =
        input.lines().filter_map(|line| line.strip_prefix(':')?.strip_suffix(" - [0:0]")).collect();
    assert_eq!(
        declared,
        [
            "KUBE-SERVICES",
            "KUBE-POSTROUTING",
            "KUBE-NODE-PORT",
            "KUBE-LOAD-BALANCER",
            "KUBE-MARK-MASQ",
            "KUBE-FORWARD",
            "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ]
    );
    let inserted: Vec<(&str, &str)> = input
        .lines()
        .filter_map(|line| line.strip_prefix("-I "))
        .map(|line| (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap()))
        .collect();
    assert_eq!(
        inserted,
        [
            ("OUTPUT", "KUBE-SERVICES"),
            ("PREROUTING", "KUBE-SERVICES"),
            ("POSTROUTING", "KUBE-POSTROUTING"),
            ("FORWARD", "KUBE-FORWARD"),
            ("INPUT", "KUBE-NODE-PORT"),
            ("INPUT", "KUBE-PROXY-FIREWALL"),
            ("FORWARD", "KUBE-PROXY-FIREWALL"),
            ("INPUT", "KUBE-IPVS-FILTER"),
            ("OUTPUT", "KUBE-IPVS-OUT-FILTER"),
        ]
    );
}

#[test]
fn masquerading_is_random_where_iptables_can() {
    for random_fully in [true, false] {
        let options = FirewallOptions { random_fully, ..FirewallOptions::default() };
        let text = save_text(&ruleset(Family::Ipv4, &options, &BTreeSet::new()));
        assert_eq!(text.matches("--random-fully").count(), usize::from(random_fully));
        assert_eq!(text.matches("-j MASQUERADE").count(), 2);
    }
}

#[test]
fn loopback_sources_leave_first() {
    for (family, first) in
        [(Family::Ipv4, "-s 127.0.0.0/8 -j RETURN"), (Family::Ipv6, "-s ::1/128 -j RETURN")]
    {
        let rules = ruleset(family, &FirewallOptions::default(), &BTreeSet::new());
        assert_eq!(specs(&rules, Chain::Services)[0], first);
    }
}

#[test]
fn external_ips_do_without_physdev_where_the_kernel_has_none() {
    let options = FirewallOptions { physdev: false, ..FirewallOptions::default() };
    let text = save_text(&ruleset(Family::Ipv4, &options, &BTreeSet::new()));
    assert!(!text.contains("physdev"));
    let with = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    assert_eq!(save_text(&with.without_physdev().unwrap()), text);
    assert_eq!(with.without_physdev().unwrap().without_physdev(), None);
    assert_eq!(text.matches("--match-set KUBE-EXTERNAL-IP dst,dst").count(), 4);
}

#[test]
fn drops_are_of_the_family_and_sorted() {
    let key = |address: &str, port, protocol| {
        VirtualServerKey::new(address.parse().unwrap(), port, protocol)
    };
    let drops = BTreeSet::from([
        key("1.2.3.4", 443, Protocol::Sctp),
        key("1.2.3.4", 80, Protocol::Udp),
        key("fd00::4", 80, Protocol::Tcp),
        VirtualServerKey::FirewallMark { mark: 7, family: Family::Ipv4 },
    ]);
    let of = |family| {
        let rules = ruleset(family, &FirewallOptions::default(), &drops);
        specs(&rules, Chain::IpvsOutFilter)
    };
    assert_eq!(
        of(Family::Ipv4),
        [
            "-s 1.2.3.4/32 -m ipvs --vproto 132 --vaddr 1.2.3.4 --vport 443 -j DROP",
            "-s 1.2.3.4/32 -m ipvs --vproto 17 --vaddr 1.2.3.4 --vport 80 -j DROP",
        ]
    );
    assert_eq!(
        of(Family::Ipv6),
        ["-s fd00::4/128 -m ipvs --vproto 6 --vaddr fd00::4 --vport 80 -j DROP"]
    );
}

/// What iptables-save prints when the rules were put into tables that others use as well.
fn among_others(rules: &Ruleset) -> String {
    save_text(rules)
        .replace("*filter\n", "*filter\n:CNI-FORWARD - [0:0]\n-A FORWARD -j CNI-FORWARD\n")
        .replace("*nat\n", "*nat\n:KUBE-SVC-A - [0:0]\n-A PREROUTING -i lo -j ACCEPT\n")
}

#[test]
fn what_is_installed_needs_nothing() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let rules = ruleset(family, &FirewallOptions::default(), &BTreeSet::new());
        let installed = Installed::parse(family, &among_others(&rules));
        assert_eq!(*installed.rules(), rules);
        assert_eq!(save_text(installed.rules()), save_text(&rules));
        assert!(!restore_input(&rules, &installed).contains("-I "));
        assert_eq!(installed.foreign_references().count(), 0);
    }
}

#[test]
fn another_order_of_drops_or_other_quotes_are_no_difference() {
    let drops = ["1.2.3.4", "1.2.3.5"]
        .map(|address| VirtualServerKey::new(address.parse().unwrap(), 80, Protocol::Tcp));
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &drops.into());
    let text = save_text(&rules);
    let mut lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| line.contains("--vport")).unwrap();
    lines.swap(first, first + 1);
    let other = lines.join("\n").replace("\\'", "'");
    assert_ne!(other, text);
    assert_eq!(*Installed::parse(Family::Ipv4, &other).rules(), rules);
}

#[test]
fn every_missing_or_changed_line_is_found() {
    let drops =
        BTreeSet::from([VirtualServerKey::new("1.2.3.4".parse().unwrap(), 80, Protocol::Tcp)]);
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &drops);
    let text = save_text(&rules);
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("-A ")) {
        let mut without = lines.clone();
        without.remove(index);
        let installed = Installed::parse(Family::Ipv4, &without.join("\n"));
        assert_ne!(*installed.rules(), rules, "without {line}");
        assert_eq!(installed.rules().has_base_of(&rules), line.contains("--vaddr"), "{line}");
        if line.starts_with("-A KUBE-") {
            let mut twice = lines.clone();
            twice.insert(index, line);
            let installed = Installed::parse(Family::Ipv4, &twice.join("\n"));
            assert_ne!(*installed.rules(), rules, "twice {line}");
        }
        let foreign = line.replacen(" -j ", " -m length --length 1 -j ", 1);
        let other = text.replacen(line, &foreign, 1);
        let installed = Installed::parse(Family::Ipv4, &other);
        assert_ne!(*installed.rules(), rules, "{foreign}");
        // What is not ours is data, and printed as it is.
        if line.starts_with("-A KUBE-") && !line.contains("--vaddr") {
            assert_eq!(save_text(installed.rules()), other);
        }
    }
    let without_chain =
        text.replace(":KUBE-MARK-MASQ - [0:0]\n", "").replace("-A KUBE-MARK-MASQ", "-A X");
    assert_ne!(*Installed::parse(Family::Ipv4, &without_chain).rules(), rules);
}

/// Every rule of every option is known again, and what says something else is not.
#[test]
fn rules_are_read_as_what_they_are() {
    let drops = |family| {
        let address = match family {
            Family::Ipv4 => "1.2.3.4",
            Family::Ipv6 => "fd00::4",
        };
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .map(|protocol| VirtualServerKey::new(address.parse().unwrap(), 80, protocol))
            .into()
    };
    let net = |family| match family {
        Family::Ipv4 => "10.244.0.0/16".parse().unwrap(),
        Family::Ipv6 => "fd00:244::/32".parse().unwrap(),
    };
    for family in [Family::Ipv4, Family::Ipv6] {
        for bits in 0..64_u8 {
            let options = FirewallOptions {
                masquerade_all: bits & 1 != 0,
                masquerade_bit: bits % 32,
                random_fully: bits & 2 != 0,
                physdev: bits & 4 != 0,
                answer_ping: bits & 8 != 0,
                accept_input: bits & 16 != 0,
                detector: match bits % 4 {
                    0 => LocalDetector::None,
                    1 => LocalDetector::Cidr(net(family)),
                    2 => LocalDetector::Bridge("cbr0".to_owned()),
                    _ => LocalDetector::InterfacePrefix("veth".to_owned()),
                },
                split: (bits & 32 != 0).then_some(0x1000),
            };
            let rules = ruleset(family, &options, &drops(family));
            let text = save_text(&rules);
            assert_eq!(*Installed::parse(family, &text).rules(), rules, "{text}");
        }
    }
}

#[test]
fn a_jump_that_is_there_is_neither_moved_nor_doubled() {
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    let installed = Installed::parse(
        Family::Ipv4,
        "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -i lo -j ACCEPT\n\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-ABCDEF\nCOMMIT\n",
    );
    let input = restore_input(&rules, &installed);
    assert!(!input.contains("-I PREROUTING"));
    assert_eq!(input.matches("-I ").count(), 8);
    let foreign = "-d 10.96.0.1/32 -j KUBE-SVC-ABCDEF";
    assert_eq!(
        installed.rules().chain(Chain::Services),
        Some(&[Entry::Foreign(foreign.into())][..])
    );
}

#[test]
fn chains_of_another_policy_go_when_rules_are_installed() {
    let of = |split: bool| FirewallOptions {
        split: split.then_some(0x1000),
        ..FirewallOptions::default()
    };
    let rules = |split| ruleset(Family::Ipv4, &of(split), &BTreeSet::new());
    let installed = |split| Installed::parse(Family::Ipv4, &save_text(&rules(split)));
    let to_ours = restore_input(&rules(false), &installed(true));
    let mangle = to_ours.split("COMMIT").find(|part| part.contains("*mangle")).unwrap();
    for line in [
        "-D PREROUTING -m comment --comment \"kubernetes local traffic policy\" -j KUBE-LOCAL-MARK",
        "-D OUTPUT -m comment --comment \"kubernetes local traffic policy\" -j KUBE-LOCAL-MARK",
        ":KUBE-LOCAL-MARK - [0:0]",
        "-X KUBE-LOCAL-MARK",
    ] {
        assert!(mangle.contains(line), "{mangle}");
    }
    assert_eq!(to_ours.matches("-X ").count(), 1, "{to_ours}");
    assert!(!restore_input(&rules(false), &installed(false)).contains("mangle"));
    let back = restore_input(&rules(true), &installed(false));
    assert_eq!(back.matches("-I ").count(), 2, "{back}");
    assert_eq!(back.matches("-X ").count(), 0, "{back}");
}

#[test]
fn removal_takes_what_is_there_and_nothing_else() {
    assert_eq!(Installed::parse(Family::Ipv4, "").removal_input(), "");
    let text = "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n\
        :KUBE-SVC-A - [0:0]\n\
        -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A KUBE-SVC-A -j KUBE-MARK-MASQ\nCOMMIT\n\
        *mangle\n:KUBE-SERVICES - [0:0]\nCOMMIT\n";
    let installed = Installed::parse(Family::Ipv4, text);
    assert_eq!(
        installed.foreign_references().collect::<Vec<_>>(),
        ["nat: -A KUBE-SVC-A -j KUBE-MARK-MASQ"]
    );
    let jump = "-D OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n";
    assert_eq!(
        installed.removal_input(),
        format!(
            "*nat\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]\n{jump}{jump}\
             -X KUBE-SERVICES\nCOMMIT\n"
        )
    );
}

/// What the options add, and nowhere else is anything changed.
#[test]
fn options_add_rules_of_their_own() {
    let plain = FirewallOptions::default();
    let ping = FirewallOptions { answer_ping: true, ..plain.clone() };
    let accept = FirewallOptions { accept_input: true, ..plain.clone() };
    let both = FirewallOptions { answer_ping: true, accept_input: true, ..plain.clone() };
    let added = |family, options: &FirewallOptions| -> Vec<String> {
        let text = |options| save_text(&ruleset(family, options, &BTreeSet::new()));
        let (without, with) = (text(&plain), text(options));
        let mut rest = without.lines().peekable();
        let added = with.lines().filter(|line| rest.next_if_eq(line).is_none());
        let added: Vec<String> = added.map(str::to_owned).collect();
        assert_eq!(rest.next(), None, "{with}");
        added
    };
    let echo = "-p icmp -m icmp --icmp-type 8 -m set --match-set KUBE-IPVS-IPS dst";
    assert_eq!(added(Family::Ipv4, &ping), [format!("-A KUBE-IPVS-FILTER {echo} -j RETURN")]);
    assert_eq!(
        added(Family::Ipv6, &ping),
        ["-A KUBE-IPVS-FILTER -p ipv6-icmp -m icmp6 --icmpv6-type 128 -m set --match-set \
          KUBE-6-IPVS-IPS dst -j RETURN"]
    );
    let accepted = |prefix: &str| {
        [
            ("", "CLUSTER-IP dst,dst"),
            ("", "LOAD-BALANCER dst,dst"),
            ("", "EXTERNAL-IP dst,dst"),
            ("", "EXTERNAL-IP-LOCAL dst,dst"),
            ("-p tcp ", "NODE-PORT-TCP dst"),
            ("-p udp ", "NODE-PORT-UDP dst"),
            ("-p sctp ", "NODE-PORT-SCTP-HASH dst,dst"),
        ]
        .map(|(protocol, set)| {
            format!("-A KUBE-NODE-PORT {protocol}-m set --match-set {prefix}-{set} -j ACCEPT")
        })
    };
    assert_eq!(added(Family::Ipv4, &accept), accepted("KUBE"));
    assert_eq!(added(Family::Ipv6, &accept), accepted("KUBE-6"));
    let all = added(Family::Ipv4, &both);
    assert!(all.contains(&format!("-A KUBE-IPVS-FILTER {echo} -j ACCEPT")), "{all:?}");
    // They come before the last word of the chain.
    let rules = ruleset(Family::Ipv4, &ping, &BTreeSet::new());
    assert!(specs(&rules, Chain::IpvsFilter).last().unwrap().contains("REJECT"));
}
