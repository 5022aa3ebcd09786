use std::collections::BTreeSet;

use netlink_ipvs::Family;

use super::*;
use crate::dataplane::firewall::{FirewallOptions, ruleset};
use crate::iptables::{Installed, save_text};

/// A node on which kube-proxy ran in iptables mode, and others have rules as well.
const IPTABLES_MODE: &str = r#"*mangle
:PREROUTING ACCEPT [0:0]
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "default/none has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAA - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A CNI-HOSTPORT -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAA -s 10.244.0.5/32 -j KUBE-MARK-MASQ
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-AAAA
-A KUBE-SVC-AAAA -j KUBE-SEP-AAAA
COMMIT
"#;

#[test]
fn everything_of_iptables_mode_is_found_and_nothing_else() {
    let leftovers = Leftovers::find(IPTABLES_MODE, Scope::All);
    assert_eq!(leftovers.chains(), 1 + 6 + 6);
    // A rule of someone else keeps this one.
    assert_eq!(leftovers.referred().collect::<Vec<_>>(), ["nat: KUBE-MARK-MASQ"]);
    let input = leftovers.removal_input();
    let count = |start: &str| input.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count(":"), count("-D "), count("-X ")), (13, 6 + 3, 12));
    for kept in ["CNI-HOSTPORT", "KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"] {
        assert!(!input.contains(kept), "{kept}");
    }
}

#[test]
fn taking_over_leaves_our_own_alone() {
    let input = Leftovers::find(IPTABLES_MODE, Scope::NotOurs).removal_input();
    assert_eq!(
        input,
        r#"*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
-D INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-D INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-D INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-D FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-D OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-X KUBE-EXTERNAL-SERVICES
-X KUBE-NODEPORTS
-X KUBE-PROXY-CANARY
-X KUBE-SERVICES
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
-X KUBE-PROXY-CANARY
COMMIT
*nat
:KUBE-NODEPORTS - [0:0]
:KUBE-SEP-AAAA - [0:0]
:KUBE-SVC-AAAA - [0:0]
-X KUBE-NODEPORTS
-X KUBE-SEP-AAAA
COMMIT
"#
    );
}

#[test]
fn our_own_rules_are_no_leftovers() {
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    assert!(Leftovers::find(&save_text(&rules), Scope::NotOurs).is_empty());
    assert_eq!(Leftovers::find("", Scope::All).removal_input(), "");
}

#[test]
fn empty_chains_that_nothing_leads_to_do_nothing() {
    let empty = "*nat\n:KUBE-SVC-A - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n";
    let leftovers = Leftovers::find(empty, Scope::NotOurs);
    assert!(!leftovers.is_active() && !leftovers.is_empty());
    let rule = "*nat\n:KUBE-SVC-A - [0:0]\n-A KUBE-SVC-A -j RETURN\nCOMMIT\n";
    assert!(Leftovers::find(rule, Scope::NotOurs).is_active());
    assert!(Leftovers::find(IPTABLES_MODE, Scope::NotOurs).is_active());
}

/// kube-proxy removes what iptables mode leaves first, which fails while chains of IPVS mode refer
/// to chains that both have.
#[test]
fn ours_first_then_the_rest_leaves_nothing() {
    let rules = ruleset(Family::Ipv4, &FirewallOptions::default(), &BTreeSet::new());
    let ours = Installed::parse(Family::Ipv4, &save_text(&rules));
    assert_eq!(ours.foreign_references().count(), 0);
    let deleted = ours.removal_input().lines().filter(|line| line.starts_with("-X ")).count();
    assert_eq!(deleted, 11);
}
