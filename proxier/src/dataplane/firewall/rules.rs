//! The rules of each chain, in order.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, VirtualServerKey};

use super::Match::{
    DestinationLocal, EchoRequest, Interface, Known, Mark, New, NotBridged, NotInterface,
    NotSource, Set, Source, SourceLocal,
};
use super::Verdict::{Accept, Drop, Jump, MarkOf, Masquerade, Reject, Return, SetMark, ToggleMark};
use super::{Chain, Fields, FirewallOptions, LocalDetector, Match, Rule, Verdict};
use crate::dataplane::sets::SetRole;

/// Every rule of one family, but the drops of single virtual servers.
pub(super) fn all(family: Family, options: &FirewallOptions) -> Vec<(Chain, Rule)> {
    let mut rules = Rules(Vec::with_capacity(48));
    rules.services(family, options);
    rules.postrouting(options);
    rules.load_balancer();
    rules.node_ports();
    rules.add(Chain::MarkMasq, [], SetMark(bit(options)));
    rules.source_ranges();
    rules.forward(options);
    rules.access_filter(options);
    if options.accept_input {
        rules.accept_input();
    }
    if options.split.is_some() {
        rules.split(options);
    }
    rules.0
}

/// The bit that asks for masquerading.
fn bit(options: &FirewallOptions) -> u32 {
    1_u32.wrapping_shl(u32::from(options.masquerade_bit))
}

/// The rule that keeps processes of the node from a virtual server by address. Such a process has
/// that address itself as its source, so the source ranges cannot judge it.
pub(crate) fn drop_rule(key: &VirtualServerKey) -> Option<Rule> {
    let &VirtualServerKey::Address { address, .. } = key else { return None };
    let matches = vec![Source(address.into()), Match::VirtualServer(*key)];
    Some(Rule { comment: None, matches, verdict: Drop })
}

/// Rules under construction.
struct Rules(Vec<(Chain, Rule)>);

impl Rules {
    fn add(&mut self, chain: Chain, matches: impl Into<Vec<Match>>, verdict: Verdict) {
        self.0.push((chain, Rule { comment: None, matches: matches.into(), verdict }));
    }

    fn commented(
        &mut self,
        chain: Chain,
        comment: &'static str,
        matches: impl Into<Vec<Match>>,
        verdict: Verdict,
    ) {
        let comment = Some(Cow::Borrowed(comment));
        self.0.push((chain, Rule { comment, matches: matches.into(), verdict }));
    }

    /// A rule whose comment says what its set is.
    fn explained(
        &mut self,
        chain: Chain,
        (role, fields): (SetRole, Fields),
        others: impl IntoIterator<Item = Match>,
        verdict: Verdict,
    ) {
        let matches: Vec<Match> = [Set(role, fields)].into_iter().chain(others).collect();
        self.commented(chain, role.comment(), matches, verdict);
    }

    fn services(&mut self, family: Family, options: &FirewallOptions) {
        use Chain::Services;
        let loopback = match family {
            Family::Ipv4 => IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8),
            Family::Ipv6 => IpAddr::from(Ipv6Addr::LOCALHOST).into(),
        };
        self.add(Services, [Source(loopback)], Return);
        if options.split.is_some() {
            // A process of this node may speak from the address itself, and no endpoint is on this node.
            let closed = (SetRole::LocalClosed, Fields::DstDst);
            self.explained(Services, closed, [SourceLocal(true)], Jump(Chain::MarkMasq));
        }
        let load_balancer = (SetRole::LoadBalancer, Fields::DstDst);
        self.explained(Services, load_balancer, [], Jump(Chain::LoadBalancer));
        self.masqueraded_cluster_ips(options);

        let external = (SetRole::ExternalIp, Fields::DstDst);
        self.explained(Services, external, [], Jump(Chain::MarkMasq));
        // Packets for an external IP that reach this node from outside, or that it sends to an
        // address of its own, are IPVS's; what pods send elsewhere stays with the outside.
        let routed = options.physdev.then_some(NotBridged);
        for role in [SetRole::ExternalIp, SetRole::ExternalIpLocal] {
            let external = (role, Fields::DstDst);
            let outside = routed.clone().into_iter().chain([SourceLocal(false)]);
            self.explained(Services, external, outside, Accept);
            self.explained(Services, external, [DestinationLocal], Accept);
        }

