//! What becomes of a packet by the Kubernetes objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_ipvs::{Family, Protocol, RealServerKey};

use proxier::dataplane::firewall::Backend;
use proxier::dataplane::split::LocalPolicy;

use super::{Interfaces, Outcome, Packet, Source};
use crate::random::{Detector, Endpoint, Kind, Port, Service, World, node_ip};
use proxier::builders::NODE;

/// What a service port is at some address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    ClusterIp,
    ExternalIp,
    Vip,
    NodePort,
}

/// An address, port and protocol.
type Place = (IpAddr, u16, Protocol);

/// A service that has a place, in the roles that it has it in. The first role says who answers,
/// all of them together who may ask.
struct Holder<'a> {
    service: &'a Service,
    port: &'a Port,
    roles: Vec<Role>,
}

/// What becomes of a packet on the node of this world.
pub fn expected(world: &World, interfaces: Interfaces, packet: &Packet) -> Outcome {
    let statement = Statement { world, interfaces, family: Family::of(packet.destination) };
    statement.outcome(packet)
}

struct Statement<'a> {
    world: &'a World,
    interfaces: Interfaces,
    family: Family,
}

impl<'a> Statement<'a> {
    fn outcome(&self, packet: &Packet) -> Outcome {
        let place = (packet.destination, packet.port, packet.protocol);
        let holder = self.holder(place);
        let source = match packet.source {
            Source::Outside(ip) | Source::PodHere(ip) | Source::PodElsewhere(ip) => ip,
            Source::Node => packet.destination,
        };
        let Some(holder) = holder else {
            // Nobody reaches the node's own processes through an address that is there for
            // services only; but for health check node ports, as in kube-proxy.
            let closed = self.is_bound(packet.destination) && !self.is_health_check(place);
            return if closed { Outcome::Rejected } else { Outcome::NotOurs };
        };
        let allowed = self.may_ask(&holder, source, packet);
        // iptables keeps the node from a virtual server once IPVS has found who answers, nftables
        // before.
        let is_early = packet.source != Source::Node || self.world.backend == Backend::Nftables;
        if is_early && !allowed {
            return Outcome::Dropped;
        }
        let masqueraded = self.is_masqueraded(&holder, source, packet);
        let Some(answering) = self.answering(&holder, source, packet, masqueraded) else {
            return Outcome::Rejected;
        };
        if answering.is_empty() {
            return Outcome::Rejected;
        }
        if !allowed {
            return Outcome::Dropped;
        }
        let masqueraded = masqueraded || self.is_masqueraded_inside(&holder, packet);
        let candidates = answering.into_iter().map(|server| {
            let to_itself = server.address == source && self.is_own_pod(&server, packet.protocol);
            let here = self.world.host.contains(&server.address) || self.is_bound(server.address);
            (server, !here && (masqueraded || to_itself))
        });
        Outcome::Forwarded(candidates.collect())
    }

