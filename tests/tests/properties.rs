//! What holds for every cluster and every sequence of changes.

use std::collections::BTreeSet;

use netlink_ipvs::{Family, VirtualServerKey};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proxier::cluster::Change;
use proxier::dataplane::State;
use proxier::dataplane::firewall::Backend;
use proxier::reconcile::Event;
use proxier_tests::packets::{interfaces, packet, sources};
use proxier_tests::random::{Step, World, history, world};
use proxier_tests::simulated::{Kernel, Simulation, cases, prefixes, simulate, unsafe_between};
use proxier_tests::trace::{Machine, Outcome, Packet, Source, expected};

fn kernel() -> Kernel {
    Kernel::new(State::default())
}

/// What a kernel holds, without what is there only because it may not be removed.
async fn rebuilt(world: &World) -> State {
    Simulation::settled(kernel(), world).await.state()
}

/// A world, and changes to it taken a few at a time.
fn changing(length: usize) -> impl Strategy<Value = (World, Vec<Vec<Step>>)> {
    (world(), vec(history(1..4), 1..length))
}

proptest! {
    #![proptest_config(cases(48))]

    /// The objects mean what `random` says they mean.
    #[test]
    fn the_reader_of_manifests_finds_the_facts(world in world()) {
        let folder = std::env::temp_dir().join(format!("proxier-properties-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("world.json");
        std::fs::write(&file, world.manifest())?;
        let loaded = proxier::source::files::load(&[file], proxier::builders::NODE);
        std::fs::remove_dir_all(&folder)?;
        let loaded = loaded.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let facts = |changes: Vec<Change>| -> BTreeSet<String> {
            let mut facts = changes;
            facts.retain(|change| !matches!(change, Change::ServicesListed(_) | Change::SlicesListed(_)));
            facts.iter().map(|change| format!("{change:?}")).collect()
        };
        let said = world.events().into_iter().flat_map(|event| match event {
            Event::Changes(changes) => changes,
            _ => Vec::new(),
        });
        prop_assert_eq!(facts(loaded.changes), facts(said.collect()));
    }

    /// The kernel after many small changes is the kernel after one big one, and nothing is left to
    /// do: what is believed of it is so, and a restart writes nothing.
    #[test]
    fn incremental_is_rebuilt_from_scratch((mut world, changes) in changing(6)) {
        simulate(async {
            let mut simulation = Simulation::settled(kernel(), &world).await;
            for steps in &changes {
                for step in steps { world.take(step); }
                simulation.follow(steps).await;
                prop_assert!(simulation.status.borrow().synced);
                prop_assert_eq!(simulation.lacks(), []);
                simulation.done();
                prop_assert_eq!(simulation.audit().await, 0, "believed what is not so");
                prop_assert_eq!(simulation.done(), []);
            }
            let mut fresh = Simulation::settled(kernel(), &world).await;
            prop_assert_eq!(
                simulation.reconciler.desired().state(),
                fresh.reconciler.desired().state()
            );
            prop_assert_eq!(simulation.reconciler.desired().drops(), fresh.reconciler.desired().drops());
            let state = simulation.state();
            let left: Vec<_> = state
                .differences(&fresh.state())
                .into_iter()
                .filter(|target| !is_excluded(&world, target))
                .collect();
            prop_assert_eq!(left, []);
            let mut restarted = Simulation::settled(Kernel::new(state), &world).await;
            prop_assert_eq!(restarted.done(), []);
            prop_assert!(restarted.status.borrow().synced);
            Ok(())
        })?;
    }

    /// Facts in any order, with a step after each of them or not, lead to the same state; before
    /// the last list nothing is written.
    #[test]
    fn any_order_of_events_gives_the_same_state(
        world in world(),
        order in vec(any::<Index>(), 32),
        steps in vec(any::<bool>(), 32),
    ) {
        simulate(async {
            let mut simulation = Simulation::idle(kernel(), &world);
            let mut events = world.events();
            let mut missing = 4;
            for (at, step) in order.iter().zip(steps) {
                if events.is_empty() {
                    break;
                }
                let event = events.remove(at.index(events.len()));
                let needed = match &event {
                    Event::HostAddresses(_) => true,
                    Event::Changes(changes) => changes.iter().any(|change| matches!(
                        change,
                        Change::ServicesListed(_) | Change::SlicesListed(_) | Change::NodeListed
                    )),
                    _ => false,
                };
                missing -= i32::from(needed);
                simulation.reconciler.take(event);
                if step {
                    simulation.reconciler.step().await;
                }
                if missing > 0 {
                    prop_assert_eq!(simulation.done(), []);
                }
            }
            prop_assert!(events.is_empty());
            simulation.reconciler.step().await;
            prop_assert_eq!(simulation.state(), rebuilt(&world).await);
            Ok(())
        })?;
    }

    /// Whatever part of a plan was carried out, nothing is worse than before and after: see
    /// `unsafe_between`, and no packet from elsewhere takes a way that it takes neither before nor
    /// after.
    #[test]
    fn every_prefix_of_every_plan_is_safe(
        (mut world, changes) in changing(4),
        packets in vec(packet(), 24),
    ) {
        simulate(async {
            let mut before = State::default();
            let mut simulation = Simulation::settled(kernel(), &world).await;
            for steps in std::iter::once(&Vec::new()).chain(&changes) {
                let host = world.host.clone();
                for step in steps { world.take(step); }
                if !steps.is_empty() {
                    simulation.follow(steps).await;
                }
                let ops = simulation.done();
                let after = simulation.state();
                let same_node = host == world.host && ops.len() < 60;
                let machine = |state| Machine::new(world.backend, state, &world.host, interfaces(&world));
                let (old, new) = (machine(&before), machine(&after));
                let packets: Vec<_> = packets
                    .iter()
                    .map(|packet| packet.of(&world))
                    .filter(|packet| same_node && packet.source != Source::Node)
                    .map(|packet| (packet, old.walk(&packet), new.walk(&packet)))
                    .collect();
                for (done, state) in prefixes(&before, &ops).iter().enumerate() {
                    if let Some(wrong) = unsafe_between(&before, state, &after) {
                        prop_assert!(false, "{}, after {} of {:#?}", wrong, done, ops);
                    }
                    let now = new.holding(state, &world.host);
                    for (packet, old, new) in &packets {
                        let way = now.walk(packet);
                        prop_assert!(
                            is_between(&way, old, new),
                            "{:?}: {:?} before, {:?} after, but {:?} after {} of {:#?}",
                            packet, old, new, way, done, ops
                        );
                    }
                }
                before = after;
            }
            Ok(())
        })?;
    }

    /// Who answers, and whose address is seen, is what the objects say: for every address and port
    /// that some service has, and for others.
    #[test]
    fn packets_go_where_the_objects_say(world in world(), packets in vec(packet(), 64)) {
        let interfaces = interfaces(&world);
        let [iptables, nftables] = [Backend::Iptables, Backend::Nftables]
            .map(|backend| World { backend, ..world.clone() })
            .map(|world| { let state = simulate(rebuilt(&world)); (world, state) });
        let state = &iptables.1;
        let machines = [&iptables, &nftables].map(|(world, state)| {
            (world, Machine::new(world.backend, state, &world.host, interfaces))
        });
        let own = state.virtual_servers.keys().flat_map(|key| {
            let &VirtualServerKey::Address { address, port, protocol } = key else {
                return Vec::new();
            };
            let sources = sources(Family::of(address)).into_iter();
            sources
                .map(|source| Packet { source, destination: address, port, protocol })
                .collect()
        });
        let others = packets.iter().map(|packet| packet.of(&world));
        let is_seen = |packet: &Packet| !machines[0].1.is_martian(packet);
        for packet in own.chain(others).filter(is_seen) {
            for (world, machine) in &machines {
                prop_assert_eq!(
                    machine.walk(&packet),
                    expected(world, interfaces, &packet),
                    "{:?} by {}", packet, world.backend
                );
            }
        }
    }
}

/// Whether nobody may remove this although nobody wants it.
fn is_excluded(world: &World, target: &proxier::dataplane::Target) -> bool {
    use proxier::dataplane::Target;
    match target {
        Target::VirtualServer(VirtualServerKey::Address { address, .. }) => {
            world.options.exclude_cidrs.iter().any(|net| net.contains(address))
        }
        _ => false,
    }
}

/// Whether a packet goes as it went before, or as it will go, or to either's real servers.
fn is_between(way: &Outcome, before: &Outcome, after: &Outcome) -> bool {
    if way == before || way == after {
        return true;
    }
    let servers = |outcome: &Outcome| match outcome {
        Outcome::Forwarded(servers) => Some(servers.clone()),
        _ => None,
    };
    match (servers(before), servers(way), servers(after)) {
        // Some of both. While the policy changes, either source address will do.
        (Some(old), Some(now), Some(new)) => {
            now.keys().all(|server| old.contains_key(server) || new.contains_key(server))
        }
        // The real servers come, or go, one after the other; or the virtual server is there before
        // them, or the address before or after it.
        (None, Some(now), Some(all)) | (Some(all), Some(now), None) => {
            now.iter().all(|(server, _)| all.contains_key(server))
        }
        (None, None, _) | (_, None, None) => true,
        (Some(_), None, Some(_)) | (None, Some(_), None) => false,
    }
}
