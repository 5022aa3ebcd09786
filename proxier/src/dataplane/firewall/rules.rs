//! The rules of each chain, in order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_ipvs::{Family, VirtualServerKey};

use super::save::quoted;
use super::{FirewallOptions, LocalDetector, OUT_FILTER, Rule, Table};
use crate::dataplane::sets::SetRole;

/// Of packets that did not come in through a bridge of this node.
pub(super) const NOT_BRIDGED: &str = " -m physdev ! --physdev-is-in";

/// Every rule of one family.
pub(super) fn all(
    family: Family,
    options: &FirewallOptions,
    drops: &BTreeSet<VirtualServerKey>,
) -> Vec<Rule> {
    let mut rules = Rules { family, table: Table::Nat, out: Vec::with_capacity(48) };
    rules.services(options);
    rules.postrouting(options);
    rules.load_balancer();
    rules.node_ports();
    rules.add("KUBE-MARK-MASQ", format!("-j MARK --set-xmark {}", mark(options)));

    rules.table = Table::Filter;
    rules.source_ranges();
    rules.out_filter(drops);
    rules.forward(options);
    rules.access_filter(options);
    if options.accept_input {
        rules.accept_input();
    }
    rules.out
}

/// `VALUE/MASK` of the bit that asks for masquerading.
fn mark(options: &FirewallOptions) -> String {
    let bit = bit(options);
    format!("{bit:#x}/{bit:#x}")
}

fn bit(options: &FirewallOptions) -> u32 {
    1_u32.wrapping_shl(u32::from(options.masquerade_bit))
}

/// The rule that keeps processes of the node from a virtual server by address.
pub(super) fn drop_spec(key: &VirtualServerKey) -> Option<String> {
    let &VirtualServerKey::Address { address, port, protocol } = key else { return None };
    let length = match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    Some(format!(
        "-s {address}/{length} -m ipvs --vproto {} --vaddr {address} --vport {port} -j DROP",
        protocol.number()
    ))
}

/// Rules under construction.
struct Rules {
    family: Family,
    table: Table,
    out: Vec<Rule>,
}

impl Rules {
    fn add(&mut self, chain: &'static str, spec: impl Into<String>) {
        self.out.push(Rule { table: self.table, chain, spec: spec.into() });
    }

    /// `-m set` on a set of this family; `flags` say which of the packet's addresses and ports are
    /// compared with which part of a member.
    fn set(&self, role: SetRole, flags: &str) -> String {
        format!("-m set --match-set {} {flags}", role.of(self.family))
    }

    /// The same after the comment that says what the set is.
    fn explained(&self, role: SetRole, flags: &str) -> String {
        format!("-m comment --comment {} {}", quoted(role.comment()), self.set(role, flags))
    }

    /// nat: packets to services, from outside and from this node.
    fn services(&mut self, options: &FirewallOptions) {
        const CHAIN: &str = "KUBE-SERVICES";
        let loopback = match self.family {
            Family::Ipv4 => "127.0.0.0/8",
            Family::Ipv6 => "::1/128",
        };
        self.add(CHAIN, format!("-s {loopback} -j RETURN"));

        let load_balancer = self.explained(SetRole::LoadBalancer, "dst,dst");
        self.add(CHAIN, format!("{load_balancer} -j KUBE-LOAD-BALANCER"));

        let cluster_ip = self.masqueraded_cluster_ip(options);
        self.add(CHAIN, cluster_ip);

        let external = self.explained(SetRole::ExternalIp, "dst,dst");
        self.add(CHAIN, format!("{external} -j KUBE-MARK-MASQ"));
        // Packets for an external IP that reach this node from outside, or that it sends to an
        // address of its own, are IPVS's; what pods send elsewhere stays with the outside.
        let routed = if options.physdev { NOT_BRIDGED } else { "" };
        for role in [SetRole::ExternalIp, SetRole::ExternalIpLocal] {
            let external = self.explained(role, "dst,dst");
            self.add(CHAIN, format!("{external}{routed} -m addrtype ! --src-type LOCAL -j ACCEPT"));
            self.add(CHAIN, format!("{external} -m addrtype --dst-type LOCAL -j ACCEPT"));
        }

        self.add(CHAIN, "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT");
        for role in [SetRole::ClusterIp, SetRole::LoadBalancer] {
            let set = self.set(role, "dst,dst");
            self.add(CHAIN, format!("{set} -j ACCEPT"));
        }
    }

