//! Packets in every golden scenario: they go with nftables where they go with the rules of iptables,
//! which the scenarios were recorded with.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::slice;
use std::sync::Arc;

use netlink_ipvs::{Family, Protocol, VirtualServerKey};
use proxier::args::Args;
use proxier::config::{Config, Host};
use proxier::dataplane::State;
use proxier::dataplane::firewall::Backend;
use proxier::dataplane::sets::{Member, SetRole};
use proxier::reconcile::{Event, Resolver};
use proxier::settings::{Abilities, settings};
use proxier::source::files;
use proxier_tests::golden::{Scenario, Step};
use proxier_tests::simulated::{Kernel, Simulation, simulate};
use proxier_tests::trace::{Interfaces, Machine, Outcome, Packet, Source};

macro_rules! tests {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                compare(stringify!($name));
            }
        )*
    };
}
proxier_tests::for_each_scenario!(tests);

/// Pods have an interface of their own, or are on the bridge that a scenario names.
const INTERFACES: [Interfaces; 2] =
    [Interfaces::ROUTED, Interfaces { pods: "cni0", ..Interfaces::BRIDGED }];

/// A client that no scenario speaks of.
const STRANGERS: [&str; 2] = ["198.18.0.1", "2001:db8:ffff::1"];

fn compare(name: &str) {
    let scenario = Scenario::load(name).unwrap();
    for step in &scenario.steps {
        let [iptables, nftables] =
            [Backend::Iptables, Backend::Nftables].map(|backend| state(&scenario, step, backend));
        let mut forwarded = 0;
        for interfaces in INTERFACES {
            let host = &scenario.node_addresses;
            let walks = Machine::new(Backend::Iptables, &iptables, host, interfaces);
            let other = Machine::new(Backend::Nftables, &nftables, host, interfaces);
            for packet in packets(&iptables, host).filter(|packet| !walks.is_martian(packet)) {
                let outcome = walks.walk(&packet);
                forwarded += usize::from(matches!(outcome, Outcome::Forwarded(_)));
                assert_eq!(other.walk(&packet), outcome, "{packet:?} in step {}", step.name);
            }
        }
        let answers = |(_, server): (_, &Arc<proxier::dataplane::VirtualServerState>)| {
            !server.real_servers.is_empty()
        };
        assert_eq!(forwarded > 0, iptables.virtual_servers.iter().any(answers), "{}", step.name);
    }
}

/// What a kernel holds once a step's objects are programmed.
fn state(scenario: &Scenario, step: &Step, backend: Backend) -> State {
    let words = ["proxier".to_owned(), format!("--config={}", step.config.display())];
    let config = Config::load(&Args::parse_from(words).unwrap(), &Host).unwrap();
    let objects = files::load(slice::from_ref(&step.objects), &config.node_name).unwrap();
    let abilities = Abilities { backend, ..Abilities::default() };
    let resolver = Resolver::new(move |node, host| settings(&config, &abilities, node, host));
    simulate(async {
        let mut simulation = Simulation::with(Kernel::new(State::default()), resolver);
        simulation.reconciler.take(Event::HostAddresses(scenario.node_addresses.clone()));
        simulation.reconciler.take(Event::Changes(objects.changes));
        simulation.pass(std::time::Duration::from_secs(1)).await;
        assert_eq!(simulation.lacks(), []);
        simulation.state()
    })
}

/// To every virtual server from its own pods and others, and to ports of the same addresses that none has.
fn packets(state: &State, host: &[IpAddr]) -> impl Iterator<Item = Packet> {
    let keys = state.virtual_servers.keys().filter_map(|key| match *key {
        VirtualServerKey::Address { address, port, protocol } => Some((address, port, protocol)),
        VirtualServerKey::FirewallMark { .. } => None,
    });
    let mut places: BTreeSet<_> = keys.collect();
    let health = state.sets.iter().filter(|(set, _)| set.role == SetRole::HealthCheckNodePort);
    let health = health.flat_map(|(_, set)| &set.members).filter_map(|member| match member {
        Member::Port(port) => Some((*port, Protocol::Tcp)),
        _ => None,
    });
    let health: Vec<_> = health.chain([(22, Protocol::Tcp), (22, Protocol::Sctp)]).collect();
    for address in state.interface.addresses.iter().chain(host) {
        places.extend(health.iter().map(|(port, protocol)| (*address, *port, *protocol)));
    }
    let others = others(state);
    places.into_iter().flat_map(move |(destination, port, protocol)| {
        let key = VirtualServerKey::new(destination, port, protocol);
        let servers = state.virtual_servers.get(&key).into_iter();
        let pods = servers.flat_map(|server| server.real_servers.iter());
        let pods = pods.map(|server| server.key.address);
        let pods = pods.flat_map(|pod| [Source::PodHere(pod), Source::PodElsewhere(pod)]);
        let sources: BTreeSet<Source> = others.iter().copied().chain(pods).collect();
        let own = move |source: &Source| match source {
            Source::Outside(ip) | Source::PodHere(ip) | Source::PodElsewhere(ip) => {
                ip.is_ipv4() == destination.is_ipv4()
            }
            Source::Node => true,
        };
        sources.into_iter().filter(own).map(move |source| Packet {
            source,
            destination,
            port,
            protocol,
        })
    })
}

/// The node, those whom source ranges let in, and strangers.
fn others(state: &State) -> BTreeSet<Source> {
    let mut sources = BTreeSet::from([Source::Node]);
    for stranger in STRANGERS {
        let stranger: IpAddr = stranger.parse().unwrap();
        sources.extend([Source::Outside(stranger), Source::PodHere(stranger)]);
    }
    let ranges = [Family::Ipv4, Family::Ipv6].map(|it| SetRole::LoadBalancerSourceCidr.of(it));
    let ranges = ranges.into_iter().filter_map(|set| state.sets.get(&set));
    sources.extend(ranges.flat_map(|set| &set.members).filter_map(|member| match member {
        Member::IpPortNet(.., net) => Some(Source::Outside(net.broadcast())),
        _ => None,
    }));
    sources
}
