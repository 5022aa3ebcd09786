//! The firewall rules in a real kernel, with the real iptables. `tests/run` gives every test a
//! network namespace of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use proxier::dataplane::firewall::{FirewallOptions, LocalDetector, Ruleset, ruleset};
use proxier::dataplane::sets::{SetId, SetType};
use proxier::iptables::{Leftovers, Scope, save_text};
use proxier::kernel::firewall::{Firewall, Variant};

/// Runs a shell script and returns what it prints. iptables is the legacy one there.
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}\n{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The firewall, with the sets that the rules refer to.
fn firewall() -> Firewall {
    assert!(
        std::env::var_os("PROXIER_TEST_KERNEL").is_some(),
        "this test changes the kernel's network: run it with tests/run"
    );
    let mut script = String::new();
    for set in SetId::all() {
        let options = match (set.set_type(), set.family) {
            (SetType::BitmapPort, _) => "range 0-65535",
            (_, Family::Ipv4) => "family inet",
            (_, Family::Ipv6) => "family inet6",
        };
        let _ = writeln!(script, "create {set} {} {options}", set.set_type().name());
    }
    sh(&format!("ipset restore <<'END'\n{script}END"));
    Firewall::find(None)
}

fn rules(family: Family) -> Ruleset {
    let key =
        |address: &str, protocol| VirtualServerKey::new(address.parse().unwrap(), 443, protocol);
    let drops = BTreeSet::from([
        key("203.0.113.1", Protocol::Sctp),
        key("203.0.113.2", Protocol::Tcp),
        key("203.0.113.2", Protocol::Udp),
        key("2001:db8::1", Protocol::Sctp),
        key("2001:db8::2", Protocol::Tcp),
        key("2001:db8::2", Protocol::Udp),
    ]);
    let detector = match family {
        Family::Ipv4 => LocalDetector::Cidr("10.244.0.0/16".parse().unwrap()),
        Family::Ipv6 => LocalDetector::Cidr("fd00:10:244::/56".parse().unwrap()),
    };
    ruleset(family, &FirewallOptions { detector, ..FirewallOptions::default() }, &drops)
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn rules_read_back_as_they_were_written() {
    let mut firewall = firewall();
    for family in [Family::Ipv4, Family::Ipv6] {
        assert_eq!(firewall.look(family).unwrap().ours, None);

        let rules = rules(family);
        assert!(!firewall.install(&rules).unwrap().without_physdev);
        // This kernel has no nf_tables: the host's default does not work here, which shows late.
        assert_eq!(firewall.tools(family).unwrap().variant, Variant::Legacy);
        let installed = firewall.observe(family).unwrap();
        assert_eq!(save_text(installed.rules()), save_text(&rules));
        assert_eq!(*installed.rules(), rules);
        // A new process knows it again.
        assert_eq!(Firewall::find(None).look(family).unwrap().ours, Some(rules));

        for detector in [
            LocalDetector::None,
            LocalDetector::Bridge("cni0".into()),
            LocalDetector::InterfacePrefix("veth".into()),
        ] {
            let options = FirewallOptions {
                detector,
                masquerade_bit: 31,
                random_fully: false,
                physdev: false,
                ..FirewallOptions::default()
            };
            let rules = ruleset(family, &options, &BTreeSet::new());
            firewall.install(&rules).unwrap();
            assert_eq!(*firewall.observe(family).unwrap().rules(), rules);
        }
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn rules_of_others_stay_and_ours_are_healed() {
    let mut firewall = firewall();
    sh("iptables -t nat -N KUBE-SERVICES
        iptables -t nat -A PREROUTING -i lo -j ACCEPT
        iptables -t nat -A PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
        iptables -N CNI-FORWARD
        iptables -A FORWARD -j CNI-FORWARD
        iptables -P FORWARD DROP");
    let rules = rules(Family::Ipv4);
    firewall.install(&rules).unwrap();
    // The jump that was there stays behind the other rule; those that were missing come first.
    assert_eq!(
        sh("iptables -t nat -S PREROUTING; iptables -S FORWARD"),
        "-P PREROUTING ACCEPT\n\
         -A PREROUTING -i lo -j ACCEPT\n\
         -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -P FORWARD DROP\n\
         -A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL\n\
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -A FORWARD -j CNI-FORWARD\n"
    );

    let whole = sh("iptables-save | grep '^[-:]' | sed 's/ \\[.*//'");
    for damage in [
        "iptables -F",
        "iptables -t nat -F KUBE-SERVICES",
        "iptables -D KUBE-SOURCE-RANGES-FIREWALL -j DROP",
        "iptables -t nat -D POSTROUTING 1",
        "iptables -t nat -I KUBE-MARK-MASQ -j RETURN",
    ] {
        sh(damage);
        assert_ne!(firewall.look(Family::Ipv4).unwrap().ours.as_ref(), Some(&rules), "{damage}");
        firewall.install(&rules).unwrap();
        assert_eq!(firewall.look(Family::Ipv4).unwrap().ours.as_ref(), Some(&rules), "{damage}");
        sh("iptables -C FORWARD -j CNI-FORWARD 2>/dev/null || iptables -A FORWARD -j CNI-FORWARD");
        assert_eq!(sh("iptables-save | grep '^[-:]' | sed 's/ \\[.*//'"), whole, "{damage}");
    }

    // A rule of someone else leads to a chain of ours: that chain stays, empty.
    sh("iptables -t nat -N KUBE-SVC-A; iptables -t nat -A KUBE-SVC-A -j KUBE-MARK-MASQ");
    let removal = firewall.remove(Family::Ipv4).unwrap();
    assert!(removal.found);
    assert_eq!(removal.foreign, ["nat: -A KUBE-SVC-A -j KUBE-MARK-MASQ"]);
    assert_eq!(
        sh("iptables-save | grep KUBE-M"),
        ":KUBE-MARK-MASQ - [0:0]\n-A KUBE-SVC-A -j KUBE-MARK-MASQ\n"
    );
    assert_eq!(
        sh("iptables -t nat -S PREROUTING; iptables -S"),
        "-P PREROUTING ACCEPT\n-A PREROUTING -i lo -j ACCEPT\n\
         -P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N CNI-FORWARD\n\
         -A FORWARD -j CNI-FORWARD\n"
    );
    sh("iptables -t nat -F KUBE-SVC-A");
    assert!(firewall.remove(Family::Ipv4).unwrap().foreign.is_empty());
    assert_eq!(firewall.look(Family::Ipv4).unwrap().ours, None);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn without_its_sets_the_kernel_refuses_the_rules_and_nothing_changes() {
    let mut firewall = firewall();
    sh("ipset destroy KUBE-LOOP-BACK");
    let error = firewall.install(&rules(Family::Ipv4)).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), proxier::kernel::firewall::ErrorKind::Unsupported, "{text}");
    assert!(text.contains("KUBE-LOOP-BACK"), "{text}");
    assert_eq!(firewall.look(Family::Ipv4).unwrap().ours, None);
}

/// A node on which kube-proxy ran in iptables mode: taken over, then cleaned up.
#[test]
#[ignore = "needs a kernel with IPVS: tests/run"]
fn a_node_in_iptables_mode_is_taken_over_and_cleaned_up() {
    const OTHERS: &str = "*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\nCOMMIT\n\
        *mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
        *nat\n:CNI-HOSTPORT - [0:0]\n-A CNI-HOSTPORT -j RETURN\nCOMMIT\n";
    const IPTABLES_MODE: &str = r#"*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-SERVICES -d 10.96.0.9/32 -j REJECT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-A
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -j KUBE-MARK-MASQ
COMMIT
"#;
    let load = |text: &str| sh(&format!("iptables-restore --noflush <<'END'\n{text}END"));
    let saved = || sh("iptables-save | grep '^[-:*]' | sed 's/ \\[.*//' | sort");
    let mut firewall = firewall();
    let rules = rules(Family::Ipv4);
    load(OTHERS);
    let others = saved();
    firewall.install(&rules).unwrap();
    let ours = saved();
    let cleanup = |firewall: &mut Firewall| {
        firewall.remove(Family::Ipv4).unwrap();
        firewall.remove_leftovers(Family::Ipv4, Scope::All).unwrap();
    };
    cleanup(&mut firewall);
    assert_eq!(saved(), others);

    load(IPTABLES_MODE);
    firewall.install(&rules).unwrap();
    let text = firewall.save_text(Family::Ipv4).unwrap();
    let leftovers = Leftovers::find(&text, Scope::NotOurs);
    assert_eq!(leftovers.referred().count(), 0);
    assert!(firewall.look(Family::Ipv4).unwrap().left_over);
    assert!(firewall.remove_leftovers(Family::Ipv4, Scope::NotOurs).unwrap());
    assert!(!firewall.look(Family::Ipv4).unwrap().left_over);
    assert_eq!(saved(), ours);

    cleanup(&mut firewall);
    load(IPTABLES_MODE);
    cleanup(&mut firewall);
    assert_eq!(saved(), others);
}