    /// Which packets to cluster IPs are masqueraded: all, those not from pods of this node, or,
    /// where these cannot be recognised, those whose source is itself a cluster IP.
    fn masqueraded_cluster_ip(&self, options: &FirewallOptions) -> String {
        let (outside, flags) = match &options.detector {
            _ if options.masquerade_all => (String::new(), "dst,dst"),
            LocalDetector::Cidr(net) => (format!("! -s {} ", net.trunc()), "dst,dst"),
            LocalDetector::Bridge(name) => (format!("! -i {name} "), "dst,dst"),
            LocalDetector::InterfacePrefix(prefix) => (format!("! -i {prefix}+ "), "dst,dst"),
            LocalDetector::None => (String::new(), "src,dst"),
        };
        format!("{outside}{} -j KUBE-MARK-MASQ", self.explained(SetRole::ClusterIp, flags))
    }

    /// nat: masquerades what was marked, and pods that reach themselves through a service.
    fn postrouting(&mut self, options: &FirewallOptions) {
        const CHAIN: &str = "KUBE-POSTROUTING";
        let hairpin = self.explained(SetRole::LoopBack, "dst,dst,src");
        self.add(CHAIN, format!("{hairpin} -j MASQUERADE"));
        self.add(CHAIN, format!("-m mark ! --mark {} -j RETURN", mark(options)));
        // Clears the bit, so that a packet that passes here again is not masqueraded twice.
        self.add(CHAIN, format!("-j MARK --set-xmark {:#x}/0x0", bit(options)));
        let random = if options.random_fully { " --random-fully" } else { "" };
        let why = quoted("kubernetes service traffic requiring SNAT");
        self.add(CHAIN, format!("-m comment --comment {why} -j MASQUERADE{random}"));
    }

    /// nat: load balancer addresses; externalTrafficPolicy Local keeps the client's address.
    fn load_balancer(&mut self) {
        let local = self.explained(SetRole::LoadBalancerLocal, "dst,dst");
        self.add("KUBE-LOAD-BALANCER", format!("{local} -j RETURN"));
        self.add("KUBE-LOAD-BALANCER", "-j KUBE-MARK-MASQ");
    }

    /// nat: node ports, likewise.
    fn node_ports(&mut self) {
        use SetRole::{
            NodePortLocalSctp, NodePortLocalTcp, NodePortLocalUdp, NodePortSctp, NodePortTcp,
            NodePortUdp,
        };
        for (protocol, local, every, flags) in [
            ("tcp", NodePortLocalTcp, NodePortTcp, "dst"),
            ("udp", NodePortLocalUdp, NodePortUdp, "dst"),
            ("sctp", NodePortLocalSctp, NodePortSctp, "dst,dst"),
        ] {
            for (role, target) in [(local, "RETURN"), (every, "KUBE-MARK-MASQ")] {
                let set = self.explained(role, flags);
                self.add("KUBE-NODE-PORT", format!("-p {protocol} {set} -j {target}"));
            }
        }
    }

    /// filter: load balancer addresses with source ranges are closed to everyone else.
    fn source_ranges(&mut self) {
        const CHAIN: &str = "KUBE-SOURCE-RANGES-FIREWALL";
        let restricted = self.explained(SetRole::LoadBalancerFw, "dst,dst");
        self.add("KUBE-PROXY-FIREWALL", format!("{restricted} -j {CHAIN}"));
        for role in [SetRole::LoadBalancerSourceCidr, SetRole::LoadBalancerSourceIp] {
            let allowed = self.explained(role, "dst,dst,src");
            self.add(CHAIN, format!("{allowed} -j RETURN"));
        }
        self.add(CHAIN, "-j DROP");
    }