        self.add(Services, [DestinationLocal], Jump(Chain::NodePort));
        for role in [SetRole::ClusterIp, SetRole::LoadBalancer] {
            self.add(Services, [Set(role, Fields::DstDst)], Accept);
        }
    }

    /// Which packets to cluster IPs are masqueraded: all, those not from pods of this node, or,
    /// where these cannot be recognised, those whose source is itself a cluster IP.
    fn masqueraded_cluster_ips(&mut self, options: &FirewallOptions) {
        let (outside, fields) = match &options.detector {
            _ if options.masquerade_all => (None, Fields::DstDst),
            LocalDetector::Cidr(net) => (Some(NotSource(net.trunc())), Fields::DstDst),
            LocalDetector::Bridge(name) => (Some(NotInterface(name.clone())), Fields::DstDst),
            LocalDetector::InterfacePrefix(prefix) => {
                (Some(NotInterface(format!("{prefix}+"))), Fields::DstDst)
            }
            LocalDetector::None => (None, Fields::SrcDst),
        };
        let matches: Vec<Match> =
            outside.into_iter().chain([Set(SetRole::ClusterIp, fields)]).collect();
        let comment = SetRole::ClusterIp.comment();
        self.commented(Chain::Services, comment, matches, Jump(Chain::MarkMasq));
    }

    fn postrouting(&mut self, options: &FirewallOptions) {
        use Chain::Postrouting;
        let hairpin = (SetRole::LoopBack, Fields::DstDstSrc);
        self.explained(Postrouting, hairpin, [], Masquerade { random_fully: false });
        if let Some(bits) = options.split {
            // A process of the node that connects to a VIP has the VIP as its source, and an endpoint on
            // another node would answer that node's own VIP. Here and not by the masquerade bit: the mark
            // says which virtual server it is for, and IPVS compares all of it.
            let why = "service addresses as source, from this node";
            let own = [Mark(bits, true), Set(SetRole::IpvsIps, Fields::Src)];
            let random_fully = options.random_fully;
            self.commented(Postrouting, why, own, Masquerade { random_fully });
        }
        self.add(Postrouting, [Mark(bit(options), false)], Return);
        // Clears the bit, so that a packet that passes here again is not masqueraded twice.
        self.add(Postrouting, [], ToggleMark(bit(options)));
        let why = "kubernetes service traffic requiring SNAT";
        let masquerade = Masquerade { random_fully: options.random_fully };
        self.commented(Postrouting, why, [], masquerade);
    }

    /// externalTrafficPolicy Local keeps the client's address.
    fn load_balancer(&mut self) {
        let local = (SetRole::LoadBalancerLocal, Fields::DstDst);
        self.explained(Chain::LoadBalancer, local, [], Return);
        self.add(Chain::LoadBalancer, [], Jump(Chain::MarkMasq));
    }

    fn node_ports(&mut self) {
        use SetRole::{NodePortLocalSctp, NodePortLocalTcp, NodePortLocalUdp};
        let local = [NodePortLocalTcp, NodePortLocalUdp, NodePortLocalSctp];
        for (local, (protocol, every, fields)) in local.into_iter().zip(NODE_PORTS) {
            for (role, verdict) in [(local, Return), (every, Jump(Chain::MarkMasq))] {
                let matches = [Match::Protocol(protocol), Set(role, fields)];
                self.commented(Chain::NodePort, role.comment(), matches, verdict);
            }
        }
    }

    fn source_ranges(&mut self) {
        let restricted = (SetRole::LoadBalancerFw, Fields::DstDst);
        self.explained(Chain::ProxyFirewall, restricted, [], Jump(Chain::SourceRanges));
        for role in [SetRole::LoadBalancerSourceCidr, SetRole::LoadBalancerSourceIp] {
            self.explained(Chain::SourceRanges, (role, Fields::DstDstSrc), [], Return);
        }
        self.add(Chain::SourceRanges, [], Drop);
    }

    fn forward(&mut self, options: &FirewallOptions) {
        let marked = [Mark(bit(options), true)];
        self.commented(Chain::Forward, "kubernetes forwarding rules", marked, Accept);
        let known = "kubernetes forwarding conntrack rule";
        self.commented(Chain::Forward, known, [Known], Accept);
    }

    fn access_filter(&mut self, options: &FirewallOptions) {
        let health_check = (SetRole::HealthCheckNodePort, Fields::Dst);
        self.explained(Chain::NodePortFilter, health_check, [], Accept);
        for (role, fields) in [
            (SetRole::LoadBalancer, Fields::DstDst),
            (SetRole::ClusterIp, Fields::DstDst),
            (SetRole::ExternalIp, Fields::DstDst),
            (SetRole::ExternalIpLocal, Fields::DstDst),
            health_check,
        ] {
            self.add(Chain::IpvsFilter, [Set(role, fields)], Return);
        }
        let bound = Set(SetRole::IpvsIps, Fields::Dst);
        if options.answer_ping {
            // Where INPUT is closed it is opened for services, and this belongs to them.
            let verdict = if options.accept_input { Accept } else { Return };
            self.add(Chain::IpvsFilter, [EchoRequest, bound.clone()], verdict);
        }
        self.add(Chain::IpvsFilter, [New, bound], Reject);
    }

    /// Which clients are inside the cluster: the node itself and pods, as far as they can be told. They reach
    /// all endpoints by the mark; all others reach those of this node, or nobody.
    ///
    /// A pod gets no mark at an address of the node itself. By its address it may be one of another node that
    /// uses a node port of this one, and the answer of a third node would not come back through here.
    fn split(&mut self, options: &FirewallOptions) {
        let (inside, outside) = match &options.detector {
            LocalDetector::None => (None, None),
            LocalDetector::Cidr(net) => (Some(Source(net.trunc())), Some(NotSource(net.trunc()))),
            LocalDetector::Bridge(name) => {
                (Some(Interface(name.clone())), Some(NotInterface(name.clone())))
            }
            LocalDetector::InterfacePrefix(prefix) => {
                let name = format!("{prefix}+");
                (Some(Interface(name.clone())), Some(NotInterface(name)))
            }
        };
        self.add(Chain::LocalMark, [SourceLocal(true)], MarkOf(SetRole::LocalMark));
        if let Some(inside) = inside {
            let bound = Set(SetRole::IpvsIps, Fields::Dst);
            self.add(Chain::LocalMark, [inside, bound], MarkOf(SetRole::LocalMark));
        }
        if let Some(outside) = outside {
            let role = SetRole::LocalClosed;
            let matches = [outside, Set(role, Fields::DstDst), New];
            // After the source ranges: who is shut out by these is not told.
            self.commented(Chain::ProxyFirewall, role.comment(), matches, Reject);
        }
    }

    /// Packets to services, whatever INPUT says of them afterwards. In the chain that INPUT comes to
    /// after the source ranges.
    fn accept_input(&mut self) {
        for role in [
            SetRole::ClusterIp,
            SetRole::LoadBalancer,
            SetRole::ExternalIp,
            SetRole::ExternalIpLocal,
        ] {
            self.add(Chain::NodePortFilter, [Set(role, Fields::DstDst)], Accept);
        }
        for (protocol, role, fields) in NODE_PORTS {
            let matches = [Match::Protocol(protocol), Set(role, fields)];
            self.add(Chain::NodePortFilter, matches, Accept);
        }
    }
}

/// The sets of node ports. Those of SCTP are known by address too.
const NODE_PORTS: [(Protocol, SetRole, Fields); 3] = [
    (Protocol::Tcp, SetRole::NodePortTcp, Fields::Dst),
    (Protocol::Udp, SetRole::NodePortUdp, Fields::Dst),
    (Protocol::Sctp, SetRole::NodePortSctp, Fields::DstDst),
];