    /// Services that are proxied in this family.
    fn services(&self) -> impl Iterator<Item = &'a Service> {
        let (world, family) = (self.world, self.family);
        let served = world.families.contains(&family);
        world.services.values().filter(move |service| {
            served && service.kind != Kind::Headless && service.families.contains(&family)
        })
    }

    fn roles(&self, service: &Service, port: &Port, place: Place) -> Vec<Role> {
        let (address, number, protocol) = place;
        let options = &self.world.options;
        let vip = |ip: &(IpAddr, Option<&str>)| ip.0 == address && ip.1 != Some("Proxy");
        let on_node =
            || options.node_port_addresses(&self.world.host, self.family).contains(&address);
        let mut roles = Vec::new();
        if port.protocol == protocol && port.number == number {
            if service.cluster_ips().contains(&address) {
                roles.push(Role::ClusterIp);
            }
            if options.external_ips && service.external_ips.contains(&address) {
                roles.push(Role::ExternalIp);
            }
            if service.ingress.iter().any(vip) {
                roles.push(Role::Vip);
            }
        }
        if port.protocol == protocol && port.node_port == number && number != 0 && on_node() {
            roles.push(Role::NodePort);
        }
        roles
    }

    /// What the API server has allocated goes before what was only written into an object; then
    /// the oldest, then the first by name.
    fn holder(&self, place: Place) -> Option<Holder<'a>> {
        let claims = self.services().filter_map(|service| {
            let mut ports = service.ports.iter().filter_map(|port| {
                let roles = self.roles(service, port, place);
                (!roles.is_empty()).then_some((port, roles))
            });
            let (port, mut roles) = ports.next()?;
            roles.extend(ports.flat_map(|(_, roles)| roles));
            Some(Holder { service, port, roles })
        });
        claims.min_by_key(|holder| {
            let written = matches!(holder.roles[0], Role::ExternalIp | Role::Vip);
            (written, holder.service.created, holder.service.name)
        })
    }

    /// Whether the address is on this node for services only.
    fn is_bound(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family
            && !self.world.host.contains(&address)
            && self.services().any(|service| {
                service.ports.iter().any(|port| {
                    let place = (address, port.number, port.protocol);
                    self.roles(service, port, place).iter().any(|role| *role != Role::NodePort)
                })
            })
    }

    fn is_health_check(&self, (_, port, protocol): Place) -> bool {
        let is_looked_up = match self.world.backend {
            // A bitmap of ports has those of TCP and UDP alike.
            Backend::Iptables => protocol != Protocol::Sctp,
            Backend::Nftables => protocol == Protocol::Tcp,
        };
        is_looked_up
            && self.services().any(|service| {
                service.kind == Kind::LoadBalancer
                    && service.external_local
                    && service.health_check == port
                    && !service.ports.is_empty()
            })
    }

    /// Source ranges are for VIPs. A process of the node may ask where the ranges have the node's
    /// address, though the VIP is what it speaks from.
    fn may_ask(&self, holder: &Holder<'_>, source: IpAddr, packet: &Packet) -> bool {
        let own = |net: &&IpNet| Family::of(net.addr()) == self.family;
        let ranges: Vec<&IpNet> = holder.service.source_ranges.iter().filter(own).collect();
        let everyone = ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0);
        if everyone || !holder.roles.contains(&Role::Vip) {
            return true;
        }
        let addresses = self.world.node.iter().flat_map(|node| &node.addresses).copied();
        let node = node_ip(&addresses.collect::<Vec<_>>(), self.family);
        let has = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
        if packet.source == Source::Node { has(&node) } else { has(&source) }
    }

    fn is_masqueraded(&self, holder: &Holder<'_>, source: IpAddr, packet: &Packet) -> bool {
        let (options, roles) = (&self.world.options, &holder.roles);
        let keeps_source = is_external_local(holder.service);
        let vip = roles.contains(&Role::Vip) && !keeps_source;
        let external = roles.contains(&Role::ExternalIp);
        let from_pod_here = self.is_from_pod(source, packet);
        let cluster_ip = roles.contains(&Role::ClusterIp)
            && (options.masquerade_all
                || if options.detector == Detector::None {
                    packet.source == Source::Node
                } else {
                    !from_pod_here
                });
        vip || cluster_ip
            || (external && !keeps_source)
            // kube-proxy's rules know node ports by their number only, and look it up for every
            // local address but external IPs.
            || (!external && self.is_masqueraded_node_port(packet))
    }

    /// Whether it comes from a pod, as far as the node can tell.
    fn is_from_pod(&self, source: IpAddr, packet: &Packet) -> bool {
        match self.world.options.detector {
            Detector::None => false,
            Detector::Cidr => {
                let pods: IpNet = match self.family {
                    Family::Ipv4 => IpNet::new_assert([10, 244, 0, 0].into(), 16),
                    Family::Ipv6 => IpNet::new_assert([0xfd00, 0x244, 0, 0, 0, 0, 0, 0].into(), 32),
                };
                pods.contains(&source)
            }
            Detector::Bridge => self.interface(packet) == "cbr0",
            Detector::Prefix => self.interface(packet).starts_with("veth"),
        }
    }

    /// Whether clients outside the cluster are told from others.
    fn splits(&self) -> bool {
        self.world.local_policy == LocalPolicy::Split
    }

    fn interface(&self, packet: &Packet) -> &'static str {
        match packet.source {
            Source::Outside(_) | Source::PodElsewhere(_) => self.interfaces.outside,
            Source::PodHere(_) => self.interfaces.pods,
            Source::Node => "",
        }
    }

    /// A process of the node speaks from the VIP, which another node has too; and where all endpoints are on
    /// other nodes, whatever it speaks from is replaced.
    fn is_masqueraded_inside(&self, holder: &Holder<'_>, packet: &Packet) -> bool {
        let all = self.endpoints(holder.service, holder.port);
        let may = |e: &&&Endpoint| is_ready(e) || is_leaving(e);
        let here = all.values().filter(may).any(|e| is_here(e));
        self.splits()
            && packet.source == Source::Node
            && holder.roles[0] != Role::ClusterIp
            && is_external_local(holder.service)
            && all.values().any(|e| may(&e))
            && (!here || self.is_bound(packet.destination))
    }

    fn is_masqueraded_node_port(&self, packet: &Packet) -> bool {
        let mut addresses = self.world.options.node_port_addresses(&self.world.host, self.family);
        if packet.protocol == Protocol::Sctp {
            addresses.retain(|address| *address == packet.destination);
        }
        let holders = addresses.iter().filter_map(|address| {
            let holder = self.holder((*address, packet.port, packet.protocol))?;
            holder.roles.contains(&Role::NodePort).then_some(holder)
        });
        let keep: Vec<bool> = holders.map(|holder| is_external_local(holder.service)).collect();
        !keep.is_empty() && !keep.contains(&true)
    }

    /// Everything that the slices have for a service port, by the rule for what is there twice.
    fn endpoints(&self, service: &Service, port: &Port) -> BTreeMap<RealServerKey, &'a Endpoint> {
        let mut all: BTreeMap<RealServerKey, &Endpoint> = BTreeMap::new();
        for slice in self.world.slices.values() {
            if slice.service != service.name || slice.family != self.family {
                continue;
            }
            for target in &slice.ports {
                if target.name != port.name || target.protocol != port.protocol {
                    continue;
                }
                for endpoint in &slice.endpoints {
                    let key = RealServerKey::new(endpoint.address, target.number);
                    if endpoint.terminating != Some(true) || !all.contains_key(&key) {
                        all.insert(key, endpoint);
                    }
                }
            }
        }
        all
    }

    /// Who may answer; nobody, and the sender is told at once, if a Local policy leaves it to nobody
    /// although there are endpoints.
    fn answering(
        &self,
        holder: &Holder<'_>,
        source: IpAddr,
        packet: &Packet,
        masqueraded: bool,
    ) -> Option<Vec<RealServerKey>> {
        let service = holder.service;
        let all = self.endpoints(service, holder.port);
        let by = |may: &dyn Fn(&Endpoint) -> bool| -> Vec<RealServerKey> {
            all.iter().filter(|(_, endpoint)| may(endpoint)).map(|(key, _)| *key).collect()
        };
        let first = |lists: [Vec<RealServerKey>; 2]| {
            let [first, second] = lists;
            if first.is_empty() { second } else { first }
        };
        let here =
            || first([by(&|e| is_here(e) && is_ready(e)), by(&|e| is_here(e) && is_leaving(e))]);
        let anywhere = || {
            let near = self.near(&all.values().copied().filter(|e| is_ready(e)));
            first([by(&|e| is_ready(e) && near(e)), by(&is_leaving)])
        };
        let from_pod = self.is_from_pod(source, packet);
        let inside = packet.source == Source::Node || from_pod;
        // At an address of the node itself a pod may be one of another node, to which the answer of a third
        // would not come back through here.
        let reaches_all =
            packet.source == Source::Node || from_pod && self.is_bound(packet.destination);
        // Where pods cannot be told from others, nobody is shut out.
        let may_close = self.splits() && self.world.options.detector != Detector::None;
        Some(if holder.roles[0] == Role::ClusterIp {
            if service.internal_local { here() } else { anywhere() }
        } else if !is_external_local(service) || self.splits() && reaches_all && !masqueraded {
            anywhere()
        } else if may_close && !inside && here().is_empty() && !anywhere().is_empty() {
            return None;
        } else {
            // As kube-proxy; also where kube-proxy's rules mark a packet to be masqueraded, since by then
            // its mark is another.
            first([here(), anywhere()])
        })
    }

    /// Which ready endpoints the hints keep: those for this node, else those for its zone, else
    /// all. Hints count only where every ready endpoint has some.
    fn near<'b>(
        &self,
        ready: &(impl Iterator<Item = &'b Endpoint> + Clone),
    ) -> Box<dyn Fn(&Endpoint) -> bool> {
        let zone = self.world.node.as_ref().and_then(|node| node.zone);
        let in_zone = move |e: &Endpoint| zone.is_some_and(|zone| e.zones.contains(&zone));
        let for_node = |e: &Endpoint| e.nodes.contains(&NODE);
        if ready.clone().all(|e| !e.nodes.is_empty()) && ready.clone().any(for_node) {
            Box::new(for_node)
        } else if ready.clone().all(|e| !e.zones.is_empty()) && ready.clone().any(in_zone) {
            Box::new(in_zone)
        } else {
            Box::new(|_| true)
        }
    }

    /// Whether an address and port is that of a pod of this node that some service leads to.
    fn is_own_pod(&self, server: &RealServerKey, protocol: Protocol) -> bool {
        self.services().any(|service| {
            service.ports.iter().any(|port| {
                port.protocol == protocol
                    && self.endpoints(service, port).get(server).is_some_and(|e| is_here(e))
            })
        })
    }
}

fn is_external_local(service: &Service) -> bool {
    let outside = service.kind != Kind::ClusterIp || !service.external_ips.is_empty();
    service.external_local && outside
}

fn is_here(endpoint: &Endpoint) -> bool {
    endpoint.node == Some(NODE)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.ready != Some(false)
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint.serving != Some(false) && endpoint.terminating == Some(true)
}