    /// filter: a process of this node that connects to such an address has the address itself as
    /// its source, so the chain above cannot judge it.
    fn out_filter(&mut self, drops: &BTreeSet<VirtualServerKey>) {
        let mut specs = Vec::new();
        for key in drops.iter().filter(|key| key.family() == self.family) {
            specs.extend(drop_spec(key));
        }
        // By text, so that what is read back in any order can be brought into the same one.
        specs.sort_unstable();
        for spec in specs {
            self.add(OUT_FILTER, spec);
        }
    }

    /// filter: service traffic that this node forwards.
    fn forward(&mut self, options: &FirewallOptions) {
        const CHAIN: &str = "KUBE-FORWARD";
        let marked = quoted("kubernetes forwarding rules");
        self.add(
            CHAIN,
            format!("-m comment --comment {marked} -m mark --mark {} -j ACCEPT", mark(options)),
        );
        let known = quoted("kubernetes forwarding conntrack rule");
        self.add(
            CHAIN,
            format!(
                "-m comment --comment {known} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            ),
        );
    }

    /// filter: ports of the node's own processes must not be reachable through the addresses on
    /// `kube-ipvs0`.
    fn access_filter(&mut self, options: &FirewallOptions) {
        const CHAIN: &str = "KUBE-IPVS-FILTER";
        let health_check = self.explained(SetRole::HealthCheckNodePort, "dst");
        self.add("KUBE-NODE-PORT", format!("{health_check} -j ACCEPT"));
        for (role, flags) in [
            (SetRole::LoadBalancer, "dst,dst"),
            (SetRole::ClusterIp, "dst,dst"),
            (SetRole::ExternalIp, "dst,dst"),
            (SetRole::ExternalIpLocal, "dst,dst"),
            (SetRole::HealthCheckNodePort, "dst"),
        ] {
            let set = self.set(role, flags);
            self.add(CHAIN, format!("{set} -j RETURN"));
        }
        let icmp = match self.family {
            Family::Ipv4 => "icmp-port-unreachable",
            Family::Ipv6 => "icmp6-port-unreachable",
        };
        let bound = self.set(SetRole::IpvsIps, "dst");
        if options.answer_ping {
            let echo = match self.family {
                Family::Ipv4 => "-p icmp -m icmp --icmp-type 8",
                Family::Ipv6 => "-p ipv6-icmp -m icmp6 --icmpv6-type 128",
            };
            // Where INPUT is closed it is opened for services, and this belongs to them.
            let target = if options.accept_input { "ACCEPT" } else { "RETURN" };
            self.add(CHAIN, format!("{echo} {bound} -j {target}"));
        }
        self.add(
            CHAIN,
            format!("-m conntrack --ctstate NEW {bound} -j REJECT --reject-with {icmp}"),
        );
    }

    /// filter: packets to services, whatever INPUT says of them afterwards. In the chain that INPUT
    /// comes to after the source ranges.
    fn accept_input(&mut self) {
        let services = [
            SetRole::ClusterIp,
            SetRole::LoadBalancer,
            SetRole::ExternalIp,
            SetRole::ExternalIpLocal,
        ];
        for role in services {
            let set = self.set(role, "dst,dst");
            self.add("KUBE-NODE-PORT", format!("{set} -j ACCEPT"));
        }
        for (protocol, role, flags) in [
            ("tcp", SetRole::NodePortTcp, "dst"),
            ("udp", SetRole::NodePortUdp, "dst"),
            ("sctp", SetRole::NodePortSctp, "dst,dst"),
        ] {
            let set = self.set(role, flags);
            self.add("KUBE-NODE-PORT", format!("-p {protocol} {set} -j ACCEPT"));
        }
    }
}
